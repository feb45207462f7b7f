"""A batch that does not fit into memory is trained on in several passes, which add up to the same step."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from resources.model.no_room import TooLittleMemory
from resources.training import checkpoints, parts
from resources.training.anchor import Anchor
from resources.training.checkpoints import Checkpoints
from resources.training.trainer import train_adapter
from tests import test_anchor
from tests.test_anchor import close
from tests.test_checkpoints import Killed
from tests.test_objectives import rows_to_learn
from tests.test_trainer import RECIPE

pytestmark = pytest.mark.slow("loop")

tiny_folder, texts = test_anchor.tiny_folder, test_anchor.texts  # fixtures
CASES = {
    "dpo": {},
    "sft": {"objective": "sft"},
    "per token": {"loss": "sigmoid_norm", "beta": 3.0},
    "plain": {"path": "plain"},
}

RAGGED = ["a", "much longer than others are", "blue", "x y", "seven words are in this answer here", "no", "green", "b"]


def rows(count=16):
    """Answers of many lengths: a mean over the tokens of a batch is not the mean of its parts' means. And pairs that
    count less than others."""
    import polars as pl

    found = rows_to_learn(count, rejected="something else")
    weights = [1.0 if n % 3 else n / 15 for n in range(16)]
    return found.with_columns(chosen=pl.Series(RAGGED * 2)[:count], weight=pl.Series(weights)[:count])


class Device:
    """Refuses training passes of more pairs than it has room for, from some step on, as a full GPU does."""

    def __init__(self, monkeypatch, room, since=0, error=torch.OutOfMemoryError):
        self.passes, self.room = [], room
        whole = parts.Parts.__init__

        def watched(made, trainer, *arguments):
            step = trainer.training_step

            def refusing(model, inputs, *others):
                pairs = len(inputs["input_ids"]) // 2
                loss = step(model, inputs, *others)  # what a pass left behind in the gradients must not count
                if pairs > self.room and trainer.state.global_step >= since:
                    raise error("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee the documentation")
                self.passes.append(pairs)
                return loss

            trainer.training_step = refusing
            whole(made, trainer, *arguments)

        monkeypatch.setattr(parts.Parts, "__init__", watched)


def train(folder, out, held=None, kept=None, killed_at=None, tell=lambda line: None, **changes):
    """(the log, the adapter's tensors)."""

    def progress(step, total):
        if step == killed_at:
            raise Killed

    out.mkdir()
    log = train_adapter(
        folder / "policy", None, rows(), "Be brief.", replace(RECIPE, **{"batch_size": 8, "epochs": 2, **changes}), out,
        progress, checkpoints=kept and Checkpoints(kept), anchor=held, tell=tell,
    )  # fmt: skip
    return log, load_file(out / "adapter_model.safetensors")


def same(log, other):
    """Two logs, up to rounding. Which answer of a pair is likelier before the first step is nothing but rounding."""
    for column in ("loss", "margin", "grad_norm", "anchor"):
        if other[column].null_count() == 0:
            assert log[column].to_list() == pytest.approx(other[column].to_list(), rel=2e-4, abs=5e-5), column
    assert log["reward_accuracy"][1:].to_list() == pytest.approx(other["reward_accuracy"][1:].to_list())


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_eight_pairs_at_once_equal_two_passes_of_four_and_eight_of_one(
    tiny_folder, tmp_path, monkeypatch, texts, changes
):
    held = Anchor(texts, 0.5, "kl", 3, 5)
    whole, at_once = train(tiny_folder, tmp_path / "8", held, epochs=1, **changes)
    for room in (4, 1):
        with monkeypatch.context() as patch:
            device = Device(patch, room)
            log, adapter = train(tiny_folder, tmp_path / str(room), held, epochs=1, **changes)
        assert device.passes == [room] * (2 * 8 // room)
        same(log, whole)
        assert close(adapter, at_once, 2e-5)


def test_a_pass_that_does_not_fit_is_halved_once_and_said_and_the_step_is_begun_anew(
    tiny_folder, tmp_path, monkeypatch
):
    whole, at_once = train(tiny_folder, tmp_path / "whole")
    device, said = Device(monkeypatch, 3, since=2), []
    log, adapter = train(tiny_folder, tmp_path / "split", tell=said.append)
    assert device.passes == [8, 8, *[2] * 8]
    assert [line.split(" does not")[0] for line in said] == ["a training pass of 8 pairs", "a training pass of 4 pairs"]
    assert "\n" not in "".join(said)
    same(log, whole)
    assert close(adapter, at_once, 2e-5)


@pytest.mark.parametrize("killed_at", [2, 4])
def test_killed_training_in_smaller_passes_goes_on_and_ends_at_the_same_bits(
    tiny_folder, tmp_path, monkeypatch, killed_at
):
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    Device(monkeypatch, 2, since=2)
    straight, whole = train(tiny_folder, tmp_path / "straight")
    with pytest.raises(Killed):
        train(tiny_folder, tmp_path / "killed", kept=tmp_path / "kept", killed_at=killed_at)
    log, rest = train(tiny_folder, tmp_path / "then", kept=tmp_path / "kept")
    assert log.equals(straight)
    assert all(whole[key].equal(rest[key]) for key in whole)


def test_where_no_pair_fits_what_to_change_is_said(tiny_folder, tmp_path, monkeypatch):
    Device(monkeypatch, 0)
    with pytest.raises(TooLittleMemory, match=r"one pair of \d+ tokens .*Tried to allocate.*training.max_length"):
        train(tiny_folder, tmp_path / "none")


def test_an_error_of_another_kind_splits_nothing(tiny_folder, tmp_path, monkeypatch):
    def broken(message):
        return RuntimeError("shapes do not match")

    device = Device(monkeypatch, 0, error=broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        train(tiny_folder, tmp_path / "broken")
    assert device.passes == []


@contextmanager
def passes_through_layers():
    """Counts, in a list of one, how often a layer's feed-forward part was computed with a gradient."""
    count = [0]

    def counted(module, arguments):
        count[0] += type(module).__name__ == "LlamaMLP" and torch.is_grad_enabled()

    hook = torch.nn.modules.module.register_module_forward_pre_hook(counted)
    yield count
    hook.remove()


@pytest.mark.parametrize("path", ["packed", "plain"])
def test_gradient_checkpointing_computes_layers_twice_and_trains_the_same_bits(tiny_folder, tmp_path, texts, path):
    held, found, computed = Anchor(texts, 0.5, "kl", 3, 5), {}, {}
    for setting in ("off", "on"):
        with passes_through_layers() as count:
            found[setting] = train(tiny_folder, tmp_path / setting, held, path=path, gradient_checkpointing=setting)
        computed[setting] = count[0]
    assert computed["on"] == 2 * computed["off"] > 0
    assert found["on"][0].equals(found["off"][0])
    assert all(found["on"][1][key].equal(found["off"][1][key]) for key in found["on"][1])


def test_one_pair_that_does_not_fit_is_tried_with_checkpointing_where_that_is_left_open(
    tiny_folder, tmp_path, monkeypatch
):
    whole, at_once = train(tiny_folder, tmp_path / "whole")
    device, said = Device(monkeypatch, 0), []

    def tell(line):
        said.append(line)
        device.room = 1 if "checkpointing is on" in line else 0

    log, adapter = train(tiny_folder, tmp_path / "split", tell=tell)
    assert device.passes == [1] * 32
    assert len(said) == 4
    same(log, whole)
    assert close(adapter, at_once, 2e-5)
    device.room = 0
    with pytest.raises(TooLittleMemory, match=r"set training\.gradient_checkpointing to on"):
        train(tiny_folder, tmp_path / "off", gradient_checkpointing="off")


@pytest.mark.parametrize(("free", "times"), [(10**12, 1), (10_000, 2), (None, 1)])
def test_checkpointing_is_on_from_the_start_where_a_whole_step_would_not_fit(
    tiny_folder, tmp_path, monkeypatch, texts, free, times
):
    monkeypatch.setattr("resources.training.room.free_memory", lambda device: free)
    held = Anchor(texts, 0.5, "kl", 3, 5)
    with passes_through_layers() as count:
        train(tiny_folder, tmp_path / "out", held, epochs=1)
    assert count[0] == times * 2 * 2, "two steps through two layers"
