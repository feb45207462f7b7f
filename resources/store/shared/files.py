"""Small files by their place in a bucket."""

from collections.abc import Callable
from typing import Any, TypeVar

from resources.store.records import Changed
from resources.store.shared.bucket import ABSENT, Bucket, Unchanged

T = TypeVar("T")


class BucketFiles:
    """Files (resources/store/records.py) in a bucket. What is written replaces only what was read last."""

    def __init__(self, bucket: Bucket):
        self._bucket = bucket
        self._seen: dict[str, str] = {}  # place -> tag of what was read or written last
        self._remembered: dict[str, tuple[str, Any]] = {}  # place -> (tag, what was made of it)

    def read(self, place: str, parse: Callable[[bytes], T]) -> T:
        tag, value = self._remembered.get(place, (None, None))
        try:
            content, now = self._bucket.read(place, unless=tag)
        except Unchanged:
            return value  # type: ignore[return-value]  # what `parse` returned then
        except FileNotFoundError:
            self._forget(place)
            raise
        self._seen[place] = now
        made = parse(content)
        self._remembered[place] = (now, made)
        return made

    def write(self, place: str, text: str) -> None:
        try:
            self._seen[place] = self._bucket.write(place, text.encode(), over=self._seen.get(place, ABSENT)).tag
        except Changed:
            self._forget(place)
            raise

    def move(self, place: str, target: str) -> bool:
        self._forget(place)
        return self._bucket.move(place, target)

    def remove(self, place: str) -> None:
        self._forget(place)
        self._bucket.remove([place])

    def names(self, folder: str) -> list[str]:
        return self._bucket.names(folder)

    def where(self, place: str) -> str:
        return self._bucket.where(place)

    def _forget(self, place: str) -> None:
        self._seen.pop(place, None)
        self._remembered.pop(place, None)
