"""The table as data, and as the JSON document `table.json`: ours beside the paper's, fractions from 0 to 1."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import mean
from typing import Any

import torch

from scaleseg import __version__
from scaleseg.ablate import paper
from scaleseg.ablate.cells import COLUMNS, words
from scaleseg.ablate.plan import Plan
from scaleseg.ablate.results import Result, Row

__all__ = ["Sheet", "document", "fill"]

BITS = "float32 sums depend on the number of threads in their last bits, and training makes more of them"


@dataclass(frozen=True)
class Sheet:
    """Everything that table.md and table.svg show."""

    name: str
    title: str
    rows: dict[str, Row]
    columns: dict[str, str]
    """`2`, `2-es`, `3`, `3-es` and how they are headed."""
    paper: paper.PaperTable | None
    classes: tuple[str, ...]
    """All classes that were measured, in the order of their ids as far as results tell."""
    caption: str
    seeds: int = 1
    """How many were asked for; a row may have fewer so far."""

    @property
    def results(self) -> list[Result]:
        return [result for row in self.rows.values() for result in row.results]

    def gain(self, name: str) -> float | None:
        """Points above the baseline, in percent, over the seeds that both have; None without such a seed."""
        ours, base = ({result.seed: result.mIoU for result in self.rows[row].results} for row in (name, "baseline"))
        both = ours.keys() & base.keys()
        return None if not both or name == "baseline" else 100 * mean(ours[seed] - base[seed] for seed in both)


def fill(plan: Plan, failed: dict[tuple[str, int], str]) -> Sheet:
    """What there is so far."""
    rows = plan.rows(failed)
    title = plan.paper.title if plan.paper else _data(plan)
    results = [result for row in rows.values() for result in row.results]
    classes = max((tuple(result.IoU) for result in results), key=len, default=())
    return Sheet(plan.name, title, rows, _headings(plan), plan.paper, classes, _caption(plan, results), plan.seeds)


def document(sheet: Sheet, plan: Plan, command: str) -> dict[str, Any]:
    """What table.json holds."""
    gains = sheet.paper.gains() if sheet.paper else {}
    return {
        "table": sheet.name,
        "title": sheet.title,
        "unit": "fractions from 0 to 1; std over seeds is the sample's",
        "recipe": plan.base,
        "overrides": list(plan.settings),
        "init": plan.init,
        "paper": f"Table {sheet.paper.number}, section {sheet.paper.section}" if sheet.paper else None,
        "cells": {name: _cell(sheet, plan, name, gains) for name in sheet.rows},
        "threads": sorted({result.threads for result in sheet.results}),
        "devices": _devices(sheet.results),
        "note": BITS,
        "versions": {"scaleseg": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "system": f"{platform.system()} {platform.machine()}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
    }


def _cell(sheet: Sheet, plan: Plan, name: str, gains: dict[str, float]) -> dict[str, Any]:
    row, gain = sheet.rows[name], sheet.gain(name)
    figure = sheet.paper.figures.get(name) if sheet.paper else None
    cell: dict[str, Any] = {"overrides": list(words(dict(plan.cells[name].settings)))}
    if row.mIoU is not None:
        cell |= {"mIoU": row.mIoU, "IoU": {label: row.IoU(label) for label in row.results[0].IoU}}
    cell |= {"std": row.spread} if row.spread is not None else {}
    cell |= {"gain": gain / 100} if gain is not None else {}
    cell |= {"paper": round(figure / 100, 4)} if figure is not None else {}
    cell |= {"paper_gain": round(gains[name] / 100, 4)} if name in gains else {}
    cell |= {"seeds": {str(result.seed): _of_one(result) for result in row.results}}
    cell |= {"failed": {str(seed): problem for seed, problem in row.failed.items()}} if row.failed else {}
    return cell | ({"absent": row.absent} if row.absent else {})


def _of_one(result: Result) -> dict[str, Any]:
    return {name: value for name, value in result._asdict().items() if name != "seed"}


def _headings(plan: Plan) -> dict[str, str]:
    scales = {"2": plan.table.two, "3": plan.table.three}
    sets = {count: "{" + ", ".join(f"{scale:g}" for scale in values) + "}" for count, values in scales.items()}
    return {column: sets[column[0]] + (" + E-Supv" if column.endswith("es") else "") for column in COLUMNS}


def _data(plan: Plan) -> str:
    return plan.table.data if plan.on_own_data else f"other data ({plan.common.data.dataset})"


def _caption(plan: Plan, results: Sequence[Result]) -> str:
    """Data, length, seeds, hardware, date: what a reader must know to compare."""
    train = plan.common.train
    images = sorted({result.images for result in results})
    measured = f" on {' or '.join(map(str, images))} photographs" if images else ""
    seeds = "seed 0" if plan.seeds == 1 else f"seeds 0 to {plan.seeds - 1}"
    start = f", from {plan.init}" if plan.init else ""
    given = f" with {' '.join(plan.overrides)}" if plan.overrides else ""
    return (
        f"mIoU in percent{measured}, {_data(plan)}; recipe {plan.base}{given}{start}; {train.steps:,} steps, batch "
        f"{train.batch}, {seeds}; {', '.join(_devices(results)) or 'nothing measured yet'}; {datetime.now(UTC).date()}"
    )


def _devices(results: Sequence[Result]) -> list[str]:
    return sorted({result.device for result in results})
