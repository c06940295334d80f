"""What a deep evaluation finds: plain, frozen records that the command line prints, JSON keeps and the report draws.

All figures are fractions from 0 to 1. An interval is the 95 % percentile bootstrap over images. `to_dict` is what
`evaluate --deep --json` writes, `from_dict` reads it again: a report and `compare` need no model and no photograph.

An object is a connected component (8 neighbours) of one class in the labels, other than class 0, which is the background
everywhere in scaleseg; its share is that of its labelled pixels in all pixels of the image. Which prediction it is scored
against: `metrics.find_objects`. Components of fewer than `CRUMB` pixels, labelled or predicted, are no objects.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from scaleseg.analysis.document import decode, encode
from scaleseg.errors import UserError
from scaleseg.metrics import Metrics

__all__ = [
    "CRUMB",
    "FEWEST",
    "SIZES",
    "TRIMAP_WIDTHS",
    "Analysis",
    "Calibration",
    "CalibrationBin",
    "Estimate",
    "ImageScore",
    "ObjectSize",
    "Read",
    "ScaleUse",
    "read",
]

FEWEST = 6
"""Fewer photographs tell no interval and no winner: of five that all speak for one of two equal models, chance makes one in
sixteen (2 / 2**5), above 5 %."""

SIZES = (0.01, 0.05, 0.15, 0.40)
"""Borders of the five bins of object size, as shares of the image's pixels; an object on a border is in the upper bin."""

CRUMB = 25
"""Pixels from which on a component is an object: a square of 5, the width of PASCAL's void outlines, which cut single pixels
off what they go round. On VOC 2012 val three of four components are such crumbs."""

TRIMAP_WIDTHS = tuple(range(1, 21))
"""Pixels to each side of a label border within which the trimap curve is measured."""


class Estimate(NamedTuple):
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


class ObjectSize(NamedTuple):
    """The objects of one bin of size: connected components of one class in the labels (8 neighbours), void left out.

    Class 0, the background, has no objects.
    """

    low: float
    """Share of the image, from here ..."""
    high: float
    """... to below here."""
    objects: int
    IoU: Estimate | None
    """Mean over the bin's objects; None without any. An object is scored against the predicted components of its class
    that touch it, less the pixels that belong to other objects of that class; what such a component has beyond all of
    them is divided among those that it covers, in proportion to the pixels it shares with each."""
    found: float | None
    """Mean share of an object's pixels that were given its class (recall)."""
    classes: dict[str, tuple[int, float]]
    """By class: how many objects, and their mean IoU."""
    weights: tuple[float, ...] | None
    """Mean weight of each scale over the bin's objects (each object counts the same); None without any."""
    weights_by_class: dict[str, tuple[float, ...]]
    false_alarms: int = 0
    """Predicted components of this bin's size, of any class but 0, that share no pixel with an object of their class."""


class CalibrationBin(NamedTuple):
    """Pixels whose highest probability lies in one of 15 equal steps."""

    low: float
    high: float
    share: float
    """Of all labelled pixels."""
    confidence: float
    """Mean highest probability; 0 in an empty bin."""
    accuracy: float
    """Share of pixels that are right; 0 in an empty bin."""


class Calibration(NamedTuple):
    """How far a probability can be believed."""

    ece: float
    """Expected calibration error (Guo et al., ICML 2017): mean distance of confidence and accuracy, weighted by pixels."""
    bins: tuple[CalibrationBin, ...]


class ScaleUse(NamedTuple):
    """Which scale was believed where; only for models with more than one."""

    correlation: float | None
    """Spearman's, between an object's share of the image and its mean scale (weights times scales); None below 3 objects
    or where either is constant. Negative: larger objects are seen at smaller scales, as the paper says."""
    interval: tuple[float, float] | None
    objects: int
    zones: dict[str, tuple[float, ...]]
    """Mean weights of each scale on pixels labelled `object` (any class but 0) away from borders, near a `boundary`
    (within metrics.TRIMAP pixels of a label border), and on `background` (class 0) away from borders."""
    classes: dict[str, tuple[float, ...]]
    """Mean weights over the pixels of each class (labels)."""


@dataclass(frozen=True)
class ImageScore:
    """One photograph."""

    name: str
    index: int
    """In the dataset."""
    mIoU: float | None
    """Over the classes that its labels or its prediction have; None if all of it is void."""
    weights: tuple[float, ...]
    """Mean weight of each scale."""
    division: float
    """How much its parts believe different scales: the mean over pixels of half the sum over scales of
    |weight - mean weight| (total variation; 0: the same weights everywhere)."""
    tallies: dict[str, dict[str, tuple[int, int]]]
    """By fusion (the keys of `Analysis.fusions`) and class: hits and union in pixels; classes without union are left out.
    Those of all images, added up, make `Analysis.fusions`."""
    boundary: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By class: hits and union of `Analysis.boundary_IoU`, in pixels."""
    sizes: tuple[tuple[int, float], ...] = ((0, 0.0),) * (len(SIZES) + 1)
    """By bin of size: how many objects, and the sum of their IoU."""


@dataclass(frozen=True)
class Analysis:
    """Everything that `evaluate --deep` finds."""

    metrics: Metrics
    """What plain `evaluate` finds, of the same pass."""
    classes: tuple[str, ...]
    scales: tuple[float, ...]
    mIoU: Estimate
    IoU: dict[str, Estimate]
    """By class; absent classes are left out."""
    fusions: dict[str, Estimate]
    """mIoU by what merges the same per-scale scores: `fused` (the model's own, refined if asked for), `scale 1` and so on
    (each alone), `average`, `max`, and `oracle`: the right class wherever at least one scale alone has it, else `fused`."""
    sizes: tuple[ObjectSize, ...]
    boundary_IoU: Estimate
    """Mean over classes (Cheng et al., CVPR 2021; dilation 2 % of the image's diagonal)."""
    trimap: tuple[tuple[int, float], ...]
    """(pixels to each side, mIoU); widths within which no labelled pixel lies are left out."""
    calibration: Calibration
    scale_use: ScaleUse | None
    images: tuple[ImageScore, ...]
    """In the dataset's order."""
    crumbs: int = 0
    """Components of the labels that are too small to be objects."""

    def images_of_class(self, name: str) -> int:
        """Photographs that have a part in the IoU of a class."""
        return sum(name in image.tallies["fused"] for image in self.images)

    def images_of_size(self, place: int) -> int:
        """Photographs that have objects of a bin of `sizes`."""
        return sum(image.sizes[place][0] > 0 for image in self.images)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it: records as objects, tuples as lists."""
        return {"format": FORMAT, **encode(self)}

    @classmethod
    def from_dict(cls, document: Any) -> "Analysis":
        """Of `to_dict`, or of the file of `evaluate --deep --json`, which has it under `analysis`.

        UserError for a document that is no deep evaluation, or is damaged.
        """
        found = document.get("analysis", document) if isinstance(document, dict) else None
        if not isinstance(found, dict) or not {"format", "fusions"} <= found.keys():
            raise UserError(f"this is no deep evaluation of scaleseg; {REMEDY}")
        if found["format"] != FORMAT:
            raise UserError(
                f"the deep evaluation has format {found['format']!r}; this version reads {FORMAT}; {REMEDY}"
            )
        try:
            analysis: Analysis = decode(cls, found)
            _check(analysis)
        except ValueError as error:
            raise UserError(f"the deep evaluation is damaged: {error}; {REMEDY}") from error
        return analysis


class Read(NamedTuple):
    """A file of `evaluate --deep --json`."""

    analysis: Analysis
    document: dict[str, Any]
    """All of it: also what it was measured with."""


def read(path: Path) -> Read:
    """What `evaluate --deep --json` wrote; UserError, which names the file, for anything else."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return Read(Analysis.from_dict(document), document)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); {REMEDY}") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


FORMAT = 1

REMEDY = "make one with scaleseg evaluate CHECKPOINT --deep --json FILE"


def _check(analysis: Analysis) -> None:
    """ValueError where parts do not fit each other, so that whoever reads it need not ask again."""
    bins = len(SIZES) + 1
    if not analysis.scales or not analysis.classes or "fused" not in analysis.fusions or len(analysis.sizes) != bins:
        raise ValueError(f"it needs classes, scales, `fused` and {bins} sizes")
    if not analysis.images:
        raise ValueError("it has no images")
    for image in analysis.images:
        _check_image(image, analysis)


def _check_image(image: ImageScore, analysis: Analysis) -> None:
    where = f"images, {image.name!r}"
    if image.tallies.keys() != analysis.fusions.keys():
        raise ValueError(f"{where}: it has the fusions {', '.join(image.tallies)}")
    if len(image.weights) != len(analysis.scales) or len(image.sizes) != len(analysis.sizes):
        raise ValueError(f"{where}: it has {len(image.weights)} weights and {len(image.sizes)} sizes")
    for counted in (image.boundary, *image.tallies.values()):
        if not counted.keys() <= set(analysis.classes):
            raise ValueError(f"{where}: it has classes that are not in `classes`")
        if any(not 0 <= hits <= union or not union for hits, union in counted.values()):
            raise ValueError(f"{where}: it has more hits than pixels")
