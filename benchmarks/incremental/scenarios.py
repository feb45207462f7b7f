"""What changes between two runs: one edit per scenario, applied on top of those before it.

Code is edited in the tool's own copy of the source tree, data and models in place.
"""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.incremental.tools import Tool
from benchmarks.incremental.world import FIRST_FILE, SECOND_FILE, is_training_row
from tests.tiny import COLOURS

Edit = Callable[[Tool, Path], None]


@dataclass(frozen=True)
class Scenario:
    """edit(tool, other): other is the template's folder of things to add.

    before: an edit that is made and run first; that run is history, not the result.
    at_once: how many runs start together; units that two of them did count as unnecessary once.
    """

    name: str
    title: str
    edit: Edit
    before: Edit | None = None
    at_once: int = 1


def replace_in(path: Path, old: str, new: str) -> None:
    """Replace the first occurrence. Raises ValueError if there is none: the scenario would be empty."""
    text = path.read_text(encoding="utf-8")
    if old not in text:
        raise ValueError(f"{path.name} no longer holds {old!r}: mend the scenario")
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def land_first(tool: Tool, other: Path) -> None:
    tool.files = [[tool.land(other / FIRST_FILE)]] * 3


def nothing(tool: Tool, other: Path) -> None:
    pass


def land_more(tool: Tool, other: Path) -> None:
    tool.files = [*tool.files, [*tool.files[-1], tool.land(other / SECOND_FILE)]]


def lower_threshold(tool: Tool, other: Path) -> None:
    tool.settings["assessor"]["bad_below"] = 3


def change_rubric(tool: Tool, other: Path) -> None:
    """A hedged answer counts as a wrong label: grade 2 instead of 3."""
    replace_in(
        tool.source / "resources/assessors/labels.py", "return 3 if competing else 4", "return 2 if competing else 4"
    )


def change_comments(tool: Tool, other: Path) -> None:
    for name in ("assessors/labels", "training/trainer"):
        path = tool.source / f"resources/{name}.py"
        replace_in(path, '"""', '"""In other words: ')
        path.write_text(path.read_text(encoding="utf-8") + "\n# A comment decides nothing.\n", encoding="utf-8")


def rewrite_helper(tool: Tool, other: Path) -> None:
    """The same bad cases by another expression."""
    path = tool.source / "apt_assets/method/grades.py"
    replace_in(path, "return grade < bad_below", "return bad_below > grade")


def beta(value: float) -> Edit:
    def edit(tool: Tool, other: Path) -> None:
        tool.settings["training"]["beta"] = value

    return edit


def scale_beta(factor: float) -> Edit:
    def edit(tool: Tool, other: Path) -> None:
        # By powers of two, so that going back gives the very same number.
        tool.settings["training"]["beta"] *= factor

    return edit


def change_task(tool: Tool, other: Path) -> None:
    replace_in(tool.world / "tasks" / "colours.jsonl", "sky is", "the sky is")


def correct_row(tool: Tool, other: Path) -> None:
    """Another colour for the first training row of the first file."""
    path = tool.world / "data" / tool.files[0][0]
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    row = next(row for row in rows if is_training_row(row))
    row["answer"] = next(colour for colour in COLOURS.values() if colour != row["answer"])
    write_rows(path, rows)


def shuffle_rows(tool: Tool, other: Path) -> None:
    path = tool.world / "data" / tool.files[0][0]
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    random.Random(0).shuffle(rows)
    write_rows(path, rows)


def write_rows(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def overwrite_model(tool: Tool, other: Path) -> None:
    """Other weights under the same names; every file is written in place."""
    for path in (other / "policy").iterdir():
        shutil.copyfile(path, tool.world / "policy" / path.name)


SCENARIOS = (
    Scenario("S0", "cold, 3 iterations", land_first),
    Scenario("S1", "nothing changed", nothing),
    Scenario("S2", "1 % new rows: iteration 4", land_more),
    Scenario("S3", "threshold 4 -> 3", lower_threshold),
    Scenario("S4", "rubric: a hedged answer is a wrong one", change_rubric),
    Scenario("S5", "comment and docstring of assessor and trainer", change_comments),
    Scenario("S6", "helper rewritten to the same result", rewrite_helper),
    Scenario("S7", "beta 0.1 -> 0.2", beta(0.2)),
    Scenario("S8", "one question of the general task", change_task),
    Scenario("S9", "one training row corrected", correct_row),
    Scenario("S10", "two runs at once, after beta -> 0.3", beta(0.3), at_once=2),
    Scenario("S11", "model overwritten in place", overwrite_model),
    Scenario("S12", "beta doubled, run, and back", scale_beta(0.5), before=scale_beta(2.0)),
    Scenario("S13", "rows of a landed file shuffled", shuffle_rows),
)
