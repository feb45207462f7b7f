"""Vectors by text, in LanceDB: each text embedded once, whatever experiment, pool or iteration asks.

    <name>.lance          text, vector and check of every row; grows by one fragment per commit
    <name>.checked.json   which of its files were read and found to be right, by content

They lie in a folder (vector_folder.py) or in a shared store (shared_vectors.py). A row's *check* is a digest of its
text and vector. A new fragment is compared with the checks of its rows once, and its file's digest is noted. As long as
the noted files have the digests they had, their rows need not be read again; when one has not, every row of the table
is compared anew. Rows that do not match, and files that cannot be read, are as good as absent: their texts are embedded
again.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from resources.retrieval.lance_rows import (
    BROKEN,
    Checked,
    blocks,
    compare,
    is_of,
    read_places,
    rewrite,
    table_rows,
    table_schema,
    take,
)
from resources.store.digest import digest_json
from resources.store.manifest import CorruptArtifact
from resources.store.rows import Batches
from resources.store.sealed import Damaged

if TYPE_CHECKING:
    import lancedb
    import numpy as np
    import polars as pl

    # A computation of the vectors of texts; positions are among these.
    Embed = Callable[[list[str]], Batches[np.ndarray]]

COMMIT_ROWS = 1024  # vectors between two commits to LanceDB, each of which makes a file


def table_name(context: dict[str, Any]) -> str:
    """The table of one encoder. context: all that decides a vector but its text."""
    return f"vectors-{digest_json(context)[:16]}"


def absent(texts: Sequence[str], rows: "pl.DataFrame") -> list[str]:
    """The distinct texts that no row has, in their order."""
    import polars as pl

    wanted = pl.DataFrame({"text": texts}, schema={"text": pl.String}).unique("text", maintain_order=True)
    return wanted.join(rows, on="text", how="anti", maintain_order="left")["text"].to_list()


def merged(batches: "Batches[np.ndarray]", rows: int) -> "Iterator[tuple[list[int], list[np.ndarray]]]":
    """The same positions and vectors in batches of at least so many rows; the last has what is left."""
    positions: list[int] = []
    vectors: list[np.ndarray] = []
    for more, their in batches:
        positions += more
        vectors += their
        if len(positions) >= rows:
            yield positions, vectors
            positions, vectors = [], []
    if positions:
        yield positions, vectors


def damaged_name(name: str) -> str:
    """What a table that cannot be opened is called from now on, beside the others; gc removes it."""
    return f"damaged-{time.time_ns()}-{name}.lance"


class VectorTable(ABC):
    """The rows of one encoder. name: of the table; where: of what holds it, for people."""

    def __init__(self, name: str, where: str):
        self.name, self.where = name, where

    # -- reading ---------------------------------------------------------------------------------

    def missing(self, texts: Sequence[str]) -> int:
        """How many distinct texts have no vector yet. Reads neither vectors nor files' digests: damage
        that nobody noticed so far is not noticed here."""
        table = self.opened()
        return len(set(texts)) if table is None else len(absent(texts, read_places(table, ["text"], self._noted())))

    def rows(self, *columns: str) -> "pl.DataFrame":
        """`place` and `columns` (text, check) of every row that is right."""
        return self._look(*columns)[0]

    def vectors(self, places: "np.ndarray") -> "np.ndarray":
        """(places, dimensions), in the order of `places`, which `rows` gave. Raises CorruptArtifact."""
        with self._reading() as table:
            return take(table, places)

    def blocks(self, places: "np.ndarray") -> Iterator[tuple["np.ndarray", "np.ndarray"]]:
        """The vectors at `places`, which `rows` gave, ascending: (positions in `places`, (positions,
        dimensions)), some thousand at a time. Raises CorruptArtifact if they are not all there."""
        found = 0
        with self._reading() as table:
            for positions, matrix in blocks(table, places, self._noted().lost):
                found += len(positions)
                yield positions, matrix
            if found != len(places):
                raise KeyError(f"{len(places) - found} rows are gone")

    def mark(self) -> dict[str, Any]:
        """The state of the table after `fill`, for `unchanged_since`."""
        known = self._noted()
        return known.mark(len(known.files))

    def unchanged_since(self, mark: dict[str, Any]) -> bool:
        """Whether all that was there at `mark` still is, by the digests of the files: LanceDB is not
        even loaded. False may also mean that something else was damaged."""
        return mark["files"] > 0 and self._unchanged().mark(mark["files"]) == mark

    # -- writing ---------------------------------------------------------------------------------

    def fill(self, texts: Sequence[str], embed: "Embed", check: Callable[[], None] = lambda: None) -> int:
        """Embed and keep the texts that have no vector; returns how many. They are kept every few batches, after
        `check`, which may raise. `embed` is called only if something is missing."""
        with self._writing():
            rows, known = self._look("text")
            wanted = absent(texts, rows)
            if wanted:
                self._embed(wanted, embed, check)
                _, known = self.compared()  # reads back the new rows, and only them
            self._remember(known)
        return len(wanted)

    def _embed(self, texts: list[str], embed: "Embed", check: Callable[[], None]) -> None:
        import numpy as np

        table = None
        with closing(embed(texts)) as batches:
            for positions, vectors in merged(batches, COMMIT_ROWS):
                check()
                if table is None:
                    table = self._open_or_create(len(vectors[0]))
                table.add(table_rows([texts[i] for i in positions], np.stack(vectors), self.name))

    def keep_only(self, checks: Set[str], *, really: bool) -> tuple[int, int]:
        """Write the table anew without the rows that have none of these checks, once they are more than
        half; fewer are not worth it. Returns (rows removed, their bytes), also if not `really`.

        Only while nobody reads: the files of older versions of the table are removed.
        """
        import polars as pl

        with self._writing():
            table = self.opened()
            if table is None:
                return 0, 0
            rows, known = self._look("check")
            kept = rows.filter(pl.col("check").is_in(checks)).unique("check")
            dropped = table.count_rows() - kept.height
            if 2 * dropped <= table.count_rows():
                return 0, 0
            before = self._size()
            if really:
                self._forget_note()
                rewrite(self._connect(), self.name, kept["place"].to_numpy(), known.lost)
                self._remember(self.compared()[1])
            return dropped, before * dropped // (dropped + kept.height)

    # -- what is right ---------------------------------------------------------------------------

    def _look(self, *columns: str) -> tuple["pl.DataFrame", Checked]:
        """(place and `columns` of the rows that are right, what is known then)."""
        import polars as pl

        table, known = self.compared()
        if table is None:
            return pl.DataFrame(schema={"place": pl.UInt64, **dict.fromkeys(columns, pl.String)}), known
        rows = read_places(table, columns, known)
        # Another process may have added rows since the files were listed.
        return rows.filter(pl.col("place") < known.fragments << 32), known

    def compared(self) -> "tuple[lancedb.table.Table | None, Checked]":
        """(the table, what is known of all of it). Rows that were compared before are not again, unless
        a file changed: then all are."""
        known = self._unchanged()
        # Version and digests before rows: what is damaged in between has another digest the next time, and a file that
        # lies there before its commit belongs to a newer version.
        version = self._version()
        new = sorted(self._files("data") - {name for name, _ in known.files})
        files = [[name, digest] for name, digest in zip(new, self._digest(new), strict=True)]
        table = self.opened()
        if table is None:
            return None, Checked()
        if files or version != known.version:
            known = replace(compare(table, known, [*known.files, *files]), version=version)
        return table, known

    def _noted(self) -> Checked:
        try:
            return Checked(**self._read_note())
        except (OSError, Damaged, TypeError):
            return Checked()

    def _unchanged(self) -> Checked:
        """What was noted, if the noted files are as they were; else nothing is known."""
        known = self._noted()
        try:
            now = self._digest([name for name, _ in known.files])
            version = self._version()
        except OSError:
            return Checked()
        # Of a newer version than the noted one nobody has said yet that it is right: its rows will be compared.
        same_or_newer = version == known.version or (known.version and version and version[0] < known.version[0])
        return known if same_or_newer and now == [digest for _, digest in known.files] else Checked()

    def _version(self) -> list[str]:
        """[name, sha256] of the newest of LanceDB's manifests, whose names count down; [] if there is none."""
        newest = min(self._files("_versions"), default=None)
        return [] if newest is None else [newest.rpartition("/")[2], *self._digest([newest])]

    def _remember(self, known: Checked) -> None:
        if known != self._noted():
            self._write_note(asdict(known))

    # -- the table -------------------------------------------------------------------------------

    def opened(self) -> "lancedb.table.Table | None":
        """The table as it is now; None if there is none, or none of this name that can be opened."""
        try:
            table = self._connect().open_table(self.name)
            return table if is_of(table, self.name) else None
        except BROKEN:
            return None

    def _open_or_create(self, dimensions: int) -> "lancedb.table.Table":
        table = self.opened()
        if table is None:
            self._set_aside(damaged_name(self.name))
            table = self._connect().create_table(self.name, schema=table_schema(dimensions, self.name))
        return table

    @contextmanager
    def _reading(self) -> Iterator["lancedb.table.Table"]:
        table = self.opened()
        if table is None:
            raise CorruptArtifact(f"retrieval_index: {self.name} in {self.where} cannot be opened")
        try:
            yield table
        except (KeyError, *BROKEN) as error:
            raise CorruptArtifact(f"retrieval_index: {self.name} in {self.where}: {error}") from None

    # -- where it lies -----------------------------------------------------------------------------

    @abstractmethod
    def _connect(self) -> "lancedb.DBConnection":
        """To what holds the table."""

    @abstractmethod
    def _files(self, below: str) -> set[str]:
        """Names of the table's files below one of its folders, as seen from the table's."""

    @abstractmethod
    def _digest(self, names: Sequence[str]) -> list[str]:
        """What tells whether files of the table changed. Raises OSError if one is gone."""

    @abstractmethod
    def _size(self) -> int:
        """Of all of the table's files, in bytes."""

    @abstractmethod
    def _set_aside(self, name: str) -> None:
        """Call what is there of the table otherwise, if anything is."""

    @abstractmethod
    def _read_note(self) -> dict[str, Any]:
        """Raises OSError if there is none, Damaged."""

    @abstractmethod
    def _write_note(self, content: dict[str, Any]) -> None: ...

    @abstractmethod
    def _forget_note(self) -> None: ...

    @abstractmethod
    def _writing(self) -> AbstractContextManager[None]:
        """One writer at a time; others wait."""
