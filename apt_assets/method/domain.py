"""Rows of the landed files -> the iteration's data set: three splits, provenance, quarantine."""

from collections.abc import Iterable

import polars as pl

from apt_assets.method.landing import Reject, Row
from apt_assets.method.splits import SPLITS, row_id, split_of
from schemas import tables

Rejected = tuple[str, str, str | None, str, str]  # file, record, field, reason, raw


def build_domain(rows: Iterable[Row | Reject], validation: float, test: float) -> dict[str, pl.DataFrame]:
    """The tables train, validation, test, provenance and quarantine.

    The same question twice with the same answer is one row. With another answer there is no gold:
    one row is kept, the other quarantined. A question declared for training that equals, after
    normalisation, a held-out one is held out, and the training row quarantined.

    The order of rows in a file decides nothing: files go by name and the rows of a file by what they
    say, and where a row stands is looked up when someone asks (`apt_assets.show`).
    """
    kept: dict[str, tuple[Row, str]] = {}
    rejects: list[Rejected] = []
    for row in sorted(rows, key=lambda row: (row.file, row.record)):
        if isinstance(row, Reject):
            rejects.append((row.file, row.record, row.field, row.reason, row.raw))
            continue
        key = row_id(row.prompt)
        split = row.split or split_of(key, validation, test)
        if key not in kept:
            kept[key] = (row, split)
            continue
        first, first_split = kept[key]
        if row.answer != first.answer:
            rejects.append(reject(row, "answer", f"contradicts {first.file}: {first.prompt} -> {first.answer}"))
        elif row.split and split != first_split:
            if split == "train":
                rejects.append(reject(row, "split", f"held out by {first.file}: {first.prompt}"))
            else:
                kept[key] = (row, split)
                rejects.append(reject(first, "split", f"held out by {row.file}: {row.prompt}"))
    return as_tables(kept, rejects)


def reject(row: Row, field: str, reason: str) -> Rejected:
    return row.file, row.record, field, reason[:500], f"{row.prompt} -> {row.answer}"[:500]


def as_tables(kept: dict[str, tuple[Row, str]], rejects: list[Rejected]) -> dict[str, pl.DataFrame]:
    ordered = sorted(kept.items())
    result = {}
    for split in SPLITS:
        chosen = [(key, row.prompt, row.answer) for key, (row, its) in ordered if its == split]
        result[split] = pl.DataFrame(chosen, schema=tables.Examples.empty().schema, orient="row")
    provenance = [(key, split, row.file, row.record, row.source_id, row.metadata) for key, (row, split) in ordered]
    result["provenance"] = pl.DataFrame(provenance, schema=tables.Provenance.empty().schema, orient="row")
    ranked = sorted(rejects, key=lambda r: [part or "" for part in r])
    result["quarantine"] = pl.DataFrame(ranked, schema=tables.Quarantine.empty().schema, orient="row")
    return result
