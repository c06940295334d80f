"""Objects: the connected components of a class in the labels, and how well each of them was found.

An object is a component of 8 neighbours of one class in the labels. Class 0, the background, has none. It is scored against
the predicted components of its class that share a pixel with it. Of such a component, pixels of other objects of the class
are left out, for what was said of one object is no fault of its neighbour's. Its pixels beyond all of them, the spill,
are divided among the objects that it covers, in proportion to the pixels that it shares with each: so each pixel of
spill counts once, and the sliver that a void outline cuts off a large object does not answer for all of that object's.

Predicted components are those of the whole prediction, so void between an object and what spills beyond it does not hide
the spill; void pixels themselves never count.
"""

from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64, Integer

from scaleseg.errors import UserError
from scaleseg.geometry import IGNORE

__all__ = ["Found", "find_objects", "scipy_part"]


class Found(NamedTuple):
    """The objects of one image, and the predicted components that touch none."""

    ids: Integer[np.ndarray, "H W"]
    """0 where no object is, else the object's number from 1 on."""
    classes: Int64[np.ndarray, " objects"]
    pixels: Int64[np.ndarray, " objects"]
    hits: Int64[np.ndarray, " objects"]
    """Pixels of the object that were given its class."""
    unions: Float64[np.ndarray, " objects"]
    """Its pixels and its part of the spill; IoU is hits / unions."""
    alarm_classes: Int64[np.ndarray, " alarms"]
    """Of predicted components that share no pixel with any object of their class."""
    alarm_pixels: Int64[np.ndarray, " alarms"]
    """Their pixels that are not void; those of void alone are left out."""


def find_objects(labels: Integer[np.ndarray, "H W"], predicted: Integer[np.ndarray, "H W"]) -> Found:
    """Every object of an image, in the order of classes; UserError where SciPy is not installed."""
    ids, classes = _components(labels)
    said, said_classes = _components(predicted)
    valid = labels != IGNORE
    ids_here, said_here = ids[valid], said[valid]
    pixels = np.bincount(ids_here, minlength=len(classes) + 1)[1:]
    said_pixels = np.bincount(said_here, minlength=len(said_classes) + 1)[1:]
    shared = _shared(ids_here, said_here, classes, said_classes)
    hits, covered = shared.sum(axis=1), shared.sum(axis=0)
    spill = (said_pixels - covered) / np.maximum(covered, 1)  # for each pixel that is covered
    alarm = (covered == 0) & (said_pixels > 0)
    return Found(ids, classes, pixels, hits, pixels + shared @ spill, said_classes[alarm], said_pixels[alarm])


def scipy_part(name: str) -> Any:
    """A part of SciPy, which is an extra; UserError where it is not installed."""
    try:
        return import_module(f"scipy.{name}")
    except ImportError:
        raise UserError(
            "objects are found with scipy, which is not installed; run: pip install 'scaleseg[report]'"
        ) from None


def _components(
    ids: Integer[np.ndarray, "H W"],
) -> tuple[Integer[np.ndarray, "H W"], Int64[np.ndarray, " components"]]:
    """Numbers from 1 on, and the class of each; classes from 1 on, void has none."""
    ndimage = scipy_part("ndimage")
    numbers = np.zeros(ids.shape, np.int32)
    classes: list[int] = []
    for class_id in np.flatnonzero(np.bincount(ids.ravel(), minlength=IGNORE + 1)[:IGNORE]):
        if class_id == 0:
            continue
        mask = ids == class_id
        part, count = ndimage.label(mask, np.ones((3, 3), bool))
        numbers[mask] = part[mask] + len(classes)
        classes += [int(class_id)] * count
    return numbers, np.array(classes, np.int64)


def _shared(
    ids: Integer[np.ndarray, " pixels"],
    said: Integer[np.ndarray, " pixels"],
    classes: Int64[np.ndarray, " objects"],
    said_classes: Int64[np.ndarray, " components"],
) -> Any:
    """How many pixels each object shares with each predicted component of its class: sparse, (objects, components)."""
    here = (ids > 0) & (said > 0)
    rows, columns = ids[here] - 1, said[here] - 1
    same = classes[rows] == said_classes[columns]
    counted = (np.ones(int(same.sum()), np.int64), (rows[same], columns[same]))
    return scipy_part("sparse").coo_array(counted, (len(classes), len(said_classes))).tocsr()
