"""The figures that a report begins with, and what each means in a sentence, never stronger than its interval allows."""

from typing import NamedTuple

from scaleseg.analysis import Analysis
from scaleseg.report.paired import LEAST, side_by_side
from scaleseg.report.words import between, listed, percent, points, signed

__all__ = ["Headline", "headlines", "of_scales", "of_sizes", "size_name"]

FEW = 30
"""Below so many photographs the interval itself is uncertain, and the page says so."""

SAME = 0.0005
"""Differences below half a tenth of a point are none: the page shows tenths."""


class Headline(NamedTuple):
    """One figure."""

    name: str
    figure: str
    interval: str
    """Empty where there is none."""
    sentence: str


def headlines(analysis: Analysis) -> list[Headline]:
    """mIoU, boundary IoU and calibration; of a model of several scales, what other ways to merge them would give."""
    several = len(analysis.scales) > 1
    return [_miou(analysis), _boundary(analysis), _calibration(analysis), *(_fusions(analysis) if several else [])]


def of_scales(analysis: Analysis) -> str:
    """Which way an object's size and its scale go together, if the interval lies on one side of 0."""
    use = analysis.scale_use
    if use is None:
        return ""
    if use.correlation is None or use.interval is None:
        return f"With {use.objects} objects of one size or one mean scale, size and scale cannot be set against each other."
    low, high = use.interval
    told = f"Spearman correlation of an object's size and its mean scale: {signed(use.correlation)} "
    told += f"({signed(low)} to {signed(high)}, {use.objects:,} objects). "
    if len(analysis.images) < LEAST:
        return told + "These are too few photographs to tell a direction."
    if high < 0:
        return told + "Larger objects tend to be seen at smaller scales, as the paper says."
    if low > 0:
        return told + "Larger objects tend to be seen at larger scales, the opposite of what the paper says."
    return told + "The interval holds 0: these photographs show no direction."


def of_sizes(analysis: Analysis) -> str:
    """The weakest and the strongest sizes, if their intervals lie apart."""
    measured = [(size, size.IoU) for size in analysis.sizes if size.IoU is not None and size.objects >= LEAST]
    objects = sum(size.objects for size in analysis.sizes)
    begin = (
        f"{objects:,} objects (in brackets: of each size): connected pieces of one class in the labels, by their share of "
        "the photograph. "
    )
    if len(measured) < 2 or len(analysis.images) < LEAST:
        return begin
    weak, strong = (choose(measured, key=lambda pair: pair[1].value) for choose in (min, max))
    if weak[1].high < strong[1].low:
        names = [size_name(pair[0].low, pair[0].high) for pair in (weak, strong)]
        return begin + (
            f"Weakest: {names[0]} ({percent(weak[1].value)}); strongest: {names[1]} ({percent(strong[1].value)})."
        )
    return begin + "The intervals of the weakest and the strongest overlap."


def size_name(low: float, high: float) -> str:
    """`1 to 5 %`; the ends are `below 1 %` and `above 40 %`."""
    if low <= 0:
        return f"below {100 * high:g}\u00a0%"
    return f"above {100 * low:g}\u00a0%" if high >= 1 else f"{100 * low:g} to {100 * high:g}\u00a0%"


def _miou(analysis: Analysis) -> Headline:
    count, images = len(analysis.IoU), len(analysis.images)
    sentence = (
        f"Of the pixels that are of a class or are taken for it, {percent(analysis.mIoU.value)} are both, as the mean of "
        f"{count} {'class' if count == 1 else 'classes'}. Drawn anew, {images:,} photographs of this kind would mostly give "
        f"{between(analysis.mIoU)}."
    )
    if images < FEW:
        sentence += (
            f" With only {images} {'photograph' if images == 1 else 'photographs'} the interval itself is rough."
        )
    return Headline("mIoU", percent(analysis.mIoU.value), between(analysis.mIoU), sentence)


def _boundary(analysis: Analysis) -> Headline:
    boundary, whole = analysis.boundary_IoU, analysis.mIoU
    sentence = "The same measure on the outlines alone, a band of 2\u00a0% of the diagonal. "
    if len(analysis.images) < LEAST:
        sentence += "With so few photographs it is not compared with mIoU."
    elif boundary.high < whole.low:
        sentence += "Outlines are drawn less exactly than areas are found."
    elif boundary.low > whole.high:
        sentence += "Outlines are drawn more exactly than areas are found."
    else:
        sentence += "Its interval overlaps that of mIoU."
    return Headline("boundary IoU", percent(boundary.value), between(boundary), sentence)


def _calibration(analysis: Analysis) -> Headline:
    bins = analysis.calibration.bins
    sure = sum(step.share * step.confidence for step in bins)
    right = sum(step.share * step.accuracy for step in bins)
    sentence = (
        f"The model is {percent(sure)} sure on average and right at {percent(right)} of the labelled pixels; "
        f"step by step the two differ by {points(analysis.calibration.ece)}. "
    )
    if abs(sure - right) < SAME:
        sentence += "On these photographs it is neither too sure nor too careful overall."
    else:
        sentence += (
            f"On these photographs it is too {'sure' if sure > right else 'careful'}, by {points(sure - right)}."
        )
    return Headline("calibration error (ECE)", percent(analysis.calibration.ece), "", sentence)


def _fusions(analysis: Analysis) -> list[Headline]:
    fused, found = analysis.fusions["fused"], []
    for name in ("average", "max"):
        other = analysis.fusions[name]
        found.append(Headline(f"{name} instead", percent(other.value), between(other), _instead(analysis, name)))
    oracle = analysis.fusions["oracle"]
    sentence = (
        f"mIoU if a pixel were right wherever at least one of the scales {listed(_scales(analysis))} alone is right: "
        f"{points(oracle.value - fused.value)} above the model's own fusion, the room for a better choice of scales."
    )
    return [*found, Headline("oracle", percent(oracle.value), between(oracle), sentence)]


def _instead(analysis: Analysis, name: str) -> str:
    return f"mIoU if the same scores were merged by {name}. {side_by_side(analysis, name, name)}"


def _scales(analysis: Analysis) -> list[str]:
    return [f"{scale:g}" for scale in analysis.scales]
