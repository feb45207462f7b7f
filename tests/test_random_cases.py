"""Random rows in place of similar cases: as many, as clean, and others in each iteration."""

import polars as pl
import pytest

import apt_assets.assets.order  # noqa: F401 - declares the stages
from apt_assets.engine.execute import run_stage
from apt_assets.method.mining import draw_questions, random_cases
from apt_assets.method.splits import row_id
from apt_assets.project import Project
from resources.store.tables import read_table
from schemas.tables import BadCases, Examples, Neighbors
from tests import tiny

POOL = pl.DataFrame(
    sorted((row_id(f"q{n}"), f"q{n}", f"a{n}", None) for n in range(400)), schema=Examples.empty().schema, orient="row"
)


def cases(count):
    rows = [(*row, "wrong", 1, False) for row in POOL.head(count).iter_rows()]
    return pl.DataFrame(rows, schema=BadCases.empty().schema, orient="row")


def drawn(bad=40, iteration="0001", seed=17, similar=80):
    case = POOL["row_id"][0]
    rows = [(row, case, n, 0.5, *rest) for n, (row, *rest) in enumerate(POOL.tail(similar).rows(), 1)]
    found = pl.DataFrame(rows, schema=Neighbors.empty().schema, orient="row")
    return random_cases(found, cases(bad), POOL, iteration, seed)


def test_random_rows_are_whole_rows_of_the_pool_each_once_and_no_bad_case():
    found = Neighbors.validate(drawn())
    assert found.height == found["row_id"].n_unique() == 80
    assert found.join(POOL, on=["row_id", "prompt", "answer"], how="semi").height == 80
    assert found.join(cases(40), on="row_id", how="semi").is_empty()
    assert found["similarity"].null_count() == 80
    assert found["rank"].to_list() == list(range(1, 81))


def test_iterations_and_seeds_draw_other_rows_and_one_bad_case_more_hardly_any():
    first = set(drawn()["row_id"])
    assert first == set(drawn()["row_id"])
    # Of 360 rows 80 are drawn: two independent draws share about 18.
    assert len(first & set(drawn(iteration="0002")["row_id"])) < 40
    assert len(first & set(drawn(seed=18)["row_id"])) < 40
    assert len(first & set(drawn(bad=41)["row_id"])) >= 79


def test_random_rows_are_not_those_whose_questions_were_asked():
    asked = draw_questions(POOL, "0001", 80, 17)
    assert drawn(bad=0).join(asked, on="row_id", how="semi").height < 40


@pytest.fixture
def near(make_experiment, tmp_path):
    """A function (**settings of retrieval) -> (project, its neighbors, their manifest, train, bad cases)."""
    tiny.write_jsonl(tmp_path / "landing" / "colours.jsonl", tiny.domain_rows(60))

    def run(**retrieval):
        project, outcomes = Project.open(make_experiment(retrieval={"per_case": 2, **retrieval})), {}
        project.open_iteration("0001")
        for name in ("domain_dataset", "retrieval_index", "policy", "eval_predictions", "bad_cases", "neighbors"):
            outcomes[name] = run_stage(project, "0001", name, run_id="r")

        def read(stage, file=None):
            return read_table(project.store.open(outcomes[stage].manifest) / f"{file or stage}.parquet")

        computed = [name for name, outcome in outcomes.items() if outcome.status == "computed"]
        return project, read, outcomes["neighbors"].manifest, computed

    return run


def test_random_cases_are_as_many_as_similar_ones_from_training_rows_only(near):
    _, read, manifest, _ = near()
    similar = read("neighbors")
    assert similar["similarity"].null_count() == 0
    assert -1 <= manifest.facts["mean_similarity"] <= 1
    _, read, manifest, computed = near(choose="random")
    found = read("neighbors")
    assert computed == ["neighbors"]
    assert found.height == similar.height > 5
    assert found["row_id"].n_unique() == found.height
    assert set(found["row_id"]) != set(similar["row_id"])
    assert found.select("case_id", "rank").equals(similar.select("case_id", "rank"))
    assert found.join(read("domain_dataset", "train"), on=["row_id", "prompt", "answer"], how="semi").equals(found)
    assert found.join(read("bad_cases"), on="row_id", how="semi").is_empty()
    assert manifest.facts == {"rows": found.height}
    assert near()[3] == [], "the similar ones are there as they were"


def test_people_are_shown_random_cases_without_a_similarity(near):
    from apt_assets.orchestration.metadata import metadata, origins
    from apt_assets.report.findings import pair_origins
    from apt_assets.report.look import ProjectLook
    from apt_assets.report.page import pairs
    from apt_assets.report.show import rows_of

    project, read, manifest, _ = near(choose="random")
    for name in ("similar_predictions", "doubtful_golds", "preference_pairs"):
        run_stage(project, "0001", name, run_id="r")
    planner = project.planner()
    columns, rows, count = rows_of(project, "neighbors", "1", 3)
    assert count == read("neighbors").height
    assert {row[columns.index("similarity")] for row in rows} == {None}
    assert "preview" in metadata(project, planner, "0001", "computed", manifest, 0.0)
    found = pair_origins(ProjectLook(project, planner, ["0001"], "0001"), "0001")
    assert {row["similarity"] for row in found["rows"]} == {None}
    assert "similarity" in pairs({"pairs": {"0001": found}})[0]["rows"].columns
    assert "similar" in origins(ProjectLook(project, planner, ["0001"], "0001"), "0001")
