"""Questions with several right answers, and a wrong one that came with the row: from the landed row to the pair."""

import polars as pl
import pytest

from apt_assets.engine.execute import run_stage
from apt_assets.landing.chunks import Chunk
from apt_assets.landing.records import sort_out
from apt_assets.method import counterfactual
from apt_assets.method.domain import build_domain
from apt_assets.method.golds import further
from apt_assets.method.pairing import build_pairs
from apt_assets.method.splits import row_id
from apt_assets.project import Project
from apt_assets.rows.grades import grade_keys
from resources.assessors import Row, Ungradable
from resources.assessors.exact import ExactMatch
from resources.assessors.labels import LabelMatch, labels_of
from resources.assessors.numeric import Numeric
from resources.assessors.overlap import TextOverlap
from resources.assessors.rubric import build_prompt, is_exact
from resources.assessors.set_f1 import SetF1
from resources.model.policy import load_policy
from resources.store.digest import digest_rows
from resources.store.tables import read_table
from schemas.tables import TABLES
from tests import tiny

THRESHOLDS = (0.25, 0.5, 0.85, 1.0)
LABELS = LabelMatch(labels_of(["red", "crimson", "blue"]))
NUMERIC = Numeric(0.01, 0.0, "convert")


def table(name, *rows):
    return pl.DataFrame(rows, schema=TABLES[name].empty().schema, orient="row")


def domain_of(*records, **more):
    """The tables of records, each of which is a chunk, so that their order can be changed."""
    records = [{"prompt": "Colour of a cherry?", "split": "train", **record} for record in records]
    parts = [sort_out("f", Chunk([n], [b""], [record])) for n, record in enumerate(records, 1)]
    return build_domain(parts, 0.1, 0.1, more.get("near"))


# -- grades ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("assessor", "gold", "also", "said", "grade"),
    [
        (LABELS, "red", ("crimson",), "crimson", 5),
        (LABELS, "red", ("crimson",), "Crimson!", 4),
        (LABELS, "red", ("crimson",), "red, or crimson", 4),
        (LABELS, "red", ("crimson",), "crimson or blue", 3),
        (LABELS, "red", ("crimson",), "blue", 2),
        (LABELS, "red", (), "red, or crimson", 3),
        (ExactMatch(), "red", ("deep red",), "Deep red.", 5),
        (ExactMatch(), "red", ("deep red",), "deep", 1),
        (NUMERIC, "five", ("5", "5.0 kg"), "It is 5", 5),
        (NUMERIC, "3 m", ("7 m",), "7 m", 5),
        (NUMERIC, "3 m", ("7 m",), "3 m or 7 m", 3),
        (SetF1("[,;]", THRESHOLDS), "red, blue", ("crimson, navy",), "navy; crimson", 5),
        (SetF1("[,;]", THRESHOLDS), "red, blue", ("crimson, navy",), "red, navy", 3),
        (TextOverlap("rouge_l", THRESHOLDS), "it is red", ("the fruit is crimson",), "the fruit is crimson", 5),
    ],
)
def test_answer_is_as_good_as_by_the_best_of_the_right_ones(assessor, gold, also, said, grade):
    assert assessor.grade([Row("Which?", said, gold, also)])[0].grade == grade


def test_row_without_any_gold_that_can_be_graded_is_told():
    with pytest.raises(Ungradable, match="must hold one number"):
        NUMERIC.grade([Row("How many?", "5", "five", ("V",))])


def test_model_that_grades_by_a_rubric_reads_all_right_answers_and_one_alone_as_before():
    one, two = (build_prompt(Row("Which?", "blue", "red", also), "Grade it.") for also in ((), ("crimson",)))
    assert "Correct answer:\nred\n\nThe answer to grade" in one.text
    assert "Correct answer:\nred\n\nAlso correct:\ncrimson\n\nThe answer to grade" in two.text
    assert is_exact(Row("Which?", "Crimson.", "red", ("crimson",)))
    assert not is_exact(Row("Which?", "blue", "red", ("crimson",)))


def test_key_of_a_grade_holds_all_right_answers_and_of_one_alone_is_as_it_was():
    rows = [("q", "red", None, "blue"), ("q", "red", '["crimson"]', "blue"), ("q", "red", '["ruby"]', "blue")]
    answered = pl.DataFrame(rows, schema=["prompt", "answer", "also", "prediction"], orient="row")
    keys = grade_keys(answered)
    assert len(set(keys)) == 3
    assert keys[:1] == digest_rows(["q"], ["red"], ["blue"], digits=32)


# -- the data set ----------------------------------------------------------------------------------------


def test_first_answer_is_learned_and_the_others_are_right_as_well_in_whatever_order():
    tables = domain_of({"answer": ["red", "ruby", "crimson"]}, {"answer": ["red", "crimson", "ruby", "red"]})
    assert tables["train"].rows() == [
        (row_id("Colour of a cherry?"), "Colour of a cherry?", "red", '["crimson", "ruby"]')
    ]
    assert tables["quarantine"].is_empty()
    assert further(tables["train"]["also"][0]) == ("crimson", "ruby")


@pytest.mark.parametrize("other", ["red", ["crimson", "red"], ["red", "ruby"]])
def test_same_question_with_other_right_answers_contradicts(other):
    for records in (
        ({"answer": ["red", "crimson"]}, {"answer": other}),
        ({"answer": other}, {"answer": ["red", "crimson"]}),
    ):
        tables = domain_of(*records)
        assert tables["train"].height == 1
        (reason,) = tables["quarantine"]["reason"]
        golds = " or ".join((tables["train"]["answer"][0], *further(tables["train"]["also"][0])))
        assert reason == f"contradicts f: Colour of a cherry? -> {golds}"


def test_training_row_that_shares_one_of_several_answers_with_a_near_held_out_one_leaves():
    prompt = "Which colour has a ripe cherry in {}?"
    records = [
        {"prompt": prompt.format("May"), "answer": ["red", "crimson"]},
        {"prompt": prompt.format("June"), "answer": ["ruby", "crimson"], "split": "test"},
        {"prompt": prompt.format("July"), "answer": ["dark", "black"]},
    ]
    tables = domain_of(*records, near=5)
    assert tables["train"]["prompt"].to_list() == [prompt.format("July")]
    assert "is within a word of a test row" in tables["quarantine"]["reason"][0]
    assert tables["quarantine"].height == 1


def test_given_rejected_answers_are_those_of_training_rows_with_the_same_right_ones():
    records = [
        {"answer": "red", "rejected": "blue"},
        {"answer": "red"},
        {"prompt": "Held out?", "answer": "yes", "rejected": "no", "split": "test"},
        {"prompt": "Sky?", "answer": ["blue", "azure"], "rejected": "azure"},
    ]
    for order in (records, records[::-1]):
        tables = domain_of(*order)
        assert tables["rejected_answers"].rows() == [(row_id("Colour of a cherry?"), "blue")]
        assert tables["quarantine"].is_empty()


# -- pairs -----------------------------------------------------------------------------------------------


def pairs_with(given=None, counterfactuals=None):
    cases = [
        (row_id("own"), "own", "red", '["crimson"]', "blue", 1, False),
        (row_id("right as well"), "right as well", "red", '["crimson"]', "crimson", 2, False),
    ]
    near = (row_id("near"), "near", "red", '["crimson"]', "red", 5, True)
    return build_pairs(
        table("bad_cases", *cases),
        table("eval_predictions", *cases),
        table("neighbors", (row_id("near"), cases[0][0], 1, 0.9, "near", "red", '["crimson"]')),
        table("eval_predictions", near),
        bad_below=4,
        replay_share=0.0,
        given=given,
        counterfactuals=counterfactuals,
    )


def test_what_is_rejected_is_never_one_of_the_right_answers_whatever_grade_it_got():
    made = pl.DataFrame({"row_id": [row_id("near")], "rejected": ["crimson"], "grade": [1]}).cast({"grade": pl.Int8})
    assert pairs_with(counterfactuals=made).select("prompt", "rejected").rows() == [("own", "blue")]


def test_given_answer_is_rejected_without_a_grade_where_the_policy_was_wrong():
    given = table("rejected_answers", (row_id("own"), "green"), (row_id("near"), "green"))
    pairs = pairs_with(given=given)
    assert pairs.select("prompt", "kind", "rejected", "grade").rows() == [("own", "bad_case", "green", None)]


def test_given_answer_that_is_right_makes_no_pair():
    given = table("rejected_answers", (row_id("own"), "crimson"))
    assert pairs_with(given=given).is_empty()


def test_made_up_wrong_answer_is_none_of_the_right_ones():
    spelt = {label: label for label in ("red", "crimson", "blue", "green")}
    texts = [
        counterfactual.other_labels(
            "r", "red", {"": ["crimson", "blue"]}, counterfactual.ring_of(spelt), spelt, ["Crimson"]
        ),
        counterfactual.other_golds("r", "red", counterfactual.by_length([*spelt, "Crimson"]), ["crimson"]),
        counterfactual.other_items(
            "r",
            "red, blue",
            counterfactual.items_of(["red, blue", "navy, crimson", "green"], ","),
            ",",
            ["navy, crimson"],
        ),
        counterfactual.other_numbers("r", "5 kg", [], ["50 kg", "0.5 kg"]),
    ]
    assert texts[0][0] == "blue"
    assert all(one for one in texts)
    said = {text.casefold() for its in texts for text in its}
    assert not said & {"red", "crimson", "50 kg", "0.5 kg"}
    assert not any("navy" in text or "crimson" in text for text in said)


def test_try_that_hits_another_right_answer_goes_on_to_the_next_one():
    rows = pl.DataFrame({"row_id": ["a"], "prompt": ["?"], "answer": ["red"], "also": ['["crimson"]']})
    tries = ["crimson", "blue", "green", "grey"]
    found = counterfactual.first_wrong(
        rows, lambda left, n: [tries[n]] * left.height, lambda left: [1] * left.height, 4
    )
    assert found.rows() == [("a", "blue", 1)]


# -- in the loop -----------------------------------------------------------------------------------------


def test_policy_that_gives_another_right_answer_has_no_bad_case(make_experiment, tmp_path, talker):
    prompts = [f"Colour of thing {n}?" for n in range(12)]
    said = tiny.answers(load_policy(talker, dtype="float32"), prompts, max_new_tokens=4, batch_tokens=1024)
    rows = [
        {"prompt": prompt, "answer": ["something else", text], "split": "train"}
        for prompt, text in zip(prompts, said, strict=True)
    ]
    rows[0]["answer"] = "something else"
    tiny.write_jsonl(tmp_path / "landing" / "colours.jsonl", rows)
    project = Project.open(make_experiment(policy={"model": str(talker)}, mining={"questions": None}))
    project.open_iteration("0001")
    for stage in ("domain_dataset", "policy", "eval_predictions", "bad_cases"):
        outcome = run_stage(project, "0001", stage, run_id="r")
    cases = read_table(project.store.open(outcome.manifest) / "bad_cases.parquet")
    assert cases["prompt"].to_list() == prompts[:1]
