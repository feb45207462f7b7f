"""How a study says a number."""

from typing import Any


def with_interval(value: float, low: float | None, high: float | None, factor: float = 100, digits: int = 1) -> str:
    """+4.1 [+2.0, +6.2]; without an interval if `low` is None. factor: 100 says shares in points."""
    said = f"{factor * value:+.{digits}f}"
    if low is None or high is None:
        return said
    return f"{said} {interval(low, high, factor, digits)}"


def difference(tested: dict[str, Any]) -> str:
    """Of one comparison with the control: +3.1 [+1.0, +5.2] points, over seeds [-0.4, +6.6]"""
    seeds = tested["over_seeds"]
    points = with_interval(tested["difference"], tested["low"], tested["high"])
    return f"{points} points, over seeds {interval(seeds['low'], seeds['high'])}"


def interval(low: float, high: float, factor: float = 100, digits: int = 1) -> str:
    return f"[{factor * low:+.{digits}f}, {factor * high:+.{digits}f}]"
