"""Charts as inline SVG, written by hand: text is text, and colours are classes of the page's style sheet.

Nothing is told by colour alone: bars carry their figures, lines their names, and the parts of a bar stand in one order.
Widths suit a telephone; a wider page sets charts side by side. Names are escaped here, for they come from files.
"""

from collections.abc import Sequence
from html import escape
from math import ceil, floor, log10, sqrt
from typing import NamedTuple

from scaleseg.report.words import cut, text_width

__all__ = ["Bar", "Line", "Stack", "bars", "lines", "stacks"]

WIDTH = 440.0
"""Of every chart, in units that are pixels on a page of that width."""

LABELS, PLOT, END, FIGURES = 140.0, 147.0, 318.0, 328.0
"""Where names of bars end, where their plot begins and ends, and where figures begin."""

ROW, TOP = 26.0, 26.0
"""Height of a bar's line, and of the axis above the first."""

ROOM, LINE_ROOM = 136.0, 72.0
"""For names of bars and of lines: what would be wider is cut; their tables have them whole."""

COLOURS = 7
"""How many the style sheet has; further series begin again."""

HEAD, BOTTOM, SIDE, RIGHT = 30.0, 238.0, 46.0, 336.0
"""The plot of lines: where it begins and ends from above, where it begins from the left and ends before their names."""

DASHES = ("none", "7 4", "2 4", "11 4 2 4", "4 2", "1 3", "14 4")
"""A second way to tell lines apart."""


class Bar(NamedTuple):
    """A bar from 0; without a value its line says that there is none."""

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    strong: bool = False
    """Set off from its neighbours."""
    note: str = ""
    """Small, after the name: how many it is a mean of."""


class Stack(NamedTuple):
    """A bar of parts that sum to one; without parts its line says that there is none."""

    label: str
    parts: tuple[float, ...]


class Line(NamedTuple):
    """A line through points; a mark on each where `marks` says so."""

    name: str
    points: tuple[tuple[float, float], ...]
    marks: bool = False
    sizes: tuple[float, ...] = ()
    """Shares of a whole, which the areas of the marks show."""


def bars(rows: Sequence[Bar], title: str, *, top: float = 1.0) -> str:
    """Horizontal bars from 0 to `top` (fractions, shown in percent), a whisker for an interval, the figure beside each."""
    height = TOP + ROW * len(rows) + 6
    return _svg(
        height,
        title,
        [_percent_axis(top, END, 0.0, height), *(_bar(row, TOP + ROW * place, top) for place, row in enumerate(rows))],
    )


def stacks(rows: Sequence[Stack], names: Sequence[str], title: str) -> str:
    """Horizontal bars of parts, in the order of `names` from left to right; a part that is wide enough says its percent."""
    legend, above = _legend(names)
    height = above + TOP + ROW * len(rows) + 6
    drawn = [_stack(row, above + TOP + ROW * place) for place, row in enumerate(rows)]
    return _svg(height, title, [legend, _percent_axis(1.0, WIDTH - 14, above, height), *drawn])


def lines(
    series: Sequence[Line],
    title: str,
    *,
    across: str,
    up: str,
    percent: bool = True,
    x: tuple[float, float] | None = None,
    y: tuple[float, float] | None = None,
    diagonal: str = "",
) -> str:
    """Lines with their names at their ends; `across` and `up` name the axes. `diagonal` names a line where y = x."""
    points = [point for line in series for point in line.points]
    box = _Box(x or _ends([at for at, _ in points]), y or _ends([value for _, value in points]), len(series) > 1)
    body = [_grid(box, percent, percent and x == (0.0, 1.0)), _axis_names(box, across, up)]
    body += [_diagonal(box, diagonal)] if diagonal else []
    body += [_line(line, index, box) for index, line in enumerate(series)]
    return _svg(BOTTOM + 44, title, [*body, _line_names(series, box) if box.named else ""])


class _Box(NamedTuple):
    """A plot: ranges of its axes, and whether names of lines stand at its right."""

    x: tuple[float, float]
    y: tuple[float, float]
    named: bool

    @property
    def right(self) -> float:
        return RIGHT if self.named else WIDTH - 22

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point lies in the picture; one outside lies on the plot's edge."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        above = min(1.0, max(0.0, (y - self.y[0]) / (self.y[1] - self.y[0])))
        return _short(SIDE + across * (self.right - SIDE)), _short(BOTTOM - above * (BOTTOM - HEAD))


def _svg(height: float, title: str, body: Sequence[str]) -> str:
    named = f'role="img" aria-label="{escape(title)}"'
    return f'<svg class="chart" viewBox="0 0 {WIDTH:g} {height:g}" {named}>{"".join(body)}</svg>'


def _percent_axis(top: float, right: float, above: float, height: float) -> str:
    marks = []
    for tick in _ticks(0.0, top):
        x = _short(PLOT + tick / top * (right - PLOT))
        marks.append(f'<path class="rule" d="M{x} {above + TOP - 5:g}V{height:g}"/>')
        text = f"{100 * tick:g}" + (" %" if tick == 0 else "")
        marks.append(f'<text class="tick" x="{x}" y="{above + TOP - 10:g}" text-anchor="middle">{text}</text>')
    return "".join(marks)


def _bar(row: Bar, y: float, top: float) -> str:
    if row.value is None:
        return _name(row.label, y, row.note) + f'<text class="soft" x="{PLOT + 4:g}" y="{y + 17:g}">none</text>'
    end, kind = _along(row.value, top), "bar strong" if row.strong else "bar"
    drawn = f'<rect class="{kind}" x="{PLOT:g}" y="{y + 5:g}" width="{_short(end - PLOT)}" height="15"/>'
    figure = f'<tspan class="figure">{100 * row.value:.1f}</tspan>'
    if row.low is not None and row.high is not None:
        low, high = _along(row.low, top), _along(row.high, top)
        drawn += f'<path class="whisker" d="M{low} {y + 8:g}v9M{low} {y + 12.5:g}H{high}M{high} {y + 8:g}v9"/>'
        figure += f'<tspan class="tick" dx="7">{100 * row.low:.1f}\u2013{100 * row.high:.1f}</tspan>'
    return _name(row.label, y, row.note) + drawn + f'<text x="{FIGURES:g}" y="{y + 17:g}">{figure}</text>'


def _stack(row: Stack, y: float) -> str:
    if not row.parts:
        return _name(row.label, y) + f'<text class="soft" x="{PLOT + 4:g}" y="{y + 17:g}">none</text>'
    drawn, start = [_name(row.label, y)], PLOT
    for index, share in enumerate(row.parts):
        wide, colour = share * (WIDTH - 14 - PLOT), index % COLOURS
        drawn.append(
            f'<rect class="part fill{colour}" x="{_short(start)}" y="{y + 3:g}" width="{_short(wide)}" height="19"/>'
        )
        if wide > 24:
            where = f'x="{_short(start + wide / 2)}" y="{y + 17:g}" text-anchor="middle"'
            drawn.append(f'<text class="on{colour}" {where}>{100 * share:.0f}</text>')
        start += wide
    return "".join(drawn)


def _name(label: str, y: float, note: str = "") -> str:
    small = f'<tspan class="tick" dx="5">{escape(note)}</tspan>' if note else ""
    room = ROOM - (5 + 0.9 * text_width(note) if note else 0)
    return f'<text x="{LABELS:g}" y="{y + 17:g}" text-anchor="end">{escape(cut(label, room))}{small}</text>'


def _legend(names: Sequence[str]) -> tuple[str, float]:
    """Names beside their colours, from left to right as the parts are, and the height that they take."""
    drawn, x, y = [], 4.0, 4.0
    for index, name in enumerate(cut(name, ROOM) for name in names):
        wide = 26 + text_width(name)
        if x > 4 and x + wide > WIDTH:
            x, y = 4.0, y + 22
        drawn.append(f'<rect class="fill{index % COLOURS}" x="{x:g}" y="{y:g}" width="13" height="13"/>')
        drawn.append(f'<text x="{x + 18:g}" y="{y + 11.5:g}">{escape(name)}</text>')
        x += wide + 8
    return "".join(drawn), y + 22


def _grid(box: _Box, percent: bool, both: bool) -> str:
    drawn = []
    for tick in _ticks(*box.y):
        y = box.at(box.x[0], tick)[1]
        drawn.append(f'<path class="rule" d="M{SIDE:g} {y}H{box.right:g}"/>')
        text = _tick(tick, percent)
        drawn.append(f'<text class="tick" x="{SIDE - 7:g}" y="{y + 4:g}" text-anchor="end">{text}</text>')
    for tick in _ticks(*box.x):
        x = box.at(tick, box.y[0])[0]
        drawn.append(f'<path class="rule" d="M{x} {BOTTOM:g}v5"/>')
        text = _tick(tick, both)
        drawn.append(f'<text class="tick" x="{x}" y="{BOTTOM + 18:g}" text-anchor="middle">{text}</text>')
    return "".join(drawn)


def _axis_names(box: _Box, across: str, up: str) -> str:
    middle = (SIDE + box.right) / 2
    return (
        f'<text class="soft" x="4" y="16">{escape(up)}</text>'
        f'<text class="soft" x="{middle:g}" y="{BOTTOM + 37:g}" text-anchor="middle">{escape(across)}</text>'
    )


def _diagonal(box: _Box, name: str) -> str:
    low, high = max(box.x[0], box.y[0]), min(box.x[1], box.y[1])
    (left, bottom), (right, top) = box.at(low, low), box.at(high, high)
    drawn = f'<path class="whisker" stroke-dasharray="3 4" d="M{left} {bottom}L{right} {top}"/>'
    x, y = left + 0.12 * (right - left), bottom + 0.05 * (top - bottom)
    return drawn + f'<text class="soft" x="{x:g}" y="{y:g}">{escape(name)}</text>'


def _line(line: Line, index: int, box: _Box) -> str:
    colour, spots = index % COLOURS, [box.at(*point) for point in line.points]
    path = "L".join(f"{x} {y}" for x, y in spots)
    dash = DASHES[index % len(DASHES)]
    drawn = f'<path class="line stroke{colour}" stroke-dasharray="{dash}" d="M{path}"/>' if len(spots) > 1 else ""
    shown = spots if line.marks or len(spots) == 1 else []
    radii = [_short(2 + 8 * sqrt(share)) for share in line.sizes] or [3.2] * len(shown)
    marks = zip(shown, radii, strict=True)
    return drawn + "".join(f'<circle class="fill{colour}" cx="{x}" cy="{y}" r="{r}"/>' for (x, y), r in marks)


def _line_names(series: Sequence[Line], box: _Box) -> str:
    """At the lines' ends, moved apart where they would overlap, each with a piece of its line."""
    ends = sorted((box.at(*line.points[-1])[1], index) for index, line in enumerate(series) if line.points)
    drawn, free = [], HEAD
    for place, (wanted, index) in enumerate(ends):
        y = max(free, min(wanted, BOTTOM - 17.0 * (len(ends) - 1 - place)))
        free = y + 17
        dash, colour = DASHES[index % len(DASHES)], index % COLOURS
        x = box.right + 6
        drawn.append(f'<path class="line stroke{colour}" stroke-dasharray="{dash}" d="M{x:g} {y:g}h22"/>')
        drawn.append(f'<text x="{x + 27:g}" y="{y + 4:g}">{escape(cut(series[index].name, LINE_ROOM))}</text>')
    return "".join(drawn)


def _along(value: float, top: float) -> float:
    """Where a value lies along a bar; what is beyond the axis lies at its end."""
    return _short(PLOT + min(1.0, max(0.0, value / top)) * (END - PLOT))


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """A range with some room above and below."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers from `low` to `high`."""
    raw = (high - low) / 4
    power = 10.0 ** floor(log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.99)
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _tick(value: float, percent: bool) -> str:
    return f"{100 * value:g} %" if percent else f"{value:,.6g}"


def _short(value: float) -> float:
    return round(value, 1)
