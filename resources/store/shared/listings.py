"""What lies in a bucket, without asking for each thing: a plan looks up every stage of every iteration."""

import threading
import time
from collections.abc import Callable

from resources.store.shared.bucket import Bucket, Thing

FRESH_SECONDS = 1.0


class Listings:
    """The things in each folder at the top of a bucket, as they were a second ago at most.

    since: when this process last got a lock, by `time.monotonic`. What was listed before that is listed anew: whoever
    had the lock by then may have written. So nothing is computed because of what was not seen yet. The server must
    list what was written, which Amazon's does since 2020 ("Amazon S3 data consistency model").
    """

    def __init__(self, bucket: Bucket, since: Callable[[], float]):
        self._bucket, self._since = bucket, since
        self._found: dict[str, tuple[float, dict[str, Thing]]] = {}
        self._written: dict[str, tuple[float, Thing]] = {}  # by this process, and when
        self._lock = threading.Lock()

    def folder(self, name: str) -> dict[str, Thing]:
        """Name -> thing of all below a folder at the top; it must not be changed."""
        at, things = self._found.get(name, (float("-inf"), {}))
        now = time.monotonic()
        if at <= self._since() or now - at > FRESH_SECONDS:
            things = {thing.name: thing for thing in self._bucket.things(name)}
            with self._lock:  # what another thread has written since the server was asked may be missing
                meanwhile = {n: its for n, (when, its) in self._written.items() if when >= now and top(n) == name}
                things |= meanwhile
                if self._found.get(name, (float("-inf"),))[0] < now:
                    self._found[name] = now, things
                    self._written = {n: its for n, its in self._written.items() if n in meanwhile or top(n) != name}
        return things

    def get(self, name: str) -> Thing | None:
        return self.folder(top(name)).get(name)

    def put(self, thing: Thing) -> None:
        """Add what this process has written."""
        with self._lock:
            self._written[thing.name] = time.monotonic(), thing
            if found := self._found.get(top(thing.name)):
                found[1][thing.name] = thing

    def expire(self) -> None:
        """List anew what is asked for next: things were moved or removed, or are not what was listed."""
        self._found.clear()


def top(name: str) -> str:
    return name.partition("/")[0]
