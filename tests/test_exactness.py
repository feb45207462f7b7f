"""Exact products: which mode is asked for, and whether the check finds what is not exact."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from resources import processor
from resources.model.exactness import alike_in_one_thread, exactness, row_counts
from resources.model.mkl import mkl_mode
from resources.model.packing import UNIT, shape_free
from resources.model.policy import load_policy
from resources.processor import AVX2, AVX512, choose_mode, read_cpuinfo

INTEL = {"vendor_id": "GenuineIntel", "model name": "Intel(R) Xeon(R) Processor @ 2.10GHz"}
HASWELL = "fpu sse sse2 ssse3 fma sse4_1 sse4_2 avx f16c avx2 bmi1 bmi2"
SKYLAKE = f"{HASWELL} avx512f avx512dq avx512cd avx512bw avx512vl"
KNIGHTS = f"{HASWELL} avx512f avx512pf avx512er avx512cd"


@pytest.mark.parametrize(
    ("cpuinfo", "mode"),
    [
        ({**INTEL, "flags": SKYLAKE}, "AVX512,STRICT"),
        ({**INTEL, "flags": HASWELL}, "AVX2,STRICT"),
        ({**INTEL, "flags": KNIGHTS}, "AVX2,STRICT"),  # AVX-512 without what MKL's branch needs
        ({**INTEL, "flags": "fpu sse sse2 avx"}, ""),  # no branch of its has a strict mode
        ({"vendor_id": "AuthenticAMD", "flags": SKYLAKE}, ""),
        ({"CPU implementer": "0x41", "Features": "fp asimd sve"}, ""),
        ({}, ""),
    ],
    ids=["Intel AVX-512", "Intel AVX2", "Xeon Phi", "old Intel", "AMD", "ARM", "not Linux"],
)
def test_mode_is_chosen_by_processor(cpuinfo, mode):
    assert choose_mode(cpuinfo) == mode


def test_first_processor_is_read_and_the_others_are_not(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: {HASWELL}\n\nvendor_id\t: other\n")
    assert choose_mode(read_cpuinfo(path)) == "AVX2,STRICT"
    assert read_cpuinfo(tmp_path / "missing") == {}


def test_own_mode_of_the_user_stands_even_an_empty_one(monkeypatch):
    monkeypatch.setattr(processor, "read_cpuinfo", lambda: {**INTEL, "flags": SKYLAKE})
    for own in ("COMPATIBLE", ""):
        monkeypatch.setenv("MKL_CBWR", own)
        processor.set_mode()
        assert os.environ["MKL_CBWR"] == own
    monkeypatch.delenv("MKL_CBWR")
    processor.set_mode()
    assert os.environ["MKL_CBWR"] == "AVX512,STRICT"


@pytest.mark.parametrize("by", ["ONEDNN", "DNNL"])
def test_machine_is_another_one_by_either_name_of_what_onednn_is_told(monkeypatch, by):
    told = processor.machine()
    monkeypatch.setenv(f"{by}_MAX_CPU_ISA", "SSE41")
    assert processor.machine() != told


def test_machine_tells_what_chooses_kernels_without_loading_torch(monkeypatch):
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    told = processor.machine()
    assert told["ATEN_CPU_CAPABILITY"] == "avx2"
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert processor.machine() == told
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    assert processor.machine() != told
    code = "import sys, resources.processor as p; p.machine(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(AVX2.isdisjoint(read_cpuinfo().get("flags", "").split()), reason="no x86 processor")
def test_mode_in_force_is_what_mkl_says_and_one_that_comes_too_late_is_told():
    code = (
        "import os, torch\n"
        "{}\n"
        "os.environ['MKL_CBWR'] = 'COMPATIBLE'\n"
        "torch.nn.functional.linear(torch.ones(64, 64), torch.ones(64, 64))\n"
        "from resources.model.mkl import in_words, mkl_mode\n"
        "print(in_words(mkl_mode()))"
    )
    early, late = (run(code.format(first)) for first in ("", "torch.ones(64, 64) @ torch.ones(64, 64)"))
    assert early == "MKL COMPATIBLE"
    assert "MKL_CBWR=COMPATIBLE was set after its first product" in late


def run(code: str) -> str:
    """Its output, in a process to which no mode is handed down."""
    environment = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def policy(tiny_folder):
    return load_policy(tiny_folder / "policy", dtype="float32")


def multiply_by(monkeypatch, linear) -> None:
    """Whichever library this processor's products are by."""
    for place in ("torch.nn.functional.linear", "resources.model.products.product"):
        monkeypatch.setattr(place, linear)


def inexact_below(rows: int):
    """A product that adds up in another order if it has fewer rows, as MKL's kernels do."""
    import torch

    exact = torch.nn.functional.linear

    def linear(values, weight, bias=None):
        half = weight.shape[1] // 2
        if values.numel() // values.shape[-1] >= rows:
            return exact(values, weight, bias)
        return exact(values[..., half:], weight[:, half:]) + exact(values[..., :half], weight[:, :half], bias)

    return linear


def test_exact_products_are_found_exact_and_the_verdict_repeats(policy):
    found = exactness(policy, 128)
    assert found.exact
    assert found.shape_free
    assert found.mode == mkl_mode()
    assert exactness(policy, 128) == found


def test_one_thread_is_alike_where_it_gives_the_same_bits_and_as_many_threads_go_on_as_there_were(policy, monkeypatch):
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = exactness(policy, 128)
        assert alike_in_one_thread(policy, 128, found)
        assert not alike_in_one_thread(policy, 128, replace(found, bits="another"))
        exact, product = torch.nn.functional.linear, inexact_below(100)

        def inexact_alone(*given):
            return (product if torch.get_num_threads() == 1 else exact)(*given)

        multiply_by(monkeypatch, inexact_alone)
        assert not alike_in_one_thread(policy, 128, found), "alone its passes must have one size"
        assert torch.get_num_threads() == 2
        assert shape_free(policy.model) == found.shape_free
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("rows", [32, 100, 120])
def test_product_that_rounds_otherwise_below_some_rows_is_found_and_passes_get_one_size(policy, monkeypatch, rows):
    multiply_by(monkeypatch, inexact_below(rows))
    found = exactness(policy, 128)
    assert not found.shape_free
    assert not shape_free(policy.model)
    assert "gives a row other bits" in found.reason
    assert "all passes have one size" in found.reason


def test_row_that_depends_on_its_place_in_the_pass_is_told_as_not_exact(policy, monkeypatch):
    import torch

    exact = torch.nn.functional.linear

    def by_place(values, weight, bias=None):
        result = exact(values, weight, bias)
        result[..., ::2, :] *= 1 + 1e-6
        return result

    multiply_by(monkeypatch, by_place)
    found = exactness(policy, 128)
    assert not found.exact
    assert "all passes have one size: the product from 32 to 32 gives a row other bits at another place" in found.reason


def test_attention_that_depends_on_its_company_is_found_in_real_passes(policy, monkeypatch):
    from resources.model import generation, packing

    exact = packing.attention

    def by_company(query, key, value, mask, scale):
        mixed = exact(query, key, value, mask, scale)
        return mixed if len(query) > 1 else mixed * (1 + 1e-6)

    for module in (packing, generation):
        monkeypatch.setattr(module, "attention", by_company)
    found = exactness(policy, 128)
    assert not found.exact
    assert "have other bits in other company" in found.reason


@pytest.fixture
def in_bfloat16(tiny_folder):
    return load_policy(tiny_folder / "policy", dtype="bfloat16", path="packed")


def test_bfloat16_has_passes_of_one_size_until_it_is_tried_and_any_afterwards_where_products_allow(
    in_bfloat16, monkeypatch
):
    # In float32 and rounded, which no number of rows changes; and attention whose batches have no kernels of their own.
    import torch

    from resources.model import generation, packing

    exact, attention = torch.nn.functional.linear, packing.attention
    multiply_by(monkeypatch, lambda x, weight, bias=None: exact(x.float(), weight.float()).to(x.dtype))
    for module in (packing, generation):
        monkeypatch.setattr(
            module, "attention", lambda q, k, v, m, s: attention(q.float(), k.float(), v.float(), m, s).to(q.dtype)
        )
    assert not shape_free(in_bfloat16.model)
    found = exactness(in_bfloat16, 128)
    assert found.exact
    assert found.shape_free
    assert shape_free(in_bfloat16.model)


def test_adapter_beside_the_weights_that_rounds_by_its_company_is_found(in_bfloat16, monkeypatch):
    import torch

    exact = torch.nn.functional.linear

    def narrow_by_company(x, weight, bias=None):
        result = exact(x.float(), weight.float())
        return (result * (1.1 if weight.shape[0] == 4 and len(x) > 64 else 1)).to(x.dtype)

    multiply_by(monkeypatch, narrow_by_company)
    found = exactness(in_bfloat16, 128)
    assert not found.shape_free
    assert "to 4 gives a row other bits" in found.reason


def test_other_bits_are_another_identity(policy, monkeypatch):
    before = exactness(policy, 128).bits
    multiply_by(monkeypatch, inexact_below(10_000))
    after = exactness(policy, 128)
    assert after.exact
    assert after.bits != before


def test_mixture_of_experts_is_not_exact(tmp_path):
    from transformers import MixtralConfig, MixtralForCausalLM

    from tests import tiny

    tokenizer = tiny.make_tokenizer()
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_local_experts": 4}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "sliding_window": None}
    ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": None, "pad_token_id": tokenizer.pad_token_id}
    config = MixtralConfig(vocab_size=len(tokenizer), max_position_embeddings=256, **sizes, **heads, **ends)
    MixtralForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found = exactness(load_policy(tmp_path, dtype="float32"), 128)
    assert not found.exact


def test_numbers_of_rows_that_are_tried_are_all_of_a_small_matrix_and_some_of_a_large_one():
    assert row_counts(1024, 576 * 1536) == list(range(UNIT, 1024, UNIT))
    few = row_counts(1024, 4096 * 11008)
    assert few[:16] == list(range(16, 257, 16))
    assert few[-1] == 1008
    assert len(few) < 24


def test_avx512_is_asked_for_where_mkl_has_all_that_its_branch_needs():
    assert choose_mode({**INTEL, "flags": " ".join(AVX512 - {"avx512vl"} | AVX2)}) == "AVX2,STRICT"
