"""Which code a computation runs, by content: the definitions it can reach, comments apart.

A stage's code is its function and every definition of this project that it refers to, directly or
through others. Each definition counts by its syntax tree without docstrings, so a comment, a
docstring or a reformatted line changes nothing, and an edited helper changes exactly the
computations that can reach it. Worked out from the source text: nothing is imported or run.

What is seen: names and attributes of modules, imports at the top of a module and inside functions,
classes as a whole, and what a module does when it is imported. What is not: a definition reached
only through a string (getattr, a registry). tests/test_code.py runs every stage under a tracer and
holds this analysis to what really ran.

BOUNDARY is the machinery that moves artifacts without deciding what is in them. It is not followed;
a change there that gives artifacts another meaning must raise ENGINE_VERSION.
"""

import ast
import copy
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resources.digest import digest_json
from resources.sealed import Damaged, read_sealed, write_sealed

PACKAGES = ("apt_assets", "resources", "schemas")
BOUNDARY = (
    "apt_assets.engine",
    "apt_assets.experiment",
    "apt_assets.partitions",
    "apt_assets.project",
    "resources.artifact_store",
    "resources.digest",
    "resources.file_digests",
    "resources.locks",
    "resources.row_store",
    "resources.sealed",
    "schemas.files",
)
# Reasons of each bump: 1, the first.
ENGINE_VERSION = 1

ON_IMPORT = " (on import)"
Definition = tuple[str, str]  # (module, name); the name is "" for what a module does on import


@dataclass
class Module:
    """One source file: its definitions by name, its imports by alias, and its other statements."""

    name: str
    package: str
    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    effects: list[ast.stmt] = field(default_factory=list)


class CodeDigests:
    """Digests of the code of one source tree; asks the files anew whenever `refresh` is called.

    memory: a JSON file in which closures are remembered between processes, by all sources' content.
    """

    def __init__(self, root: Path, memory: Path | None = None):
        self._root, self._memory = root, memory
        self._modules: dict[str, Module] = {}
        self._parts: dict[Definition, tuple[str, list[Definition]]] = {}
        self._closures: dict[str, dict[str, str]] = {}
        self.sources = source_digests(root)
        self._recall()

    def closure(self, start: str) -> dict[str, str]:
        """{"module.name": 16 hex digits} of every definition that `start` ("module:name") reaches.

        Raises KeyError if there is no such definition, SyntaxError if a file does not parse.
        """
        if start not in self._closures:
            module, _, name = start.partition(":")
            self._closures[start] = self._work_out((module, name))
            self._remember()
        return self._closures[start]

    def files(self, start: str) -> list[str]:
        """The source files, relative to the root, that hold the closure of `start`."""
        modules = {label.removesuffix(ON_IMPORT) for label in self.closure(start)}
        found = {self._file(name) or self._file(name.rpartition(".")[0]) for name in modules}
        return sorted(file for file in found if file is not None)

    def refresh(self) -> None:
        """Look at the files again; what did not change is not parsed again."""
        sources = source_digests(self._root)
        if sources != self.sources:
            self.sources, self._modules, self._parts, self._closures = sources, {}, {}, {}
            self._recall()

    # -- closure ---------------------------------------------------------------------------------

    def _work_out(self, start: Definition) -> dict[str, str]:
        if start[1] not in self._module(start[0]).definitions:
            raise KeyError(f"{start[0]} defines no {start[1]}")
        found: dict[str, str] = {}
        waiting = [start]
        while waiting:
            part = waiting.pop()
            label = f"{part[0]}.{part[1]}" if part[1] else part[0] + ON_IMPORT
            if label not in found:
                digest, targets = self._part(part)
                if digest:
                    found[label] = digest
                    waiting += targets
        return dict(sorted(found.items()))

    def _part(self, part: Definition) -> tuple[str, list[Definition]]:
        """(digest of one definition, what it refers to); ("", []) for a module that does nothing on import."""
        if part not in self._parts:
            module = self._module(part[0])
            nodes = module.definitions[part[1]] if part[1] else module.effects
            targets = [target for node in nodes for target in self._references(module, node)]
            targets += [(parent, "") for parent in with_parents(part[0])]
            digest = digest_nodes([self._normal(module, node) for node in nodes])
            self._parts[part] = (digest, list(dict.fromkeys(targets))) if nodes else ("", [])
        return self._parts[part]

    def _references(self, module: Module, node: ast.AST) -> Iterator[Definition]:
        """The project's definitions that a statement refers to."""
        local = dict(module.imports)
        for part in ast.walk(node):
            if isinstance(part, ast.Import | ast.ImportFrom):
                local.update(imported_names(part, module.package))
        for part in ast.walk(node):
            if isinstance(part, ast.Import | ast.ImportFrom):
                for target, name in imported_names(part, module.package).values():
                    yield from self._resolve(target, [name] if name else [])
            elif isinstance(part, ast.Name | ast.Attribute) and (names := dotted(part)):
                first, *rest = names
                if first in module.definitions:
                    yield module.name, first
                if first in local:
                    target, name = local[first]
                    yield from self._resolve(target, [*([name] if name else []), *rest])
        for text in quoted_annotations(node):
            for part in ast.walk(text):
                if isinstance(part, ast.Name):
                    if part.id in module.definitions:
                        yield module.name, part.id
                    elif part.id in local:
                        target, name = local[part.id]
                        yield from self._resolve(target, [name] if name else [])

    def _resolve(self, target: str, names: list[str]) -> Iterator[Definition]:
        """What `target.names` is: descends through packages and re-exports; a module that is passed
        on as an object counts with all its definitions."""
        if not inside(target, PACKAGES) or inside(target, BOUNDARY):
            return
        if names and self._is_module(f"{target}.{names[0]}"):
            yield from self._resolve(f"{target}.{names[0]}", names[1:])
            return
        module = self._module(target)
        yield target, ""
        if not names:
            yield from ((target, name) for name in module.definitions)
        elif names[0] in module.definitions:
            yield target, names[0]
        elif names[0] in module.imports:
            source, name = module.imports[names[0]]
            yield from self._resolve(source, [*([name] if name else []), *names[1:]])

    def _normal(self, module: Module, node: ast.stmt) -> ast.stmt:
        """A copy without docstrings and without decorators of the boundary: those are declarations."""
        node = copy.deepcopy(node)
        for part in ast.walk(node):
            body = getattr(part, "body", None)
            if isinstance(body, list):
                part.body = [line for line in body if not is_text(line)] or [ast.Pass()]  # type: ignore[attr-defined]
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = [d for d in node.decorator_list if not self._of_boundary(module, d)]
        return node

    def _of_boundary(self, module: Module, decorator: ast.expr) -> bool:
        names = dotted(decorator.func if isinstance(decorator, ast.Call) else decorator)
        return bool(names) and inside(module.imports.get(names[0], ("", None))[0], BOUNDARY)

    # -- files -----------------------------------------------------------------------------------

    def _is_module(self, name: str) -> bool:
        return self._file(name) is not None

    def _file(self, name: str) -> str | None:
        path = name.replace(".", "/")
        return next((file for file in (f"{path}.py", f"{path}/__init__.py") if file in self.sources), None)

    def _module(self, name: str) -> Module:
        if name not in self._modules:
            file = self._file(name)
            if file is None:
                raise KeyError(f"there is no module {name} below {self._root}")
            package = name if file.endswith("__init__.py") else name.rpartition(".")[0]
            module = Module(name, package)
            collect(module, ast.parse((self._root / file).read_bytes(), file).body)
            self._modules[name] = module
        return self._modules[name]

    # -- memory ----------------------------------------------------------------------------------

    def _recall(self) -> None:
        if self._memory is not None:
            try:
                kept = read_sealed(self._memory, self._memory.name)
                self._closures = kept["closures"] if kept["key"] == self._key() else {}
            except (OSError, Damaged, KeyError):
                self._closures = {}

    def _remember(self) -> None:
        if self._memory is not None:
            content = {"key": self._key(), "closures": self._closures}
            write_sealed(self._memory, self._memory.name, content)

    def _key(self) -> str:
        return digest_json([BOUNDARY, self.sources])


def source_digests(root: Path) -> dict[str, str]:
    """{path relative to `root`: sha256} of every Python file of the project's packages."""
    files = sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def collect(module: Module, body: list[ast.stmt]) -> None:
    """Sort a module's statements into definitions, imports and what it does on import."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            module.definitions.setdefault(node.name, []).append(node)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            module.imports.update(imported_names(node, module.package))
        elif isinstance(node, ast.If) and (dotted(node.test) or [""])[-1] == "TYPE_CHECKING":
            collect(module, node.body)
        elif names := assigned_names(node):
            for name in names:
                module.definitions.setdefault(name, []).append(node)
        elif not is_text(node):
            module.effects.append(node)


def assigned_names(node: ast.stmt) -> list[str]:
    """Names that a plain assignment binds; none if it also stores into something else."""
    targets: list[ast.expr]
    if isinstance(node, ast.AnnAssign | ast.AugAssign):
        targets = [node.target]
    elif isinstance(node, ast.Assign):
        targets = [t for given in node.targets for t in (given.elts if isinstance(given, ast.Tuple) else [given])]
    else:
        return []
    return [t.id for t in targets if isinstance(t, ast.Name)] if all(isinstance(t, ast.Name) for t in targets) else []


def imported_names(node: ast.Import | ast.ImportFrom, package: str) -> dict[str, tuple[str, str | None]]:
    """{alias: (module, name or None)} of one import statement."""
    if isinstance(node, ast.Import):
        return {
            a.asname or a.name.split(".")[0]: (a.name if a.asname else a.name.split(".")[0], None) for a in node.names
        }
    source = node.module or ""
    if node.level:
        base = package.split(".")[: len(package.split(".")) - node.level + 1]
        source = ".".join([*base, *([source] if source else [])])
    return {a.asname or a.name: (source, a.name) for a in node.names}


def dotted(node: ast.AST) -> list[str]:
    """["a", "b", "c"] for a.b.c; [] for anything that does not begin with a name."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    return [node.id, *names] if isinstance(node, ast.Name) else []


def quoted_annotations(node: ast.AST) -> Iterator[ast.expr]:
    """Annotations written as text, parsed: they name the classes whose methods an argument has."""
    for part in ast.walk(node):
        given = [getattr(part, "annotation", None), getattr(part, "returns", None)]
        for annotation in given:
            if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
                yield ast.parse(annotation.value, mode="eval").body


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def inside(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def with_parents(module: str) -> list[str]:
    """ "a.b.c" -> ["a", "a.b", "a.b.c"]: what importing it runs."""
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def digest_nodes(nodes: list[Any]) -> str:
    text = "\n".join(ast.dump(node) for node in nodes)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]
