"""What a model needs of memory is told before it is loaded, and is what it then takes."""

import json
import random
import subprocess

import pytest
import torch
import yaml

from resources.model import device_memory
from resources.model.device_memory import free_memory
from resources.model.generation import Engine, greedy
from resources.model.memory import (
    Held,
    Pass,
    UnknownSizes,
    kept_of_a_layer,
    lora_of,
    lora_weights,
    most_cached,
    sizes_of,
    to_answer,
    to_train,
    weights,
)
from resources.model.policy import load_base, load_policy
from tests import tiny
from tests.architectures import make_architecture

RANK = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model whose layers are wide enough that what they keep shows."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder, tokenizer = tmp_path_factory.mktemp("wide"), tiny.make_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1000, hidden_size=96, intermediate_size=256, num_hidden_layers=4, num_attention_heads=6,
        num_key_value_heads=2, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def adapted(folder, dtype):
    from peft import LoraConfig, get_peft_model

    model, _ = load_base(folder, dtype, "none", "cpu")
    return get_peft_model(model, LoraConfig(r=RANK, target_modules="all-linear", task_type="CAUSAL_LM"))


def kept_by_a_pass(model, sequences):
    """(bytes that autograd keeps of a pass through the layers, the pass)."""
    from resources.training.fused_lora import fuse_lora
    from resources.training.shared_prompts import pack_pairs

    fuse_lora(model)
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    pack, _ = pack_pairs(sequences, max(map(len, sequences)), "cpu")
    found, held = {}, []

    def keep(tensor):
        storage = tensor.untyped_storage()
        held.append(tensor)  # so that no other tensor gets its place
        found[storage.data_ptr()] = storage.nbytes()
        return tensor

    backbone = model.get_base_model().base_model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        backbone(input_ids=pack.ids, position_ids=pack.positions, layout=pack, use_cache=False)
    ends = [*pack.starts[1:], pack.used]
    its = Pass(tuple(end - start for start, end in zip(pack.starts, ends, strict=True)), pack.prefix)
    return sum(size for place, size in found.items() if place not in parameters), its


def pairs(count, prompt, answer, prefix=0):
    draw = random.Random(3)
    begin = [draw.randrange(5, 200) for _ in range(prefix)]
    prompts = [[*begin, *(draw.randrange(5, 200) for _ in range(prompt))] for _ in range(count)]
    return [[*ids, *(draw.randrange(5, 200) for _ in range(answer))] for _ in range(2) for ids in prompts]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(6, 90, 10), (3, 20, 60), (4, 30, 8, 40)], ids=["prompts", "answers", "prefix"])
def test_what_layers_keep_of_a_training_pass_is_what_is_told(folder, dtype, shape):
    sizes = sizes_of(folder)
    kept, its = kept_by_a_pass(adapted(folder, dtype), pairs(*shape))
    told = sizes.layers * kept_of_a_layer(sizes, Held(dtype), its, sizes.linear, RANK)
    assert told == pytest.approx(kept, rel=0.1)


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt_neox", "phi", "olmo2", "mixtral"])
def test_weights_and_adapter_of_an_architecture_are_counted_from_headers(name, tmp_path):
    folder = make_architecture(name, tmp_path / "policy")
    model, sizes = load_base(folder, "float32", "none", "cpu")[0], sizes_of(folder)
    assert weights(sizes, Held("float32")) == sum(4 * p.numel() for p in model.parameters())
    assert weights(sizes, Held("bfloat16")) == weights(sizes, Held("float32")) // 2
    layers = len(model.get_decoder().layers)
    assert (sizes.layers, sizes.hidden) == (layers, model.get_input_embeddings().embedding_dim)


def test_adapter_has_as_many_weights_as_are_told_whichever_layers_it_is_on(folder, tmp_path):
    sizes = sizes_of(folder)
    trained = sum(p.numel() for p in adapted(folder, "float32").parameters() if p.requires_grad)
    assert lora_weights(sizes, RANK, "all-linear") == trained
    adapter = tiny.make_adapter(tmp_path / "adapter", folder, r=3, target_modules=["q_proj", "v_proj"])
    from resources.model.files import shapes_in

    held = sum(shape[0] * shape[1] for shape in shapes_in(adapter / "adapter_model.safetensors").values())
    assert lora_weights(sizes, 3, ["q_proj", "v_proj"]) == held
    rank, targets = lora_of(adapter / "adapter_model.safetensors")
    assert (rank, lora_weights(sizes, rank, targets)) == (3, held)


@pytest.mark.parametrize("lengths", [[40] * 30, [200, *[60] * 9, *[20] * 30], [70] * 5 + [10] * 5])
def test_caches_of_answers_in_the_making_are_as_large_as_is_told(folder, lengths):
    policy, sizes = load_policy(folder, dtype="float32", path="packed"), sizes_of(folder)
    questions = [(place, [7] * length) for place, length in enumerate(lengths)]
    engine, most = Engine(policy.model, [], questions, set(), 6, 64, greedy), 0
    while engine.waiting or engine.running:
        engine.step()
        caches = [states for cache in engine.caches.values() for states in (cache.keys, cache.values)]
        most = max(most, sum(tensor.nbytes for its in caches for tensor in its.values()))
    counts = {length: lengths.count(length) for length in lengths}
    a_token = 2 * sizes.layers * sizes.groups * sizes.head_size * 4
    assert a_token * most_cached(counts, 64 // 4, 6) == pytest.approx(most, rel=0.15)


def test_each_setting_that_is_to_help_does(folder):
    sizes, held, step = sizes_of(folder), Held("float32"), {"rank": RANK, "targets": "all-linear", "answers": 80}

    def train(rows=8, length=200, checkpointing=False, held=held):
        return to_train(sizes, held, Pass((length,) * rows), **step, anchors=60, checkpointing=checkpointing)

    assert train(checkpointing=True) < 0.6 * train()
    assert train(rows=1) < train(rows=4) < train()
    assert train(length=100) < train()
    assert train(held=Held("bfloat16", "nf4", "cuda")) < train(held=Held("bfloat16", device="cuda"))
    answering = {"adapter": 0, "new_tokens": 60}
    fewer, more = (to_answer(sizes, held, {40: 500}, **answering, batch_tokens=n) for n in (128, 1024))
    assert fewer < more


def test_configuration_that_does_not_say_how_large_a_layer_is_gives_no_number(tmp_path):
    tiny.make_husks(tmp_path)
    with pytest.raises(UnknownSizes):
        sizes_of(tmp_path / "policy")


# -- what is left -------------------------------------------------------------------------------------------


def group(folder, limit, used, cached=0, names=device_memory.V2):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in zip(names, (limit, used), strict=False):
        (folder / name).write_text(f"{content}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {cached}\n")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    8000 kB\n")
    (tmp_path / "own").write_text("0::/user/job\n")
    for name, path in (("MEMINFO", "meminfo"), ("OWN_CGROUP", "own"), ("CGROUPS", "cgroup")):
        monkeypatch.setattr(device_memory, name, tmp_path / path)
    return tmp_path


def test_memory_that_is_left_on_a_cpu_is_the_least_of_machine_and_groups(machine):
    assert free_memory("cpu") == 8000 * 1024
    group(machine / "cgroup" / "user" / "job", "max", 1000)
    assert free_memory("cpu") == 8000 * 1024
    group(machine / "cgroup" / "user", 3_000_000, 1_000_000, cached=400_000)
    assert free_memory("cpu") == 2_400_000
    group(machine / "cgroup" / "user" / "job", 1_500_000, 1_000_000)
    assert free_memory("cpu") == 500_000


def test_groups_of_the_first_kind_are_read_too_and_a_path_of_the_host_is_the_root(machine):
    (machine / "own").write_text("4:cpu,memory:/docker/abc\n3:cpu:/\n")
    group(machine / "cgroup" / "memory", 2_000_000, 500_000, names=device_memory.V1)
    assert free_memory("cpu") == 1_500_000


def test_memory_of_a_gpu_is_what_nvidia_smi_says_of_the_visible_one(monkeypatch):
    asked = []

    def run(command, **_):
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, "40000\n", "")

    monkeypatch.setattr(device_memory.shutil, "which", lambda name: name)
    monkeypatch.setattr(device_memory.subprocess, "run", run)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert free_memory("cuda") == 40_000 * 2**20
    assert "--id=2" in asked[0]
    monkeypatch.setattr(device_memory.shutil, "which", lambda name: None)
    assert free_memory("cuda") is None


# -- in a plan ----------------------------------------------------------------------------------------------


@pytest.fixture
def planned(tiny_folder, tmp_path, monkeypatch, capsys):
    """Plans an experiment on a device with so many bytes left; returns (what is printed, the plan as JSON)."""
    from typer.testing import CliRunner

    from apt_assets.cli import app

    tiny.write_jsonl(tmp_path / "landing" / "colours.jsonl", tiny.domain_rows(40))
    monkeypatch.setenv("APT_HOME", str(tmp_path))

    def plan(free, **changes):
        content = tiny.experiment(tiny_folder)
        content |= {section: {**content.get(section, {}), **values} for section, values in changes.items()}
        (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
        monkeypatch.setattr("apt_assets.rows.memory.free_memory", lambda device: free)
        said, found = (
            CliRunner().invoke(
                app, ["plan", "--experiment", str(tmp_path / "tiny.yaml"), *more], catch_exceptions=False
            )
            for more in ((), ("--json",))
        )
        return said.stdout, json.loads(found.stdout)

    return plan


def test_plan_of_a_cold_experiment_tells_what_each_heavy_stage_needs(planned):
    said, found = planned(free=10**12)
    needs = {one["stage"]: one["memory"] for one in found if one["iteration"] in ("base", "0001")}
    heavy = {"base_scores", "anchor_texts", "eval_predictions", "adapter_checkpoint", "benchmark_scores", "gate"}
    assert {stage for stage, need in needs.items() if need is not None} == heavy
    assert all(need > 200_000 for stage, need in needs.items() if stage in heavy)
    assert "does not fit" not in said
    assert " MB" in said


def test_what_will_not_fit_is_told_with_the_setting_that_helps(planned):
    libraries = 700_000_000
    said, found = planned(free=libraries + 300_000)
    training = next(line for line in said.splitlines() if line.startswith("adapter_checkpoint needs"))
    assert "training.max_length" in training
    whole = next(one["memory"] for one in found if one["stage"] == "eval_predictions")
    said, _ = planned(free=libraries + int(0.9 * whole))
    line = next(line for line in said.splitlines() if line.startswith("eval_predictions needs"))
    assert "smaller passes" in line
    assert "policy.batch_tokens" in line


def test_longer_rows_and_larger_batches_need_more(planned, tmp_path):
    def training(**changes):
        return next(one["memory"] for one in planned(10**12, **changes)[1] if one["stage"] == "adapter_checkpoint")

    batch = {"batch_size": 256}
    usual = training(training=batch)
    assert usual > 2 * training(training={"batch_size": 64})
    assert training(training={**batch, "gradient_checkpointing": "on"}) < usual
    tiny.write_jsonl(tmp_path / "landing" / "long.jsonl", [{"prompt": "Why? " * 60, "answer": "blue"}])
    assert training(training=batch) > 2 * usual


def test_all_processes_that_compute_rows_are_counted_and_there_are_no_more_than_fit(planned, monkeypatch):
    libraries = 700_000_000

    def needs(free, threads):
        monkeypatch.setattr("apt_assets.engine.spread.free_memory", lambda device: free)
        found = planned(free, policy={"threads": threads})[1]
        return {one["stage"]: one["memory"] for one in found}

    one, four = needs(10**12, 1), needs(10**12, 4)
    answers = one["eval_predictions"]
    assert four["eval_predictions"] == 4 * answers + 3 * libraries
    assert four["adapter_checkpoint"] == one["adapter_checkpoint"], "one process trains"
    two = needs(int(2.5 * (answers + libraries)), 4)
    assert two["eval_predictions"] == 2 * answers + libraries


def test_a_model_that_is_not_here_yet_has_no_number(planned):
    _, found = planned(10**12, policy={"model": "embedded"})
    assert {one["memory"] for one in found} == {None}
