"""Anchored training: the term, that it does what it says in packed passes and plainly, and that it holds."""

import random
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from resources.model.likely import likely_tokens
from resources.model.policy import load_policy
from resources.model.unprompted import say
from resources.store.rows import collect
from resources.training import checkpoints
from resources.training.anchor import Anchor, AnchorText, divergence
from resources.training.checkpoints import Checkpoints
from resources.training.trainer import train_adapter
from tests import tiny
from tests.architectures import make_architecture
from tests.test_checkpoints import Killed
from tests.test_objectives import rows_to_learn
from tests.test_trainer import RECIPE, pairs

pytestmark = pytest.mark.slow("loop")

SFT = {"objective": "sft"}


def close(one, other, allowed=1e-4):
    """Whether two adapters' tensors are equal to rounding, beside how far training moved them."""
    return max(float((one[key] - other[key]).abs().max()) for key in one) < allowed


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    """A model that expects something: of the usual tiny one all tokens are about as likely, whatever it learns."""
    folder = tmp_path_factory.mktemp("decided")
    tiny.make_policy(folder / "policy", spread=0.2)
    return folder


@pytest.fixture(scope="module")
def texts(tiny_folder):
    """Eleven texts of a model, with headers and without, and all that it expects in them but one token."""
    policy = load_policy(tiny_folder / "policy", dtype="float32")
    origins = ["chat" if n % 3 == 0 else "document" for n in range(11)]
    found = collect(
        11, say(policy, origins, seeds=[f"s{n}" for n in range(11)], tokens=12, temperature=1.0, batch_tokens=128)
    )
    given = [len(ids) - 12 for ids in found]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("resources.model.likely.LIKELY", 10_000)
        expected = collect(11, likely_tokens(policy, list(zip(found, given, strict=True)), batch_tokens=128))
    return [AnchorText(ids, n, *its) for ids, n, its in zip(found, given, expected, strict=True)]


def anchor(texts, **changes):
    return Anchor(**{"texts": texts, "weight": 0.5, "form": "kl", "texts_per_step": 3, "seed": 5, **changes})


def train(tiny_folder, out, held, previous=None, rows=None, kept=None, killed_at=None, **changes):
    """(the log, the adapter's tensors); held: the anchor."""

    def progress(step, total):
        if step == killed_at:
            raise Killed

    out.mkdir()
    log = train_adapter(
        tiny_folder / "policy", previous, pairs() if rows is None else rows, "Be brief.",
        replace(RECIPE, **changes), out, progress, checkpoints=kept and Checkpoints(kept), anchor=held,
    )  # fmt: skip
    return log, load_file(out / "adapter_model.safetensors")


def by_hand(tiny_folder, adapter, drawn):
    """KL from the base model to base + adapter over whole texts, by transformers alone; the mean over tokens said."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    def expected(model):
        with torch.no_grad():
            whole = [model(torch.tensor([text.ids])).logits[0].log_softmax(-1) for text in drawn]
        return torch.cat([its[text.given - 1 : -1] for its, text in zip(whole, drawn, strict=True)])

    base = AutoModelForCausalLM.from_pretrained(tiny_folder / "policy", dtype=torch.float32)
    start = expected(base)
    policy = expected(PeftModel.from_pretrained(base, str(adapter)))  # which changes `base` itself
    return float((start.exp() * (start - policy)).sum(-1).mean())


@pytest.mark.parametrize("form", ["kl", "nll"])
@pytest.mark.parametrize("changes", [{}, SFT], ids=["dpo", "sft"])
def test_packed_steps_with_an_anchor_follow_plain_ones(tiny_folder, tmp_path, texts, form, changes):
    held = anchor(texts, form=form)
    rows = rows_to_learn(rejected="something else")
    packed, adapter = train(tiny_folder, tmp_path / "packed", held, rows=rows, epochs=2, **changes)
    plain, other = train(tiny_folder, tmp_path / "plain", held, rows=rows, epochs=2, path="plain", **changes)
    for column in ("loss", "anchor", "grad_norm"):
        assert packed[column].to_list() == pytest.approx(plain[column].to_list(), rel=1e-3, abs=1e-5), column
    assert close(adapter, other, 1e-3)


def test_term_is_the_divergence_that_transformers_gives(tiny_folder, tmp_path, texts):
    train(tiny_folder, tmp_path / "first", None, learning_rate=5e-2)
    held = anchor(texts)
    log, _ = train(tiny_folder, tmp_path / "second", held, tmp_path / "first")
    assert log["anchor"][0] > 0.01
    assert log["anchor"][0] == pytest.approx(by_hand(tiny_folder, tmp_path / "first", held.of_step(0)), rel=1e-3)


def test_anchored_policy_moves_less_from_what_it_said_and_still_learns(tiny_folder, tmp_path, texts):
    rows = rows_to_learn()
    found = {}
    for name, held in (("free", None), ("held", anchor(texts))):
        log, _ = train(tiny_folder, tmp_path / name, held, rows=rows, epochs=8, learning_rate=2e-2, **SFT)
        nll = log["loss"] - held.weight * log["anchor"] if held else log["loss"]
        found[name] = by_hand(tiny_folder, tmp_path / name, texts), nll[0], nll.tail(4).mean()
    assert found["held"][0] < 0.3 * found["free"][0], found
    assert found["held"][2] < 0.8 * found["held"][1], found


def test_without_an_anchor_the_log_has_none_and_with_weight_zero_the_adapter_is_the_same(tiny_folder, tmp_path, texts):
    log, free = train(tiny_folder, tmp_path / "free", None)
    assert log["anchor"].null_count() == log.height
    _, weightless = train(tiny_folder, tmp_path / "weightless", anchor(texts, weight=0.0))
    assert all(free[key].equal(weightless[key]) for key in free)


@pytest.mark.parametrize("changes", [{}, SFT], ids=["dpo", "sft"])
def test_killed_anchored_training_goes_on_and_ends_at_the_same_bits(tiny_folder, tmp_path, texts, monkeypatch, changes):
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    held = anchor(texts)
    straight, whole = train(tiny_folder, tmp_path / "straight", held, epochs=2, **changes)
    with pytest.raises(Killed):
        train(tiny_folder, tmp_path / "killed", held, kept=tmp_path / "kept", killed_at=5, epochs=2, **changes)
    log, rest = train(tiny_folder, tmp_path / "then", held, kept=tmp_path / "kept", epochs=2, **changes)
    assert log.equals(straight)
    assert all(whole[key].equal(rest[key]) for key in whole)


def test_every_text_is_drawn_once_before_one_comes_again(texts):
    held = anchor(texts, texts_per_step=2)
    drawn = [id(text) for step in range(33) for text in held.of_step(step)]
    turns = [drawn[start : start + 11] for start in range(0, 66, 11)]
    assert all(len(set(turn)) == 11 for turn in turns)
    assert len(set(map(tuple, turns))) == 6
    assert [held.of_step(7), held.of_step(7)] == [held.of_step(7)] * 2
    assert replace(held, seed=6).of_step(0) != held.of_step(0)


@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_divergence_of_the_likely_tokens_is_no_more_than_the_whole_and_less_by_what_is_said_of_it(spread):
    generator = torch.Generator().manual_seed(3)
    start = torch.randn(40, 500, generator=generator) * 3
    policy = start + spread * torch.randn(40, 500, generator=generator)
    p, q = start.log_softmax(-1), policy.log_softmax(-1)
    log_probs, tokens = p.topk(64)
    whole, coarse = (p.exp() * (p - q)).sum(-1), divergence(policy, tokens, log_probs)
    assert (coarse <= whole + 1e-6).all()
    others = torch.ones(40, 500, dtype=torch.bool).scatter(1, tokens, False)
    share = (p.exp() * others).sum(-1)
    within = [(a := p[n][others[n]].log_softmax(-1)).exp() @ (a - q[n][others[n]].log_softmax(-1)) for n in range(40)]
    assert torch.allclose(whole - coarse, share * torch.stack(within), atol=1e-5)


def test_texts_go_through_the_pass_of_the_pairs_and_see_nothing_of_them():
    from resources.training.shared_prompts import pack_pairs

    draw = random.Random(1)
    prompt = [draw.randrange(5, 90) for _ in range(9)]
    sequences = [[*prompt, 7, 8, 9], [*prompt, 11, 12]] * 2
    pack, _ = pack_pairs(sequences, 12, "cpu", [[1, 2, 3, 4], [5, 6]])
    assert pack.ids[0, pack.starts[-2] :].tolist()[:4] == [1, 2, 3, 5]
    assert pack.positions[0, pack.starts[-2] :].tolist()[:4] == [0, 1, 2, 0]
    for group in pack.groups:
        for index, mask in zip(group.index, group.mask, strict=True):
            if index[0] >= pack.starts[-2]:
                assert torch.isinf(mask[..., : pack.prefix]).all()


@pytest.mark.parametrize("name", ["cohere", "gpt2", "gpt_neox", "granite", "mixtral", "olmo2", "phi", "qwen3"])
def test_term_of_packed_rows_is_that_of_plain_passes_whatever_the_head_does(name, tmp_path):
    folder = make_architecture(name, tmp_path / "policy")
    policy = load_policy(folder, dtype="float32", path="packed")
    found = collect(6, say(policy, ["document", "chat"] * 3 if policy.tokenizer.chat_template else ["document"] * 6,
                           seeds=list("abcdef"), tokens=10, temperature=1.0, batch_tokens=128))  # fmt: skip
    whole = [(ids, len(ids) - 10) for ids in found]
    texts = [
        AnchorText(*text, *its)
        for text, its in zip(whole, collect(6, likely_tokens(policy, whole, batch_tokens=128)), strict=True)
    ]
    logs = {}
    for path in ("packed", "plain"):
        held = anchor(texts, texts_per_step=2)
        logs[path], _ = train(tmp_path, tmp_path / path, held, learning_rate=3e-2, path=path, epochs=2, **SFT)
    assert logs["packed"]["anchor"][-1] > 1e-4
    for column in ("anchor", "grad_norm", "loss"):
        # Of a mixture, rounding sends a token to another expert sooner or later.
        one, other = (logs[path][column].head(4).to_list() for path in ("packed", "plain"))
        assert one == pytest.approx(other, rel=2e-2, abs=1e-5), column
