"""Which photographs a report shows, and what it tells of each."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8

from scaleseg.analysis import ImageScore
from scaleseg.geometry import IGNORE
from scaleseg.images import palette
from scaleseg.report.pictures import Maps, keep
from scaleseg.report.words import photographs
from scaleseg.segmentation import Segmentation

__all__ = ["COUNT", "ClassShare", "Section", "Shares", "Shown", "choose", "random_places", "show"]

COUNT = 10
"""Photographs in a section."""


class ClassShare(NamedTuple):
    """A class that labels or prediction of a photograph have."""

    name: str
    colour: str
    """For a style sheet; class 0 has none where it is left as it is."""
    share: float
    """Of the photograph, as predicted."""
    labelled: float | None
    """Of the photograph, by the labels; None without labels."""
    weights: tuple[float, ...]
    """Mean weight of each scale where it is predicted; empty where it is not."""


class Shares(NamedTuple):
    """What an error map shows, as shares of the photograph."""

    right: float
    wrong: float
    void: float


@dataclass(frozen=True)
class Shown:
    """One photograph, its maps at the page's largest size, and its numbers."""

    name: str
    note: str
    size: tuple[int, int]
    """(width, height)."""
    maps: Maps | None
    """None where only the numbers are needed."""
    classes: tuple[ClassShare, ...]
    means: tuple[float, ...]
    """Mean weight of each scale."""
    division: float
    """As `ImageScore.division`."""
    mIoU: float | None = None
    shares: Shares | None = None


class Section(NamedTuple):
    """A part of the gallery; names refer to what was chosen."""

    key: str
    title: str
    sentence: str
    indices: tuple[int, ...]


def choose(images: Sequence[ImageScore], *, several: bool, count: int = COUNT, seed: int = 0) -> list[Section]:
    """Worst, best, random and, of a model of `several` scales, most divided; of few photographs none is worst and best."""
    measured = sorted((image for image in images if image.mIoU is not None), key=lambda image: image.mIoU or 0.0)
    half = len(measured) // 2
    worst, best = measured[: min(count, half)], measured[::-1][: min(count, len(measured) - half)]
    drawn = [images[place] for place in random_places(len(images), count, seed)]
    divided = sorted(images, key=lambda image: -image.division)[:count] if several else []
    parts = [
        Section("worst", "Worst", "The lowest mIoU.", _indices(worst)),
        Section("best", "Best", "The highest mIoU.", _indices(best)),
        Section("random", "At random", f"Drawn from {photographs(len(images))} (seed {seed}).", _indices(drawn)),
        Section("divided", "Most divided", DIVIDED, _indices(image for image in divided if image.division > 0)),
    ]
    return [part for part in parts if part.indices]


DIVIDED = "Here the parts of one photograph believe different scales most."


def random_places(total: int, count: int, seed: int) -> list[int]:
    """At most `count` different places below `total`, in order."""
    drawn = np.random.default_rng(seed).choice(total, min(count, total), replace=False)
    return sorted(drawn.tolist())


def _indices(images: Iterable[ImageScore]) -> tuple[int, ...]:
    return tuple(image.index for image in images)


def show(
    name: str,
    result: Segmentation,
    *,
    labels: UInt8[np.ndarray, "H W"] | None = None,
    note: str = "",
    score: float | None = None,
) -> Shown:
    """What the page needs of one photograph; `score` is its mIoU."""
    height, width = result.labels.shape
    means = result.scale_weights.mean(dim=(1, 2))
    apart = result.scale_weights - means[:, None, None]
    return Shown(
        name,
        note,
        (width, height),
        keep(result, labels),
        _classes(result, labels),
        tuple(means.tolist()),
        float(apart.abs_().sum(dim=0).mean() / 2),
        score,
        None if labels is None else _shares(result.labels.numpy(), labels),
    )


def _shares(predicted: UInt8[np.ndarray, "H W"], labels: UInt8[np.ndarray, "_ _"]) -> Shares:
    void = labels == IGNORE
    right = (predicted == labels) & ~void
    return Shares(float(right.mean()), float(1 - right.mean() - void.mean()), float(void.mean()))


def _classes(result: Segmentation, labels: UInt8[np.ndarray, "H W"] | None) -> tuple[ClassShare, ...]:
    """The classes that occur, largest first."""
    colours, rows = palette(len(result.classes)), []
    total, count = result.labels.numel(), len(result.classes)
    true = None if labels is None else np.bincount(labels.ravel(), minlength=256)[:count] / total
    predicted = torch.bincount(result.labels.flatten().long(), minlength=count)
    for index, name in enumerate(result.classes):
        pixels, labelled = int(predicted[index]), None if true is None else float(true[index])
        if not pixels and not labelled:
            continue
        there = result.labels == index
        weights = tuple(result.scale_weights[:, there].mean(dim=1).tolist()) if pixels else ()
        rows.append(ClassShare(name, _colour(colours, index, labels is not None), pixels / total, labelled, weights))
    return tuple(sorted(rows, key=lambda row: -max(row.share, row.labelled or 0.0)))


def _colour(colours: UInt8[np.ndarray, "256 3"], index: int, flat: bool) -> str:
    """Class 0 has no colour: an overlay leaves it as it is, a flat map has it pale."""
    if index == 0:
        return "rgb(236 236 236)" if flat else "transparent"
    return "rgb({} {} {})".format(*colours[index].tolist())
