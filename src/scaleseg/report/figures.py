"""The charts of a report, each with its sentence and the numbers that it draws."""

from collections.abc import Sequence
from typing import NamedTuple

from scaleseg.analysis import FEWEST, Analysis, Estimate, ObjectSize, ScaleUse
from scaleseg.metrics import TRIMAP
from scaleseg.report.charts import Bar, Line, Stack, bars, lines, stacks
from scaleseg.report.headlines import of_scales, of_sizes, side_by_side, size_name
from scaleseg.report.words import exact, listed, percent, points

__all__ = ["Figure", "figures"]

PER_CHART = 30
"""Classes in a chart; more of them fill several."""


Score = tuple[float | None, float | None, float | None]
"""A figure and its interval."""

NOTHING: Score = (None, None, None)


class Figure(NamedTuple):
    """A heading, what the chart shows, the chart (in parts where it is long) and its table."""

    key: str
    title: str
    sentence: str
    charts: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def figures(analysis: Analysis) -> list[Figure]:
    """In the order in which they are read; what only several scales have is left out for one."""
    found = [_classes(analysis), _sizes(analysis)]
    found += [_fusions(analysis)] if len(analysis.scales) > 1 else []
    if analysis.scale_use and len(analysis.scales) > 1:
        found += [_scale_by_size(analysis), *_scale_use(analysis, analysis.scale_use)]
    found += [_trimap(analysis)] if analysis.trimap else []
    return [*found, _reliability(analysis)]


def _classes(analysis: Analysis) -> Figure:
    ordered = sorted(analysis.IoU.items(), key=lambda item: -item[1].value)
    known = {name for name, _ in ordered if analysis.images_of_class(name) >= FEWEST}
    parts = [ordered[start : start + PER_CHART] for start in range(0, len(ordered), PER_CHART)]
    title = "IoU of each class"
    drawn = tuple(
        bars(
            [_bar(name, estimate, name in known) for name, estimate in part],
            f"{title} in percent, with 95 % intervals, the best first"
            + (f", part {number} of {len(parts)}" if len(parts) > 1 else ""),
        )
        for number, part in enumerate(parts, start=1)
    )
    absent = [name for name in analysis.classes if name not in analysis.IoU]
    sentence = "Best first. " + _apart([item for item in ordered if item[0] in known])
    if len(known) < len(ordered):
        sentence += f" Classes in fewer than {FEWEST} photographs have no interval."
    sentence += f" In neither labels nor predictions, and in no mean: {listed(absent)}." if absent else ""
    return Figure(
        "classes", title, sentence, drawn, _INTERVAL, tuple(_interval(*item, item[0] in known) for item in ordered)
    )


_INTERVAL = ("", "IoU %", "from %", "to %")


def _interval(name: str, estimate: Estimate, known: bool) -> tuple[str, ...]:
    return (name, *map(exact, _known(estimate, known)))


def _bar(name: str, estimate: Estimate, known: bool, *, strong: bool = False) -> Bar:
    return Bar(name, *_known(estimate, known), strong=strong)


def _known(estimate: Estimate | None, known: bool) -> Score:
    """Without the interval where too few photographs stand behind it."""
    return NOTHING if estimate is None else estimate if known else (estimate.value, None, None)


def _apart(ordered: Sequence[tuple[str, Estimate]]) -> str:
    """The first and the last class, if their intervals lie apart."""
    if len(ordered) < 2:
        return ""
    (best, high), (worst, low) = ordered[0], ordered[-1]
    if low.high < high.low:
        return f"Between {best} and {worst} lie {points(high.value - low.value)}."
    return "Even the intervals of the first and the last class overlap."


def _sizes(analysis: Analysis) -> Figure:
    title = "IoU by the size of objects"
    rows = [
        (size_name(size.low, size.high), size, _known(size.IoU, analysis.images_of_size(place) >= FEWEST))
        for place, size in enumerate(analysis.sizes)
    ]
    chart = bars(
        [_sized(*row) for row in rows],
        f"{title}: mean IoU in percent of objects by their share of the photograph, and how many they are, with 95 % intervals",
    )
    table = tuple(
        (
            name,
            f"{size.objects:,}",
            *map(exact, score),
            exact(size.found),
            f"{size.false_alarms:,}",
        )
        for name, size, score in rows
    )
    columns = ("share of image", "objects", "IoU %", "from %", "to %", "pixels found %", "false alarms")
    return Figure("sizes", title, of_sizes(analysis), (chart,), columns, table)


def _sized(name: str, size: ObjectSize, score: Score) -> Bar:
    count = f"{size.objects}" if size.objects < 10_000 else f"{size.objects / 1000:.0f}k"
    return Bar(name, *score, note=f"({count})")


def _fusions(analysis: Analysis) -> Figure:
    """Scales alone first, then what merges them."""
    names = sorted(analysis.fusions, key=_place)
    title = "mIoU by what merges the scales"
    known = len(analysis.images) >= FEWEST
    rows = [_bar(_called(name), analysis.fusions[name], known, strong=name == "fused") for name in names]
    alone = [name for name in names if name.startswith("scale ")]
    best = max(alone, key=lambda name: analysis.fusions[name].value)
    sentence = (
        "Every way merges the same scores of the same photographs. "
        + side_by_side(analysis, best, f"the best single scale ({best})")
        + " The oracle picks the right scale wherever one is right."
    )
    chart = bars(rows, f"{title} in percent, with 95 % intervals")
    table = tuple(_interval(_called(name), analysis.fusions[name], known) for name in names)
    return Figure("fusions", title, sentence, (chart,), ("", "mIoU %", "from %", "to %"), table)


def _place(name: str) -> int:
    order = ("average", "max", "fused", "oracle")
    return order.index(name) if name in order else -1


def _called(name: str) -> str:
    return f"only {name}" if name.startswith("scale ") else {"fused": "the model's own"}.get(name, name)


def _scale_by_size(analysis: Analysis) -> Figure:
    title = "Which scale is believed, by the size of objects"
    rows = [(size_name(size.low, size.high), size.weights or (), size.objects) for size in analysis.sizes]
    stacked = [Stack(name, weights) for name, weights, _ in rows]
    chart = stacks(stacked, _scales(analysis), f"{title}: mean weight of each scale in percent")
    table = tuple((name, f"{objects:,}", *_weights(weights, analysis)) for name, weights, objects in rows)
    columns = ("share of image", "objects", *(f"{scale} %" for scale in _scales(analysis)))
    return Figure("scale-by-size", title, of_scales(analysis), (chart,), columns, table)


def _scale_use(analysis: Analysis, use: ScaleUse) -> list[Figure]:
    known = ("object", "boundary", "background")
    zones: dict[str, tuple[float, ...]] = {name: use.zones[name] for name in known if name in use.zones}
    zones |= {name: weights for name, weights in use.zones.items() if name not in zones}
    where = f"inside objects, within {TRIMAP} pixels of an outline, and on background, by the labels"
    return [
        _weighted("zones", "Which scale is believed where", f"Mean weights {where}.", zones, analysis),
        _weighted(
            "scale-by-class",
            "Which scale is believed on which class",
            "Mean weights over the pixels of each class, by the labels.",
            use.classes,
            analysis,
        ),
    ]


def _weighted(key: str, title: str, sentence: str, weights: dict[str, tuple[float, ...]], analysis: Analysis) -> Figure:
    rows = [Stack(name, parts) for name, parts in weights.items()]
    parts = [rows[start : start + PER_CHART] for start in range(0, len(rows), PER_CHART)]
    scales = _scales(analysis)
    drawn = tuple(
        stacks(part, scales, f"{title}: mean weight of each scale in percent, part {number} of {len(parts)}")
        for number, part in enumerate(parts, start=1)
    )
    table = tuple((row.label, *_weights(row.parts, analysis)) for row in rows)
    return Figure(key, title, sentence, drawn, ("", *(f"{scale} %" for scale in scales)), table)


def _weights(weights: Sequence[float], analysis: Analysis) -> tuple[str, ...]:
    return tuple(map(exact, weights or (None,) * len(analysis.scales)))


def _scales(analysis: Analysis) -> list[str]:
    return [f"scale {scale:g}" for scale in analysis.scales]


def _trimap(analysis: Analysis) -> Figure:
    title = "mIoU near outlines"
    series = [Line("mIoU", tuple((float(width), value) for width, value in analysis.trimap), marks=True)]
    chart = lines(
        series,
        f"{title}: mIoU in percent of the pixels at most so many pixels from an outline of the labels",
        across="pixels to each side of an outline",
        up="mIoU",
    )
    sentence = "Only pixels near an outline of the labels count; all pixels together give "
    sentence += f"{percent(analysis.mIoU.value)}. The vertical axis does not begin at 0."
    rows = tuple((str(width), exact(value)) for width, value in analysis.trimap)
    return Figure("trimap", title, sentence, (chart,), ("pixels to each side", "mIoU %"), rows)


def _reliability(analysis: Analysis) -> Figure:
    title = "How far a probability can be believed"
    steps = [step for step in analysis.calibration.bins if step.share > 0]
    points = tuple((step.confidence, step.accuracy) for step in steps)
    series = [Line("", points, marks=True, sizes=tuple(step.share for step in steps))]
    chart = lines(
        series,
        f"{title}: share of right pixels against the probability that the model gave",
        across="probability of the predicted class",
        up="right pixels",
        x=(0.0, 1.0),
        y=(0.0, 1.0),
        diagonal="as sure as right",
    )
    surest = max(steps, key=lambda step: step.share, default=None)
    sentence = "Below the dashed line the model is surer than it is right. A larger point has more pixels: "
    if surest:
        sentence += f"{percent(surest.share)} of them lie between {percent(surest.low)} and {percent(surest.high)}."
    columns = ("probability from %", "to %", "share of pixels %", "mean probability %", "right %")
    return Figure("reliability", title, sentence, (chart,), columns, tuple(tuple(map(exact, step)) for step in steps))
