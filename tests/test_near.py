"""Near duplicates of held-out rows leave the training rows: all of them, and nothing else."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apt_assets.landing.chunks import Chunk
from apt_assets.landing.records import sort_out
from apt_assets.method.domain import build_domain
from apt_assets.method.near import near_held_out
from apt_assets.method.splits import normalise

HELD = "Malignant neoplasm of the left femur"
EDITS = {
    "substituted": "Malignant neoplasm of the right femur",
    "substituted first": "Benign neoplasm of the left femur",
    "substituted last": "Malignant neoplasm of the left tibia",
    "typo": "Malignant neoplsam of the left femur",
    "inserted": "Malignant neoplasm of the whole left femur",
    "inserted first": "A malignant neoplasm of the left femur",
    "appended": "Malignant neoplasm of the left femur, again",
    "left out": "Malignant neoplasm of the femur",
    "left out first": "neoplasm of the left femur",
    "left out last": "Malignant neoplasm of the left",
    "space inside a word": "Malignant neo-plasm of the left femur",
    "two words joined": "Malignant neoplasm of the leftfemur",
    "case and an edit": "MALIGNANT  neoplasm of the (right) FEMUR!",
}


def parts_of(*rows, file="f"):
    """Rows (prompt, answer, split) as a landed file."""
    records = [{"prompt": prompt, "answer": answer, "split": split} for prompt, answer, split in rows]
    lines = list(range(1, len(records) + 1))
    return sort_out(file, Chunk(lines, [b""] * len(records), records))


@pytest.mark.parametrize("edited", EDITS.values(), ids=EDITS)
@pytest.mark.parametrize("split", ["validation", "test"])
def test_training_row_within_a_word_of_a_held_out_one_is_quarantined_with_the_reason(edited, split):
    held = parts_of((HELD, "Neoplasm", split), file="held.jsonl")
    train = parts_of((edited, "neoplasm", "train"), ("Broken leg", "Injury", "train"), file="train.jsonl")
    tables = build_domain([train, held], 0.0, 0.0, 5)
    assert tables["train"]["prompt"].to_list() == ["Broken leg"]
    assert tables[split]["prompt"].to_list() == [HELD]
    assert set(tables["provenance"]["split"]) == {"train", split}
    assert tables["quarantine"].select("file", "field", "reason", "raw").rows() == [
        ("train.jsonl", "prompt", f"is within a word of a {split} row of held.jsonl: {HELD}", f"{edited} -> neoplasm")
    ]


@pytest.mark.parametrize(
    ("prompt", "answer", "words"),
    [
        ("Malignant tumour of the right femur", "Neoplasm", 5),  # two words
        ("Malignant neoplasm left femur of the", "Neoplasm", 5),  # another order
        ("Malignant neoplasm of the whole left distal femur", "Neoplasm", 5),  # two more words
        ("Malignant neoplasm of the right femur", "Injury", 5),  # another answer
        ("Malignant neoplasm of the right femur", "Neoplasm", 7),  # too short for one word to be little
        ("Malignant neoplasm of the femur", "Neoplasm", 6),  # the shorter of the two is
        ("Malignant neoplasm of the right femur", "Neoplasm", None),  # turned off
    ],
)
def test_training_row_that_is_another_question_stays(prompt, answer, words):
    rows = parts_of((prompt, answer, "train"), (HELD, "Neoplasm", "test"))
    tables = build_domain([rows], 0.0, 0.0, words)
    assert tables["train"]["prompt"].to_list() == [prompt]
    assert tables["quarantine"].is_empty()


def test_short_questions_are_near_only_if_their_letters_are_the_same():
    rows = parts_of(("X-ray?", "a", "test"), ("xray", "a", "train"), ("x-rays", "a", "train"), ("?!", "a", "train"))
    tables = build_domain([rows], 0.0, 0.0, 5)
    assert sorted(tables["train"]["prompt"]) == ["?!", "x-rays"]


def test_near_duplicates_among_training_rows_and_among_held_out_ones_stay():
    for split in ("train", "test"):
        tables = build_domain([parts_of(*((text, "Neoplasm", split) for text in EDITS.values()))], 0.0, 0.0, 5)
        assert tables[split].height == len({normalise(text) for text in EDITS.values()})


def test_order_of_rows_and_files_decides_nothing():
    rows = [(text, "Neoplasm", "test" if n % 3 == 0 else "train") for n, text in enumerate(EDITS.values())]
    forward, backward = (build_domain([parts_of(*some)], 0.0, 0.0, 5) for some in (rows, rows[::-1]))
    assert forward["quarantine"].height > 0
    for name, table in forward.items():
        assert table.equals(backward[name]), name


def near_by_hand(a, b, shortest):
    """Whether some edit of one word makes one list of words the other, tried one by one."""
    one, other = normalise(a).split(), normalise(b).split()
    if "".join(one) == "".join(other):
        return one != []
    if min(len(one), len(other)) < shortest:
        return False
    shorter, longer = sorted((one, other), key=len)
    places = range(len(longer))
    if len(longer) == len(shorter):
        return sum(x != y for x, y in zip(shorter, longer, strict=True)) == 1
    return any(longer[:n] + longer[n + 1 :] == shorter for n in places)


few_words = st.lists(st.sampled_from(["a", "b", "ab", "B", "é", "ß", "-"]), min_size=1, max_size=6).map(" ".join)
questions = st.lists(st.tuples(few_words, st.sampled_from(["x", "X", "y"])), max_size=12)


@pytest.mark.slow("cases")
@settings(max_examples=300, deadline=None)
@given(questions, questions, st.integers(2, 4), st.sampled_from([1, 3, 50_000]))
def test_rows_found_are_those_that_comparing_all_pairs_finds(train, held, shortest, block):
    tables = [pl.DataFrame(rows, schema=["prompt", "answer"], orient="row") for rows in (train, held)]
    tables = [table.cast(pl.String) for table in tables]
    expected = {}
    for n, (prompt, answer) in enumerate(train):
        near = [
            m
            for m, (other, its_answer) in enumerate(held)
            if normalise(answer) == normalise(its_answer) and near_by_hand(prompt, other, shortest)
        ]
        if near:
            expected[n] = near[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("apt_assets.method.near.BLOCK", block)
        assert near_held_out(*tables, shortest) == expected
