"""table.md: ours and the paper's figures, laid out as in the paper, in percent with two decimals."""

from collections.abc import Callable

from scaleseg.ablate import paper
from scaleseg.ablate.cells import COLUMNS, FUSIONS
from scaleseg.ablate.results import Row
from scaleseg.ablate.sheet import Sheet

__all__ = ["markdown"]

DASH = "–"  # noqa: RUF001


def markdown(sheet: Sheet) -> str:
    """The whole file: the table, the gains over the baseline, and what the paper shows beside (parts, persons)."""
    notes = _Notes(sheet)
    blocks = [f"# {sheet.title}", sheet.caption + "."]
    if sheet.paper:
        blocks.append(f"In brackets: the paper's Table {sheet.paper.number} (section {sheet.paper.section}).")
    figures = sheet.paper.figures if sheet.paper else {}
    gains = sheet.paper.gains() if sheet.paper else {}
    blocks += ["## mIoU", *_tables(sheet, lambda name: _figure(sheet, name, figures) + notes.mark(name), first=True)]
    blocks += ["## Gain over the baseline, in points", *_tables(sheet, lambda name: _gain(sheet, name, gains))]
    if sheet.name == "person-part":
        blocks += _parts(sheet)
    if sheet.name == "coco" and "person" in sheet.classes:
        blocks += _person(sheet)
    return "\n\n".join([*blocks, *notes.lines()]) + "\n"


class _Notes:
    """Footnotes: why a figure is not there, or not over all seeds."""

    def __init__(self, sheet: Sheet) -> None:
        found = {name: _why(row, sheet.seeds) for name, row in sheet.rows.items()}
        self.texts = {name: text for name, text in found.items() if text}

    def mark(self, name: str) -> str:
        """The reference behind a figure; the same text has one number."""
        return f" [^{self._numbers()[self.texts[name]]}]" if name in self.texts else ""

    def lines(self) -> list[str]:
        return [f"[^{number}]: {text}." for text, number in self._numbers().items()]

    def _numbers(self) -> dict[str, int]:
        return {text: number for number, text in enumerate(dict.fromkeys(self.texts.values()), 1)}


def _why(row: Row, seeds: int) -> str:
    """What a reader must know of a figure that is not there or lacks some of the `seeds`; "" if nothing."""
    parts = [f"seed {seed} failed: {_plain(problem)}" for seed, problem in row.failed.items()]
    done = {result.seed for result in row.results}
    left = [str(seed) for seed in range(seeds) if seed not in {*done, *row.failed}]
    if done and left:
        some = f"{'seeds' if len(left) > 1 else 'seed'} {', '.join(left)}"
        parts.append(f"without {some} so far (gains are over the seeds that both have)")
    return row.absent or "; ".join(parts) or ("" if done else "not run")


def _plain(text: str) -> str:
    """A log's words as text: they may hold anything."""
    return "".join(mark if mark.isprintable() and mark not in "`<>[]|\\" else " " for mark in text).strip(" .")


def _tables(sheet: Sheet, show: Callable[[str], str], *, first: bool = False) -> list[str]:
    """The rows outside the grid, then the grid."""
    outside = ([["baseline (one scale)", show("baseline")]] if first else []) + [["MSc (skip network)", show("msc")]]
    inside = [[fusion, *(show(f"{fusion}-{column}") for column in COLUMNS)] for fusion in FUSIONS]
    return [_grid(["", "one scale"], outside), _grid(["", *sheet.columns.values()], inside)]


def _grid(head: list[str], rows: list[list[str]]) -> str:
    """A table of GitHub's kind; what is in front is a name, the rest numbers."""
    ruler = ["---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ruler, *rows))


def _figure(sheet: Sheet, name: str, figures: dict[str, float]) -> str:
    row = sheet.rows[name]
    ours = "failed" if row.failed and not row.results else _percent(row.mIoU)
    spread = f" ± {100 * row.spread:.2f}" if row.spread is not None else ""
    return ours + spread + (f" ({figures[name]:.2f})" if name in figures else "")


def _gain(sheet: Sheet, name: str, gains: dict[str, float]) -> str:
    gain = sheet.gain(name)
    ours = DASH if gain is None else f"{gain:+.2f}"
    return ours + (f" ({gains[name]:+.2f})" if name in gains else "")


def _percent(value: float | None) -> str:
    return DASH if value is None else f"{100 * value:.2f}"


def _parts(sheet: Sheet) -> list[str]:
    """Table 2: the paper names the best cell's parts only, from ImageNet's parameters; classes are told by their place."""
    table = paper.PARTS
    names = sheet.classes if len(sheet.classes) == len(table.figures) else ()
    order = [*range(1, len(table.figures)), 0]  # the paper prints the background last
    labels = list(table.figures)
    rows = [
        [name, *(_percent(row.IoU(names[place])) for place in order), _percent(row.mIoU)]
        for name, row in sheet.rows.items()
        if names and row.results
    ]
    mean = f"{sum(table.figures.values()) / len(labels):.2f}"
    theirs = [f"{table.cell}, the paper's", *(f"{table.figures[labels[place]]:.2f}" for place in order), mean]
    head = ["", *(labels[place] for place in order), "avg"]
    if sheet.paper is None:
        return ["## IoU of each part", _grid(head, rows)]
    return [f"## IoU of each part (the paper's Table {table.number})", _grid(head, [*rows, theirs])]


def _person(sheet: Sheet) -> list[str]:
    """Table 7."""
    table = paper.PERSON
    figures = table.figures if sheet.paper else {}

    def show(name: str) -> str:
        ours = _percent(sheet.rows[name].IoU("person"))
        return ours + (f" ({figures[name]:.2f})" if name in figures else "")

    whose = f" (the paper's Table {table.number})" if sheet.paper else ""
    return [f"## IoU of the class person{whose}", *_tables(sheet, show, first=True)]
