"""Iteration keys and what Dagster makes of a partition that someone else added: nothing is touched."""

import json
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.observe import observe

from apt_assets.orchestration.definitions import build_definitions
from apt_assets.report.show import parse_key
from apt_assets.settings.experiment import UsageError
from apt_assets.settings.iterations import key_of, number_of
from tests.torture.hostile import KEYS

# Dagster itself refuses some of these.
FOR_DAGSTER = ["../x", "0001/../../x", "base", "00010", "\u0660\u0660\u0660\u0661", "/etc", "\u202e1000"]


@pytest.mark.parametrize("key", KEYS, ids=ascii)
def test_key_of_another_shape_is_refused(key):
    with pytest.raises(ValueError, match="an iteration key is four digits such as 0001"):
        number_of(key)


@pytest.mark.parametrize("key", [key for key in KEYS if key not in ("1", "base", "00010")], ids=ascii)
def test_iteration_of_another_shape_is_refused_on_the_command_line(key):
    with pytest.raises(UsageError, match="give a number such as 1, or base"):
        parse_key(key)


@pytest.mark.parametrize("number", [-1, 0, 10_000])
def test_number_that_is_no_iteration_has_no_key(number):
    with pytest.raises(ValueError, match="an iteration is 1 to 9999"):
        key_of(number)


def files(home: Path) -> dict[str, bytes]:
    """Every file around and in the home, but for Dagster's own records and locks."""
    found = [path for path in home.rglob("*") if path.is_file() and "dagster_home" not in path.parts]
    return {str(path): path.read_bytes() for path in found if "locks" not in path.parts}


@pytest.mark.parametrize("asset", ["domain_dataset", "eval_predictions", "promoted_adapter"])
def test_partition_that_is_no_iteration_fails_with_our_message_and_touches_nothing(started, asset):
    job = build_definitions(started.project).resolve_job_def("iterate")
    before = files(started.home)
    for key in FOR_DAGSTER:
        started.instance.add_dynamic_partitions("iteration", [key])
        result = job.execute_in_process(
            instance=started.instance, partition_key=key, asset_selection=[dg.AssetKey(asset)], raise_on_error=False
        )
        assert not result.success, key
        (failure,) = (e.step_failure_data.error for e in result.all_node_events if e.is_step_failure)
        assert f"an iteration key is four digits such as 0001, got {key!r}" in failure.to_string()
    assert files(started.home) == before


def test_partition_that_is_no_iteration_does_not_keep_sources_from_being_observed(started):
    (started.project.store.root / "snapshots" / "x.json").write_text(json.dumps({"files": ["../secret.jsonl"]}))
    started.instance.add_dynamic_partitions("iteration", ["../x", "base"])
    definitions = build_definitions(started.project)
    source = definitions.resolve_assets_def(dg.AssetKey("landing_files"))
    assert observe([source], instance=started.instance).success
    assert started.observed("landing_files", "0001")
    assert not started.observed("landing_files", "../x")


def test_partition_that_is_no_iteration_does_not_stop_the_sensors(started):
    started.instance.add_dynamic_partitions("iteration", ["../x", "base", "00010"])
    started.land("b.jsonl", (5, 9))
    assert started.notice() == "opened iteration 0002 with b.jsonl"
    assert isinstance(started.drive(), dg.RunRequest)
