"""The texts that training holds the policy to: who writes them, what is kept, what is left out; and scales."""

import json
import shutil

import polars as pl
import pytest
from safetensors.torch import load_file

from apt_assets.engine.display import Display
from apt_assets.loop.work import work_of
from apt_assets.method.screening import held
from apt_assets.orchestration.run import run_loop
from apt_assets.project import Project
from apt_assets.report.export import export
from apt_assets.report.findings import findings
from apt_assets.report.results import results
from apt_assets.report.tables import score_rows
from apt_assets.rows.anchors import origins
from apt_assets.settings.experiment import Experiment, UsageError
from apt_assets.settings.iterations import BASE
from apt_assets.settings.training import Anchor
from resources.model.own_texts import pieces
from resources.model.policy import load_policy, load_tokenizer
from resources.model.unprompted import document_start, headers, say
from resources.store.digest import digest_file
from resources.store.rows import collect
from resources.store.tables import read_table
from tests import tiny

pytestmark = pytest.mark.slow("loop")


def run(path, iterations=1):
    """(the project, the loop's result)."""
    project = Project.open(path)
    return project, run_loop(project, iterations, Display())


def land(tmp_path, rows=None):
    tiny.write_jsonl(tmp_path / "landing" / "a.jsonl", tiny.domain_rows(40) if rows is None else rows)


def artifact(project, stage, key="0001"):
    manifest = project.planner().stage(key, stage).manifest
    return manifest, project.artifact(manifest)


def texts_of(project):
    manifest, folder = artifact(project, "anchor_texts", "base")
    return manifest, read_table(folder / "anchor_texts.parquet"), load_file(folder / "likely.safetensors")


# -- who writes them -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def speaker(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speaker")
    return tiny.make_policy(folder / "policy", spread=0.3)


def said(folder, origins, seeds=None, **changes):
    policy = load_policy(folder, dtype="float32")
    settings = {"tokens": 6, "temperature": 1.0, "batch_tokens": 256, **changes}
    seeds = [f"{origin}-{n}" for n, origin in enumerate(origins)] if seeds is None else seeds
    return collect(len(origins), say(policy, origins, seeds=seeds, **settings))


def test_a_chat_model_begins_where_a_user_speaks_and_a_plain_one_begins_documents_only(speaker, tmp_path):
    tokenizer = load_tokenizer(speaker)
    assert tokenizer.decode(headers(tokenizer, 999)["chat"]) == "<|user|>"
    shutil.copytree(speaker, tmp_path / "plain")
    (tmp_path / "plain" / "chat_template.jinja").unlink()
    assert list(headers(load_tokenizer(tmp_path / "plain"), 999)) == ["document"]


def test_a_plain_model_writes_documents_only_whatever_share_is_to_be_chats(speaker, make_experiment, tmp_path):
    shutil.copytree(speaker, tmp_path / "plain")
    (tmp_path / "plain" / "chat_template.jinja").unlink()
    land(tmp_path)
    project, result = run(make_experiment(policy={"model": str(tmp_path / "plain")}, anchor={"chat_share": 0.5}))
    assert result.passed, result.reason
    _, texts, _ = texts_of(project)
    assert set(texts["origin"]) == {"document"}
    assert texts.height == 6


def test_start_of_a_document_is_what_the_tokenizer_puts_there_and_no_mark_of_a_turn(speaker):
    tokenizer = load_tokenizer(speaker)
    assert document_start(tokenizer, 999) == [], "its end token ends turns, and it has no other"
    tokenizer.chat_template = None
    assert document_start(tokenizer, 999) == [tokenizer.eos_token_id]
    tokenizer.bos_token = "<|system|>"
    assert document_start(tokenizer, 999) == [tokenizer.bos_token_id]
    assert document_start(tokenizer, tokenizer.bos_token_id) == [tokenizer.eos_token_id], "the model does not know it"


def test_model_without_a_start_token_begins_with_any_ordinary_one(speaker):
    found = said(speaker, ["document"] * 40)
    first = {ids[0] for ids in found}
    assert len(first) > 20
    assert not first & set(load_tokenizer(speaker).all_special_ids)
    assert {len(ids) for ids in found} == {7}


def test_text_depends_on_its_own_seed_whatever_else_is_written(speaker):
    mixed = ["chat", "document", "document", "chat", "document"]
    whole = said(speaker, mixed)
    alone = said(speaker, mixed[2:3], seeds=["document-2"])
    assert alone == whole[2:3]
    assert said(speaker, mixed, temperature=0.5) != whole
    assert len(set(map(tuple, said(speaker, ["chat"] * 8)))) > 4


@pytest.mark.parametrize("share", [0.0, 0.33, 0.5, 1.0])
def test_more_texts_are_the_same_ones_and_others(share):
    assert origins(100, share)[:37] == origins(37, share)
    assert origins(100, share).count("chat") == int(100 * share)


# -- what is left out ------------------------------------------------------------------------------------


def test_text_that_holds_eight_words_of_a_measured_one_or_all_of_a_shorter_one_is_left_out():
    measured = ["one two three four five six seven eight nine ten", "which bone is this", "red blood"]
    texts = [
        "She counted: ONE, two; three four five six seven eight and went on",
        "three four five six seven eight nine TEN",
        "one two three four five six seven, and eight nine ten",
        "Tell me, which bone is this?",
        "which bone was this",
        "red blood",
    ]
    assert held(texts, measured) == {
        0: "one two three four five six seven eight",
        1: "three four five six seven eight nine ten",
        3: "which bone is this",
    }


def test_folder_of_ones_own_text_is_cut_screened_and_held_to(make_experiment, tmp_path):
    rows = tiny.domain_rows(40)
    land(tmp_path, rows)
    own = tmp_path / "own"
    own.mkdir()
    (own / "a.txt").write_text("It was a dark and stormy night, " * 8)
    # One question of every ten or so is held out.
    (own / "b.md").write_text(" ".join(f"{row['prompt']} {row['answer']}" for row in rows))
    path = make_experiment(anchor={"texts": 60, "tokens": 96, "folder": "own"})
    project, result = run(path)
    assert result.passed, result.reason
    _, every, _ = texts_of(project)
    assert set(every["origin"]) == {"file"}
    manifest, folder = artifact(project, "screened_texts")
    left_out = read_table(folder / "texts_left_out.parquet")
    assert manifest.facts["left_out"] == left_out.height > 0
    texts = every[read_table(folder / "screened_texts.parquet")["place"].to_list()]
    assert texts.height + left_out.height == every.height
    held_out = artifact(project, "domain_dataset")[1]
    asked = pl.concat([read_table(held_out / f"{split}.parquet") for split in ("validation", "test")])
    measured = [f"{prompt} {answer}" for prompt, answer in asked.select("prompt", "answer").rows()]
    assert not [text for text in texts["text"] if any(row in text for row in measured)]
    assert all(any(row in text for row in measured) for text in left_out["text"])
    (own / "a.txt").write_text("It was a bright cold day in April. " * 8)
    planner = Project.open(path).planner()
    assert planner.stage("base", "anchor_texts").causes[0].startswith("anchor_folder: ")


def test_data_that_lands_later_trains_no_earlier_iteration_anew(ran, tmp_path):
    path = ran(1, loop={"max_iterations": 1})
    first = Project.open(path)
    before = artifact(first, "adapter_checkpoint")[0].data_version
    # A row that holds every text that the model wrote, and is held out.
    _, texts, _ = texts_of(first)
    rows = [{"prompt": text, "answer": "blue", "split": "test"} for text in texts["text"]]
    tiny.write_jsonl(tmp_path / "landing" / "b.jsonl", rows)
    project, result = run(path, None)
    assert artifact(project, "adapter_checkpoint")[0].data_version == before
    assert ("0001", "adapter_checkpoint") not in result.computed


def test_own_text_that_is_no_text_is_named_with_its_place(make_experiment, tmp_path):
    land(tmp_path)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "bad.txt").write_bytes(b"caf\xe9" * 40)
    path = make_experiment(anchor={"texts": 5, "tokens": 8, "folder": "own"})
    _, result = run(path)
    assert "bad.txt: not UTF-8 at byte 3: save it as UTF-8" in result.reason
    (tmp_path / "own" / "bad.txt").unlink()
    assert "no .txt or .md file there has 8 tokens" in run(path)[1].reason
    shutil.rmtree(tmp_path / "own")
    with pytest.raises(UsageError, match=r"anchor\.folder: no such folder"):
        run(path)


def test_texts_longer_than_the_model_reads_are_refused_before_anything_is_computed(make_experiment, tmp_path):
    land(tmp_path)
    with pytest.raises(UsageError, match=r"reads 256 tokens at once, and an anchor text has 1 .* lower anchor\.tokens"):
        run(make_experiment(anchor={"texts": 3, "tokens": 256}))
    assert Project.open(make_experiment(anchor={"texts": 3, "tokens": 255})).check() is None


def test_pieces_are_whole_and_drawn_by_what_they_say(speaker, tmp_path):
    tokenizer = load_tokenizer(speaker)
    (tmp_path / "a.txt").write_text("".join(chr(97 + n % 26) for n in range(100)))
    found = pieces(tmp_path, tokenizer, 999, 16, 4)
    assert [len(ids) for ids in found] == [16] * 4
    (tmp_path / "a.txt").rename(tmp_path / "z.md")
    assert pieces(tmp_path, tokenizer, 999, 16, 4) == found
    assert pieces(tmp_path, tokenizer, 999, 16, 2) == found[:2]


# -- what is kept ----------------------------------------------------------------------------------------


def test_more_texts_write_only_the_new_ones_and_another_temperature_writes_all(ran, make_experiment):
    project = Project.open(ran(1))
    manifest, texts, likely = texts_of(project)
    assert manifest.work["anchors"] == {"reused": 0, "computed": 12}  # six texts, and what is likely in them
    assert len(likely["tokens"]) == sum(len(ids) for ids in texts["ids"]) - texts["given"].sum() == 48
    planner = Project.open(make_experiment(anchor={"texts": 9})).planner()
    planned = work_of(Project.open(make_experiment(anchor={"texts": 9})), planner, planner.stage(BASE, "anchor_texts"))
    assert (planned.amounts, planned.exact) == ({"anchors": 6}, True)
    manifest, more, _ = texts_of(run(make_experiment(anchor={"texts": 9}))[0])
    assert manifest.work["anchors"] == {"reused": 12, "computed": 6}
    assert more.head(6).equals(texts)
    manifest, hot, _ = texts_of(run(make_experiment(anchor={"texts": 9, "temperature": 2.0}))[0])
    assert manifest.work["anchors"] == {"reused": 0, "computed": 18}
    assert not hot.equals(more)


def test_weight_and_form_train_anew_and_write_nothing_anew(ran, make_experiment):
    adapters = {artifact(Project.open(ran(1)), "adapter_checkpoint")[0].data_version}
    for changes in ({"weight": 1.0}, {"form": "nll"}, {"texts_per_step": 2}):
        project, result = run(make_experiment(anchor=changes))
        computed = {stage for _, stage in result.computed}
        assert "adapter_checkpoint" in computed
        assert "eval_predictions" not in computed
        assert texts_of(project)[0].work.get("anchors", {}).get("computed", 0) in (0, 12)
        adapters.add(artifact(project, "adapter_checkpoint")[0].data_version)
    assert len(adapters) == 4


def test_without_an_anchor_none_of_its_settings_changes_a_bit(make_experiment, tmp_path):
    land(tmp_path)
    off = {"weight": 0.0}
    project, result = run(make_experiment(anchor=off))
    assert result.passed, result.reason
    manifest, texts, _ = texts_of(project)
    assert (texts.height, manifest.work) == (0, {})
    _, result = run(make_experiment(anchor={**off, "tokens": 16, "form": "nll", "texts_per_step": 5, "texts": 50}))
    assert result.computed == []
    _, result = run(make_experiment(anchor={"weight": 0.3, "texts": 0}))
    assert result.computed == []


def test_settings_that_are_not_used_are_forgotten():
    one, other = Anchor.model_validate({"weight": 0.0}), Anchor.model_validate({"weight": 0.0, "tokens": 99})
    assert one == other
    assert one.texts == 0
    own = {"folder": "x"}
    assert Anchor.model_validate({**own, "temperature": 0.5}) == Anchor.model_validate({**own, "chat_share": 1.0})
    assert Anchor.model_validate({"tokens": 99}) != Anchor.model_validate({})
    assert Experiment(name="x").anchor.weight > 0


# -- scales ----------------------------------------------------------------------------------------------


def with_general_loss(make_experiment, tmp_path, **changes):
    """An experiment on passages whose letters become less likely by what is learned."""
    land(tmp_path, [{"prompt": row["prompt"], "answer": "QXZ" * 4} for row in tiny.domain_rows(40)])
    return make_experiment(
        benchmarks={"tasks": {"colours": None, "sayings": None}},
        training={"learning_rate": 0.01, "epochs": 2},
        anchor={"weight": 0.0},
        **changes,
    )


def verdict_of(project, key="0001"):
    return json.loads((artifact(project, "gate", key)[1] / "verdict.json").read_text())


@pytest.fixture
def lost(make_experiment, tmp_path):
    """By how much perplexity rose at scale 1, 0.5 and 0.1."""
    scales = {"promotion": {"scales": [0.5, 0.1]}}
    project, result = run(with_general_loss(make_experiment, tmp_path, gate={"perplexity_tolerance": 0.0}, **scales))
    found = verdict_of(project)
    assert not result.passed
    assert found["scales"], result.reason
    assert [point["scale"] for point in found["scales"]] == [1.0, 0.5, 0.1]
    base = found["checks"][-1]["reference"]
    rises = [point["perplexity"] / base - 1 for point in found["scales"]]
    assert rises[0] > rises[1] > rises[2] > 0
    return rises


def test_adapter_that_forgets_is_promoted_at_the_scale_that_passes_and_continued_from(make_experiment, tmp_path, lost):
    # A tolerance between what is lost at a tenth and at a half; intervals of three passages are wide.
    between = {"perplexity_tolerance": (lost[1] + lost[2]) / 2, "confidence": 0.51}
    few = {"scales": [0.1, 0.5]}
    path = with_general_loss(make_experiment, tmp_path, gate=between, promotion=few)
    project, result = run(path)
    assert result.passed, result.reason
    found = verdict_of(project)
    assert (found["scale"], [point["passed"] for point in found["scales"]]) == (0.1, [False, False, True])
    assert "at 0.1 of its scale" in found["reason"]
    (manifest, promoted), (_, trained) = artifact(project, "promoted_adapter"), artifact(project, "adapter_checkpoint")
    assert manifest.facts["scale"] == 0.1
    one, other = (load_file(folder / "adapter_model.safetensors") for folder in (promoted, trained))
    for name in other:
        assert one[name].equal(0.1 * other[name] if ".lora_B." in name else other[name]), name
    export(project, tmp_path / "out", 1, "adapter")
    weights = "adapter_model.safetensors"
    assert (tmp_path / "out" / weights).read_bytes() == (promoted / weights).read_bytes()
    assert "promoted it at 0.1 of the scale at which it was trained" in (tmp_path / "out" / "README.md").read_text()
    assert "promoted at 0.1" in [row[-1] for row in score_rows(results(project))]
    # What was scored before is not scored again, and the next iteration is compared with what was promoted.
    scored, _ = artifact(project, "gate")
    assert scored.work["scores"] == {"reused": 24, "computed": 0}
    project, _ = run(path, 2)
    assert project.planner().promoted_before("0002") == "0001"
    assert project.planner().scored_by("0001") == "gate"
    policy = artifact(project, "policy", "0002")[1]
    assert (policy / "adapter_model.safetensors").read_bytes() == (promoted / "adapter_model.safetensors").read_bytes()
    against = next(check for check in verdict_of(project, "0002")["checks"] if check["name"] == "domain")
    now = read_table(artifact(project, "gate")[1] / "domain_items.parquet").filter(pl.col("split") == "validation")
    assert against["reference"] == pytest.approx((now["grade"] >= 4).mean())

    # While the gate is out of date the page, and an export, are of what it passed last; at a smaller scale, that is.
    stale = with_general_loss(make_experiment, tmp_path, gate={**between, "confidence": 0.52}, promotion=few)
    project = Project.open(stale)
    found, told = findings(project), results(project)["iterations"][1]
    assert (found["served"], found["measured"], told["iteration"], told["gate"]) == ("0002", True, "0001", None)
    scored = told["scores"]["passages"]["sayings"]["word_perplexity"]
    assert scored == pytest.approx(verdict_of(project)["checks"][-1]["candidate"])
    served = artifact(project, "promoted_adapter", "0002")[1] / weights
    assert found["digests"][f"adapter of 0002: {weights}"] == digest_file(served)
    with pytest.raises(UsageError, match="no up-to-date promoted_adapter"):
        export(project, tmp_path / "no", 1, "adapter")
    # What waits for a person can be tried before it is promoted.
    waits = with_general_loss(make_experiment, tmp_path, gate={**between, "approval": "required"}, promotion=few)
    project = Project.open(waits)
    assert project.planner().stage("0001", "promoted_adapter").status == "held"
    export(project, tmp_path / "to try", 1, "adapter")
    assert (tmp_path / "to try" / weights).read_bytes() == (promoted / weights).read_bytes()


def test_no_scale_is_tried_where_the_gate_passes_or_the_list_is_empty_or_the_domain_is_refused(
    make_experiment, tmp_path
):
    shut = {"perplexity_tolerance": 0.0}
    for gate, scales, passed in ((tiny.OPEN_GATE, [0.5], True), (shut, [], False)):
        project, result = run(with_general_loss(make_experiment, tmp_path, gate=gate, promotion={"scales": scales}))
        assert result.passed == passed
        assert verdict_of(project)["scale"] == 1
        assert [point["scale"] for point in verdict_of(project)["scales"]] in ([], [1.0])
        assert artifact(project, "gate")[0].work == {}
