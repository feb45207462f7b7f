"""Waiting for what has to happen. No other file of the tests sleeps (test_waiting.py)."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def within(seconds: float, look: Callable[[], Found], pause: float = 0.02) -> Found | None:
    """What `look` finds, as soon as that is something; None if it is nothing for so many seconds."""
    end = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > end:
            return None
        time.sleep(pause)
    return found


def until(
    look: Callable[[], Found], seconds: float, pause: float = 0.02, instead: Callable[[], object] = lambda: ""
) -> Found:
    """What `look` finds, as soon as that is something. Raises AssertionError, with what there was `instead`."""
    found = within(seconds, look, pause)
    assert found is not None, f"not within {seconds} s: {instead()}"
    return found
