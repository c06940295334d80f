"""The charts of results.md, as SVG; see results.py."""

from collections.abc import Sequence
from html import escape
from math import ceil, floor

from result_tables import ORDER, PAPER, Results

from scaleseg.ablate.cells import COLUMNS, FUSIONS
from scaleseg.ablate.chart import STYLE

__all__ = ["curves", "gains"]

WIDTH = 720
LEFT, RIGHT, TOP, LINE = 150, 150, 64, 24
"""Room for names and figures beside the plot, above it, and the height of a line."""

COLOURS = ".max { stroke: #c2410c; } .average { stroke: #15803d; } .attention { stroke: #1f6feb; } .baseline { stroke: #5b6470; }"
DARK = ".max { stroke: #ff9a5c; } .average { stroke: #5ecb85; } .attention { stroke: #6cb0ff; } .baseline { stroke: #9aa4b2; }"
LINES = f"path.curve {{ fill: none; stroke-width: 2; }} {COLOURS} @media (prefers-color-scheme: dark) {{ {DARK} }}"
TITLES = {"2": "two scales", "2-es": "two, a loss on each", "3": "three scales", "3-es": "three, a loss on each"}


def gains(results: Results) -> str:
    """Every cell as a dot: points over one scale with the paired interval, the paper's hollow."""
    theirs = PAPER.gains()
    ours = {name: results.differences[name, "baseline"] for name, _ in results.in_order() if name in theirs}
    names = [name for name in ORDER if name in ours]
    ends = _ends(
        [100 * one[key] for one in ours.values() for key in ("low", "high")] + [theirs[name] for name in names]
    )
    height = TOP + LINE * (len(names) + 1)
    body = [
        _rule(tick, ends, height)
        for tick in range(ends[0], ends[1] + 1)
        if not tick % (1 if ends[1] - ends[0] < 13 else 2)
    ]
    body += [_own_rate(100 * results.differences["baseline-rate", "baseline"]["value"], ends, height)]
    body += [_gain(name, ours[name], theirs[name], TOP + LINE * (row + 1), ends) for row, name in enumerate(names)]
    legend = (
        f'<circle class="ours" cx="{WIDTH - 118}" cy="48" r="4"/><text class="number" x="{WIDTH - 80}" y="52">ours</text>'
        f'<circle class="paper" cx="{WIDTH - 63}" cy="48" r="5"/><text class="soft number" x="{WIDTH - 16}" y="52">paper</text>'
        '<text class="soft" x="16" y="52">bar: 95 % interval; dashed: 0, and one scale at the rate that suits it</text>'
    )
    return _picture("Points of mIoU over one scale", [legend, *body], height + 34)


def _own_rate(value: float, ends: tuple[int, int], height: int) -> str:
    """What the baseline gains by its own rate."""
    x = _x(value, ends)
    return f'<line class="base" x1="{x}" x2="{x}" y1="{TOP}" y2="{height}"/>'


def _gain(name: str, one: dict[str, float], paper: float, y: int, ends: tuple[int, int]) -> str:
    value, low, high = (_x(100 * one[key], ends) for key in ("value", "low", "high"))
    return (
        f'<text x="16" y="{y + 4}">{name}</text>'
        f'<path class="whisker" d="M{low} {y - 4}V{y + 4}M{low} {y}H{high}M{high} {y - 4}V{y + 4}"/>'
        f'<circle class="paper" cx="{_x(paper, ends)}" cy="{y}" r="5"/><circle class="ours" cx="{value}" cy="{y}" r="4"/>'
        f'<text class="number" x="{WIDTH - 80}" y="{y + 4}">{100 * one["value"]:+.1f}</text>'
        f'<text class="soft number" x="{WIDTH - 16}" y="{y + 4}">{paper:+.1f}</text>'
    )


def curves(results: Results) -> str:
    """The loss of the merged scores over the steps: a panel for each kind, the baseline in all."""
    kinds = [column for column in reversed(COLUMNS) if any(f"{fusion}-{column}" in results.cells for fusion in FUSIONS)]
    top = ceil(10 * max(loss for cell in results.cells.values() for _, loss in cell["curve"])) / 10
    steps = max(cell["curve"][-1][0] for cell in results.cells.values())
    wide = (WIDTH - 60) / len(kinds)
    body = [
        f'<path class="curve {name}" d="M{x} 48h18"/><text class="soft" x="{x + 24}" y="52">{label}</text>'
        for x, name, label in (
            (16, "baseline", "one scale"),
            (126, "max", "max"),
            (196, "average", "average"),
            (292, "attention", "attention"),
        )
    ]
    for place, column in enumerate(kinds):
        left = 44 + place * wide
        body.append(_panel(results, column, (left, wide - 18), (steps, top), labelled=not place))
    return _picture("Training loss of the merged scores, by step", body, 330)


def _panel(
    results: Results, column: str, across: tuple[float, float], most: tuple[float, float], *, labelled: bool
) -> str:
    """One kind: its three fusions and the baseline."""
    (left, wide), (steps, top), (above, below) = across, most, (96, 290)

    def at(step: float, loss: float) -> str:
        return f"{left + wide * step / steps:.1f} {below - (below - above) * loss / top:.1f}"

    parts = [f'<text x="{left:.0f}" y="84">{TITLES[column]}</text>']
    for part in (0, 0.5, 1):
        y = below - (below - above) * part
        parts.append(f'<line class="rule" x1="{left:.1f}" x2="{left + wide:.1f}" y1="{y}" y2="{y}"/>')
        if labelled:
            parts.append(f'<text class="soft number" x="{left - 6:.0f}" y="{y + 4}">{part * top:.2g}</text>')
    parts.append(f'<text class="soft number" x="{left + wide:.0f}" y="{below + 20}">{steps:,.0f}</text>')
    for name, style in (("baseline", "baseline"), *((f"{fusion}-{column}", fusion) for fusion in FUSIONS)):
        if name in results.cells:
            line = "L".join(at(step, loss) for step, loss in results.cells[name]["curve"])
            parts.append(f'<path class="curve {style}" d="M{line}"/>')
    return "".join(parts)


def _ends(values: Sequence[float]) -> tuple[int, int]:
    return min(0, floor(min(values) - 0.3)), ceil(max(values) + 0.3)


def _x(value: float, ends: tuple[int, int]) -> float:
    return round(LEFT + (value - ends[0]) / (ends[1] - ends[0]) * (WIDTH - LEFT - RIGHT), 1)


def _rule(tick: int, ends: tuple[int, int], height: int) -> str:
    x = _x(tick, ends)
    return (
        f'<line class="{"base" if not tick else "rule"}" x1="{x}" x2="{x}" y1="{TOP}" y2="{height}"/>'
        f'<text class="soft" x="{x}" y="{height + 20}" text-anchor="middle">{tick:+d}</text>'
    )


def _picture(title: str, body: Sequence[str], height: int) -> str:
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n<title>{escape(title)}</title>\n'
        f'<style>{STYLE}{LINES}</style>\n<rect class="page" width="100%" height="100%"/>\n'
        f'<text class="title" x="16" y="26">{escape(title)}</text>\n' + "\n".join(body) + "\n</svg>\n"
    )
