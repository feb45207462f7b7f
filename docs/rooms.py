"""Draw docs/rooms.svg: the packages in the order in which imports may run, with what each is for.

`python docs/rooms.py` draws it anew. The layers are those of pyproject.toml that `make lint` holds, and the words are
the first line of each package's docstring, so that the picture cannot say something else than the code.
"""

import ast
import tomllib
from html import escape
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
WIDTH, ROW, GAP, LEFT = 860, 30, 6, 172
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1a1a1a}.name{font-weight:600}.room{fill:#eef3f8;stroke:#8aa4bf}"
    ".house{fill:none;stroke:#8aa4bf;stroke-dasharray:4 3}.head{fill:#51677d;font-weight:600}"
)


def layers() -> list[tuple[str, list[str]]]:
    """(package, names of its parts from the top down, some of them "a | b": neither knows the other)."""
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = declared["tool"]["importlinter"]["contracts"]
    rooms = [(one["containers"][0], one["layers"]) for one in contracts if "containers" in one]
    return [(package, names) for package, names in rooms if "." not in package] + [("schemas", [""])]


def about(module: str) -> str:
    """The first line of a module's docstring."""
    path = REPOSITORY / module.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).rstrip(".:")


def draw() -> str:
    parts, y = [], 12
    for package, names in layers():
        top = y
        parts.append(f'<text class="head" x="20" y="{y + 17}">{escape(package)}/</text>')
        y += 26
        for name in (one for layer in names for one in layer.split(" | ")):
            module = f"{package}.{name}" if name else package
            parts.append(f'<rect class="room" x="20" y="{y}" width="{WIDTH - 40}" height="{ROW}" rx="4"/>')
            parts.append(f'<text class="name" x="32" y="{y + 20}">{escape(name or package)}</text>')
            said = about(module)
            said = said if len(said) <= 96 else said[:95].rsplit(" ", 1)[0] + " …"
            parts.append(f'<text x="{LEFT}" y="{y + 20}">{escape(said)}</text>')
            y += ROW + GAP
        parts.append(f'<rect class="house" x="10" y="{top}" width="{WIDTH - 20}" height="{y - top + 2}" rx="6"/>')
        y += 16
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img" aria-label="The rooms">'
    return "\n".join([head, f"<style>{STYLE}</style>", *parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    (REPOSITORY / "docs" / "rooms.svg").write_text(draw(), encoding="utf-8")
