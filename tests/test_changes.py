"""Four of the changes in docs/changes.md, made in a copy of the code and met there as a user would meet them."""

import base64
import filecmp
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
import yaml

from apt_assets.settings.experiment import REPOSITORY
from tests import tiny

pytestmark = pytest.mark.slow("processes")

PRODUCT = ("apt_assets", "resources", "schemas", "tasks")
GRAPH = """
import json, sys
from pathlib import Path
from apt_assets.orchestration.definitions import build_definitions
from apt_assets.project import Project

graph = build_definitions(Project.open(Path(sys.argv[1]))).resolve_asset_graph()
name = lambda key: key.to_user_string()
print(json.dumps({name(key): sorted(map(name, graph.get(key).parent_keys)) for key in graph.get_all_asset_keys()}))
"""


@dataclass
class Copy:
    """A copy of the code, and a home in which it works. models: what tests/tiny.py made."""

    code: Path
    home: Path
    models: Path

    def copied(self, folder: Path) -> "Copy":
        """Another one in `folder`: what it computes and what is edited there stays there."""
        shutil.copytree(self.code, folder / "code", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(self.home, folder / "home")
        return Copy(folder / "code", folder / "home", self.models)

    # -- a change --------------------------------------------------------------------------------

    def edit(self, file: str, *replacements: tuple[str, str]) -> None:
        text = (self.code / file).read_text()
        for old, new in replacements:
            assert text.count(old) == 1, f"{file} has {old!r} {text.count(old)} times: this test has to follow it"
            text = text.replace(old, new)
        (self.code / file).write_text(text)

    def add(self, file: str, text: str) -> None:
        assert not (self.code / file).exists()
        (self.code / file).write_text(text)

    def touched(self, original: "Copy") -> set[str]:
        """The files that are other ones than in the original, or are not in both."""
        both = product_files(self.code) & product_files(original.code)
        _, changed, unread = filecmp.cmpfiles(self.code, original.code, both, shallow=False)
        return {*changed, *unread} | (product_files(self.code) ^ product_files(original.code))

    # -- as a user meets it ----------------------------------------------------------------------

    def experiment(self, **changes: dict) -> None:
        content = tiny.experiment(self.models)
        content |= {section: {**content.get(section, {}), **values} for section, values in changes.items()}
        (self.home / "tiny.yaml").write_text(yaml.safe_dump(content))

    def python(self, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Python with the copy as its working folder and the first place that it imports from."""
        environment = {**os.environ, "PYTHONPATH": str(self.code), "APT_HOME": str(self.home)}
        environment = {
            name: value for name, value in environment.items() if name not in ("APT_EXPERIMENT", "APT_WATCH")
        }
        command = [sys.executable, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.code, env=environment, timeout=300)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def apt(self, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        return self.python("-m", "apt_assets.cli", *arguments, "-e", self.home / "tiny.yaml", code=code)

    def found(self, *arguments: object) -> object:
        """What a command prints with --json."""
        return json.loads(self.apt(*arguments, "--json").stdout)

    def run(self) -> set[str]:
        """Bring iteration 0001 up to date; the stages of base and of 0001 that were computed for it."""
        result = self.found("run", "--iterations", 1)
        assert result["passed"], result["reason"]
        return {stage for _, stage in result["computed"]}

    def plan(self) -> dict[str, dict]:
        """Stage -> its plan, of base and of iteration 0001, in order."""
        return {plan["stage"]: plan for plan in self.found("plan", "--iterations", 1)}

    def rows(self, stage: str) -> list[dict]:
        return self.found("show", stage, 1, "--limit", 1000)

    def graph(self) -> dict[str, list[str]]:
        """Asset -> the assets that it depends on, as Dagster has them."""
        return json.loads(self.python("-c", GRAPH, self.home / "tiny.yaml").stdout)


def product_files(code: Path) -> set[str]:
    files = (path for name in PRODUCT for path in (code / name).rglob("*") if path.is_file())
    return {path.relative_to(code).as_posix() for path in files if path.suffix != ".pyc"}


def promised(change: int) -> int:
    """How many product files a change touches, by the table in docs/changes.md."""
    page = (REPOSITORY / "docs" / "changes.md").read_text(encoding="utf-8")
    (files,) = re.findall(rf"^\| {change}\. [^|]+ \| (\d+) \|$", page, re.MULTILINE)
    return int(files)


def not_fresh(plans: dict[str, dict]) -> dict[str, list[str]]:
    """Stage -> why, of those that are not fresh."""
    return {name: [plan["status"], *plan["causes"]] for name, plan in plans.items() if plan["status"] != "fresh"}


@pytest.fixture(scope="module")
def original(tmp_path_factory, loops, tiny_folder) -> Copy:
    """The code as it is, and a home in which it ran one iteration: to be copied, not changed."""
    copy = Copy(tmp_path_factory.mktemp("code"), tmp_path_factory.mktemp("copied") / "home", tiny_folder)
    shutil.copytree(loops / "once", copy.home)
    for name in PRODUCT:
        shutil.copytree(REPOSITORY / name, copy.code / name, ignore=shutil.ignore_patterns("__pycache__"))
    copy.experiment()
    assert not_fresh(copy.plan()) == {}
    return copy


@pytest.fixture
def copy(original, tmp_path) -> Copy:
    return original.copied(tmp_path)


# -- 1. a new assessor -----------------------------------------------------------------------------

LENGTH = '''
"""Length: 5 if answer and gold have about the same number of letters, else 1."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from resources.assessors import FAST, AssessorKind, Grade, Row, Variant
from resources.assessors.labels import exact
from resources.section import Section
from resources.store.kinds import RowKind

ROWS = RowKind("grades by length", table="grades", settings=("assessor.length",), code=(__name__,))


class LengthSettings(Section):
    """How long an answer is."""

    letters_off: int = Field(0, ge=0, description="Letters that it may have more or fewer than the gold (choice).")


@dataclass(frozen=True)
class SameLength:
    letters_off: int
    at_once: int = FAST

    def grade(self, rows: Sequence[Row]) -> list[Grade]:
        return [
            Grade(5 if self.apart(row) <= self.letters_off else 1, exact(row.prediction, row.gold)) for row in rows
        ]

    def apart(self, row: Row) -> int:
        return abs(len(row.prediction) - len(row.gold))


def open_length(scope: Any) -> SameLength:
    return SameLength(scope.settings.assessor.length.letters_off)


KIND = AssessorKind((Variant(ROWS, open_length),), settings=LengthSettings)
'''


def by_length(row: dict, letters_off: int) -> int:
    return 5 if abs(len(row["prediction"]) - len(row["answer"])) <= letters_off else 1


def test_new_assessor_grades_by_its_setting_and_a_new_value_of_it_generates_nothing(copy, original):
    copy.add("resources/assessors/length.py", LENGTH)
    copy.edit(
        "resources/assessors/kinds.py",
        ("import AssessorKind, exact, labels,", "import AssessorKind, exact, labels, length,"),
        ('    "exact": exact.KIND,\n', '    "exact": exact.KIND,\n    "length": length.KIND,\n'),
    )
    assert copy.touched(original) == {"resources/assessors/length.py", "resources/assessors/kinds.py"}
    assert len(copy.touched(original)) == promised(1)

    copy.experiment(assessor={"kind": "length", "length": {"letters_off": -1}})
    refused = copy.apt("plan", code=2).stderr
    assert "assessor.length.letters_off" in refused
    assert "greater than or equal to 0" in refused

    copy.experiment(assessor={"kind": "length"})
    copy.run()
    strict = copy.rows("eval_predictions")
    assert [row["grade"] for row in strict] == [by_length(row, 0) for row in strict]
    assert {row["grade"] for row in strict} == {1, 5}
    trace = copy.found("explain", "eval_predictions", 1)["trace"]
    assert trace["settings"]["assessor.kind"] == "length"
    assert trace["settings"]["assessor.length.letters_off"] == 0
    assert trace["work"]["answers"] == {"reused": len(strict), "computed": 0}, "who grades does not decide what is said"

    copy.experiment(assessor={"kind": "length", "length": {"letters_off": 3}})
    plan = copy.plan()["eval_predictions"]
    assert (plan["status"], plan["causes"]) == ("stale", ["assessor.length.letters_off: 0 -> 3"])
    assert plan["work"] == {"answers": 0, "grades": len(strict)}
    copy.run()
    lenient = copy.rows("eval_predictions")
    assert [row["grade"] for row in lenient] == [by_length(row, 3) for row in lenient]
    assert lenient != strict
    work = copy.found("explain", "eval_predictions", 1)["trace"]["work"]
    assert work["answers"] == {"reused": len(strict), "computed": 0}
    assert work["grades"]["computed"] > 0


# -- 2. a stage between neighbours and pairs -------------------------------------------------------

CLOSE = '''
from apt_assets.engine.stage import stage
from apt_assets.engine.step import Step

LEAST = {least!r}


@stage(
    inputs=["neighbors"],
    libraries=["polars"],
    outputs=["neighbors.parquet"],
    main_table="neighbors",
    lineage={{name: [f"neighbors.{{name}}"] for name in ("row_id", "case_id", "similarity", "prompt", "answer")}},
    group="4_retrieval",
    kinds=["polars"],
)
def close_neighbors(step: Step) -> None:
    """Similar cases that are similar enough."""
    import polars as pl

    close = step.read("neighbors").filter(pl.col("similarity") >= LEAST)
    step.write(close, "neighbors")
    step.facts["rows"] = close.height
'''


def test_new_stage_is_planned_and_computed_in_its_place_and_pairs_are_of_what_it_leaves(copy, original):
    similar = sorted(copy.rows("neighbors"), key=lambda row: row["similarity"])
    least = similar[len(similar) // 2]["similarity"]
    close = {row["row_id"] for row in similar if row["similarity"] >= least}
    assert 0 < len(close) < len(similar)

    copy.add("apt_assets/assets/close_neighbors.py", CLOSE.format(least=least).lstrip())
    copy.edit("apt_assets/assets/order.py", ("    neighbors,\n", "    neighbors,\n    close_neighbors,\n"))
    copy.edit(
        "apt_assets/assets/preference_pairs.py",
        ('view.read("neighbors")', 'view.read("close_neighbors", "neighbors")'),
        ('        "neighbors",\n', '        "close_neighbors",\n'),
        ('"neighbors.row_id"', '"close_neighbors.row_id"'),
        ('"neighbors.case_id"', '"close_neighbors.case_id"'),
        ('["bad_cases.prompt", "neighbors.prompt"', '["bad_cases.prompt", "close_neighbors.prompt"'),
        ('["bad_cases.answer", "neighbors.answer"', '["bad_cases.answer", "close_neighbors.answer"'),
    )  # fmt: skip
    files = ("close_neighbors", "order", "preference_pairs")
    assert copy.touched(original) == {f"apt_assets/assets/{name}.py" for name in files}
    assert len(copy.touched(original)) == promised(2)

    plans = copy.plan()
    order = list(plans)
    assert order[order.index("neighbors") :][:2] == ["neighbors", "close_neighbors"]
    assert (plans["close_neighbors"]["status"], plans["preference_pairs"]["status"]) == ("missing", "waiting")
    assert {name for name in order[: order.index("close_neighbors")] if plans[name]["status"] != "fresh"} == set()
    graph = copy.graph()
    assert graph["close_neighbors"] == ["neighbors"]
    assert "close_neighbors" in graph["preference_pairs"]
    assert "neighbors" not in graph["preference_pairs"]

    computed = copy.run()
    assert {"close_neighbors", "preference_pairs"} <= computed
    assert not computed & set(order[: order.index("close_neighbors")])
    assert {row["row_id"] for row in copy.rows("close_neighbors")} == close
    assert {row["row_id"] for row in copy.rows("preference_pairs") if row["kind"] == "similar"} == close
    assert not_fresh(copy.plan()) == {}


# -- 7. a new source -------------------------------------------------------------------------------

BANNED = '''

# -- banned words ----------------------------------------------------------------------------------------


def banned_words_now(world: "World", planner: Planner, iteration: str) -> str:
    file = world.landing.parent / "banned_words.txt"
    return digest_json(sorted(file.read_text().split()) if file.is_file() else None)


@source(outside=banned_words_now)
def banned_words(planner: Planner, iteration: str) -> str:
    """Words that no question may have, by the content of banned_words.txt in the home folder."""
    return banned_words_now(planner.world, planner, iteration)
'''


def test_new_source_turns_what_reads_it_stale_when_its_content_changes_and_is_named_as_the_cause(copy, original):
    sources = copy.code / "apt_assets" / "assets" / "sources.py"
    sources.write_text(sources.read_text() + BANNED)
    assert copy.touched(original) == {"apt_assets/assets/sources.py"}
    assert len(copy.touched(original)) == promised(7)
    assert not_fresh(copy.plan()) == {}, "nothing reads it yet"

    # A reader is a file of its own change.
    copy.edit(
        "apt_assets/assets/bad_cases.py",
        ('inputs=["eval_predictions"]', 'inputs=["eval_predictions", "banned_words"]'),
    )
    assert copy.graph()["bad_cases"] == ["banned_words", "eval_predictions"]
    (cause,) = copy.plan()["bad_cases"]["causes"]
    assert cause.startswith("banned_words: ")
    assert copy.run() == {"bad_cases"}
    assert not_fresh(copy.plan()) == {}

    (copy.home / "banned_words.txt").write_text("sky\ncoal\n")
    plans = copy.plan()
    (cause,) = plans["bad_cases"]["causes"]
    assert re.fullmatch(r"banned_words: [0-9a-f]{8} -> [0-9a-f]{8}", cause)
    assert plans["bad_cases"]["status"] == "stale"
    assert plans["eval_predictions"]["status"] == "fresh"
    assert copy.run() == {"bad_cases"}

    (copy.home / "banned_words.txt").write_text("coal sky\n")
    assert not_fresh(copy.plan()) == {}, "another file with the same words"


# -- 4. a plot on one asset ------------------------------------------------------------------------

BAD_GRADES = """

def bad_grades(look: Look) -> dict[str, dict[int, int]]:
    from apt_assets.method.measures import grade_counts

    return {key: grade_counts(table) for key, table in look.tables("bad_cases").items()}


@stage("""


def test_new_plot_shows_in_the_report_and_on_its_asset_and_no_stage_is_stale_by_it(copy, original):
    copy.edit(
        "apt_assets/assets/bad_cases.py",
        ("from apt_assets.engine.stage import stage\n",
         "from apt_assets.drawing import plots\nfrom apt_assets.engine.stage import Look, Plot, stage\n"),
        ("\n\n@stage(", BAD_GRADES),
        ('    outputs=["bad_cases.parquet"],\n',
         '    outputs=["bad_cases.parquet"],\n'
         '    plots=[Plot("bad_grades", "Grades of the bad cases", bad_grades, plots.grade_histogram)],\n'),
    )  # fmt: skip
    assert copy.touched(original) == {"apt_assets/assets/bad_cases.py"}
    assert len(copy.touched(original)) == promised(4)

    # The original, on the same home, has it all fresh: see the fixture.
    assert not_fresh(copy.plan()) == {}

    grades = [row["grade"] for row in copy.rows("bad_cases")]
    said = [f"0001, grade {grade}: {grades.count(grade)} of {len(grades)}" for grade in (1, 2, 3)]
    copy.apt("report", copy.home / "report.html")
    page = (copy.home / "report.html").read_text()
    assert "Grades of the bad cases" in page
    assert all(line in page for line in said)

    copy.apt("run", "--iterations", 1, "--force", "bad_cases")
    with dg.DagsterInstance.from_config(str(copy.home / "dagster_home")) as instance:
        (event,) = instance.fetch_materializations(dg.AssetKey("bad_cases"), limit=1).records
    image = event.asset_materialization.metadata["bad_grades"].value
    shown = base64.b64decode(re.search(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", image)[1]).decode()
    assert all(line in shown for line in said)
    assert not_fresh(copy.plan()) == {}
