"""Which code a computation runs, by content: its module and every module that it imports, comments apart.

A stage's code is the module of its function and each module of this project that is imported there, at the top or
inside a function, directly or through others. A module counts by its syntax tree without docstrings, so a
comment, a docstring or a reformatted line changes nothing. That is more than what runs (another function of the
same file counts too), and never less, but for a module whose name is put together at run time; tests/test_code.py
runs every stage under a tracer and holds this to what really ran. Worked out from the source text: nothing is
imported or run.

BOUNDARY is the machinery that moves artifacts without deciding what is in them, and the drawing of plots. It is not
followed; a change there that gives artifacts another meaning must raise ENGINE_VERSION (engine/plan.py). For the
same reason a declaration (a decorator of the boundary) is left out, and so are the functions that it names: they
estimate, verify or draw.
"""

import ast
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from resources.store.digest import digest_file, digest_json
from resources.store.sealed import Damaged, read_sealed, remember
from resources.store.stat_cache import Remembered

PACKAGES = ("apt_assets", "resources", "schemas")
FRONT = "apt_assets"  # its own file only hands out what a program imports, so it is not followed
BOUNDARY = (
    "apt_assets.engine",
    "apt_assets.settings",
    "apt_assets.drawing",
    "resources.section",
    "resources.store",
    "resources.threads",
    "resources.spinning",
    "resources.workers",
    "resources.retrieval.vector_folder",
    "resources.retrieval.shared_vectors",
    "resources.cluster",
    "resources.training.by_workers",
    "resources.model.memory",  # what is told of memory splits passes, and is in no key otherwise (ADR 0017)
    "resources.model.device_memory",
)
# What only declares: a section of settings, and a kind of row. Their values count by themselves.
DECLARING = ("Section", "RowKind")
# Module -> the name under which it stands in fingerprints, for one that was moved or renamed since version 2 of the
# engine: with its former name here nothing is computed again.
KNOWN_AS: dict[str, str] = {}

remembered: Remembered[str] = Remembered()


class CodeDigests:
    """Digests of the code of one source tree; asks the files anew whenever `refresh` is called.

    memory: a JSON file in which closures are remembered between processes, by all sources' content.
    """

    def __init__(self, root: Path, memory: Path | None = None):
        self._root, self._memory = root, memory
        self._read: dict[str, tuple[str, list[str]]] = {}
        self._closures: dict[str, dict[str, str]] = {}
        self.sources = source_digests(root)
        self._recall()

    def closure(self, start: str) -> dict[str, str]:
        """{module: 16 hex digits} of the module `start` and all that it imports; one that says nothing but a
        docstring is left out.

        Raises KeyError if there is no such module, SyntaxError if a file does not parse.
        """
        if start not in self._closures:
            if self.file(start) is None:
                raise KeyError(f"there is no module {start} below {self._root}")
            found: dict[str, str] = {}
            waiting = [start]
            seen = set()
            while waiting:
                module = waiting.pop()
                if module not in seen:
                    seen.add(module)
                    digest, imported = self._module(module)
                    waiting += imported
                    if digest:
                        found[KNOWN_AS.get(module, module)] = digest
            self._closures[start] = dict(sorted(found.items()))
            self._remember()
        return self._closures[start]

    def files(self, start: str) -> list[str]:
        """The source files, relative to the root, that hold the closure of `start`."""
        now = {known: module for module, known in KNOWN_AS.items()}
        found = [self.file(now.get(label, label)) for label in self.closure(start)]
        return [file for file in found if file is not None]

    def file(self, module: str) -> str | None:
        """The source file of a module, relative to the root; None if it is none of this tree."""
        path = module.replace(".", "/")
        return next((file for file in (f"{path}.py", f"{path}/__init__.py") if file in self.sources), None)

    def refresh(self) -> None:
        """Look at the files again; what did not change is not parsed again."""
        sources = source_digests(self._root)
        if sources != self.sources:
            self.sources, self._read, self._closures = sources, {}, {}
            self._recall()

    def _module(self, name: str) -> tuple[str, list[str]]:
        """(digest, "" if there is nothing in it; modules that it imports, its packages among them)."""
        if name not in self._read:
            file = self.file(name)
            assert file is not None, "only modules of this tree are followed"
            tree = without_declarations(ast.parse((self._root / file).read_bytes(), file))
            package = name if file.endswith("__init__.py") else name.rpartition(".")[0]
            imported = [package for package in parents(name) if package != FRONT]
            for node in ast.walk(tree):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    imported += [module for module in self._imported(node, package) if not inside(module, BOUNDARY)]
            self._read[name] = (digest_tree(tree), list(dict.fromkeys(imported)))
        return self._read[name]

    def _imported(self, node: ast.Import | ast.ImportFrom, package: str) -> Iterator[str]:
        """The modules of this tree that a statement imports. Gives a relative import its full name, and a moved
        module the name it is known by: what was moved says the same."""
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if self.file(alias.name))
            for alias in node.names:
                alias.name = KNOWN_AS.get(alias.name, alias.name)
            return
        if node.level:
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            node.module, node.level = ".".join([*base, *([node.module] if node.module else [])]), 0
        source = node.module or ""
        if self.file(source):
            yield source
            yield from (name for alias in node.names if self.file(name := f"{source}.{alias.name}"))
            node.module = KNOWN_AS.get(source, source)

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
            remember(self._memory, content)

    def _key(self) -> str:
        return digest_json([BOUNDARY, KNOWN_AS, self.sources])


def source_digests(root: Path) -> dict[str, str]:
    """{path relative to `root`: sha256} of every Python file of the project's packages."""
    return digests_of({package: root / package for package in PACKAGES})


def digests_of(packages: Mapping[str, Path]) -> dict[str, str]:
    """{path that begins with the package's name: sha256} of every Python file in the folders of packages."""
    found: dict[str, str] = {}
    waiting = [(package, str(place)) for package, place in packages.items() if place.is_dir()]
    while waiting:  # with texts, not paths, a fifth of the time of rglob: each plan and each step comes here
        inside, folder = waiting.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                name = f"{inside}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((name, entry.path))
                elif name.endswith(".py"):
                    found[name] = remembered(entry.path, digest_file)
    return dict(sorted(found.items()))


def without_declarations(tree: ast.Module) -> ast.Module:
    """The tree without docstrings, decorators of the boundary with the functions that those name, and what only
    declares."""
    ours = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and inside(node.module or "", BOUNDARY)
        for alias in node.names
    }
    named: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            for decorator in [one for one in node.decorator_list if called(one) in ours]:
                node.decorator_list.remove(decorator)
                if isinstance(decorator, ast.Call):
                    named |= {each.id for keyword in decorator.keywords for each in names_in(keyword.value)}
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [line for line in body if not is_text(line)]  # type: ignore[attr-defined]
    tree.body = [node for node in tree.body if not declares(node, named)]
    forget_unused(tree)
    return tree


def forget_unused(tree: ast.Module) -> None:
    """Without the names that were imported from the boundary for declarations only: a plot needs some, and it
    changes nothing that is computed."""
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and inside(node.module or "", BOUNDARY):
            node.names = [alias for alias in node.names if (alias.asname or alias.name) in used]
    tree.body = [node for node in tree.body if not isinstance(node, ast.ImportFrom) or node.names]


def declares(node: ast.stmt, named: set[str]) -> bool:
    """Whether a statement of a module only declares something; named: functions that a declaration names."""
    if isinstance(node, ast.ClassDef):
        return any(isinstance(base, ast.Name) and base.id in DECLARING for base in node.bases)
    if isinstance(node, ast.Assign):
        return isinstance(node.value, ast.Call) and called(node.value) in DECLARING
    return isinstance(node, ast.FunctionDef) and node.name in named


def called(decorator: ast.expr) -> str:
    """The name of what is called, or of a decorator that is not; "" if it has another form."""
    function = decorator.func if isinstance(decorator, ast.Call) else decorator
    return function.id if isinstance(function, ast.Name) else ""


def names_in(node: ast.expr) -> list[ast.Name]:
    return [part for part in ast.walk(node) if isinstance(part, ast.Name)]


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def inside(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def parents(module: str) -> list[str]:
    """ "a.b.c" -> ["a", "a.b"]: what importing it runs first."""
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def digest_tree(tree: ast.Module) -> str:
    return hashlib.sha256(ast.dump(tree).encode("utf-8")).hexdigest()[:16] if tree.body else ""
