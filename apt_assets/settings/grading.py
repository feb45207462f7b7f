"""How answers are graded; provenance: experiment.py. The kinds of assessor: resources/assessors."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, create_model, field_validator, model_validator

from resources.assessors.golds import checks_of
from resources.assessors.kinds import ASSESSORS
from resources.assessors.labels import normalise_answer
from resources.section import Section

if TYPE_CHECKING:
    Kind = str
else:
    Kind = Literal[tuple(ASSESSORS)]


class CombinedSettings(Section):
    """The weighted mean of several assessors' grades, rounded; a half is rounded down."""

    weights: dict[Kind, Annotated[float, Field(gt=0)]] = Field({}, description="Kind -> weight, such as {labels: 2}.")


class Calibration(Section):
    """The judge judged: people grade some answers too, and the gate counts with how far the assessor agrees with them
    (apt_assets/method/judge.py)."""

    folder: str | None = Field(
        None,
        description="Folder with human grades, *.jsonl, such as human-grades/my-domain, where the review page of the "
        "experiment my-domain writes them; null: the assessor is taken at its word.",
    )
    floor: float = Field(
        0.6,
        gt=0,
        lt=1,
        description="Kappa of right and wrong, at the lower end of its interval, below which the gate promotes nothing "
        "(above 0.6: substantial agreement; Landis and Koch 1977, Biometrics 33: 159-174).",
    )


class AssessorBase(Section):
    """Grades 1-5. Each kind's own rubric stands in its file in resources/assessors/."""

    kind: Kind | Literal["combined"] = Field("labels", description="How answers are graded.")
    bad_below: int = Field(4, ge=2, le=5, description="A lower grade is a bad case (paper).")
    labels: list[str] | Literal["auto"] = Field(
        "auto", description="Competing answers; auto: the distinct golds, if at most 100 of them."
    )
    combined: CombinedSettings = CombinedSettings()
    calibration: Calibration = Calibration()

    @field_validator("labels")
    @classmethod
    def are_told_apart(cls, labels: list[str] | Literal["auto"]) -> list[str] | Literal["auto"]:
        by_form: dict[str, str] = {}
        for label in [] if labels == "auto" else labels:
            other = by_form.setdefault(normalise_answer(label), label)
            if other != label:
                raise ValueError(f"{other!r} and {label!r} are one label, case and punctuation aside: keep one of them")
        return labels

    @property
    def gold_checks(self) -> dict[str, Any]:
        """What of these settings decides which golds can be graded: most kinds grade against any."""
        return checks_of(kinds_of(self), self)

    @model_validator(mode="after")
    def has_what_its_kind_needs(self) -> Self:
        kinds, rubric = kinds_of(self), getattr(self, "rubric")  # noqa: B009 - the field is of an assessor's file
        if not kinds:
            raise ValueError("kind combined needs assessor.combined.weights, such as {labels: 2, overlap: 1}")
        if "rubric" in kinds:
            if not rubric.model:
                raise ValueError("kind rubric needs assessor.rubric.model")
            if rubric.unsure == "auto":
                # The grades themselves: the threshold must count where it decides a grade, and only there.
                near = rubric.model_copy(update={"unsure": [self.bad_below - 1, self.bad_below]})
                return self.model_copy(update={"rubric": near})
        return self


if TYPE_CHECKING:
    AssessorSettings = Any
else:
    # Each assessor's own section, under its name.
    AssessorSettings = create_model(
        "AssessorSettings",
        __base__=AssessorBase,
        __doc__=AssessorBase.__doc__,
        **{name: (one.settings, one.settings()) for name, one in ASSESSORS.items() if one.settings is not None},
    )


def kinds_of(assessor: Any) -> dict[str, float]:
    """Weight of each kind that grades, by AssessorSettings or a stage's view of them."""
    return dict(assessor.combined.weights) if assessor.kind == "combined" else {assessor.kind: 1.0}
