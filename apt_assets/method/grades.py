"""What a grade of 1-5 means: bad or right, and nothing in between. The one definition of both.

`assessor.bad_below` (4: APT, arXiv 2506.03483) parts them: a lower grade is bad, any other is right. So with 5 a
grade of 4 is trained on as bad and not counted as right anywhere, and with 3 a grade of 3 is right. The threshold
decides what is mined and paired, lenient accuracy in scores, the gate and a study, and what the report calls a
weakness, cured or forgotten. It does not decide `exact`, which is equality, nor grades or answers themselves.
"""

from typing import Any


def is_bad(grade: Any, bad_below: int) -> Any:
    """Whether a grade is bad: of a number a bool, of a polars column or expression the same."""
    return grade < bad_below


def is_right(grade: Any, bad_below: int) -> Any:
    """Whether a grade is right: that it is not bad."""
    return grade >= bad_below


def is_near(grade: Any, bad_below: int) -> Any:
    """Whether one grade more or less would put it on the other side, of a polars column or expression."""
    return grade.is_between(bad_below - 1, bad_below)
