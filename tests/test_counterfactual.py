"""Wrong answers to similar cases that were answered right: how they are made, and what the loop does with them."""

import polars as pl
import pytest

import apt_assets.assets.order  # noqa: F401 - declares the stages
from apt_assets.engine.execute import run_stage
from apt_assets.engine.stage import STAGES
from apt_assets.loop.work import work_of
from apt_assets.method.counterfactual import (
    TRIES,
    behind,
    by_length,
    confusions,
    first_wrong,
    items_of,
    other_golds,
    other_items,
    other_labels,
    other_numbers,
    ring_of,
    shift_point,
    spellings,
    units_of,
)
from apt_assets.project import Project
from apt_assets.settings.experiment import UsageError
from apt_assets.settings.reader import load_experiment
from resources.assessors import Row
from resources.assessors.numeric import NUMBER, Numeric
from resources.assessors.set_f1 import SetF1
from resources.model.policy import load_policy
from resources.store.tables import read_table
from tests import tiny
from tests.test_code import assert_in_closure, traced

# -- by hash -------------------------------------------------------------------------------------


def test_one_text_more_changes_the_choice_of_few_rows():
    texts = [f"text {n}" for n in range(50)]
    before, after = ring_of(texts), ring_of([*texts, "one more"])
    rows = [f"row {n}" for n in range(500)]
    chosen = [(next(behind(before, row)), next(behind(after, row))) for row in rows]
    assert {new for old, new in chosen if old != new} <= {"one more"}
    assert len({old for old, _ in chosen}) > 20, "different rows take different texts"
    assert sorted(behind(before, "row")) == sorted(texts)


# -- labels --------------------------------------------------------------------------------------


def predictions(*rows):
    columns = ("answer", "prediction", "grade")
    return pl.DataFrame(rows, schema=dict(zip(columns, (pl.String, pl.String, pl.Int8), strict=True)), orient="row")


def labels_for(gold, *rows, row="row"):
    golds = ["Eye", "Ear", "ear", "Ear", "Nose", "Throat"]
    labels = ["ear", "eye", "nose", "throat"]
    confused = confusions(predictions(*rows), labels, 4)
    return other_labels(row, gold, confused, ring_of(labels), spellings(golds))


def test_wrong_label_is_the_one_this_gold_is_most_often_confused_with_written_as_golds_are():
    rows = [("Eye", "nose", 2), ("eye", "EAR", 2), ("Eye", "ear.", 2), ("Nose", "throat", 2), ("Eye", "who knows", 1)]
    assert labels_for("Eye", *rows)[:2] == ["Ear", "Nose"]


def test_gold_that_is_not_confused_gets_the_label_that_is_given_wrongly_most_often():
    rows = [("Eye", "nose", 2), ("Ear", "nose", 2), ("Eye", "ear", 2), ("Throat", "Throat", 5), ("Throat", "nose", 4)]
    assert labels_for("Throat", *rows)[:2] == ["Nose", "Ear"]
    assert labels_for("Nose", *rows)[0] == "Ear", "never the gold itself"


def test_label_is_chosen_by_hash_where_nothing_was_confused():
    found = {row: labels_for("Eye", row=row) for row in "abcdefgh"}
    assert all(sorted(its) == ["Ear", "Nose", "Throat"] for its in found.values())
    assert len({its[0] for its in found.values()}) > 1


# -- numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("digits", "up", "down"),
    [("1,500", "15,000", "150"), ("1.5", "15", "0.15"), ("1,5", "15", "0,15"), ("10", "100", "1"), ("7", "70", "0.7"),
     ("1.50", "15.0", "0.150"), ("12,345.5", "123,455", "1,234.55")],
)  # fmt: skip
def test_shifted_point_keeps_the_form_of_the_number(digits, up, down):
    assert (shift_point(digits, 1), shift_point(digits, -1)) == (up, down)


@pytest.mark.parametrize(
    "gold", ["1,500 mg", "-5 °C", "12 apples", "about 3.2 kg", "0", "1.5e3 m", "5 %", "1,5 L", "\uff15 g"]
)
@pytest.mark.parametrize("units", ["convert", "same"])
def test_changed_numbers_are_graded_bad_and_differ_in_one_place(gold, units):
    of_golds = units_of(["5 mg", "3 kg", "2 s", "7 words", "20 °F", "1 mL"])
    assessor = Numeric(0.01, 0.0, units)
    for row in "abcdefgh":
        texts = other_numbers(row, gold, of_golds)
        assert texts == other_numbers(row, gold, of_golds)
        assert 0 < len(texts) == len(set(texts)) <= TRIES
        for text in texts:
            assert assessor.grade_row(Row("How much?", text, gold)).grade < 4, text
            assert text[: NUMBER.search(text).start()] == gold[: NUMBER.search(gold).start()]


def test_other_unit_is_one_of_the_golds_and_first_one_of_the_same_measure():
    texts = {text for row in "abcdefgh" for text in other_numbers(row, "8 kg", units_of(["5 mg", "2 s", "7 words"]))}
    assert "8 mg" in texts
    assert not {"8 s", "8 words"} & texts


@pytest.mark.parametrize(
    ("gold", "others", "same"),
    [
        ("20 °C", {"20 °F", "20 K"}, set()),
        ("300 K", {"300 °C", "300 °F"}, set()),
        ("5 °C/min", {"5 °F/min"}, {"5 K/min"}),
    ],
)
def test_temperature_in_another_unit_is_wrong_but_a_rate_in_kelvins_is_the_same(gold, others, same):
    of_golds = units_of(["1 °C", "1 °F", "1 K", "1 °C/min", "1 °F/min", "1 K/min", "5 mg"])
    texts = {text for row in range(40) for text in other_numbers(str(row), gold, of_golds)}
    assert others <= texts
    assert not same & texts
    assert not {f"{gold.split()[0]} mg"} & texts
    assert max(one.grade for one in Numeric(0.01, 0.0, "convert").grade([Row("", text, gold) for text in texts])) < 4


def test_rows_differ_in_what_is_changed_first():
    firsts = {other_numbers(str(n), "8 kg", units_of(["5 mg"]))[0] for n in range(40)}
    assert {"80 kg", "0.8 kg", "8 mg"} < firsts


def test_gold_without_a_number_has_no_wrong_number():
    assert other_numbers("row", "none", []) == []


# -- lists ---------------------------------------------------------------------------------------

SEPARATOR = r"[,;\n]"


def items(gold, *others, row="row"):
    return other_items(row, gold, items_of([gold, *others], SEPARATOR), SEPARATOR)


def test_wrong_field_value_is_one_of_the_same_field():
    texts = items("name: Ann, city: Leeds", "name: Bob, city: York", "plain, items")
    assert texts[0] in ("name: Bob, city: Leeds", "name: Ann, city: York")
    assert texts[1:] == ["name: Bob, city: York"]


def test_item_without_a_field_is_replaced_by_one_without_where_it_stands():
    texts = items("Colours:\n- red\n- blue.", "Colours:\n- green", "name: Bob")
    assert texts[0] in ("Colours:\n- green\n- blue.", "Colours:\n- red\n- green.")


def test_more_items_of_a_long_list_are_replaced_until_it_is_bad():
    gold = ", ".join(f"item {n}" for n in range(20))
    texts = items(gold, ", ".join(f"other {n}" for n in range(20)))
    assert [text.count("other") for text in texts] == [1, 2, 4, 8]
    assessor = SetF1(SEPARATOR, [0.25, 0.5, 0.85, 1.0])
    assert [assessor.grade_row(Row("?", text, gold)).grade for text in texts] == [4, 4, 3, 3]


def test_list_of_all_items_there_are_has_no_wrong_item():
    assert items("red, blue", "Blue") == []


# -- texts ---------------------------------------------------------------------------------------


def test_other_gold_is_nearest_in_length_and_says_something_else():
    golds = ["J45.1", "j45.1", "J45.9", "K", "a much longer one", "M54.50"]
    texts = other_golds("row", "J45.1", by_length(golds))
    assert texts[:2] == ["J45.9", "M54.50"]
    assert len(texts) == TRIES
    of_one_length = [f"{n:03}" for n in range(100)]
    assert len({other_golds(str(n), "abc", by_length(of_one_length))[0] for n in range(20)}) > 10


# -- the first that is wrong ---------------------------------------------------------------------


def test_row_takes_its_first_bad_answer_and_stops_there():
    rows = pl.DataFrame(
        {"row_id": ["a", "b", "c", "d"], "prompt": ["?"] * 4, "answer": ["x"] * 4, "also": [None] * 4},
        schema_overrides={"also": pl.String},
    )
    bad_at = {"a": 0, "b": 2, "c": 9, "d": 9}
    asked = []

    def propose(left, attempt):
        asked.append("".join(left["row_id"]))
        return [None if row == "d" and attempt == 1 else f"{row}{attempt}" for row in left["row_id"]]

    def grade(left):
        return [2 if bad_at[said[0]] <= int(said[1]) else 5 for said in left["rejected"]]

    assert first_wrong(rows, propose, grade, 4).rows() == [("a", "a0", 2), ("b", "b2", 2)]
    assert asked == ["abcd", "bcd", "bc", "c"]


# -- in the loop ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def policy(talker):
    return load_policy(talker, dtype="float32")


BEFORE = (
    "domain_dataset", "retrieval_index", "policy", "eval_predictions", "bad_cases", "neighbors",
    "similar_predictions", "doubtful_golds",
)  # fmt: skip


@pytest.fixture
def pairs_of(make_experiment, tmp_path, talker, policy):
    """A function (**sections) -> Made, in one store. The policy answers two thirds of the questions right."""
    prompts = [f"Colour of thing {n}?" for n in range(60)]
    said = tiny.answers(policy, prompts, max_new_tokens=4, batch_tokens=1024)
    golds = [said[n] if n % 3 else next(one for one in said[n:] + said if one != said[n]) for n in range(60)]
    rows = [{"prompt": prompt, "answer": gold} for prompt, gold in zip(prompts, golds, strict=True)]
    for row in rows[::2]:
        row["rejected"] = f"not {row['answer']}"
    tiny.write_jsonl(tmp_path / "landing" / "colours.jsonl", rows)

    def run(**sections):
        sections["policy"] = {"model": str(talker), **sections.get("policy", {})}
        sections["retrieval"] = {"per_case": 3, **sections.get("retrieval", {})}
        return Made(Project.open(make_experiment(**sections)))

    return run


class Made:
    """The pairs of iteration 0001, what its stages did, and what the plan said of the last one."""

    def __init__(self, project):
        project.open_iteration("0001")
        self.project, self.outcomes = project, {}
        for name in BEFORE:
            self.outcomes[name] = run_stage(project, "0001", name, run_id="r")
        planner = project.planner()
        self.planned = work_of(project, planner, planner.stage("0001", "preference_pairs")).amounts
        self.outcomes["preference_pairs"] = run_stage(project, "0001", "preference_pairs", run_id="r")
        self.work = self.outcomes["preference_pairs"].manifest.work
        self.pairs = self.read("preference_pairs")

    def read(self, stage, file=None):
        return read_table(self.project.store.open(self.outcomes[stage].manifest) / f"{file or stage}.parquet")

    def kind(self, kind):
        return self.pairs.filter(pl.col("kind") == kind)


def test_similar_cases_answered_right_are_replay_without_counterfactuals(pairs_of):
    made = pairs_of(pairs={"replay_share": 9.0})
    assert set(made.pairs["kind"]) == {"bad_case", "similar", "replay"}
    assert made.kind("replay").join(made.read("neighbors"), on="row_id", how="semi").height > 0


@pytest.mark.parametrize("kind", ["labels", "exact", "set_f1", "overlap", "combined"])
def test_similar_cases_answered_right_get_a_bad_answer_to_reject(pairs_of, kind):
    assessor = {"kind": kind, "combined": {"weights": {"labels": 1, "overlap": 2}}}
    plain = pairs_of(assessor=assessor, pairs={"replay_share": 9.0})
    made = pairs_of(assessor=assessor, pairs={"replay_share": 9.0, "counterfactual": "perturbed"})
    new = made.kind("counterfactual")
    similar_and_right = plain.kind("replay").join(made.read("neighbors"), on="row_id", how="semi")
    assert new.height > 0
    assert sorted(new["row_id"]) == sorted(similar_and_right["row_id"]), "and none of them is replay as well"
    assert new["grade"].max() < 4
    assert (new["chosen"] != new["rejected"]).all()
    assert set(new["rejected"]) <= set(made.read("domain_dataset", "train")["answer"])
    assert list(dict.fromkeys(made.pairs["kind"])) == ["bad_case", "similar", "counterfactual", "replay"]
    others = pl.col("kind").is_in(["bad_case", "similar"])
    assert made.pairs.filter(others).equals(plain.pairs.filter(others))


def test_given_rejected_answers_take_the_place_of_the_policys_own_and_of_made_up_ones(pairs_of):
    own = pairs_of(pairs={"counterfactual": "perturbed"})
    made = pairs_of(pairs={"counterfactual": "perturbed", "rejected": "given"})
    assert {made.outcomes[name].status for name in BEFORE} == {"hit"}, "only what reads the setting is stale"
    given = made.read("domain_dataset", "rejected_answers")
    assert 10 < given.height <= 30
    pairs, before = (one.pairs.filter(pl.col("kind") != "replay") for one in (made, own))
    assert pairs.select("row_id", "kind").equals(before.select("row_id", "kind"))
    came = pairs.join(given, on="row_id").select("kind", "chosen", "rejected", "grade")
    assert set(came["kind"]) >= {"bad_case", "counterfactual"}
    assert came["rejected"].to_list() == [f"not {gold}" for gold in came["chosen"]]
    assert came["grade"].null_count() == came.height
    others = pairs.join(given, on="row_id", how="anti")
    assert others.height > 0
    assert others.equals(before.join(given, on="row_id", how="anti"))
    assert "answers" not in made.work
    assert made.planned["answers"] == 0


def test_switching_to_perturbed_generates_nothing_and_retrieves_nothing(pairs_of):
    pairs_of()
    made = pairs_of(pairs={"counterfactual": "perturbed"})
    assert {made.outcomes[name].status for name in BEFORE} == {"hit"}
    assert "answers" not in made.work
    assert made.work["grades"]["computed"] == made.planned["grades"] > 0
    assert made.planned["answers"] == 0


def test_counterfactual_pairs_count_for_the_share_of_replay(pairs_of):
    made = pairs_of(pairs={"replay_share": 0.2, "counterfactual": "perturbed"})
    pairs = made.pairs.filter(pl.col("kind") != "replay").height
    assert made.kind("counterfactual").height > 0
    assert made.kind("replay").height == round(0.2 * pairs)


def test_sampled_answers_are_the_policys_wrong_ones_and_are_sampled_once(pairs_of, policy):
    greedy = pairs_of()
    made = pairs_of(pairs={"counterfactual": "sampled", "temperature": 1.5})
    new = made.kind("counterfactual")
    assert new.height > 0
    assert new["grade"].max() < 4
    assert {made.outcomes[name].status for name in BEFORE} == {"hit"}
    assert made.work["answers"]["reused"] == 0, "the greedy ones are no samples"
    assert made.work["answers"]["computed"] >= made.planned["answers"] >= new.height
    again = pairs_of(pairs={"counterfactual": "sampled", "temperature": 1.5, "replay_share": 0.5})
    assert again.work["answers"]["computed"] == again.work["grades"]["computed"] == 0
    assert again.kind("counterfactual").equals(new)
    assert again.planned == {"answers": 0, "grades": 0}
    hotter = pairs_of(pairs={"counterfactual": "sampled", "temperature": 3.0})
    assert hotter.work["answers"]["computed"] > 0
    assert not hotter.kind("counterfactual").equals(new)
    assert pairs_of().pairs.equals(greedy.pairs)


def test_question_that_is_right_in_every_sample_stays_replay(pairs_of):
    greedy = pairs_of(pairs={"replay_share": 9.0})
    made = pairs_of(pairs={"counterfactual": "sampled", "temperature": 1e-6, "replay_share": 9.0})
    assert made.work["answers"]["computed"] > 0
    assert made.pairs.equals(greedy.pairs)


@pytest.mark.parametrize(
    ("kind", "how"), [("labels", "perturbed"), ("exact", "perturbed"), ("set_f1", "perturbed"), ("labels", "sampled")]
)
def test_all_code_that_makes_a_wrong_answer_is_in_the_key_of_the_pairs(pairs_of, monkeypatch, kind, how):
    ran = {}
    monkeypatch.setitem(STAGES, "preference_pairs", traced(STAGES["preference_pairs"], ran))
    made = pairs_of(assessor={"kind": kind}, pairs={"counterfactual": how, "temperature": 2.0})
    assert made.kind("counterfactual").height > 0
    assert {one.split(".")[-1] for one in ran["preference_pairs"]} >= {"counterfactual", "counterfactuals"}
    assert_in_closure(ran)


def test_sampling_from_a_server_is_refused_and_both_keys_are_named(make_experiment):
    server = {"backend": "openai", "server": {"url": "http://localhost:1/v1"}}
    with pytest.raises(UsageError, match=r"pairs\.counterfactual: sampled needs policy\.backend: transformers"):
        load_experiment(make_experiment(policy=server, pairs={"counterfactual": "sampled"}))
    load_experiment(make_experiment(policy=server, pairs={"counterfactual": "perturbed"}))


def test_people_are_shown_counterfactual_pairs(pairs_of):
    from apt_assets.orchestration.metadata import metadata
    from apt_assets.report.findings import pair_origins
    from apt_assets.report.look import ProjectLook
    from apt_assets.report.page import pairs

    made = pairs_of(pairs={"counterfactual": "perturbed"})
    planner, count = made.project.planner(), made.kind("counterfactual").height
    manifest = made.outcomes["preference_pairs"].manifest
    assert manifest.facts["kinds"]["counterfactual"] == count
    found = pair_origins(ProjectLook(made.project, planner, ["0001"], "0001"), "0001")
    assert f"{count} counterfactual" in pairs({"pairs": {"0001": found}})[0]["counts"]
    shown = metadata(made.project, planner, "0001", "computed", manifest, 0.0)
    assert "`counterfactual`" in shown["where_pairs_come_from"].md_str
