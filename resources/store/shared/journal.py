"""The journal of a shared store: each process writes things of its own, since nothing can be appended to one."""

import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from typing import Any

from resources.store.journal import events_in
from resources.store.manifest import now
from resources.store.shared.bucket import Bucket
from resources.store.shared.copies import Copies

MOST_BYTES = 1 << 16  # of a thing, which is written anew with each event
ORDER = "order"  # by what events of several processes are put in order: the time in ns, as each machine's clock has it


class BucketJournal:
    """Events (resources/store/journal.py) below `journal/`; what was noted is on the server."""

    def __init__(self, bucket: Bucket, copies: Copies):
        self._bucket, self._copies = bucket, copies
        self._writing = threading.Lock()
        self._name, self._pid, self._lines, self._last = "", 0, b"", 0

    def note(self, event: str, **fields: Any) -> None:
        with self._writing:
            if self._pid != os.getpid() or len(self._lines) > MOST_BYTES:
                self._pid, self._lines = os.getpid(), b""
                self._name = f"journal/{time.time_ns()}-{secrets.token_hex(4)}.jsonl"
            order = max(time.time_ns(), self._last + 1)
            said = {"time": now(), "event": event, **fields, ORDER: order}
            line = json.dumps(said, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
            self._bucket.write(self._name, self._lines + line)
            self._lines += line
            self._last = order

    def sync(self) -> None:
        """Nothing is left to do."""

    def events(self, *kinds: str) -> Iterator[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for path in self._copies.of(self._bucket.things("journal")):
            with path.open("rb") as file:
                found += events_in(file, kinds)
        for event in sorted(found, key=lambda event: event.get(ORDER, 0)):
            yield {key: value for key, value in event.items() if key != ORDER}
