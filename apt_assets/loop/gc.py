"""gc: remove what neither the last iterations nor the promoted adapter need.

What goes: the files of older iterations' artifacts, artifacts and traces of settings that are no
longer pointed at, rows and vectors that no kept artifact used, quarantine, and what killed runs left
behind. What stays: everything the kept iterations read, all iterations of what a study compares, the
promoted adapter with its scores, and of *every* iteration its manifests, its verdict and which adapter it
promoted. So nothing turns stale: an older iteration stays fresh without its files, and one of them that is
needed again is computed again.
"""

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apt_assets.engine.plan import stages_of
from apt_assets.engine.stage import STAGES
from apt_assets.project import Project
from apt_assets.settings.iterations import BASE
from resources.store import locks
from resources.store.digest import list_files
from resources.store.manifest import Manifest

# Small, and what the chain of promotions is read from.
ALWAYS = ("policy", "gate", "promoted_adapter", "base_scores")


@dataclass
class Collected:
    """What gc removed, or would remove: files, folders or vectors by kind, and their size in bytes."""

    removed: dict[str, int] = field(default_factory=dict)
    bytes: int = 0

    def add(self, kind: str, path: Path, really: bool) -> None:
        files = [path] if path.is_file() else list_files(path)
        self.removed[kind] = self.removed.get(kind, 0) + 1
        self.bytes += sum(file.stat().st_size for file in files)
        if really:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def collect_garbage(project: Project, keep: int, *, dry_run: bool) -> Collected:
    """Keep the last `keep` iterations of every experiment in the store; remove the rest.

    Raises RuntimeError if a run is going on: what it has not committed yet would look unused.
    """
    store = project.store
    with store.locks.take(locks.GC), store.locks.take(locks.DAGSTER), store.locks.all_idle():
        found = Collected()
        needed, pointed = needs(project, keep)
        data_versions = {m.data_version for m in needed}
        traces = {(m.stage, m.fingerprint) for m in pointed}
        for path in sorted((store.root / "traces").glob("*/*.json")):
            manifest = store.manifest(path)
            if manifest is None or (manifest.stage, manifest.fingerprint) not in traces:
                found.add("traces", path, not dry_run)
            elif manifest.data_version not in data_versions and not manifest.collected and not dry_run:
                store.mark_collected(manifest)
        for path in sorted((store.root / "objects").glob("*")):
            if path.name not in data_versions:
                found.add("artifacts", path, not dry_run)
        tables = {name for manifest in needed for name in manifest.row_tables}
        for path in sorted(project.rows.glob("*/*.jsonl")):
            if f"{path.parent.name}/{path.stem}" not in tables:
                found.add("row tables", path, not dry_run)
                if not dry_run:
                    path.with_suffix(".lock").unlink(missing_ok=True)
        for kind in ("quarantine", "temporary", "unfinished"):
            for path in sorted((store.root / kind).glob("*")):
                found.add(kind, path, not dry_run)
        for kind in ("traces", "pointers", "snapshots"):
            # What a kill left of a file that was being replaced.
            for path in sorted((store.root / kind).rglob(".*")):
                found.add("temporary", path, not dry_run)
        collect_vectors(project, needed, found, dry_run=dry_run)
        if not dry_run:
            store.journal("collected", removed=found.removed, bytes=found.bytes)
    return found


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
        if experiment == project.experiment.name:
            # What is fresh by a trace need not have been run, and so not be pointed at.
            fresh = {(key, name): planner.stage(key, name) for key in [BASE, *iterations] for name in stages_of(key)}
            present |= {where: p.manifest for where, p in fresh.items() if p.status == "fresh" and p.manifest}
            pointed += present.values()
        # An adapter that was promoted: the last one, and the one each kept iteration starts from.
        promoted = [key for key in iterations if (key, "promoted_adapter") in present]
        # What a study compares is read again when it is called again.
        kept = set(iterations if experiment in studied else iterations[-keep:]) | set(promoted[-1:])
        kept_adapters = kept | set([key for key in promoted if key < min(kept, default="")][-1:])
        for (key, name), manifest in present.items():
            scored = name in ("adapter_checkpoint", "benchmark_scores") and key in kept_adapters
            if name in ALWAYS or key in kept or scored:
                needed.append(manifest)
    return [m for m in needed if not m.collected], pointed


def runs_of_studies(home: Path) -> set[str]:
    """Names of the experiments that the studies in the project's own folder last consisted of."""
    files = (home / "studies").glob("*/runs/*.yaml")
    named = (
        re.search(r"^name: (\S+)$", file.read_text(encoding="utf-8", errors="replace"), re.MULTILINE) for file in files
    )
    return {found[1] for found in named if found}


def collect_vectors(project: Project, needed: list[Manifest], found: Collected, *, dry_run: bool) -> None:
    """Remove the LanceDB tables that no kept pool has its vectors in, and the rows that none holds."""
    from resources.store.tables import read_table

    indexes = [manifest for manifest in needed if manifest.stage == "retrieval_index"]
    kept = {manifest.facts["vectors"] for manifest in indexes}
    for folder in sorted(project.lancedb.glob("*.lance")):
        if folder.stem not in kept:
            found.add("vector tables", folder, not dry_run)
            for beside in (folder.with_suffix(".checked.json"), folder.with_suffix(".lock")):
                if not dry_run:
                    beside.unlink(missing_ok=True)
    for name in sorted(kept):
        files = [project.store.folder(m) / "pool.parquet" for m in indexes if m.facts["vectors"] == name]
        if all(file.is_file() for file in files):
            checks = {check for file in files for check in read_table(file)["check"]}
            number, size = project.vector_table(name).keep_only(checks, really=not dry_run)
            if number:
                found.removed["vectors"] = found.removed.get("vectors", 0) + number
                found.bytes += size


def as_json(found: Collected) -> dict[str, Any]:
    return {"removed": found.removed, "bytes": found.bytes}
