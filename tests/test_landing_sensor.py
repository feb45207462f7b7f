"""What the landing sensor opens when files land, grow, change or vanish. The daemon: test_daemon.py."""

import json
import os

import dagster as dg
import pytest

from apt_assets.orchestration.definitions import build_definitions
from apt_assets.orchestration.sensors import Look
from apt_assets.settings.iterations import BASE
from tests import tiny
from tests.made_up import asked


def test_file_still_growing_is_waited_for_by_both_sensors_and_noticed_once_it_stands_still(bench):
    repository = build_definitions(bench.project).get_repository_def()
    cursors = {"landing": None, "loop_driver": None}

    def tick(name):
        context = dg.build_sensor_context(bench.instance, cursors[name], repository_def=repository)
        data = repository.get_sensor_def(name).evaluate_tick(context)
        cursors[name] = data.cursor
        return data

    assert tick("landing").skip_message == "nothing new among 0 landed files"
    path = bench.land("a.jsonl", (0, 3))
    assert tick("landing").skip_message == "waiting until a.jsonl is complete"
    assert tick("loop_driver").skip_message == "waiting until a.jsonl is complete"
    with path.open("a") as file:
        file.write(json.dumps(tiny.domain_rows(4)[3]) + "\n")
    assert tick("landing").skip_message == "waiting until a.jsonl is complete"
    assert tick("loop_driver").skip_message == "waiting until a.jsonl is complete"
    assert bench.opened() == {}
    assert tick("landing").skip_message == "opened iteration 0001 with a.jsonl"
    (request,) = tick("loop_driver").run_requests
    assert asked(request) == ("score_base", None)
    assert tick("landing").skip_message == "nothing new among 1 landed files"


def test_look_tells_new_grown_and_touched_files_from_those_that_stand_still(bench):
    a, b = bench.land("a.jsonl"), bench.land("b.jsonl")
    look = Look.now(bench.project)
    assert look.unstable(None) == look.unstable("") == ["a.jsonl", "b.jsonl"]
    assert look.unstable(look.cursor) == []
    os.utime(a, ns=(0, a.stat().st_mtime_ns + 1))
    assert Look.now(bench.project).unstable(look.cursor) == ["a.jsonl"]
    b.unlink()
    bench.land("c.jsonl")
    assert Look.now(bench.project).unstable(look.cursor) == ["a.jsonl", "c.jsonl"]


@pytest.mark.parametrize("cursor", ["not json", "[]", "7", '{"a.jsonl": null}', '"a.jsonl"'])
def test_cursor_that_was_tampered_with_costs_one_look(bench, cursor):
    bench.land("a.jsonl")
    assert Look.now(bench.project).unstable(cursor) == ["a.jsonl"]


def test_landed_files_open_the_first_iteration_with_exactly_these_files_and_only_once(bench):
    bench.land("a.jsonl")
    bench.land("b.jsonl", (5, 9))
    (bench.project.landing / "notes.txt").write_text("no data")
    (bench.project.landing / ".c.jsonl.partial").write_text("being landed")
    assert bench.notice() == "opened iteration 0001 with a.jsonl, b.jsonl"
    assert bench.opened() == {"0001": ["a.jsonl", "b.jsonl"]}
    assert list(bench.instance.get_dynamic_partitions("iteration")) == ["0001"]
    assert bench.notice() == "nothing new among 2 landed files"
    bench.set()
    assert bench.notice() == "nothing new among 2 landed files", "the project was opened anew, as a new process does"
    assert bench.opened() == {"0001": ["a.jsonl", "b.jsonl"]}


def test_deleted_cursor_costs_one_look_and_opens_nothing_more(ended):
    repository = build_definitions(ended.project).get_repository_def()
    before = ended.opened()
    for name, then in (("landing", "nothing new"), ("loop_driver", "loop.max_iterations")):
        context = dg.build_sensor_context(ended.instance, None, repository_def=repository)
        first = repository.get_sensor_def(name).evaluate_tick(context)
        assert first.skip_message == "waiting until a.jsonl is complete"
        context = dg.build_sensor_context(ended.instance, first.cursor, repository_def=repository)
        assert then in repository.get_sensor_def(name).evaluate_tick(context).skip_message
    assert ended.opened() == before


def test_file_landed_before_the_iteration_was_started_joins_it(bench):
    bench.land("a.jsonl")
    bench.notice()
    bench.land("b.jsonl", (5, 9))
    assert bench.notice() == "opened iteration 0001 with b.jsonl"
    assert bench.opened() == {"0001": ["a.jsonl", "b.jsonl"]}


def test_file_landed_after_the_iteration_was_started_opens_the_next_one(bench):
    bench.land("a.jsonl")
    bench.notice()
    bench.compute(BASE)
    bench.compute("0001", before="eval_predictions")
    bench.land("b.jsonl", (5, 9))
    assert bench.notice() == "opened iteration 0002 with b.jsonl"
    bench.land("c.jsonl", (9, 12))
    assert bench.notice() == "opened iteration 0002 with c.jsonl"
    assert bench.opened() == {"0001": ["a.jsonl"], "0002": ["a.jsonl", "b.jsonl", "c.jsonl"]}


def test_file_without_a_usable_row_opens_and_runs_nothing(bench):
    (bench.project.landing / "hopeless.jsonl").write_text('{"prompt": "no answer"}\n{broken\n')
    assert bench.notice() == "nothing new among 1 landed files"
    assert bench.drive() == f"the loop is at its end: no usable row is in the files in {bench.project.landing}"
    assert bench.opened() == {}
    bench.land("a.jsonl")
    assert bench.notice() == "opened iteration 0001 with a.jsonl"
    assert bench.opened() == {"0001": ["a.jsonl"]}


def test_edited_file_is_a_new_data_version_of_the_iterations_that_use_it_reported_once(started):
    started.land("b.jsonl", (5, 9))
    started.notice()
    before = {key: started.observed("landing_files", key) for key in ("0001", "0002")}
    assert [len(versions) for versions in before.values()] == [1, 1]
    folder = started.observed("landing_folder")
    started.land("b.jsonl", (5, 10))
    assert started.notice() == started.notice() == "nothing new among 2 landed files"
    assert started.observed("landing_files", "0001") == before["0001"], "it does not use b.jsonl"
    assert len(set(started.observed("landing_files", "0002"))) == 2
    assert len(started.observed("landing_files", "0002")) == 2
    assert len(started.observed("landing_folder")) == len(folder) + 1
    (started.project.landing / "a.jsonl").unlink()
    started.notice()
    assert [len(started.observed("landing_files", key)) for key in ("0001", "0002")] == [2, 3]
