"""Counting hits: one confusion matrix over a whole dataset, and the figures read off it. Void never counts.

Besides: the pixels near labels' borders (`near_borders`), and how far mIoU would move with other photographs of the
same kind (`bootstrap`), alone or as the difference of two models on the same ones (`bootstrap_difference`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64, Integer

from scaleseg.geometry import IGNORE

__all__ = ["TRIMAP", "Confusion", "Metrics", "bootstrap", "bootstrap_difference", "miou", "near_borders"]

TRIMAP = 3
"""Half the width in pixels of the band along labels' borders that `Metrics.trimap_mIoU` is measured in."""

_DRAWS = 2**20
"""Images that the bootstrap draws at a time, so that its memory stays at some 30 MB however many there are."""


@dataclass(frozen=True)
class Metrics:
    """Fractions from 0 to 1. A class that neither labels nor predictions have is `absent` and in no mean."""

    mIoU: float
    mAcc: float
    aAcc: float
    fwIoU: float
    IoU: dict[str, float]
    absent: tuple[str, ...] = ()
    per_scale: dict[str, float] = field(default_factory=dict)  # mIoU of each scale's own scores
    images: int = 0
    pixels: int = 0
    trimap_mIoU: float | None = None  # mIoU of the pixels `near_borders` by TRIMAP; None: not measured

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**self.__dict__, "absent": list(self.absent)}


class Confusion:
    """How many pixels of each class were called what: rows are labels, columns predictions."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.matrix: Int64[np.ndarray, "classes classes"] = np.zeros((num_classes, num_classes), np.int64)
        self.images = 0

    def add(
        self,
        labels: Integer[np.ndarray, "H W"],
        predicted: Integer[np.ndarray, "H W"],
        where: Bool[np.ndarray, "_ _"] | None = None,
    ) -> None:
        """Count one image, or its pixels `where`; ValueError if their labels hold an id neither a class nor void."""
        if where is not None and where.shape != labels.shape:
            raise ValueError(f"`where` is {where.shape}; expected the labels' {labels.shape}")
        valid = labels != IGNORE if where is None else (labels != IGNORE) & where
        truth, guess = labels[valid].astype(np.int64), predicted[valid].astype(np.int64)
        if truth.size and (truth.max() >= self.num_classes or truth.min() < 0):
            raise ValueError(f"labels go up to {truth.max()}; expected below {self.num_classes}, or {IGNORE} for void")
        if guess.size and (guess.max() >= self.num_classes or guess.min() < 0):
            raise ValueError(
                f"predictions go from {guess.min()} to {guess.max()}; expected 0 to {self.num_classes - 1}"
            )
        index = truth * self.num_classes + guess
        self.matrix += np.bincount(index, minlength=self.num_classes**2).reshape(self.matrix.shape)
        self.images += 1

    def metrics(self, classes: Sequence[str]) -> Metrics:
        """mIoU, mean and overall accuracy, frequency-weighted IoU, and the IoU of each class."""
        stack = self.matrix[None]
        hits, unions = _hits_and_unions(stack)
        truth, total = stack.sum(2).astype(np.float64), int(stack.sum())
        iou, there = _ratio(hits, unions)[0], unions[0] > 0
        return Metrics(
            mIoU=float(miou(stack)[0]),
            mAcc=float(_mean_ratio(hits, truth)[0]),
            aAcc=float(hits.sum() / total) if total else 0.0,
            fwIoU=float((iou * truth[0]).sum() / total) if total else 0.0,
            IoU={name: float(value) for name, value, known in zip(classes, iou, there, strict=True) if known},
            absent=tuple(name for name, known in zip(classes, there, strict=True) if not known),
            images=self.images,
            pixels=total,
        )


def miou(matrices: Integer[np.ndarray, "stack classes classes"]) -> Float64[np.ndarray, " stack"]:
    """mIoU of each confusion matrix, over the classes that its labels or predictions have; 0 if it has none."""
    return _mean_ratio(*_hits_and_unions(matrices))


def near_borders(labels: Integer[np.ndarray, "H W"], width: int) -> Bool[np.ndarray, "H W"]:
    """The pixels at most `width` pixels from a border of the labels; ValueError for a width below 1.

    A border lies between two 4-neighbours with different ids; void is an id of its own, for PASCAL draws it along
    objects' outlines, and the image's own edge is no border. The two pixels at a border are within 1, and what is
    within 1 grows by a square window (chessboard distance). Void pixels near a border are in the mask too.

    The trimap of Kohli, Ladicky and Torr (IJCV 2009), as in Kraehenbuehl and Koltun (NIPS 2011). DeepLab's bands are
    grown from void alone: no border where two classes meet without void between them.
    """
    if width < 1:
        raise ValueError(f"width is {width}; expected 1 pixel or more")
    touching = np.zeros(labels.shape, bool)
    for ids, marks in ((labels, touching), (labels.T, touching.T)):
        differ = ids[1:] != ids[:-1]
        marks[1:] |= differ
        marks[:-1] |= differ
    return _grown(_grown(touching, width - 1).T, width - 1).T


def bootstrap(
    matrices: Integer[np.ndarray, "images classes classes"],
    *,
    resamples: int = 1000,
    seed: int = 0,
    share: float = 0.95,
) -> tuple[float, float]:
    """(low, high) between which lie `share` of the mIoUs of as many images drawn from these with replacement.

    `matrices` holds one confusion matrix an image; mIoU is that of a draw's sum. The percentile bootstrap (Efron and
    Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). ValueError for no images, no resamples, or a share
    that is not between 0 and 1.
    """
    (drawn,) = _resampled([matrices], resamples, seed)
    return _middle(drawn, share)


def bootstrap_difference(
    first: Integer[np.ndarray, "images classes classes"],
    second: Integer[np.ndarray, "_ _ _"],
    *,
    resamples: int = 1000,
    seed: int = 0,
    share: float = 0.95,
) -> tuple[float, float]:
    """(low, high) of second's mIoU less first's, as `bootstrap`; paired: each draw takes the same images of both.

    Matrix i of both is image i, so what makes an image hard for both cancels. ValueError also for different shapes.
    """
    if first.shape != second.shape:
        raise ValueError(f"second is {second.shape}; expected first's {first.shape}, the same images and classes")
    before, after = _resampled([first, second], resamples, seed)
    return _middle(after - before, share)


def _resampled(
    stacks: Sequence[Integer[np.ndarray, "images classes classes"]], resamples: int, seed: int
) -> Float64[np.ndarray, "stacks resamples"]:
    images = len(stacks[0])
    if images < 1 or resamples < 1:
        raise ValueError(f"{images} images and {resamples} resamples; expected 1 or more of each")
    generator = np.random.default_rng(seed)
    tallies = [_hits_and_unions(stack) for stack in stacks]
    chunk = max(1, _DRAWS // images)
    parts = []
    for start in range(0, resamples, chunk):
        times = _times_drawn(generator, min(chunk, resamples - start), images)
        # Hits and unions of a sum are sums of hits and unions: no need to sum whole matrices.
        parts.append([_mean_ratio(times @ hits, times @ unions) for hits, unions in tallies])
    return np.concatenate(parts, axis=1)


def _times_drawn(generator: np.random.Generator, rows: int, images: int) -> Float64[np.ndarray, "rows images"]:
    """How often each of `images` draws with replacement took each image (float64, so that @ runs in BLAS)."""
    drawn = generator.integers(0, images, (rows, images)) + np.arange(rows)[:, None] * images
    return np.bincount(drawn.ravel(), minlength=rows * images).reshape(rows, images).astype(np.float64)


def _middle(values: Float64[np.ndarray, " resamples"], share: float) -> tuple[float, float]:
    if not 0 < share < 1:
        raise ValueError(f"share is {share}; expected between 0 and 1")
    low, high = np.quantile(values, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def _hits_and_unions(
    matrices: Integer[np.ndarray, "stack classes classes"],
) -> tuple[Float64[np.ndarray, "stack classes"], Float64[np.ndarray, "stack classes"]]:
    """Whole numbers of pixels, which float64 adds exactly up to 2**53."""
    hits = matrices.diagonal(axis1=1, axis2=2).astype(np.float64)
    return hits, matrices.sum(1) + matrices.sum(2) - hits


def _ratio(
    hits: Float64[np.ndarray, "stack classes"], of: Float64[np.ndarray, "stack classes"]
) -> Float64[np.ndarray, "stack classes"]:
    """The share of `of` that is hits; 0 where there is nothing."""
    shares = np.zeros_like(hits)
    np.divide(hits, of, out=shares, where=of > 0)
    return shares


def _mean_ratio(
    hits: Float64[np.ndarray, "stack classes"], of: Float64[np.ndarray, "stack classes"]
) -> Float64[np.ndarray, " stack"]:
    """The mean share over the classes that have any of `of`; 0 if none has."""
    means: Float64[np.ndarray, " stack"] = _ratio(hits, of).sum(1) / np.maximum((of > 0).sum(1), 1)
    return means


def _grown(mask: Bool[np.ndarray, "_ _"], radius: int) -> Bool[np.ndarray, "_ _"]:
    """The rows at most `radius` rows from a marked pixel, column by column, in log2(radius) doublings."""
    reached = 0  # rows
    while reached < radius:
        # A step of `reached` + 1 at most leaves no gap, and no way round by pixels outside the image.
        step = min(reached + 1, radius - reached)
        before, mask = mask, mask.copy(order="K")  # K: a transposed mask stays as it lies in memory, and fast
        mask[step:] |= before[:-step]
        mask[:-step] |= before[step:]
        reached += step
    return mask
