"""Doubtful golds: what speaks against the gold of a bad case, and leaving such cases out of the pairs."""

import json
import math
import random
import unicodedata
from html import escape

import polars as pl
import pytest

import apt_assets.assets.order  # noqa: F401 - declares the stages
from apt_assets.engine.execute import NothingToDo, run_stage
from apt_assets.loop.work import work_of
from apt_assets.method.doubt import PRIOR, answered_wrong, doubts, heard, leave_out, soften
from apt_assets.method.pairing import as_pairs
from apt_assets.method.splits import row_id
from apt_assets.project import Project
from apt_assets.report.page import write_report
from apt_assets.report.show import rows_of
from apt_assets.settings.experiment import UsageError
from benchmarks.doubt import noisy, of_iteration, report
from resources.model.policy import load_policy
from resources.store.tables import read_table
from schemas.tables import BadCases, DoubtfulGolds, Examples, Neighbors, PreferencePairs
from tests import tiny


def examples(*rows):
    """rows: (question, gold) or (question, gold, further golds as JSON)."""
    full = [(row_id(question), question, gold, *(also or (None,))) for question, gold, *also in rows]
    return pl.DataFrame(sorted(full), schema=Examples.empty().schema, orient="row")


def cases(train, said):
    """The rows of `train` whose questions are asked. said: question -> answer."""
    asked = train.filter(pl.col("prompt").is_in(list(said)))
    answers = pl.Series([said[prompt] for prompt in asked["prompt"]], dtype=pl.String)
    graded = asked.with_columns(prediction=answers, grade=pl.lit(1, pl.Int8), exact=pl.lit(False))
    return graded.select(list(BadCases.empty().schema))


def near_to(question, *others):
    return [(row_id(question), row_id(other), similarity) for other, similarity in others]


def found(train, said, near, log_probs=None):
    asked = cases(train, said)
    near = pl.DataFrame(near, {"case_id": pl.String, "row_id": pl.String, "similarity": pl.Float64}, orient="row")
    given, scored = log_probs or {}, heard(asked, train).select("row_id", "prompt").rows()
    columns = {"row_id": pl.String, "log_prob_gold": pl.Float64, "log_prob_prediction": pl.Float64}
    rows = [(row, *given.get(prompt, [-1.0, -1.0])) for row, prompt in scored]
    asked = asked.with_columns(kind=pl.lit("bad_case"))
    return DoubtfulGolds.validate(doubts(asked, train, near, pl.DataFrame(rows, columns, orient="row")))


CLUSTER = [(f"purring animal {n}", "Cat") for n in range(4)] + [(f"barking animal {n}", "dog") for n in range(4)]


def test_wrong_gold_within_a_cluster_is_more_doubtful_than_the_right_ones_around_it():
    train = examples(*CLUSTER, ("purring animal 9", "dog"))
    cats = [f"purring animal {n}" for n in range(4)]
    near = near_to("purring animal 9", *((cat, 0.8) for cat in cats), ("barking animal 0", 0.3))
    near += near_to(cats[0], *((cat, 0.8) for cat in cats[1:]), ("purring animal 9", 0.8))
    near += near_to("barking animal 1", ("barking animal 0", 0.7), ("barking animal 2", 0.7))
    ranked = found(train, dict.fromkeys(["purring animal 9", cats[0], "barking animal 1"], "a thing"), near)
    assert ranked["prompt"].to_list() == ["purring animal 9", cats[0], "barking animal 1"]
    first, second, third = ranked.select("votes", "votes_other", "other", "doubt").rows()
    assert first[:2] == pytest.approx((0.09, 4 * 0.64))
    assert first[2] == "Cat"
    assert second[:2] == pytest.approx((3 * 0.64, 0.64))
    assert third[1:3] == (0.0, None), "all rows near to it have its gold"
    assert first[3] == pytest.approx((2.56 + PRIOR) / (2.56 + PRIOR + 0.09 + PRIOR))
    assert third[3] < second[3] < 0.5 < first[3]


def test_label_that_the_policy_named_counts_and_what_is_no_label_does_not():
    train = examples(*CLUSTER, ("mewing animal", "dog"))
    near = near_to("mewing animal", ("purring animal 0", 0.5), ("barking animal 0", 0.5))
    # In nats per token: its own answer is e times as likely as the gold.
    odds = {"mewing animal": [-3.0, -2.0]}
    (named,) = found(train, {"mewing animal": "cat."}, near, odds)["doubt"]
    assert named == pytest.approx(1 / (1 + math.exp(-1)))
    (not_named,) = found(train, {"mewing animal": "It is quite small"}, near, odds)["doubt"]
    assert not_named == 0.5, "as many rows with the gold as with another one, and no word of the policy's"
    assert heard(cases(train, {"mewing animal": "It is quite small"}), train).is_empty(), "so it is not scored"


def test_free_text_golds_that_no_two_rows_share_are_ranked_by_the_policy():
    train = examples(*((f"question {n}", f"a long answer of its own, number {n}") for n in range(6)))
    near = [row for n in range(3) for row in near_to(f"question {n}", *((f"question {m}", 0.6) for m in (3, 4, 5)))]
    said = {f"question {n}": f"said {n}" for n in range(3)}
    scored = {"question 0": [-4.0, -0.5], "question 1": [-0.6, -0.5], "question 2": [-2.0, -0.5]}
    ranked = found(train, said, near, scored)
    assert ranked["prompt"].to_list() == ["question 0", "question 2", "question 1"]
    assert ranked["doubt"].n_unique() == 3
    assert ranked["votes"].to_list() == [0.0] * 3


def test_further_right_answers_are_golds_of_their_own_row():
    train = examples(
        ("ripe cherry", "red", '["crimson"]'), ("ripe plum", "red"), ("rose", "CRIMSON!"), ("sky", "blue", '["red"]')
    )
    near = near_to("ripe cherry", ("rose", 0.5), ("sky", 0.5), ("ripe plum", 0.5))
    (row,) = found(train, {"ripe cherry": "green"}, near).rows(named=True)
    assert (row["votes"], row["votes_other"], row["other"]) == (pytest.approx(0.75), 0.0, None)


def test_golds_that_are_spelled_in_two_ways_are_one():
    composed = "Entzündung"
    taken_apart = unicodedata.normalize("NFD", composed).upper()
    assert composed != taken_apart
    train = examples(("Gelenk", composed), ("Sehne", taken_apart), ("Beinbruch", "Verletzung"))
    near = near_to("Gelenk", ("Sehne", 0.8), ("Beinbruch", 0.4))
    (row,) = found(train, {"Gelenk": "Krankheit"}, near).rows(named=True)
    assert (row["votes"], row["votes_other"], row["other"]) == (0.64, 0.16, "Verletzung")


def test_bad_case_without_neighbours_or_tokens_is_neither_doubtful_nor_beyond_doubt():
    (row,) = found(examples(("alone", "one")), {"alone": ""}, [], {"alone": [-1.0, None]}).rows(named=True)
    assert (row["votes"], row["votes_other"], row["other"], row["doubt"]) == (0.0, 0.0, None, 0.5)


def test_neighbour_that_points_the_other_way_has_no_vote():
    train = examples(("up", "one"), ("down", "two"), ("upwards", "one"))
    (row,) = found(train, {"up": "three"}, near_to("up", ("down", -0.4), ("upwards", 0.2))).rows(named=True)
    assert (row["votes"], row["votes_other"]) == (0.04, 0.0)


# -- leaving out ---------------------------------------------------------------------------------------


def similar_to(*pairs):
    """pairs: (case, similar question)."""
    rows = [(row_id(other), row_id(case), n, 0.5, other, "gold", None) for n, (case, other) in enumerate(pairs, 1)]
    return pl.DataFrame(rows, schema=Neighbors.empty().schema, orient="row")


def test_doubtful_case_goes_with_what_was_found_as_similar_to_it_and_nothing_else_does():
    train = examples(("one", "gold"), ("two", "silver"))
    asked = cases(train, {"one": "?", "two": "?"})
    similar = similar_to(("one", "like one"), ("one", "like one too"), ("two", "like two"))
    doubtful = pl.DataFrame({"row_id": [row_id("one"), row_id("two")], "doubt": [0.91, 0.9]})
    kept, near, out = leave_out(asked, similar, doubtful, 0.9)
    assert (kept["prompt"].to_list(), near["prompt"].to_list()) == (["two"], ["like two"])
    assert set(out["row_id"]) == {row_id(one) for one in ("one", "like one", "like one too")}
    kept, near, out = leave_out(asked, similar, doubtful, None)
    assert (kept.height, near.height, out.height) == (2, 3, 0)


def test_doubtful_similar_case_goes_alone_and_each_row_once():
    train = examples(("one", "gold"), ("two", "silver"))
    asked = cases(train, {"one": "?", "two": "?"})
    similar = similar_to(("one", "like one"), ("two", "like two"), ("two", "like two too"))
    doubts_of = {"one": 0.95, "like one": 0.97, "two": 0.2, "like two": 0.92, "like two too": 0.3}
    doubtful = pl.DataFrame({"row_id": [row_id(one) for one in doubts_of], "doubt": list(doubts_of.values())})
    kept, near, out = leave_out(asked, similar, doubtful, 0.9)
    assert (kept["prompt"].to_list(), near["prompt"].to_list()) == (["two"], ["like two too"])
    assert sorted(out["row_id"]) == sorted(row_id(one) for one in ("one", "like one", "like two"))


def test_pair_counts_less_the_more_doubtful_its_gold_is_beyond_the_threshold():
    questions = ("sure", "at it", "over it", "hopeless", "not ranked")
    asked = cases(examples(*((one, "gold") for one in questions)), dict.fromkeys(questions, "?"))
    pairs = as_pairs(asked, "bad_case", "prediction")
    ranked = {"sure": 0.1, "at it": 0.6, "over it": 0.7, "hopeless": 1.0}
    doubtful = pl.DataFrame({"row_id": [row_id(one) for one in ranked], "doubt": list(ranked.values())})
    weights = [PreferencePairs.validate(soften(pairs, doubtful, most)) for most in (0.6, 0.0)]
    of_0_6, of_none = (dict(its.select("prompt", "weight").iter_rows()) for its in weights)
    assert of_0_6 == {"sure": 1.0, "at it": 1.0, "over it": 0.75, "hopeless": 0.0, "not ranked": 1.0}
    assert of_none == {"sure": 0.9, "at it": 0.4, "over it": 0.3, "hopeless": 0.0, "not ranked": 1.0}
    assert weights[0]["row_id"].equals(pairs["row_id"])


# -- in the loop ---------------------------------------------------------------------------------------

BEFORE = (
    "domain_dataset", "retrieval_index", "policy", "eval_predictions", "bad_cases", "neighbors", "similar_predictions"
)  # fmt: skip


@pytest.fixture(scope="module")
def said(talker):
    """What the policy says to sixty questions."""
    prompts = [f"Colour of thing {n}?" for n in range(60)]
    return dict(
        zip(
            prompts,
            tiny.answers(load_policy(talker, dtype="float32"), prompts, max_new_tokens=4, batch_tokens=1024),
            strict=True,
        )
    )


@pytest.fixture
def loop(make_experiment, tmp_path, talker, said):
    """A function (**sections) -> Loop, in one store. A third of the questions are answered wrong, by these golds."""
    golds = list(said.values())
    rows = [
        {"prompt": prompt, "answer": gold if n % 3 else next(one for one in golds if one != gold)}
        for n, (prompt, gold) in enumerate(said.items())
    ]
    tiny.write_jsonl(tmp_path / "landing" / "colours.jsonl", rows)

    def run(**sections):
        sections = {
            "policy": {"model": str(talker)},
            "retrieval": {"per_case": 2},
            "mining": {"questions": 25},
        } | sections
        return Loop(Project.open(make_experiment(**sections)))

    return run


class Loop:
    """The stages of iteration 0001 up to its pairs, and what the plan said of doubtful_golds."""

    def __init__(self, project):
        project.open_iteration("0001")
        self.project, self.outcomes, self.lines = project, {}, []
        for name in (*BEFORE, "doubtful_golds", "preference_pairs"):
            planner = project.planner()
            if name == "doubtful_golds":
                self.planned = work_of(project, planner, planner.stage("0001", name)).amounts
            self.outcomes[name] = run_stage(project, "0001", name, run_id="r", log=self.lines.append)

    def read(self, stage, file=None):
        return read_table(self.project.store.open(self.outcomes[stage].manifest) / f"{file or stage}.parquet")

    def computed(self):
        return [name for name, outcome in self.outcomes.items() if outcome.status == "computed"]


def wrong_of(made):
    return answered_wrong(made.read("bad_cases"), made.read("similar_predictions"), 4)


def test_all_that_was_answered_wrong_has_a_doubt_and_is_scored_once_if_the_policy_is_heard_as_planned(loop):
    made = loop()
    ranked, bad = made.read("doubtful_golds", "doubtful"), wrong_of(made)
    assert set(ranked["kind"]) == {"bad_case", "similar"}
    assert sorted(ranked.select("row_id", "kind").rows()) == sorted(bad.select("row_id", "kind").rows())
    assert set(made.read("bad_cases")["row_id"]) == set(ranked.filter(pl.col("kind") == "bad_case")["row_id"])
    assert ranked["doubt"].is_sorted(descending=True)
    assert (ranked["votes"] + ranked["votes_other"] > 0).all()
    asked = ranked.drop_nulls("log_prob_gold")
    assert set(asked["row_id"]) == set(heard(bad, made.read("domain_dataset", "train"))["row_id"])
    assert asked.height > 0
    assert made.planned == {"likelihoods": asked.height}
    assert made.outcomes["doubtful_golds"].manifest.work == {"likelihoods": {"reused": 0, "computed": asked.height}}
    columns, rows, count = rows_of(made.project, "doubtful", "1", 1)
    assert (dict(zip(columns, rows[0], strict=True))["doubt"], count) == (ranked["doubt"][0], bad.height)


def test_log_probabilities_are_those_of_the_model_itself_read_as_far_as_it_may_go_on(loop, talker):
    import torch

    from resources.model.prompts import encode
    from resources.training.examples import answer_turn, tokenise

    row = loop().read("doubtful_golds", "doubtful").drop_nulls("log_prob_gold").row(0, named=True)
    policy = load_policy(talker, dtype="float32")
    for column, text in (("log_prob_gold", row["answer"]), ("log_prob_prediction", row["prediction"])):
        context, (ids,) = tokenise(policy, answer_turn(policy), row["prompt"], [text])
        assert context == encode(policy, row["prompt"])
        ids = ids[:4]  # policy.max_new_tokens
        plain = load_policy(talker, dtype="float32", path="plain")
        with torch.inference_mode():
            logits = plain.model(torch.tensor([context + ids])).logits[0].log_softmax(-1)
        expected = [float(logits[len(context) - 1 + n, token]) for n, token in enumerate(ids)]
        assert row[column] == pytest.approx(sum(expected) / len(expected), abs=1e-4)


def test_max_doubt_leaves_doubtful_cases_out_and_neither_answers_nor_scores_anything_again(loop):
    all_of_them = loop()
    ranked = all_of_them.read("doubtful_golds", "doubtful")
    most = ranked.filter(pl.col("kind") == "similar")["doubt"].max() - 1e-6
    doubted = set(ranked.filter(pl.col("doubt") > most)["row_id"])
    bad, similar = all_of_them.read("bad_cases"), all_of_them.read("neighbors")
    gone = doubted & set(bad["row_id"])
    along = set(similar.filter(pl.col("case_id").is_in(list(gone)))["row_id"])
    near = along | (doubted - gone)
    assert gone
    assert along - doubted
    assert doubted - gone
    for replay in ("answered_right", "pool"):
        pairs = {"max_doubt": most, "replay": replay, "replay_share": None}
        fewer = loop(pairs=pairs)
        assert fewer.computed() == ["preference_pairs"]
        assert not {n["computed"] for n in fewer.outcomes["preference_pairs"].manifest.work.values()} - {0}
        assert not (gone | near) & set(fewer.read("preference_pairs")["row_id"]), "nor do they come back as replay"
        own = fewer.read("preference_pairs").filter(pl.col("kind") == "bad_case")
        assert len(own) == bad.height - len(gone)
        facts = fewer.outcomes["preference_pairs"].manifest.facts
        assert (facts["bad_cases"], facts["left_out"]) == (len(own), len(gone | near))
        said = f"{len(gone)} of {bad.height} bad cases and {len(near)} similar cases are left out, since their golds"
        assert any(said in line for line in fewer.lines)


def test_softened_pairs_are_all_there_and_weigh_less_and_nothing_is_answered_or_scored_again(loop):
    before = loop()
    ranked = before.read("doubtful_golds", "doubtful")
    most = ranked["doubt"][ranked.height // 2]
    expected = {
        row: round((1 - doubt) / (1 - most), 4) if doubt > most else 1.0
        for row, doubt in ranked.select("row_id", "doubt").iter_rows()
    }
    softer = loop(pairs={"max_doubt": most, "doubtful": "soften"})
    assert softer.computed() == ["preference_pairs"]
    assert not {n["computed"] for n in softer.outcomes["preference_pairs"].manifest.work.values()} - {0}
    pairs, whole = softer.read("preference_pairs"), before.read("preference_pairs")
    assert pairs.drop("weight").equals(whole.drop("weight"))
    assert set(whole["weight"]) == {1.0}
    assert dict(pairs.select("row_id", "weight").iter_rows()) == {
        row: pytest.approx(expected.get(row, 1.0), abs=1e-4) for row in whole["row_id"]
    }
    less = sum(weight < 1 for weight in expected.values())
    assert any(f"{less} of {pairs.height} pairs count less in training" in line for line in softer.lines)
    assert softer.read("preference_pairs", "training_pairs")["weight"].equals(pairs["weight"])


def test_threshold_that_softens_nothing_trains_nothing_anew(loop):
    most = loop().read("doubtful_golds", "doubtful")["doubt"].max()
    of_each = [loop(pairs=pairs) for pairs in ({}, {"max_doubt": most, "doubtful": "soften"})]
    one, other = (made.outcomes["preference_pairs"].manifest for made in of_each)
    assert one.fingerprint != other.fingerprint
    assert one.files["training_pairs.parquet"] == other.files["training_pairs.parquet"]


def test_softening_wants_a_doubt_to_begin_at(make_experiment):
    with pytest.raises(UsageError, match="doubtful: soften needs max_doubt"):
        Project.open(make_experiment(pairs={"doubtful": "soften"}))


def test_iteration_that_leaves_out_all_bad_cases_ends_the_loop_as_one_without_any_does(loop):
    left = loop(pairs={"max_doubt": 0.0})
    assert left.read("preference_pairs").is_empty()
    reason = (
        "iteration 0001 leaves out all bad cases, whose golds are more doubtful than pairs.max_doubt = 0: there is "
        "nothing to train on"
    )
    with pytest.raises(NothingToDo, match="leaves out all bad cases"):
        run_stage(left.project, "0001", "adapter_checkpoint", run_id="r")
    planner = left.project.planner()
    assert planner.stage("0001", "adapter_checkpoint").status == "stopped"
    assert planner.verdict("0001") == {"passed": False, "no_bad_cases": True, "reason": reason}
    assert planner.stopped("0002") == f"{reason} and no new data has landed"


def test_fine_tuning_on_every_row_goes_on_where_all_bad_cases_are_left_out(loop):
    made = loop(pairs={"max_doubt": 0.0, "replay": "pool", "replay_share": None})
    assert set(made.read("preference_pairs")["kind"]) == {"replay"}
    assert made.project.planner().stage("0001", "adapter_checkpoint").status != "stopped"


def test_report_names_the_most_doubtful_golds_and_the_lines_to_correct(loop, tmp_path):
    made = loop(pairs={"max_doubt": 0.5})
    ranked = made.read("doubtful_golds", "doubtful")
    found = write_report(made.project, tmp_path / "report.html")["doubtful"]["0001"]
    assert [row["row_id"] for row in found["rows"]] == ranked["row_id"].to_list()[:10]
    landed = (made.project.landing / "colours.jsonl").read_text().splitlines()
    for row in found["rows"]:
        assert json.loads(landed[row["line"] - 1]) == {"prompt": row["prompt"], "answer": row["answer"]}
    out = made.outcomes["preference_pairs"].manifest.facts["left_out"]
    assert (found["ranked"], found["left_out"]) == (ranked.height, out)
    page = (tmp_path / "report.html").read_text()
    assert f"of {ranked.height} golds have a doubt over 0.9; {out} rows are left out of the pairs" in page
    assert escape(ranked["answer"][0]) in page


# -- planted -------------------------------------------------------------------------------------------


def test_planted_golds_are_wrong_in_training_rows_alone_and_a_larger_share_holds_a_smaller_one(tmp_path):
    dice = random.Random(0)
    texts = [" ".join("".join(dice.choices("abcdefgh", k=6)) for _ in range(5)) for _ in range(300)]
    rows = [{"prompt": text, "answer": f"label {n % 7}"} for n, text in enumerate(texts)]
    clean = {row["prompt"]: row["answer"] for row in rows}
    few, many = (noisy(tiny.write_jsonl(tmp_path / "rows.jsonl", rows), share) for share in (0.05, 0.1))
    planted = []
    for noise, share in ((few, 0.05), (many, 0.1)):
        train = [row for row in noise if row["split"] == "train"]
        wrong = [row for row in noise if row["answer"] != clean[row["prompt"]]]
        assert {row["split"] for row in wrong} == {"train"}
        assert len(wrong) == round(share * len(train)) > 0
        assert {row["answer"] for row in wrong} <= set(clean.values())
        assert all(row["metadata"]["gold"] == clean[row["prompt"]] for row in noise)
        planted.append({(row["prompt"], row["answer"]) for row in wrong})
    assert planted[0] < planted[1]


def test_where_planted_golds_went_is_told_of_each_kind_and_by_weight(loop):
    made = loop(pairs={"max_doubt": 0.2, "doubtful": "soften"})
    ranked, pairs = made.read("doubtful_golds", "doubtful"), made.read("preference_pairs")
    planted = {ranked["row_id"][0], *ranked.filter(pl.col("kind") == "similar")["row_id"]}
    found = of_iteration(made.project, "0001", planted)
    of_planted = pairs.filter(pl.col("row_id").is_in(list(planted)))
    less = [rows.filter(pl.col("weight") < 1).height for rows in (pairs, of_planted)]
    assert found["planted"]["softened"] == less
    assert 0 < less[1] < less[0] < pairs.height
    assert found["weight"] == pytest.approx(of_planted["weight"].sum() / pairs["weight"].sum())
    bad = ranked.filter(pl.col("kind") == "bad_case")
    assert found["planted"]["bad cases"] == [bad.height, len(planted & set(bad["row_id"]))]
    assert (found["similar"]["average_precision"], found["similar"]["found"]) == (1.0, 1.0), "all of them are planted"
    text = report({"a domain": {"rows": len(planted), "arms": {"soft": {"0001": [found]}}}})
    assert f"{less[1]} of {less[0]} ({less[1] / less[0]:.0%})" in text
