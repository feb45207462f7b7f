import polars as pl
import pytest

from apt_assets.method.splits import row_id
from resources.artifact_store import CorruptArtifact
from resources.retriever import (
    Encoder,
    VectorTable,
    check_index,
    index_content,
    make_index,
    open_index,
    pool_digest,
    similar_cases,
)
from schemas.tables import BadCases, Examples


@pytest.fixture(scope="module")
def encoder(tiny_folder):
    return Encoder(tiny_folder / "encoder")


def pool(*prompts):
    rows = sorted((row_id(p), p, "gold") for p in prompts)
    return pl.DataFrame(rows, schema=Examples.empty().schema, orient="row")


def cases(*prompts):
    rows = [(row_id(p), p, "gold", "wrong", 1, False) for p in prompts]
    return pl.DataFrame(rows, schema=BadCases.empty().schema, orient="row")


PROMPTS = [f"question about topic {n} and {n * 7}" for n in range(40)]


def index_of(folder, rows, encoder):
    vectors, _ = VectorTable(folder, {"encoder": "tiny"}).fill(rows["prompt"].to_list(), lambda: encoder)
    return make_index(folder, rows, vectors)


def test_neighbours_are_the_exact_nearest_never_the_case_and_each_once(tmp_path, encoder):
    import numpy as np

    rows = pool(*PROMPTS)
    index = index_of(tmp_path / "db", rows, encoder)
    asked = cases(*PROMPTS[:5])
    found = similar_cases(tmp_path / "db", index, asked, rows, per_case=3)
    assert not set(found["row_id"]) & set(asked["row_id"])
    assert found["row_id"].n_unique() == found.height
    vectors, ids = encoder.embed(rows["prompt"].to_list()), rows["row_id"].to_list()
    for case in asked["row_id"]:
        similarity = vectors @ vectors[ids.index(case)]
        ranked = [ids[i] for i in np.argsort(-similarity) if ids[i] not in set(asked["row_id"])]
        assert set(found.filter(case_id=case)["row_id"]) <= set(ranked[:3])
    assert found["similarity"].max() <= 1.001


def test_index_of_an_older_pool_still_holds_it_and_an_equal_pool_is_the_same_index(tmp_path, encoder):
    first = index_of(tmp_path / "db", pool(*PROMPTS[:20]), encoder)
    second = index_of(tmp_path / "db", pool(*PROMPTS[5:25]), encoder)
    assert first["table"] != second["table"]
    assert index_of(tmp_path / "db", pool(*PROMPTS[:20]), encoder) == first
    asked = cases(PROMPTS[7])
    found = similar_cases(tmp_path / "db", first, asked, pool(*PROMPTS[:20]), per_case=20)
    assert set(found["row_id"]) == set(pool(*PROMPTS[:20])["row_id"]) - set(asked["row_id"])


def test_damaged_index_is_noticed_and_made_again_under_its_name(tmp_path, encoder):
    index = index_of(tmp_path / "db", pool(*PROMPTS[:20]), encoder)
    open_index(tmp_path / "db", index).delete(f"row_id = '{pool(PROMPTS[3])['row_id'][0]}'")
    with pytest.raises(CorruptArtifact, match="is not the pool it was"):
        check_index(tmp_path / "db", index)
    assert index_of(tmp_path / "db", pool(*PROMPTS[:20]), encoder) == index
    check_index(tmp_path / "db", index)


def test_text_is_embedded_once_for_whatever_pool_and_only_then_the_encoder_is_loaded(tmp_path, encoder):
    table = VectorTable(tmp_path / "db", {"encoder": "tiny"})
    vectors, computed = table.fill(PROMPTS[:20], lambda: encoder)
    assert (computed, table.missing(PROMPTS[10:30])) == (20, 10)
    again, computed = VectorTable(tmp_path / "db", {"encoder": "tiny"}).fill(PROMPTS[:20], pytest.fail)
    assert computed == 0
    assert all((one == two).all() for one, two in zip(vectors, again, strict=True))
    assert VectorTable(tmp_path / "db", {"encoder": "another"}).missing(PROMPTS[:20]) == 20


def test_vector_does_not_depend_on_what_else_is_embedded(encoder):
    import numpy as np

    together = encoder.embed(PROMPTS)
    backwards = encoder.embed(PROMPTS[::-1])[::-1]
    alone = np.stack([encoder.embed([prompt])[0] for prompt in PROMPTS])
    assert (together == backwards).all()
    assert (together == alone).all()


def test_edited_vector_is_noticed(tmp_path, encoder):
    rows = pool(*PROMPTS[:5])
    index = index_of(tmp_path / "db", rows, encoder)
    ids, vectors = index_content(open_index(tmp_path / "db", index))
    moved = vectors.copy()
    moved[2, 0] += 1e-6
    assert pool_digest(ids, vectors) == pool_digest(ids[::-1], vectors[::-1])
    assert pool_digest(ids, vectors) != pool_digest(ids, moved)


def test_missing_index_is_noticed(tmp_path, encoder):
    with pytest.raises(CorruptArtifact, match="nowhere"):
        open_index(tmp_path / "db", {"table": "nowhere"})
