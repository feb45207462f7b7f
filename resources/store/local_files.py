"""Small files by their place in a folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from resources.store.digest import write_atomically
from resources.store.stat_cache import Remembered

T = TypeVar("T")


class LocalFiles:
    """Files (resources/store/records.py) below the folder `root`."""

    def __init__(self, root: Path):
        self.root = root
        # A plan asks for those of every iteration, and a run makes many plans.
        self._remembered: Remembered[Any] = Remembered()

    def read(self, place: str, parse: Callable[[bytes], T]) -> T:
        return self._remembered(f"{self.root}/{place}", lambda path: parse(path.read_bytes()))

    def write(self, place: str, text: str) -> None:
        write_atomically(self.root / place, text)

    def move(self, place: str, target: str) -> bool:
        (self.root / target).parent.mkdir(parents=True, exist_ok=True)
        try:
            (self.root / place).replace(self.root / target)
        except FileNotFoundError:
            return False
        return True

    def remove(self, place: str) -> None:
        (self.root / place).unlink(missing_ok=True)

    def names(self, folder: str) -> list[str]:
        try:
            # A name with a dot before it is what a kill left of a file that was being replaced.
            return sorted(path.name for path in (self.root / folder).iterdir() if not path.name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def where(self, place: str) -> str:
        return str(self.root / place)
