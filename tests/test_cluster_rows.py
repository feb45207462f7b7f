"""Rows on a Ray cluster of two nodes: those of this process, whatever is killed, and only from nodes that agree."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from apt_assets.engine import spread as engine
from apt_assets.engine.display import Display
from apt_assets.engine.nodes import for_nodes, own_code, package_folders
from apt_assets.engine.scope import RowScope
from apt_assets.engine.spread import spread
from apt_assets.orchestration.run import run_loop
from apt_assets.project import Project
from apt_assets.rows import by_transformers, scores
from apt_assets.rows.policy import Adapter
from apt_assets.settings.around import Compute
from apt_assets.settings.experiment import UsageError
from apt_assets.settings.iterations import ADAPTER_PARTS
from resources import cluster
from resources.store.digest import digest_file
from resources.store.row_file import RowFile
from resources.store.rows import collect, renumber
from tests import tiny, waiting
from tests.conftest import BOTH_TASKS
from tests.test_reproducible import manifests
from tests.test_spread import COMPUTED, process_of_each, scope_of, with_execution

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def two_nodes():
    """A cluster of two nodes with one place each, of which this process is a driver."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    cluster.connect(made.address, [*package_folders().values()])
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def project(two_nodes, make_experiment, talker, tmp_path, monkeypatch):
    """A project whose rows are computed there, a few in each task."""
    monkeypatch.setattr(engine, "TASK_ROWS", 6)
    grader = tiny.make_policy(tmp_path / "grader", spread=0.5, positions=2048)
    policy = {"model": str(talker), "max_new_tokens": 6, "system_prompt": "Be brief."}
    assessor = {"kind": "rubric", "rubric": {"model": str(grader)}}
    made = Project.open(make_experiment(policy=policy, assessor=assessor))
    compute = Compute(engine="ray", address=two_nodes.address)
    made.experiment = made.experiment.model_copy(update={"compute": compute})
    return made


@pytest.fixture
def scope(project):
    return scope_of(project, by_transformers.ANSWERS)


def adapter_on(model, folder):
    tiny.make_adapter(folder, model)
    return Adapter(folder, {part: digest_file(folder / part) for part in ADAPTER_PARTS})


@pytest.mark.parametrize("kind", COMPUTED, ids=lambda kind: kind.name)
def test_rows_of_every_kind_are_those_of_this_process(kind, project, tmp_path):
    compute, items = COMPUTED[kind]
    adapted = "adapter" in kind.given and kind.table != "anchors"
    scope = scope_of(project, kind, adapter_on(project.models.base_model, tmp_path / "adapter") if adapted else None)
    assert collect(len(items), spread(compute, scope, items)) == collect(len(items), compute(scope, items))


def test_scores_of_items_are_those_of_this_process(project):
    (task,) = project.tasks.load({"colours": None})
    scope, items = scope_of(project, scores.SCORES), [4, 0, 3, 1]
    here = collect(len(items), scores.score(task, scope, items))
    assert collect(len(items), spread(partial(scores.score, task), scope, items)) == here


def test_a_loop_gives_the_data_versions_of_this_process(two_nodes, finished, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("APT_HOME", str(tmp_path))
    tiny.land_hostile(tmp_path)
    there = []
    monkeypatch.setattr(cluster, "each", lambda job, *parts, **named: there.append(job) or each(job, *parts, **named))
    compute = {"engine": "ray", "address": two_nodes.address}
    other = tiny.open_project(tmp_path, tiny_folder, **BOTH_TASKS, compute=compute)
    assert run_loop(other, 2, Display()).passed
    computed = {job.sent.kind.name for job in there}
    assert computed == {"answers by transformers", "written", "likely", "scores"}
    first, second = manifests(tiny.open_project(finished, tiny_folder, **BOTH_TASKS)), manifests(other)
    assert {where: its.data_version for where, its in first.items()} == {
        where: its.data_version for where, its in second.items()
    }


each = cluster.each


def test_where_another_process_rounds_otherwise_rows_stay_here_and_a_line_says_so(project, monkeypatch):
    execution, told = project.outside("execution"), []
    monkeypatch.setattr(Project, "outside", with_execution(Project.outside, execution, alone=False))
    scope = RowScope(project, by_transformers.ANSWERS, {"adapter": None}, told.append)
    assert collect(2, spread(process_of_each, scope, [1, 2])) == [os.getpid()] * 2
    assert len(told) == 1
    assert "on this machine" in told[0]


def test_tasks_run_the_code_of_this_process_in_one_thread_each(scope):
    found = collect(2, spread(code_and_threads, scope, [1, 2]))
    assert all(threads == 1 for _, threads in found)
    assert {digest for digest, _ in found} == {own_code()}


def code_and_threads(scope, items):
    import torch

    for place, _ in enumerate(items):
        yield [place], [(own_code(), torch.get_num_threads())]


@pytest.mark.parametrize("what", ["code", "library", "model", "processor"])
def test_a_node_that_differs_is_refused_by_name_and_what_differs(what, scope, monkeypatch):
    def differing(compute, scope, sent):
        job = for_nodes(compute, scope, sent)
        if what == "code":
            return replace(job, code="another", context=job.context | {"code": {}})
        if what == "library":
            return replace(job, context=job.context | {"libraries": {"torch": "0.1"}})
        if what == "model":
            return replace(job, context=job.context | {"identities": {"base_model": "another"}})
        execution = replace(sent.found["execution"], bits="another")
        context = job.context | {"identities": job.context["identities"] | {"execution": str(execution)}}
        return replace(job, sent=replace(sent, found=sent.found | {"execution": execution}), context=context)

    monkeypatch.setattr(engine, "for_nodes", differing)
    said = {
        "code": "its code is another",
        "library": r"torch .*, and 0\.1",
        "model": "other content",
        "processor": "rounds otherwise",
    }[what]
    with pytest.raises(UsageError, match=rf"node .+ \([0-9a-f]{{8}}\) is refused: .*{said}"):
        collect(2, spread(by_transformers.answer, scope, ["a", "b"]))


def test_a_cluster_that_lacks_what_a_task_wants_says_what_and_keeps_its_rows(two_nodes, monkeypatch, tmp_path):
    monkeypatch.setattr(cluster, "PATIENCE", 0.0)
    monkeypatch.setattr(cluster, "LOOK", 0.5)
    table = RowFile(tmp_path, "answers", {"policy": "m"})
    table.fill(["a"], partial(one, "kept"))

    def compute(missing):
        for part, values in cluster.each(square, [[1]], {"CPU": 1, "GPU": 1}):
            yield [missing[part]], values

    with pytest.raises(Exception, match=r"no node of the cluster has 1 CPU and 1 GPU.*1 CPU, 0 GPU; 1 CPU, 0 GPU"):
        table.fill(["a", "b"], compute)
    assert table.read(["a", "b"]) == {"a": "kept"}


def one(value, missing):
    yield missing, [value] * len(missing)


def square(items):
    return [item * item for item in items]


@pytest.mark.parametrize("killed", ["worker", "node"])
def test_what_is_killed_costs_its_task_and_no_row_is_there_twice(killed, two_nodes, scope, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "TASK_ROWS", 2)
    monkeypatch.setattr(engine, "LEAST_ROWS", 1)
    table, log = RowFile(tmp_path, "answers", {"policy": "m"}), tmp_path / "computed"
    keys = [f"k{n}" for n in range(16)]
    more = two_nodes.add_node(num_cpus=1) if killed == "node" else None
    note = partial(note_each, str(log), killed == "worker")

    def compute(missing):
        removed = False
        for places, values in renumber(spread(note, scope, missing), missing):
            yield places, values
            if more is not None and not removed:
                two_nodes.remove_node(more, allow_graceful=False)
                removed = True

    filled = table.fill(keys, compute)
    assert filled.values == [n * n for n in range(16)]
    assert len(table.path.read_text().splitlines()) == 1 + 16
    computed = [int(line) for line in log.read_text().split()]
    assert set(computed) == set(range(16))
    assert len(computed) <= 16 + 2 * 2, "of the tasks that were under way there, and no others, once more"


def note_each(log, dies, scope, items):
    for place, item in enumerate(items):
        if dies and item == 9 and not Path(log).with_suffix(".died").exists():
            Path(log).with_suffix(".died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        waiting.within(0.2, lambda: None)  # long enough to be killed in the middle of a task
        with Path(log).open("a") as file:
            file.write(f"{item}\n")
        yield [place], [item * item]


def test_an_engine_on_this_machine_loads_no_ray():
    loaded = "import sys, apt_assets.engine.execute, apt_assets.engine.spread; sys.exit('ray' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", loaded], env=environment).returncode == 0


def test_an_address_without_a_cluster_is_told(project, monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    compute = Compute(engine="ray", address="127.0.0.1:1")
    monkeypatch.setattr(ray, "init", lambda **named: (_ for _ in ()).throw(ConnectionError("nobody listens")))
    project.experiment = project.experiment.model_copy(update={"compute": compute})
    with pytest.raises(UsageError, match=r"compute\.address: no Ray cluster at 127\.0\.0\.1:1: nobody listens"):
        collect(1, spread(by_transformers.answer, scope_of(project, by_transformers.ANSWERS), ["a"]))


@pytest.mark.parametrize(
    ("address", "token", "said", "expected"),
    [
        ("ray://head:10001", True, None, "token"),
        ("ray://head:10001", False, None, None),
        ("ray://head:10001", True, "disabled", "disabled"),
        ("head:6379", True, None, None),
    ],
)
def test_a_driver_outside_the_cluster_shows_the_token_that_it_has(
    monkeypatch, tmp_path, address, token, said, expected
):
    """Ray's client does not by itself, and then waits half a minute for nothing."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")  # so that whatever is set here is taken back
        monkeypatch.delenv(name)
    if said:
        monkeypatch.setenv("RAY_AUTH_MODE", said)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    if token:
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text("a token")
    modes = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: modes.append(os.environ.get("RAY_AUTH_MODE")))
    cluster.connect(address, [])
    assert modes == [expected]
