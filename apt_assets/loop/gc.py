"""gc: remove what neither the last iterations nor the promoted adapter need.

What goes: the files of older iterations' artifacts, artifacts and traces of settings that are no
longer pointed at, rows and vectors that no kept artifact used, quarantine, and what killed runs left
behind. What stays: everything the kept iterations read, the rows and checkpoints of a stage that has yet to come
to its end, all iterations of what a study compares, the promoted adapter with its scores, those of adapters that a
person may yet approve of or think better of, and of *every* iteration its manifests, its verdict and which adapter
it promoted. So nothing turns stale: an older iteration stays fresh without its files, and one of them that is
needed again is computed again.
"""

import re
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from apt_assets.engine.plan import stages_of
from apt_assets.engine.stage import STAGES
from apt_assets.engine.step import FILLING
from apt_assets.project import Project
from apt_assets.promotion import TRAINED, refused_by_people
from apt_assets.settings.iterations import BASE
from resources.store import locks
from resources.store.manifest import Manifest
from resources.store.store import Collected, Kept

# What the chain of promotions is read from, and what belongs to no iteration.
ALWAYS = ("gate", "base_scores", "judge_calibration", "heldout_rows", "anchor_texts")


def collect_garbage(project: Project, keep: int, *, dry_run: bool) -> Collected:
    """Keep the last `keep` iterations of every experiment in the store; remove the rest.

    Raises RuntimeError if a run is going on: what it has not committed yet would look unused.
    """
    store = project.store
    with store.locks.take(locks.GC), store.locks.take(locks.DAGSTER), store.locks.all_idle():
        collected = store.remove_unneeded(what_to_keep(project, keep), really=not dry_run)
        if not dry_run:
            store.journal("collected", removed=collected.removed, bytes=collected.bytes)
    return collected


def what_to_keep(project: Project, keep: int) -> Kept:
    """What has to stay so that nothing turns stale and the last `keep` iterations can be read."""
    needed, pointed = needs(project, keep)
    begun = begun_work(project)
    return Kept(
        data_versions={manifest.data_version for manifest in needed},
        traces={(manifest.stage, manifest.fingerprint) for manifest in pointed},
        row_tables={name for manifest in needed for name in manifest.row_tables} | begun.tables,
        vectors=needed_vectors(project, [manifest for manifest in needed if manifest.stage == "retrieval_index"]),
        unfinished=begun.fingerprints,
    )


@dataclass
class Begun:
    """What computations left that have not come to their end: tables of rows, and what they are known by."""

    tables: set[str] = field(default_factory=set)
    fingerprints: set[str] = field(default_factory=set)


def begun_work(project: Project) -> Begun:
    """Of all stages that were begun, by the journal, and have not come to their end since."""
    begun: dict[tuple[str, ...], Begun] = {}
    for event in project.store.events("miss", "computed", "hit", FILLING):
        where = tuple(event.get(name, "") for name in ("experiment", "iteration", "stage"))
        if event["event"] in ("computed", "hit"):
            begun.pop(where, None)
            continue
        its = begun.setdefault(where, Begun())
        its.fingerprints.add(event["fingerprint"])
        its.tables |= {event["table"]} if event["event"] == FILLING else set()
    return Begun(
        {table for its in begun.values() for table in its.tables},
        {fingerprint for its in begun.values() for fingerprint in its.fingerprints},
    )


def needs(project: Project, keep: int) -> tuple[list[Manifest], list[Manifest]]:
    """(manifests whose files are needed, all that are pointed at) over every experiment in the store."""
    needed: list[Manifest] = []
    pointed: list[Manifest] = []
    planner = project.planner()
    studied = runs_of_studies(project.home)
    for experiment in project.store.experiments():
        iterations = project.store.iterations(experiment)
        present = {
            (key, name): manifest
            for key in [BASE, *iterations]
            for name in STAGES
            if (manifest := project.store.pointed(experiment, key, name)) is not None
        }
        pointed += present.values()
        own = experiment == project.experiment.name
        if own:
            # What is fresh by a trace need not have been run, and so not be pointed at.
            fresh = {(key, name): planner.stage(key, name) for key in [BASE, *iterations] for name in stages_of(key)}
            present |= {where: p.manifest for where, p in fresh.items() if p.status == "fresh" and p.manifest}
            pointed += present.values()
        # Adapters that were promoted and not refused since: the last one, and that each kept iteration starts from.
        made = [key for key in iterations if (key, "promoted_adapter") in present]
        by_gate = {key for key in made if (planner.withdrawn(key) if own else refused(present.get((key, "gate"))))}
        asks = not own or project.experiment.gate.approval != "none"
        said = refused_by_people(project.store, experiment) if asks else set()
        # An early version did not note which adapter it promoted: nobody could refuse that one.
        by_people = {key for key in made if present[key, "promoted_adapter"].inputs.get(TRAINED) in said}
        out = by_gate | by_people
        promoted = [key for key in made if key not in out]
        counts = promoted[-1:] if own else may_count(made, out)
        # What a study compares is read again when it is called again.
        kept = set(iterations if experiment in studied else iterations[-keep:]) | set(counts)
        passed = {key for (key, name), manifest in present.items() if name == "gate" and manifest.facts.get("passed")}
        waiting = passed - set(made)
        kept_adapters = kept | by_people | waiting
        kept_adapters |= set([key for key in promoted if key < min(kept, default="")][-1:])
        for (key, name), manifest in present.items():
            scored = name in ("adapter_checkpoint", "promoted_adapter", "benchmark_scores") and key in kept_adapters
            if name in ALWAYS or key in kept or scored:
                needed.append(manifest)
    return [m for m in needed if not m.collected], pointed


def refused(verdict: Manifest | None) -> bool:
    """Whether a gate of another experiment, whose plan is not known here, refused last."""
    return verdict is not None and not verdict.facts["passed"]


def may_count(made: list[str], out: set[str]) -> list[str]:
    """Of the promotions of another experiment, whose plan is not known here, those of which one is the one that counts:
    the last, and the last before each that was refused since, as the loop may end there."""
    return [key for key, then in pairwise([*made, None]) if key is not None and (then is None or then in out)]


def runs_of_studies(home: Path) -> set[str]:
    """Names of the experiments that the studies in the project's own folder last consisted of."""
    files = (home / "studies").glob("*/runs/*.yaml")
    named = (
        re.search(r"^name: (\S+)$", file.read_text(encoding="utf-8", errors="replace"), re.MULTILINE) for file in files
    )
    return {found[1] for found in named if found}


def needed_vectors(project: Project, indexes: list[Manifest]) -> dict[str, set[str] | None]:
    """Name of a table of vectors -> the checks of its rows that these artifacts' pools hold; see Kept."""
    pools: dict[str, list[Manifest]] = {}
    for manifest in indexes:
        pools.setdefault(manifest.facts["vectors"], []).append(manifest)
    return {name: checks_in(project, of_table) for name, of_table in pools.items()}


def checks_in(project: Project, pools: list[Manifest]) -> set[str] | None:
    """The checks of all rows in these pools; None if one is gone or damaged: it may have held any."""
    from resources.store.tables import TableError, read_table

    try:
        return {check for pool in pools for check in read_table(project.store.open(pool) / "pool.parquet")["check"]}
    except (FileNotFoundError, TableError):
        return None


def as_json(collected: Collected) -> dict[str, Any]:
    return {"removed": collected.removed, "bytes": collected.bytes}
