"""JSON, a value a line: parsed line by line, so that one broken row costs one row."""

import json
from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import compress
from pathlib import Path
from typing import IO, Any

from apt_assets.landing.chunks import CHUNK_BYTES, RAW_BYTES, BadField, Chunk, too_long, twice
from apt_assets.landing.opening import open_utf8
from apt_assets.landing.parquet import LONGEST_RECORD, repeated

ENDS = ("\n", "\r", ord("\n"))  # of a line of text, or of bytes
# White space around a JSON value, which `raw_decode` takes neither before nor after it.
JSON_SPACE = " \t\n\r"


def each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of its members. Raises BadField if a name is there twice: which one counts, JSON does not say."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise twice("key", str(repeated(name for name, _ in pairs)))
    return found


DECODER = json.JSONDecoder(object_pairs_hook=each_once)


def read_lines(path: Path) -> Iterator[Chunk]:
    """Lines of about CHUNK_BYTES together; blank lines are skipped."""
    with open_utf8(path) as source:
        file, first = source.file, 1
        while part := file.read(CHUNK_BYTES):
            if part.isspace() and part.endswith(b"\n"):
                first += part.count(b"\n")
                continue
            raws = BytesIO(part).readlines()
            if not raws[-1].endswith(b"\n"):
                raws[-1] += file.readline(LONGEST_RECORD)
            last = raws[-1]
            if cut := len(last) > LONGEST_RECORD:
                skip_line(file, last)
                raws.pop()
            try:
                yield parse_lines(first, raws)
            except (ValueError, RecursionError):
                yield parse_line_by_line(first, raws)
            first += len(raws)
            if cut:
                yield Chunk([first], [last[:RAW_BYTES]], [too_long()])
                first += 1
        source.check()


def skip_line(file: IO[Any], line: Any) -> None:
    """Read to the end of the line of which `line` is the beginning, without keeping it."""
    while line and line[-1] not in ENDS:
        line = file.readline(CHUNK_BYTES)


def parse_lines(first: int, raws: list[bytes]) -> Chunk:
    """Lines that all hold one JSON value, or nothing. Raises ValueError or RecursionError if one does not."""
    lines: Sequence[int] = range(first, first + len(raws))
    texts = [raw.decode().strip(JSON_SPACE) for raw in raws]
    if not all(texts):
        lines, raws = list(compress(lines, texts)), list(compress(raws, texts))
        texts = [text for text in texts if text]
    # One value per call and not one array of all lines: joined, two broken lines may read as whole ones.
    found = [DECODER.raw_decode(text) for text in texts]
    if [end for _, end in found] != [len(text) for text in texts]:
        raise ValueError("a line goes on after its value")
    return Chunk(lines, raws, [record for record, _ in found])


def parse_line_by_line(first: int, raws: list[bytes]) -> Chunk:
    """The same for lines of which some are broken: these are a BadField."""
    written = [(line, raw) for line, raw in enumerate(raws, first) if raw.strip()]
    return Chunk(
        [line for line, _ in written], [raw for _, raw in written], [parse_line(line, raw) for line, raw in written]
    )


def parse_line(line: int, raw: bytes) -> Any:
    try:
        # A byte order mark is what some spreadsheet exports put before the first line.
        return json.loads(raw.decode("utf-8-sig" if line == 1 else "utf-8"), object_pairs_hook=each_once)
    except UnicodeDecodeError as error:
        return not_utf8(error)
    except RecursionError:
        return too_deep()
    except BadField as bad:
        return bad
    except ValueError as error:
        return BadField(None, f"not valid JSON: {error}")


def not_utf8(error: UnicodeDecodeError) -> BadField:
    return BadField(None, f"not valid UTF-8 at byte {error.start + 1}")


def too_deep() -> BadField:
    return BadField(None, "JSON is nested too deeply")
