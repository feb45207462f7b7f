"""The sensors' decisions, with a real Dagster instance on a made-up store. Their daemon: test_daemon.py."""

import contextlib
import json
import os
import shutil
import time
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster import DagsterEvent, DagsterEventType, DagsterRunStatus
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.utils import make_new_run_id

import apt_assets.assets  # noqa: F401 - declares the stages
from apt_assets.definitions import build_definitions
from apt_assets.display import Display
from apt_assets.engine.plan import stages_of
from apt_assets.engine.stages import BASE, STAGES
from apt_assets.loop import Dagster
from apt_assets.project import Project
from apt_assets.sensors import DEAD_AFTER, MOST_RESTARTS, Look, drive, notice
from tests import tiny


class Bench:
    """A project with a real Dagster instance, whose stages are committed by the test and not computed.

    gain: what the gate's domain check says of an iteration, default 0.1. bad_cases: how many it finds,
    default 3. refused: the iterations that the gate refuses.
    """

    def __init__(self, home: Path):
        self.home = home
        self.set()
        self.instance = Dagster(self.project, Display()).instance
        self.gain: dict[str, float] = {}
        self.bad_cases: dict[str, int] = {}
        self.refused: set[str] = set()

    def set(self, **changes):
        """Change settings; the project is opened anew, as a reloaded code location does."""
        content = {
            "name": "made-up",
            "policy": {"model": str(self.home / "policy"), "dtype": "float32"},
            "retrieval": {"encoder": str(self.home / "encoder")},
            "benchmarks": {"folder": str(self.home / "tasks"), "tasks": {"colours": None}},
            "loop": {"max_iterations": 2},
            **changes,
        }
        path = self.home / "made-up.yaml"
        path.write_text(yaml.safe_dump(content))
        self.project = Project.open(path)

    def land(self, name, rows=(0, 5)):
        return tiny.write_jsonl(self.project.landing / name, tiny.domain_rows(rows[1])[rows[0] :])

    def notice(self):
        return notice(self.project, self.instance, [])

    def drive(self):
        return drive(self.project, self.instance, [])

    def opened(self):
        """{iteration: the files that it uses}."""
        store = self.project.store
        return {key: store.snapshot("made-up", key) for key in store.iterations("made-up")}

    # -- what a run would compute ------------------------------------------------------------------

    def compute(self, *keys, before=None):
        """Commit what is not fresh of these iterations, of base and all opened ones if none is named;
        before: leave out this stage and those after it."""
        for key in keys or [BASE, *self.opened()]:
            for name in stages_of(key):
                if name == before:
                    return
                plan = self.project.planner().stage(key, name)
                if plan.status in ("stale", "missing"):
                    self.commit(key, name, plan)

    def commit(self, key, name, plan):
        parts = [part for stage in STAGES.values() for part in stage.inputs if part.startswith(f"{name}/")]
        files = {part.split("/")[1] for part in parts} | ({"domain_items.parquet"} if name == "base_scores" else set())
        content = json.dumps(plan.inputs) + plan.fingerprint
        with self.project.store.workspace() as folder:
            for file in files or {"content"}:
                # How the base model does in general does not depend on what has landed.
                (folder / file).write_text("the same" if name == "base_scores" and "general" in file else content)
            if name == "gate":
                (folder / "verdict.json").write_text(json.dumps(self.verdict(key)))
            facts = {"rows": self.bad_cases.get(key, 3)} if name == "bad_cases" else {}
            manifest = self.project.store.commit(
                folder, stage=name, fingerprint=plan.fingerprint, **plan.facts, facts=facts, work={}, row_tables=[],
                iteration=key, seconds=0.0, run_id="", created="now",
            )  # fmt: skip
        self.project.store.point("made-up", key, manifest)

    def verdict(self, key):
        gain, passed = self.gain.get(key, 0.1), key not in self.refused
        scores = {"candidate": 0.5 + gain, "reference": 0.5, "difference": gain, "against": "the base model"}
        checks = [{"name": "domain", "passed": passed, **scores}, {"name": "general", "passed": True}]
        return {"passed": passed, "reason": "said the test", "checks": checks}

    # -- what the daemon would make of a request ---------------------------------------------------

    def start(self, request, status=DagsterRunStatus.STARTED, seconds_ago=0.0):
        """A run of this request; `seconds_ago`: when it was started, if it was."""
        repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("apt"), "__repository__")
        run = dg.DagsterRun(
            job_name=request.job_name, run_id=make_new_run_id(), status=status,
            tags={**request.tags, "dagster/run_key": request.run_key},
            remote_job_origin=RemoteJobOrigin(repository, request.job_name),
        )  # fmt: skip
        self.instance.add_run(run)
        if status == DagsterRunStatus.STARTED:
            event = DagsterEvent(DagsterEventType.PIPELINE_START.value, job_name=run.job_name)
            self.instance.report_dagster_event(event, run.run_id, timestamp=time.time() - seconds_ago)
        return run

    def succeed(self, request):
        return self.start(request, DagsterRunStatus.SUCCESS)

    def cancel(self, request):
        run = self.start(request)
        self.instance.report_run_canceled(run)
        return run

    def fail(self, request, stage, error=RuntimeError):
        """A real run of this request whose step of this stage fails; returns its id."""

        @dg.op(name=stage)
        def broken():
            raise error()

        @dg.job(name=request.job_name)
        def job():
            broken()

        # Dagster passes an interruption on, whatever it is told of errors.
        with contextlib.suppress(dg.DagsterExecutionInterruptedError):
            job.execute_in_process(instance=self.instance, tags=request.tags, raise_on_error=False)
        return self.instance.get_runs(limit=1)[0].run_id

    def observed(self, asset, partition=None):
        """Data versions that Dagster was told of a source, the latest first."""
        wanted = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[partition] if partition else None)
        records = self.instance.fetch_observations(wanted, limit=100).records
        return [record.asset_observation.tags["dagster/data_version"] for record in records]


@pytest.fixture(scope="session")
def states(tmp_path_factory):
    """Three homes, made once and copied for each test: nothing has landed; iteration 0001 is up to date and
    the loop would go on; the loop is at its end, with two iterations on the one file."""
    home = tmp_path_factory.mktemp("made-up")
    saved = {name: tmp_path_factory.mktemp(name) for name in ("empty", "started", "ended")}

    def save(name):
        shutil.copytree(home, saved[name], dirs_exist_ok=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APT_HOME", str(home))
        patch.setenv("DAGSTER_HOME", str(home / "dagster_home"))
        for folder in ("policy", "encoder"):
            (home / folder).mkdir()
            (home / folder / "model.safetensors").write_text(folder)
        tiny.make_task(home / "tasks")
        (home / "landing").mkdir()
        bench = Bench(home)
        save("empty")
        bench.land("a.jsonl")
        assert bench.notice() == "opened iteration 0001 with a.jsonl"
        bench.compute()
        save("started")
        assert asked(bench.drive()) == ("iterate", "0002")
        bench.compute()
        assert "loop.max_iterations" in bench.drive()
        save("ended")
        bench.instance.dispose()
    return saved


@pytest.fixture
def bench_of(states, tmp_path, monkeypatch):
    """A function (state) -> Bench in a home of its own."""
    made = []

    def make(state):
        shutil.copytree(states[state], tmp_path, dirs_exist_ok=True)
        made.append(Bench(tmp_path))
        return made[0]

    monkeypatch.setenv("APT_HOME", str(tmp_path))
    monkeypatch.delenv("APT_EXPERIMENT", raising=False)
    # Dagster(project) sets it; named here so that it is put back afterwards.
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster_home"))
    yield make
    for bench in made:
        bench.instance.dispose()


@pytest.fixture
def bench(bench_of):
    return bench_of("empty")


@pytest.fixture
def started(bench_of):
    return bench_of("started")


@pytest.fixture
def ended(bench_of):
    return bench_of("ended")


def asked(request):
    """(job, iteration) of what must be a run request."""
    assert isinstance(request, dg.RunRequest), request
    return request.job_name, request.partition_key


# -- landing ------------------------------------------------------------------------------------------


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
    with started.project.store.lock(f"run-{run.run_id}"):  # flock tells two openings of one process apart
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


def test_verdict_that_cannot_be_read_is_decided_again_and_opens_nothing(ended):
    manifest = ended.project.store.pointed("made-up", "0001", "gate")
    (ended.project.store.folder(manifest) / "verdict.json").write_text("{torn")
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
