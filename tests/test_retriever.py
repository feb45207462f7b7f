import polars as pl
import pytest

from apt_assets.method.splits import row_id
from resources.artifact_store import CorruptArtifact
from resources.retriever import Encoder, open_version, similar_cases, update_index
from schemas import empty_table


@pytest.fixture(scope="module")
def encoder(tiny_folder):
    return Encoder(tiny_folder / "encoder")


def pool(*prompts):
    rows = sorted((row_id(p), p, "gold") for p in prompts)
    return pl.DataFrame(rows, schema=empty_table("train").schema, orient="row")


def cases(*prompts):
    rows = [(row_id(p), p, "gold", "wrong", 1, False) for p in prompts]
    return pl.DataFrame(rows, schema=empty_table("bad_cases").schema, orient="row")


PROMPTS = [f"question about topic {n} and {n * 7}" for n in range(40)]


def test_neighbours_are_the_exact_nearest_never_the_case_and_each_once(tmp_path, encoder):
    import numpy as np

    rows = pool(*PROMPTS)
    index = update_index(tmp_path / "db", "t", rows, encoder)
    asked = cases(*PROMPTS[:5])
    found = similar_cases(tmp_path / "db", index, asked, rows, encoder, per_case=3)
    assert not set(found["row_id"]) & set(asked["row_id"])
    assert found["row_id"].n_unique() == found.height
    vectors, ids = encoder.embed(rows["prompt"].to_list()), rows["row_id"].to_list()
    for case in asked["row_id"]:
        similarity = vectors @ vectors[ids.index(case)]
        ranked = [ids[i] for i in np.argsort(-similarity) if ids[i] not in set(asked["row_id"])]
        assert set(found.filter(case_id=case)["row_id"]) <= set(ranked[:3])
    assert found["similarity"].max() <= 1.001


def test_evaluation_row_is_never_a_neighbour_even_of_itself(tmp_path, encoder):
    rows = pool(*PROMPTS[:20])
    index = update_index(tmp_path / "db", "t", rows, encoder)
    found = similar_cases(tmp_path / "db", index, cases(PROMPTS[30]), rows, encoder, per_case=20)
    assert set(found["row_id"]) == set(rows["row_id"])


def test_only_new_rows_are_embedded_gone_rows_leave_and_old_version_still_sees_them(tmp_path, encoder):
    first = update_index(tmp_path / "db", "t", pool(*PROMPTS[:20]), encoder)
    second = update_index(tmp_path / "db", "t", pool(*PROMPTS[5:25]), encoder)
    assert (first["embedded"], second["embedded"], second["removed"]) == (20, 5, 5)
    assert open_version(tmp_path / "db", first).count_rows() == 20
    found = similar_cases(tmp_path / "db", first, cases("new question"), pool(*PROMPTS[:20]), encoder, per_case=20)
    assert row_id(PROMPTS[0]) in set(found["row_id"])
    assert row_id(PROMPTS[22]) not in set(found["row_id"])


def test_missing_index_is_noticed(tmp_path, encoder):
    with pytest.raises(CorruptArtifact, match="nowhere"):
        open_version(tmp_path / "db", {"table": "nowhere", "lance_version": 1})
