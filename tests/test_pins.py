"""docs/pins.md is true to the code: what it names exists, and what we use of the inside of libraries stands in it."""

import ast
import re
from collections.abc import Iterator

import pytest

from apt_assets.settings.experiment import REPOSITORY

PAGE = (REPOSITORY / "docs" / "pins.md").read_text(encoding="utf-8")
PLACE = re.compile(r"`([\w./]+\.py)(?:::([\w.]+))?`")
LIBRARIES = {
    "dagster", "datasets", "lancedb", "lm_eval", "peft", "sentence_transformers", "torch", "transformers", "trl"
}  # fmt: skip
PRIVATE = re.compile(r"_(?!(exit|fields|replace)$)[a-z]\w*")  # these of os and of a NamedTuple are no private parts
SOURCES = [path for folder in ("apt_assets", "resources", "schemas") for path in (REPOSITORY / folder).rglob("*.py")]


def rows() -> list[list[str]]:
    """The cells of every row of the tables, without their heads."""
    lines = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| What we rely on")]
    return [line.strip("| ").split(" | ") for line in lines]


def defined(tree: ast.AST, within: str = "") -> Iterator[str]:
    """Names of functions, classes, their methods, and constants: `Class.method`, `CONSTANT`."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.FunctionDef(name=name):
                yield within + name
            case ast.ClassDef(name=name):
                yield within + name
                yield from defined(node, f"{within}{name}.")
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                yield within + name


def libraries_of(tree: ast.AST) -> set[str]:
    """Names that a file imports, anywhere in it, from a library that has a table."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {
        alias.asname or alias.name
        for node in imports
        if (node.module or "").partition(".")[0] in LIBRARIES
        for alias in node.names
    }


def inside_of_others(tree: ast.AST) -> set[str]:
    """What a file uses of the inside of something that is not its own, as its name stands in the code:

    private attributes of anything but self and cls, and in a class that derives from one of a library also those
    of self, and private methods; private keys and file names, as in `state["_x"]` and `folder / "_x"`; private
    modules and names that are imported; and Dagster's tags.
    """
    found = set()
    theirs = libraries_of(tree)
    derived = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and theirs & {base.id for base in node.bases if isinstance(base, ast.Name)}
    ]
    for cls in derived:
        for node in ast.walk(cls):
            found |= {node.name} if isinstance(node, ast.FunctionDef) else set()
            found |= {node.attr} if isinstance(node, ast.Attribute) else set()
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass
            case ast.Attribute(attr=name):
                found.add(name)
            case ast.Subscript(slice=ast.Constant(value=str(name))):
                found.add(name)
            case ast.BinOp(op=ast.Div(), right=ast.Constant(value=str(name))):
                found.add(name)
            case ast.ImportFrom(module=str(module), names=names):
                found |= {*module.split("."), *(alias.name for alias in names)}
            case ast.Constant(value=str(tag)) if tag.startswith("dagster/"):
                found.add(tag)
    return {name for name in found if PRIVATE.fullmatch(name) or name.startswith("dagster/")}


def test_every_row_has_what_where_what_for_and_a_test():
    assert len(rows()) > 40
    for cells in rows():
        assert len(cells) == 4, cells
        assert PLACE.search(cells[1]), cells
        assert all(path.startswith("tests/") and name for path, name in PLACE.findall(cells[3])), cells
        assert PLACE.search(cells[3]), cells


@pytest.mark.parametrize("path", sorted({path for path, _ in PLACE.findall(PAGE)}))
def test_every_file_function_and_test_that_the_page_names_exists(path):
    there = set(defined(ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))))
    assert {name for named, name in PLACE.findall(PAGE) if named == path and name} <= there


def test_nothing_inside_of_a_library_is_used_without_a_row():
    told = re.findall(r"`([^`]+)`", " ".join(cells[0] for cells in rows()))
    for source in SOURCES:
        for name in inside_of_others(ast.parse(source.read_text(encoding="utf-8"))):
            assert name in told, f"{source.relative_to(REPOSITORY)}: {name} stands in no row of docs/pins.md"


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("trainer._step = 1", "_step"),
        ("return model.config._attn", "_attn"),
        ("state['_rates']", "_rates"),
        ("folder / '_versions'", "_versions"),
        ("from dagster._core.x import y", "_core"),
        ("from trl import _private", "_private"),
        ("TAG = 'dagster/new'", "dagster/new"),
        ("from peft import Base\nclass Ours(Base):\n    def _theirs(self): pass", "_theirs"),
        ("from peft import Base\nclass Ours(Base):\n    def run(self): self._theirs()", "_theirs"),
    ],
)
def test_use_of_the_inside_of_a_library_is_found(code, name):
    assert inside_of_others(ast.parse(code)) == {name}


def test_private_parts_of_our_own_classes_are_not_taken_for_those_of_a_library():
    assert inside_of_others(ast.parse("class Ours:\n    def _a(self): return self._b.c")) == set()
