"""The results as rows of tables: for the terminal, the report and the benchmarks."""

from collections.abc import Sequence
from typing import Any

from apt_assets.promotion import undecided
from apt_assets.report.results import passages_of
from apt_assets.settings.iterations import BASE

RECENT = 8  # iterations


def recent(keys: Sequence[str]) -> list[str]:
    """Of many iterations base and the last RECENT: what a table of one column or section each is of."""
    iterations = [key for key in keys if key != BASE]
    return [key for key in keys if key == BASE or key in iterations[-RECENT:]]


def left_out(keys: Sequence[str], rest: str) -> str:
    """A line on the iterations that `recent` leaves out, if it does; rest: where they are."""
    number = len(keys) - len(recent(keys))
    return f"{number} earlier iterations are not shown: {rest}" if number else ""


def score_rows(found: dict[str, Any]) -> list[list[str]]:
    """One row per iteration: test exact, test lenient, validation, general, bad cases, pairs, gate."""
    rows = []
    for entry in found["iterations"]:
        scores, gate = entry["scores"], entry.get("gate")
        cells = ["-"] * 4
        if scores:
            test, validation = scores["domain"]["test"], scores["domain"]["validation"]
            parts = (
                test["exact"],
                test["lenient"],
                validation["lenient"],
                scores["general"]["all"]["accuracy"],
            )
            cells = [interval(part) for part in parts]
        verdict = "-" if gate is None else "promoted" if gate["passed"] else "refused"
        if gate and gate["passed"] and gate["scale"] != 1:
            verdict = f"promoted at {gate['scale']:g}"
        verdict = "waits for approval" if gate and undecided(gate) else verdict
        verdict = "no bad cases" if gate and "no_bad_cases" in gate else verdict
        counts = [str(entry[name]) if entry.get(name) is not None else "-" for name in ("bad_cases", "pairs")]
        rows.append([entry["iteration"], *cells, *counts, verdict])
    return rows


SCORE_COLUMNS = (
    "iteration", "test exact %", "test lenient %", "validation lenient %", "general %", "bad cases", "pairs", "gate",
)  # fmt: skip


def general_rows(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """(columns, rows): accuracy of each general task, by iteration, the mean margin over all items, and the
    word perplexity of each task of passages."""
    scored = [entry for entry in found["iterations"] if entry["scores"]]
    tasks = list(dict.fromkeys(task for entry in scored for task in entry["scores"]["general"] if task != "all"))
    texts = list(dict.fromkeys(task for entry in scored for task in passages_of(entry["scores"])))
    rows = []
    for entry in scored:
        general, passages = entry["scores"]["general"], passages_of(entry["scores"])
        cells = [interval(general[task]["accuracy"]) if task in general else "-" for task in tasks]
        perplexities = [f"{passages[task]['word_perplexity']:.1f}" if task in passages else "-" for task in texts]
        rows.append([entry["iteration"], *cells, f"{general['all']['margin']:+.3f}", *perplexities])
    columns = [*(f"{task} %" for task in tasks), "gold margin, nats per character"]
    return ["iteration", *columns, *(f"{task}: word perplexity" for task in texts)], rows


def second_rows(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """(columns, rows): wall-clock seconds of each stage when it was computed, by iteration."""
    entries = found["iterations"]
    names = list(dict.fromkeys(name for entry in entries for name in entry["stages"]))
    rows = []
    for name in names:
        cells = [entry["stages"].get(name, {}).get("seconds") for entry in entries]
        rows.append([name, *("-" if cell is None else f"{cell:.1f}" for cell in cells)])
    totals = [sum(s["seconds"] or 0 for s in entry["stages"].values()) for entry in entries]
    rows.append(["all", *(f"{total:.1f}" for total in totals)])
    return ["seconds", *(entry["iteration"] for entry in entries)], rows


def interval(share: dict[str, float]) -> str:
    """47.2 [43.0, 51.4], in percent."""
    if not share["n"]:
        return "-"
    return f"{100 * share['mean']:.1f} [{100 * share['low']:.1f}, {100 * share['high']:.1f}]"


def why(causes: list[str], most: int = 3) -> str:
    """The first causes, and how many more there are."""
    more = [f"and {len(causes) - most} more (apt-assets explain)"] if len(causes) > most else []
    return "; ".join([*causes[:most], *more])
