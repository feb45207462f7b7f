"""Vectors in LanceDB, pools that share them, and the exact nearest rows of a pool."""

import shutil

import numpy as np
import polars as pl
import pytest
import torch

from apt_assets.method.splits import row_id
from resources.model.files import check_encoder
from resources.retrieval.checks import check_sentence_encoder
from resources.retrieval.encoder import Encoder
from resources.retrieval.retriever import make_pool, nearest, similar_cases, verify_pool
from resources.retrieval.vector_folder import VectorFolder
from resources.store.file_digests import FileDigests
from resources.store.manifest import CorruptArtifact
from resources.store.rows import collect
from schemas.tables import BadCases, Examples
from tests import tiny

PROMPTS = [f"question about topic {n} and {n * 7}" for n in range(40)]


@pytest.fixture(scope="module")
def encoder(tiny_folder):
    return Encoder(tiny_folder / "encoder")


class MadeUp:
    """An encoder whose vectors are as good as random, and are the same for the same text."""

    dimensions = 24

    def __init__(self):
        self.asked = []

    def embed(self, texts):
        self.asked += texts
        for start in range(0, len(texts), 64):
            part = texts[start : start + 64]
            yield list(range(start, start + len(part))), [vector_of(text) for text in part]


def vector_of(text):
    # Of few numbers, so that many rows are equally near.
    given = np.random.default_rng(list(text.split("#")[0].encode())).integers(-2, 3, MadeUp.dimensions)
    vector = given.astype(np.float32) + np.float32(0.25)
    return vector / np.linalg.norm(vector)


def embedded(encoder, texts):
    return np.stack(collect(len(texts), encoder.embed(texts)))


def open_table(folder, name="vectors-x"):
    return VectorFolder(folder / "db", name, FileDigests(folder / "digests.json").files)


@pytest.fixture
def table(tmp_path):
    return open_table(tmp_path)


def questions(*prompts):
    rows = sorted((row_id(p), p, "gold", None) for p in prompts)
    return pl.DataFrame(rows, schema=Examples.empty().schema, orient="row")


def cases(*prompts):
    rows = [(row_id(p), p, "gold", None, "wrong", 1, False) for p in prompts]
    return pl.DataFrame(rows, schema=BadCases.empty().schema, orient="row")


def pool_of(table, rows, encoder=None):
    table.fill(rows["prompt"].to_list(), (encoder or MadeUp()).embed)
    return make_pool(table, rows)


def found_by_oracle(rows, asked, per_case):
    """{(case, row): (rank, similarity)} worked out row by row in float64."""
    vectors = {row: vector_of(prompt).astype(np.float64) for row, prompt in rows.select("row_id", "prompt").rows()}
    bad, best = set(asked["row_id"]), {}
    for case in sorted(bad):
        near = sorted((-round(float(vectors[case] @ vectors[row]), 12), row) for row in set(vectors) - bad)
        for rank, (negative, row) in enumerate(near[:per_case], start=1):
            if row not in best or -negative > best[row][2]:
                best[row] = (case, rank, -negative)
    return {(case, row): (rank, similarity) for row, (case, rank, similarity) in best.items()}


def as_found(neighbors):
    rows = neighbors.select("case_id", "row_id", "rank", "similarity").rows()
    return {(case, row): (rank, round(similarity, 12)) for case, row, rank, similarity in rows}


def fragments(table):
    return sorted((table.folder / "data").iterdir())


def flip(path, where=0.5):
    content = bytearray(path.read_bytes())
    content[int(len(content) * where)] ^= 1
    path.write_bytes(content)


# -- search ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "bad", "per_case"), [(300, 40, 3), (3000, 300, 5), (9, 8, 5), (9, 9, 5)])
def test_neighbours_are_the_exact_nearest_never_a_case_and_each_once(table, rows, bad, per_case):
    pool = questions(*(f"question {n}" for n in range(rows)))
    index = pool_of(table, pool)
    asked = cases(*(f"question {n}" for n in range(bad)))
    found = similar_cases(table, index, asked, pool, per_case=per_case)
    assert as_found(found) == found_by_oracle(pool, asked, per_case)
    assert not set(found["row_id"]) & set(asked["row_id"])
    assert found["row_id"].n_unique() == found.height
    assert (
        found.select("row_id", "prompt", "answer", "also")
        .sort("row_id")
        .equals(pool.filter(pl.col("row_id").is_in(found["row_id"].implode())))
    )


def test_equally_similar_rows_are_taken_by_row_id_wherever_they_lie(tmp_path):
    """Hundreds of rows with one vector, most of them left out: which ones must not depend on the files."""
    same = [f"same#{n}" for n in range(500)]
    other = [f"other {n}" for n in range(500)]
    pool, asked = questions(*same, *other), cases("same#7", "other 3")
    results = []
    for name, first in (("forwards", [*same, *other]), ("backwards", [*other, *same][::-1])):
        table = open_table(tmp_path, name)
        for start in range(0, 1000, 300):
            table.fill(first[start : start + 300], MadeUp().embed)
        results.append(similar_cases(table, make_pool(table, pool), asked, pool, per_case=4))
    assert results[0].equals(results[1])
    nearest_same = sorted(row_id(p) for p in same if p != "same#7")[:4]
    assert results[0].filter(case_id=row_id("same#7")).sort("rank")["row_id"].to_list() == nearest_same


def test_neighbours_of_a_case_depend_neither_on_the_other_cases_nor_on_the_size_of_the_blocks():
    """Groups of nearly equal rows: in float32 their order is decided by how a product is summed up."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((20, 64))
    rows = (np.repeat(centres, 200, axis=0) + 1e-6 * random.standard_normal((4000, 64))).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    queries, tie = rows[random.permutation(4000)[:300]], random.permutation(4000)

    def ask(which, size):
        parts = ((np.arange(s, min(s + size, 4000)), rows[s : s + size]) for s in range(0, 4000, size))
        query, position, score = nearest(queries[which], parts, tie, 10)
        return {int(which[q]): (position[query == q].tolist(), score[query == q].tolist()) for q in set(query.tolist())}

    everyone = ask(np.arange(300), 4000)
    exact = queries.astype(np.float64) @ rows.astype(np.float64).T
    for number, (found, score) in everyone.items():
        assert set(found) == set(np.lexsort((tie, -exact[number]))[:10].tolist()) or np.allclose(
            sorted(exact[number])[-10:], sorted(score), rtol=0, atol=1e-15
        )
    assert ask(np.arange(300)[::-1], 1000) == everyone
    assert ask(np.arange(300), 137) == everyone
    for alone in (0, 150, 299):
        assert ask(np.array([alone]), 512) == {alone: everyone[alone]}


def test_rows_outside_the_pool_are_no_neighbours_though_their_vectors_are_there(table):
    everything = questions(*(f"question {n}" for n in range(60)))
    index = pool_of(table, everything)
    part = everything[::2]
    asked = cases(part["prompt"][0])
    found = similar_cases(table, index, asked, part, per_case=60)
    assert set(found["row_id"]) == set(part["row_id"]) - set(asked["row_id"])


def test_vector_does_not_depend_on_what_else_is_embedded(encoder):
    together = embedded(encoder, PROMPTS)
    backwards = embedded(encoder, PROMPTS[::-1])[::-1]
    alone = np.stack([embedded(encoder, [prompt])[0] for prompt in PROMPTS])
    assert (together == backwards).all()
    assert (together == alone).all()


# -- pools over one table -----------------------------------------------------------------------------


def test_older_pool_still_has_exactly_its_rows_after_rows_were_added_and_withdrawn(table):
    old, new = questions(*PROMPTS[:20]), questions(*PROMPTS[5:25])
    index = pool_of(table, old)
    asked = cases(PROMPTS[7])
    before = similar_cases(table, index, asked, old, per_case=20)
    assert set(before["row_id"]) == set(old["row_id"]) - set(asked["row_id"])
    newer = pool_of(table, new)
    assert similar_cases(table, index, asked, old, per_case=20).equals(before)
    assert set(similar_cases(table, newer, asked, new, per_case=30)["row_id"]) == set(new["row_id"]) - {
        row_id(PROMPTS[7])
    }
    assert make_pool(table, old).equals(index)


def test_pool_with_few_new_rows_writes_and_compares_only_them(table, monkeypatch):
    from resources.retrieval import lance_rows

    first = questions(*(f"question {n}" for n in range(3000)))
    pool_of(table, first)
    before = {path: path.stat() for path in fragments(table)}
    hashed, real = [], lance_rows.row_check
    monkeypatch.setattr(lance_rows, "row_check", lambda text, vector: hashed.append(text) or real(text, vector))
    encoder = MadeUp()
    more = [f"new question {n}" for n in range(30)]
    index = pool_of(table, questions(*first["prompt"], *more), encoder)
    assert index.height == 3030
    assert sorted(encoder.asked) == sorted(more)
    assert set(hashed) == set(more)
    assert len(hashed) == 2 * len(more), "once to write it, once to see that it was written"
    added = [path for path in fragments(table) if path not in before]
    assert sum(path.stat().st_size for path in added) < sum(stat.st_size for stat in before.values()) / 50
    assert all(path.stat() == stat for path, stat in before.items())


def test_text_is_embedded_once_for_whatever_pool_and_only_then_the_encoder_is_loaded(tmp_path, encoder):
    table = open_table(tmp_path)
    assert (table.fill(PROMPTS[:20], encoder.embed), table.missing(PROMPTS[10:30])) == (20, 10)
    assert open_table(tmp_path).fill(PROMPTS[:20], pytest.fail) == 0
    vectors = table.vectors(table.rows("text").sort("text")["place"].to_numpy())
    assert (vectors == embedded(encoder, sorted(PROMPTS[:20]))).all()
    assert open_table(tmp_path, "of-another-encoder").missing(PROMPTS[:20]) == 20


def test_killed_fill_keeps_what_it_committed(table, monkeypatch):
    monkeypatch.setattr("resources.retrieval.vector_table.COMMIT_ROWS", 64)

    class Killed(Exception):
        pass

    def embed(texts):
        for positions, vectors in MadeUp().embed(texts):
            if positions[0] == 256:
                raise Killed
            yield positions, vectors

    with pytest.raises(Killed):
        table.fill([f"question {n}" for n in range(1000)], embed)
    assert table.missing([f"question {n}" for n in range(1000)]) == 1000 - 256
    assert table.fill([f"question {n}" for n in range(1000)], MadeUp().embed) == 1000 - 256
    assert table.rows("text")["text"].n_unique() == table.rows("text").height == 1000


# -- damage --------------------------------------------------------------------------------------------


def truncate(path):
    path.write_bytes(path.read_bytes()[:100])


@pytest.fixture
def three_commits(table, monkeypatch):
    """A pool of 192 rows in three files, as it should be."""
    monkeypatch.setattr("resources.retrieval.vector_table.COMMIT_ROWS", 64)
    pool = questions(*(f"question {n}" for n in range(192)))
    index = pool_of(table, pool)
    assert len(fragments(table)) == 3
    return pool, index


@pytest.mark.parametrize("damage", [flip, truncate, lambda path: path.unlink()], ids=["bit", "truncated", "deleted"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_damaged_file_is_noticed_before_use_and_only_its_rows_are_embedded_again(table, three_commits, damage, which):
    pool, index = three_commits
    asked = cases("question 3", "question 99")
    expected = similar_cases(table, index, asked, pool, per_case=3)
    mark = table.mark()
    damage(fragments(table)[which])
    assert not table.unchanged_since(mark)
    with pytest.raises(CorruptArtifact, match="lost the row"):
        verify_pool(table, index)
    with pytest.raises(CorruptArtifact, match="lost the row"):
        similar_cases(table, index, asked, pool, per_case=3)
    encoder = MadeUp()
    table.fill(pool["prompt"].to_list(), encoder.embed)
    assert 1 <= len(encoder.asked) <= 64
    assert make_pool(table, pool).equals(index), "vectors are the same again"
    assert similar_cases(table, index, asked, pool, per_case=3).equals(expected)
    assert table.fill(pool["prompt"].to_list(), pytest.fail) == 0


def test_vector_edited_through_lancedb_is_noticed_and_embedded_again(table, three_commits):
    import lancedb

    pool, index = three_commits
    moved = vector_of("question 5").copy()
    moved[0] += 1e-6
    lancedb.connect(table.database).open_table(table.name).update(
        where="text = 'question 5'", values={"vector": moved.tolist()}
    )
    with pytest.raises(CorruptArtifact, match=f"lost the row {row_id('question 5')}"):
        verify_pool(table, index)
    assert pool_of(table, pool).equals(index)
    verify_pool(table, index)


def test_row_deleted_through_lancedb_is_noticed_and_embedded_again(table, three_commits):
    import lancedb

    pool, index = three_commits
    lancedb.connect(table.database).open_table(table.name).delete("text = 'question 5'")
    with pytest.raises(CorruptArtifact, match=f"lost the row {row_id('question 5')}"):
        similar_cases(table, index, cases("question 6"), pool, per_case=1)
    assert pool_of(table, pool).equals(index)


@pytest.mark.parametrize("part", ["", "_versions"])
def test_lost_or_unreadable_table_is_noticed_and_made_again(table, three_commits, part):
    pool, index = three_commits
    mark = table.mark()
    shutil.rmtree(table.folder / part)
    with pytest.raises(CorruptArtifact):
        verify_pool(table, index)
    assert pool_of(table, pool).equals(index)
    verify_pool(table, index)
    assert not table.unchanged_since(mark)


def test_rows_added_later_leave_the_mark_of_an_older_pool_as_it_is(table, three_commits):
    mark = table.mark()
    table.fill(["another question"], MadeUp().embed)
    assert table.mark() != mark
    assert table.unchanged_since(mark)


def test_rows_whose_file_lay_there_before_their_commit_are_found_once_it_is_made(tmp_path, monkeypatch):
    reader, writer = open_table(tmp_path), open_table(tmp_path)
    writer.fill(PROMPTS[:2], MadeUp().embed)
    version, table = reader._version(), reader.opened()
    writer.fill(PROMPTS, MadeUp().embed)
    writer._forget_note()
    with monkeypatch.context() as seen:  # the table before the commit, beside the files that it then named
        seen.setattr(reader, "_version", lambda: version)
        seen.setattr(reader, "opened", lambda: table)
        _, known = reader.compared()
    reader._remember(known)
    assert set(reader.rows("text")["text"]) == set(PROMPTS)


def test_rows_that_no_pool_holds_are_removed_once_they_are_most_of_the_table(table, three_commits):
    pool, index = three_commits
    half, third = set(index["check"][:96]), index[:64]
    assert table.keep_only(half, really=True) == (0, 0)
    size = sum(path.stat().st_size for path in fragments(table))
    would = table.keep_only(set(third["check"]), really=False)
    assert sum(path.stat().st_size for path in fragments(table)) == size
    assert table.keep_only(set(third["check"]), really=True) == would
    assert would[0] == 128
    assert sum(path.stat().st_size for path in fragments(table)) < size / 2
    assert len(fragments(table)) == 1
    verify_pool(table, third)
    kept = pool.join(third, on="row_id", how="semi")
    assert table.fill(kept["prompt"].to_list(), pytest.fail) == 0
    assert table.fill(pool["prompt"].to_list(), MadeUp().embed) == 128
    assert make_pool(table, pool).equals(index)


def test_vectors_of_another_encoder_put_in_place_are_not_taken_for_its_own(table, tmp_path):
    table.fill(PROMPTS, MadeUp().embed)
    other = open_table(tmp_path, "vectors-y")
    shutil.copytree(table.folder, other.folder)
    shutil.copy(tmp_path / "db" / "vectors-x.checked.json", tmp_path / "db" / "vectors-y.checked.json")
    assert other.missing(PROMPTS) == len(PROMPTS)
    encoder = MadeUp()
    assert other.fill(PROMPTS, encoder.embed) == len(PROMPTS)
    assert sorted(encoder.asked) == sorted(PROMPTS)
    assert table.missing(PROMPTS) == 0


# -- encoders of other forms ---------------------------------------------------------------------------------


def encoder_of(folder, *modules):
    from sentence_transformers import SentenceTransformer

    SentenceTransformer(modules=list(modules), device="cpu").save(str(folder))
    check_encoder(folder)
    check_sentence_encoder(folder, "cpu")
    return Encoder(folder)


def test_vectors_of_an_encoder_in_bfloat16_have_length_one_and_the_nearest_are_those_by_cosine(tiny_folder, tmp_path):
    from sentence_transformers.sentence_transformer import modules
    from transformers import AutoTokenizer, BertConfig, BertModel

    tokenizer = AutoTokenizer.from_pretrained(tiny_folder / "bert")
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(0)
    BertModel(config).to(torch.bfloat16).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    encoder = encoder_of(tmp_path / "encoder", modules.Transformer(str(tmp_path / "bert")), modules.Pooling(64))
    found = np.stack(collect(len(PROMPTS), encoder.embed(PROMPTS))).astype(np.float64)
    lengths = np.linalg.norm(found, axis=1)
    assert lengths == pytest.approx(1, abs=1e-6)
    order = np.argsort(-(found @ found.T), kind="stable")
    assert (order == np.argsort(-((found / lengths[:, None]) @ (found / lengths[:, None]).T), kind="stable")).all()


def test_text_as_long_as_an_encoder_of_the_kind_of_roberta_has_positions_for_is_embedded(tmp_path):
    from sentence_transformers.sentence_transformer import modules
    from transformers import XLMRobertaConfig, XLMRobertaModel

    tokenizer = tiny.make_tokenizer()
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=66, pad_token_id=1,
    )  # fmt: skip
    XLMRobertaModel(config).save_pretrained(tmp_path / "roberta")
    tokenizer.save_pretrained(tmp_path / "roberta")
    encoder = encoder_of(tmp_path / "encoder", modules.Transformer(str(tmp_path / "roberta")), modules.Pooling(16))
    assert encoder.most_tokens == 64
    at_most, more = collect(2, encoder.embed(["a" * 64, "a" * 64 + "b" * 20]))
    assert encoder.cut == 1
    assert np.array_equal(at_most, more)


def test_encoder_of_static_embeddings_is_used(tmp_path):
    from sentence_transformers.sentence_transformer import modules

    static = modules.StaticEmbedding(tiny.make_tokenizer().backend_tokenizer, embedding_dim=16)
    encoder = encoder_of(tmp_path / "encoder", static)
    one, other, again = collect(3, encoder.embed(["abc", "a longer text", "abc"]))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
