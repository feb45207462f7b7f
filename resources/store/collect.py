"""Removing from a local store what nothing needs."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from resources.store.digest import list_files
from resources.store.records import Records
from resources.store.store import Collected, Kept


def remove_unneeded(
    root: Path, records: Records, vectors: Callable[[str], Any], kept: Kept, *, really: bool
) -> Collected:
    """`Store.remove_unneeded`, over the folders of the store in `root`, whose sealed files `records` reads."""
    collected, gone = Collected(), []
    for path in sorted((root / "traces").glob("*/*.json")):
        manifest = records.manifest(path.relative_to(root).as_posix())
        if manifest is None or (manifest.stage, manifest.fingerprint) not in kept.traces:
            remove(path, "traces", collected, really=really)
        elif manifest.data_version not in kept.data_versions and not manifest.collected:
            gone.append(manifest)
    # First what leaves no note: on a full disk there is no room for one before.
    for path in sorted((root / "rows").glob("*/*.jsonl")):
        if f"{path.parent.name}/{path.stem}" not in kept.row_tables:
            remove(path, "row tables", collected, really=really)
            if really:
                path.with_suffix(".lock").unlink(missing_ok=True)
    for folder in ("quarantine", "rows/damaged", "temporary", "unfinished"):
        kind = "quarantine" if folder == "rows/damaged" else folder
        for path in sorted((root / folder).glob("*")):
            if folder != "unfinished" or path.name not in kept.unfinished:
                remove(path, kind, collected, really=really)
    for kind in ("traces", "pointers", "snapshots"):
        # What a kill left of a file that was being replaced.
        for path in sorted((root / kind).rglob(".*")):
            remove(path, "temporary", collected, really=really)
    if really:
        records.mark_collected(gone)
    for path in sorted((root / "objects").glob("*")):
        if path.name not in kept.data_versions:
            remove(path, "artifacts", collected, really=really)
    remove_vectors(root / "lancedb", vectors, kept.vectors, collected, really=really)
    return collected


def remove_vectors(
    database: Path,
    vectors: Callable[[str], Any],
    kept: dict[str, set[str] | None],
    collected: Collected,
    *,
    really: bool,
) -> None:
    """Remove the LanceDB tables that are not in `kept`, and of the others the rows that have none of its checks."""
    for folder in sorted(database.glob("*.lance")):
        if folder.stem not in kept:
            remove(folder, "vector tables", collected, really=really)
            for beside in (folder.with_suffix(".checked.json"), folder.with_suffix(".lock")):
                if really:
                    beside.unlink(missing_ok=True)
    for name, checks in sorted(kept.items()):
        if checks is not None:
            number, size = vectors(name).keep_only(checks, really=really)
            if number:
                collected.add("vectors", number, size)


def remove(path: Path, kind: str, collected: Collected, *, really: bool) -> None:
    """Count a file or folder, and remove it if `really`."""
    files = [path] if path.is_file() else list_files(path)
    collected.add(kind, 1, sum(file.stat().st_size for file in files))
    if really:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
