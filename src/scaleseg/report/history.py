"""The training curves of a run: what its metrics.jsonl tells of the loss and of the development split."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scaleseg.report.charts import Line, lines
from scaleseg.report.figures import Figure
from scaleseg.report.words import exact, percent

__all__ = ["curves", "of_run"]

POINTS = 100
"""A curve has at most so many: of longer runs, neighbours are averaged."""

Curve = tuple[tuple[float, float], ...]


def of_run(folder: Path) -> Path | None:
    """The metrics.jsonl of a run, or of the run that a checkpoint (best, last, checkpoints/step-N) lies in."""
    try:
        real = folder.resolve()
        near = [folder, folder.parent, real.parent, real.parent.parent]
        return next(
            (path / NAME for path in near if (path / NAME).is_file() and (path / "config.yaml").is_file()), None
        )
    except (OSError, RuntimeError):
        return None


NAME = "metrics.jsonl"


def curves(path: Path) -> list[Figure]:
    """Loss and mIoU of the development split against steps; a line that a kill cut short is left out."""
    try:
        records = [_record(line) for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return []
    losses = {name: _curve(records, key) for name, key in (("total", ("loss",)), ("merged", ("loss_fused",)))}
    dev = {"merged": _curve(records, ("dev", "mIoU"))} | {
        f"scale {scale}": _curve(records, ("dev", "per_scale", scale)) for scale in _scales(records)
    }
    return [*_loss(losses), *_development(dev)]


def _record(line: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _scales(records: Iterable[dict[str, Any]]) -> list[str]:
    dev = (record["dev"] for record in records if isinstance(record.get("dev"), dict))
    each: dict[str, Any] = next((found["per_scale"] for found in dev if isinstance(found.get("per_scale"), dict)), {})
    return [str(scale) for scale in each] if len(each) > 1 else []


def _curve(records: Iterable[dict[str, Any]], keys: tuple[str, ...]) -> Curve:
    """(step, value) of every record that has one, thinned to POINTS; of a step that is there twice, the last."""
    found = {}
    for record in records:
        value: Any = record
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        step = record.get("step")
        if _is_number(step) and _is_number(value):
            found[float(step)] = float(value)  # type: ignore[arg-type]
    return _thinned(sorted(found.items()))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < BOUND


BOUND = 1e30
"""Numbers from here on are no measurements, and no axis could show them."""


def _thinned(points: list[tuple[float, float]]) -> Curve:
    """Means of as many neighbours as it takes; the step is that of the last of them."""
    size = math.ceil(len(points) / POINTS) or 1
    groups = (points[start : start + size] for start in range(0, len(points), size))
    return tuple((group[-1][0], sum(value for _, value in group) / len(group)) for group in groups)


def _loss(losses: dict[str, Curve]) -> list[Figure]:
    total, merged = losses["total"], losses["merged"]
    if not total:
        return []
    series = [Line("total", total), *([Line("merged", merged)] if len(merged) == len(total) else [])]
    title = "Loss in training"
    chart = lines(series, f"{title} against steps", across="steps", up="loss", percent=False)
    columns = ("step", *(f"{line.name} loss" for line in series))
    rows = tuple(
        (f"{step:,.0f}", *(f"{line.points[place][1]:.4f}" for line in series)) for place, (step, _) in enumerate(total)
    )
    sentence = f"From {total[0][1]:.3g} to {total[-1][1]:.3g} in {total[-1][0]:,.0f} steps. "
    sentence += "Total: the losses of the merged scores and of each scale." if len(series) > 1 else ""
    return [Figure("loss", title, sentence, (chart,), columns, rows)]


def _development(dev: dict[str, Curve]) -> list[Figure]:
    merged = dev["merged"]
    if not merged:
        return []
    series = [Line(name, points, marks=True) for name, points in dev.items() if len(points) == len(merged)]
    title = "mIoU on the development split"
    chart = lines(series, f"{title} against steps, in percent", across="steps", up="mIoU")
    step, best = max(merged, key=lambda point: point[1])
    sentence = (
        f"Best: {percent(best)} at step {step:,.0f}. These photographs choose the checkpoint, so they flatter it."
    )
    rows = tuple(
        (f"{step:,.0f}", *(exact(line.points[place][1]) for line in series)) for place, (step, _) in enumerate(merged)
    )
    return [Figure("development", title, sentence, (chart,), ("step", *(f"{line.name} %" for line in series)), rows)]
