"""How far a figure would move with other photographs of the same kind: the percentile bootstrap over images.

A figure here is a share of sums: each image gives `hits` and what they are hits `of` (unions of a class, objects of a
size), a draw adds up those of its images. mIoU is the mean of such shares over classes.

Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Integer

from scaleseg.metrics.confusion import hits_and_unions, mean_ratio

__all__ = ["bootstrap", "bootstrap_difference", "interval", "sums_of_draws", "times_drawn"]

Tally = tuple[Float64[np.ndarray, "_ _"], Float64[np.ndarray, "_ _"]]
"""Hits, and what they are hits of, each (images, columns)."""

_DRAWS = 2**20
"""Images that the bootstrap draws at a time, so that its memory stays at some 30 MB however many there are."""


def bootstrap(
    matrices: Integer[np.ndarray, "images classes classes"],
    *,
    resamples: int = 1000,
    seed: int = 0,
    share: float = 0.95,
) -> tuple[float, float]:
    """(low, high) between which lie `share` of the mIoUs of as many images drawn from these with replacement.

    `matrices` holds one confusion matrix an image; mIoU is that of a draw's sum. ValueError for no images, no resamples,
    or a share that is not between 0 and 1.
    """
    (sums,) = sums_of_draws([hits_and_unions(matrices)], resamples=resamples, seed=seed)
    return interval(mean_ratio(*sums), share)


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
    tallies = [hits_and_unions(matrices) for matrices in (first, second)]
    before, after = (mean_ratio(*sums) for sums in sums_of_draws(tallies, resamples=resamples, seed=seed))
    return interval(after - before, share)


def sums_of_draws(tallies: Sequence[Tally], *, resamples: int = 1000, seed: int = 0) -> list[Tally]:
    """For each (hits, of) their sums over each draw: (resamples, columns); a draw takes the same images of all of them.

    Sums of hits and unions are enough for shares: no need to sum whole matrices. ValueError for no images or no resamples.
    """
    images = len(tallies[0][0]) if tallies else 0
    if images < 1 or resamples < 1:
        raise ValueError(f"{images} images and {resamples} resamples; expected 1 or more of each")
    generator = np.random.default_rng(seed)
    chunk = max(1, _DRAWS // images)
    parts: list[list[Tally]] = []
    for start in range(0, resamples, chunk):
        times = times_drawn(generator, min(chunk, resamples - start), images)
        parts.append([(times @ hits, times @ of) for hits, of in tallies])
    return [
        (np.concatenate([hits for hits, _ in one]), np.concatenate([of for _, of in one]))
        for one in zip(*parts, strict=True)
    ]


def times_drawn(generator: np.random.Generator, rows: int, images: int) -> Float64[np.ndarray, "rows images"]:
    """How often each of `images` draws with replacement took each image (float64, so that @ runs in BLAS)."""
    drawn = generator.integers(0, images, (rows, images)) + np.arange(rows)[:, None] * images
    return np.bincount(drawn.ravel(), minlength=rows * images).reshape(rows, images).astype(np.float64)


def interval(values: Float64[np.ndarray, " resamples"], share: float = 0.95) -> tuple[float, float]:
    """The middle `share` of the values; ValueError unless it is between 0 and 1."""
    if not 0 < share < 1:
        raise ValueError(f"share is {share}; expected between 0 and 1")
    low, high = np.quantile(values, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)
