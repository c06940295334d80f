"""table.svg: every cell as a dot, ours filled and the paper's hollow, a whisker for the spread over seeds.

Written by hand: text is text, in the reader's own font, and colours follow a light or a dark page.
"""

from html import escape
from math import ceil, floor

from scaleseg.ablate.cells import COLUMNS, FUSIONS
from scaleseg.ablate.sheet import Sheet

__all__ = ["chart"]

WIDTH, LEFT, RIGHT, TOP, LINE, GAP = 720, 190, 140, 64, 22, 12
"""The picture's width, room for names and for figures beside the plot, room above it, height of a line and of a gap."""

STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; fill: #1b1f24; }
.title { font-size: 16px; font-weight: 600; } .soft { fill: #5b6470; } .number { text-anchor: end; }
.page { fill: #ffffff; } .rule { stroke: #d5dae1; } .base { stroke: #5b6470; stroke-dasharray: 4 3; }
.ours { fill: #1f6feb; stroke: #1f6feb; } .paper { fill: none; stroke: #c2410c; stroke-width: 2; }
.whisker { stroke: #1f6feb; stroke-width: 2; } .link { stroke: #aab2bd; }
@media (prefers-color-scheme: dark) {
text { fill: #e6e9ee; } .soft { fill: #9aa4b2; } .page { fill: #15191f; } .rule { stroke: #333b46; }
.base { stroke: #9aa4b2; } .ours { fill: #6cb0ff; stroke: #6cb0ff; } .whisker { stroke: #6cb0ff; }
.paper { stroke: #ff9a5c; } .link { stroke: #56606d; }
}
"""


def chart(sheet: Sheet) -> str:
    """The whole picture; a cell without a result has a dash where its figure would be."""
    lines, height = _lines(sheet)
    ends = _range(sheet)
    body = [_axis(ends, height), _baseline(sheet, ends, height)]
    for y, name, label in lines:
        body += [_heading(y, label)] if name is None else [_cell(sheet, name, label, y, ends)]
    size = f'viewBox="0 0 {WIDTH} {height + 34}" width="{WIDTH}" height="{height + 34}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n<title>{escape(_title(sheet))}</title>\n'
        f'<style>{STYLE}</style>\n<rect class="page" width="100%" height="100%"/>\n'
        f'<text class="title" x="16" y="26">{escape(_title(sheet))}</text>\n{_legend(sheet)}\n'
        + "\n".join(part for part in body if part)
        + "\n</svg>\n"
    )


def _title(sheet: Sheet) -> str:
    return f"{sheet.title}: mIoU in percent"


def _lines(sheet: Sheet) -> tuple[list[tuple[int, str | None, str]], int]:
    """(y, cell, label) of each line, headings without a cell; and where they end."""
    lines: list[tuple[int, str | None, str]] = []
    y = TOP + LINE
    for name, label in (("baseline", "one scale"), ("msc", "MSc")):
        lines.append((y, name, label))
        y += LINE
    for column in COLUMNS:
        y += GAP
        lines.append((y, None, sheet.columns[column]))
        for fusion in FUSIONS:
            y += LINE
            lines.append((y, f"{fusion}-{column}", fusion))
        y += LINE
    return lines, y


def _range(sheet: Sheet) -> tuple[int, int]:
    """Whole percent around all figures."""
    values = list(sheet.paper.figures.values()) if sheet.paper else []
    for row in sheet.rows.values():
        if row.mIoU is not None:
            spread = row.spread or 0.0
            values += [100 * (row.mIoU - spread), 100 * (row.mIoU + spread)]
    lowest, highest = (min(values), max(values)) if values else (0.0, 100.0)
    return floor(lowest - 0.3), ceil(highest + 0.3)


def _x(value: float | int, ends: tuple[int, int]) -> float:
    return round(LEFT + (value - ends[0]) / (ends[1] - ends[0]) * (WIDTH - LEFT - RIGHT), 1)


def _axis(ends: tuple[int, int], height: int) -> str:
    """At most ten rules, at whole percents."""
    step = next(step for step in (1, 2, 5, 10, 20) if (ends[1] - ends[0]) / step <= 10)
    ticks = [value for value in range(ends[0], ends[1] + 1) if not value % step]
    return "\n".join(
        f'<line class="rule" x1="{_x(tick, ends)}" x2="{_x(tick, ends)}" y1="{TOP}" y2="{height}"/>'
        f'<text class="soft" x="{_x(tick, ends)}" y="{height + 20}" text-anchor="middle">{tick}</text>'
        for tick in ticks
    )


def _baseline(sheet: Sheet, ends: tuple[int, int], height: int) -> str:
    value = sheet.rows["baseline"].mIoU
    if value is None:
        return ""
    x = _x(100 * value, ends)
    return f'<line class="base" x1="{x}" x2="{x}" y1="{TOP}" y2="{height}"/>'


def _heading(y: int, label: str) -> str:
    return f'<text class="soft" x="16" y="{y + 4}">{escape(label)}</text>'


def _cell(sheet: Sheet, name: str, label: str, y: int, ends: tuple[int, int]) -> str:
    """The name, the two dots on a line between them, and the two figures."""
    row, theirs = sheet.rows[name], sheet.paper.figures.get(name) if sheet.paper else None
    ours = None if row.mIoU is None else 100 * row.mIoU
    marks = [f'<text x="28" y="{y + 4}">{escape(label)}</text>']
    if ours is not None and theirs is not None:
        marks.append(f'<line class="link" x1="{_x(ours, ends)}" x2="{_x(theirs, ends)}" y1="{y}" y2="{y}"/>')
    if theirs is not None:
        marks.append(f'<circle class="paper" cx="{_x(theirs, ends)}" cy="{y}" r="5"/>')
        marks.append(f'<text class="soft number" x="{WIDTH - 16}" y="{y + 4}">{theirs:.2f}</text>')
    if ours is not None and row.spread is not None:
        low, high = _x(ours - 100 * row.spread, ends), _x(ours + 100 * row.spread, ends)
        marks.append(f'<path class="whisker" d="M{low} {y - 4}V{y + 4}M{low} {y}H{high}M{high} {y - 4}V{y + 4}"/>')
    if ours is not None:
        marks.append(f'<circle class="ours" cx="{_x(ours, ends)}" cy="{y}" r="4"/>')
    figure = ("failed" if row.failed else "–") if ours is None else f"{ours:.2f}"  # noqa: RUF001
    marks.append(f'<text class="number" x="{WIDTH - 80}" y="{y + 4}">{figure}</text>')
    return "\n".join(marks)


def _legend(sheet: Sheet) -> str:
    """Over the figures they belong to."""
    ours = '<text class="soft" x="16" y="52">dashed: ours at one scale</text>'
    ours += f'<circle class="ours" cx="{WIDTH - 118}" cy="48" r="4"/>'
    ours += f'<text class="number" x="{WIDTH - 80}" y="52">ours</text>'
    if sheet.paper is None:
        return ours
    theirs = f'<circle class="paper" cx="{WIDTH - 63}" cy="48" r="5"/>'
    return ours + theirs + f'<text class="soft number" x="{WIDTH - 16}" y="52">paper</text>'
