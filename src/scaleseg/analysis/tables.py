"""What was counted in each image as arrays, and the figures with their intervals: for one evaluation, or for two."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from scaleseg.analysis.contract import Estimate, ImageScore
from scaleseg.metrics import interval, mean_ratio, ratio

__all__ = ["Table", "boundary_table", "each", "fusion_table", "mean", "size_table"]

Table = tuple[Float64[np.ndarray, "_ _"], Float64[np.ndarray, "_ _"]]
"""Hits, and what they are hits of, each (images, columns)."""


def fusion_table(images: Sequence[ImageScore], fusion: str, classes: Sequence[str]) -> Table:
    """Hits and unions of each class, by image, of one of `Analysis.fusions`."""
    return _table([image.tallies[fusion] for image in images], classes)


def boundary_table(images: Sequence[ImageScore], classes: Sequence[str]) -> Table:
    """Hits and unions of each class's boundary, by image."""
    return _table([image.boundary for image in images], classes)


def size_table(images: Sequence[ImageScore]) -> Table:
    """By bin of size: the sum of the objects' IoU, and how many they are, by image."""
    counted = np.array([image.sizes for image in images], np.float64).reshape(len(images), -1, 2)
    return counted[..., 1], counted[..., 0]


def mean(table: Table, drawn: Table) -> Estimate:
    """The mean over columns, such as mIoU, of the whole and of each draw (`metrics.sums_of_draws`)."""
    hits, unions = (part.sum(axis=0, keepdims=True) for part in table)
    return Estimate(float(mean_ratio(hits, unions)[0]), *interval(mean_ratio(*drawn)))


def each(table: Table, drawn: Table) -> list[Estimate | None]:
    """The share of each column, None where it has nothing; draws that have nothing of it are left out of its interval."""
    hits, of = (part.sum(axis=0) for part in table)
    found: list[Estimate | None] = []
    for column, there in enumerate(of > 0):
        known = drawn[1][:, column] > 0
        shares = ratio(drawn[0][known, column][None], drawn[1][known, column][None])[0]
        value = float(hits[column] / of[column]) if there else 0.0
        found.append(Estimate(value, *(interval(shares) if len(shares) else (value, value))) if there else None)
    return found


def _table(tallies: Sequence[dict[str, tuple[int, int]]], classes: Sequence[str]) -> Table:
    counted = np.array([[one.get(name, (0, 0)) for name in classes] for one in tallies], np.float64)
    return counted[..., 0], counted[..., 1]
