"""Pieces of an HTML page whose values are all escaped, and its style: phone, dark theme, print."""

import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from apt_assets.drawing.svg import shorten

LONGEST = 300  # characters shown of a question or an answer
STYLE = """
:root{color-scheme:light dark;--ink:#222;--soft:#666;--line:#ddd;--page:#fff;--box:#f5f6f7;--accent:#0072b2}
@media screen and (prefers-color-scheme:dark){:root{--ink:#ddd;--soft:#aaa;--line:#3a3d42;--page:#16181b;
--box:#202327;--accent:#56b4e9}}
*{box-sizing:border-box}body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);
max-width:1120px;margin:0 auto;padding:16px;overflow-wrap:break-word}
h1{font-size:1.5rem;margin:.2em 0}h2{font-size:1.25rem;margin:2em 0 .4em;border-bottom:1px solid var(--line)}
h3{font-size:1rem;margin:1.2em 0 .3em}.verdict{font-size:1.1rem;background:var(--box);padding:.6em 1em;margin:1em 0;
border-left:4px solid var(--accent)}.soft{color:var(--soft);font-size:.875rem}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.875rem;margin:.5em 0}
th,td{text-align:left;vertical-align:top;padding:.25em .7em .25em 0;border-bottom:1px solid var(--line)}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}td.t{min-width:11em;max-width:26em}
.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,340px),1fr));gap:8px 24px}
figure{margin:0;break-inside:avoid}figcaption{font-size:.875rem;font-weight:600}.chart{width:100%;height:auto;max-width:460px}
details{margin:.4em 0}summary{cursor:pointer}code{font-size:.8125rem;overflow-wrap:anywhere}
.state{font-weight:600}
@media print{@page{margin:14mm}body{font-size:10pt;max-width:none;padding:0}.wide{overflow:visible}
h2,h3,h2+p,summary{break-after:avoid}tr{break-inside:avoid}table{font-size:8pt}details::details-content{content-visibility:visible}td.n{white-space:normal}
td.t{min-width:0}.plots{grid-template-columns:1fr 1fr}}
""".replace("\n", "")


class Html(str):
    """Markup that is already safe; everything else is escaped."""


def document(title: str, soft: str, parts: Iterable[str]) -> str:
    """The whole page: title, a soft line below it, and the parts."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>"
        f'<h1>{escape(title)}</h1><p class="soft">{escape(soft)}</p>'
        f"{''.join(parts)}</main></body></html>\n"
    )


def section(heading: str, parts: Iterable[str]) -> str:
    return f"<section><h2>{escape(heading)}</h2>{''.join(parts)}</section>"


def table(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], numbers: Iterable[int] = (), texts: Iterable[int] = ()
) -> Html:
    """numbers, texts: positions of columns with figures, and with long text."""
    kinds = {**dict.fromkeys(numbers, ' class="n"'), **dict.fromkeys(texts, ' class="t"')}
    head = "".join(f"<th{kinds.get(n, '')}>{escape(name)}</th>" for n, name in enumerate(columns))
    lines = [[f"<td{kinds.get(n, '')}>{cell(value)}</td>" for n, value in enumerate(row)] for row in rows]
    body = "".join(f"<tr>{''.join(line)}</tr>" for line in lines)
    return Html(f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>')


def rows_of(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> Html:
    """A table of the named fields that the rows have; text columns may be long."""
    names = [name for name in names if rows and name in rows[0]]
    texts = [n for n, name in enumerate(names) if any(len(str(row[name])) > 12 for row in rows)]
    return table(
        [name.replace("_", " ") for name in names], [[row[name] for name in names] for row in rows], texts=texts
    )


def cell(value: Any) -> str:
    if isinstance(value, Html):
        return value
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False)
    return "-" if value is None else escape(shorten(str(value), LONGEST))


def folded(summary: str, content: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def listed(heading: str, lines: Sequence[str]) -> str:
    return (
        f"<h3>{escape(heading)}</h3><ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>" if lines else ""
    )
