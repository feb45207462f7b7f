"""The list of assessors. A new one is its file and a line here."""

from resources.assessors import AssessorKind, exact, labels, numeric, overlap, set_f1
from resources.assessors.endpoint import ENDPOINT
from resources.assessors.local import LOCAL
from resources.assessors.rubric import RubricSettings

RUBRIC = AssessorKind(
    (ENDPOINT, LOCAL),
    choose=lambda settings: int(settings.rubric.endpoint is None),
    settings=RubricSettings,
)

ASSESSORS: dict[str, AssessorKind] = {
    "labels": labels.KIND,
    "exact": exact.KIND,
    "numeric": numeric.KIND,
    "set_f1": set_f1.KIND,
    "overlap": overlap.KIND,
    "rubric": RUBRIC,
}
