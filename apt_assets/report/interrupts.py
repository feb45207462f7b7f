"""Ctrl-C: the command ends with one line, whatever was under way.

Python raises KeyboardInterrupt wherever it is, and Dagster an error of its own. Both get lost: in a callback of the
import system or of the garbage collector, whose errors nobody gets, or in a library that catches everything. So what
got lost is raised again, and a process that has not ended a while after Ctrl-C is ended. That is safe: nothing is ever
half-written in the store, even by a kill.

Imports next to nothing, since it comes first (apt_assets/cli.py).
"""

import os
import select
import signal
import sys
import threading
import time
from typing import Any, NoReturn

INTERRUPTED = 130  # the exit code
LINE = "interrupted: finished stages are kept, and the next run goes on from there"
PATIENCE = 5.0  # seconds that what is under way has to come to an end
PROGRAMS = ("apt-assets", "cli.py")  # the script, and `python -m apt_assets.cli`
LOST = ("KeyboardInterrupt", "DagsterExecutionInterruptedError")
_said = threading.Lock()


def end_while_importing() -> None:
    """Until `watch`, Ctrl-C ends this program at once: an import that is broken off may raise anything."""
    if os.path.basename(sys.argv[0]) in PROGRAMS and signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # noqa: PTH119
        signal.signal(signal.SIGINT, lambda *_: end())


def watch() -> None:
    """From here on Ctrl-C is KeyboardInterrupt, and if that does not end the process, or comes a second time, `end`."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # nohup, or in the background of a script
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.unraisablehook = raise_again
    # Told by the interpreter itself, whoever handles the signal by then.
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=wait, args=(reading,), daemon=True).start()


def wait(signals: int) -> None:
    """End the process PATIENCE after the first Ctrl-C, or on the second. signals: a pipe with their numbers."""
    while os.read(signals, 1)[0] != signal.SIGINT:
        pass
    time.sleep(0.3)  # one press may come twice, from the terminal and from a program that passes it on
    while select.select([signals], [], [], 0)[0]:
        os.read(signals, 1)
    select.select([signals], [], [], PATIENCE)
    end()


def raise_again(lost: Any) -> None:
    """`sys.unraisablehook`: an interrupt that nobody gets comes again, elsewhere."""
    if lost.exc_type.__name__ in LOST:
        threading.Timer(0.05, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(lost)


def tell() -> int:
    """Say, once, that it was interrupted; returns the exit code."""
    if _said.acquire(blocking=False):
        shown = b"\r\x1b[K\x1b[?25h" if os.isatty(2) and os.environ.get("TERM", "dumb") != "dumb" else b""
        os.write(2, shown + f"{LINE}\n".encode())  # a bar may be under way, and the cursor hidden
    return INTERRUPTED


def end() -> NoReturn:
    os._exit(tell())
