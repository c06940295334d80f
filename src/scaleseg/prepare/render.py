"""COCO's polygons and run lengths as one mask of class ids, checked before C code sees them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from scaleseg.datasets.coco import CATEGORIES
from scaleseg.errors import UserError
from scaleseg.geometry import IGNORE

__all__ = ["object_mask", "render"]

PLACES = {category: place for place, category in enumerate(CATEGORIES, 1)}
"""Class id of each category id: 1 to 80, in their order."""
LONGEST = 1_000_000
"""Pixels that the sides of one object may pass; round a photograph of COCO's there are 2,560."""


def render(annotations: Sequence[Mapping[str, Any]], size: tuple[int, int], label: str) -> UInt8[np.ndarray, "H W"]:
    """Class ids, smaller objects on top; 255 where a crowd is and no single object; UserError names the photograph."""
    labels, crowd = np.zeros(size, np.uint8), np.zeros(size, bool)
    areas = np.full(size, size[0] * size[1])
    try:
        for annotation in annotations:
            mask = object_mask(annotation["segmentation"], size)
            if annotation["iscrowd"]:
                crowd |= mask
                continue
            area = int(mask.sum())
            mask &= area <= areas  # of two as large, the later one is on top
            labels[mask], areas[mask] = PLACES[annotation["category_id"]], area
    except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        raise UserError(
            f"{label} has an object that cannot be drawn ({error}); download COCO's annotations again"
        ) from error
    labels[crowd & (labels == 0)] = IGNORE
    return labels


def object_mask(segmentation: Any, size: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
    """One object: a list of polygons, or a dictionary of run lengths (a list, or COCO's compressed text)."""
    if isinstance(segmentation, Mapping):
        if tuple(segmentation["size"]) != size:
            raise ValueError(f"run lengths of {segmentation['size']!r:.80}, not of {list(size)}")
        counts = segmentation["counts"]
        return _from_runs(_decompressed(counts) if isinstance(counts, str) else counts, size)
    if not isinstance(segmentation, Sequence) or isinstance(segmentation, str):
        raise ValueError(f"{segmentation!r:.80} is neither polygons nor run lengths")
    polygons = [_checked(polygon, size) for polygon in segmentation if len(polygon) >= 6]  # fewer enclose nothing
    return _from_polygons(polygons, size) if polygons else np.zeros(size, bool)


def _from_polygons(polygons: list[list[float]], size: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
    try:
        from pycocotools import mask
    except ImportError as error:
        raise UserError("COCO's polygons need pycocotools; pip install 'scaleseg[data]'") from error
    if sum(map(_length, polygons)) > LONGEST:
        raise ValueError(f"polygons longer than {LONGEST:,} pixels")
    merged = mask.merge(mask.frPyObjects(polygons, *size))
    return _from_runs(_decompressed(merged["counts"].decode()), size)  # its own decode warns with numpy 2


def _checked(polygon: Any, size: tuple[int, int]) -> list[float]:
    """Corners within reach of the photograph."""
    reach = 4 * max(size)
    numbers = [float(value) for value in polygon]
    if len(numbers) % 2 or not all(math.isfinite(value) and -reach <= value <= reach for value in numbers):
        raise ValueError("a polygon with corners far outside, or half a corner")
    return numbers


def _length(corners: list[float]) -> float:
    """Pixels that the sides pass: the C code takes some 80 bytes for each."""
    steps = np.abs(np.diff(np.reshape([*corners, *corners[:2]], (-1, 2)), axis=0))
    return float(steps.max(axis=1).sum())


def _from_runs(counts: Any, size: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
    """Lengths of background and object in turn, down the columns."""
    runs = np.asarray(counts)
    if runs.ndim != 1 or runs.dtype.kind not in "iu" or (runs < 0).any() or sum(runs.tolist()) != size[0] * size[1]:
        raise ValueError("run lengths that do not fill the photograph")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(size, order="F")


def _decompressed(text: str) -> list[int]:
    """COCO's text: 5 bits a character from "0", the lowest first; from the third run on, differences to two runs before."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("compressed run lengths that are damaged")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs
