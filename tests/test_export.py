"""What is exported is what others load: peft, transformers, TRL and lm-eval themselves."""

import json
import re

import pytest
import yaml

from apt_assets.report.export import export
from apt_assets.settings.experiment import UsageError


def test_exported_pairs_train_a_bare_trl_trainer(project, tmp_path):
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    assert export(project, tmp_path / "pairs", 1, "pairs") == "0001"
    pairs = load_dataset("json", data_files=str(tmp_path / "pairs" / "train.jsonl"), cache_dir=tmp_path / "cache")[
        "train"
    ]
    counted = project.planner().stage("0001", "preference_pairs").manifest.facts["rows"]
    assert len(pairs) == counted > 0
    assert pairs[0]["prompt"][0] == {"role": "system", "content": 'Say "one" | colour.'}
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(project.models.base_model),
        args=DPOConfig(output_dir=str(tmp_path / "out"), max_steps=2, use_cpu=True, bf16=False, report_to=[],
                       logging_steps=1, save_strategy="no", disable_tqdm=True),
        train_dataset=pairs,
        processing_class=AutoTokenizer.from_pretrained(project.models.base_model),
    )  # fmt: skip
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)  # ln 2: policy and reference are still the same


def test_exported_results_are_read_by_lm_eval(project, tmp_path):
    from lm_eval.utils import make_table

    export(project, tmp_path / "results", 1, "results")
    (file,) = (tmp_path / "results").rglob("results_*.json")
    scores = json.loads((tmp_path / "results" / "scores.json").read_text())
    accuracy = scores["general"]["colours"]["accuracy"]
    found = json.loads(file.read_text())
    (row,) = [line for line in make_table(found).splitlines() if line.startswith("|colours")]
    assert float(row.split("|")[7]) == pytest.approx(accuracy["mean"], abs=1e-4)
    assert found["n-samples"]["colours"]["effective"] == accuracy["n"]


@pytest.mark.parametrize("what", ["adapter", "merged"])
def test_model_card_tells_scores_and_data_and_its_code_loads_the_model(project, tmp_path, what, monkeypatch):
    folder = tmp_path / what
    export(project, folder, 1, what)
    card = (folder / "README.md").read_text()
    front, text = card.removeprefix("---\n").split("---\n", 1)
    assert yaml.safe_load(front)["library_name"] == {"adapter": "peft", "merged": "transformers"}[what]
    planner = project.planner()
    test = planner.stage("0001", "benchmark_scores").manifest.facts["domain"]["test"]["exact"]
    assert f"{100 * test['mean']:.1f} [" in text
    assert planner.stage("0001", "domain_dataset").manifest.data_version[:16] in text
    assert "The gate promoted it." in text
    facts = planner.stage("0001", "domain_dataset").manifest.facts
    assert ", ".join(f"{split} {facts[f'{split}_rows']}" for split in ("train", "validation", "test")) in text
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1].replace("this folder", str(folder))
    found = {}
    exec(code, found)
    assert found["model"].num_parameters() > 0
    assert found["tokenizer"]("red")["input_ids"]


def test_a_folder_with_files_or_an_iteration_that_is_not_there_is_refused_and_nothing_is_written(project, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match="not an empty folder"):
        export(project, tmp_path / "full", 1, "adapter")
    with pytest.raises(UsageError, match=r"iteration 0007 was not opened yet \(opened: 0001, 0002\)"):
        export(project, tmp_path / "new", 7, "pairs")
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "mine.txt"]
