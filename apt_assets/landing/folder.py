"""The folder in which files land: which of them count, and what their rows say."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from apt_assets.landing.names import is_corrections
from apt_assets.landing.readers import format_of, suffixes_of
from resources.store.file_digests import FileDigests

# What no name of a landed file holds: control characters, those that turn the direction of writing, and bytes that
# are no text. Whoever reads such a name in a list or a log reads another one.
UNSHOWN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass
class LandingFolder:
    """reader: a name of the code that reads landed files, under which what it found in one is remembered."""

    path: Path
    digests: FileDigests
    reader: Callable[[], str]

    def names(self) -> list[str]:
        """Names of the files now in the landing folder, sorted. Left out are a file whose name begins with a dot or
        holds what UNSHOWN finds, and a symbolic link that leads out of the folder."""
        if not self.path.is_dir():
            return []
        names = sorted(p.name for p in self.path.iterdir() if format_of(p.name) and p.is_file())
        shown = [name for name in names if not name.startswith(".") and not UNSHOWN.search(name)]
        return [name for name in shown if self._stays(self.path / name)]

    def _stays(self, path: Path) -> bool:
        """Whether a path in the landing folder is no link, or one to another file there."""
        return not path.is_symlink() or path.resolve().parent == self.path.resolve()

    def usable_rows(self, name: str) -> int:
        """How many rows of a landed file can be used; 0: it gives an iteration nothing new, or this machine fails to
        read it now."""
        try:
            return self._contents(name, self.reader())[1]
        except OSError:
            return 0

    def versions(self, names: list[str]) -> dict[str, str]:
        """Name -> digest of a file's rows, whatever their order: a shuffled file is the same file. A withdrawn file
        keeps its name with the digest "withdrawn"."""
        present, reader = set(self.names()), self.reader()
        return {name: self._contents(name, reader)[0] if name in present else "withdrawn" for name in names}

    def widest(self, name: str) -> int:
        """The most tokens that a row of a landed file can have in all, whatever the tokenizer."""
        return self._contents(name, self.reader())[2]

    def _contents(self, name: str, reader: str) -> tuple[str, int, int]:
        """(digest, number of usable rows, `widest`) of a landed file, read once for all."""
        from apt_assets.landing.records import contents_of

        def work_out(path: Path) -> str:
            found = contents_of(path)
            return json.dumps([found.digest, found.rows, found.widest])

        digest, rows, widest = json.loads(self.derived(name, f"contents {reader}", work_out))
        return digest, rows, widest

    def derived(self, name: str, what: str, work_out: Callable[[Path], str]) -> str:
        """What follows from a landed file, `what` naming it; worked out once for its content and what its name says of
        how it is read."""
        read_as = f"{suffixes_of(name).lower()}{' of decisions' if is_corrections(name) else ''}"
        return self.digests.derived(self.path / name, f"{what} {read_as}", work_out)
