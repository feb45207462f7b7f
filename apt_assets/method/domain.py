"""Rows of the landed files -> the iteration's data set: three splits, provenance, quarantine."""

from collections.abc import Iterable

import polars as pl

from apt_assets.method.landing import Reject, Row
from apt_assets.method.splits import SPLITS, row_id, split_of
from schemas import empty_table


def build_domain(rows: Iterable[Row | Reject], validation: float, test: float) -> dict[str, pl.DataFrame]:
    """The tables train, validation, test, provenance and quarantine.

    The same question twice with the same answer is one row (the first). With another answer there
    is no gold: the later row is quarantined. A question declared for training that equals, after
    normalisation, a held-out one is held out, and the training row quarantined.

    Tables are sorted by row_id: the order of rows in a file is not content.
    """
    kept: dict[str, tuple[Row, str]] = {}
    rejects: list[Reject] = []
    for row in rows:
        if isinstance(row, Reject):
            rejects.append(row)
            continue
        key = row_id(row.prompt)
        split = row.split or split_of(key, validation, test)
        if key not in kept:
            kept[key] = (row, split)
            continue
        first, first_split = kept[key]
        if row.answer != first.answer:
            rejects.append(reject(row, "answer", f"contradicts {first.file} line {first.line}"))
        elif row.split and split != first_split:
            if split == "train":
                rejects.append(reject(row, "split", f"held out by {first.file} line {first.line}"))
            else:
                kept[key] = (row, split)
                rejects.append(reject(first, "split", f"held out by {row.file} line {row.line}"))
    return tables(kept, rejects)


def reject(row: Row, field: str, reason: str) -> Reject:
    return Reject(row.file, row.line, field, reason, f"{row.prompt} -> {row.answer}"[:500])


def tables(kept: dict[str, tuple[Row, str]], rejects: list[Reject]) -> dict[str, pl.DataFrame]:
    ordered = sorted(kept.items())
    result = {}
    for split in SPLITS:
        chosen = [(key, row.prompt, row.answer) for key, (row, its) in ordered if its == split]
        result[split] = pl.DataFrame(chosen, schema=empty_table(split).schema, orient="row")
    provenance = [(key, split, row.file, row.line, row.source_id, row.metadata) for key, (row, split) in ordered]
    result["provenance"] = pl.DataFrame(provenance, schema=empty_table("provenance").schema, orient="row")
    rejected = [(r.file, r.line, r.field, r.reason, r.raw) for r in rejects]
    result["quarantine"] = pl.DataFrame(rejected, schema=empty_table("quarantine").schema, orient="row")
    return result
