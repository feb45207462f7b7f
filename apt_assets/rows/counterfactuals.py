"""Wrong answers for similar cases that the policy answers right, as `pairs.counterfactual` says.

The search for them (apt_assets/method/counterfactual.py) serves both the stage, which samples and grades, and its
plan, which looks up what is there and counts what is not. Both are reused row by row.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from apt_assets.engine.view import View
from apt_assets.method.grades import is_kept
from apt_assets.rows.graded import EXAMPLES
from apt_assets.rows.grades import grade_keys, grade_rows, grade_tables, known_grades
from apt_assets.rows.samples import sample_keys, sampled_rows, samples_of

REJECTED = {"rejected": "prediction"}  # a wrong answer is graded like the policy's own

if TYPE_CHECKING:
    import polars as pl

    from apt_assets.engine.step import Step

    Propose = Callable[[pl.DataFrame, int], list[str | None]]


def counterfactuals(
    step: "Step", answered: "pl.DataFrame", labels: list[str], given: "pl.DataFrame | None"
) -> "pl.DataFrame | None":
    """Predictions -> (row_id, rejected, grade) of those that are right and for which a wrong answer was found; None
    if none is to be looked for. given: RejectedAnswers that are taken as they are, ungraded."""
    import polars as pl

    from apt_assets.method.counterfactual import first_wrong

    below, how = step.settings.assessor.bad_below, step.settings.pairs.counterfactual
    if how == "none":
        return None
    right = answered.filter(is_kept(answered["grade"], below)).select(EXAMPLES)
    propose = partial(sampling, step) if how == "sampled" else perturbing(step, labels)

    def grade(rows: "pl.DataFrame") -> list[int | None]:
        return [grade for grade, _ in grade_rows(step, labels, rows.rename(REJECTED), "wrong answers")]

    if given is None:
        return first_wrong(right, propose, grade, below)
    found = first_wrong(right.join(given, on="row_id", how="anti"), propose, grade, below)
    ungraded = given.join(right, on="row_id", how="semi").with_columns(grade=pl.lit(None, pl.Int8))
    return pl.concat([found, ungraded])


def work_to_reject(
    view: View, answered: "pl.DataFrame", labels: list[str], given: "pl.DataFrame | None"
) -> dict[str, int]:
    """Rows that `counterfactuals` would compute for sure: {answers, grades}. What a try costs that follows on one which
    is not there is not known."""
    from apt_assets.method.counterfactual import first_wrong

    below, how = view.settings.assessor.bad_below, view.settings.pairs.counterfactual
    missing = {"answers": 0, "grades": 0}
    if how == "none":
        return missing
    tables = grade_tables(view, labels).values()

    def sampled(rows: "pl.DataFrame", attempt: int) -> list[str | None]:
        keys = sample_keys(rows["prompt"].to_list(), attempt)
        found = sampled_rows(view).read(keys)
        missing["answers"] += len(keys) - len(found)
        missing["grades"] += (len(keys) - len(found)) * len(tables)
        return [found.get(key) for key in keys]

    def grade(rows: "pl.DataFrame") -> list[int | None]:
        answered = rows.rename(REJECTED)
        missing["grades"] += sum(table.missing(grade_keys(answered)) for table in tables)
        return known_grades(view, labels, answered)

    right = answered.filter(is_kept(answered["grade"], below)).select(EXAMPLES)
    searched = right if given is None else right.join(given, on="row_id", how="anti")
    first_wrong(searched, sampled if how == "sampled" else perturbing(view, labels), grade, below)
    return missing


def sampling(step: "Step", rows: "pl.DataFrame", attempt: int) -> list[str | None]:
    """The policy's answers to these questions in one try."""
    return list(samples_of(step, rows["prompt"].to_list(), attempt))


# -- perturbed -----------------------------------------------------------------------------------------


def perturbing(view: View, labels: list[str]) -> "Propose":
    """What proposes changed golds, in the way of the assessor's kind."""
    from apt_assets.method.golds import further

    perturb = perturbation(view, labels)

    def propose(rows: "pl.DataFrame", attempt: int) -> list[str | None]:
        texts = (
            perturb(*row, also=further(also)) for *row, also in rows.select("row_id", "answer", "also").iter_rows()
        )
        return [its[attempt] if attempt < len(its) else None for its in texts]

    return propose


def perturbation(view: View, labels: list[str]) -> Callable[..., list[str]]:
    """A function (row_id, gold, also=what is right as well) -> wrong answers, the most wanted first."""
    from apt_assets.method import counterfactual as method

    settings, golds = view.settings.assessor, view.read("domain_dataset", "train")["answer"].to_list()
    match settings.kind:
        case "labels" if labels:
            listed = [] if settings.labels == "auto" else settings.labels
            confused = method.confusions(view.read("eval_predictions"), labels, settings.bad_below)
            spelt = {**method.spellings(listed), **method.spellings(golds)}
            return partial(method.other_labels, confused=confused, ring=method.ring_of(labels), spelt=spelt)
        case "numeric":
            return partial(method.other_numbers, units=method.units_of(golds))
        case "set_f1":
            separator = settings.set_f1.separator
            return partial(method.other_items, items=method.items_of(golds, separator), separator=separator)
    return partial(method.other_golds, lengths=method.by_length(golds))
