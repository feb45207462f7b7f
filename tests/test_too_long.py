"""What is too long is counted and told: a pair for training.max_length, a gold answer for policy.max_new_tokens."""

import polars as pl
import pytest

from apt_assets.engine.display import Display
from apt_assets.orchestration.run import run_loop
from apt_assets.report.explain import as_text, explain
from apt_assets.report.findings import findings
from apt_assets.report.page import page
from apt_assets.report.results import results
from apt_assets.report.tables import SCORE_COLUMNS, score_rows
from apt_assets.rows.answers import beyond_reach
from resources.store.tables import read_table
from resources.training.examples import Fit
from resources.training.trainer import TrainingRecipe, make_trainer, train_adapter
from tests import tiny
from tests.test_trainer import RECIPE

pytestmark = pytest.mark.slow("loop")

MAX_LENGTH = 100


class Heard(Display):
    def __init__(self):
        self.lines = []

    def line(self, text):
        self.lines.append(text)

    def progress(self, at):
        self.lines.append(f"{at.stage} of {at.iteration}: {at.what}, {at.done} {at.unit}")


def rows():
    """Every second prompt is too long; every fourth gold has more tokens than an answer may."""
    for n in range(40):
        gold = f"answer {n}, at length" if n % 4 == 0 else f"a{n}"
        yield {"prompt": f"Case {n}: " + "word " * (20 if n % 2 else 2) + "?", "answer": gold}


@pytest.fixture(scope="module", params=["dpo", "sft"])
def trained(request, tiny_folder, tmp_path_factory):
    """(the project, the lines that were told) of one iteration."""
    home = tmp_path_factory.mktemp(request.param)
    tiny.write_jsonl(home / "landing" / "rows.jsonl", list(rows()))
    training = {"max_length": MAX_LENGTH, "batch_size": 4, "objective": request.param}
    project = tiny.open_project(home, tiny_folder, training=training, mining={"questions": None})
    heard = Heard()
    result = run_loop(project, 1, heard)
    assert result.passed, result.reason
    return project, heard.lines


def counted(project):
    """(pairs, those whose prompts leave no room) of the first iteration, a token being a byte here."""
    manifest = project.store.pointed("tiny", "0001", "preference_pairs")
    pairs = read_table(project.store.open(manifest) / "preference_pairs.parquet")
    around = len(project.experiment.policy.system_prompt) + len(
        ["<|system|>", "<|end|>", "<|user|>", "<|end|>", "<|assistant|>"]
    )
    return pairs.height, sum(around + len(prompt) >= MAX_LENGTH for prompt in pairs["prompt"])


def test_pairs_that_are_left_out_are_told_before_training_and_stand_in_work_and_facts(trained):
    project, lines = trained
    made, left_out = counted(project)
    assert 0 < left_out < made
    (told,) = [n for n, line in enumerate(lines) if f"training.max_length = {MAX_LENGTH} tokens" in line]
    assert f"{left_out} of {made} pairs are left out" in lines[told]
    assert told < next(n for n, line in enumerate(lines) if line.startswith("adapter_checkpoint of 0001: done"))
    manifest = project.store.pointed("tiny", "0001", "adapter_checkpoint")
    steps = -(-(made - left_out) // 4)
    expected = {"pairs": made - left_out, "pairs_left_out": left_out, "pairs_cut": 0}
    assert {name: manifest.facts[name] for name in expected} == expected
    assert {name: manifest.work[name] for name in (*expected, "steps")} == {**expected, "steps": steps}


def test_tables_and_explain_count_the_pairs_that_were_trained_on(trained):
    project, _ = trained
    made, left_out = counted(project)
    found = results(project)
    assert found["iterations"][1]["pairs"] == made - left_out
    assert score_rows(found)[1][SCORE_COLUMNS.index("pairs")] == str(made - left_out)
    text = as_text(explain(project, "adapter_checkpoint", "0001"))
    for line in (f"pairs: {made - left_out}", f"pairs left out: {left_out}", "pairs cut: 0"):
        assert f"  work        {line}\n" in text
    assert "pairs left out" in page(findings(project))


def test_golds_beyond_max_new_tokens_are_told_before_anything_is_generated(trained):
    _, lines = trained
    told = [line for line in lines if "policy.max_new_tokens = 4 tokens" in line]
    longest = max(len(row["answer"]) for row in rows())
    for stage, what in (("eval_predictions of 0001", "mining"), ("base_scores of base", "test rows")):
        (line,) = [line for line in told if line.startswith(f"{stage}: {what}: ")]
        assert line.split(": ")[2].split(" of ")[0].isdigit()
    assert any(f"the longest has {longest}" in line for line in told)
    first = next(n for n, line in enumerate(lines) if line.startswith("eval_predictions of 0001: mining, "))
    assert next(n for n, line in enumerate(lines) if line.startswith("eval_predictions of 0001: mining: ")) < first


def test_only_golds_of_more_tokens_than_an_answer_may_have_are_told(tiny_folder):
    model = tiny_folder / "policy"
    assert beyond_reach(["four", "four", "a"], model, 4) is None
    assert beyond_reach(["fives", "four", "fives", "sixsix"], model, 4) == (
        "3 of 4 gold answers are longer than policy.max_new_tokens = 4 tokens (the longest has 6): the policy cannot "
        "give them whole; raise it"
    )


def test_answers_that_are_cut_are_told_and_their_ends_are_not_trained(tiny_folder, tmp_path):
    recipe = TrainingRecipe(**{**RECIPE.__dict__, "max_length": 40})
    pairs = pl.DataFrame({"prompt": ["a?", "b?"], "chosen": ["red", "r" * 60], "rejected": ["blue", "blue"]})
    told = []
    (tmp_path / "out").mkdir()
    train_adapter(tiny_folder / "policy", None, pairs, None, recipe, tmp_path / "out", fitted=told.append)
    assert told == [Fit(trained=2, left_out=0, cut=1)]
    trainer = make_trainer(tiny_folder / "policy", None, pairs, None, recipe, tmp_path / "more", lambda *_: None)
    batch = trainer.data_collator([trainer.train_dataset[row] for row in range(2)])
    scored = [
        ids[mask == 1].tolist() for ids, mask in zip(batch["input_ids"], batch["completion_mask"].bool(), strict=True)
    ]
    end = trainer.processing_class.eos_token_id
    assert [ids[-1] == end for ids in scored[:2]] == [True, False]
