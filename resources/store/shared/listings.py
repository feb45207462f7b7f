"""What lies in a bucket, without asking for each thing: a plan looks up every stage of every iteration."""

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

    def folder(self, name: str) -> dict[str, Thing]:
        """Name -> thing of all below a folder at the top; it must not be changed."""
        at, things = self._found.get(name, (float("-inf"), {}))
        now = time.monotonic()
        if at <= self._since() or now - at > FRESH_SECONDS:
            things = {thing.name: thing for thing in self._bucket.things(name)}
            self._found[name] = now, things  # of before it was listed: what is written meanwhile may be missing
        return things

    def get(self, name: str) -> Thing | None:
        return self.folder(name.partition("/")[0]).get(name)

    def put(self, thing: Thing) -> None:
        """Add what this process has written."""
        if found := self._found.get(thing.name.partition("/")[0]):
            found[1][thing.name] = thing

    def expire(self) -> None:
        """List anew what is asked for next: things were moved or removed, or are not what was listed."""
        self._found.clear()
