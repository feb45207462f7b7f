"""Plots of the loop's numbers: plain data -> one SVG document as a string, each 360 pixels wide.

Nothing here reads a store or knows HTML; `apt_assets.method.measures` works out most of the data.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from apt_assets.drawing.svg import SERIES, WIDTH, Drawing, scale, shorten, ticks

LEFT, RIGHT = 40, WIDTH - 8
SCORES = ("validation", "test", "general")
MARKED = 9  # iterations that have room for their name


def grade_histogram(counts: Mapping[str, Mapping[int, int]]) -> str:
    """Share of answers with each grade. counts: series (an iteration) -> grade 1-5 -> answers; at most
    SERIES series. Raises ValueError for more."""
    if len(counts) > SERIES:
        raise ValueError(f"{len(counts)} series; a plot shows at most {SERIES}")
    drawing = Drawing("Grades of the mined answers", 200, "Share of answers, percent, by grade 1 (worst) to 5.")
    totals = {name: max(sum(part.values()), 1) for name, part in counts.items()}
    most = max((part[g] / totals[name] for name, part in counts.items() for g in part), default=0) or 1
    place = scale(0, most, 160, 30)
    drawing.axis(ticks(0, most), place, LEFT, RIGHT, "{:.0%}")
    slot = (RIGHT - LEFT) / 5
    width = 0.8 * slot / max(len(counts), 1)
    for number, (name, part) in enumerate(counts.items()):
        for grade in range(1, 6):
            x = LEFT + (grade - 1) * slot + 0.1 * slot + number * width
            top = place(part[grade] / totals[name])
            says = f"{name}, grade {grade}: {part[grade]} of {sum(part.values())}"
            drawing.rect(x, top, width - 1, 160 - top, f"s{number}", says)
    for grade in range(1, 6):
        drawing.text(LEFT + (grade - 0.5) * slot, 175, f"grade {grade}", anchor="middle")
    drawing.legend(list(counts), 194)
    return drawing.svg


def label_rates(rows: Sequence[Mapping[str, Any]], before: str, after: str, most: int = 24) -> str:
    """Bad-case rate and exact accuracy by gold label, from `before` to `after` (their names). rows: of
    `measures.by_label`; the first `most` are drawn."""
    drawn = rows[:most]
    height = 60 + 18 * len(drawn)
    drawing = Drawing(f"By gold label: {before} and {after}", height, "Held-out rows, percent of each label's rows.")
    panels = (("bad", "bad cases", 128.0, 226.0), ("exact", "exactly right", 250.0, 348.0))
    for _, heading, start, end in panels:
        drawing.text((start + end) / 2, 14, heading, anchor="middle")
        for share, anchor in ((0, "start"), (0.5, "middle"), (1, "end")):
            x = scale(0, 1, start, end)(share)
            drawing.line(x, 32, x, height - 24)
            drawing.text(x, 28, f"{share:.0%}", anchor=anchor, small=True)
    for number, row in enumerate(drawn):
        y = 44 + 18 * number
        drawing.text(116, y + 4, f"{shorten(row['label'], 15)} ({row['n']})", anchor="end", small=True)
        for key, heading, start, end in panels:
            place = scale(0, 1, start, end)
            was, now = row[f"{key}_before"], row[f"{key}_after"]
            drawing.line(place(was), y, place(now), y, "s1 whisker")
            for value, kind, name, radius in ((was, "s0", before, 4.5), (now, "s1", after, 3)):
                says = f"{row['label']}, {heading}, {name}: {value:.1%} of {row['n']}"
                drawing.dot(place(value), y, kind, says, radius)
    drawing.legend([before, after], height - 6)
    return drawing.svg


def training_curves(logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Loss, anchor, reward margin and reward accuracy by optimiser step, all but the first where they are known. logs:
    series (an iteration) -> rows of a TrainingLog; at most SERIES series. Raises ValueError for more."""
    if len(logs) > SERIES:
        raise ValueError(f"{len(logs)} series; a plot shows at most {SERIES}")
    logs = {name: log for name, log in logs.items() if log}
    panels = {
        "loss": "loss, nats",
        "anchor": "anchor, nats a token",
        "margin": "reward margin",
        "reward_accuracy": "reward accuracy",
    }
    known = {column: {name: log for name, log in logs.items() if log[0].get(column) is not None} for column in panels}
    panels = {column: heading for column, heading in panels.items() if known[column] or not logs}
    height = 98 * len(panels)
    says = "By optimiser step." if len(panels) == 1 else f"By optimiser step: {', '.join(panels.values())}."
    drawing = Drawing("Training curves", height + 36, says)
    last = max((row["step"] for log in logs.values() for row in log), default=1)
    across = scale(1, last, LEFT, RIGHT)
    for panel, (column, heading) in enumerate(panels.items()):
        top, bottom = 22 + 98 * panel, 92 + 98 * panel
        values = [row[column] for log in known[column].values() for row in log]
        low, high = (0.0, 1.0) if column == "reward_accuracy" else (min([0.0, *values]), max(values, default=1.0))
        place = scale(low, high, bottom, top)
        drawing.text(LEFT, top - 8, heading)
        drawing.axis(ticks(low, high), place, LEFT, RIGHT)
        for name, log in known[column].items():
            points = [(across(row["step"]), place(row[column])) for row in log]
            ends = f"{log[0][column]:.3g} at step {log[0]['step']}, {log[-1][column]:.3g} at step {log[-1]['step']}"
            drawing.path(points, f"s{list(logs).index(name)}", f"{name}, {heading}: {ends}")
    drawing.text(LEFT, height + 12, "step 1")
    drawing.text(RIGHT, height + 12, f"step {last}", anchor="end")
    drawing.legend(list(logs), height + 30)
    return drawing.svg


def scores_by_iteration(iterations: Sequence[Mapping[str, Any]]) -> str:
    """Domain (validation and test, lenient) against general accuracy by iteration, with intervals.
    iterations: entries of `results.results` that have scores; of more than MARKED some have a mark, the
    last one among them, and the line goes through all."""
    drawing = Drawing("Domain against general ability", 230, "Accuracy, percent, with 95 % Wilson intervals.")
    place = scale(0, 1, 178, 16)
    drawing.axis((0, 0.25, 0.5, 0.75, 1), place, LEFT, RIGHT, "{:.0%}")
    across = scale(0, max(len(iterations) - 1, 1), LEFT + 30, RIGHT - 30)
    marked = range(len(iterations) - 1, -1, -max(1, math.ceil(len(iterations) / MARKED)))
    for number, name in enumerate(SCORES):
        points = []
        for position, entry in enumerate(iterations):
            scores = entry["scores"]
            general = name == "general"
            share = scores["general"]["all"]["accuracy"] if general else scores["domain"][name]["lenient"]
            if not share["n"]:
                continue
            x, y = across(position) + 7 * (number - 1), place(share["mean"])
            says = f"{entry['iteration']}, {name}: {share['mean']:.1%} [{share['low']:.1%}, {share['high']:.1%}]"
            if position in marked:
                drawing.line(x, place(share["low"]), x, place(share["high"]), f"s{number} whisker")
                drawing.dot(x, y, f"s{number}", f"{says} of {share['n']}")
            points.append((x, y))
        if len(points) > 1:
            drawing.path(points, f"s{number}", name)
    for position, entry in enumerate(iterations):
        if position in marked:
            drawing.text(across(position), 196, entry["iteration"], anchor="middle")
    drawing.legend(SCORES, 220)
    return drawing.svg


def scale_curves(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Validation against general accuracy of one adapter at several scales. curves: series (an iteration) -> points
    {scale, domain, general, passed}; at most SERIES series. Raises ValueError for more."""
    if len(curves) > SERIES:
        raise ValueError(f"{len(curves)} series; a plot shows at most {SERIES}")
    drawing = Drawing("Domain against general ability by scale", 222, "Percent; large dots passed the gate.")
    domain, general = ([point[name] for curve in curves.values() for point in curve] for name in ("domain", "general"))
    up = scale(min(domain), max(domain), 150, 36)
    across = scale(min(general), max(general), LEFT + 24, RIGHT - 24)
    drawing.axis(ticks(min(domain), max(domain)), up, LEFT, RIGHT, "{:.0%}")
    for number, (name, curve) in enumerate(curves.items()):
        path = [(across(point["general"]), up(point["domain"])) for point in curve]
        drawing.path(path, f"s{number}", name)
        for (x, y), point in zip(path, curve, strict=True):
            says = f"{name}, scale {point['scale']:g}: validation {point['domain']:.1%}, general {point['general']:.1%}"
            drawing.dot(x, y, f"s{number}", says, 5 if point["passed"] else 2.5)
            drawing.text(x, y - 8, f"{point['scale']:g}", anchor="middle", small=True)
    for value in {min(general), max(general)}:
        drawing.text(across(value), 178, f"{value:.1%}", anchor="middle", small=True)
    drawing.text(LEFT, 14, "validation accuracy")
    drawing.text(RIGHT, 194, "general accuracy", anchor="end")
    drawing.legend(list(curves), 214)
    return drawing.svg


def confusion_table(table: Mapping[str, Any], name: str) -> str:
    """Gold label (rows) against said label (columns): counts, shaded by their share of the row. table: of
    `measures.confusion`. name: whose answers."""
    gold, said = table["gold"], table["said"]
    left, top = 92, 92
    side = min(26.0, (WIDTH - left - 38) / max(len(said), 1))  # the last slanted heading needs its room
    drawing = Drawing(f"Gold against said label, {name}", top + side * len(gold) + 8, "Rows: gold. Columns: said.")
    for column, label in enumerate(said):
        drawing.text(left + (column + 0.7) * side, top - 4, shorten(label, 15), small=True, turn=-60)
    for row, label in enumerate(gold):
        y = top + row * side
        drawing.text(left - 4, y + 0.5 * side + 3, shorten(label, 16), anchor="end", small=True)
        total = max(sum(table["counts"][row]), 1)
        for column, count in enumerate(table["counts"][row]):
            x = left + column * side
            kind = "s0" if label == said[column] else "s1"
            says = f"gold {label}, said {said[column]}: {count}"
            drawing.rect(x, y, side - 1, side - 1, kind, says, 0.04 + 0.5 * count / total)
            if count:
                drawing.text(x + side / 2, y + side / 2 + 3, str(count), anchor="middle", small=True)
    return drawing.svg
