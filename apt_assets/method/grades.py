"""What a grade of 1-5 means. Bad and right have their one definition here.

bad     below `assessor.bad_below` (4: APT, arXiv 2506.03483): what is mined, paired and called a weakness
right   4 or 5, as the scale of grades has it (resources/assessors): what scores, gate, report and study count

The threshold is a setting of the method and right is a measure, which must not move with it: else a study's arms, or
an iteration before and after a changed setting, would be measured by different yardsticks, and a gate could be
passed by lowering the threshold. At 4 a grade is either bad or right. At 5 a grade of 4 is both: right, and still
trained on. At 3 a grade of 3 is neither: not trained on, and not counted as right. What is replayed, or gets a made-up
wrong answer, is right and not bad (`is_kept`).
"""

from typing import Any

RIGHT = 4


def is_bad(grade: Any, bad_below: int) -> Any:
    """Whether a grade is bad: of a number a bool, of a polars column or expression the same."""
    return grade < bad_below


def is_right(grade: Any) -> Any:
    """Whether a grade is right, likewise."""
    return grade >= RIGHT


def is_kept(grade: Any, bad_below: int) -> Any:
    """Whether an answer is right and not bad: one that the policy is to go on giving."""
    return is_right(grade) & (grade >= bad_below)


def is_near(grade: Any, bad_below: int) -> Any:
    """Whether one grade more or less makes it bad or not, of a polars column or expression."""
    return grade.is_between(bad_below - 1, bad_below)
