"""Threads that wait sleep where others want the cores, and the load of a machine decides no more than that."""

import ctypes
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from apt_assets.settings.experiment import REPOSITORY
from benchmarks.busy import LOOP
from resources import spinning

TOLD = Path("/proc/self/schedstat").exists()  # by the kernel


@pytest.mark.parametrize(
    ("ran", "waited", "expected"),
    [(0.25, 0.01, False), (0.1, 0.1, True), (0.001, 0.02, False)],
    ids=["of its own core", "of a core that another has half of", "of one that hardly runs"],
)
def test_waits_of_a_thread_tell_that_others_want_the_cores(ran, waited, expected):
    quiet = {str(number): (5.0, 7.0) for number in range(64)}, {str(number): (5.25, 7.0) for number in range(64)}
    before, now = {**quiet[0], "one": (8.0, 9.0)}, {**quiet[1], "one": (8.0 + ran, 9.0 + waited)}
    assert spinning.others_want_cores(before, now) == expected
    assert spinning.others_want_cores(quiet[0], {**quiet[1], "new": (ran, waited)}) == expected


def test_times_are_told_by_thread_and_one_that_ended_is_left_out(tmp_path):
    for thread, said in {"11": "5000000000 1500000000 3\n", "12": "0 0 0\n", "13": "", "14": None}.items():
        (folder := tmp_path / "task" / thread).mkdir(parents=True)
        if said is not None:
            (folder / "schedstat").write_text(said)
    assert spinning.times(tmp_path) == {"11": (5.0, 1.5), "12": (0.0, 0.0)}
    assert spinning.times(tmp_path / "elsewhere") == {}


def test_process_that_computes_without_torch_or_without_gnu_openmp_has_none(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert spinning.gomp() is None
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(__file__="/elsewhere/torch/__init__.py"))
    assert spinning.gomp() is None
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(ctypes, "CDLL", lambda path: SimpleNamespace(omp_get_num_procs=lambda: 2))
    assert spinning.gomp() is None


def test_no_idle_threads_are_begun_where_a_process_may_not_have_so_many(monkeypatch):
    """OpenMP would end the process."""
    begun, start = [], threading.Thread.start

    def at_most_three(thread):
        if len(begun) == 3:
            raise RuntimeError("can't start new thread")
        begun.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", at_most_three)
    assert spinning.keep_idle(SimpleNamespace(omp_get_num_procs=ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 4))) is None
    assert len(begun) == 3
    assert not any(thread.is_alive() for thread in begun)


# In processes of their own, in which nothing looks at the load meanwhile.
BEGUN = """
import sklearn.cluster  # has an OpenMP of its own
import torch
from resources import spinning
from tests import waiting

def there():
    return sum(1 for _ in (spinning.PROC / "task").iterdir())

def keep_idle():
    before = there()
    over = spinning.keep_idle(spinning.gomp())
    waiting.until(lambda: there() > before + spinning.gomp().omp_get_num_procs(), 60)
    return over
"""
COUNTED = """
before = there()
keep_idle().set()
waiting.until(lambda: there() <= before, 60)
"""
# What the threads beside the first one consume while that one computes alone, between what all do.
SPUN = """
import resource, time

def others():
    whole, own = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_THREAD)
    return whole.ru_utime + whole.ru_stime - own.ru_utime - own.ru_stime

def spun():
    before, x = others(), torch.zeros(2**16)
    for _ in range(1000):
        x.add_(1)
        until = time.thread_time() + 2e-4
        while time.thread_time() < until:
            pass
    return others() - before

torch.set_num_threads(2)
alone = spun()
keep_idle()
print(alone, spun())
"""


@pytest.mark.slow("processes")
def test_idle_threads_come_and_go():
    said_by(BEGUN + COUNTED)


@pytest.mark.slow("processes")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="OpenMP spins for no time on one core")
def test_a_thread_that_waits_takes_no_processor_time_while_there_are_idle_ones():
    alone, asleep = map(float, said_by(BEGUN + SPUN).split())
    assert asleep < alone / 2


LOOKED_AT = """
import threading, time
import torch
from resources import threads

threads.set_threads(NUMBER)
x, until = torch.zeros(2**20), time.monotonic() + SECONDS
names = set()
while time.monotonic() < until and "idle" not in names:
    for _ in range(20):
        x.add_(1)
    names |= {one.name for one in threading.enumerate()}
print(*sorted(names & {"spinning", "idle"}))
"""


@pytest.mark.slow("processes")
@pytest.mark.skipif(not TOLD, reason="this kernel does not tell how long threads wait")
def test_a_process_of_several_threads_sees_that_others_want_its_cores():
    loops = [subprocess.Popen([sys.executable, "-c", LOOP]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        said = said_by(LOOKED_AT.replace("NUMBER", "2").replace("SECONDS", "60"))
    finally:
        for one in loops:
            one.kill()
            one.wait()
    assert said.split() == ["idle", "spinning"]


@pytest.mark.slow("processes")
def test_a_process_of_one_thread_does_not_look():
    assert said_by(LOOKED_AT.replace("NUMBER", "1").replace("SECONDS", "0.5")).split() == []


def said_by(program):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "MKL_NUM"))}
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, env=kept, capture_output=True, text=True, timeout=180
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
