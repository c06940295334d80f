"""Which scale was believed where, and whether it goes with the size of objects."""

import numpy as np
from jaxtyping import Float, Float64, Int64, Integer

from scaleseg.metrics.resampling import interval, times_drawn

__all__ = ["GroupMeans", "division", "spearman", "spearman_interval", "sums_by_group"]


class GroupMeans:
    """Mean weights of each scale over the pixels of each group (a class, a zone), of a whole dataset."""

    def __init__(self, groups: int, scales: int) -> None:
        self.sums: Float64[np.ndarray, "groups scales"] = np.zeros((groups, scales))
        self.pixels: Int64[np.ndarray, " groups"] = np.zeros(groups, np.int64)

    def add(self, weights: Float[np.ndarray, "scales pixels"], groups: Integer[np.ndarray, " pixels"]) -> None:
        """Count some pixels, each in the group of its number."""
        self.sums += sums_by_group(weights, groups, len(self.pixels))
        self.pixels += np.bincount(groups, minlength=len(self.pixels))

    def mean(self, group: int) -> tuple[float, ...] | None:
        """Of each scale; None for a group without pixels."""
        return tuple((self.sums[group] / self.pixels[group]).tolist()) if self.pixels[group] else None


def sums_by_group(
    weights: Float[np.ndarray, "scales pixels"], groups: Integer[np.ndarray, " pixels"], count: int
) -> Float64[np.ndarray, "groups scales"]:
    """The weights of each group's pixels, added up."""
    sums = [np.bincount(groups, one, minlength=count) for one in weights]
    return np.stack(sums, axis=1).astype(np.float64)  # without pixels they would be whole numbers


def division(weights: Float[np.ndarray, "scales H W"]) -> float:
    """How much an image's parts believe different scales: the mean over pixels of the total variation distance to the
    image's mean weights, half the sum over scales of |weight - mean weight|. 0: the same weights everywhere."""
    mean = weights.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
    return float(abs(weights - mean).sum(axis=0).mean(dtype=np.float64) / 2)


def spearman(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]) -> float | None:
    """Spearman's rank correlation, ties at their mean rank; None below 3 pairs, or where either is constant."""
    found = _correlations(first, second, np.ones((1, len(first))))[0] if len(first) else np.nan
    return None if np.isnan(found) else float(found)


def spearman_interval(
    first: Float[np.ndarray, " n"],
    second: Float[np.ndarray, " n"],
    images: Integer[np.ndarray, " n"],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float] | None:
    """The 95 % percentile bootstrap over images: a draw takes all pairs of an image, as often as it was drawn.

    Ranks are taken anew in each draw. Images are those that have pairs. None where `spearman` is None.
    """
    if spearman(first, second) is None:
        return None
    known, image = np.unique(images, return_inverse=True)
    generator, chunk = np.random.default_rng(seed), max(1, _PAIRS // len(first))
    parts = []
    for start in range(0, resamples, chunk):
        times = times_drawn(generator, min(chunk, resamples - start), len(known))
        parts.append(_correlations(first, second, times[:, image]))
    found = np.concatenate(parts)
    found = found[~np.isnan(found)]
    return interval(found) if len(found) else None


_PAIRS = 2**20
"""Pairs that are ranked at a time, so that memory stays at some 60 MB."""


def _correlations(
    first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"], times: Float64[np.ndarray, "draws n"]
) -> Float64[np.ndarray, " draws"]:
    """Spearman's of draws in which each pair is there so many times; NaN below 3 pairs, or where either is constant."""
    count = times.sum(axis=1, keepdims=True)
    one, two = (_ranks(values, times) - (count + 1) / 2 for values in (first, second))  # less their mean
    spread = np.sqrt((times * one**2).sum(axis=1) * (times * two**2).sum(axis=1))
    known = (spread > 0) & (count[:, 0] >= 3)
    found = np.full(len(times), np.nan)
    np.divide((times * one * two).sum(axis=1), spread, out=found, where=known)
    return found


def _ranks(values: Float[np.ndarray, " n"], times: Float64[np.ndarray, "draws n"]) -> Float64[np.ndarray, "draws n"]:
    """The rank of each value among those that are drawn, from 1 on; equal values have the mean of the ranks they take."""
    _, place = np.unique(values, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.diff(place[order], prepend=-1))
    there = np.add.reduceat(times[:, order], starts, axis=1)
    ranks: Float64[np.ndarray, "draws n"] = (there.cumsum(axis=1) - there + (there + 1) / 2)[:, place]
    return ranks
