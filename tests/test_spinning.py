"""Threads that wait sleep where others want the cores, and the load of a machine decides no more than that."""

import ctypes
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from apt_assets.settings.experiment import REPOSITORY
from resources import spinning


@pytest.fixture
def told(monkeypatch):
    """A function (shares, waits of all threads in seconds a second, one a look) -> what was begun and ended, look by
    look."""

    class Over(Exception):
        pass

    def run(shares):
        done, now = [[]], {"seconds": 0.0, "waited": 0.0}
        steps = iter(shares)

        def sleep(seconds):
            share = next(steps, None)
            if share is None:
                raise Over
            done.append([])
            now["seconds"] += seconds
            now["waited"] += share * seconds

        class Begun:
            def __init__(self):
                done[-1].append("begun")

            def end(self):
                done[-1].append("ended")

        monkeypatch.setattr(spinning, "waited", lambda: {"1": now["waited"] / 2, "2": now["waited"] / 2})
        monkeypatch.setattr(spinning.time, "sleep", sleep)
        monkeypatch.setattr(spinning.time, "monotonic", lambda: now["seconds"])
        monkeypatch.setattr(spinning.Idle, "begin", Begun)
        with pytest.raises(Over):
            spinning.look_on()
        return done[2:]

    return run


def test_threads_sleep_from_the_look_that_finds_them_waiting_until_one_that_does_not(told):
    assert told([0.0, 0.5, 0.9, 0.1, 0.01, 0.0, 0.3, 0.0]) == [["begun"], [], [], ["ended"], [], ["begun"], ["ended"]]


def test_waits_are_added_up_by_thread_and_one_that_ended_is_left_out(tmp_path):
    for thread, said in {"11": "5 1500000000 3\n", "12": "0 0 0\n", "13": "", "14": None}.items():
        (folder := tmp_path / "task" / thread).mkdir(parents=True)
        if said is not None:
            (folder / "schedstat").write_text(said)
    assert spinning.waited(tmp_path) == {"11": 1.5, "12": 0.0}
    assert spinning.waited(tmp_path / "elsewhere") == {}


def test_process_that_computes_without_torch_or_by_another_openmp_keeps_no_idle_threads(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert spinning.gomp() is None
    assert spinning.Idle.begin() is None
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(__file__="/elsewhere/torch/__init__.py"))
    assert spinning.gomp() is None
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(ctypes, "CDLL", lambda path: SimpleNamespace(omp_get_num_procs=lambda: 2))
    assert spinning.gomp() is None


# In a process of its own, in which nothing looks at the load meanwhile.
COUNTED = """
import torch
from resources import spinning
from tests import waiting

def there():
    return sum(1 for _ in (spinning.PROC / "task").iterdir())

before = there()
idle = spinning.Idle.begin()
waiting.until(lambda: there() > before + spinning.gomp().omp_get_num_procs(), 60)
idle.end()
waiting.until(lambda: there() <= before, 60)
"""


def test_threads_that_do_nothing_come_and_go():
    said_by(COUNTED)


# What the threads beside the first one consume while that one computes alone, between what all do.
SPUN = """
import resource, time
import sklearn.cluster  # has an OpenMP of its own
import torch
from resources import spinning

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
idle = spinning.Idle.begin()
time.sleep(0.5)
asleep = spun()
print(alone, asleep)
"""


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="OpenMP spins for no time on one core")
def test_a_thread_that_waits_takes_no_processor_time_while_there_are_idle_ones():
    alone, asleep = map(float, said_by(SPUN).split())
    assert asleep < alone / 2


LOOKED_AT = """
import threading, time
import torch
from resources import spinning, threads

spinning.LOOK_SECONDS = 0.1
threads.set_threads(NUMBER)
x, until = torch.zeros(2**20), time.monotonic() + 20 * (NUMBER > 1) + 1
names = set()
while time.monotonic() < until and "idle" not in names:
    for _ in range(20):
        x.add_(1)
    names |= {one.name for one in threading.enumerate()}
print(*sorted(names & {"spinning", "idle"}))
"""


@pytest.mark.parametrize(("number", "expected"), [(2, "idle spinning"), (1, "")])
def test_a_process_of_several_threads_looks_whether_others_want_its_cores(number, expected):
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        assert said_by(LOOKED_AT.replace("NUMBER", str(number))).strip() == expected
    finally:
        for one in loops:
            one.kill()
            one.wait()


def said_by(program):
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
