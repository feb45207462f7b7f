"""What the policy gets wrong, in groups, and what became of it; and what it forgot.

A closed task groups its questions by gold label. A free-form task groups them by meaning: k-means
over the encoder's vectors of the bad cases, each other question going to the nearest centre.
"""

import math
from typing import TYPE_CHECKING, Any

import polars as pl

from apt_assets.method.grades import is_bad, is_right
from apt_assets.method.measures import with_label
from apt_assets.method.scores import wilson
from resources.words import words

if TYPE_CHECKING:
    import numpy as np

MOST_CLUSTERS = 12
CURED_BELOW = 0.2  # a weakness of which no more than this share is still answered badly counts as cured


def label_groups(mined: pl.DataFrame) -> dict[str, str]:
    """row_id -> gold label."""
    return dict(with_label(mined).select("row_id", "label").iter_rows())


def cluster_groups(mined: pl.DataFrame, bad: set[str], vectors: "np.ndarray") -> dict[str, str]:
    """row_id -> name of its cluster.

    mined: distinct questions (row_id, prompt). bad: row_ids of those that were a bad case.
    vectors: (questions, dimensions), float32, in the order of `mined`. The same rows always give the
    same clusters: the seed is fixed, and so must the order be.
    """
    import numpy as np
    from sklearn.cluster import KMeans

    ids = mined["row_id"].to_list()
    is_bad = np.array([row in bad for row in ids], dtype=bool)
    distinct = len(np.unique(vectors[is_bad], axis=0))
    clusters = min(MOST_CLUSTERS, distinct, max(1, round(math.sqrt(is_bad.sum() / 2))))
    model = KMeans(clusters, n_init=10, random_state=0).fit(vectors[is_bad])
    numbers = model.predict(vectors).tolist()
    texts: dict[int, list[str]] = {number: [] for number in range(clusters)}
    for number, prompt, counts in zip(numbers, mined["prompt"], is_bad, strict=True):
        if counts:
            texts[number].append(prompt)
    named: dict[int, str] = {}
    for number in texts:
        others = [text for other, part in texts.items() if other != number for text in part]
        name = distinguishing_words(texts[number], others)
        named[number] = name if name not in named.values() else f"{name} ({number + 1})"
    return {row: named[number] for row, number in zip(ids, numbers, strict=True)}


def distinguishing_words(texts: list[str], others: list[str], most: int = 3) -> str:
    """The words that stand in many of `texts` and in few of `others`, most telling first."""

    def shares(part: list[str]) -> dict[str, float]:
        found: dict[str, float] = {}
        for text in part:
            for word in set(words(text)):
                if len(word) >= 3 and not any(map(str.isdigit, word)):
                    found[word] = found.get(word, 0) + 1 / len(part)
        return found

    inside, outside = shares(texts), shares(others)
    smallest = 1 / (len(others) + 1)
    telling = {word: share * math.log(share / max(outside.get(word, 0), smallest)) for word, share in inside.items()}
    ranked = sorted(telling, key=lambda word: (-telling[word], word))
    return ", ".join(ranked[:most]) or (texts[0][:30] if texts else "-")


def weaknesses(
    mined: dict[str, pl.DataFrame],
    groups: dict[str, str],
    bad_below: int,
    heldout: tuple[pl.DataFrame, pl.DataFrame] | None = None,
    examples: int = 3,
) -> list[dict[str, Any]]:
    """One entry for each group with a bad case, largest first.

    mined: iteration -> Predictions of its questions, in order of iterations. groups: row_id -> group.
    heldout: held-out Predictions of the base model and of the served policy, whose gold label is their
    group; None for a free-form task, whose held-out questions have no group.

    An entry: {name, size, rates, again, heldout, state, examples}. size: distinct questions that were a
    bad case. rates: iteration -> {asked, bad}, of the group's mined questions. again: of its bad cases
    those that a later iteration asked again: {asked, right}, by the last answer. heldout: {before,
    after}, shares of bad answers with 95 % Wilson intervals. state: cured (fewer answers are bad than
    before, and at most CURED_BELOW), better (fewer), remains (as many), worse, not confirmed (none was bad before,
    none is now), or not asked again; judged by the held-out rows, else by the first and the last iteration that
    asked a question of the group. examples: rows of {iteration, question, gold, answer, grade, last_answer,
    last_grade}, the worst first.
    """
    if not mined:
        return []
    keyed = pl.DataFrame({"row_id": list(groups), "group": list(groups.values())}, schema=["row_id", "group"])
    rows = pl.concat([table.with_columns(iteration=pl.lit(key)) for key, table in mined.items()])
    rows = (
        rows.join(keyed, on="row_id").with_columns(bad=is_bad(pl.col("grade"), bad_below)).sort("iteration", "row_id")
    )
    before, after = (bad_counts(table, bad_below) for table in heldout) if heldout else ({}, {})
    found = []
    for (name,), part in rows.group_by("group", maintain_order=True):
        first_bad = part.filter("bad").unique("row_id", keep="first", maintain_order=True)
        if first_bad.is_empty():
            continue
        last = part.unique("row_id", keep="last").select("row_id", "prediction", "grade", "bad", "iteration")
        followed = first_bad.join(last, on="row_id", suffix="_last")
        later = followed.filter(pl.col("iteration_last") > pl.col("iteration"))
        rates = part.group_by("iteration", maintain_order=True).agg(pl.len().alias("asked"), pl.col("bad").sum())
        entry: dict[str, Any] = {
            "name": name,
            "size": first_bad.height,
            "rates": {row["iteration"]: {"asked": row["asked"], "bad": row["bad"]} for row in rates.to_dicts()},
            "again": {"asked": later.height, "right": int(is_right(later["grade_last"]).sum())},
            "heldout": None,
            "examples": [as_example(row) for row in followed.sort("grade", "row_id").head(examples).to_dicts()],
        }
        if name in before and name in after:
            entry["heldout"] = {"before": wilson(*before[name]), "after": wilson(*after[name])}
        found.append({**entry, "state": state_of(entry)})
    return sorted(found, key=lambda entry: (-entry["size"], entry["name"]))


def bad_counts(heldout: pl.DataFrame, bad_below: int) -> dict[str, tuple[int, int]]:
    """Gold label -> (badly answered, all) of held-out Predictions."""
    counts = with_label(heldout).group_by("label").agg(is_bad(pl.col("grade"), bad_below).sum().alias("bad"), pl.len())
    return {label: (bad, rows) for label, bad, rows in counts.iter_rows()}


def state_of(entry: dict[str, Any]) -> str:
    if held := entry["heldout"]:
        before, after = held["before"]["mean"], held["after"]["mean"]
    elif len(entry["rates"]) > 1:
        shares = [rate["bad"] / rate["asked"] for rate in entry["rates"].values()]
        before, after = shares[0], shares[-1]
    else:
        return "not asked again"
    if not before and not after:
        return "not confirmed"
    if after >= before:
        return "worse" if after > before else "remains"
    return "cured" if after <= CURED_BELOW else "better"


def as_example(row: dict[str, Any]) -> dict[str, Any]:
    later = row["iteration_last"] > row["iteration"]
    return {
        "iteration": row["iteration"],
        "question": row["prompt"],
        "gold": row["answer"],
        "answer": row["prediction"],
        "grade": row["grade"],
        "last_answer": row["prediction_last"] if later else None,
        "last_grade": row["grade_last"] if later else None,
    }


def changed_rows(before: pl.DataFrame, after: pl.DataFrame, examples: int = 5) -> list[dict[str, Any]]:
    """What held-out domain rows (DomainItems) say of an iteration, by split: {part, items, right_before,
    forgotten, gained, examples}.

    A row that was corrected in between is none of them. Right: see method/grades.py. forgotten: right before and
    wrong after; gained: the other way round. examples: forgotten rows as {question, gold, before, after, grade}.
    """
    same = ["row_id", "split", "answer", "also"]
    both = before.join(after, on=same, nulls_equal=True, suffix="_after").sort("row_id")
    was, now = is_right(pl.col("grade")), is_right(pl.col("grade_after"))
    found = []
    for split in ("validation", "test"):
        rows = both.filter(pl.col("split") == split)
        lost = rows.filter(was & ~now)
        shown = lost.head(examples).select(
            pl.col("prompt").alias("question"),
            pl.col("answer").alias("gold"),
            pl.col("prediction").alias("before"),
            pl.col("prediction_after").alias("after"),
            pl.col("grade_after").alias("grade"),
        )
        found.append({**counted(split, rows, was, now), "examples": shown.to_dicts()})
    return found


def changed_items(before: pl.DataFrame, after: pl.DataFrame, examples: int = 5) -> list[dict[str, Any]]:
    """The same of general items (GeneralItems), by task; examples: {item, before, after}, the margins of
    forgotten items in nats per character, those that lost most first."""
    both = before.join(after, on=["task", "item"], suffix="_after").sort("task", "item")
    was, now = pl.col("correct"), pl.col("correct_after")
    found = []
    for (task,), rows in both.group_by("task", maintain_order=True):
        lost = rows.filter(was & ~now).sort(pl.col("margin_after") - pl.col("margin"), "item")
        shown = lost.head(examples).select(
            "item", pl.col("margin").alias("before"), pl.col("margin_after").alias("after")
        )
        found.append({**counted(str(task), rows, was, now), "examples": shown.to_dicts()})
    return found


def counted(part: str, rows: pl.DataFrame, was: pl.Expr, now: pl.Expr) -> dict[str, Any]:
    return {
        "part": part,
        "items": rows.height,
        "right_before": rows.filter(was).height,
        "forgotten": rows.filter(was & ~now).height,
        "gained": rows.filter(~was & now).height,
    }
