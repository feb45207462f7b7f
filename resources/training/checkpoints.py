"""How far a training got, so that one that was killed goes on where it was, to the last bit.

    <folder>/step-<steps>/   parameters, optimizer and random generator as safetensors; trainer_state.json,
                             schedule.json; parts.json, how many pairs a pass has; checkpoint.json, the digests of
                             these files, sealed

transformers' own checkpoints hold pickles (optimizer.pt, scheduler.pt, rng_state.pth), so the Trainer's
three methods that read them are replaced on the trainer by ours; what it does with a checkpoint, such as
passing over the batches that were trained on, stays its own.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from resources.store.digest import digest_file, list_files, sync
from resources.store.sealed import Damaged, read_sealed, write_sealed
from resources.training.parts import Parts

SECONDS = 60.0  # between two checkpoints: what a kill costs at most
DONE = "checkpoint.json"
PARTIAL = "partial-"


class Checkpoints:
    """The checkpoints of one training, of which the newest is kept.

    folder: for what decides the training, and nothing else; need not be there. check: called before one is
    kept, may raise. kept: called with the folder of each. seconds: between two, at least.
    """

    def __init__(
        self,
        folder: Path,
        check: Callable[[], None] = lambda: None,
        kept: Callable[[Path], None] = lambda folder: None,
        seconds: float | None = None,
    ):
        self.folder, self._check, self._kept = folder, check, kept
        self.seconds = SECONDS if seconds is None else seconds
        self._last = time.monotonic()

    def newest(self) -> Path | None:
        """The newest checkpoint that is whole."""
        return next((path for path in sorted(self.folder.glob("step-*"), reverse=True) if is_whole(path)), None)

    def resume(self, trainer: Any, parts: Parts) -> str | None:
        """Make the trainer read our files; returns what `trainer.train` is to resume from, if anything is there."""
        trainer._load_from_checkpoint = lambda folder, model=None: load_parameters(trainer, Path(folder))
        trainer._load_optimizer_and_scheduler = lambda folder: load_optimizer(trainer, Path(folder))
        trainer._load_rng_state = lambda folder: load_generator(Path(folder))
        newest = self.newest()
        if newest is None:
            return None
        parts.pairs = json.loads((newest / "parts.json").read_text())["pairs"]
        return str(newest)

    def after_step(self, trainer: Any, parts: Parts) -> None:
        """Keep a checkpoint if the last one is old enough. Call it when the step has been logged."""
        if time.monotonic() - self._last < self.seconds:
            return
        with self._written(f"step-{trainer.state.global_step:09d}") as partial:
            save(trainer, partial)
            (partial / "parts.json").write_text(json.dumps({"pairs": parts.pairs}))
            files = {path.name: digest_file(path) for path in list_files(partial)}
            write_sealed(partial / DONE, partial.name.removeprefix(PARTIAL), {"files": files})
        self._last = time.monotonic()

    def take(self, name: str, files: Mapping[str, bytes]) -> None:
        """Keep the checkpoint that another process made of this training, by its files."""
        with self._written(name) as partial:
            for file, content in files.items():
                (partial / file).write_bytes(content)

    @contextmanager
    def _written(self, name: str) -> Iterator[Path]:
        """A folder for the checkpoint of that name, which takes the place of all others once it is full."""
        self._check()
        older, partial = list(self.folder.glob("*")), self.folder / f"{PARTIAL}{name}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        for path in list_files(partial):
            sync(path)
        partial.replace(self.folder / name)
        for path in older:
            shutil.rmtree(path, ignore_errors=True)
        self._kept(self.folder / name)


def is_whole(folder: Path) -> bool:
    try:
        files = read_sealed(folder / DONE, folder.name)["files"]
        return all(digest_file(folder / name) == digest for name, digest in files.items())
    except (OSError, Damaged):
        return False


def save(trainer: Any, folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    trained = {name: p.detach().cpu().contiguous() for name, p in parameters(trainer).items()}
    save_file(trained, folder / "parameters.safetensors")
    state = trainer.optimizer.state_dict()["state"]
    moments = {f"{number}.{name}": value.detach().cpu() for number, s in state.items() for name, value in s.items()}
    save_file(moments, folder / "optimizer.safetensors")
    generators = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        generators["cuda"] = torch.cuda.get_rng_state()
    save_file(generators, folder / "generator.safetensors")
    (folder / "schedule.json").write_text(json.dumps(trainer.lr_scheduler.state_dict()))
    trainer.state.save_to_json(str(folder / "trainer_state.json"))


def parameters(trainer: Any) -> dict[str, Any]:
    return {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}


def load_parameters(trainer: Any, folder: Path) -> None:
    import torch
    from safetensors.torch import load_file

    saved = load_file(folder / "parameters.safetensors")
    with torch.no_grad():
        for name, parameter in parameters(trainer).items():
            parameter.copy_(saved[name])


def load_optimizer(trainer: Any, folder: Path) -> None:
    from safetensors.torch import load_file

    state: dict[int, dict[str, Any]] = {}
    for key, value in load_file(folder / "optimizer.safetensors").items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    trainer.optimizer.load_state_dict({**trainer.optimizer.state_dict(), "state": state})
    schedule = json.loads((folder / "schedule.json").read_text())
    trainer.lr_scheduler.load_state_dict(schedule)
    # The schedule sets the rate of a step at the end of the one before.
    for group, rate in zip(trainer.optimizer.param_groups, schedule["_last_lr"], strict=True):
        group["lr"] = rate


def load_generator(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file

    generators = load_file(folder / "generator.safetensors")
    torch.set_rng_state(generators["cpu"])
    if "cuda" in generators:
        torch.cuda.set_rng_state(generators["cuda"])
