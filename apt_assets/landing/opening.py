"""A landed file as UTF-8 text: unpacked if it is gzip or zstd, and recoded if it begins with the mark of UTF-16 or
UTF-32. What a file is, its first bytes tell, whatever its name says."""

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from apt_assets.landing.chunks import of_this_machine
from apt_assets.landing.parquet import MOST_UNPACKED

PIECE = 1 << 16  # bytes
# A packed file may grow so many times, once that is over 8 MiB. Rows that a program wrote take a tenth or a
# twentieth; a file that is made to fill a disk a thousandth. [choice]
MOST_GROWTH, FREE_GROWTH = 250, 1 << 23
PACKINGS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
# UTF-32 goes first: its mark begins with that of UTF-16.
MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_LE: "utf-16",
         codecs.BOM_UTF16_BE: "utf-16", codecs.BOM_UTF8: "utf-8-sig"}  # fmt: skip
# What has the suffix of text now and then and is none.
OTHERS = {
    b"PK\x03\x04": "a zip archive or an Excel workbook: unzip it, or save its sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook: save its sheet as CSV",
    b"PAR1\x15": "Parquet: give it the suffix .parquet",
    b"BZh91AY&SY": "packed with bzip2: unpack it, or pack it with gzip",
    b"\xfd7zXZ": "packed with xz: unpack it, or pack it with gzip",
    b"SQLite format 3": "an SQLite data base: write its rows as JSONL",
    **dict.fromkeys(PACKINGS, "packed twice: unpack it once"),
}


@dataclass
class Source:
    """A landed file that is open. file: its text as UTF-8, from the beginning, with its byte order mark if it is
    UTF-8 itself. packing: gzip, zstd or None. encoding: as Python names it."""

    file: io.BufferedReader
    packing: str | None
    encoding: str

    @property
    def failure(self) -> str | None:
        """Why the text ended before its end, so that its last line may be cut off; None: it did not."""
        return self.file.raw.failure if isinstance(self.file.raw, Pieces) else None

    def check(self) -> None:
        """For a reader that came to the end. Raises ValueError if it was not the file's."""
        if self.failure:
            raise ValueError(self.failure)


@contextmanager
def open_utf8(path: Path) -> Iterator[Source]:
    """The file as UTF-8. Raises OSError; ValueError if it is no text. Where it is damaged, grows above a limit or has
    bytes that are none of its encoding, it ends, and `Source.check` raises: what stands before that is read."""
    with path.open("rb") as file:
        packing = next((name for mark, name in PACKINGS.items() if file.peek(8).startswith(mark)), None)
        pieces = unpacked(file, packing) if packing else whole(file)
        head = next(pieces, b"") if packing else file.peek(16)
        encoding = encoding_of(head)
        if other := next((what for mark, what in OTHERS.items() if head.startswith(mark)), None):
            raise ValueError(f"it is {other}")
        if packing is None and encoding in ("utf-8", "utf-8-sig"):
            yield Source(file, packing, encoding)  # type: ignore[arg-type]  # opened with a buffer
            return
        pieces = chained(head, pieces) if packing else pieces
        if encoding not in ("utf-8", "utf-8-sig"):
            pieces = recoded(pieces, encoding, "surrogatepass")
        yield Source(io.BufferedReader(Pieces(pieces), PIECE), packing, encoding)


@contextmanager
def open_text(path: Path) -> Iterator[tuple[IO[str], Source]]:
    """The same as text, without a byte order mark; bytes that are no UTF-8 are half characters (PEP 383)."""
    with open_utf8(path) as source:
        yield io.TextIOWrapper(source.file, "utf-8-sig", errors="surrogateescape", newline=""), source


def encoding_of(head: bytes) -> str:
    """The encoding that the first bytes of a text tell."""
    marked = next((encoding for mark, encoding in MARKS.items() if head.startswith(mark)), None)
    if marked:
        return marked
    # UTF-16 without a mark: what begins a file of ours, a bracket or a column's name, is a letter and a NUL.
    nul = [byte == 0 for byte in head[:4]]
    return "utf-16-le" if nul == [False, True] * 2 else "utf-16-be" if nul == [True, False] * 2 else "utf-8"


# -- pieces of bytes -------------------------------------------------------------------------------------


class Pieces(io.RawIOBase):
    """A stream of bytes made of pieces. Where no more can be had it ends, and `failure` says why: what stood before
    is read on."""

    def __init__(self, pieces: Iterator[bytes]):
        self.pieces, self.rest = pieces, memoryview(b"")
        self.failure: str | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.rest:
            try:
                self.rest = memoryview(next(self.pieces))
            except StopIteration:
                return 0
            except (OSError, ValueError) as error:
                if of_this_machine(error):
                    raise
                self.failure = str(error)
                return 0
        size = min(len(buffer), len(self.rest))
        buffer[:size] = self.rest[:size]
        self.rest = self.rest[size:]
        return size


def whole(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(PIECE):
        yield piece


def chained(first: bytes, others: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from others


def unpacked(file: io.BufferedReader, packing: str) -> Iterator[bytes]:
    """What a packed file holds. Raises ValueError where it is damaged or cut off, and above a limit."""
    packed = Path(file.name).stat().st_size
    read, size = reader_of(file, packing), 0
    while True:
        try:
            piece = read(PIECE)
        except (EOFError, OSError, zlib.error) as error:
            if of_this_machine(error):
                raise
            raise ValueError(f"the {packing} archive is damaged or cut off ({error})") from None
        if not piece:
            return
        size += len(piece)
        if size > MOST_UNPACKED:
            raise ValueError(f"it takes more than {MOST_UNPACKED >> 30} GiB unpacked: split it")
        if size > max(FREE_GROWTH, MOST_GROWTH * packed):
            raise ValueError(
                f"unpacked it is more than {MOST_GROWTH} times as large; if that is right, land it unpacked"
            )
        yield piece


def reader_of(file: io.BufferedReader, packing: str) -> Any:
    """A function that reads at most so many bytes: of all that is whole before what is damaged."""
    if packing == "gzip":
        return gzip.GzipFile(fileobj=file).read1
    import pyarrow as pa

    return pa.CompressedInputStream(pa.PythonFile(file, "r"), packing).read


def recoded(pieces: Iterator[bytes], encoding: str, errors: str = "strict") -> Iterator[bytes]:
    """Text of an encoding as UTF-8, without a byte order mark. Raises ValueError where it is none of that encoding."""
    decoder, place, first = codecs.getincrementaldecoder(encoding)(errors), 0, True
    for piece in chained_end(pieces):
        try:
            text = decoder.decode(piece, final=not piece)
        except UnicodeError as error:
            start = place + error.start if isinstance(error, UnicodeDecodeError) else place
            raise ValueError(f"it is not valid {encoding}: near byte {start + 1}, {error}") from None
        place += len(piece)
        if first and text:
            text, first = text.removeprefix("\ufeff"), False
        yield text.encode("utf-8", errors)


def chained_end(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces and an empty one, which ends them."""
    yield from pieces
    yield b""


# -- encodings that only a person can tell ---------------------------------------------------------------


def check_encoding(name: str) -> None:
    """Raise ValueError if Python knows no encoding of text by this name."""
    try:
        "a".encode(name)  # which is refused where the codec is none of text
    except (LookupError, ValueError):
        raise ValueError(f"{name!r} is no encoding that Python knows, such as cp1252, gbk or shift_jis") from None


def recode(path: Path, encoding: str, target: Path) -> None:
    """Write a file that is in this encoding, packed or not, as UTF-8. Raises OSError; ValueError where it is in
    another one."""
    with path.open("rb") as file:
        packing = next((name for mark, name in PACKINGS.items() if file.peek(8).startswith(mark)), None)
        pieces = unpacked(file, packing) if packing else whole(file)
        head = next(pieces, b"")
        told = encoding_of(head)
        family = "-".join(told.split("-")[:2])  # utf-16-le is UTF-16
        if told != "utf-8" and not codecs.lookup(encoding).name.startswith(family):
            raise ValueError(f"it begins as {told} does: leave --encoding out")
        with target.open("wb") as recoded_file:
            recoded_file.writelines(recoded(chained(head, pieces), encoding))
