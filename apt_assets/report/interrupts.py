"""Ctrl-C: the command ends with one line and nothing else, whatever was under way.

Python raises KeyboardInterrupt wherever it is, and Dagster an error of its own. Both get lost: in a callback of the
import system or of the garbage collector, whose errors nobody gets, or in a library that catches everything. So what
got lost is raised again, and a process that has not ended a while after Ctrl-C is ended. That is safe: nothing is ever
half-written in the store, even by a kill.

Imports next to nothing, since it comes before all else (apt_assets/cli.py).
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

INTERRUPTED = 130  # the exit code
PATIENCE = 5.0  # seconds that what is under way has to come to an end
PROGRAMS = ("apt-assets", "cli.py")  # the script, and `python -m apt_assets.cli`
LOST = ("KeyboardInterrupt", "DagsterExecutionInterruptedError")
WATCHING: list[object] = []  # the thread of `watch`
STDERR = [2]  # where the line goes; Dagster puts a file in the place of 2 while a step runs
CLEAR = "\r\x1b[K\x1b[?25h"  # the line, and the cursor shown
LINES = ["interrupted: finished stages are kept, and the next run goes on from there"]  # until it is said


def end_while_importing() -> None:
    """Until `watch`, Ctrl-C ends this program at once: an import that is broken off may raise anything."""
    if sys.argv[0].rpartition("/")[2] in PROGRAMS and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: end())


def watch() -> None:
    """From here on Ctrl-C is KeyboardInterrupt, and if that does not end the process, or comes a second time, `end`."""
    import threading

    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # nohup, or in the background of a script
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.unraisablehook = raise_again
    STDERR[0] = os.dup(2)
    # Told by the interpreter itself, whoever handles the signal by then.
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    watcher = threading.Thread(target=wait, args=(reading,), daemon=True)
    watcher.start()
    WATCHING.append(watcher)


def wait(signals: int) -> None:
    """End the process PATIENCE after the first Ctrl-C, or on the second. signals: a pipe with their numbers."""
    import logging
    import select
    import time

    while os.read(signals, 1)[0] != signal.SIGINT:
        pass
    logging.disable()  # of connections that were broken off, for example
    time.sleep(0.5)  # one Ctrl-C may come twice: from the terminal, and from a program that passes it on
    while select.select([signals], [], [], 0)[0]:
        os.read(signals, 1)
    select.select([signals], [], [], PATIENCE)
    end()


def raise_again(lost: "sys.UnraisableHookArgs") -> None:
    """`sys.unraisablehook`: an interrupt that nobody gets comes again, elsewhere."""
    import threading

    if lost.exc_type.__name__ in LOST:
        threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGINT]).start()
    else:
        sys.__unraisablehook__(lost)


@contextmanager
def kept_from_children() -> Iterator[None]:
    """Processes that are started in here do not get Ctrl-C, which a terminal sends to all: they end with this one, and
    would say so at length. Here it comes by way of the thread of `watch`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT] if WATCHING else [])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def tell() -> int:
    """Say, once, that it was interrupted; returns the exit code."""
    with suppress(IndexError, OSError):
        # A bar may be under way, and the cursor hidden.
        plain = not os.isatty(STDERR[0]) or os.environ.get("TERM", "dumb") == "dumb"
        os.write(STDERR[0], f"{'' if plain else CLEAR}{LINES.pop()}\n".encode())
    return INTERRUPTED


def end() -> None:
    os._exit(tell())
