"""Counting hits: one confusion matrix over a whole dataset, and the figures read off it. Void never counts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64, Integer

from scaleseg.geometry import IGNORE

__all__ = ["Confusion", "Metrics", "hits_and_unions", "mean_ratio", "miou", "ratio", "tally"]


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
        hits, unions = hits_and_unions(stack)
        truth, total = stack.sum(2).astype(np.float64), int(stack.sum())
        iou, there = ratio(hits, unions)[0], unions[0] > 0
        return Metrics(
            mIoU=float(miou(stack)[0]),
            mAcc=float(mean_ratio(hits, truth)[0]),
            aAcc=float(hits.sum() / total) if total else 0.0,
            fwIoU=float((iou * truth[0]).sum() / total) if total else 0.0,
            IoU={name: float(value) for name, value, known in zip(classes, iou, there, strict=True) if known},
            absent=tuple(name for name, known in zip(classes, there, strict=True) if not known),
            images=self.images,
            pixels=total,
        )


def miou(matrices: Integer[np.ndarray, "stack classes classes"]) -> Float64[np.ndarray, " stack"]:
    """mIoU of each confusion matrix, over the classes that its labels or predictions have; 0 if it has none."""
    return mean_ratio(*hits_and_unions(matrices))


def hits_and_unions(
    matrices: Integer[np.ndarray, "stack classes classes"],
) -> tuple[Float64[np.ndarray, "stack classes"], Float64[np.ndarray, "stack classes"]]:
    """Whole numbers of pixels, which float64 adds exactly up to 2**53."""
    hits = matrices.diagonal(axis1=1, axis2=2).astype(np.float64)
    return hits, matrices.sum(1) + matrices.sum(2) - hits


def ratio(
    hits: Float64[np.ndarray, "stack classes"], of: Float64[np.ndarray, "stack classes"]
) -> Float64[np.ndarray, "stack classes"]:
    """The share of `of` that is hits; 0 where there is nothing."""
    shares = np.zeros_like(hits)
    np.divide(hits, of, out=shares, where=of > 0)
    return shares


def mean_ratio(
    hits: Float64[np.ndarray, "stack classes"], of: Float64[np.ndarray, "stack classes"]
) -> Float64[np.ndarray, " stack"]:
    """The mean share over the classes that have any of `of`; 0 if none has."""
    means: Float64[np.ndarray, " stack"] = ratio(hits, of).sum(1) / np.maximum((of > 0).sum(1), 1)
    return means


def tally(
    labels: Integer[np.ndarray, " pixels"], predicted: Integer[np.ndarray, " pixels"], num_classes: int
) -> tuple[Int64[np.ndarray, " classes"], Int64[np.ndarray, " classes"]]:
    """Hits and unions of each class over pixels of which none is void: what mIoU is made of, without the misses' names."""
    truth, guess, hits = (
        np.bincount(ids, minlength=num_classes) for ids in (labels, predicted, labels[labels == predicted])
    )
    return hits, truth + guess - hits
