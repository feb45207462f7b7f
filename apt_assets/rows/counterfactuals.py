"""Wrong answers for similar cases that the policy answers right, as `pairs.counterfactual` says.

The search for them (apt_assets/method/counterfactual.py) serves both the stage, which samples and grades, and its
plan, which looks up what is there and counts what is not. Both are reused row by row.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from apt_assets.engine.view import Adapter, View
from apt_assets.rows.answers import answer_context, answer_keys, answer_rows
from apt_assets.rows.grades import grade_keys, grade_rows, grade_tables, known_grades
from apt_assets.rows.policy import open_policy
from resources.store.digest import digest_rows
from resources.store.rows import Batches, RowTable, renumber

if TYPE_CHECKING:
    import polars as pl

    from apt_assets.engine.step import Step

    Propose = Callable[[pl.DataFrame, int], list[str | None]]


def counterfactuals(step: "Step", answered: "pl.DataFrame", labels: list[str]) -> "pl.DataFrame | None":
    """Predictions -> (row_id, rejected, grade) of those that are right and for which a wrong answer was found; None
    if none is to be looked for."""
    from apt_assets.method.counterfactual import first_wrong

    below, how = step.settings.assessor.bad_below, step.settings.pairs.counterfactual
    if how == "none":
        return None
    right = answered.filter(answered["grade"] >= below).select("row_id", "prompt", "answer")
    propose = partial(sample, step) if how == "sampled" else perturbing(step, labels)

    def grade(rows: "pl.DataFrame") -> list[int | None]:
        prompts, golds, wrong = (rows[column].to_list() for column in ("prompt", "answer", "rejected"))
        return [grade for grade, _ in grade_rows(step, labels, prompts, golds, wrong, "wrong answers")]

    return first_wrong(right, propose, grade, below)


def work_to_reject(view: View, questions: "pl.DataFrame", labels: list[str]) -> dict[str, int]:
    """Rows that `counterfactuals` would compute for sure: {answers, grades}. Of a question without a graded answer
    nothing is known, nor what a try costs that follows on one which is not there."""
    from apt_assets.method.counterfactual import first_wrong

    below, how = view.settings.assessor.bad_below, view.settings.pairs.counterfactual
    missing = {"answers": 0, "grades": 0}
    if how == "none":
        return missing
    tables = grade_tables(view, labels).values()

    def sampled(rows: "pl.DataFrame", attempt: int) -> list[str | None]:
        keys = sample_keys(rows, attempt)
        found = sampled_rows(view, view.previous_adapter()).read(keys)
        missing["answers"] += len(keys) - len(found)
        missing["grades"] += (len(keys) - len(found)) * len(tables)
        return [found.get(key) for key in keys]

    def grade(rows: "pl.DataFrame") -> list[int | None]:
        texts = [rows[column].to_list() for column in ("prompt", "answer", "rejected")]
        missing["grades"] += sum(table.missing(grade_keys(*texts)) for table in tables)
        return known_grades(view, labels, *texts)

    right = known_right(view, questions, labels, below)
    first_wrong(right, sampled if how == "sampled" else perturbing(view, labels), grade, below)
    return missing


def known_right(view: View, questions: "pl.DataFrame", labels: list[str], bad_below: int) -> "pl.DataFrame":
    """The questions whose answer is there, and graded right."""
    import polars as pl

    said = answer_rows(view, view.previous_adapter())
    keys = answer_keys(questions["prompt"].to_list())
    found = said.read(keys)
    answers = pl.Series("prediction", [found.get(key) for key in keys], dtype=pl.String)
    known = questions.select("row_id", "prompt", "answer").with_columns(answers).drop_nulls("prediction")
    grades = known_grades(view, labels, *(known[column].to_list() for column in ("prompt", "answer", "prediction")))
    return known.filter(pl.Series(grades, dtype=pl.Int8) >= bad_below).drop("prediction")


# -- perturbed -----------------------------------------------------------------------------------------


def perturbing(view: View, labels: list[str]) -> "Propose":
    """What proposes changed golds, in the way of the assessor's kind."""
    perturb = perturbation(view, labels)

    def propose(rows: "pl.DataFrame", attempt: int) -> list[str | None]:
        texts = (perturb(*row) for row in rows.select("row_id", "answer").iter_rows())
        return [its[attempt] if attempt < len(its) else None for its in texts]

    return propose


def perturbation(view: View, labels: list[str]) -> Callable[[str, str], list[str]]:
    """A function (row_id, gold) -> wrong answers, the most wanted first."""
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


# -- sampled -------------------------------------------------------------------------------------------


def sampled_rows(view: View, adapter: Adapter | None) -> RowTable:
    """Sampled answers of this policy, by question and try."""
    context = {
        **answer_context(view, adapter),
        "temperature": view.settings.pairs.temperature,
        "code": view.code("resources.model.policy", "resources.model.sampling"),
    }
    return view.row_table("answers", context)


def sample(step: "Step", rows: "pl.DataFrame", attempt: int) -> list[str | None]:
    """The policy's answers to these questions in one try; each is seeded by its key."""
    prompts, keys, settings = rows["prompt"].to_list(), sample_keys(rows, attempt), step.settings.policy
    adapter = step.previous_adapter()

    def answer(missing: list[int]) -> Batches[str]:
        from resources.model.sampling import sample

        answers = sample(
            open_policy(step, adapter),
            [prompts[i] for i in missing],
            seeds=[keys[i] for i in missing],
            temperature=step.settings.pairs.temperature,
            max_new_tokens=settings.max_new_tokens,
            batch_tokens=settings.batch_tokens,
        )
        return renumber(answers, missing)

    return step.fill(sampled_rows(step, adapter), keys, answer, f"sampling, try {attempt + 1}", "answers").values


def sample_keys(rows: "pl.DataFrame", attempt: int) -> list[str]:
    return digest_rows(rows["prompt"].to_list(), [str(attempt)] * rows.height, digits=32)
