"""A prefix of a bucket: the one way to an object store's server, by obstore.

Credentials, endpoint and region are what obstore finds in the environment (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`,
`AWS_REGION`, `AWS_ALLOW_HTTP`, ...). obstore tries again where that may help; what it gives up raises StoreError.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from resources.store.records import Changed
from resources.store.store import StoreError

ABSENT: Literal["absent"] = "absent"
RETRIES = 10  # of a request, by obstore, with growing pauses; it gives up after three minutes at the latest
PART_BYTES = 1 << 24  # of a download: one request is given $AWS_TIMEOUT, 30 s by default
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")  # as obstore looks for it
TRIES = 10  # to read what was listed, where another process may write anew what lies there
PROBE = "probe"  # a thing that every opening tries to create and to replace


@dataclass(frozen=True)
class Thing:
    """One object of a bucket. name: its key below the prefix. tag: its ETag, another one when it is written anew."""

    name: str
    tag: str
    size: int


class Bucket:
    """What lies below one `s3://bucket/prefix`, by name. Every method may raise StoreError.

    Opening it tries whether the server keeps the conditions of a write: one that does not would let two processes
    overwrite each other without a word.
    """

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        try:
            from obstore import exceptions, store
        except ImportError:
            raise StoreError(
                f"{self.url}: a shared store needs the extra `cluster`: pip install 'apt-assets[cluster]'"
            ) from None
        self._errors: Any = exceptions
        with self._telling("open"):
            self._store: Any = store.S3Store.from_url(self.url, retry_config={"max_retries": RETRIES})
        self._probe()

    @property
    def endpoint(self) -> str:
        """The address of the server, where the environment names one; else it is Amazon's."""
        return next((os.environ[name] for name in ENDPOINTS if name in os.environ), "")

    def where(self, name: str) -> str:
        """The address of a thing, for people."""
        return f"{self.url}/{name}"

    # -- reading ---------------------------------------------------------------------------------

    def things(self, folder: str) -> list[Thing]:
        """All that lies below a folder, by name."""
        import obstore

        with self._telling(f"list {folder}"):
            found = [self._thing(meta) for chunk in obstore.list(self._store, f"{folder}/") for meta in chunk]
        return sorted(found, key=lambda thing: thing.name)

    def read(self, name: str) -> tuple[bytes, str]:
        """(content, tag). Raises FileNotFoundError."""
        import obstore

        with self._telling(f"read {name}"):
            got = obstore.get(self._store, name)
            return bytes(got.bytes()), self._tag(got.meta)

    def download(self, thing: Thing, path: Path) -> None:
        """Write a thing's content to a file. Raises FileNotFoundError if it is gone or was written anew."""
        import obstore

        with self._telling(f"read {thing.name}"), path.open("wb") as file:
            for start in range(0, thing.size, PART_BYTES):
                part = (start, min(start + PART_BYTES, thing.size))
                try:
                    got = obstore.get(self._store, thing.name, options={"if_match": thing.tag, "range": part})
                    file.write(got.bytes())
                except self._errors.PreconditionError:
                    raise FileNotFoundError(self.where(thing.name)) from None

    # -- writing ---------------------------------------------------------------------------------

    def write(self, name: str, content: bytes | Path, *, over: str | None = None) -> Thing:
        """Write a thing at once, however large. over: only over what has this tag, or where there is nothing (ABSENT).
        Raises Changed if that is not so, also where an earlier try of this very call was the writer."""
        import obstore

        mode: Any = "overwrite" if over is None else "create" if over == ABSENT else {"e_tag": over}
        with self._telling(f"write {name}"):
            try:
                put = obstore.put(self._store, name, content, mode=mode)
            except (self._errors.AlreadyExistsError, self._errors.PreconditionError):
                raise Changed(self.where(name)) from None
            except FileNotFoundError as error:
                if over in (None, ABSENT):  # it is the bucket that is not there
                    raise StoreError(f"{self._named}: there is no such bucket") from error
                raise Changed(self.where(name)) from None
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        return Thing(name, self._tag(put), size)

    def create(self, name: str, content: bytes) -> Thing:
        """Write a thing where there is none. Raises Changed if there is one with another content."""
        try:
            return self.write(name, content, over=ABSENT)
        except Changed:
            # The answer to a try that had done it may have been lost.
            with suppress(FileNotFoundError):
                found, tag = self.read(name)
                if found == content:
                    return Thing(name, tag, len(content))
            raise

    def move(self, name: str, target: str) -> bool:
        """Move a thing, or all below a folder, one by one; False if nothing is there."""
        import obstore

        names = [thing.name for thing in self.things(name)] or [name]
        moved = []
        with self._telling(f"move {name}"):
            for one in names:
                with suppress(FileNotFoundError):  # another process has moved it since
                    obstore.copy(self._store, one, target + one.removeprefix(name))
                    moved.append(one)
        self.remove(moved)
        return bool(moved)

    def remove(self, names: Iterable[str]) -> None:
        """Remove things, those that are there."""
        import obstore

        if listed := list(names):
            with self._telling(f"remove {listed[0]}"):
                obstore.delete(self._store, listed)

    def unsteady(self, name: str) -> StoreError:
        """What is told of a thing that was never what it was listed as."""
        return StoreError(f"{self._named}: {name} is each time another than the server lists")

    # -- what may go wrong -----------------------------------------------------------------------

    def _tag(self, meta: Any) -> str:
        if not meta["e_tag"]:
            raise StoreError(f"{self._named}: this server gives no ETag, by which a change is noticed")
        return str(meta["e_tag"])

    def _thing(self, meta: Any) -> Thing:
        return Thing(meta["path"], self._tag(meta), meta["size"])

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """Say what could not be done and why in one line, without what a library adds for its maintainers."""
        try:
            yield
        except (self._errors.BaseError, ValueError) as error:
            said = str(error).partition("\n")[0]
            raise StoreError(f"{self._named}: cannot {what}: {said}") from error

    @property
    def _named(self) -> str:
        return f"{self.url} ({self.endpoint})" if self.endpoint else self.url

    def _probe(self) -> None:
        """Raises StoreError if a second creating write succeeds, or one over what is not there."""
        try:
            self.write(PROBE, b"", over=ABSENT)
            self.write(PROBE, b"", over=ABSENT)
        except Changed:
            try:
                self.write(PROBE, b"", over='"0"')
            except Changed:
                return
            header = "If-Match"
        else:
            header = "If-None-Match"
        raise StoreError(
            f"{self._named}: this server does not keep {header}: of two processes that write at once, "
            "one would overwrite the other without a word. Use a server with conditional writes"
        )
