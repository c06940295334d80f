"""Deep evaluation: one pass over labelled photographs, with everything counted in it that says why the figures are so."""

from collections.abc import Callable, Sequence

import numpy as np

from scaleseg.analysis.contract import (
    SIZES,
    TRIMAP_WIDTHS,
    Analysis,
    Calibration,
    CalibrationBin,
    Estimate,
    ObjectSize,
    ScaleUse,
)
from scaleseg.analysis.tables import boundary_table, each, fusion_table, mean, size_table
from scaleseg.analysis.tallies import ZONES, Object, Tallies, size_bin
from scaleseg.datasets import Dataset
from scaleseg.engines import Engine
from scaleseg.evaluation import count, figures
from scaleseg.metrics import Metrics, Reliability, Trimap, scipy_part, spearman, spearman_interval, sums_of_draws
from scaleseg.model import ScaleAware
from scaleseg.refine import Refine

__all__ = ["analyze"]


def analyze(
    model: ScaleAware,
    dataset: Dataset,
    *,
    precision: str = "float32",
    refine: str | Refine | None = None,
    engine: Engine | None = None,
    max_memory: int | None = None,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Analysis:
    """Everything about a model on labelled photographs; arguments and plain figures are those of `evaluate`.

    UserError as `evaluate`, and where SciPy, of the extra `report`, is not installed.
    """
    scipy_part("ndimage")  # before hours of work
    tallies = Tallies(dataset.names, model.classes, model.scales)
    counts = count(
        model, dataset, precision=precision, refine=refine, engine=engine, max_memory=max_memory, workers=workers,
        progress=progress, see=tallies.see,
    )  # fmt: skip
    return _summary(tallies, figures(counts, dataset))


def _summary(tallies: Tallies, metrics: Metrics) -> Analysis:
    images, classes = tuple(tallies.images), tallies.classes
    names = list(images[0].tallies)
    tables = [*(fusion_table(images, name, classes) for name in names), boundary_table(images, classes)]
    *draws, by_size = sums_of_draws([*tables, size_table(images)])
    *fusions, boundary = [mean(table, drawn) for table, drawn in zip(tables, draws, strict=True)]
    return Analysis(
        metrics=metrics,
        classes=classes,
        scales=tallies.scales,
        mIoU=fusions[0],
        IoU={name: known for name, known in zip(classes, each(tables[0], draws[0]), strict=True) if known},
        fusions=dict(zip(names, fusions, strict=True)),
        sizes=_sizes(tallies, each(size_table(images), by_size)),
        boundary_IoU=boundary,
        trimap=_trimap(tallies.trimap),
        calibration=_calibration(tallies.reliability),
        scale_use=_scale_use(tallies) if len(tallies.scales) > 1 else None,
        images=images,
        crumbs=tallies.crumbs,
    )


def _trimap(counted: Trimap) -> tuple[tuple[int, float], ...]:
    known = counted.matrices.sum(axis=(1, 2)).cumsum() > 0
    curve = zip(TRIMAP_WIDTHS, counted.curve().tolist(), known, strict=True)
    return tuple((width, value) for width, value, there in curve if there)


def _sizes(tallies: Tallies, estimates: Sequence[Estimate | None]) -> tuple[ObjectSize, ...]:
    bins: list[list[Object]] = [[] for _ in estimates]
    for item in tallies.objects:
        bins[size_bin(item.share)].append(item)
    borders = (0.0, *SIZES, 1.0)
    return tuple(
        _size((borders[place], borders[place + 1]), bins[place], score, tallies.classes, int(tallies.alarms[place]))
        for place, score in enumerate(estimates)
    )


def _size(
    between: tuple[float, float], objects: Sequence[Object], score: Estimate | None, classes: Sequence[str], alarms: int
) -> ObjectSize:
    kinds: dict[str, list[Object]] = {}
    for item in sorted(objects, key=lambda item: item.class_id):
        kinds.setdefault(classes[item.class_id], []).append(item)
    return ObjectSize(
        *between,
        len(objects),
        score,
        float(np.mean([item.found for item in objects])) if objects else None,
        {name: (len(items), float(np.mean([item.IoU for item in items]))) for name, items in kinds.items()},
        _weights(objects) if objects else None,
        {name: _weights(items) for name, items in kinds.items()},
        alarms,
    )


def _weights(objects: Sequence[Object]) -> tuple[float, ...]:
    return tuple(np.mean([item.weights for item in objects], axis=0).tolist())


def _calibration(found: Reliability) -> Calibration:
    steps = np.linspace(0, 1, len(found.pixels) + 1).tolist()
    columns = (found.shares.tolist(), found.confidence.tolist(), found.accuracy.tolist())
    rows = zip(steps[:-1], steps[1:], *columns, strict=True)
    return Calibration(found.ece, tuple(CalibrationBin(*row) for row in rows))


def _scale_use(tallies: Tallies) -> ScaleUse:
    objects = tallies.objects
    shares = np.array([item.share for item in objects], np.float64)
    scale = np.array([np.dot(item.weights, tallies.scales) for item in objects], np.float64)
    images = np.array([item.image for item in objects], np.int64)
    zones = {name: tallies.zones.mean(place) for place, name in enumerate(ZONES)}
    kinds = {name: tallies.by_class.mean(place) for place, name in enumerate(tallies.classes)}
    return ScaleUse(
        spearman(shares, scale),
        spearman_interval(shares, scale, images),
        len(objects),
        {name: weights for name, weights in zones.items() if weights},
        {name: weights for name, weights in kinds.items() if weights},
    )
