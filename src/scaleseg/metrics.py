"""Counting hits: one confusion matrix over a whole dataset, and the figures read off it. Void never counts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int64, Integer

from scaleseg.geometry import IGNORE

__all__ = ["Confusion", "Metrics"]


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

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**self.__dict__, "absent": list(self.absent)}


class Confusion:
    """How many pixels of each class were called what: rows are labels, columns predictions."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.matrix: Int64[np.ndarray, "classes classes"] = np.zeros((num_classes, num_classes), np.int64)
        self.images = 0

    def add(self, labels: Integer[np.ndarray, "H W"], predicted: Integer[np.ndarray, "H W"]) -> None:
        """Count one image; ValueError if its labels hold an id that is neither a class nor void."""
        valid = labels != IGNORE
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
        hits = np.diag(self.matrix).astype(np.float64)
        truth, guess = self.matrix.sum(1), self.matrix.sum(0)
        union, total = truth + guess - hits, int(self.matrix.sum())
        there, labelled = union > 0, truth > 0
        iou = np.divide(hits, union, out=np.zeros_like(hits), where=there)
        accuracy = np.divide(hits, truth, out=np.zeros_like(hits), where=labelled)
        return Metrics(
            mIoU=_mean(iou[there]),
            mAcc=_mean(accuracy[labelled]),
            aAcc=float(hits.sum() / total) if total else 0.0,
            fwIoU=float((iou * truth).sum() / total) if total else 0.0,
            IoU={name: float(value) for name, value, known in zip(classes, iou, there, strict=True) if known},
            absent=tuple(name for name, known in zip(classes, there, strict=True) if not known),
            images=self.images,
            pixels=total,
        )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else 0.0
