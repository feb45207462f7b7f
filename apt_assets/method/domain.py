"""Rows of the landed files -> the iteration's data set: three splits, provenance, quarantine, given wrong answers."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import polars as pl

from apt_assets.landing.corrections import COLUMNS
from apt_assets.landing.records import ROWS, Landed, records_of
from apt_assets.landing.side_fields import SPLITS
from apt_assets.method.corrections import corrected
from apt_assets.method.golds import by_gold, golds_of
from apt_assets.method.left_out import OF_A_QUESTION, as_note, differing_fields
from apt_assets.method.near import near_held_out
from apt_assets.method.splits import row_ids, splits_of
from schemas import tables

Row = dict[str, str | None]  # one of FOUND, by column
FOUND = {"file": pl.String, **ROWS, "row_id": pl.String, "its_split": pl.String}
QUARANTINE = ("file", "record", "field", "reason", "raw")


def build_domain(
    parts: Iterable[Landed],
    validation: float,
    test: float,
    near_duplicate_words: int | None,
    ungradable: Callable[[str], str | None] | None = None,
) -> dict[str, pl.DataFrame]:
    """The tables train, validation, test, rejected_answers, provenance, corrections and quarantine.

    The same question twice with the same right answers is one row. With others there is no gold:
    one row is kept, the other quarantined. A question declared for training that equals, after
    normalisation, a held-out one is held out, and the training row quarantined. So is a training row that
    is a near duplicate of a held-out one (method/near.py; None: it stays). Before all that a row leaves whose
    answer cannot be graded; ungradable: (answer) -> why, or None. What people decided about rows holds before rows
    are compared (method/corrections.py).

    The order of rows in a file decides nothing: files go by name and the rows of a file by what they
    say, and where a row stands is looked up when someone asks (`apt_assets.report.show`).
    """
    found, rejects = [pl.DataFrame(schema=FOUND)], [pl.DataFrame(schema=tables.Quarantine.empty().schema)]
    decisions = [pl.DataFrame(schema={**COLUMNS, "file": pl.String})]
    for part in parts:
        decisions.append(part.corrections.with_columns(file=pl.lit(part.file)))
        gradable, refused = graded_by(with_identity(part, validation, test), ungradable)
        found.append(gradable)
        records = records_of(part.rejects)
        bad = [(r.file, record, r.field, r.reason, r.raw) for r, record in zip(part.rejects, records, strict=True)]
        rejects.append(pl.DataFrame(bad, schema=rejects[0].schema, orient="row"))
        rejects.append(pl.DataFrame(refused, schema=rejects[0].schema))
    rows = pl.concat(found).sort("file", "record")
    del found
    rows, changed, applied, left_out, idle = corrected(rows, pl.concat(decisions))
    gradable, refused = graded_by(changed, ungradable)
    rows = pl.concat([rows, gradable])
    refused += [reject(row, None, reason) for row, reason in left_out]
    refused += [not_applied(one, reason) for one, reason in idle]
    rejects.append(pl.DataFrame(refused, schema=rejects[0].schema))
    given = rows.drop_nulls("rejected").select("row_id", "answer", "also", "rejected")
    # Two steps: a window inside a window would be worked out once for each question.
    rows = rows.with_columns(pl.col("answer", "also", "its_split").first().over("row_id").name.prefix("first_"))
    same_split = pl.col("split").is_null() | (pl.col("its_split") == pl.col("first_its_split"))
    same_golds = (pl.col("answer") == pl.col("first_answer")) & pl.col("also").eq_missing(pl.col("first_also"))
    agrees = same_golds & same_split
    rows = rows.select(*FOUND, agrees.alias("agrees"))
    rows = rows.with_columns(pl.col("agrees").all().over("row_id"))
    kept, disputed = settle(rows.filter(~pl.col("agrees")).drop("agrees").rows(named=True))
    agreed, others = once_each(rows.filter("agrees").drop("agrees"))
    del rows
    rows = pl.concat([agreed, pl.DataFrame(kept, schema=FOUND)]).sort("row_id")
    del agreed
    leaks: list[Row] = []
    if near_duplicate_words is not None:
        rows, leaks = without_near(rows, near_duplicate_words)
    rejected = pl.concat([*rejects, pl.DataFrame([*disputed, *others, *leaks], schema=rejects[0].schema)])
    return {
        **as_tables(rows, rejected),
        "corrections": applied.join(rows, on="row_id", how="semi").sort("row_id"),
        "rejected_answers": of_training(given, rows),
    }


def with_identity(part: Landed, validation: float, test: float) -> pl.DataFrame:
    """FOUND: the rows of a part with their file, row_id and the split they belong to if no one disputes it."""
    ids = row_ids(part.rows["prompt"])
    by_content = pl.Series(splits_of(ids, validation, test), dtype=pl.String)
    return part.rows.select(
        pl.lit(part.file).alias("file"),
        *ROWS,
        pl.Series("row_id", ids, dtype=pl.String),
        pl.coalesce("split", by_content).alias("its_split"),
    )


def graded_by(rows: pl.DataFrame, ungradable: Callable[[str], str | None] | None) -> tuple[pl.DataFrame, list[Row]]:
    """FOUND -> (the same without rows of which no right answer can be graded, these as QUARANTINE)."""
    if ungradable is None:
        return rows, []
    golds = by_gold(rows)["answer"].unique()
    reasons = {gold: reason for gold in golds if (reason := ungradable(gold)) is not None}
    doubtful = rows.filter(pl.col("answer").is_in(list(reasons)))
    refused = [row for row in doubtful.rows(named=True) if all(gold in reasons for gold in golds_of(row))]
    kept = rows.filter(~pl.col("record").is_in([row["record"] for row in refused]))
    return kept, [reject(row, "answer", reasons[row["answer"]]) for row in refused]


def once_each(rows: pl.DataFrame) -> tuple[pl.DataFrame, list[Row]]:
    """Rows that agree with those of the same question, in order -> (the first of each question, QUARANTINE of others).

    Others are what one would take for another question: its passage, say, is another one. A plain repetition needs
    no word.
    """
    kept = rows.unique("row_id", keep="first", maintain_order=True)
    again = rows.filter(~pl.col("row_id").is_first_distinct()).drop_nulls("metadata")
    firsts = kept.join(again, on="row_id", how="semi").rows_by_key("row_id", named=True, unique=True)
    others = (asked_of_another(row, firsts[row["row_id"]]) for row in again.rows(named=True))
    return kept, [row for row in others if row is not None]


def asked_of_another(row: Row, first: Row) -> Row | None:
    """A row with the question and answer of the first one as QUARANTINE, if a passage or the like tells them apart."""
    fields = [name for name in differing_fields(row["metadata"], first["metadata"]) if name in OF_A_QUESTION]
    if not fields:
        return None
    return reject(row, fields[0], f"asks the same as {first['file']}{as_note(fields)}: {first['prompt']}")


def settle(rows: Iterable[Row]) -> tuple[list[Row], list[Row]]:
    """Rows of which some contradict each other, in order -> (one for each question, the others as QUARANTINE)."""
    kept: dict[str | None, Row] = {}
    rejects = []
    for row in rows:
        key = row["row_id"]
        first = kept.setdefault(key, row)
        if golds_of(row) != golds_of(first):
            note = as_note(differing_fields(row["metadata"], first["metadata"]))
            reason = f"contradicts {first['file']}{note}: {first['prompt']} -> {' or '.join(golds_of(first))}"
            rejects.append(reject(row, "answer", reason))
        elif row["split"] and row["its_split"] != first["its_split"]:
            if row["its_split"] == "train":
                rejects.append(reject(row, "split", f"held out by {first['file']}: {first['prompt']}"))
            else:
                kept[key] = row
                rejects.append(reject(first, "split", f"held out by {row['file']}: {row['prompt']}"))
        elif row is not first and (other := asked_of_another(row, first)):
            rejects.append(other)
    return list(kept.values()), rejects


def without_near(rows: pl.DataFrame, shortest: int) -> tuple[pl.DataFrame, list[Row]]:
    """FOUND -> (the same without training rows that are near to a held-out one, these as QUARANTINE)."""
    of_train = rows["its_split"] == "train"
    train, held_out = by_gold(rows.filter(of_train)), by_gold(rows.filter(~of_train))
    near = near_held_out(train, held_out, shortest)
    pairs = zip(train[list(near)].rows(named=True), held_out[list(near.values())].rows(named=True), strict=True)
    leaks = {
        row["row_id"]: reject(
            row, "prompt", f"is within a word of a {other['its_split']} row of {other['file']}: {other['prompt']}"
        )
        for row, other in pairs
    }
    return rows.join(train[list(near)], on="row_id", how="anti", maintain_order="left"), list(leaks.values())


def of_training(given: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Given rejected answers (row_id, answer, also, rejected) -> those of training rows with these golds, one each."""
    train = rows.filter(pl.col("its_split") == "train")
    kept = given.join(train, on=["row_id", "answer", "also"], how="semi", nulls_equal=True, maintain_order="left")
    return kept.unique("row_id", keep="first", maintain_order=True).select("row_id", "rejected").sort("row_id")


def reject(row: Row, field: str | None, reason: str) -> Row:
    raw = f"{row['prompt']} -> {' or '.join(golds_of(row))}"
    values = (row["file"], row["record"], field, reason[:500], raw[:500])
    return dict(zip(QUARANTINE, values, strict=True))


def not_applied(decision: Mapping[str, Any], reason: str) -> Row:
    raw = f"{decision['prompt']} -> {decision['answer']}" if decision["answer"] else decision["prompt"]
    values = (decision["file"], decision["record"], "decision", reason[:500], raw[:500])
    return dict(zip(QUARANTINE, values, strict=True))


def as_tables(ordered: pl.DataFrame, rejects: pl.DataFrame) -> dict[str, pl.DataFrame]:
    result = {s: ordered.filter(pl.col("its_split") == s).select("row_id", "prompt", "answer", "also") for s in SPLITS}
    result["provenance"] = ordered.select(
        "row_id", pl.col("its_split").alias("split"), "file", "record", "source_id", "metadata"
    )
    result["quarantine"] = rejects.sort("file", "record", pl.col("field").fill_null(""), "reason", "raw")
    return result
