"""What was tried and how good it is, as JSON (fractions from 0 to 1) and as Markdown (percent), the best first."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from scaleseg import atomic
from scaleseg.config import RefineConfig
from scaleseg.metrics import TRIMAP, Confusion
from scaleseg.refine_search.grid import FIXED, SEARCHED, values
from scaleseg.refine_search.measure import Tally, add

__all__ = ["Row", "Table", "row"]


class Row(NamedTuple):
    """A setting, measured on all images; without `settings` it is none: the network's own labels."""

    settings: RefineConfig | None
    round: int
    """0 = in none: without refinement, or the checkpoint's own settings where the search was told to begin elsewhere."""
    mIoU: float
    trimap_mIoU: float | None


def row(settings: RefineConfig | None, number: int, classes: tuple[str, ...], tallies: Iterable[Tally]) -> Row:
    """The figures of confusion matrices summed over images."""
    fused, trimap = Confusion(len(classes)), Confusion(len(classes))
    for tally in tallies:
        add(fused, tally.fused)
        add(trimap, tally.trimap)
    near = trimap.metrics(classes)
    return Row(settings, number, fused.metrics(classes).mIoU, near.mIoU if near.pixels else None)


class Table(NamedTuple):
    """A search, finished or not; rows in the order in which they were tried."""

    refine: str
    rows: list[Row]
    about: dict[str, Any]
    """For table.json: checkpoint, command, note, images."""

    @property
    def none(self) -> Row:
        return next(row for row in self.rows if row.settings is None)

    @property
    def best(self) -> Row:
        """The best setting; of several, the one tried first."""
        return max((row for row in self.rows if row.settings is not None), key=lambda row: row.mIoU)

    @property
    def ranked(self) -> list[Row]:
        """The best first."""
        return sorted(self.rows, key=lambda row: -row.mIoU)

    @property
    def names(self) -> list[str]:
        """What was searched for."""
        return list(SEARCHED[self.refine])

    def cells(self, row: Row) -> list[str]:
        """A row in words: its settings, both figures in percent, its round."""
        settings = [f"{getattr(row.settings, name):g}" if row.settings else "none" for name in self.names]
        near = "" if row.trimap_mIoU is None else f"{100 * row.trimap_mIoU:.2f}"
        number = str(row.round or ("checkpoint's" if row.settings else ""))
        return [*settings, f"{100 * row.mIoU:.2f}", near, number]

    def write(self, out: Path) -> None:
        """table.json and table.md, each in one step."""
        atomic.write(out / "table.json", json.dumps(self._document(), indent=2) + "\n")
        atomic.write(out / "table.md", self._markdown())

    def _document(self) -> dict[str, Any]:
        return {
            "refine": self.refine,
            "unit": f"fractions from 0 to 1; trimap_mIoU within {TRIMAP} pixels of a label border",
            "searched": self.names,
            "fixed": list(FIXED[self.refine]),
            "best": self._of(self.best),
            "settings": [self._of(row) for row in self.rows],
            **self.about,
        }

    def _of(self, row: Row) -> dict[str, Any]:
        settings = values(row.settings, self.refine) if row.settings else "none"
        return {"settings": settings, "mIoU": row.mIoU, "trimap_mIoU": row.trimap_mIoU, "round": row.round}

    def _markdown(self) -> str:
        names = self.names
        first = next(row.settings for row in self.rows if row.settings)
        fixed = ", ".join(f"{name} {getattr(first, name):,}" for name in FIXED[self.refine])
        count = len(self.about["images"])
        caption = f"{self.refine} for {self.about['checkpoint']}; {fixed}. Measured on {count} photographs: {self.about['note']}."
        lines = [
            " ".join(caption.split()),
            "",
            f"| {' | '.join(names)} | mIoU % | mIoU % within {TRIMAP} px of borders | round |",
            f"|{' --: |' * (len(names) + 3)}",
            *(f"| {' | '.join(self.cells(row))} |" for row in self.ranked),
        ]
        return "\n".join(lines) + "\n"
