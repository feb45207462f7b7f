"""A training by workers on a Ray cluster (https://docs.ray.io, Ray Train): each makes its share of every step.

Ray Train places the workers, joins them in a process group of torch's and tells when one is gone. What they say (how
far they are, checkpoints, the adapter) comes to this process alone, which keeps it. Where a worker is lost, all begin
anew at the newest checkpoint, as a training does that was killed.
"""

import math
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resources import cluster
from resources.model.no_room import Tell, release
from resources.store.digest import list_files
from resources.threads import set_threads
from resources.training.anchor import Anchor
from resources.training.checkpoints import Checkpoints
from resources.training.examples import Fit
from resources.training.recipe import TrainingRecipe
from resources.training.together import Strategy, Together
from resources.workers import WorkerLost, spent

if TYPE_CHECKING:
    import polars as pl

    from resources.training.trainer import Fill

TRIES = 3  # without a checkpoint between them, until a training that loses workers is given up
LOOK = 1.0  # seconds between two looks at whether it has ended
END_SECONDS = 20.0  # that workers get to end when they are told to
# By which accelerate would take a worker for one of several processes, and share out batches and gradients itself.
OF_SEVERAL = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")

Files = dict[str, bytes]


@dataclass(frozen=True)
class Group:
    """Who trains. wants: of each worker, such as {"CPU": 1}; a CPU is a thread. admit: asked on the node of each; says
    why that cannot take part, or ""."""

    workers: int
    strategy: Strategy
    wants: Mapping[str, float]
    admit: Callable[[], str]


@dataclass(frozen=True)
class Work:
    """What every worker of a group gets. previous: files of the adapter that is trained further. references: of every
    pair. checkpoint: its name and files, where the training goes on. seconds: between two checkpoints."""

    group: Group
    model_dir: Path
    previous: Files | None
    pairs: "pl.DataFrame"
    system_prompt: str | None
    recipe: TrainingRecipe
    references: Sequence[Any]
    anchor: Anchor | None
    seconds: float
    checkpoint: tuple[str, Files] | None = None


class GroupBroken(WorkerLost):
    """A worker ended before the training did, and not by an error of its own."""


def train_by_workers(
    group: Group,
    model_dir: Path,
    previous_adapter: Path | None,
    pairs: "pl.DataFrame",
    system_prompt: str | None,
    recipe: TrainingRecipe,
    out: Path,
    progress: Callable[[int, int], None],
    fill_reference: "Fill | None",
    checkpoints: Checkpoints | None,
    fitted: Callable[[Fit], None],
    anchor: Anchor | None,
    tell: Tell,
) -> "pl.DataFrame":
    """What `train_adapter` does with the other arguments, by workers of the cluster that this process is connected
    to. The reference model is asked here.

    Raises what it raises, WorkerLost if the cluster has not what workers want, a node is refused, or workers are lost
    TRIES times at one place."""
    from resources.training.trainer import with_references

    trainer, references = with_references(
        model_dir, previous_adapter, pairs, system_prompt, recipe, out, progress, fill_reference, fitted, tell
    )
    del trainer
    release()  # the workers may want its memory
    shutil.rmtree(out / "trainer", ignore_errors=True)
    work = Work(
        group,
        model_dir,
        None if previous_adapter is None else files_of(previous_adapter),
        pairs,
        system_prompt,
        recipe,
        list(references),
        anchor,
        checkpoints.seconds if checkpoints else math.inf,
    )
    tries = 0
    while True:
        newest = checkpoints.newest() if checkpoints else None
        begun = replace(work, checkpoint=None if newest is None else (newest.name, files_of(newest)))
        try:
            log, files = run_group(begun, progress, tell, checkpoints)
        except GroupBroken as error:
            tries = tries + 1 if checkpoints is None or checkpoints.newest() == newest else 1
            if tries == TRIES:
                raise
            tell(f"{error}: all workers begin anew, at the newest checkpoint")
        else:
            write_files(out, files)
            return log


def run_group(
    work: Work, progress: Callable[[int, int], None], tell: Tell, checkpoints: Checkpoints | None
) -> "tuple[pl.DataFrame, Files]":
    """(the training log, the adapter's files) of one group of workers. Raises what the first of them raised that
    failed, GroupBroken if one is gone, and WorkerLost."""
    import ray
    from ray.util.queue import Empty, Queue

    said = Queue(actor_options={"num_cpus": 0})
    # In a process of its own, which can be ended with all that it started, whatever this one waits for.
    fit = ray.remote(num_cpus=0, max_retries=0)(fit_group).remote(work, said)
    done, failed, begun, heard = None, dict[int, Exception](), time.monotonic(), False
    try:
        while True:
            ended = bool(ray.wait([fit], timeout=0)[0])
            try:
                kind, *content = said.get(block=not ended, timeout=LOOK)
            except Empty:
                if ended:
                    break
                waited = not heard and time.monotonic() - begun > cluster.PATIENCE
                if waited and (lacking := cluster.lacks(work.group.wants, work.group.workers)):
                    raise WorkerLost(lacking) from None
                continue
            heard = True
            match kind:
                case "step":
                    progress(*content)
                case "line":
                    tell(*content)
                case "checkpoint" if checkpoints is not None:
                    checkpoints.take(*content)
                case "done":
                    done = content
                case "spent":
                    cluster.count(*content)
                case "failed":
                    failed.setdefault(*content)
        missing = ray.get(fit)
    except ray.exceptions.RayError as error:
        raise GroupBroken(f"what keeps the workers together was lost ({first_line(error)})") from error
    finally:
        end(fit)
        said.shutdown(force=True)
    if done is not None:
        return done[0], done[1]
    if silent := {rank: why for rank, why in missing.items() if rank not in failed}:
        raise GroupBroken(f"a worker of the training was lost ({next(iter(silent.values()))})")
    raise next(iter(failed.values()))


def end(fit: Any) -> None:
    """End the group of workers, if it has not ended. Ray Train, interrupted, ends them and gives their places back."""
    import ray

    ray.cancel(fit)
    if not ray.wait([fit], timeout=END_SECONDS)[0]:
        ray.cancel(fit, force=True)


def files_of(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in list_files(folder)}


def write_files(folder: Path, files: Files) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


# -- on the cluster -------------------------------------------------------------------------------------------


def fit_group(work: Work, said: Any) -> dict[int, str]:
    """Have a group of workers train; returns why each failed that did, by rank; -1: the group was not made."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError, WorkerGroupError
    from ray.train.torch import TorchConfig, TorchTrainer

    # Each worker stays where it is and sees one GPU, its own, as a training here does.
    os.environ |= {"RAY_CHDIR_TO_TRIAL_DIR": "0", "TRAIN_ENABLE_SHARE_CUDA_VISIBLE_DEVICES": "0"}
    wants = dict(work.group.wants)
    with tempfile.TemporaryDirectory() as folder:
        trainer = TorchTrainer(
            train_share,
            train_loop_config={"work": work, "said": said},
            scaling_config=ScalingConfig(
                num_workers=work.group.workers, use_gpu="GPU" in wants, resources_per_worker=wants
            ),
            run_config=RunConfig(storage_path=folder, failure_config=FailureConfig(max_failures=0)),
            torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if "GPU" in wants else "gloo"),
        )
        try:
            trainer.fit()
        except WorkerGroupError as error:
            return {rank: first_line(its) for rank, its in error.worker_failures.items()}
        except TrainingFailedError as error:
            return {-1: first_line(error)}
    return {}


def train_share(config: dict[str, Any]) -> None:
    """What each worker runs."""
    from ray.train import get_context

    work, said, context = config["work"], config["said"], get_context()
    together = Together(context.get_world_rank(), context.get_world_size(), work.group.strategy)
    for name in OF_SEVERAL:
        os.environ.pop(name, None)
    set_threads(1)  # as rows are computed, of which a node is asked for a few
    try:
        if problem := work.group.admit():
            raise WorkerLost(problem)
        set_threads(int(work.group.wants["CPU"]))
        with tempfile.TemporaryDirectory() as folder:
            train_in(Path(folder), work, together, said.put if together.rank == 0 else lambda message: None)
        said.put(("spent", *spent()))
    except Exception as error:
        said.put(("failed", together.rank, as_sent(error)))
        raise


def train_in(folder: Path, work: Work, together: Together, say: Callable[[Any], None]) -> None:
    """Train in this folder, and say what the process has to know that keeps it."""
    from resources.training.trainer import train_adapter

    kept, out = folder / "checkpoints", folder / "out"
    if work.checkpoint is not None:
        Checkpoints(kept).take(*work.checkpoint)
    out.mkdir()
    log = train_adapter(
        work.model_dir,
        None if work.previous is None else write_files(folder / "previous", work.previous),
        work.pairs,
        work.system_prompt,
        work.recipe,
        out,
        lambda step, total: say(("step", step, total)),
        lambda compute: work.references,
        Checkpoints(
            kept,
            kept=lambda path: say(("checkpoint", path.name, files_of(path))),
            seconds=work.seconds if together.rank == 0 else math.inf,
        ),
        anchor=work.anchor,
        tell=lambda line: say(("line", line)),
        together=together,
    )
    say(("done", log, files_of(out)))


def as_sent(error: Exception) -> Exception:
    """The error for another process, with where it came from; as a RuntimeError where that may not know it."""
    if type(error).__module__.partition(".")[0] not in ("builtins", "resources"):
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(traceback.format_exc())
    return error
