"""A training that was killed goes on from its checkpoint and ends at the very same adapter."""

import pytest

from resources.training import checkpoints
from resources.training.checkpoints import Checkpoints
from resources.training.trainer import train_adapter
from tests.test_trainer import RECIPE, pairs, train

pytestmark = pytest.mark.slow("loop")


class Killed(Exception):
    pass


@pytest.fixture
def every_step(monkeypatch):
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)


def train_until(tiny_folder, out, kept, previous=None, killed_at=None, check=lambda: None, **changes):
    """Train with checkpoints in `kept`; returns (the steps that were done, the log)."""
    steps = []

    def progress(step, total):
        # The step's checkpoint is kept after this.
        if step == killed_at:
            raise Killed
        steps.append(step)

    out.mkdir()
    recipe = RECIPE.__class__(**{**RECIPE.__dict__, **changes})
    try:
        log = train_adapter(
            tiny_folder / "policy", previous, pairs(), "Be brief.", recipe, out, progress,
            checkpoints=Checkpoints(kept, check),
        )  # fmt: skip
    except Killed:
        return steps, None
    return steps, log


@pytest.mark.parametrize(
    ("killed_at", "from_previous", "objective"), [(2, False, "dpo"), (5, False, "sft"), (7, True, "dpo")]
)
def test_killed_training_goes_on_and_ends_at_the_same_bits(
    tiny_folder, tmp_path, every_step, killed_at, from_previous, objective
):
    wanted = {"epochs": 2, "objective": objective}
    previous = None
    if from_previous:
        train(tiny_folder, tmp_path / "previous")
        previous = tmp_path / "previous"
    straight = train(tiny_folder, tmp_path / "straight", previous, **wanted)
    kept = tmp_path / "kept"
    first, log = train_until(tiny_folder, tmp_path / "first", kept, previous, killed_at, **wanted)
    assert (first, log) == (list(range(1, killed_at)), None)
    then, log = train_until(tiny_folder, tmp_path / "then", kept, previous, **wanted)
    assert then == list(range(killed_at, 9)), "only the step that was killed is done again"
    name = "adapter_model.safetensors"
    assert (tmp_path / "then" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    assert log.equals(straight)


@pytest.mark.parametrize("damage", ["flip", "cut", "missing", "edited list"])
def test_damaged_checkpoint_counts_as_absent(tiny_folder, tmp_path, every_step, damage):
    kept = tmp_path / "kept"
    train_until(tiny_folder, tmp_path / "first", kept, killed_at=4)
    (folder,) = kept.iterdir()
    path = folder / ("checkpoint.json" if damage == "edited list" else "optimizer.safetensors")
    whole = path.read_bytes()
    match damage:
        case "flip":
            path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 4]) + whole[-8:])
        case "cut":
            path.write_bytes(whole[:100])
        case "missing":
            path.unlink()
        case "edited list":
            path.write_text('{"files": {}}')
    steps, _ = train_until(tiny_folder, tmp_path / "then", kept)
    assert steps == [1, 2, 3, 4]


def test_nothing_is_kept_when_what_is_trained_on_has_changed(tiny_folder, tmp_path, every_step):
    def changed():
        raise Killed

    train_until(tiny_folder, tmp_path / "first", tmp_path / "kept", check=changed)
    assert not (tmp_path / "kept").exists()


def test_checkpoints_hold_no_pickle_and_one_is_kept(tiny_folder, tmp_path, every_step):
    train_until(tiny_folder, tmp_path / "first", tmp_path / "kept", killed_at=4)
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["step-000000003"]
    assert {path.suffix for path in (tmp_path / "kept").rglob("*") if path.is_file()} == {".json", ".safetensors"}
