"""How a command ends: what went wrong as one line that people can act on, and the exit code.

0 done, 1 a stage or the gate failed, 2 bad usage or input, or a machine that does not let us, 130 interrupted, 141
nobody reads what is printed.
"""

import errno
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from apt_assets.report import interrupts
from apt_assets.report.terminal import prepare_streams, say
from apt_assets.settings.experiment import UsageError
from apt_assets.settings.reader import find_home
from resources.model.lm_eval_tasks import TaskError
from resources.store.manifest import CorruptArtifact
from resources.store.store import StoreError

UNREAD = 141  # what a shell says of a program that a closed pipe ended
# Where a disk or its rights are the reason, other libraries pass on these words and no OSError.
OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
PLAINER = {
    errno.EEXIST: "is there, and is no folder",
    errno.ENOTDIR: "leads through a file, where a folder is needed",
    errno.ELOOP: "leads in a circle of links",
}


def run_program(program: Callable[[], Any]) -> int:
    """Run `program` as a whole process: streams that any text can be printed to, Ctrl-C, and `ends` for whatever it
    raises. Returns the exit code."""
    prepare_streams()
    interrupts.watch()
    try:
        program()
        code: Any = 0
    except BaseException as error:
        code = ends(error)
    try:
        sys.stdout.flush()
    except OSError as error:
        code = ends(error)
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes it once more
    return code


def ends(error: BaseException) -> int:
    """Say what went wrong, in one line; returns the exit code. Only of a bug of ours there is a traceback."""
    match error:
        case SystemExit(code=interrupts.INTERRUPTED) | KeyboardInterrupt():
            return interrupts.tell()
        case SystemExit():
            return error.code if isinstance(error.code, int) else int(error.code is not None)
        case CorruptArtifact():
            say(f"error: {error}; `apt-assets run` computes it again")
            return 1
        case UsageError() | TaskError():
            say(f"error: {error}")
        case BrokenPipeError():
            return UNREAD
        case _ if reason := of_the_machine(error):
            say(f"error: {reason}")
        case _:
            say(f"error: a bug of apt-assets, please report it with what follows: {type(error).__name__}: {error}")
            say("".join(traceback.format_exception(error)))
            return 1
    return 2


def of_the_machine(error: BaseException) -> str | None:
    """`PATH: reason` of an error that a disk, its rights or a folder's files are the reason of, or the servers of a
    shared store; None of others, such as another server that does not answer."""
    for one in chain(error):
        if isinstance(one, StoreError):
            return str(one)
        number = one.errno if isinstance(one, OSError) else None
        if isinstance(one, OSError) and number and number > 0 and not isinstance(one, ConnectionError | TimeoutError):
            place = place_of(one)
            if number == errno.EEXIST and Path(place).is_dir():
                return f"{place}: is there already"
            return f"{place}: {PLAINER.get(number) or os.strerror(number)}"
    text = str(error)
    said = next((os.strerror(number) for number in OF_THE_DISK if os.strerror(number) in text), None)
    return said and f"{find_home()}: {said}"


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what it came from."""
    while error is not None:
        yield error
        error = error.__cause__


def place_of(error: OSError) -> str:
    """What an OSError is about; a write that fails names no file."""
    named = error.filename2 or error.filename
    if isinstance(named, bytes):
        named = os.fsdecode(named)
    if isinstance(named, str):
        return named
    try:
        Path.cwd()
    except OSError:
        return "the current folder"
    return str(find_home())
