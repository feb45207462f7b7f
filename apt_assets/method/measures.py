"""Graded answers -> the counts that plots and the report show."""

from typing import Any

import polars as pl

from apt_assets.method.grades import is_bad
from resources.assessors.labels import names, normalise_answer

OTHER, NO_LABEL, HEDGED = "other labels", "no label", "several labels"


def grade_counts(predictions: pl.DataFrame) -> dict[int, int]:
    """Number of rows with each grade 1-5; grades that no row has count 0."""
    found = dict(predictions["grade"].value_counts().iter_rows())
    return {grade: found.get(grade, 0) for grade in range(1, 6)}


def by_label(before: pl.DataFrame, after: pl.DataFrame, bad_below: int) -> list[dict[str, Any]]:
    """One entry per gold label, most frequent first: {label, n, bad_before, bad_after, exact_before,
    exact_after}.

    before, after: Predictions; only questions that both have, with the same golds, count. bad: share graded below
    `bad_below`. exact: share equal to the gold after normalisation. The label is the normalised gold.
    """
    both = before.join(after, on=["row_id", "answer", "also"], nulls_equal=True, suffix="_after")
    found = with_label(both).group_by("label").agg(
        pl.len().alias("n"),
        is_bad(pl.col("grade"), bad_below).mean().alias("bad_before"),
        is_bad(pl.col("grade_after"), bad_below).mean().alias("bad_after"),
        pl.col("exact").mean().alias("exact_before"),
        pl.col("exact_after").mean().alias("exact_after"),
    )  # fmt: skip
    return found.sort("n", "label", descending=[True, False]).to_dicts()


def with_label(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with `label`: their gold answer, normalised."""
    labels = [normalise_answer(answer) for answer in rows["answer"]]
    return rows.with_columns(pl.Series("label", labels, dtype=pl.String))


def confusion(predictions: pl.DataFrame, labels: list[str], most: int = 12) -> dict[str, Any]:
    """Gold label against said label: {gold: [labels], said: [labels], counts: [[rows]]}, counts by
    gold, then by said.

    labels: the normalised labels of a closed task (`assessor.labels_of`). The `most` labels with the
    most gold rows stand for themselves, the rest together as "other labels". An answer that equals one of several
    golds says the gold; any other says the label it equals, else the only one it names; "no label" if it names none,
    "several labels" if more.
    """
    gold = with_label(predictions)["label"].to_list()
    answers = zip(gold, predictions["prediction"], predictions["exact"], strict=True)
    said = [label if exact else said_label(text, labels) for label, text, exact in answers]
    counts = pl.Series("label", gold, dtype=pl.String).value_counts(name="n")
    kept = counts.sort("n", "label", descending=[True, False])["label"].to_list()[:most]
    table: dict[tuple[str, str], int] = {}
    for wanted, answer in zip(gold, said, strict=True):
        shown = answer if answer in (*kept, NO_LABEL, HEDGED) else OTHER
        cell = (wanted if wanted in kept else OTHER, shown)
        table[cell] = table.get(cell, 0) + 1
    rows = [*kept, *([OTHER] if len(counts) > most else [])]
    columns = [*kept, *(name for name in (OTHER, HEDGED, NO_LABEL) if any(said == name for _, said in table))]
    return {"gold": rows, "said": columns, "counts": [[table.get((row, said), 0) for said in columns] for row in rows]}


def said_label(answer: str, labels: list[str]) -> str:
    """Which of the normalised labels an answer says. A label inside another named one does not count."""
    text = normalise_answer(answer)
    if text in labels:
        return text
    named = [label for label in labels if names(text, label)]
    named = [label for label in named if not any(label != other and names(other, label) for other in named)]
    return named[0] if len(named) == 1 else HEDGED if named else NO_LABEL
