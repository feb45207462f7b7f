"""Dagster's status of every partition, and its causes, against the plan, after each kind of edit."""

import json
import random
import shutil

import dagster as dg
import pytest
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleCauseCategory, StaleStatus
from dagster._core.loader import LoadingContextForTest

import apt_assets.assets.order  # noqa: F401 - declares the stages
from apt_assets.engine.display import Display
from apt_assets.engine.plan import stages_of
from apt_assets.orchestration.definitions import build_definitions
from apt_assets.orchestration.instance import Dagster
from apt_assets.orchestration.ledger import Ledger, in_graph
from apt_assets.orchestration.run import run_loop
from apt_assets.project import Project
from apt_assets.settings.iterations import BASE
from tests import tiny

pytestmark = pytest.mark.slow("loop")


class World:
    """A project of two iterations that are up to date, with its own copies of the models, that a test edits."""

    def __init__(self, ran, make_experiment, tmp_path, tiny_folder):
        ran(2)
        for name in ("policy", "encoder", "tasks"):
            shutil.copytree(tiny_folder / name, tmp_path / name)
        self.make, self.home = make_experiment, tmp_path
        tiny.make_adapter(tmp_path / "specialist", tmp_path / "policy")
        self.set()

    def set(self, **changes):
        changes["policy"] = {"model": str(self.home / "policy"), **changes.get("policy", {})}
        changes["retrieval"] = {"encoder": str(self.home / "encoder"), **changes.get("retrieval", {})}
        changes["benchmarks"] = {"folder": str(self.home / "tasks"), **changes.get("benchmarks", {})}
        self.project = Project.open(self.make(**changes))

    def run(self):
        result = run_loop(self.project, 2, Display())
        assert result.passed, result.reason
        return result.computed

    def edit_lines(self, change):
        path = self.project.landing / "colours.jsonl"
        path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")

    def statuses(self):
        """{(iteration, asset): (Dagster's status, code changed, assets whose data changed)}, when Dagster
        has been told what is outside, as the sensors and every run do."""
        dagster = Dagster(self.project, Display())
        dagster.settle()
        graph: AssetGraph = build_definitions(self.project).resolve_asset_graph()
        resolver = CachingStaleStatusResolver(dagster.instance, graph, LoadingContextForTest(dagster.instance))
        found = {}
        for key in (BASE, "0001", "0002"):
            for name in stages_of(key):
                if name == "gate":
                    continue
                where = (
                    graph.get_all_asset_keys() and next(k for k in graph.get_all_asset_keys() if k.path == [name]),
                )
                partition = None if key == BASE else key
                causes = resolver.get_stale_causes(*where, partition)
                found[key, name] = (
                    resolver.get_status(*where, partition),
                    any(cause.category == StaleCauseCategory.CODE for cause in causes),
                    {c.dependency_asset_key.path[0] for c in causes if c.category == StaleCauseCategory.DATA},
                )
        return found

    def assert_agreement(self):
        """Every stage's plan and Dagster's status say the same; returns the plan's statuses."""
        statuses, planner = self.statuses(), self.project.planner()
        for (key, name), (status, code, data) in statuses.items():
            plan = planner.stage(key, name)
            changes = list(plan.changes)
            if name == "promoted_adapter":  # the gate is no asset: its changes show on what it guards
                changes += planner.stage(key, "gate").changes
            expected_code = any(change.kind in ("settings", "libraries", "code") for change in changes)
            expected_data = {
                asset
                for change in changes
                if change.kind in ("inputs", "identities")
                for asset in in_graph(change.name.split("/")[0])
            }
            where = f"{name} of {key}: plan {plan.status} {plan.causes}, Dagster {status} {code} {data}"
            if plan.status == "fresh":
                assert status == StaleStatus.FRESH, where
            elif plan.manifest is None:
                assert status == StaleStatus.MISSING, where
            else:
                assert code == expected_code, where
                assert expected_data - {"benchmark_scores"} <= data | {"base_scores", "reference_scores"}, where
                if plan.status == "stale":
                    assert status == StaleStatus.STALE, where
                    assert code or data & expected_data, where
                elif status == StaleStatus.FRESH:
                    # Dagster looks one step up; the plan says what that step waits for.
                    assert not changes, where
                    assert self.stale_above(statuses, planner, key, name), where
        return {(key, name): planner.stage(key, name).status for key, name in statuses}

    def stale_above(self, statuses, planner, key, name):
        """Whether Dagster shows something stale above, in this iteration, in base, or in an earlier one."""
        earlier = [k for k in (BASE, "0001", "0002") if k <= key or k == BASE]
        return any(
            statuses[k, n][0] != StaleStatus.FRESH for k, n in statuses if k in earlier and (k, n) != (key, name)
        )


@pytest.fixture
def world(ran, make_experiment, tmp_path, tiny_folder):
    return World(ran, make_experiment, tmp_path, tiny_folder)


def test_run_shows_each_stage_as_computed_once_and_nothing_is_reported_after_it(world):
    # The same data as 0001.
    shared = {("0002", name) for name in ("domain_dataset", "screened_texts", "retrieval_index")}
    instance = Dagster(world.project, Display()).instance
    for key in (BASE, "0001", "0002"):
        for name in set(stages_of(key)) - {"gate"}:
            wanted = dg.AssetRecordsFilter(dg.AssetKey(name), asset_partitions=None if key == BASE else [key])
            shown = [r.asset_materialization.metadata for r in instance.fetch_materializations(wanted, limit=9).records]
            statuses = [metadata["status"].value for metadata in shown]
            assert set(statuses) == {"hit"} if (key, name) in shared else statuses == ["computed"], (key, name)


def test_settling_twice_reports_nothing_the_second_time_whatever_was_changed_back_or_wiped(world):
    instance = Dagster(world.project, Display()).instance

    def settle():
        return Ledger(world.project, instance).settle(["0001", "0002"])

    assert settle() == []
    world.edit_lines(lambda lines: [line.replace("number 7?", "number 700?") for line in lines])
    settle()
    world.edit_lines(lambda lines: [line.replace("number 700?", "number 7?") for line in lines])
    settle()
    assert settle() == []
    assert set(world.assert_agreement().values()) == {"fresh"}

    instance.wipe_assets([dg.AssetKey("preference_pairs")])
    reported = settle()
    assert {("0001", "preference_pairs"), ("0002", "preference_pairs")} <= set(reported)
    assert settle() == []
    assert set(world.assert_agreement().values()) == {"fresh"}


def test_dagster_and_plan_agree_after_every_kind_of_edit_and_after_the_run(world, monkeypatch):
    import yaml

    assert set(world.assert_agreement().values()) == {"fresh"}
    stale = {}

    def check(what):
        stale[what] = {(k, n) for (k, n), status in world.assert_agreement().items() if status == "stale"}

    for what, changes in {
        "threshold": {"assessor": {"bad_below": 2}},
        "beta": {"training": {"beta": 0.3}},
        "questions": {"mining": {"questions": 8}},
        "gate": {"gate": {"resamples": 500}},
        "answer length": {"policy": {"max_new_tokens": 3}},
        "initial adapter": {"policy": {"initial_adapter": "specialist"}},
    }.items():
        world.set(**changes)
        check(what)
    world.set()
    assert set(world.assert_agreement().values()) == {"fresh"}, "flipping back is all hits, without a run"

    real = Project.code
    monkeypatch.setattr(
        Project,
        "code",
        lambda self, start: {
            k: v if k != "resources.assessors.labels" else "0" * 16 for k, v in real(self, start).items()
        },
    )
    check("rubric")
    monkeypatch.setattr(Project, "code", real)

    weights = world.home / "policy" / "model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-4] + bytes(4))
    check("model")
    weights.write_bytes(before)

    task = world.home / "tasks" / "colours.yaml"
    content = yaml.safe_load(task.read_text())
    task.write_text(yaml.safe_dump({**content, "doc_to_text": "{{question}}:"}))
    check("task")
    task.write_text("# the same, in another layout\n" + yaml.safe_dump(content))

    world.edit_lines(lambda lines: random.Random(0).sample(lines, len(lines)))
    check("shuffle")
    world.edit_lines(lambda lines: [line.replace("number 7?", "number 700?") for line in lines])
    check("edited row")

    assert stale == {
        "threshold": {("0001", "bad_cases")},
        "beta": {("0001", "adapter_checkpoint")},
        "questions": {("0001", "eval_predictions")},
        "gate": set(),  # only the gate itself, which is no asset: promoted_adapter waits for it
        "answer length": {(BASE, "base_scores"), ("0001", "eval_predictions")},
        "initial adapter": {(BASE, "base_scores"), (BASE, "anchor_texts"), ("0001", "policy")},
        "rubric": {(BASE, "heldout_rows"), ("0001", "eval_predictions")},
        "model": {(BASE, "base_scores"), (BASE, "anchor_texts"), ("0001", "policy")},
        "task": {(BASE, "base_scores"), ("0001", "screened_texts"), ("0002", "screened_texts")},
        "shuffle": set(),
        "edited row": {(BASE, "heldout_rows"), ("0001", "domain_dataset"), ("0002", "domain_dataset")},
    }
    assert world.run()
    assert set(world.assert_agreement().values()) == {"fresh"}


def test_stage_computed_alone_leaves_what_does_not_depend_on_it_fresh_in_both(world):
    from apt_assets.engine.execute import run_stage

    # A training row's metadata: the data set is new, none of the tables that anything reads is.
    world.edit_lines(lambda lines: [json.dumps({**json.loads(lines[0]), "source": "web"}), *lines[1:]])
    assert {n for (k, n), s in world.assert_agreement().items() if s == "stale" and k == "0001"} == {"domain_dataset"}
    for key, name in ((BASE, "heldout_rows"), ("0001", "domain_dataset"), ("0002", "domain_dataset")):
        outcome = run_stage(world.project, key, name, run_id="by hand")
        assert outcome.status == "computed" if key != "0002" else "hit"
    assert set(world.assert_agreement().values()) == {"fresh"}
