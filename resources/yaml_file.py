"""YAML files that people write: 1e-3 is a number, a key stands in a mapping once, and what is wrong is one line."""

import copy
import functools
import re
from pathlib import Path
from typing import Any

import yaml

# Keys that are not their own text: another mapping's keys are put in its place, and "=".
SPECIAL = ("tag:yaml.org,2002:merge", "tag:yaml.org,2002:value")
UTF16 = (b"\xff\xfe", b"\xfe\xff")


class NotYaml(ValueError):
    """A file does not hold YAML that can be used; the message says in one line what is wrong and where."""


class Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but 1e-3 and 1.5e3 are numbers, as people who set learning rates expect, and a key
    that stands in one mapping twice raises NotYaml: PyYAML takes the last one and says nothing."""

    def __init__(self, stream: str):
        super().__init__(stream)
        self._path: list[str] = []

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        # index: of a value in a mapping the node of its key, of an item of a list its number, else None.
        step = index.value if isinstance(index, yaml.ScalarNode) else index
        self._path.append("" if step is None else str(step))
        try:
            return super().compose_node(parent, index)
        finally:
            self._path.pop()

    def construct_scalar(self, node: yaml.Node) -> Any:
        value = super().construct_scalar(node)  # type: ignore[arg-type]
        try:
            # JSON writes what lies beyond its first 65,536 characters as two halves, and PyYAML leaves them apart.
            return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            line = node.start_mark.line + 1
            raise NotYaml(f"line {line}: half of a character (a surrogate without its other half)") from None

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[Any, list[int]] = {}
        names: dict[Any, str] = {}
        # Looked at before anchors are merged in: `<<` brings keys that may stand here once more.
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                value = key.value if key.tag in SPECIAL else self.construct_object(key)
                lines.setdefault(value, []).append(key.start_mark.line + 1)
                names.setdefault(value, value if isinstance(value, str) else key.value)
        for value, there in lines.items():
            if len(there) > 1:
                where = ".".join(filter(None, [*self._path, names[value]]))
                way_out = "write `<<: [*one, *other]`" if names[value] == "<<" else "keep one"
                times = "twice" if len(there) == 2 else f"{len(there)} times"
                raise NotYaml(f"{where} stands there {times}, on {in_words(there)}: {way_out}")
        return node


class Dumper(yaml.SafeDumper):
    """Writes what Loader reads as the same: the text "1e-3" in quotes."""


for one in (Loader, Dumper):
    # To its end: 3e8f0a is a name, of a revision say.
    one.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+\Z"),
        list("-+0123456789."),
    )


def dump(value: Any, **how: Any) -> str:
    """how: as PyYAML's own is told."""
    return yaml.dump(value, Dumper=Dumper, allow_unicode=True, sort_keys=False, **how)


def in_words(lines: list[int]) -> str:
    *others, last = sorted(set(lines))
    return f"lines {', '.join(map(str, others))} and {last}" if others else f"line {last}"


def read_yaml(path: Path) -> Any:
    """What a YAML file says. Raises OSError if it cannot be read, NotYaml if it is not YAML that can be used."""
    content = path.read_bytes()
    try:
        return copy.deepcopy(parsed(content))
    except NotYaml as error:
        raise NotYaml(f"{path}: {error}") from None
    except (ValueError, RecursionError, yaml.YAMLError) as error:  # ValueError: a date or a number that is none
        one_line = " ".join(reason(error, content).split())
        raise NotYaml(f"{path}: not readable as YAML: {one_line}") from None


@functools.lru_cache(maxsize=64)
def parsed(content: bytes) -> Any:
    """To be copied, since it may be changed. A plan asks for the same task files again and again, and parsing one takes
    ten times as long as copying what it says."""
    return yaml.load(content.decode("utf-8"), Loader)


def reason(error: Exception, content: bytes) -> str:
    """Why a file with this content is not YAML, and where."""
    if isinstance(error, UnicodeDecodeError):
        kind = "UTF-16" if content.startswith(UTF16) else f"no UTF-8 text at byte {error.start}"
        return f"{kind}: save it as UTF-8"
    if isinstance(error, yaml.reader.ReaderError):
        return f"a character that is no text (#x{error.character:04x}): save it as UTF-8 text"
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        return where + ", ".join(filter(None, [error.context, error.problem]))
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)
