"""Two deep evaluations of the same photographs: is the second better than the first by more than chance?

The bootstrap is paired: each draw takes the same photographs of both, so what makes one hard for both cancels.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from scaleseg.analysis.contract import FEWEST, Analysis, Estimate
from scaleseg.analysis.document import encode
from scaleseg.analysis.tables import Table, boundary_table, fusion_table, size_table
from scaleseg.errors import UserError
from scaleseg.metrics import interval, mean_ratio, ratio, sums_of_draws

__all__ = ["Comparison", "Difference", "compare", "gain"]


class Difference(NamedTuple):
    """One figure of both."""

    first: float
    second: float
    difference: Estimate
    """Second less first, with its 95 % interval."""
    images: int
    """Photographs that have a part in it."""

    @property
    def is_certain(self) -> bool:
        """Whether it is more than chance: the interval leaves out 0, and `FEWEST` photographs or more stand behind it."""
        return self.images >= FEWEST and (self.difference.low > 0 or self.difference.high < 0)


@dataclass(frozen=True)
class Comparison:
    """What two deep evaluations differ in."""

    images: int
    mIoU: Difference
    boundary_IoU: Difference
    IoU: dict[str, Difference]
    """By class; classes that one of them never met are left out."""
    sizes: tuple[Difference | None, ...]
    """Mean IoU of the objects of each bin of `SIZES`; None for a bin without objects."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        document: dict[str, Any] = encode(self)
        return document

    def sentence(self, first: str, second: str) -> str:
        """The answer, in percent."""
        value, low, high = (100 * figure for figure in self.mIoU.difference)
        between = f"95 % interval {low:+.2f} to {high:+.2f}, {self.images} photographs"
        if not value and not low and not high:
            return f"{first} and {second} are equal in mIoU, in every draw of {self.images} photographs"
        better, worse = (second, first) if value > 0 else (first, second)
        told = f"{second} less {first} is {value:+.2f} points of mIoU ({between})"
        if self.mIoU.is_certain:
            return f"{told}: {better} is better than {worse} by more than chance"
        why = f"fewer than {FEWEST} photographs tell nothing" if self.images < FEWEST else "the interval holds 0"
        return f"{told}: that may be chance, for {why}"


def compare(first: Analysis, second: Analysis) -> Comparison:
    """Second against first; UserError where they are not of the same classes, photographs and labels."""
    _check_classes(first.classes, second.classes)
    second = _in_order_of(first, second)
    _check_labels(first, second)
    both, classes = (first.images, second.images), first.classes
    tables = [
        *(fusion_table(images, "fused", classes) for images in both),
        *(boundary_table(images, classes) for images in both),
        *(size_table(images) for images in both),
    ]
    draws = sums_of_draws(tables)
    of_classes, of_sizes = _each(tables[:2], draws[:2]), _each(tables[4:], draws[4:])
    return Comparison(
        len(first.images),
        _mean(tables[:2], draws[:2]),
        _mean(tables[2:4], draws[2:4]),
        {name: found for name, found in zip(classes, of_classes, strict=True) if found},
        tuple(of_sizes),
    )


def gain(analysis: Analysis, other: str) -> Difference:
    """The mIoU of `fused` against that of another of `Analysis.fusions`: same photographs, same per-scale scores."""
    tables = [fusion_table(analysis.images, name, analysis.classes) for name in (other, "fused")]
    return _mean(tables, sums_of_draws(tables))


def _mean(tables: Sequence[Table], draws: Sequence[Table]) -> Difference:
    before, after = (float(mean_ratio(*(part.sum(axis=0, keepdims=True) for part in table))[0]) for table in tables)
    drawn = [mean_ratio(*one) for one in draws]
    return Difference(before, after, Estimate(after - before, *interval(drawn[1] - drawn[0])), len(tables[0][0]))


def _each(tables: Sequence[Table], draws: Sequence[Table]) -> list[Difference | None]:
    """By column; draws in which one of them has nothing of it are left out."""
    (before, of_before), (after, of_after) = ([part.sum(axis=0) for part in table] for table in tables)
    found: list[Difference | None] = []
    for column in range(len(before)):
        if not of_before[column] or not of_after[column]:
            found.append(None)
            continue
        known = (draws[0][1][:, column] > 0) & (draws[1][1][:, column] > 0)
        shares = [ratio(hits[known, column][None], of[known, column][None])[0] for hits, of in draws]
        values = float(before[column] / of_before[column]), float(after[column] / of_after[column])
        gain = values[1] - values[0]
        between = interval(shares[1] - shares[0]) if np.any(known) else (gain, gain)
        part = np.any([of[:, column] > 0 for _, of in tables], axis=0)
        found.append(Difference(*values, Estimate(gain, *between), int(part.sum())))
    return found


def _check_classes(first: tuple[str, ...], second: tuple[str, ...]) -> None:
    if first == second:
        return
    if sorted(first) == sorted(second):
        raise UserError("both have the same classes, but in another order; give data.classes in the same order to both")
    raise UserError(
        f"the classes differ: {_only(set(first) - set(second), 'first')}, {_only(set(second) - set(first), 'second')}; "
        "compare models that tell the same classes apart"
    )


def _in_order_of(first: Analysis, second: Analysis) -> Analysis:
    """The second with its images in the order of the first's; names that occur twice must stand in the same order."""
    names, others = ([image.name for image in one.images] for one in (first, second))
    if names == others:
        return second
    counted, counted_others = Counter(names), Counter(others)
    if counted != counted_others or len(counted) < len(names):
        raise UserError(
            f"the photographs differ: {_only((counted - counted_others).keys(), 'first')}, "
            f"{_only((counted_others - counted).keys(), 'second')}; measure both on the same data.val"
        )
    place = {name: index for index, name in enumerate(others)}
    return replace(second, images=tuple(second.images[place[name]] for name in names))


def _check_labels(first: Analysis, second: Analysis) -> None:
    """What both count of the labels alone: pixels that are not void, and objects by size."""
    pixels = first.metrics.pixels, second.metrics.pixels
    objects = [
        (one.name, [count for count, _ in one.sizes], [count for count, _ in other.sizes])
        for one, other in zip(first.images, second.images, strict=True)
    ]
    other_labels = [name for name, counts, others in objects if counts != others]
    if pixels[0] != pixels[1] or other_labels:
        where = (
            f"those of {_listed(other_labels)}" if other_labels else f"{pixels[0]:,} and {pixels[1]:,} labelled pixels"
        )
        raise UserError(f"the labels differ: {where}; measure both with the same data.val and data.label_map")


def _only(names: Any, which: str) -> str:
    return f"only the {which} has {_listed(sorted(names))}" if names else f"the {which} has none of its own"


def _listed(names: Sequence[str]) -> str:
    """The first few, so that whatever they are called stays in its place in the sentence."""
    shown = ", ".join(repr(name) for name in names[:FEW])
    return f"{shown} and {len(names) - FEW} others" if len(names) > FEW else shown


FEW = 8
