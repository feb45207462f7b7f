"""JSON files, by what is in them and not by their suffix: a value a line, a list of rows, rows that follow each other
over any lines, or one object that holds lists of rows under the names of splits or one list under any name."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import IO, Any, Literal

from apt_assets.landing.chunks import BadField, Chunk, Record, in_chunks, twice
from apt_assets.landing.json_lines import JSON_SPACE, read_lines
from apt_assets.landing.json_text import PLAIN, JsonText
from apt_assets.landing.opening import open_text, open_utf8
from apt_assets.landing.parquet import LONGEST_RECORD

LONGEST_LOOK = 1 << 20  # bytes of a file that are looked at
# What lists of rows are called when a file holds several, and the split of each.
SPLIT_OF = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test",
}  # fmt: skip
# With one of these, an object is a row, even if it holds lists of objects.
OF_A_ROW = ("prompt", "question", "instruction", "query", "chosen", "messages", "conversations")
OF_A_TURN = ("role", "from")
COLUMNS = "columns, or rows by their names: write it as a list of objects (pandas: orient='records')"


@dataclass(frozen=True)
class Layout:
    """kind: a value a line; values and lists of them one after the other; or an object, with `names`, the names in it
    under which its rows stand."""

    kind: Literal["lines", "values", "object"]
    names: tuple[str, ...] = ()


LINES, VALUES = Layout("lines"), Layout("values")


def read_json(path: Path) -> Iterator[Chunk]:
    """Raises OSError or ValueError where the file cannot be read on."""
    layout = layout_of(path)
    if layout == LINES:
        yield from read_lines(path)
    else:
        yield from numbered(in_chunks(rows_of(path, layout)))


def rows_of(path: Path, layout: Layout) -> Iterator[Record]:
    with open_text(path) as (file, source):
        text = JsonText(file)
        if layout == VALUES:
            yield from text.values()
        else:
            for name, value in members(text):
                if name in layout.names:
                    split = SPLIT_OF.get(name.lower())
                    yield from (in_split(record, split) if split else record for record in value)
        source.check()


def numbered(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """The chunks with numbers of records in place of lines, if some of the first stand on the same line."""
    before, by_line = 0, True
    for chunk in chunks:
        if not before:
            by_line = len(set(chunk.lines)) == len(chunk.lines)
        lines = [line and n for n, line in enumerate(chunk.lines, before + 1)]
        yield chunk if by_line else replace(chunk, lines=lines)
        before += len(chunk.lines)


def in_split(record: Record, split: str) -> Record:
    """The record with the split's name, unless it says one itself."""
    line, raw, found = record
    if isinstance(found, dict) and found.get("split") is None:
        return line, raw, {**found, "split": split}
    return record


# -- which layout ----------------------------------------------------------------------------------------


def layout_of(path: Path) -> Layout:
    """Raises OSError; ValueError if the file is no text, or an object of which it is not clear what its rows are."""
    with open_utf8(path) as source:
        first, rest = first_line(source.file)
        text = first.decode("utf-8-sig", "surrogateescape").strip(JSON_SPACE)
        if not text.startswith(("{", "[")):
            return LINES
        try:
            value, end = PLAIN.raw_decode(text)
        except RecursionError:
            return LINES
        except ValueError:  # it goes on in the next line, or is broken
            return VALUES if text[0] == "[" else layout_of_object(path, text)
        parts = chain([rest], iter(lambda: source.file.read(LONGEST_LOOK), b""))
        alone = end == len(text) and not any(part.strip() for part in parts)
    if text[end:].strip(JSON_SPACE) == ",":  # a list without its brackets
        return VALUES
    if isinstance(value, list):
        return VALUES if alone or (value and is_row(value[0])) else LINES
    return layout_of_object(path, text) if alone else LINES


def first_line(file: IO[bytes]) -> tuple[bytes, bytes]:
    """(the first line that is not blank, what was read after it). Of a long list only the beginning."""
    part = b""
    while not part and (read := file.read(LONGEST_LOOK)):
        part = read.lstrip(b"\xef\xbb\xbf \t\r\n")
    line, end, rest = part.partition(b"\n")
    if not end and line.startswith(b"{"):
        line += file.readline(LONGEST_RECORD)
    return line, rest


def layout_of_object(path: Path, first_line: str) -> Layout:
    """Of a file that begins with an object over many lines, or is one on a single line."""
    lists: dict[str, bool] = {}  # whether what is in the list is no turn of a chat
    others: dict[str, Any] = {}
    repeated, alone = [], True
    try:
        with open_text(path) as (file, _):
            text = JsonText(file)
            for name, value in members(text):
                if name in lists or name in others:
                    repeated.append(name)
                elif isinstance(value, Iterator):
                    first = next(value)[2]
                    lists[name] = isinstance(first, BadField) or is_row(first)
                else:
                    others[name] = value
            alone = text.peek() == ""
    except ValueError:
        if not lists:  # lines of which the first is broken; but a bracket alone begins an object over many lines
            return VALUES if first_line == "{" else LINES
    if alone and not lists and len(others) > 1 and all(isinstance(value, list | dict) for value in others.values()):
        raise BadField(None, f"it is neither a row nor a list of rows but {COLUMNS}")
    if not alone or not lists or any(name in others for name in OF_A_ROW) or not all(lists.values()):
        return VALUES
    if repeated:
        raise twice("key", repeated[0])
    return Layout("object", names_of_rows(tuple(lists)))


def is_row(value: Any) -> bool:
    """Whether an object in a list may be a row, and not the turn of a chat."""
    return isinstance(value, dict) and not any(key in value for key in OF_A_TURN)


def names_of_rows(lists: tuple[str, ...]) -> tuple[str, ...]:
    """Raises BadField if there are several lists of objects, and they are no splits."""
    if len(lists) > 1 and not all(name.lower() in SPLIT_OF for name in lists):
        raise BadField(
            None,
            f"it holds several lists of objects ({', '.join(lists[:8])}), and only of lists that are called train, "
            "validation and test it is clear what they are: write the one with the rows to a file of its own",
        )
    return lists


def members(text: JsonText) -> Iterator[tuple[str, Any]]:
    """(name, value) of each member of the object that follows; of a list of objects an iterator over its records.
    Raises ValueError if it is no object, or ends in the middle."""
    text.expect("{")
    sign = "," if text.peek() != "}" else text.expect("}")
    while sign == ",":
        name = whole_value(text)
        if not isinstance(name, str):
            raise ValueError(f"not valid JSON: a name in quotes expected on line {text.line}")
        text.expect(":")
        text.peek()
        if text.at_list_of_objects():
            text.expect("[")
            rows = text.items()
            yield name, rows
            for _ in rows:  # what was not asked for
                pass
        else:
            yield name, whole_value(text)
        sign = text.expect(",", "}")


def whole_value(text: JsonText) -> Any:
    text.peek()
    _, _, found = text.value()
    if isinstance(found, BadField):
        raise ValueError(found.reason)
    return found
