"""The figures that a report begins with, and what each means in a sentence, never stronger than its interval allows."""

from typing import NamedTuple

from scaleseg.analysis import FEWEST, Analysis, Estimate, gain
from scaleseg.report.words import between, listed, percent, photographs, points, signed, signed_points

__all__ = ["Headline", "headlines", "of_scales", "of_sizes", "side_by_side", "size_name"]

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
        return (
            f"Objects: {use.objects}. They are too few, or all of one size or one mean scale, to set size and scale against "
            "each other."
        )
    low, high = use.interval
    told = f"Spearman correlation of an object's size and its mean scale: {signed(use.correlation)} "
    if len(analysis.images) < FEWEST:
        return told + f"({use.objects:,} objects). These are too few photographs to tell a direction."
    told += f"({signed(low)} to {signed(high)}, {use.objects:,} objects). "
    if high < 0:
        return told + "Larger objects tend to be seen at smaller scales, as the paper says."
    if low > 0:
        return told + "Larger objects tend to be seen at larger scales, the opposite of what the paper says."
    return told + "The interval holds 0: these photographs show no direction."


def of_sizes(analysis: Analysis) -> str:
    """The weakest and the strongest sizes, if their intervals lie apart."""
    known = [size for place, size in enumerate(analysis.sizes) if analysis.images_of_size(place) >= FEWEST]
    measured = [(size, size.IoU) for size in known if size.IoU is not None]
    objects = sum(size.objects for size in analysis.sizes)
    begin = (
        f"{objects:,} objects (in brackets: of each size): connected pieces of one class in the labels, by their share of "
        "the photograph. "
    )
    if len(known) < sum(size.objects > 0 for size in analysis.sizes):
        begin += f"Sizes in fewer than {FEWEST} photographs have no interval. "
    if len(measured) < 2:
        return begin
    weak, strong = (choose(measured, key=lambda pair: pair[1].value) for choose in (min, max))
    if weak[1].high < strong[1].low:
        names = [size_name(pair[0].low, pair[0].high) for pair in (weak, strong)]
        return begin + (
            f"Weakest: {names[0]} ({percent(weak[1].value)}); strongest: {names[1]} ({percent(strong[1].value)})."
        )
    return begin + "The intervals of the weakest and the strongest overlap."


def side_by_side(analysis: Analysis, other: str, name: str) -> str:
    """Which of the model's own fusion and another is better, in a sentence, if the interval leaves out 0."""
    found = gain(analysis, other)
    if found.images < FEWEST:
        return f"These are too few photographs to tell whether the model's own fusion or {name} is better."
    value, low, high = found.difference
    if not any(found.difference):
        return f"The model's own fusion and {name} give the same mIoU on these photographs."
    interval = f"{signed_points(low)} to {signed_points(high)}"
    if found.is_certain:
        told = f"The model's own fusion is {'better' if low > 0 else 'worse'} than {name}, by {points(value)}"
        return f"{told} (95 % interval of the difference: {interval})."
    return (
        f"The model's own fusion and {name} differ by {points(value)}; the interval of the difference, {interval}, "
        "holds 0: these photographs do not tell which is better."
    )


def size_name(low: float, high: float) -> str:
    """`1 to 5 %`; the ends are `below 1 %` and `above 40 %`."""
    if low <= 0:
        return f"below {100 * high:g}\u00a0%"
    return f"above {100 * low:g}\u00a0%" if high >= 1 else f"{100 * low:g} to {100 * high:g}\u00a0%"


def _miou(analysis: Analysis) -> Headline:
    count, images, found = len(analysis.IoU), len(analysis.images), _between(analysis, analysis.mIoU)
    sentence = (
        f"Of the pixels that are of a class or are taken for it, {percent(analysis.mIoU.value)} are both, as the mean of "
        f"{count} {'class' if count == 1 else 'classes'}. "
    )
    if not found:
        sentence += f"{photographs(images).capitalize()}: fewer than {FEWEST} tell no interval."
    else:
        sentence += (
            f"When as many are drawn from these {images:,} photographs, with repeats, 95 % of draws give {found}."
        )
        sentence += f" With only {images} photographs the interval itself is rough." if images < FEW else ""
    return Headline("mIoU", percent(analysis.mIoU.value), found, sentence)


def _between(analysis: Analysis, found: Estimate) -> str:
    """The interval; empty where too few photographs stand behind it."""
    return between(found) if len(analysis.images) >= FEWEST else ""


def _boundary(analysis: Analysis) -> Headline:
    boundary, whole = analysis.boundary_IoU, analysis.mIoU
    sentence = "The same measure on the outlines alone, a band of 2\u00a0% of the diagonal. "
    if len(analysis.images) < FEWEST:
        sentence += "With so few photographs it is not compared with mIoU."
    elif boundary.high < whole.low:
        sentence += "Outlines are drawn less exactly than areas are found."
    elif boundary.low > whole.high:
        sentence += "Outlines are drawn more exactly than areas are found."
    else:
        sentence += "Its interval overlaps that of mIoU."
    return Headline("boundary IoU", percent(boundary.value), _between(analysis, boundary), sentence)


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
        found.append(
            Headline(f"{name} instead", percent(other.value), _between(analysis, other), _instead(analysis, name))
        )
    oracle = analysis.fusions["oracle"]
    sentence = (
        f"mIoU if a pixel were right wherever at least one of the scales {listed(_scales(analysis))} alone is right: "
        f"{points(oracle.value - fused.value)} above the model's own fusion, the room for a better choice of scales."
    )
    return [*found, Headline("oracle", percent(oracle.value), _between(analysis, oracle), sentence)]


def _instead(analysis: Analysis, name: str) -> str:
    return f"mIoU if the same scores were merged by {name}. {side_by_side(analysis, name, name)}"


def _scales(analysis: Analysis) -> list[str]:
    return [f"{scale:g}" for scale in analysis.scales]
