"""The asset graph, as a small text that shows in review what a change did to it."""

import contextlib
import os
import shutil
import warnings
from pathlib import Path

import dagster as dg
from dagster._cli.dev import dev_command

from apt_assets.orchestration.definitions import build_definitions
from apt_assets.orchestration.ui import SUPERSEDED
from apt_assets.project import Project
from apt_assets.settings.experiment import REPOSITORY

SNAPSHOT = Path(__file__).with_name("asset_graph.txt")


def describe(definitions: dg.Definitions) -> str:
    graph = definitions.resolve_asset_graph()
    lines = []
    for key in graph.toposorted_asset_keys:
        node = graph.get(key)
        traits = [node.group_name, "iteration" if node.is_partitioned else "unpartitioned"]
        traits += ["observable"] if node.is_observable else []
        traits += [f"check:{check.name}" for check in sorted(node.check_keys)]
        parents = sorted(parent.to_user_string() for parent in node.parent_keys)
        lines.append(f"{key.to_user_string()} [{', '.join(traits)}] <- {', '.join(parents) or '-'}")
    jobs = sorted(job.name for job in definitions.jobs or [])
    return "\n".join([*lines, f"jobs: {', '.join(jobs)}", ""])


def test_asset_graph_is_the_reviewed_one(make_experiment):
    found = describe(build_definitions(Project.open(make_experiment())))
    if os.environ.get("UPDATE_SNAPSHOT"):
        SNAPSHOT.write_text(found)
    assert found == SNAPSHOT.read_text(), "if this change is meant: UPDATE_SNAPSHOT=1 make test, and review the diff"


def test_changed_setting_changes_the_code_version_of_its_own_stage_only(make_experiment):
    def versions(**changes):
        graph = build_definitions(Project.open(make_experiment(**changes))).resolve_asset_graph()
        return {key.to_user_string(): graph.get(key).code_version for key in graph.materializable_asset_keys}

    before, after = versions(), versions(training={"beta": 0.3})
    assert {name for name in before if before[name] != after[name]} == {"adapter_checkpoint"}


def test_loop_edge_is_explained_where_people_look(make_experiment):
    graph = build_definitions(Project.open(make_experiment())).resolve_asset_graph()
    description = graph.get(dg.AssetKey("previous_adapter")).description
    assert "loop edge" in description
    assert "cycle" in description
    assert all(graph.get(key).description for key in graph.get_all_asset_keys())


def test_groups_are_listed_in_the_order_of_the_loop_with_all_that_comes_from_outside_in_the_first(make_experiment):
    graph = build_definitions(Project.open(make_experiment())).resolve_asset_graph()
    places: dict[str, list[int]] = {}
    for place, key in enumerate(graph.toposorted_asset_keys):
        node = graph.get(key)
        assert node.is_observable == (node.group_name == "0_sources")
        if node.is_partitioned:
            places.setdefault(node.group_name, []).append(place)
    firsts = [min(places[name]) for name in sorted(places)]
    assert firsts == sorted(firsts)


def test_first_visit_to_the_ui_is_not_greeted_with_a_dialogue(tmp_path):
    shutil.copy(REPOSITORY / "dagster_home" / "dagster.yaml", tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert not instance.nux_enabled
        assert not instance.telemetry_enabled


def test_notice_of_a_command_that_takes_its_place_is_silenced_by_its_words():
    with warnings.catch_warnings(record=True) as given, contextlib.suppress(TypeError):
        warnings.simplefilter("always")
        dev_command.callback()
    # What stands in $PYTHONWARNINGS is compared with the beginning, letter by letter.
    assert [one for one in given if str(one.message).startswith(SUPERSEDED.removeprefix("ignore:"))]
