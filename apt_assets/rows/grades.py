"""Grade answers by the assessors that the experiment names.

A grade is reused row by row. It is keyed by what grades (kind, its settings, its code; a model by its
content, or an endpoint by its address and the model's name there) and the row (question, gold, answer).
Where several kinds are combined, each keeps its own grades, and their weights decide afterwards: new
weights grade nothing again.
"""

from collections.abc import Sequence
from itertools import compress
from math import ceil
from typing import TYPE_CHECKING, Any

from apt_assets.engine.view import View
from apt_assets.settings.experiment import UsageError, kinds_of
from resources.assessors import Assessor, Row, Ungradable
from resources.store.digest import digest_rows
from resources.store.rows import Batches, RowTable

if TYPE_CHECKING:
    from apt_assets.engine.step import Step

# Of the rubric's settings, what decides a grade; the rest says how an endpoint is reached.
ASKED = {"endpoint", "model", "text", "samples", "unsure", "temperature", "reply_tokens"}


def grade_rows(
    step: "Step", labels: list[str], questions: Sequence[str], golds: Sequence[str], answers: Sequence[str], what: str
) -> list[tuple[int, bool]]:
    """(grade 1-5, exact) of every row. Raises UsageError for a row that cannot be graded; grades that
    were made by then are kept."""
    keys = grade_keys(questions, golds, answers)
    by_kind = []
    for kind, table in grade_tables(step, labels).items():

        def grade(missing: list[int], kind: str = kind) -> Batches[list[Any]]:
            assessor = open_assessor(step, kind, labels)
            for start in range(0, len(missing), assessor.at_once):
                part = missing[start : start + assessor.at_once]
                try:
                    graded = assessor.grade([Row(questions[i], answers[i], golds[i]) for i in part])
                except Ungradable as error:
                    raise UsageError(str(error)) from error
                yield part, [list(one) for one in graded]

        by_kind.append(step.fill(table, keys, grade, f"{what}, {kind}", "grades").values)
    return combine(by_kind, list(kinds_of(step.settings.assessor).values()))


def known_grades(
    view: View, labels: list[str], questions: Sequence[str], golds: Sequence[str], answers: Sequence[str]
) -> list[int | None]:
    """The grade of every row, of one that was not graded by all kinds yet None."""
    keys = grade_keys(questions, golds, answers)
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
    return {
        kind: view.row_table("grades", grade_context(view, kind, labels)) for kind in kinds_of(view.settings.assessor)
    }


def grade_context(view: View, kind: str, labels: list[str]) -> dict[str, Any]:
    """Everything that decides a grade of this kind, except the row."""
    settings = view.settings.assessor
    match kind:
        case "labels":
            return {"labels": labels, "code": view.code("resources.assessors.labels")}
        case "exact":
            return {"code": view.code("resources.assessors.exact")}
        case "numeric":
            return {**settings.numeric.model_dump(), "code": view.code("resources.assessors.numeric")}
        case "set_f1":
            return {**settings.set_f1.model_dump(), "code": view.code("resources.assessors.set_f1")}
        case "overlap":
            library = {"rouge_l": "rouge_score", "chrf": "sacrebleu"}[settings.overlap.metric]
            return {
                **settings.overlap.model_dump(),
                "libraries": view.stage.library_versions((library,)),
                "code": view.code("resources.assessors.overlap"),
            }
        case "rubric" if settings.rubric.endpoint is not None:
            asked = settings.rubric.model_dump(include=ASKED)
            return {**asked, "code": view.code("resources.assessors.endpoint")}
        case "rubric":
            return {
                "grader": view.identity("grader"),
                "text": settings.rubric.text,
                "dtype": view.settings.policy.dtype,
                "device": view.settings.policy.device,
                "batch_tokens": view.settings.policy.batch_tokens,
                "libraries": view.stage.library_versions(("torch", "transformers")),
                "code": view.code("resources.model.policy", "resources.assessors.local"),
            }
    raise ValueError(f"no assessor of kind {kind}")


def open_assessor(step: "Step", kind: str, labels: list[str]) -> Assessor:
    """The assessor of this kind, with the experiment's settings."""
    settings = step.settings.assessor
    match kind:
        case "labels":
            from resources.assessors.labels import LabelMatch

            return LabelMatch(labels)
        case "exact":
            from resources.assessors.exact import ExactMatch

            return ExactMatch()
        case "numeric":
            from resources.assessors.numeric import Numeric

            return Numeric(**settings.numeric.model_dump())
        case "set_f1":
            from resources.assessors.set_f1 import SetF1

            return SetF1(**settings.set_f1.model_dump())
        case "overlap":
            from resources.assessors.overlap import TextOverlap

            return TextOverlap(**settings.overlap.model_dump())
        case "rubric" if settings.rubric.endpoint is not None:
            return open_endpoint(settings.rubric)
        case "rubric":
            return open_local(step)
    raise ValueError(f"no assessor of kind {kind}")


def open_endpoint(settings: Any) -> Assessor:
    """The endpoint of these RubricSettings; the key is read from the environment here and nowhere else."""
    from resources.assessors.endpoint import EndpointRubric
    from resources.model.http import key_in

    named = settings.model_dump(exclude={"endpoint", "text", "key_variable"})
    return EndpointRubric(url=settings.endpoint, rubric=settings.text, key=key_in(settings.key_variable), **named)


def open_local(step: "Step") -> Assessor:
    """The grader on this machine, loaded once a stage."""
    from resources.assessors.local import LocalRubric
    from resources.model.policy import load_policy

    policy = step.settings.policy
    if "grader" not in step.loaded:
        step.loaded["grader"] = load_policy(step.outside("grader"), dtype=policy.dtype, device=policy.device)
    return LocalRubric(step.loaded["grader"], step.settings.assessor.rubric.text, policy.batch_tokens)


def competing_labels(view: View, golds: list[str]) -> list[str]:
    """The labels that kind `labels` takes as competing: as set, or worked out from `golds`."""
    from resources.assessors.labels import labels_of, normalise_answer

    labels = view.settings.assessor.labels
    return labels_of(golds) if labels == "auto" else [normalise_answer(label) for label in labels]


def grade_keys(prompts: Sequence[str], golds: Sequence[str], answers: Sequence[str]) -> list[str]:
    return digest_rows(prompts, golds, answers, digits=32)
