"""Synthetic scenes, drawn on the fly: discs from 10 to 160 pixels whose class shows only at the disc's own scale.

An `eye` has a dark core in a bright ring, a `target` a bright core in a dark ring, a `plain` disc is bright or dark all over.
Core and ring have the same area, so each class is half bright and half dark, in the same two levels with the same noise:
a bright pixel may be any of the three, and so may its neighbourhood. What tells is the disc as a whole:

- a network that sees 31 pixels knows small discs at scale 1, but inside a large one it sees one flat level;
- at scale 0.25 it sees large discs whole, but a small one is two pixels wide.

So one shared network needs several scales and something to say, at each pixel, which of them to believe.

`data.train` and `data.val` are how many scenes there are. A scene depends on (split, index) alone.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from scaleseg.config import DataConfig
from scaleseg.errors import UserError

__all__ = ["CLASSES", "SIDE", "SIZES", "Disc", "Shapes", "draw", "open_split", "plan"]

CLASSES = ("background", "eye", "target", "plain")
SIDE = 257
"""Rows and columns of a scene: 32k+1, so that no scale pads."""
SIZES = (10.0, 160.0)
"""Smallest and largest diameter."""

COUNTS = {"train": 4000, "val": 200}
MOST = 10_000_000
"""Scenes that can be asked for: each has a name in memory."""
TRIED = ((80.0, 3), (40.0, 4), (20.0, 8), (10.0, 24))
"""For each octave of diameters, its lower end and how many discs are tried; one that would touch another is left out."""
GROUND, BRIGHT, DARK, NOISE = 128, 190, 66, 24


class Disc(NamedTuple):
    """One disc; `row` and `column` are its centre, in pixels."""

    kind: int
    """Class id."""
    diameter: float
    row: float
    column: float
    core: int
    ring: int
    """Grey levels."""


class Shapes:
    """The scenes of one split."""

    classes = CLASSES

    def __init__(self, split: str, count: int) -> None:
        self.split = split
        self.names = [f"{split}-{index:06}" for index in range(count)]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "3 H W"], Int64[Tensor, "H W"]]:
        if not 0 <= index < len(self):
            raise IndexError(f"scene {index} of {len(self)}")
        generator = np.random.default_rng([("train", "val").index(self.split), index])
        image, labels = draw(plan(generator), generator)
        return torch.from_numpy(image), torch.from_numpy(labels)


def open_split(data: DataConfig, split: str) -> Shapes:
    """As many scenes as `data.train` or `data.val` says, else 4,000 and 200."""
    count = getattr(data, split)
    if count is None:
        count = COUNTS[split]
    given = "" if isinstance(count, bool) else str(count)
    if not given.isdecimal() or len(given) > len(str(MOST)) or not 1 <= int(given) <= MOST:
        raise UserError(f"data.{split} is {count!r}; shapes are drawn, so give how many scenes: from 1 to {MOST:,}")
    return Shapes(split, int(given))


def plan(generator: np.random.Generator) -> list[Disc]:
    """A scene's discs, the largest first, none touching another or the border."""
    discs: list[Disc] = []
    for smallest, tried in TRIED:
        for diameter in smallest * (1 + generator.random(tried)):
            row, column = diameter / 2 + generator.random(2) * (SIDE - 1 - diameter)
            kind = int(generator.integers(1, len(CLASSES)))
            bright_core = CLASSES[kind] == "target" or (CLASSES[kind] == "plain" and generator.random() < 0.5)
            core = BRIGHT if bright_core else DARK
            ring = core if CLASSES[kind] == "plain" else BRIGHT + DARK - core
            disc = Disc(kind, float(diameter), float(row), float(column), core, ring)
            if not any(_touches(disc, other) for other in discs):
                discs.append(disc)
    return discs


def draw(
    discs: list[Disc], generator: np.random.Generator
) -> tuple[UInt8[np.ndarray, "3 side side"], Int64[np.ndarray, "side side"]]:
    """The scene and its labels; every pixel has noise of the same kind."""
    labels = np.zeros((SIDE, SIDE), np.int64)
    levels = np.full((SIDE, SIDE), GROUND, np.int16)
    rows, columns = np.arange(SIDE)[:, None], np.arange(SIDE)[None]
    for disc in discs:
        squared = (rows - disc.row) ** 2 + (columns - disc.column) ** 2
        inside = squared <= (disc.diameter / 2) ** 2
        labels[inside] = disc.kind
        levels[inside] = disc.ring
        levels[squared <= (disc.diameter / 2) ** 2 / 2] = disc.core
    noise = generator.integers(-NOISE, NOISE, (3, SIDE, SIDE), dtype=np.int16, endpoint=True)
    return (levels + noise).astype(np.uint8), labels


def _touches(disc: Disc, other: Disc) -> bool:
    """Whether less than two pixels lie between them."""
    apart = (disc.row - other.row) ** 2 + (disc.column - other.column) ** 2
    return apart < ((disc.diameter + other.diameter) / 2 + 2) ** 2
