"""How a study says a number."""


def with_interval(value: float, low: float | None, high: float | None, factor: float = 100, digits: int = 1) -> str:
    """+4.1 [+2.0, +6.2]; without an interval if `low` is None. factor: 100 says shares in points."""
    said = f"{factor * value:+.{digits}f}"
    if low is None or high is None:
        return said
    return f"{said} {interval(low, high, factor, digits)}"


def interval(low: float, high: float, factor: float = 100, digits: int = 1) -> str:
    return f"[{factor * low:+.{digits}f}, {factor * high:+.{digits}f}]"
