"""The whole loop on a tiny random policy: every stage real, through Dagster."""

import json

import pytest

from apt_assets.engine.display import Display
from apt_assets.orchestration.run import run_loop
from apt_assets.project import Project
from tests import tiny

pytestmark = pytest.mark.slow("loop")


def stages(pairs, iteration):
    return {stage for key, stage in pairs if key == iteration}


@pytest.fixture
def project(make_experiment, tmp_path):
    tiny.write_jsonl(tmp_path / "landing" / "colours.jsonl", tiny.domain_rows(60))
    return Project.open(make_experiment())


class Recorded(Display):
    def __init__(self):
        self.lines = []

    def line(self, text):
        self.lines.append(text)


def run(project, iterations):
    recorded = Recorded()
    return run_loop(project, iterations, recorded), recorded.lines


def test_every_long_part_of_an_iteration_tells_how_far_it_is_up_to_its_end(loops):
    parts = json.loads((loops / "told.json").read_text())[0]["parts"]
    ended = {(stage, unit) for stage, unit, done, total in parts if done == total > 0}
    assert {
        ("base_scores", "answers"), ("base_scores", "items"), ("retrieval_index", "texts"),
        ("eval_predictions", "answers"), ("similar_predictions", "answers"), ("adapter_checkpoint", "pairs"),
        ("adapter_checkpoint", "steps"), ("benchmark_scores", "answers"), ("benchmark_scores", "items"),
    } <= ended  # fmt: skip
    assert all(0 <= done <= total for *_, done, total in parts)


def test_full_loop_trains_two_iterations_then_reuses_everything(loops, ran):
    first, second = json.loads((loops / "told.json").read_text())
    assert "promoted_adapter" in stages(first["computed"], "0001")
    assert "promoted_adapter" in stages(second["computed"], "0002")
    assert stages(second["computed"], "0001") == set()
    again, lines = run(Project.open(ran(2)), 2)
    assert again.passed
    assert again.computed == []
    assert len(again.reused) == len(second["computed"]) + len(second["reused"]) == 32
    assert lines == []


def test_damaged_artifacts_are_noticed_and_only_they_are_computed_again(ran):
    import shutil

    project = Project.open(ran(1))
    pointed = {name: project.store.pointed("tiny", "0001", name) for name in ("bad_cases", "adapter_checkpoint")}
    (project.store.open(pointed["bad_cases"]) / "bad_cases.parquet").write_bytes(b"not parquet")
    weights = project.store.open(pointed["adapter_checkpoint"]) / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    shutil.rmtree(project.store.root / "lancedb")
    result, _ = run(project, 1)
    assert result.passed, result.reason
    assert stages(result.computed, "0001") == {"bad_cases", "adapter_checkpoint", "retrieval_index"}
    assert weights.read_bytes()[-1] == content[-1] ^ 1
    assert len(list((project.store.root / "quarantine").iterdir())) == 3


def test_file_edited_while_a_stage_reads_it_commits_nothing(project, monkeypatch):
    import dataclasses

    from apt_assets.engine.execute import StageBlocked, run_stage
    from apt_assets.engine.stage import STAGES

    original = STAGES["domain_dataset"]

    def compute_and_edit(step):
        original.compute(step)
        with (project.landing / "colours.jsonl").open("a") as file:
            file.write(json.dumps({"prompt": "Late?", "answer": "yes"}) + "\n")

    monkeypatch.setitem(STAGES, "domain_dataset", dataclasses.replace(original, compute=compute_and_edit))
    with pytest.raises(StageBlocked, match="changed while it ran"):
        run_stage(project, "0001", "domain_dataset", run_id="r")
    assert project.store.pointed("tiny", "0001", "domain_dataset") is None


def test_evaluation_rows_reach_neither_pool_nor_neighbours_nor_pairs(ran):
    from resources.store.tables import read_table

    project = Project.open(ran(2))

    def ids(iteration, stage, table):
        manifest = project.store.pointed("tiny", iteration, stage)
        return set(read_table(project.store.open(manifest) / f"{table}.parquet")["row_id"])

    held_out = ids("0001", "domain_dataset", "validation") | ids("0001", "domain_dataset", "test")
    assert len(held_out) > 10
    for iteration in ("0001", "0002"):
        for stage in ("eval_predictions", "bad_cases", "neighbors", "preference_pairs"):
            assert not ids(iteration, stage, stage) & held_out


def test_no_pickle_anywhere_in_the_store(ran):
    project = Project.open(ran(1))
    suffixes = {path.suffix for path in project.store.root.rglob("*") if path.is_file()}
    assert not suffixes & {".pkl", ".pickle", ".bin", ".pt", ".pth", ".npy"}
    assert {".parquet", ".json", ".safetensors"} <= suffixes


def test_new_data_after_a_refused_gate_goes_on_from_what_was_promoted(make_experiment, tmp_path):
    tiny.write_jsonl(tmp_path / "landing" / "colours.jsonl", tiny.domain_rows(60))
    # Without validation rows the gate must refuse.
    project = Project.open(make_experiment(data={"validation": 0.0}))
    first, _ = run(project, 2)
    assert not first.passed
    assert "iteration 0001 is not promoted" in first.reason
    assert stages(first.computed, "0002") == set()

    tiny.write_jsonl(tmp_path / "landing" / "more.jsonl", tiny.domain_rows(80)[60:])
    second, _ = run(project, 2)
    assert "adapter_checkpoint" in stages(second.computed, "0002")
    assert "adapter_checkpoint" not in stages(second.computed, "0001")
    assert project.planner().stage("0002", "policy").inputs["previous_adapter"] == "none"


def land_what_the_policy_says_anyway(path):
    """Questions whose gold is the policy's own answer."""
    from resources.model.policy import load_policy

    project = Project.open(path)
    prompts = [row["prompt"] for row in tiny.domain_rows(30)]
    said = tiny.answers(
        load_policy(project.models.base_model, dtype="float32"), prompts, max_new_tokens=4, batch_tokens=1024
    )
    rows = [{"prompt": p, "answer": a} for p, a in zip(prompts, said, strict=True) if a.strip("\x00 ")]
    tiny.write_jsonl(project.landing / "known.jsonl", rows)


def test_iteration_without_bad_cases_ends_the_loop_and_is_no_failure(make_experiment):
    path = make_experiment(mining={"questions": None})
    land_what_the_policy_says_anyway(path)
    project = Project.open(path)
    result, lines = run(project, None)
    assert result.passed
    assert result.reason == "iteration 0001 found no bad case: there is nothing to train on"
    assert stages(result.computed, "0001") == {
        "domain_dataset", "screened_texts", "retrieval_index", "policy", "eval_predictions", "bad_cases"
    }  # fmt: skip
    assert any("the loop ends here" in line for line in lines)
    assert run(project, None)[0].computed == []


def test_fine_tuning_on_every_row_goes_on_where_no_answer_is_wrong(make_experiment):
    path = make_experiment(
        mining={"questions": None},
        pairs={"replay": "pool", "replay_share": None},
        training={"objective": "sft", "learning_rate": 1e-3},
        gate=tiny.OPEN_GATE,
    )
    land_what_the_policy_says_anyway(path)
    project = Project.open(path)
    result, _ = run(project, 1)
    assert result.passed
    made = project.planner().stage("0001", "preference_pairs").manifest
    trained = project.planner().stage("0001", "domain_dataset").manifest.facts
    assert project.planner().stage("0001", "bad_cases").manifest.facts["rows"] == 0
    assert made.facts["kinds"] == {"replay": trained["train_rows"]}
    assert "adapter_checkpoint" in stages(result.computed, "0001")
