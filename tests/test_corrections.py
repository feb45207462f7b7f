"""What people decided about rows: in files of their own, applied to the rows they were taken on and to no others."""

import json
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from apt_assets.engine.execute import run_stage
from apt_assets.landing.land import land_files
from apt_assets.landing.names import is_corrections, new_name
from apt_assets.landing.records import contents_of, read_landed
from apt_assets.method.corrections import taken_on
from apt_assets.method.domain import build_domain
from apt_assets.method.left_out import in_words, left_out
from apt_assets.method.splits import row_id
from apt_assets.project import Project
from apt_assets.report.show import rows_of
from apt_assets.settings.experiment import UsageError
from resources.model.policy import load_policy
from resources.store.tables import read_table
from schemas.tables import TABLES
from tests import tiny

START = datetime(2026, 11, 29, 12, tzinfo=UTC)
FILE = new_name(START)


def decision(prompt, kind, answer=None, *, on=("red", None), after=0, by="Anna", **more):
    row = None if on is None else taken_on(prompt, *on)
    at = (START + timedelta(seconds=after)).isoformat()
    return {"prompt": prompt, "decision": kind, "answer": answer, "row": row, "by": by, "at": at, **more}


@pytest.fixture
def domain(tmp_path):
    """A function (rows, *decisions) -> the tables of a data set of all of them, each checked against its schema."""

    def build(rows, *decisions, ungradable=None, **files):
        named = {
            "rows.jsonl": rows,
            FILE: decisions,
            **{name.replace("_", "-") + ".jsonl": it for name, it in files.items()},
        }
        paths = [tiny.write_jsonl(tmp_path / name, content) for name, content in sorted(named.items())]
        parts = [part for path in paths for part in read_landed(path)]
        tables = build_domain(parts, 0.0, 0.0, None, ungradable)
        tables["counts"] = left_out(
            tables["quarantine"], sum(part.rows.height for part in parts), tables["train"].height
        )
        return {name: TABLES[name].validate(table) if name in TABLES else table for name, table in tables.items()}

    return build


def rows_in(tables):
    return sorted(tables["train"].select("prompt", "answer", "also").rows())


ROWS = [{"prompt": "Cherry?", "answer": "red"}, {"prompt": "Sky?", "answer": "red"}]


def test_decisions_change_their_rows_and_no_others(domain):
    tables = domain(
        [*ROWS, {"prompt": "Plum?", "answer": "red"}, {"prompt": "Coal?", "answer": "red"}],
        decision("Sky?", "both_wrong", "blue"),
        decision("Plum?", "answer_is_right_too", "purple"),
        decision("Coal?", "leave_out"),
        decision("Cherry?", "gold_is_right"),
    )
    assert rows_in(tables) == [("Cherry?", "red", None), ("Plum?", "red", '["purple"]'), ("Sky?", "blue", None)]
    assert tables["quarantine"].select("file", "field", "reason", "raw").rows() == [
        ("rows.jsonl", None, "left out by Anna on 2026-11-29", "Coal? -> red")
    ]
    found = tables["corrections"].select("decision", "landed_answer", "by", "at", "file").rows()
    at = "2026-11-29T12:00:00.000000+00:00"
    kinds = ("both_wrong", "answer_is_right_too", "gold_is_right")
    assert sorted(found) == sorted((kind, "red", "Anna", at, FILE) for kind in kinds)
    assert list(in_words(tables["counts"])) == ["1 row left out: left out in review"]


def test_of_two_decisions_on_a_row_the_last_one_holds_whichever_stands_first_in_the_file(domain):
    early, late = decision("Sky?", "both_wrong", "blue"), decision("Sky?", "leave_out", after=1, by="Ben")
    for lines in ([early, late], [late, early]):
        assert rows_in(domain(ROWS, *lines)) == [("Cherry?", "red", None)]
    again = decision("Sky?", "gold_is_right", after=2)
    assert rows_in(domain(ROWS, late, again, early)) == [("Cherry?", "red", None), ("Sky?", "red", None)]


def test_decision_on_what_an_earlier_one_made_goes_on_from_there_and_falls_with_it(domain):
    first = decision("Sky?", "both_wrong", "blue")
    second = decision("Sky?", "answer_is_right_too", "azure", on=("blue", None), after=1)
    assert ("Sky?", "blue", '["azure"]') in rows_in(domain(ROWS, first, second))
    undone = decision("Sky?", "undo", after=2)
    tables = domain(ROWS, first, second, undone)
    assert rows_in(tables) == [("Cherry?", "red", None), ("Sky?", "red", None)]
    assert tables["corrections"].is_empty()
    assert tables["quarantine"].is_empty()


def made(prompt, answer, *, after, by="Anna"):
    return decision(prompt, "new_row", answer, on=(answer, None), after=after, by=by)


def test_asked_question_that_is_not_to_land_after_all_leaves_no_row_whatever_was_typed_before(domain):
    white, grey = made("Moon?", "white", after=0), made("Moon?", "grey", after=1)
    none = decision("Moon?", "no_row", on=None, after=2, by="Ben")
    tables = domain(ROWS, white, grey)
    assert ("Moon?", "grey", None) in rows_in(tables)
    assert ("Moon?", "white", None) not in rows_in(tables)
    for lines in ([white, grey, none], [none, white, grey]):
        tables = domain(ROWS, *lines)
        assert rows_in(tables) == [("Cherry?", "red", None), ("Sky?", "red", None)]
        assert tables["corrections"].is_empty()
        assert set(tables["quarantine"]["reason"]) == {"left out by Ben on 2026-11-29"}
    assert ("Moon?", "white", None) in rows_in(domain(ROWS, white, none, made("Moon?", "white", after=3)))


def test_no_row_of_an_asked_question_leaves_rows_of_other_files_as_they_are(domain):
    none = decision("sky", "no_row", on=None, after=2)
    assert rows_in(domain(ROWS, none)) == [("Cherry?", "red", None), ("Sky?", "red", None)]
    also_made = domain(ROWS, made("Sky?", "red", after=0), none)
    assert rows_in(also_made) == [("Cherry?", "red", None), ("Sky?", "red", None)]


def test_decision_whose_row_is_gone_or_has_another_gold_is_reported_and_not_applied(domain):
    tables = domain(ROWS, decision("Moon?", "leave_out"), decision("Sky?", "both_wrong", "blue", on=("grey", None)))
    assert rows_in(tables) == [("Cherry?", "red", None), ("Sky?", "red", None)]
    reasons = tables["quarantine"].select("file", "field", "reason", "raw").rows()
    why = "a decision that does not apply: its row"
    assert sorted(reasons) == [
        (FILE, "decision", f"{why} has other golds by now: both wrong, by Anna on 2026-11-29", "Sky? -> blue"),
        (FILE, "decision", f"{why} is not there any more: leave out, by Anna on 2026-11-29", "Moon?"),
    ]
    assert list(in_words(tables["counts"])) == ["2 decisions not applied: its row is gone or has other golds by now"]


def test_decision_holds_for_every_copy_of_its_row_and_goes_before_rows_that_contradict_it(domain):
    tables = domain(
        ROWS,
        decision("SKY!", "both_wrong", "blue"),
        a_first=[{"prompt": "Sky?", "answer": "grey"}],
        z_last=[{"prompt": "sky", "answer": "red"}],
    )
    assert rows_in(tables) == [("Cherry?", "red", None), ("Sky?", "blue", None)]
    (other,) = tables["quarantine"].rows(named=True)
    assert (other["file"], other["raw"]) == ("a-first.jsonl", "Sky? -> grey")
    assert other["reason"].startswith("contradicts ")
    assert (
        domain(ROWS, decision("Sky?", "leave_out"), a_first=[{"prompt": "Sky?", "answer": "grey"}])["train"].height == 1
    )


def test_wrong_answer_that_came_with_a_row_is_not_rejected_once_people_say_that_it_is_right(domain):
    rows = [{"prompt": "Plum?", "answer": "red", "rejected": "purple"}, *ROWS]
    assert domain(rows)["rejected_answers"]["rejected"].to_list() == ["purple"]
    assert domain(rows, decision("Plum?", "answer_is_right_too", "purple"))["rejected_answers"].is_empty()
    assert domain(rows, decision("Plum?", "both_wrong", "purple"))["rejected_answers"].is_empty()


def test_typed_gold_that_the_assessor_cannot_grade_is_quarantined_as_any_other(domain):
    def ungradable(answer):
        return "cannot be graded by exact: no letter" if answer == "?" else None

    tables = domain(ROWS, decision("Sky?", "both_wrong", "?"), ungradable=ungradable)
    assert rows_in(tables) == [("Cherry?", "red", None)]
    assert tables["quarantine"]["reason"].to_list() == ["cannot be graded by exact: no letter"]
    assert tables["corrections"].is_empty()


def test_asked_question_that_people_answered_is_a_row_until_it_is_taken_back(domain):
    landed = decision("Moon?", "new_row", "white", on=("white", None))
    tables = domain(ROWS, landed, decision("Spam", "no_row", on=None))
    assert ("Moon?", "white", None) in rows_in(tables)
    assert tables["quarantine"].is_empty()
    assert tables["provenance"].filter(pl.col("row_id") == row_id("Moon?"))["file"].to_list() == [FILE]
    back = decision("Moon?", "undo", on=("white", None), after=1)
    tables = domain(ROWS, landed, back)
    assert rows_in(tables) == [("Cherry?", "red", None), ("Sky?", "red", None)]
    assert tables["quarantine"]["reason"].to_list() == ["left out by Anna on 2026-11-29"]
    assert ("Moon?", "white", None) in rows_in(domain(ROWS, landed, back, {**landed, "at": "2026-11-29T13:00:00Z"}))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"decision": "maybe"}, "decision"),
        ({"row": "short"}, "row"),
        ({"by": " "}, "by"),
        ({"at": "yesterday"}, "at"),
        ({"at": "2026-11-29T12:00:00"}, "at"),
        ({"answer": None}, "answer"),
        ({"answer": "nul \x00"}, "answer"),
        ({"prompt": 3}, "prompt"),
    ],
)
def test_line_that_is_no_decision_costs_itself_alone_and_says_why(domain, change, field):
    tables = domain(ROWS, {**decision("Sky?", "both_wrong", "blue"), **change}, decision("Cherry?", "leave_out"))
    assert rows_in(tables) == [("Sky?", "red", None)]
    assert field in tables["quarantine"].filter(pl.col("file") == FILE)["field"].to_list()


def test_file_with_a_half_written_last_line_keeps_the_others(tmp_path):
    path = tiny.write_jsonl(tmp_path / FILE, [decision("Sky?", "leave_out")])
    path.write_text(path.read_text() + '{"prompt": "Cher')
    found = contents_of(path)
    assert (found.rows, [bad.line for bad in found.rejects]) == (1, [2])


def test_file_says_as_much_as_its_decisions_that_stand(tmp_path):
    lines = [decision("Sky?", "leave_out"), decision("Sky?", "undo", after=1), decision("Spam", "no_row", on=None)]
    path = tiny.write_jsonl(tmp_path / FILE, lines)
    assert contents_of(path).rows == 0, "so that no iteration is opened for it"
    path = tiny.write_jsonl(tmp_path / FILE, [lines[1], *lines[2:]])
    assert contents_of(path).rows == 1, "it takes back what another file says"


def test_file_of_corrections_is_told_from_rows_and_never_lands_as_such(tmp_path):
    assert is_corrections(FILE)
    assert is_corrections(new_name(START, 2))
    rows = tiny.write_jsonl(tmp_path / "corrections.jsonl", ROWS)
    (report,) = land_files([rows], tmp_path / "landing")
    assert not is_corrections(report["landed"])
    with pytest.raises(UsageError, match="review --import"):
        land_files([tiny.write_jsonl(tmp_path / FILE, [decision("Sky?", "leave_out")])], tmp_path / "landing")


# -- in the loop ---------------------------------------------------------------------------------------

STAGES = (
    "domain_dataset", "retrieval_index", "policy", "eval_predictions", "bad_cases", "neighbors", "similar_predictions",
    "doubtful_golds", "preference_pairs",
)  # fmt: skip


@pytest.fixture
def mined(make_experiment, tmp_path, talker):
    """A project whose policy answers a third of 60 questions otherwise than their golds have it, computed up to its
    pairs; and a function that computes again and returns the outcomes by stage."""
    prompts = [f"Colour of thing {n}?" for n in range(60)]
    policy = load_policy(talker, dtype="float32")
    said = tiny.answers(policy, prompts, max_new_tokens=4, batch_tokens=1024)
    golds = [text if n % 3 else next(one for one in said if one != text) for n, text in enumerate(said)]
    rows = [{"prompt": prompt, "answer": gold} for prompt, gold in zip(prompts, golds, strict=True)]
    tiny.write_jsonl(tmp_path / "landing" / "things.jsonl", rows)
    experiment = make_experiment(
        policy={"model": str(talker)}, retrieval={"per_case": 1}, mining={"questions": None}, assessor={"kind": "exact"}
    )

    def compute():
        project = Project.open(experiment)
        project.open_iteration("0001", anew=True)
        return {name: run_stage(project, "0001", name, run_id="r", log=lambda line: None) for name in STAGES}

    project = Project.open(experiment)

    def read(outcomes, stage, file=None):
        return read_table(project.store.open(outcomes[stage].manifest) / f"{file or stage}.parquet")

    return project, compute, read


def test_correction_grades_the_row_that_it_touches_anew_and_answers_nothing(mined):
    project, compute, read = mined
    before = compute()
    bad = read(before, "bad_cases")
    wrong, right, out, sure = bad.head(4).rows(named=True)

    def about(case, kind, answer=None):
        return decision(case["prompt"], kind, answer, on=(case["answer"], case["also"]))

    tiny.write_jsonl(
        project.landing / FILE,
        [
            about(wrong, "both_wrong", "zzz"),
            about(right, "answer_is_right_too", right["prediction"]),
            about(out, "leave_out"),
            about(sure, "gold_is_right"),
        ],
    )
    after = compute()
    work = {name: after[name].manifest.work for name in ("eval_predictions", "retrieval_index")}
    asked = read(before, "eval_predictions").height - 1
    assert after["eval_predictions"].status == "computed"
    assert work["eval_predictions"]["answers"] == {"reused": asked, "computed": 0}
    assert work["eval_predictions"]["grades"] == {"reused": asked - 2, "computed": 2}
    assert work["retrieval_index"]["embeddings"]["computed"] == 0
    now = set(read(after, "bad_cases")["row_id"])
    assert now == set(bad["row_id"]) - {right["row_id"], out["row_id"]}
    doubtful = set(read(after, "doubtful_golds", "doubtful")["row_id"])
    assert doubtful.isdisjoint({wrong["row_id"], sure["row_id"]}), "what people decided on is beyond doubt"
    assert doubtful >= now - {wrong["row_id"], sure["row_id"]}
    pairs = read(after, "preference_pairs")
    assert pairs.filter(pl.col("row_id") == wrong["row_id"])["chosen"].to_list() == ["zzz"]
    assert set(pairs["row_id"]).isdisjoint({out["row_id"]})
    columns, rows, _ = rows_of(project, "quarantine", "1", 10)
    (row,) = [dict(zip(columns, row, strict=True)) for row in rows]
    assert (row["file"], row["reason"]) == ("things.jsonl", "left out by Anna on 2026-11-29")
    assert row["line"] > 0


def test_decisions_that_only_confirm_compute_no_answer_grade_or_vector(mined):
    project, compute, read = mined
    before = compute()
    case = read(before, "bad_cases").row(0, named=True)
    line = decision(case["prompt"], "gold_is_right", on=(case["answer"], None))
    tiny.write_jsonl(project.landing / FILE, [line, decision("Gone?", "leave_out")])
    after = compute()
    computed = [name for name, outcome in after.items() if outcome.status == "computed"]
    assert computed[:2] == ["domain_dataset", "doubtful_golds"]
    assert set(computed) <= {"domain_dataset", "doubtful_golds", "preference_pairs"}
    assert after["doubtful_golds"].manifest.work.get("likelihoods", {}).get("computed", 0) == 0
    assert json.dumps(after["domain_dataset"].manifest.facts["left_out"]).count("not applied") == 0
    columns, rows, _ = rows_of(project, "quarantine", "1", 10)
    (row,) = [dict(zip(columns, row, strict=True)) for row in rows]
    assert (row["file"], row["line"], row["field"]) == (FILE, 2, "decision")
