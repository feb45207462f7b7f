"""What `doctor` looks at, by what plan and run themselves ask: each check yields what it found."""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

from apt_assets.assets.domain_dataset import domain_of
from apt_assets.landing.side_fields import SPLITS
from apt_assets.loop.next_run import taken_away
from apt_assets.loop.outlook import planned
from apt_assets.loop.work import total
from apt_assets.method.left_out import in_words as left_out_in_words
from apt_assets.method.paired import fewest_items
from apt_assets.orchestration import postgres
from apt_assets.project import Project
from apt_assets.report.left_out import MOST_BYTES
from apt_assets.rows.answers import beyond_reach
from apt_assets.rows.lengths import lengths_of
from apt_assets.rows.memory import in_words
from apt_assets.rows.room import check_lengths
from apt_assets.settings.asking import native_dtype
from apt_assets.settings.experiment import UsageError
from apt_assets.settings.reader import find_store
from apt_assets.start.proposal import TURNING, smallest_loss, weights_in_words
from apt_assets.world.execution import MODEL, SETTING
from apt_assets.world.server import obstacles
from resources.model.capabilities import lacking
from resources.model.device_memory import free_memory
from resources.model.memory import UnknownSizes, sizes_of
from resources.threads import cores, threads

LITTLE_DISK, NO_DISK = 5e9, 5e8  # bytes: a model's download and an adapter for each iteration; a few adapters (choice)
FEW_HELD_OUT = 50  # validation rows: one answer is 2 points
LARGE = 1_000_000_000  # weights: a loop of such a model takes hours on a CPU
LOOK_SECONDS = 20.0  # to wait for one grade

State = Literal["ok", "warn", "bad"]


@dataclass(frozen=True)
class Finding:
    """state: ok; warn: it will work, and is to be known; bad: a run would not. said: what, and what to do."""

    area: str
    state: State
    said: str


Found = Iterator[tuple[State, str]]


def machine(project: Project) -> Found:
    policy = project.experiment.policy
    used, there = threads(policy.threads), os.cpu_count() or 1
    fewer = f" of {there}: the others are hyperthreads, or not this container's" if cores() < there else ""
    yield "ok", f"{cores()} cores{fewer}; threads that compute: {used}"
    if (free := free_memory(policy.device)) is not None:
        yield "ok", f"{in_words(free)} of memory left on {policy.device}"
    if (problem := lacking(policy.device, policy.quantization)) is not None:
        yield "bad", problem
    elif policy.device == "cpu" and free_memory("cuda") is not None:
        yield "warn", "there is a GPU, and it is not used: set policy.device to cuda"
    if policy.device == "cpu":
        slow = native_dtype("cpu") == "float32" and policy.dtype == "bfloat16"
        yield (
            ("warn", "this processor has no bfloat16: weights in it are eight times slower; leave policy.dtype out")
            if slow
            else ("ok", f"weights are held in {policy.dtype}")
        )
    place = next(folder for folder in (project.home, *project.home.parents) if folder.is_dir())
    if not os.access(place, os.W_OK | os.X_OK):
        yield "bad", f"this user may not write to {place}: name another folder in $APT_HOME"
    disk = shutil.disk_usage(place).free
    if disk < LITTLE_DISK:
        state: State = "bad" if disk < NO_DISK else "warn"
        yield state, f"only {in_words(disk)} left on the disk of {project.home}: `apt-assets gc` makes room"
    else:
        yield "ok", f"{in_words(disk)} left on the disk of {project.home}"


def servers(project: Project) -> Found:
    """The stores and servers that are named; nothing where all is in files here."""
    if (shared := find_store()) is not None:
        project.store.experiments()
        yield "ok", f"the store {shared[0]} answers, and so does its lock server"
    if postgres.storage(project.dagster_home) is not None:
        postgres.require(project.dagster_home)
        yield "ok", "Dagster's records in PostgreSQL can be reached"
    policy, rubric = project.experiment.policy, project.experiment.assessor.rubric
    if policy.server.url is not None:
        yield from (
            [("bad", line) for line in obstacles(project.experiment, project.models)]
            or [("ok", f"{policy.server.url} serves the base model and takes adapters")]
        )
    if project.models.grader is None and rubric.endpoint is not None and rubric.model is not None:
        yield grader(project, rubric.endpoint)
    if project.experiment.compute.engine == "ray":
        where = project.experiment.compute.address or "this machine"
        yield "warn", f"rows are computed by Ray on {where}, which only `run` looks at"


def grader(project: Project, endpoint: str) -> tuple[State, str]:
    """One grade, by the way in which a run asks for it."""
    from resources.assessors import Row, Ungradable
    from resources.assessors.endpoint import open_endpoint

    try:
        opened = open_endpoint(SimpleNamespace(settings=project.experiment))
        asked = replace(opened, max_attempts=1, timeout=min(opened.timeout, LOOK_SECONDS))
        grade = asked.grade_row(Row("Which colour has grass?", "Green.", "Green.")).grade
    except (Ungradable, ValueError) as error:  # of a grade, and of a key that no header can hold
        return "bad", str(error)
    return "ok", f"{endpoint} grades (it gave {grade} to a right answer)"


def model(project: Project) -> Found:
    models, experiment = project.models, project.experiment
    if absent := models.to_download():
        yield "warn", f"not on this machine yet, and looked at when it is: {', '.join(absent)}; `run` downloads it"
        return
    project.model_checks.all()
    folder = models.base_model
    try:
        weights = sizes_of(folder).weights
        yield "ok", f"policy.model: {folder} can be used: {weights_in_words(weights)}"
        if experiment.policy.device == "cpu" and weights > LARGE:
            yield "warn", "a loop of a model this large takes hours on a CPU: a GPU, or a smaller model"
    except UnknownSizes:
        yield "ok", f"policy.model: {folder} can be used"
    from resources.model.prompts import load_tokenizer

    template = load_tokenizer(folder).chat_template is not None
    yield "ok", "it has a chat template" if template else "it has no chat template: questions are asked as they are"
    yield "ok", f"retrieval.encoder: {models.encoder} can be used"
    for name, what in MODEL.items():
        if models.identity(what) == "none":
            continue
        known = project.executions.known(name)
        if known is None:
            yield "ok", f"{SETTING[name]}: how it runs (packed or plain) is tried by the first run, which loads it"
        else:
            yield "ok" if known.path == "packed" else "warn", project.executions.in_words(name, known)


def data(project: Project) -> Found:
    named = project.landed()
    if not named:
        yield "bad", f"no data in {project.landing}: `apt-assets land FILE`"
        return
    yield "ok", f"{len(named)} landed file{'s' * (len(named) > 1)} in {project.landing}"
    for key, names in [*project.without_files().items()][:1]:
        yield "bad", taken_away(project, key, names).reason
    for name in (name for name in named if not project.usable_rows(name)):
        yield "warn", f"{name} has no row that can be used: `apt-assets land --dry-run` tells why"
    paths = [project.landing / name for name in named]
    if sum(path.stat().st_size for path in paths) > MOST_BYTES:
        yield "ok", f"more than {MOST_BYTES >> 20} MiB: what of it is left out, and why, `run` tells"
    else:
        yield from rows(project, paths)
    if project.models.to_download():
        return
    check_lengths(project.experiment, project.models, project.landing_folder)
    longest = sum(
        lengths_of(project.landing_folder, project.models.base_model, project.experiment.policy.system_prompt).longest
    )
    most = project.experiment.training.max_length
    if longest > most:
        yield (
            "warn",
            f"the longest row has about {longest:,} tokens, and training.max_length is {most:,}: what is longer is "
            "cut, or left out of training; raise it",
        )
    else:
        yield "ok", f"the longest row has about {longest:,} tokens; training.max_length is {most:,}"


def rows(project: Project, paths: list[Path]) -> Found:
    tables, counts = domain_of(project.experiment, paths)
    yield "ok", "rows: " + ", ".join(f"{tables[split].height:,} {split}" for split in SPLITS)
    for line in left_out_in_words(counts):
        yield "warn", f"{line}; after `run`, `apt-assets show quarantine 1` lists them"
    held = tables["validation"].height
    if not tables["train"].height:
        yield "bad", "no training row: land more"
    if not held:
        yield "bad", "no validation row, so that the gate refuses: raise data.validation, or land more"
    elif held < FEW_HELD_OUT:
        yield "warn", f"{held} validation rows, where one answer is {100 / held:.1f} points: raise data.validation"
    if not project.models.to_download():
        golds = [gold for split in SPLITS for gold in tables[split]["answer"]]
        most = project.experiment.policy.max_new_tokens
        if (too_long := beyond_reach(golds, project.models.base_model, most)) is not None:
            yield "warn", too_long


def gate(project: Project) -> Found:
    experiment, comes = project.experiment, False
    with suppress(UsageError):  # of a model, which `model` tells
        comes = "embedded" in project.models.to_download()
    if comes:
        yield "warn", "the default general tasks come with the embedded models, which `run` downloads first"
        return
    tasks = [task for task in project.tasks.load(experiment.benchmarks.tasks) if not task.rolling]
    items, tolerance = sum(len(task.keys) for task in tasks), experiment.gate.general_tolerance
    least = fewest_items(tolerance, experiment.gate.confidence)
    if not items:
        yield "bad", "benchmarks.tasks: no general item with choices, so that the gate refuses: name a task"
    elif tolerance == 0:
        yield "warn", "gate.general_tolerance is 0: that nothing at all is lost no number of items shows"
    elif (seen := smallest_loss(items)) > 1.1 * tolerance or items < least:
        needed = max(items * (seen / tolerance) ** 2, least)
        yield (
            "warn",
            f"{items:,} general items show a loss of {100 * seen:.1f} points, if {TURNING:.0%} of the answers turn, "
            f"and gate.general_tolerance is {100 * tolerance:g}: about {needed:,.0f} items would show it",
        )
    else:
        yield "ok", f"{items:,} general items can show a loss of gate.general_tolerance, {100 * tolerance:g} points"


def settings(project: Project) -> Found:
    found = planned(project, None)
    for line in found.memory.warnings():
        # A pass that is halved still runs.
        yield "warn" if "smaller passes" in line else "bad", line
    if not found.memory.warnings() and (most := max((peak for peak in found.memory.peaks if peak), default=0)):
        yield "ok", f"no stage needs more than {in_words(most)} of memory"
    yield (
        "ok",
        f"to compute: {total(found.works)}" if project.landed() else "what is to be computed depends on the data",
    )


CHECKS = {"machine": machine, "servers": servers, "model": model, "data": data, "gate": gate, "settings": settings}
