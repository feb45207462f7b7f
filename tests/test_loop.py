"""The whole loop on a tiny random policy: every stage real, through Dagster."""

import pytest

from apt_assets.loop import run_loop
from apt_assets.project import Project
from tests import tiny


def stages(pairs, iteration):
    return {stage for key, stage in pairs if key == iteration}


@pytest.fixture
def project(make_experiment, tmp_path):
    tiny.write_jsonl(tmp_path / "landing" / "colours.jsonl", tiny.domain_rows(60))
    return Project.open(make_experiment())


def run(project, iterations):
    lines = []
    return run_loop(project, iterations, lines.append), lines


def test_full_loop_trains_two_iterations_then_reuses_everything(project):
    result, _ = run(project, 2)
    assert result.passed, result.reason
    for key in ("0001", "0002"):
        assert "promoted_adapter" in stages(result.computed, key)
    again, lines = run(project, 2)
    assert again.passed
    assert again.computed == []
    assert len(again.reused) == len(result.computed) + len(result.reused)
    assert lines == []
