"""What the loop driver runs next, and when it ends. The daemon: test_daemon.py."""

import dagster as dg
import pytest
from dagster import DagsterEvent, DagsterEventType, DagsterRunStatus

from apt_assets.engine.display import Display
from apt_assets.engine.plan import stages_of
from apt_assets.orchestration.definitions import build_definitions
from apt_assets.orchestration.instance import Dagster
from apt_assets.orchestration.lost import DEAD_AFTER, fail_lost_runs
from apt_assets.orchestration.sensors import MOST_RESTARTS
from apt_assets.settings.iterations import BASE
from resources.store.locks import FileLocks
from tests.made_up import asked

# -- what runs next -----------------------------------------------------------------------------------


def test_without_data_the_driver_says_so(bench):
    assert bench.drive() == f"the loop is at its end: no data has landed in {bench.project.landing}"


def test_base_runs_first_then_the_lowest_iteration_out_of_date(bench):
    bench.land("a.jsonl")
    bench.notice()
    assert asked(bench.drive()) == ("score_base", None)
    bench.compute(BASE)
    assert asked(bench.drive()) == ("iterate", "0001")
    bench.compute("0001", before="adapter_checkpoint")
    request = bench.drive()
    assert asked(request) == ("iterate", "0001")
    assert request.tags["apt/why"] == "adapter_checkpoint is missing: never computed"
    bench.compute("0001")
    assert asked(bench.drive()) == ("iterate", "0002"), "the gate passed: the driver opens the next one itself"
    assert bench.opened() == {"0001": ["a.jsonl"], "0002": ["a.jsonl"]}
    bench.compute("0002")
    bench.set(assessor={"bad_below": 3})
    request = bench.drive()
    assert asked(request) == ("iterate", "0001")
    assert request.tags["apt/why"] == "bad_cases is stale: assessor.bad_below: 4 -> 3"
    bench.compute("0001")
    assert asked(bench.drive()) == ("iterate", "0002")


def test_iterations_whose_files_were_all_taken_away_are_named_and_use_what_there_is_once_asked_to(
    bench,
):
    bench.land("a.jsonl")
    bench.notice()
    bench.compute(BASE, "0001")
    bench.drive()
    bench.compute("0002")
    (bench.project.landing / "a.jsonl").rename(bench.project.landing / "b.jsonl")
    assert bench.project.planner().stage("0001", "domain_dataset").status == "stale"
    bench.compute(BASE)
    assert "iteration 0001 used a.jsonl, and none of that is in" in bench.drive()
    assert bench.opened() == {"0001": ["a.jsonl"], "0002": ["a.jsonl"]}, "it may come back"
    (bench.project.landing / "corrections-20261130T100000Z.jsonl").write_text("")
    assert bench.project.without_files() == {"0001": ["a.jsonl"], "0002": ["a.jsonl"]}
    for key in bench.project.without_files():
        bench.project.open_iteration(key, anew=True)
    bench.compute(BASE)
    assert asked(bench.drive()) == ("iterate", "0001")
    bench.land("c.jsonl", rows=(5, 9))
    rows = {
        key: [name for name in names if not name.startswith("corrections")] for key, names in bench.opened().items()
    }
    assert rows == {"0001": ["b.jsonl"], "0002": ["b.jsonl"]}, "what is fixed anew stays"
    assert bench.project.without_files() == {}


def test_second_look_at_the_same_state_gives_the_same_run_key(bench):
    bench.land("a.jsonl")
    bench.notice()
    assert bench.drive().run_key == bench.drive().run_key
    bench.compute(BASE)
    first = bench.drive()
    bench.set()
    assert bench.drive().run_key == first.run_key, "also after a restart"
    assert bench.drive().tags == first.tags


@pytest.mark.parametrize(
    "status",
    [
        DagsterRunStatus.QUEUED,
        DagsterRunStatus.NOT_STARTED,
        DagsterRunStatus.STARTING,
        DagsterRunStatus.STARTED,
        DagsterRunStatus.CANCELING,
    ],
)
def test_while_a_run_is_queued_or_going_on_nothing_is_requested_and_nothing_opened(started, status):
    run = started.start(dg.RunRequest(run_key="by hand", job_name="iterate"), status)
    assert started.drive() == f"run {run.run_id[:8]} is going on"
    assert list(started.opened()) == ["0001"]


def test_run_that_holds_its_lock_is_alive_however_long_it_takes(started):
    run = started.start(dg.RunRequest(run_key="by hand", job_name="iterate"), seconds_ago=100 * DEAD_AFTER)
    with started.project.store.locks.take(f"run-{run.run_id}"):  # flock tells two openings of one process apart
        assert started.drive() == f"run {run.run_id[:8]} is going on"
    assert asked(started.drive()) == ("iterate", "0002")


# -- runs that went wrong -----------------------------------------------------------------------------


def test_failed_run_is_not_tried_again_until_what_it_works_on_changes(started):
    run_id = started.fail(started.drive(), "policy")
    assert f"run {run_id[:8]} of this failed in policy" in started.drive()
    assert f"run {run_id[:8]} of this failed in policy" in started.drive()
    started.set(policy={"model": str(started.home / "policy"), "dtype": "float32", "max_new_tokens": 8})
    assert asked(started.drive()) == ("score_base", None)


def test_run_that_failed_in_a_later_stage_is_not_tried_again_either(started):
    request = started.drive()
    started.compute("0002", before="adapter_checkpoint")
    run_id = started.fail(request, "adapter_checkpoint")
    assert f"run {run_id[:8]} of this failed in adapter_checkpoint" in started.drive()
    started.set(training={"batch_size": 4})
    # Training is set otherwise for 0001 too, which comes first.
    assert asked(started.drive()) == ("iterate", "0001")
    started.compute("0001")
    assert asked(started.drive()) == ("iterate", "0002")


def test_stage_above_the_failed_one_that_was_found_damaged_is_run_again(started):
    request = started.drive()
    started.compute("0002", before="adapter_checkpoint")
    started.fail(request, "adapter_checkpoint")
    # As the failed step does on finding that its input no longer matches its manifest.
    started.project.store.forget(started.project.store.pointed("made-up", "0002", "preference_pairs"))
    again = started.drive()
    assert asked(again) == ("iterate", "0002")
    assert again.run_key != request.run_key


def test_canceled_run_is_not_started_again(started):
    run = started.cancel(started.drive())
    assert f"run {run.run_id[:8]} of this was canceled" in started.drive()
    started.set(training={"batch_size": 4})
    assert asked(started.drive()) == ("iterate", "0001")


def test_run_canceled_in_a_later_stage_is_not_started_again_either(started):
    request = started.drive()
    started.compute("0002", before="adapter_checkpoint")
    run = started.cancel(request)
    assert f"run {run.run_id[:8]} of this was canceled" in started.drive()


def test_started_run_has_a_minute_to_take_its_lock(started):
    run = started.start(started.drive(), seconds_ago=DEAD_AFTER - 20)
    assert started.drive() == f"run {run.run_id[:8]} is going on"


def test_run_whose_process_vanished_is_marked_failed_and_requested_again_a_few_times(started):
    keys = []
    for _ in range(1 + MOST_RESTARTS):
        request = started.drive()
        keys.append(request.run_key)
        run = started.start(request, seconds_ago=DEAD_AFTER + 5)
        answer = started.drive()
        assert started.instance.get_run_by_id(run.run_id).status == DagsterRunStatus.FAILURE
    assert len(set(keys)) == 1 + MOST_RESTARTS
    assert answer == f"runs of this were lost {1 + MOST_RESTARTS} times; materialise 0002 by hand to go on"
    assert started.drive() == answer


@pytest.mark.parametrize("seconds_ago", [DEAD_AFTER + 5, -86_400], ids=["begun", "clock put back since"])
@pytest.mark.parametrize("who", ["a run of the command", "a look of Dagster's"])
def test_run_that_was_killed_keeps_nobody_waiting_with_the_driver_off(started, who, seconds_ago):
    run = started.start(dg.RunRequest(run_key="by hand", job_name="iterate"), seconds_ago=seconds_ago)
    alive, elsewhere = (
        started.start(dg.RunRequest(run_key=key, job_name="iterate"), seconds_ago=seconds_ago) for key in "ab"
    )
    locks = started.project.store.locks
    with locks.take(f"run-{run.run_id}"):
        assert not fail_lost_runs(started.project, started.instance)
    with locks.take(f"run-{alive.run_id}"):
        if who == "a run of the command":
            Dagster(started.project, Display())
        else:
            sensor = build_definitions(started.project, Display()).resolve_sensor_def("lost_runs")
            assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
            sensor(dg.build_sensor_context(instance=started.instance))
    found = [started.instance.get_run_by_id(one.run_id).status for one in (run, alive, elsewhere)]
    assert found == [DagsterRunStatus.FAILURE, DagsterRunStatus.STARTED, DagsterRunStatus.STARTED]


def test_run_that_ends_while_it_is_looked_at_is_not_lost(started, monkeypatch):
    run = started.start(dg.RunRequest(run_key="by hand", job_name="iterate"), seconds_ago=DEAD_AFTER + 5)
    with started.project.store.locks.take(f"run-{run.run_id}"):
        pass

    def ends_first(_, name):
        event = DagsterEvent(DagsterEventType.PIPELINE_SUCCESS.value, job_name=run.job_name)
        started.instance.report_dagster_event(event, run.run_id)
        return True

    monkeypatch.setattr(FileLocks, "let_go", ends_first)
    assert fail_lost_runs(started.project, started.instance) == []
    assert started.instance.get_run_by_id(run.run_id).status == DagsterRunStatus.SUCCESS


def test_run_that_is_interrupted_before_it_begins_is_cancelled(started, monkeypatch):
    def interrupted(job, *, instance, run_id, **_):
        instance.add_run(dg.DagsterRun(job_name=job.name, run_id=run_id, status=DagsterRunStatus.NOT_STARTED))
        raise KeyboardInterrupt

    monkeypatch.setattr(dg.JobDefinition, "execute_in_process", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Dagster(started.project, Display()).materialize("0001", [])
    assert asked(started.drive()) == ("iterate", "0002"), "nothing is going on"


def test_iteration_behind_a_gap_is_refused_and_opens_nothing(started):
    job = build_definitions(started.project, Display()).resolve_job_def("iterate")
    started.instance.add_dynamic_partitions("iteration", ["0004"])
    result = job.execute_in_process(partition_key="0004", instance=started.instance, raise_on_error=False)
    failures = [event.step_failure_data.user_failure_data.description for event in result.get_step_failure_events()]
    assert "iteration 0004 does not run: iteration 0002 was never opened" in failures
    assert list(started.opened()) == ["0001"], "or the driver would run all in between"


def test_run_interrupted_by_the_end_of_its_daemon_is_started_again(started):
    request = started.drive()
    run_id = started.fail(request, "policy", dg.DagsterExecutionInterruptedError)
    assert started.instance.get_run_by_id(run_id).status == DagsterRunStatus.FAILURE
    again = started.drive()
    assert asked(again) == ("iterate", "0002")
    assert again.run_key != request.run_key


def test_lost_runs_that_got_further_each_time_are_started_again_for_as_long_as_they_do(started):
    for stage in stages_of("0002")[1:7]:
        started.start(started.drive(), seconds_ago=DEAD_AFTER + 5)
        started.compute("0002", before=stage)
    assert asked(started.drive()) == ("iterate", "0002")


# -- the loop's end -----------------------------------------------------------------------------------


def ends(bench, reason):
    """The loop is at its end for this reason, and new data opens and runs the next iteration."""
    before = bench.opened()
    assert bench.drive() == f"the loop is at its end: {reason}"
    assert bench.opened() == before
    bench.land("new.jsonl", (20, 25))
    following = f"{len(before) + 1:04d}"
    assert bench.notice() == f"opened iteration {following} with new.jsonl"
    assert asked(bench.drive()) == ("score_base", None), "the base model is scored on all that has landed"
    bench.compute(BASE)
    while (request := bench.drive()).partition_key != following:
        # What was compared with the base model is compared again, and says the same.
        assert request.tags["apt/why"].startswith("gate is stale: reference_scores")
        bench.compute(request.partition_key)
    assert bench.opened() == {**before, following: ["a.jsonl", "new.jsonl"]}
    bench.compute(following)


def test_loop_ends_after_so_many_iterations_on_the_same_data_and_new_data_goes_on(ended):
    ends(ended, "loop.max_iterations: 2 iterations have used the same landed files")
    assert asked(ended.drive()) == ("iterate", "0004"), "as many iterations again, on the new data"


def test_loop_ends_without_a_gain_and_new_data_goes_on(bench):
    bench.gain["0001"] = -0.1
    bench.land("a.jsonl")
    bench.notice()
    bench.compute()
    ends(bench, "iteration 0001 gained nothing: validation 40.0% against 50.0% of the base model")


def test_loop_ends_without_bad_cases_and_new_data_goes_on(bench):
    bench.bad_cases["0001"] = 0
    bench.land("a.jsonl")
    bench.notice()
    bench.compute()
    ends(bench, "iteration 0001 found no bad case: there is nothing to train on")


def test_loop_ends_at_a_refused_gate_and_new_data_goes_on_from_what_was_promoted(started):
    started.refused.add("0002")
    started.drive()
    started.compute()
    ends(started, "iteration 0002 is not promoted: said the test")
    assert started.project.planner().promoted_before("0003") == "0001"


def test_new_data_landed_while_the_landing_sensor_is_off_goes_on_too(ended):
    ended.land("new.jsonl", (20, 25))
    ended.compute(BASE, "0001", "0002")
    assert asked(ended.drive()) == ("iterate", "0003")
    assert ended.opened()["0003"] == ["a.jsonl", "new.jsonl"]


# -- settings flipped to and fro ----------------------------------------------------------------------


def test_setting_flipped_back_is_reused_and_work_that_is_really_needed_again_has_a_new_run_key(started):
    a, b = {"training": {"beta": 0.1}}, {"training": {"beta": 0.2}}
    started.set(**a, loop={"max_iterations": 1})
    assert "loop.max_iterations" in started.drive()
    keys = []

    def runs(settings):
        started.set(**settings, loop={"max_iterations": 1})
        request = started.drive()
        assert asked(request) == ("iterate", "0001")
        started.succeed(request)
        started.compute()
        assert "loop.max_iterations" in started.drive()
        keys.append(request.run_key)

    def forget():
        for name in stages_of("0001"):
            started.project.store.forget(started.project.store.pointed("made-up", "0001", name))

    runs(b)
    for settings in (a, b):
        started.set(**settings, loop={"max_iterations": 1})
        assert "loop.max_iterations" in started.drive(), "it is all in the store"
    forget()
    runs(b)
    forget()
    runs(a)
    forget()
    runs(b)
    forget()
    runs(a)
    assert len(set(keys)) == len(keys)


def test_run_key_is_new_also_when_an_old_run_was_deleted_from_the_history(started):
    keys = []
    for _ in range(3):
        request = started.drive()
        keys.append(request.run_key)
        run = started.start(request, seconds_ago=DEAD_AFTER + 5)
        started.drive()
        if len(keys) == 1:
            first = run
    started.instance.delete_run(first.run_id)
    assert started.drive().run_key not in keys


# -- the store found in an unusual state --------------------------------------------------------------


@pytest.mark.parametrize("written", ["{torn", "{}", '{"passed": false, "reason": "edited"}'])
def test_verdict_that_is_not_what_was_written_is_decided_again_and_opens_nothing(ended, written):
    manifest = ended.project.store.pointed("made-up", "0001", "gate")
    (ended.project.store.open(manifest) / "verdict.json").write_text(written)
    request = ended.drive()
    assert asked(request) == ("iterate", "0001")
    assert request.tags["apt/why"] == "gate is stale: its verdict is damaged"
    assert list(ended.opened()) == ["0001", "0002"]


def test_iteration_that_another_experiment_computed_already_needs_no_run(ended):
    ended.set(name="made-up-too")
    answer = ended.drive()
    assert answer == "the loop is at its end: loop.max_iterations: 2 iterations have used the same landed files"
    assert ended.project.store.iterations("made-up-too") == ["0001", "0002"]


def test_iteration_that_was_left_out_is_opened_and_run_before_the_one_after_the_gap(ended):
    # As a run of 0004 launched by hand does, before it is refused.
    ended.project.open_iteration("0004")
    assert asked(ended.drive()) == ("iterate", "0003")
    ended.compute("0003")
    assert asked(ended.drive()) == ("iterate", "0004")
