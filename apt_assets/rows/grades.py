"""Grades of answers by the assessors that the experiment names.

A grade is keyed by what grades (its kind, its settings, its code; a model by its content, or an endpoint by its
address and the model's name there: each assessor's file declares it) and the row (question, all its golds, answer).
Where several kinds are combined, each keeps its own grades, and their weights decide afterwards: new weights grade
nothing again.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import compress
from math import ceil
from typing import TYPE_CHECKING, Any

from apt_assets.engine.scope import RowScope
from apt_assets.engine.spread import spread
from apt_assets.engine.view import View
from apt_assets.settings.experiment import UsageError
from apt_assets.settings.grading import kinds_of
from resources.assessors import Row, Ungradable, Variant, in_parts
from resources.assessors.kinds import ASSESSORS
from resources.store.digest import digest_rows
from resources.store.rows import Batches, RowTable, renumber

if TYPE_CHECKING:
    import polars as pl

    from apt_assets.engine.step import Step

KINDS = tuple(variant.rows for assessor in ASSESSORS.values() for variant in assessor.variants)
# What decides a grade beside that, or which of the assessors grades.
IDENTITIES = ("grader", "grader_execution")
SETTINGS = ("assessor.kind", "assessor.labels", "assessor.combined")


def chosen(view: View) -> dict[str, Variant]:
    """What grades, by the experiment's settings: kind -> its variant."""
    settings = view.settings.assessor
    return {kind: ASSESSORS[kind].variant(settings) for kind in kinds_of(settings)}


def given_to(variant: Variant, labels: list[str]) -> dict[str, Any]:
    return {name: {"labels": labels}[name] for name in variant.rows.given}


def grade_rows(step: "Step", labels: list[str], answered: "pl.DataFrame", what: str) -> list[tuple[int, bool]]:
    """(grade 1-5, exact) of every row with prompt, answer, also and prediction. Raises UsageError for a row that cannot
    be graded; grades that were made by then are kept."""
    from apt_assets.method.golds import further

    keys = grade_keys(answered)
    by_kind = []
    for kind, variant in chosen(step).items():

        def grade(scope: Any, missing: list[int], variant: Variant = variant) -> Batches[list[Any]]:
            texts = answered[missing].select("prompt", "prediction", "answer", "also").iter_rows()
            rows = [Row(question, said, gold, further(also)) for question, said, gold, also in texts]
            try:
                yield from renumber(spread(partial(graded, variant), scope, rows), missing)
            except Ungradable as error:
                raise UsageError(str(error)) from error

        filled = step.fill(variant.rows, keys, grade, f"{what}, {kind}", "grades", **given_to(variant, labels))
        by_kind.append(filled.values)
    return combine(by_kind, list(kinds_of(step.settings.assessor).values()))


def graded(variant: Variant, scope: RowScope, rows: Sequence[Row]) -> Batches[list[Any]]:
    """[grade, exact] of every row. Raises Ungradable."""
    for places, grades in in_parts(variant.open(scope), rows):
        yield places, [list(grade) for grade in grades]


def known_grades(view: View, labels: list[str], answered: "pl.DataFrame") -> list[int | None]:
    """The grade of every row, of one that was not graded by all kinds yet None."""
    keys = grade_keys(answered)
    by_kind = [table.read(keys) for table in grade_tables(view, labels).values()]
    there = [all(key in grades for grades in by_kind) for key in keys]
    whole = [[grades[key] for key in compress(keys, there)] for grades in by_kind]
    known = iter(combine(whole, list(kinds_of(view.settings.assessor).values())))
    return [next(known)[0] if is_there else None for is_there in there]


def combine(by_kind: list[list[Any]], weights: list[float]) -> list[tuple[int, bool]]:
    """The weighted mean of each row's grades, a half rounded down; exact if one kind says so."""
    total = sum(weights)

    def of_row(graded: tuple[Any, ...]) -> tuple[int, bool]:
        mean = sum(weight * grade for weight, (grade, _) in zip(weights, graded, strict=True)) / total
        # Weights such as 0.1 and 0.2 miss a half by the last bits.
        return ceil(round(mean, 9) - 0.5), any(exact for _, exact in graded)

    return [of_row(graded) for graded in zip(*by_kind, strict=True)]


def grade_tables(view: View, labels: list[str]) -> dict[str, RowTable]:
    """The grades of each kind that grades, by row."""
    return {kind: view.rows(variant.rows, **given_to(variant, labels)) for kind, variant in chosen(view).items()}


def competing_labels(view: View, golds: list[str]) -> list[str]:
    """The labels that kind `labels` takes as competing: as set, or worked out from `golds`."""
    from resources.assessors.labels import labels_of

    return labels_as_set(view, lambda: labels_of(golds))


def labels_as_set(view: View, found: Callable[[], list[str]]) -> list[str]:
    """The competing labels as set, normalised; where that is left to us, those that were found."""
    from resources.assessors.labels import normalise_answer

    labels = view.settings.assessor.labels
    return found() if labels == "auto" else [normalise_answer(label) for label in labels]


def grade_keys(answered: "pl.DataFrame") -> list[str]:
    """Of rows with prompt, answer, also and prediction."""
    texts = (answered[column].to_list() for column in ("prompt", "answer", "prediction"))
    return digest_rows(*texts, optional=answered["also"].to_list(), digits=32)
