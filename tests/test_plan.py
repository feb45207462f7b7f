"""What is stale and why, on a made-up store: no model, no Dagster, no files of a domain."""

import json
import os
import sys

import pytest

import apt_assets.assets.order  # noqa: F401 - declares the stages
from apt_assets.engine.plan import ENGINE_VERSION, in_order, stages_of
from apt_assets.engine.stage import SOURCES, STAGES
from apt_assets.promotion import LoopPlanner
from apt_assets.settings.experiment import Experiment
from apt_assets.settings.iterations import ADAPTER_PARTS, BASE
from tests.stores import local_store


class World:
    """Digests that a test can change."""

    def __init__(self):
        self.files = {"a.jsonl": "digest-a"}
        self.by_iteration: dict[str, dict[str, str]] = {}
        self.identities = {
            "base_model": "m1",
            "encoder": "e1",
            "grader": "none",
            "execution": "packed",
            "grader_execution": "none",
            "benchmark_tasks": "t1",
            "initial_adapter": "none",
            "anchor_folder": "none",
            "human_grades": "none",
        }
        self.edited: dict[str, str] = {}

    def landing_files(self, iteration, known):
        return self.by_iteration.get(iteration, self.files)

    def identity(self, name):
        return self.identities[name]

    def code(self, start):
        return {start: self.edited.get(start.rpartition(".")[2], "c1")}


class Bench:
    """Fills a store as a run would, with artifacts whose content the test decides."""

    def __init__(self, root):
        self.store, self.world = local_store(root), World()
        self.experiment = Experiment(name="t")
        self.content: dict[str, str] = {}
        self.refused: set[str] = set()
        self.computed: list[tuple[str, str]] = []

    def planner(self):
        return LoopPlanner(self.experiment, self.store, self.world)

    def set(self, section, **values):
        changed = getattr(self.experiment, section).model_copy(update=values)
        self.experiment = self.experiment.model_copy(update={section: changed})

    def run(self, iterations=2):
        """Compute whatever is not fresh, in order; returns what was computed."""
        self.computed = []
        for key in [BASE, *(f"{t:04d}" for t in range(1, iterations + 1))]:
            for name in stages_of(key):
                plan = self.planner().stage(key, name)
                if plan.status in ("stale", "missing"):
                    self.compute(key, name, plan)
                elif plan.status == "fresh":
                    self.store.point("t", key, plan.manifest)
        return self.computed

    def compute(self, key, name, plan):
        files = {part.split("/")[1] for s in STAGES.values() for part in s.inputs if part.startswith(f"{name}/")}
        files |= {"domain_items.parquet"} if name == "base_scores" else set()
        files |= set(ADAPTER_PARTS) if name == "promoted_adapter" else set()
        # Different inputs give different content, unless the test fixed the content of the stage.
        content = self.content.get(name, json.dumps(plan.inputs) + plan.fingerprint)
        with self.store.workspace() as folder:
            for file in files or ([] if name == "gate" else ["content"]):
                (folder / file).write_text(content)
            if name == "gate":
                passed = key not in self.refused
                (folder / "verdict.json").write_text(json.dumps({"passed": passed, "reason": "said the test"}))
            manifest = self.store.commit(
                folder, stage=name, fingerprint=plan.fingerprint, **plan.facts, facts={}, work={}, row_tables=[],
                iteration=key, seconds=0.0, run_id="r", created="now", engine=ENGINE_VERSION,
            )  # fmt: skip
        self.store.point("t", key, manifest)
        self.computed.append((key, name))

    def status(self, key, name):
        return self.planner().stage(key, name)


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    bench.run()
    return bench


def names(computed, key):
    return [name for iteration, name in computed if iteration == key]


def test_nothing_changed_computes_nothing(bench):
    assert bench.run() == []
    assert all(plan.status == "fresh" for plan in bench.planner().plan(2))


def test_threshold_change_does_not_regenerate_predictions(bench):
    bench.set("assessor", bad_below=3)
    plan = bench.status("0001", "bad_cases")
    assert (plan.status, plan.causes) == ("stale", ["assessor.bad_below: 4 -> 3"])
    assert names(bench.run(), "0001")[0] == "bad_cases"
    assert "eval_predictions" not in names(bench.computed, "0001")


def test_beta_change_trains_and_scores_only(bench):
    bench.set("training", beta=0.2)
    assert bench.status("0001", "adapter_checkpoint").causes == ["training.beta: 0.1 -> 0.2"]
    bench.run(1)
    assert names(bench.computed, "0001") == [
        "adapter_checkpoint",
        "benchmark_scores",
        "gate",
        "promoted_adapter",
    ]


def test_gate_change_decides_again_without_scoring(bench):
    bench.set("gate", general_tolerance=0.02)
    assert [name for _, name in bench.run(1)] == ["gate"]


def test_benchmark_task_edited_in_place_scores_and_screens_only(bench):
    # What is screened against other items is mostly the same afterwards.
    bench.content["screened_texts"] = "the same"
    bench.world.identities["benchmark_tasks"] = "t3"
    bench.run(1)
    bench.world.identities["benchmark_tasks"] = "t2"
    assert {name for _, name in bench.run(1)} == {"base_scores", "screened_texts", "benchmark_scores", "gate"}


def test_model_overwritten_at_the_same_path_is_noticed(bench):
    bench.world.identities["base_model"] = "m2"
    assert bench.status("0001", "policy").causes == ["base_model: m1 -> m2"]
    assert "eval_predictions" in names(bench.run(), "0001")


def test_flipped_back_setting_reuses_everything(bench):
    bench.set("training", beta=0.2)
    assert bench.run()
    bench.set("training", beta=0.1)
    assert bench.run() == []


def test_same_result_of_changed_input_cuts_off(tmp_path):
    bench = Bench(tmp_path)
    bench.content = {"domain_dataset": "the same rows", "heldout_rows": "the same questions"}
    bench.run()
    bench.world.files = {"a.jsonl": "digest-of-shuffled-lines"}
    assert {name for _, name in bench.run()} == {"heldout_rows", "domain_dataset"}


def test_stage_below_a_stale_one_waits_and_says_for_what(bench):
    bench.set("training", beta=0.2)
    plan = bench.status("0001", "benchmark_scores")
    assert (plan.status, plan.causes) == ("waiting", ["adapter_checkpoint of 0001 is stale"])
    assert bench.status("0002", "policy").causes == ["iteration 0001 is not up to date"]


def test_retrained_iteration_makes_the_next_start_from_its_new_adapter(bench):
    before = bench.status("0002", "policy").inputs["previous_adapter"]
    bench.set("training", beta=0.2)
    bench.run(1)
    plan = bench.status("0002", "policy")
    assert plan.causes == [f"previous_adapter: {before[:8]} -> {plan.inputs['previous_adapter'][:8]}"]


def test_refused_iteration_promotes_nothing_and_stops_the_loop(tmp_path):
    bench = Bench(tmp_path)
    bench.refused = {"0002"}
    bench.run(3)
    assert bench.status("0002", "promoted_adapter").status == "refused"
    assert names(bench.computed, "0003") == []
    plan = bench.status("0003", "policy")
    assert plan.status == "stopped"
    assert "refused iteration 0002 (said the test) and no new data has landed" in plan.causes[0]


def test_new_data_after_a_refusal_continues_from_the_last_promoted_adapter(tmp_path):
    bench = Bench(tmp_path)
    bench.refused = {"0002"}
    bench.world.by_iteration["0003"] = {"a.jsonl": "digest-a", "b.jsonl": "digest-b"}
    bench.run(3)
    assert bench.planner().promoted_before("0003") == "0001"
    adapter = SOURCES["previous_adapter"].version(bench.planner(), "0002")
    assert bench.status("0003", "policy").inputs == {"previous_adapter": adapter, "promoted_count": "1"}
    assert "promoted_adapter" in names(bench.computed, "0003")


def test_artifact_gone_from_the_store_is_computed_again(bench):
    import shutil

    manifest = bench.status("0001", "bad_cases").manifest
    shutil.rmtree(bench.store.open(manifest))
    assert bench.status("0001", "bad_cases").causes == ["its artifact is gone from the store"]
    assert ("0001", "bad_cases") in bench.run()


def test_stages_run_after_their_inputs():
    order = in_order()
    for name in order:
        inputs = [i for i in STAGES[name].input_stages() if i in STAGES]
        assert all(order.index(i) < order.index(name) for i in inputs)


def test_planning_needs_neither_torch_nor_dagster():
    import subprocess
    import sys

    code = (
        "import sys, apt_assets.assets.order, apt_assets.engine.plan, apt_assets.project, apt_assets.cli;"
        "print(sorted({'torch', 'dagster', 'polars', 'transformers', 'pandera'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_loop_of_more_iterations_than_python_calls_deep_is_planned(bench):
    last = f"{2 * sys.getrecursionlimit():04d}"
    plan = bench.status(last, "policy")
    assert (plan.status, plan.causes) == ("waiting", [f"iteration {int(last) - 1:04d} is not up to date"])


def test_iteration_after_many_refused_ones_starts_from_the_last_promoted_adapter(tmp_path):
    bench = Bench(tmp_path)
    bench.refused = {f"{t:04d}" for t in range(2, 9)}
    for number in range(2, 10):
        bench.world.by_iteration[f"{number:04d}"] = {"a.jsonl": f"digest-{number}"}
    bench.run(9)
    planner = bench.planner()
    assert planner.promoted_before("0009") == "0001"
    assert planner.promoted_count("0010") == 2, "0001 and 0009"


def test_trace_edited_with_its_old_size_and_mtime_is_noticed_by_a_process_that_has_read_it(bench):
    manifest = bench.status("0001", "policy").manifest
    path = bench.store.root / "traces" / "policy" / f"{manifest.fingerprint}.json"
    whole, stat = path.read_text(), path.stat()
    path.write_text(whole.replace('"run_id": "r"', '"run_id": "s"'))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert bench.status("0001", "policy").status == "stale", "it does not match its check"
    path.write_text(whole)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert bench.status("0001", "policy").status == "fresh"
