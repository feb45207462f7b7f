"""A second cold run gives the same content, and where that cannot be promised the manifest says so."""

import pytest

import apt_assets.assets.order  # noqa: F401 - declares the stages
from apt_assets.engine.display import Display
from apt_assets.engine.plan import stages_of
from apt_assets.engine.stage import STAGES, not_repeatable
from apt_assets.orchestration.run import run_loop
from apt_assets.settings.experiment import Experiment
from apt_assets.settings.iterations import BASE
from tests import tiny
from tests.conftest import BOTH_TASKS


def manifests(project):
    planner = project.planner()
    keys = [BASE, *project.store.iterations(project.experiment.name)]
    return {(key, name): planner.stage(key, name).manifest for key in keys for name in stages_of(key)}


def test_two_cold_runs_on_a_cpu_give_the_same_data_version_at_every_stage(project, tiny_folder, tmp_path):
    tiny.land_hostile(tmp_path)
    other = tiny.open_project(tmp_path, tiny_folder, **BOTH_TASKS)
    assert run_loop(other, 2, Display()).passed
    first, second = manifests(project), manifests(other)
    unpartitioned = sum(not stage.partitioned for stage in STAGES.values())
    assert len(first) == unpartitioned + 2 * (len(STAGES) - unpartitioned)
    assert {where: m.data_version for where, m in first.items()} == {
        where: m.data_version for where, m in second.items()
    }
    assert first[BASE, "base_scores"].run_id != second[BASE, "base_scores"].run_id
    assert not any(manifest.not_repeatable for manifest in first.values())


@pytest.mark.parametrize(
    ("settings", "stage", "said"),
    [
        ({"policy": {"device": "cuda"}}, "adapter_checkpoint", ["policy.device: cuda"]),
        ({"policy": {"device": "cuda"}}, "retrieval_index", ["policy.device: cuda"]),
        ({"policy": {"device": "cuda"}}, "domain_dataset", []),
        ({"policy": {"device": "cuda", "backend": "openai", "server": {"url": "http://gpu/v1"}}}, "eval_predictions",
         ["policy.device: cuda", "policy.backend: openai"]),
        ({"assessor": {"kind": "rubric", "rubric": {"endpoint": "http://judge/v1", "model": "m"}}}, "eval_predictions",
         ["assessor.rubric.endpoint: http://judge/v1"]),
        ({"assessor": {"kind": "rubric", "rubric": {"model": "m"}}}, "eval_predictions", []),
    ],
)  # fmt: skip
def test_manifest_names_the_settings_that_another_cold_run_need_not_repeat(settings, stage, said):
    experiment = Experiment(name="t", **settings)
    assert not_repeatable(STAGES[stage].settings_slice(experiment)) == said
