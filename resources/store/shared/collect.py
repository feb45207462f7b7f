"""Removing from a shared store what nothing needs."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from resources.store.records import Records
from resources.store.shared.bucket import Bucket, Thing
from resources.store.shared.copies import Copies
from resources.store.shared.segments import join
from resources.store.store import Collected, Kept

COPIED = ("traces", "pointers", "snapshots", "rows", "journal")  # thing by thing, on machines that read them


def remove_unneeded(
    bucket: Bucket, records: Records, vectors: Callable[[str], Any], kept: Kept, *, really: bool
) -> Collected:
    """`Store.remove_unneeded`, but for what lies on this machine."""
    collected, gone = Collected(), []

    def remove(kind: str, things: Sequence[Thing]) -> None:
        collected.add(kind, 1, sum(thing.size for thing in things))
        if really:
            bucket.remove(thing.name for thing in things)

    for thing in bucket.things("traces"):
        manifest = records.manifest(thing.name)
        if manifest is None or (manifest.stage, manifest.fingerprint) not in kept.traces:
            remove("traces", [thing])
        elif manifest.data_version not in kept.data_versions and not manifest.collected:
            gone.append(manifest)
    if really:
        records.mark_collected(gone)
    for name, things in folders(bucket, "objects"):
        if name not in kept.data_versions:
            remove("artifacts", things)
    for name, things in folders(bucket, "rows", depth=2):
        if name not in kept.row_tables:
            remove("row tables", things)
    for _, things in folders(bucket, "quarantine"):
        remove("quarantine", things)
    for name, things in folders(bucket, "lancedb"):
        if name.endswith(".lance") and name.removesuffix(".lance") not in kept.vectors:
            remove("vector tables", things)
            if really:
                bucket.remove([f"lancedb/{name.removesuffix('.lance')}.checked.json"])
    for name, checks in sorted(kept.vectors.items()):
        if checks is not None:
            number, size = vectors(name).keep_only(checks, really=really)
            if number:
                collected.add("vectors", number, size)
    return collected


def folders(bucket: Bucket, folder: str, *, depth: int = 1) -> list[tuple[str, list[Thing]]]:
    """(name, all below it) of the folders, or things, so deep in a folder."""

    def name_of(thing: Thing) -> str:
        return "/".join(thing.name.split("/")[1 : 1 + depth])

    # Sorted by that name: "a-b/c" stands before "a/c" and would part "a" from itself.
    things = sorted(bucket.things(folder), key=lambda thing: (name_of(thing), thing.name))
    return [(name, list(its)) for name, its in groupby(things, key=name_of)]


def join_rows(bucket: Bucket, copies: Copies) -> None:
    """Join the segments of tables that have many. Only while nobody writes."""
    for _, segments in folders(bucket, "rows", depth=2):
        join(bucket, copies, segments)


def remove_copies(bucket: Bucket, copies: Copies) -> None:
    """Remove the copies, on this machine, of what is not there any more."""
    things = [thing for folder in COPIED for thing in bucket.things(folder)]
    copies.keep_only(things, [(f"objects/{name}", its) for name, its in folders(bucket, "objects")])
