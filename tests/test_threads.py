"""How many threads compute, and that their number makes nothing stale."""

import os
import subprocess
import sys

import pytest

from resources import threads as settled
from resources.threads import cores, threads

SAID = ("MKL_NUM_THREADS", "OMP_NUM_THREADS")
UNIT = "docker/5f0c"


@pytest.fixture(autouse=True)
def silent(monkeypatch):
    """An environment that says nothing of threads, and is put back."""
    for name in SAID:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A function (cores, hyperthreads of each, files) -> the root of a machine that has these, all for this process."""

    def make(count, each=1, files=()):
        siblings = [range(first, first + each) for first in range(0, count * each, each)]
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(count * each)))
        told = {
            f"sys/devices/system/cpu/cpu{one}/topology/thread_siblings_list": f"{its[0]}-{its[-1]}\n"
            for its in siblings
            for one in its
        }
        for name, text in {**told, **dict(files)}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    return make


def version_2(quota, group="/", at=""):
    return {"proc/self/cgroup": f"0::{group}\n", f"sys/fs/cgroup/{at}cpu.max": quota}


def version_1(quota, at=""):
    where = f"sys/fs/cgroup/cpu/{at}cpu.cfs_"
    groups = f"5:memory:/{UNIT}\n4:cpuset:/\n3:cpuacct,cpu:/{UNIT}\n0::/\n"
    return {"proc/self/cgroup": groups, f"{where}quota_us": quota, f"{where}period_us": "100000\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 64),
        (version_2("200000 100000\n"), 2),
        (version_2("150000 100000\n"), 2),
        (version_2("20000 100000\n"), 1),
        (version_2("max 100000\n"), 64),
        (version_2("300000 100000\n", group=f"/{UNIT}", at=f"{UNIT}/"), 3),
        (version_2("300000 100000\n", group=f"/{UNIT}", at="docker/"), 3),
        (version_2("300000 100000\n", group="/named/on/the/host"), 3),
        (version_2("6400000 50000\n"), 64),
        (version_2("damaged"), 64),
        (version_1("250000\n"), 3),
        (version_1("250000\n", at=f"{UNIT}/"), 3),
        (version_1("-1\n"), 64),
    ],
    ids=[
        "no groups", "2", "1.5", "0.2", "no quota", "its own group", "the group around it", "seen from inside",
        "more than there are", "damaged", "version 1", "version 1, its own group", "version 1, no quota",
    ],
)  # fmt: skip
def test_in_a_container_its_quota_counts_and_not_the_hosts_cores(host, files, expected):
    assert cores(host(64, files=files)) == expected


def test_the_smallest_of_the_quotas_around_a_process_counts(host):
    outer, inner = version_2("300000 100000\n"), version_2("500000 100000\n", group=f"/{UNIT}", at=f"{UNIT}/")
    assert cores(host(64, files={**outer, **inner})) == 3


def test_two_hyperthreads_are_one_core_and_cores_of_others_are_none(host, monkeypatch):
    root = host(8, each=2)
    assert cores(root) == 8
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 5})
    assert cores(root) == 2


def test_a_machine_that_tells_nothing_is_taken_by_what_the_process_is_bound_to(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 4, 5})
    assert cores(tmp_path) == 3


@pytest.fixture
def eight(monkeypatch):
    monkeypatch.setattr(settled, "cores", lambda: 8)


def test_the_experiment_comes_before_the_environment_and_that_before_the_cores(eight, monkeypatch):
    assert threads(None) == 8
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert threads(None) == 3
    monkeypatch.setenv("MKL_NUM_THREADS", "5")
    assert threads(None) == 5, "which is what torch asks first"
    assert threads(2) == 2


@pytest.mark.parametrize("said", ["", "0", "-1", "all"])
def test_a_variable_that_names_no_number_is_none(eight, monkeypatch, said):
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert threads(None) == 8


def test_processes_of_a_study_share_the_cores_but_not_what_the_user_says_of_each(eight, monkeypatch):
    assert [threads(None, processes) for processes in (1, 3, 16)] == [8, 2, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert threads(None, 16) == 4


def in_python(code: str, *, check: bool = True, **environment: str) -> str:
    """What it prints, stderr too, in a process to which nothing is handed down."""
    inherited = {name: value for name, value in os.environ.items() if name not in SAID}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**inherited, **environment}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, check=check,
    )  # fmt: skip
    return done.stdout


COUNTED = """
from resources import threads
threads.cores = lambda: 2
{before}
threads.set_threads({wanted})
import torch
print(torch.get_num_threads(), threads.threads(None))
"""


@pytest.mark.slow("processes")
@pytest.mark.skipif(cores() < 2, reason="torch gives one core one thread")
@pytest.mark.parametrize(
    ("wanted", "environment", "before", "expected"),
    [
        (None, {}, "", 2),
        (None, {"OMP_NUM_THREADS": "1"}, "", 1),
        (1, {}, "", 1),
        (2, {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}, "", 2),
        (1, {}, "import torch", 1),
    ],
    ids=["cores", "environment", "experiment", "experiment against environment", "torch is loaded"],
)
def test_torch_has_the_threads_that_were_decided(wanted, environment, before, expected):
    assert in_python(COUNTED.format(wanted=wanted, before=before), **environment) == f"{expected} {expected}\n"


WAYS_IN = {
    "apt-assets run": "from apt_assets.cli import main; sys.argv[1:] = ['run']; main()",
    "Dagster": "from apt_assets.definitions import defs; defs()",
    "a study": "from apt_assets.study.cell import main; sys.argv[1:] = [os.environ['APT_EXPERIMENT'], '1']; main()",
}


@pytest.mark.slow("processes")
@pytest.mark.parametrize("code", WAYS_IN.values(), ids=WAYS_IN)
def test_every_process_that_computes_has_the_threads_that_the_experiment_says(code, make_experiment, tmp_path):
    path = make_experiment(policy={"threads": 3})
    code = f"import atexit, os, sys\natexit.register(lambda: print('threads', os.environ['OMP_NUM_THREADS']))\n{code}"
    places = {"APT_EXPERIMENT": str(path), "APT_HOME": str(tmp_path), "DAGSTER_HOME": str(tmp_path)}
    assert "threads 3\n" in in_python(code, check=False, OMP_NUM_THREADS="1", **places)
