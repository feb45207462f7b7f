"""What a person sees of a materialisation and of a check in Dagster."""

import base64
import re
import xml.etree.ElementTree as ElementTree

import dagster as dg
import pytest

from apt_assets.engine.stage import STAGES
from apt_assets.orchestration.metadata import as_cell, check_metadata, metadata
from apt_assets.settings.iterations import BASE
from schemas.tables import TABLES

MAIN = {name: TABLES[STAGES[name].main_table or name] for name in (
    "domain_dataset", "retrieval_index", "eval_predictions", "bad_cases", "neighbors", "similar_predictions",
    "doubtful_golds", "preference_pairs", "adapter_checkpoint", "benchmark_scores",
)}  # fmt: skip


def shown(project, stage, iteration="0001"):
    manifest = project.planner().stage(iteration, stage).manifest
    return metadata(project, project.planner(), iteration, "computed", manifest, 1.0)


def plot(value):
    image = re.fullmatch(r"!\[\w+\]\(data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)\)", value.value)
    return ElementTree.fromstring(base64.b64decode(image[1]))


@pytest.mark.parametrize("stage", [name for name in STAGES if name != "gate"])
def test_every_stage_shows_what_it_was_made_from_and_its_identity(project, stage):
    found = shown(project, stage, "0001" if STAGES[stage].partitioned else BASE)
    assert found["fingerprint"]
    assert "cannot be shown" not in str(found.get("preview"))
    for name in STAGES[stage].input_stages():
        if name != "gate":
            assert f"[{name}](/assets/{name}" in found["links"].value


@pytest.mark.parametrize("stage", MAIN)
def test_tables_have_a_preview_a_row_count_and_columns_with_meanings(project, stage):
    found = shown(project, stage)
    lines = found["preview"].value.splitlines()
    assert len([line for line in lines if line.startswith("|")]) == 2 + min(found["dagster/row_count"], 8)
    columns = found["dagster/column_schema"].columns
    assert [column.name for column in columns] == list(MAIN[stage].to_schema().columns)
    assert all(column.description for column in columns)


@pytest.mark.parametrize(
    ("stage", "plots"),
    [
        ("eval_predictions", {"grade_histogram"}),
        ("adapter_checkpoint", {"curves"}),
        ("benchmark_scores", {"confusion", "labels", "domain_and_general"}),
    ],
)
def test_plots_are_images_that_hold_the_numbers(project, stage, plots):
    found = shown(project, stage)
    drawn = {name: plot(found[name]) for name in plots}
    said = " ".join("".join(svg.itertext()) for svg in drawn.values())
    if stage == "eval_predictions":
        grades = project.planner().stage("0001", stage).manifest.facts["grades"]
        for grade, count in grades.items():
            assert f"grade {grade}: {count} of {sum(grades.values())}" in said
    if stage == "benchmark_scores":
        scores = project.planner().stage("0001", stage).manifest.facts
        assert f"0001, test: {scores['domain']['test']['lenient']['mean']:.1%}" in said


def test_pairs_tell_the_bad_case_the_answer_and_the_similarity_they_came_by(project):
    from resources.store.tables import read_table

    text = shown(project, "preference_pairs")["where_pairs_come_from"].value
    head, _, *rows = [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("|")]
    pairs = read_table(project.store.open(project.planner().stage("0001", "preference_pairs").manifest) /
                       "preference_pairs.parquet")  # fmt: skip
    cases = dict(pairs.filter(kind="bad_case").select("row_id", "prompt").iter_rows())
    for row in rows:
        found = dict(zip(head, (cell.strip("`") for cell in row), strict=True))
        (pair,) = pairs.filter(prompt=found["prompt"]).rows(named=True)
        assert (found["kind"], found["rejected"]) == (pair["kind"], as_cell(pair["rejected"]).strip("`"))
        if pair["kind"] == "similar":
            assert found["case"] == cases[pair["case_id"]]
            assert -1 <= float(found["similarity"]) <= 1
    assert "/assets/eval_predictions?partition=0001" in text
    assert "none, the base model" in text


def test_lineage_names_columns_that_exist_and_inputs_that_are_declared():
    told = {name: stage.lineage for name, stage in STAGES.items() if stage.lineage}
    assert len(told) > 5
    for stage, columns in told.items():
        for column, sources in columns.items():
            assert column in MAIN[stage].to_schema().columns, (stage, column)
            for source in sources:
                given, name = source.split(".")
                assert name in MAIN[given].to_schema().columns, (stage, column, source)
                assert given in STAGES[stage].input_stages(), (stage, source)


def test_scores_are_numbers_that_dagster_draws_by_partition(project):
    found = shown(project, "benchmark_scores")
    scores = project.planner().stage("0001", "benchmark_scores").manifest.facts
    assert found["test_exact"] == scores["domain"]["test"]["exact"]["mean"]
    assert found["general_all"] == scores["general"]["all"]["accuracy"]["mean"]
    assert f"| {scores['domain']['test']['exact']['n']} |" in found["scores"].value


def test_lineage_reaches_dagster(project):
    lineage = shown(project, "preference_pairs")["dagster/column_lineage"]
    assert dg.TableColumnDep("bad_cases", "prediction") in lineage.deps_by_column["rejected"]


def test_a_models_answer_cannot_become_markup_in_a_preview():
    hostile = 'x` | <img src="https://a.example/x.png"> ![](https://a.example) \n# heading'
    cell = as_cell(hostile)
    assert cell.startswith("`")
    assert cell.endswith("`")
    assert not set(cell[1:-1]) & set("`|\n")


def test_a_refused_gate_says_what_fell_short_and_what_to_do():
    check = {
        "name": "general", "passed": False, "candidate": 0.4, "reference": 0.5, "difference": -0.1, "low": -0.15,
        "high": -0.05, "tolerance": 0.05, "items": 400, "against": "the base model",
    }  # fmt: skip
    found = check_metadata(check, "0002", {"passed": False, "scale": 1.0})
    assert found["comparison"].startswith("general refused: 40.0% against 50.0% of the base model")
    assert "Nothing is promoted" in found["what_follows"].value
    assert "/assets/preference_pairs?partition=0002" in found["what_follows"].value
    assert found["items"] == 400


def test_a_damaged_table_does_not_fail_the_stage_that_shows_it(project):
    manifest = project.planner().stage("0001", "bad_cases").manifest
    file = project.store.open(manifest) / "bad_cases.parquet"
    whole = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(b"broken")
    try:
        assert "cannot be shown" in shown(project, "bad_cases")["preview"]
    finally:
        file.write_bytes(whole)
