import gc
import json
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

os.environ["HF_HUB_OFFLINE"] = "1"
# The tests run in three processes, and the tiny models are too small for a second thread to help.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests import cluster, tiny
from tests import postgres as postgres_server
from tests.made_once import in_memory, made_once

if folder := in_memory():
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", folder)  # where pytest makes its temporary folders

BOTH_TASKS = {"benchmarks": {"tasks": {"colours": None, "sayings": None}}}
# Whatever needs one of these is as slow as it.
SLOW_FIXTURES = {"finished": "loop", "ran": "loop", "states": "instance", "tiny_folder": "model", "talker": "model"}
LEFT_OUT: dict = {}
# What rows are computed by: its code is parsed once, and not by each test that runs a loop.
ROWS_CODE = (
    "apt_assets.landing.records", "apt_assets.rows.anchors", "apt_assets.rows.by_transformers",
    "apt_assets.rows.encoder", "apt_assets.rows.likelihoods", "apt_assets.rows.references", "apt_assets.rows.scores",
    "resources.assessors.labels",
)  # fmt: skip
# These files begin first, the longest of all before the others: what ends last decides how long all take.
LONGEST = (
    "test_daemon", "test_torture", "test_cli", "test_anchor_texts", "test_study", "test_changes", "test_incremental",
    "test_security",
)  # fmt: skip


def begins_as(item) -> int:
    return LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    items.sort(key=begins_as)
    for item in items:
        needed = [kind for fixture, kind in SLOW_FIXTURES.items() if fixture in item.fixturenames]
        if needed and not item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.slow(needed[0]))


def pytest_deselected(items):
    """Count what is left out; a process of xdist tells the one that reports."""
    kinds = Counter(kind_of(item) for item in items)
    getattr(items[0].config, "workeroutput", LEFT_OUT)["left out"] = dict(kinds)


def kind_of(item):
    """Why `make check` leaves a test out."""
    if mark := item.get_closest_marker("slow"):
        return mark.args[0]
    return "cluster" if item.get_closest_marker("cluster") else "real"


def pytest_testnodedown(node):
    LEFT_OUT.update(getattr(node, "workeroutput", {}))  # a process that crashed left none


def pytest_terminal_summary(terminalreporter, config):
    if config.option.markexpr and (kinds := LEFT_OUT.get("left out")):
        shown = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        terminalreporter.write_line(f"left out: {sum(kinds.values())} tests ({shown}); `make test` runs all")


@pytest.fixture(scope="module", autouse=True)
def _libraries_are_no_garbage():
    """What is there before a file's tests is not gone through at each look for garbage: with torch and Dagster loaded
    one takes half a second, and a loop has several."""
    if held := sys.modules.get("resources.model.held"):
        held.let_go()  # or it would stay for good
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """policy/, encoder/ and tasks/, made once: to be read, not changed."""
    return made_once(tmp_path_factory, "tiny", tiny.make_models)


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server on loopback, started once: tests/postgres.py."""
    if reason := postgres_server.lacking():
        pytest.skip(reason)
    with postgres_server.made() as folder, postgres_server.running(folder, postgres_server.free_port()) as server:
        yield server


@pytest.fixture(scope="session")
def talker(tmp_path_factory) -> Path:
    """A policy whose answers differ by question and, sampled, by seed, made once: to be read, not changed."""
    return made_once(tmp_path_factory, "talker", lambda folder: tiny.make_talker(folder / "policy")) / "policy"


@pytest.fixture(scope="session")
def looked_at(tiny_folder, tmp_path_factory) -> Path:
    """The .apt folder of a home in which the tiny models were looked at and tried, and a plan was made, which takes
    a while."""

    def look(home):
        project = tiny.open_project(home, tiny_folder)
        project.check()
        project.find_out(["execution"])
        project.planner().plan(1)
        for module in ROWS_CODE:
            project.code(module)

    return made_once(tmp_path_factory, "looked-at", look) / ".apt"


@pytest.fixture(scope="session")
def s3_server():
    """The address of an S3 server."""
    with cluster.s3_server() as address:
        yield address


@pytest.fixture(scope="session")
def lock_server(postgres) -> str:
    """The address of a database of it."""
    return postgres.url(postgres.database())


@pytest.fixture
def shared(s3_server, lock_server, tmp_path, monkeypatch):
    """A shared store that holds nothing yet, as tests.cluster.Shared; the environment names its servers."""
    for name, value in cluster.environment(s3_server).items():
        monkeypatch.setenv(name, value)
    return cluster.Shared(tmp_path, lock_server)


@pytest.fixture
def proxy(shared, s3_server, monkeypatch):
    """A proxy that the environment names as the server from now on; a request is tried three times."""
    from resources.store.shared import bucket

    monkeypatch.setattr(bucket, "RETRIES", 2)
    proxy = cluster.Proxy(s3_server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
    yield proxy
    proxy.close()


@pytest.fixture
def make_experiment(tmp_path, tiny_folder, looked_at, monkeypatch):
    """A function (**sections) -> path of an experiment on the tiny models, in its own home folder."""
    (tmp_path / ".apt").mkdir(exist_ok=True)
    for memory in ("digests.json", "executions.json", "code.json"):
        shutil.copyfile(looked_at / memory, tmp_path / ".apt" / memory)
    monkeypatch.setenv("APT_HOME", str(tmp_path))
    monkeypatch.delenv("APT_EXPERIMENT", raising=False)

    def write(**changes) -> Path:
        content = tiny.experiment(tiny_folder)
        for section, values in changes.items():
            content[section] = {**content.get(section, {}), **values}
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


@pytest.fixture(scope="session")
def finished(tiny_folder, tmp_path_factory):
    """The home of a project with two promoted iterations, made once: to be read, not changed."""

    def run(home):
        from apt_assets.engine.display import Display
        from apt_assets.orchestration.run import run_loop

        tiny.land_hostile(home)
        result = run_loop(tiny.open_project(home, tiny_folder, **BOTH_TASKS), 2, Display())
        assert result.passed, result.reason

    # Each process has its own copy: one test damages a file for a moment.
    made = made_once(tmp_path_factory, "finished", run)
    return shutil.copytree(made, tmp_path_factory.mktemp("copied") / "finished")


@pytest.fixture(scope="session")
def loops(tiny_folder, looked_at, tmp_path_factory):
    """once/ and twice/: homes of a project after one iteration and after two, made once; told.json: what the two runs
    computed, and how far each part of a stage said that it was. To be read, not changed."""

    def run(folder):
        from apt_assets.engine.display import Display
        from apt_assets.orchestration.run import run_loop

        class Told(Display):
            def progress(self, at):
                parts.append([at.stage, at.unit, at.done, at.total])

        told = []
        tiny.write_jsonl(folder / "twice" / "landing" / "colours.jsonl", tiny.domain_rows(60))
        shutil.copytree(looked_at, folder / "twice" / ".apt")
        for iterations in (1, 2):
            parts: list = []
            project = tiny.open_project(folder / "twice", tiny_folder, policy={"system_prompt": None})
            result = run_loop(project, iterations, Told())
            assert result.passed, result.reason
            told.append({"computed": result.computed, "reused": result.reused, "parts": parts})
            if iterations == 1:
                shutil.copytree(folder / "twice", folder / "once")
        (folder / "told.json").write_text(json.dumps(told))

    return made_once(tmp_path_factory, "loops", run)


@pytest.fixture
def ran(loops, make_experiment, tmp_path):
    """A function (iterations, 1 or 2, **sections) -> path of an experiment in a home in which so many iterations were
    computed, of 60 rows in colours.jsonl and without these settings."""

    def make(iterations: int, **changes) -> Path:
        shutil.copytree(loops / ("once", "twice")[iterations - 1], tmp_path, dirs_exist_ok=True)
        return make_experiment(**changes)

    return make


@pytest.fixture
def project(finished, tiny_folder):
    """The finished project, opened anew."""
    return tiny.open_project(finished, tiny_folder, **BOTH_TASKS)


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
        tiny.make_husks(home)
        tiny.make_task(home / "tasks")
        (home / "landing").mkdir()
        from tests.made_up import Bench, asked

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
    """A function (state) -> tests.made_up.Bench in a home of its own."""
    from tests.made_up import Bench

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


@pytest.fixture
def desk_of(project):
    """A desk of given bad cases, questions and answers, of Anna."""
    from apt_assets.review.desk import Desk
    from apt_assets.review.journal import Journal
    from tests.reviewing import queue

    return lambda *content, **more: Desk(queue(*content, **more), Journal(project, "Anna"))


@pytest.fixture
def page_of():
    """The page of a desk, served."""
    from tests.reviewing import Page

    made = []

    def make(desk):
        made.append(Page(desk))
        return made[-1]

    yield make
    for page in made:
        page.close()
