"""Two processes that train together make the steps of one, up to rounding."""

import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from resources.model.policy import load_policy
from resources.training.anchor import Anchor
from resources.training.checkpoints import Checkpoints
from resources.training.together import ALONE, Together, share_weights_out
from resources.training.trainer import train_adapter
from tests import test_anchor
from tests.test_anchor import close
from tests.test_parts import Device, rows, same
from tests.test_trainer import RECIPE

pytestmark = pytest.mark.slow("processes")

tiny_folder, texts = test_anchor.tiny_folder, test_anchor.texts  # fixtures

# Sixteen pairs in batches of eight, which is four for each; or of five, which is three and two, and a last batch of one
# pair, which one process alone has. Three anchor texts a step, which is two and one.
CASES = {
    "dpo": ("ddp", {}),
    "sft, five pairs": ("ddp", {"objective": "sft", "batch_size": 5}),
    "per token, no anchor": ("ddp", {"loss": "sigmoid_norm", "beta": 3.0, "anchored": False}),
    "room for one pair in one process": ("ddp", {"room": 1}),
    "fsdp2, dpo, five pairs": ("fsdp2", {"batch_size": 5}),
    "fsdp2, sft, plain passes": ("fsdp2", {"objective": "sft", "path": "plain"}),
}
RESUMED = "killed after three steps"
STEPS = 4  # of the case "sft, five pairs", which is gone on with


def train(folder, out, texts, together, changes, kept=None):
    """In the folder `out`, with a case's changes."""
    changes = {"batch_size": 8, **changes}
    anchored, room = changes.pop("anchored", True), changes.pop("room", None)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        if room is not None and together.rank == 1:
            Device(patch, room)
        log = train_adapter(
            folder / "policy", None, rows(), "Be brief.", replace(RECIPE, **changes), out, checkpoints=kept,
            anchor=Anchor(texts, 0.5, "kl", 3, 5) if anchored else None, together=together,
        )  # fmt: skip
    log.write_parquet(out / "log.parquet")


def one_of_two(rank, folder, out, texts):
    """What a process does: every case, one of them again from its checkpoint, and then a model's weights shared out,
    of which it returns (those of layers that it holds, those that there are)."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2, init_method=f"file://{out / 'met'}")
    for name, (strategy, changes) in CASES.items():
        train(folder, out / f"{name} {rank}", texts, Together(rank, 2, strategy), changes)
    first, changes = out / f"kept {rank}", CASES["sft, five pairs"][1]
    stopped = Checkpoints(first, stop_after(3), seconds=0.0)
    with pytest.raises(KeyboardInterrupt):
        train(folder, out / f"{RESUMED} {rank}", texts, Together(rank, 2), changes, stopped)
    train(folder, out / f"{RESUMED} {rank}", texts, Together(rank, 2), changes, Checkpoints(first))
    return held_weights(folder)


def stop_after(steps):
    """What a checkpoint asks before it is kept: it interrupts the one after so many."""
    left = [steps]

    def check():
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt

    return check


def held_weights(folder):
    model = load_policy(folder / "policy", dtype="float32").model
    layers = model.get_decoder().layers
    whole = sum(weight.numel() for weight in layers.parameters())
    share_weights_out(model.requires_grad_(False))
    return sum(weight.to_local().numel() for weight in layers.parameters()), whole


@pytest.fixture(scope="module")
def made(tiny_folder, texts, tmp_path_factory):
    """The folder in which both processes trained, and what each of them returned."""
    out = tmp_path_factory.mktemp("together")
    with ProcessPoolExecutor(2, get_context("spawn")) as both:
        found = list(both.map(one_of_two, range(2), [tiny_folder] * 2, [out] * 2, [texts] * 2))
    return out, found


def adapter_of(folder):
    return load_file(folder / "adapter_model.safetensors")


@pytest.mark.parametrize("name", CASES)
def test_steps_and_adapter_are_those_of_one_process(name, made, tiny_folder, texts, tmp_path):
    out, _ = made
    train(tiny_folder, tmp_path / "alone", texts, ALONE, {k: v for k, v in CASES[name][1].items() if k != "room"})
    same(pl.read_parquet(out / f"{name} 0" / "log.parquet"), pl.read_parquet(tmp_path / "alone" / "log.parquet"))
    assert close(adapter_of(out / f"{name} 0"), adapter_of(tmp_path / "alone"), 1e-5)
    files = ("adapter_model.safetensors", "adapter_config.json", "log.parquet")
    assert [(out / f"{name} 0" / file).read_bytes() for file in files] == [
        (out / f"{name} 1" / file).read_bytes() for file in files
    ], "both processes hold the same"
    config = "adapter_config.json"
    assert (out / f"{name} 0" / config).read_bytes() == (tmp_path / "alone" / config).read_bytes()


def test_killed_training_goes_on_and_ends_at_the_same_bits(made):
    out, _ = made
    assert [path.name for path in (out / "kept 0").iterdir()] == ["step-000000003"]
    straight, resumed = (out / f"{name} 0" for name in ("sft, five pairs", RESUMED))
    for file in ("adapter_model.safetensors", "log.parquet"):
        assert (straight / file).read_bytes() == (resumed / file).read_bytes()
    assert pl.read_parquet(resumed / "log.parquet").height == STEPS


def test_processes_that_share_out_weights_hold_half_of_those_of_layers_each(made):
    _, found = made
    assert all(whole > 0 and held * 2 <= whole + 64 for held, whole in found), found


@pytest.mark.parametrize(("pairs", "size"), [(8, 2), (5, 2), (1, 2), (7, 3), (2, 3)])
def test_every_pair_is_of_one_process_and_none_has_two_more_than_another(pairs, size):
    shares = [Together(rank, size).share_of(pairs) for rank in range(size)]
    assert [row for share in shares for row in share] == list(range(pairs))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert max(map(len, shares)) == Together(0, size).most_of(pairs)
