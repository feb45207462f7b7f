"""Small files by their place in a bucket."""

from collections.abc import Callable
from typing import Any, TypeVar

from resources.store.records import Changed
from resources.store.sealed import Damaged
from resources.store.shared.bucket import ABSENT, TRIES, Bucket
from resources.store.shared.copies import Copies
from resources.store.shared.listings import Listings

T = TypeVar("T")


class BucketFiles:
    """Files (resources/store/records.py) in a bucket. What is written replaces only what was listed last."""

    def __init__(self, bucket: Bucket, copies: Copies, listings: Listings):
        self._bucket, self._copies, self._listings = bucket, copies, listings
        self._remembered: dict[str, tuple[str, Any]] = {}  # place -> (tag, what was made of it)

    def read(self, place: str, parse: Callable[[bytes], T]) -> T:
        for _ in range(TRIES):
            if (thing := self._listings.get(place)) is None:
                raise FileNotFoundError(self.where(place))
            tag, made = self._remembered.get(place, (None, None))
            if tag == thing.tag:
                return made  # type: ignore[return-value]  # what `parse` returned then
            try:
                (path,) = self._copies.of([thing])
                try:
                    made = parse(path.read_bytes())
                except Damaged:
                    self._copies.drop(thing)  # it may be the copy that is damaged
                    made = parse(self._copies.of([thing])[0].read_bytes())
            except FileNotFoundError:
                self._listings.expire()  # it was written anew since it was listed
                continue
            self._remembered[place] = (thing.tag, made)
            return made
        raise self._bucket.unsteady(place)

    def write(self, place: str, text: str) -> None:
        known = self._listings.get(place)
        try:
            thing = self._bucket.write(place, text.encode(), over=known.tag if known else ABSENT)
        except Changed:
            self._listings.expire()
            raise
        self._copies.keep(thing, text.encode())
        self._listings.put(thing)

    def move(self, place: str, target: str) -> bool:
        moved = self._bucket.move(place, target)
        self._listings.expire()
        return moved

    def remove(self, place: str) -> None:
        self._bucket.remove([place])
        self._listings.expire()

    def names(self, folder: str) -> list[str]:
        below = f"{folder}/"
        places = self._listings.folder(folder.partition("/")[0])
        return sorted({place[len(below) :].partition("/")[0] for place in places if place.startswith(below)})

    def where(self, place: str) -> str:
        return self._bucket.where(place)
