"""Pages of HTML from the templates beside this file: every value is escaped, and a name that is missing is an error.

base.html holds the page around the content and its style (phone, dark theme, print), macros.html the pieces.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from apt_assets.drawing.svg import shorten

LONGEST = 300  # characters shown of a question or an answer


@dataclass(frozen=True)
class Table:
    """numbers, texts, codes: positions of columns with figures, with long text, and with digests."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    numbers: Collection[int] = ()
    texts: Collection[int] = ()
    codes: Collection[int] = ()

    @property
    def kinds(self) -> list[str]:
        """By column: n of figures, t of long text, code of digests, else nothing."""
        named = {
            **dict.fromkeys(self.numbers, "n"),
            **dict.fromkeys(self.texts, "t"),
            **dict.fromkeys(self.codes, "code"),
        }
        return [named.get(column, "") for column in range(len(self.columns))]


def render(template: str, **content: Any) -> str:
    """The HTML document. Raises jinja2.UndefinedError if the template names what `content` lacks."""
    return templates().get_template(template).render(content)


@cache
def templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("apt_assets.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = cell
    environment.globals["zip"] = zip
    return environment


def rows_of(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> Table:
    """The named fields that the rows have; text columns may be long."""
    names = [name for name in names if rows and name in rows[0]]
    return Table(
        [name.replace("_", " ") for name in names],
        [[row[name] for name in names] for row in rows],
        texts=[n for n, name in enumerate(names) if any(len(str(row[name])) > 12 for row in rows)],
    )


def cell(value: Any) -> str:
    """What a table says of a value."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False)
    return "-" if value is None else shorten(str(value), LONGEST)
