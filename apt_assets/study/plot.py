"""The plots of a study: arms as points between two measures, and as lines over what their iterations spent."""

from collections.abc import Mapping, Sequence

from apt_assets.drawing.svg import SERIES, WIDTH, Drawing, Scale, scale, ticks
from apt_assets.study.statistics import frontier

LEFT, RIGHT, BOTTOM, TOP = 46, WIDTH - 10, 210, 16


def trade_off(points: Mapping[str, tuple[float, float]], across: str, up: str, *, less_across: bool = False) -> str:
    """points: arm -> (across, up); more is better, or across less if `less_across`. An SVG document: numbered
    points, those on the frontier joined, and a list of the arms below."""
    names = list(points)
    drawing = Drawing(f"{up} against {across}", BOTTOM + 34 + 14 * len(names), "One point an arm, mean over seeds.")
    place_x, place_y = axes(drawing, list(points.values()), across, up)
    best = {names[n] for n in frontier([(-x if less_across else x, y) for x, y in points.values()])}
    line = sorted(points[name] for name in best)
    if len(line) > 1:
        drawing.path([(place_x(x), place_y(y)) for x, y in line], "s0", "on the frontier")
    for number, (name, (x, y)) in enumerate(points.items(), 1):
        kind = "s0" if name in best else "s1"
        drawing.dot(place_x(x), place_y(y), kind, f"{name}: {across} {x:.1f}, {up} {y:.1f}", 4)
        drawing.text(place_x(x) + 6, place_y(y) - 4, str(number), small=True)
        mark = "on the frontier" if name in best else "another arm is at least as good in both"
        drawing.text(LEFT, BOTTOM + 26 + 14 * number, f"{number}  {name}: {mark}", small=True)
    return drawing.svg


def over_iterations(lines: Mapping[str, Sequence[tuple[float, float]]], across: str, up: str) -> str:
    """lines: arm -> (across, up) after each of its iterations. An SVG document: a numbered line an arm, and a list of
    the arms below."""
    drawing = Drawing(
        f"{up} by {across}", BOTTOM + 34 + 14 * len(lines), "One line an arm, one dot an iteration, mean over seeds."
    )
    place_x, place_y = axes(drawing, [point for line in lines.values() for point in line], across, up)
    for number, (name, line) in enumerate(lines.items(), 1):
        kind = f"s{(number - 1) % SERIES}"
        places = [(place_x(x), place_y(y)) for x, y in line]
        if places:  # an arm that found nothing to train on has no iteration
            drawing.path(places, kind, name)
            drawing.text(places[-1][0] + 5, places[-1][1] - 5, str(number), small=True)
        for iteration, ((x, y), place) in enumerate(zip(line, places, strict=True), 1):
            drawing.dot(*place, kind, f"{name}, iteration {iteration}: {across} {x:,.0f}, {up} {y:.1f}")
        drawing.text(LEFT, BOTTOM + 26 + 14 * number, f"{number}  {name}", small=True)
    return drawing.svg


def axes(drawing: Drawing, points: Sequence[tuple[float, float]], across: str, up: str) -> tuple[Scale, Scale]:
    """Draw the two axes, which hold 0 and all points; returns how a value becomes a place on each."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    (left, right), (low, high) = (widened([*xs, 0.0])), (widened([*ys, 0.0]))
    place_x, place_y = scale(left, right, LEFT, RIGHT), scale(low, high, BOTTOM, TOP)
    drawing.axis(ticks(low, high, 4), place_y, LEFT, RIGHT, "{:g}")
    for x in ticks(left, right, 4):
        drawing.line(place_x(x), TOP, place_x(x), BOTTOM)
        drawing.text(place_x(x), BOTTOM + 12, f"{x:g}", anchor="middle", small=True)
    drawing.text(LEFT, TOP - 5, up, small=True)
    drawing.text(RIGHT, BOTTOM + 24, across, anchor="end", small=True)
    return place_x, place_y


def widened(values: list[float]) -> tuple[float, float]:
    """Their range with a little room at both ends."""
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 1.0
    return low - room, high + room
