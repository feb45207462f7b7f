"""A small drawing surface: SVG as a string, in the user's light or dark theme and in print.

All text is text. What a mark stands for is its <title>, which browsers show on hovering and screen
readers read. Colours are classes (s0, s1, ...), each with a dash pattern of its own for grey print.
"""

import math
from collections.abc import Callable, Sequence
from html import escape

WIDTH = 360  # of a phone; a page scales it or puts several side by side
SERIES = 4  # classes s0..s3
STYLE = """
.chart{font:11px system-ui,sans-serif;--ink:#222;--faint:#ccc;--s0:#0072b2;--s1:#d55e00;--s2:#00785a;--s3:#a8508a}
@media screen and (prefers-color-scheme:dark){.chart{--ink:#ddd;--faint:#555;--s0:#56b4e9;--s1:#f5a04a;
--s2:#3fc79c;--s3:#e29ac4}}
.chart text{fill:var(--ink)}.chart .small{font-size:9px}.chart .axis{stroke:var(--faint)}
.chart .line{fill:none;stroke-width:2}.chart .whisker{stroke-width:1.5}
.chart .s0{fill:var(--s0);stroke:var(--s0)}.chart .s1{fill:var(--s1);stroke:var(--s1)}
.chart .s2{fill:var(--s2);stroke:var(--s2)}.chart .s3{fill:var(--s3);stroke:var(--s3)}
.chart .line.s0,.chart .line.s1,.chart .line.s2,.chart .line.s3{fill:none}
.chart .line.s1{stroke-dasharray:6 3}.chart .line.s2{stroke-dasharray:2 2}.chart .line.s3{stroke-dasharray:8 2 2 2}
""".replace("\n", "")

Scale = Callable[[float], float]


def scale(low: float, high: float, start: float, end: float) -> Scale:
    """Values low..high -> pixels start..end, linearly; the middle if low equals high."""
    if low == high:
        return lambda value: (start + end) / 2
    return lambda value: start + (value - low) / (high - low) * (end - start)


def ticks(low: float, high: float, about: int = 3) -> list[float]:
    """Round numbers within low..high, some `about` of them."""
    if low == high:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


class Drawing:
    """Elements in order of drawing; `svg` gives the document. Lengths are pixels of a WIDTH wide page."""

    def __init__(self, title: str, height: float, description: str = ""):
        self.title, self.height, self.description = title, height, description
        self._elements: list[str] = []

    def text(
        self, x: float, y: float, content: str, *, anchor: str = "start", small: bool = False, turn: int = 0
    ) -> None:
        place = f'transform="translate({x:.1f} {y:.1f}) rotate({turn})"' if turn else f'x="{x:.1f}" y="{y:.1f}"'
        kind = ' class="small"' if small else ""
        self._elements.append(f'<text {place} text-anchor="{anchor}"{kind}>{escape(content)}</text>')

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str = "axis") -> None:
        self._elements.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>')

    def path(self, points: Sequence[tuple[float, float]], kind: str, says: str) -> None:
        """A line through the points; a single point is drawn as a dot."""
        if len(points) == 1:
            self.dot(*points[0], kind, says)
            return
        steps = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._elements.append(
            f'<polyline points="{steps}" class="line {kind}"><title>{escape(says)}</title></polyline>'
        )

    def dot(self, x: float, y: float, kind: str, says: str, radius: float = 3.5) -> None:
        title = f"<title>{escape(says)}</title>"
        self._elements.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" class="{kind}">{title}</circle>')

    def rect(self, x: float, y: float, width: float, height: float, kind: str, says: str, opacity: float = 1) -> None:
        size = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
        title = f"<title>{escape(says)}</title>"
        self._elements.append(f'<rect {size} class="{kind}" stroke="none" opacity="{opacity:.2f}">{title}</rect>')

    def legend(self, names: Sequence[str], y: float) -> None:
        """One entry for each series, side by side, of evenly spread width."""
        for number, name in enumerate(names):
            x = 8 + number * (WIDTH - 16) / len(names)
            self.path([(x, y - 4), (x + 16, y - 4)], f"s{number}", name)
            self.text(x + 20, y, shorten(name, 52 // len(names)))

    def axis(self, values: Sequence[float], place: Scale, x: float, end: float, form: str = "{:g}") -> None:
        """Horizontal grid lines from x to end at these values, labelled left of x."""
        for value in values:
            self.line(x, place(value), end, place(value))
            self.text(x - 4, place(value) + 4, form.format(value), anchor="end")

    @property
    def svg(self) -> str:
        about = f"<desc>{escape(self.description)}</desc>" if self.description else ""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height:g}" class="chart" role="img">'
            f"<title>{escape(self.title)}</title>{about}<style>{STYLE}</style>{''.join(self._elements)}</svg>"
        )


def shorten(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"
