"""Word perplexity: tasks of passages beside tasks of choices, from lm-eval's number to what people read."""

import json
import math

import polars as pl
import pytest

from apt_assets.method.scores import summarise, word_perplexity
from apt_assets.orchestration.metadata import metadata
from apt_assets.project import Project
from apt_assets.report.export import export
from apt_assets.report.findings import findings
from apt_assets.report.results import results
from apt_assets.report.tables import general_rows
from resources.model.lm_eval_tasks import TaskError, load_task, of_passage, score_items
from resources.model.policy import load_policy
from resources.store.tables import read_table
from schemas.tables import DomainItems, GeneralItems, PassageItems
from tests import tiny


def scored(policy, task, items=None, batch_tokens=256):
    found = {}
    for places, values in score_items(policy, task, items or range(len(task.keys)), batch_tokens=batch_tokens):
        found.update(zip(places, values, strict=True))
    return found


def test_word_perplexity_is_that_of_lm_evals_own_model(tiny_folder):
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tiny_folder / "policy"
    task = load_task(tiny_folder / "tasks" / "sayings.yaml", None, tiny_folder)
    ours = pl.DataFrame(list(scored(load_policy(folder, dtype="float32"), task).values()))
    model = HFLM(
        pretrained=AutoModelForCausalLM.from_pretrained(folder), tokenizer=AutoTokenizer.from_pretrained(folder),
        batch_size=2,
    )  # fmt: skip
    assert len(tiny.SAYINGS[-1]) > model.max_length, "one passage needs several windows"
    found = simple_evaluate(model=model, tasks=[task.config], task_manager=TaskManager(include_defaults=False))
    for (nats, words), sample in zip(ours.iter_rows(), found["samples"]["sayings"], strict=True):
        log_likelihood, counted = sample["word_perplexity"]
        assert (-nats, words) == (pytest.approx(log_likelihood, abs=1e-3), counted)
    theirs = found["results"]["sayings"]["word_perplexity,none"]
    assert word_perplexity(ours["nats"], ours["words"])["word_perplexity"] == pytest.approx(theirs, rel=1e-4)


def test_long_passage_without_spaces_is_scored(tiny_folder, tmp_path):
    tiny.make_task(tmp_path / "tasks")
    tiny.write_jsonl(tmp_path / "tasks" / "sayings.jsonl", [{"text": "天空是蓝色的,草地是绿色的,血是红色的." * 10}])
    task = load_task(tmp_path / "tasks" / "sayings.yaml", None, tmp_path)
    (found,) = scored(load_policy(tiny_folder / "policy", dtype="float32"), task).values()
    assert found["nats"] > 2 * 709, "of one word to lm-eval, whose perplexity no float has"
    assert found["words"] == 170


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("水是湿的,煤是黑的。", 8),
        ("GPU 很快。雪は白い", 7),
        ("น้ำเปียก", 4),
        ("물은 젖어 있다", 3),
        ("The snow is white.", 4),
    ],
)
def test_words_of_a_passage_are_letters_in_scripts_without_spaces(text, words):
    # A passage of one word has the word perplexity of a whole passage, of which no loss is within 5 %.
    sample = {"filtered_resps": [-9.0], "target": text}
    assert of_passage(sample) == {"nats": 9.0, "words": words}


def test_a_passage_has_the_same_nats_whatever_is_scored_with_it(tiny_folder):
    policy = load_policy(tiny_folder / "policy", dtype="float32")
    task = load_task(tiny_folder / "tasks" / "sayings.yaml", None, tiny_folder)
    together = scored(policy, task)
    assert scored(policy, task, [1]) == {1: together[1]}
    assert scored(policy, task, [2, 0], batch_tokens=64) == {0: together[0], 2: together[2]}


def test_task_of_another_kind_is_refused_with_the_kinds_there_are(tmp_path):
    tiny.make_task(tmp_path / "tasks")
    path = tmp_path / "tasks" / "sayings.yaml"
    path.write_text(path.read_text().replace("loglikelihood_rolling", "generate_until"))
    with pytest.raises(TaskError, match="output_type multiple_choice or loglikelihood_rolling"):
        load_task(path, None, tmp_path)


def test_task_with_a_key_twice_is_refused_with_the_lines_and_has_an_identity_all_the_same(tmp_path):
    from resources.model.lm_eval_tasks import task_identity
    from resources.store.digest import digest_file

    tiny.make_task(tmp_path / "tasks")
    path = tmp_path / "tasks" / "sayings.yaml"
    path.write_text("doc_to_text: a\n" + path.read_text() + "\ndoc_to_text: b\n")
    with pytest.raises(TaskError, match=r"sayings.yaml: doc_to_text stands there .* on lines 1[, ]"):
        load_task(path, None, tmp_path)
    assert task_identity(path, tmp_path, digest_file)[0] == "unreadable: NotYaml"


def test_a_changed_passage_is_scored_again_alone(make_experiment, tmp_path):
    from apt_assets.engine.execute import run_stage

    tiny.make_task(tmp_path / "tasks")
    tiny.write_jsonl(tmp_path / "landing" / "colours.jsonl", tiny.domain_rows(20))
    tasks = {"folder": str(tmp_path / "tasks"), "tasks": {"colours": None, "sayings": None}}

    def score():
        project = Project.open(make_experiment(benchmarks=tasks))
        for name in ("heldout_rows", "base_scores"):
            run_stage(project, "base", name, run_id="by hand")
        manifest = project.store.pointed("tiny", "base", "base_scores")
        return manifest.work["scores"], read_table(project.artifact(manifest) / "passage_items.parquet")

    done, before = score()
    assert done == {"reused": 0, "computed": len(tiny.COLOURS) + len(tiny.SAYINGS)}
    rows = [{"text": text} for text in (tiny.SAYINGS[0], "Coal is grey.", tiny.SAYINGS[2])]
    tiny.write_jsonl(tmp_path / "tasks" / "sayings.jsonl", rows)
    done, after = score()
    assert done["computed"] == 1
    changed = before.filter(before["nats"] != after["nats"])
    assert changed["item"].to_list() == [1]
    assert after["words"].to_list() == [8, 3, before["words"][2]]


def test_scores_tell_perplexity_and_gold_with_their_standard_errors():
    general = pl.DataFrame(
        [("t", 0, True, 0.5, -1.0), ("t", 1, False, -0.5, -2.0)], schema=GeneralItems.empty().schema, orient="row"
    )
    passages = pl.DataFrame([("p", 0, 30.0, 10), ("p", 1, 10.0, 10)], schema=PassageItems.empty().schema, orient="row")
    scores = summarise(DomainItems.empty(), general, passages)
    assert scores["general"]["t"]["gold"] == -1.5
    assert scores["general"]["t"]["se"] == {"margin": pytest.approx(0.5), "gold": pytest.approx(0.5)}
    assert scores["general"]["t"]["accuracy"]["se"] == pytest.approx(0.5)
    # Two nats a word; the two passages are off by 10 nats each, over 20 words.
    found = scores["passages"]["p"]
    assert (found["word_perplexity"], found["words"]) == (pytest.approx(math.exp(2)), 20)
    assert found["se"] == pytest.approx(math.exp(2) * 10 * math.sqrt(2) / math.sqrt(2) * 2 / 20)
    assert scores["general"].keys() == {"t", "all"}, "passages are no items that the gate counts"


def test_scores_without_passages_have_none():
    scores = summarise(DomainItems.empty(), GeneralItems.empty(), PassageItems.empty())
    assert scores["passages"] == {}


def test_gate_counts_items_of_choices_only(project):
    verdict = project.planner().verdict("0001")
    (general,) = [check for check in verdict["checks"] if check["name"] == "general"]
    assert general["items"] == len(tiny.COLOURS)


def test_word_perplexity_stands_where_general_scores_do(project, tmp_path):
    found = results(project)
    value = {
        e["iteration"]: f"{e['scores']['passages']['sayings']['word_perplexity']:.1f}" for e in found["iterations"]
    }
    columns, rows = general_rows(found)
    place = columns.index("sayings: word perplexity")
    assert {row[0]: row[place] for row in rows} == value
    assert len(set(value.values())) == 3, "each iteration has one of its own"

    all_found = findings(project)
    served = all_found["served"]
    assert f"word perplexity of sayings {value[served]} (base model {value['base']})" in all_found["verdict"]

    planner = project.planner()
    manifest = planner.stage("0001", "benchmark_scores").manifest
    shown = metadata(project, planner, "0001", "hit", manifest, 0.1)
    assert f"{shown['word_perplexity_sayings']:.1f}" == value["0001"]

    export(project, tmp_path / "adapter", 1, "adapter")
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert f"| sayings, word perplexity | {value['base']} | {value['0001']} |" in card


def test_exported_results_hold_word_perplexity_as_lm_eval_reads_it(project, tmp_path):
    from lm_eval.utils import make_table

    export(project, tmp_path / "results", 1, "results")
    (file,) = (tmp_path / "results").rglob("results_*.json")
    found = json.loads(file.read_text())
    (row,) = [line for line in make_table(found).splitlines() if line.startswith("|sayings")]
    value = project.planner().stage("0001", "benchmark_scores").manifest.facts["passages"]["sayings"]
    assert "word_perplexity" in row
    assert float(row.split("|")[7]) == pytest.approx(value["word_perplexity"], rel=1e-3)
