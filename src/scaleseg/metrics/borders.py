"""Pixels near borders: the trimap that segmenters are known by, its curve over widths, and boundary IoU.

A label's border here lies between two 4-neighbours with different ids; void is an id of its own, for PASCAL draws it along
objects' outlines, and the image's own edge is no border. Boundary IoU has a rule of its own: `boundary_tally`.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64, Integer, Shaped

from scaleseg.geometry import IGNORE
from scaleseg.metrics.confusion import miou

__all__ = ["TRIMAP", "Trimap", "border_distance", "boundary_tally", "near_borders"]

TRIMAP = 3
"""Half the width in pixels of the band along labels' borders that `Metrics.trimap_mIoU` is measured in."""

DILATION = 0.02
"""Width of the band of boundary IoU, as a share of the image's diagonal (Cheng et al., CVPR 2021, section 5)."""


def near_borders(labels: Integer[np.ndarray, "H W"], width: int) -> Bool[np.ndarray, "H W"]:
    """The pixels at most `width` pixels from a border of the labels; ValueError for a width below 1.

    The two pixels at a border are within 1, and what is within 1 grows by a square window (chessboard distance). Void
    pixels near a border are in the mask too.

    The trimap of Kohli, Ladicky and Torr (IJCV 2009), as in Kraehenbuehl and Koltun (NIPS 2011). DeepLab's bands are
    grown from void alone: no border where two classes meet without void between them.
    """
    _check_width(width)
    return _square(_touching(labels), width - 1, np.logical_or)


def border_distance(labels: Integer[np.ndarray, "H W"], most: int) -> Integer[np.ndarray, "H W"]:
    """How many pixels from a border, up to `most`, else `most` + 1: `near_borders` of any width w is `distance <= w`."""
    _check_width(most)
    band = _touching(labels)
    distance = np.full(labels.shape, most + 1, np.int32)
    for _ in range(most):
        distance -= band
        band = _square(band, 1, np.logical_or)
    return distance


class Trimap:
    """mIoU of the pixels within 1, 2, ... `most` pixels of a label border, of a whole dataset."""

    def __init__(self, num_classes: int, most: int) -> None:
        self.num_classes, self.most = num_classes, most
        self.matrices: Int64[np.ndarray, "most classes classes"] = np.zeros((most, num_classes, num_classes), np.int64)
        """By distance: the confusion matrix of the pixels that are just so far from a border."""

    def add(
        self,
        labels: Integer[np.ndarray, "H W"],
        predicted: Integer[np.ndarray, "H W"],
        distance: Integer[np.ndarray, "H W"],
    ) -> None:
        """Count one image, of which `distance` is the `border_distance`; ids are classes, or void in the labels."""
        counted = (labels != IGNORE) & (distance <= self.most)
        place = (distance[counted] - 1).astype(np.int64) * self.num_classes + labels[counted]
        place = place * self.num_classes + predicted[counted]
        self.matrices += np.bincount(place, minlength=self.matrices.size).reshape(self.matrices.shape)

    def curve(self) -> Float64[np.ndarray, " most"]:
        """mIoU within each width, from 1 on; 0 where no pixel is."""
        return miou(self.matrices.cumsum(axis=0))


def boundary_tally(
    labels: Integer[np.ndarray, "H W"], predicted: Integer[np.ndarray, "H W"], num_classes: int
) -> tuple[Int64[np.ndarray, " classes"], Int64[np.ndarray, " classes"]]:
    """Hits and unions of each class's boundary pixels, in one image; added up over a dataset they make boundary IoU.

    Cheng et al., CVPR 2021, and the authors' boundary-iou-api: of each class's mask, labelled or predicted, only the
    pixels count that are at most d from its contour (chessboard distance), inside it; d is `DILATION` of the image's
    diagonal, rounded, at least 1. The image's edge is a contour. Their hits and unions are those of IoU.

    Void pixels do not count, and what is predicted on them is void too, so that the contours of a perfect prediction
    are those of the labels. (The panoptic code of the authors leaves what is predicted on void in the mask.)
    """
    void = labels == IGNORE
    said = np.where(void, IGNORE, predicted)
    width = max(1, round(DILATION * float(np.hypot(*labels.shape))))
    true, guessed = (_band(ids, width) & ~void for ids in (labels, said))
    hits = _count(labels[true & guessed & (labels == said)], num_classes)
    return hits, _count(labels[true], num_classes) + _count(said[guessed], num_classes) - hits


def _check_width(width: int) -> None:
    if width < 1:
        raise ValueError(f"width is {width}; expected 1 pixel or more")


def _touching(labels: Integer[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """The pixels with a 4-neighbour of another id."""
    touching = np.zeros(labels.shape, bool)
    for ids, marks in ((labels, touching), (labels.T, touching.T)):
        differ = ids[1:] != ids[:-1]
        marks[1:] |= differ
        marks[:-1] |= differ
    return touching


def _band(ids: Integer[np.ndarray, "H W"], width: int) -> Bool[np.ndarray, "H W"]:
    """The pixels with another id, or the outside of the image, at most `width` away: those whose window is not all one."""
    narrow = ids.astype(np.uint8)  # ids are bytes; these are eight times as fast
    band: Bool[np.ndarray, "H W"] = _square(narrow, width, np.minimum) != _square(narrow, width, np.maximum)
    for rows in (band, band.T):
        rows[:width] = True
        rows[-width:] = True
    return band


def _count(ids: Integer[np.ndarray, " pixels"], num_classes: int) -> Int64[np.ndarray, " classes"]:
    return np.bincount(ids, minlength=num_classes).astype(np.int64)


def _square(values: Shaped[np.ndarray, "H W"], radius: int, rule: Any) -> Shaped[np.ndarray, "H W"]:
    """What `rule` (minimum, maximum, or) makes of all values within a chessboard distance."""
    return _along(_along(values, radius, rule).T, radius, rule).T


def _along(values: Shaped[np.ndarray, "_ _"], radius: int, rule: Any) -> Shaped[np.ndarray, "_ _"]:
    """What it makes of the rows at most `radius` rows away, column by column, in log2(radius) doublings."""
    reached = 0  # rows
    while reached < radius:
        # A step of `reached` + 1 at most leaves no gap, and no way round by pixels outside the image.
        step = min(reached + 1, radius - reached)
        before, values = values, values.copy(order="K")  # K: a transposed map stays as it lies in memory, and fast
        rule(values[step:], before[:-step], out=values[step:])
        rule(values[:-step], before[step:], out=values[:-step])
        reached += step
    return values
