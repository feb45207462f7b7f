"""Rows that workers compute: the same as in one process, in whatever parts, and none lost or twice whatever ends."""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from apt_assets.engine import spread as engine
from apt_assets.engine.display import Display
from apt_assets.engine.scope import RowScope
from apt_assets.engine.spread import spread
from apt_assets.orchestration.run import run_loop
from apt_assets.project import Project
from apt_assets.rows import anchors, by_transformers, grades, likelihoods, samples, scores
from apt_assets.rows.policy import Adapter
from apt_assets.settings.experiment import UsageError
from resources import workers
from resources.assessors import Row
from resources.assessors.local import LOCAL
from resources.store.row_file import RowFile
from resources.store.rows import collect, renumber
from tests import tiny, waiting
from tests.conftest import BOTH_TASKS
from tests.test_reproducible import manifests

QUESTIONS = [f"{row['prompt']} {'Say why. ' * (n % 5)}" for n, row in enumerate(tiny.domain_rows(23))]
TEXTS = [([70 + n % 20, *range(60, 60 + n)], 1) for n in range(3, 20)]
# What computes rows of a kind, and what of.
COMPUTED = {
    by_transformers.ANSWERS: (by_transformers.answer, QUESTIONS),
    samples.SAMPLES: (samples.sample, [(question, str(n)) for n, question in enumerate(QUESTIONS)]),
    anchors.WRITTEN: (anchors.write, [(("chat", "document")[n % 2], str(n)) for n in range(9)]),
    anchors.LIKELY: (anchors.expect, TEXTS),
    likelihoods.LIKELIHOODS: (likelihoods.score, [(question, "blue", "not blue") for question in QUESTIONS]),
    LOCAL.rows: (
        partial(grades.graded, LOCAL),
        [Row(question, question[: 9 + n], "grey") for n, question in enumerate(QUESTIONS)],
    ),
}


@pytest.fixture
def two_workers(monkeypatch):
    """Two workers wherever rows can be spread, however few rows; ended afterwards by `no_worker_is_left`."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(engine, "WORTH_SECONDS", 0.0)
    monkeypatch.setattr(engine, "LEAST_ROWS", 1)


@pytest.fixture(scope="module", autouse=True)
def no_worker_is_left():
    yield
    workers.stop()


@pytest.fixture(scope="module")
def opinionated(tmp_path_factory):
    """A grader whose grades differ by question."""
    return tiny.make_policy(tmp_path_factory.mktemp("grader"), spread=0.5, positions=2048)


@pytest.fixture
def project(make_experiment, talker, opinionated):
    policy = {"model": str(talker), "max_new_tokens": 6, "system_prompt": "Be brief."}
    assessor = {"kind": "rubric", "rubric": {"model": str(opinionated)}}
    return Project.open(make_experiment(policy=policy, assessor=assessor))


def scope_of(project, kind, adapter=None):
    return RowScope(project, kind, {"adapter": adapter} if "adapter" in kind.given else {})


@pytest.mark.slow("processes")
@pytest.mark.parametrize("kind", COMPUTED, ids=lambda kind: kind.name)
def test_rows_of_every_kind_are_the_same_from_workers_in_several_parts(
    kind, project, two_workers, monkeypatch, tmp_path
):
    compute, items = COMPUTED[kind]
    adapter = None
    if "adapter" in kind.given and kind.table != "anchors":
        folder = tiny.make_adapter(tmp_path / "adapter", project.models.base_model)
        adapter = Adapter(folder, {"adapter_model.safetensors": "its digest"})
    scope = scope_of(project, kind, adapter)
    here = collect(len(items), compute(scope, items))
    assert len({json.dumps(value) for value in here}) > 1, "rows that are all alike show nothing"
    for rows in (1, 4, len(items)):
        monkeypatch.setattr(engine, "TASK_ROWS", rows)
        assert collect(len(items), spread(compute, scope, items)) == here
        assert workers.running() == 2


@pytest.mark.slow("processes")
def test_scores_of_items_are_the_same_from_workers(project, two_workers):
    (task,) = project.tasks.load({"colours": None})
    scope, items = scope_of(project, scores.SCORES), [4, 0, 3, 1]
    here = collect(len(items), scores.score(task, scope, items))
    assert collect(len(items), spread(partial(scores.score, task), scope, items)) == here


@pytest.mark.slow("loop")
def test_a_loop_with_two_workers_gives_the_data_versions_of_one_process(
    finished, tiny_folder, tmp_path, two_workers, monkeypatch
):
    monkeypatch.setenv("APT_HOME", str(tmp_path))
    tiny.land_hostile(tmp_path)
    asked = []
    monkeypatch.setattr(workers, "each", lambda *given: asked.append(given) or each(*given))
    other = tiny.open_project(tmp_path, tiny_folder, **BOTH_TASKS)
    assert run_loop(other, 2, Display()).passed
    computing = {job.sent.kind.name for _, job, _ in asked}
    assert computing == {"answers by transformers", "written", "likely", "scores"}
    first, second = manifests(tiny.open_project(finished, tiny_folder, **BOTH_TASKS)), manifests(other)
    assert {where: its.data_version for where, its in first.items()} == {
        where: its.data_version for where, its in second.items()
    }


each = workers.each


@pytest.mark.slow("processes")
def test_a_failure_in_a_worker_is_the_one_that_this_process_would_raise(project, two_workers):
    scope = scope_of(project, by_transformers.ANSWERS)
    with pytest.raises(ZeroDivisionError, match="the third"):
        collect(4, spread(fail_at_the_third, scope, [1, 2, 3, 4]))
    assert workers.running() == 0, "what else was under way is not waited for"


def fail_at_the_third(scope, items):
    for place, item in enumerate(items):
        if item == 3:
            raise ZeroDivisionError("the third")
        yield [place], [item]


@pytest.mark.slow("processes")
def test_a_killed_worker_costs_its_task_and_the_next_run_computes_what_is_missing(
    project, two_workers, monkeypatch, tmp_path
):
    monkeypatch.setattr(engine, "TASK_ROWS", 2)
    scope, table = scope_of(project, by_transformers.ANSWERS), RowFile(tmp_path, "answers", {"policy": "m"})
    keys, log = [f"k{n}" for n in range(12)], tmp_path / "computed"
    note = partial(note_and_die_at, 8, str(log))

    def compute(missing):
        return renumber(spread(note, scope, missing), missing)

    with pytest.raises(UsageError, match="ended from outside"):
        table.fill(keys, compute)
    kept = table.read(keys)
    assert 2 <= len(kept) < 12
    before = log.read_text().split()
    log.with_suffix(".died").touch()
    filled = table.fill(keys, compute)
    assert filled.values == [n * n for n in range(12)]
    assert filled.computed == 12 - len(kept)
    assert len(log.read_text().split()) - len(before) == filled.computed, "and nothing else"
    lines = table.path.read_text().splitlines()[1:]
    assert len(lines) == 12, "no row twice"


def note_and_die_at(deadly, log, scope, items):
    for place, item in enumerate(items):
        if item == deadly and not Path(log).with_suffix(".died").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        with Path(log).open("a") as file:
            file.write(f"{item}\n")
        yield [place], [item * item]


def test_lines_for_people_come_from_workers_too(project, two_workers):
    told = []
    scope = RowScope(project, by_transformers.ANSWERS, {"adapter": None}, told.append)
    assert collect(3, spread(tell_each, scope, [1, 2, 3])) == [1, 2, 3]
    assert sorted(told) == ["row 1", "row 2", "row 3"]


def tell_each(scope, items):
    for place, item in enumerate(items):
        scope.tell(f"row {item}")
        yield [place], [item]


@pytest.mark.parametrize("changes", [{"threads": 1}, {"alone": False}, {"few": True}], ids=str)
def test_rows_stay_in_this_process(changes, project, two_workers, monkeypatch):
    """With one thread; where one thread gives other rows; where there are too few to be worth the start."""
    workers.stop()
    if "few" in changes:
        monkeypatch.setattr(engine, "WORTH_SECONDS", 40.0)
    if "alone" in changes:
        execution = project.outside("execution")
        monkeypatch.setattr(Project, "outside", with_execution(Project.outside, execution, alone=False))
    if "threads" in changes:
        policy = project.experiment.policy.model_copy(update={"threads": 1})
        project.experiment = project.experiment.model_copy(update={"policy": policy})
    scope = scope_of(project, by_transformers.ANSWERS)
    assert set(collect(5, spread(process_of_each, scope, [1, 2, 3, 4, 5]))) == {os.getpid()}


def with_execution(outside, execution, **changes):
    from dataclasses import replace

    return lambda self, name: replace(execution, **changes) if name == "execution" else outside(self, name)


def process_of_each(scope, items):
    yield range(len(items)), [os.getpid()] * len(items)


PARENT = """
import sys
from resources import workers
from tests.test_spread import busy_for

if __name__ == "__main__":
    for _, process in workers.each(2, busy_for, [0.0, 0.0, 60.0, 60.0]):
        print(process, flush=True)
"""


def busy_for(seconds):
    waiting.within(seconds, lambda: None)
    return os.getpid()


@pytest.mark.slow("processes")
@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGINT], ids=["killed", "Ctrl-C"])
def test_workers_end_with_their_process(ended_by, tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as parent:
        computing = {int(parent.stdout.readline()) for _ in range(2)}
        os.killpg(parent.pid, ended_by) if ended_by == signal.SIGINT else parent.kill()
        said = parent.stderr.read()
        parent.wait(20)
    waiting.until(lambda: not any(Path(f"/proc/{process}").exists() for process in computing), 10)
    assert said.count("Traceback") <= (ended_by == signal.SIGINT), "no worker says anything"
