"""Synthetic scenes, drawn on the fly: discs, squares and triangles from 10 to 160 pixels, told apart only at the right scale.

A scene is noisy ground with shapes of all sizes, small ones also upon large ones. One rule labels it: *the outermost
shape owns every pixel inside it*; what lies upon a shape is only a mark on it. Why that needs scale:

- A small triangle is a `triangle` on open ground and a piece of `disc` upon a large disc, in the very same pixels as
  far as a network with a limited field sees: the large disc's edge is what tells, and that is far away.
- Fills are the ground's colours, equally likely, and marks are as dense on shapes as off them, so neither colour nor
  texture tells inside from outside; and an edge's inside is told only by where it closes.
- A large shape at scale 0.25 looks like a small one at scale 1, so one shared network can know both, at two scales that
  then contradict each other: fine says `triangle`, coarse says `disc`. Somebody has to say whom to believe.

`data.train` and `data.val` are how many scenes there are. A scene depends on (split, index) alone, and only on
arithmetic that is exact everywhere (no sine, no power): the same pixels on every machine.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from scaleseg.config import DataConfig
from scaleseg.errors import UserError

__all__ = ["CLASSES", "SIDE", "SIZES", "Shape", "Shapes", "draw", "open_split", "plan"]

CLASSES = ("background", "disc", "square", "triangle")
SIDE = 257
"""Rows and columns of a scene: 32k+1, so that no scale pads."""
SIZES = (10.0, 160.0)
"""Smallest and largest shape."""
COUNTS = {"train": 4000, "val": 200}

TRIED = ((80.0, 2), (40.0, 3), (20.0, 10), (10.0, 40))
"""For each octave of sizes, its lower end and how many shapes are tried; those that would straddle an edge are not drawn."""
LEVELS, SHIFT, NOISE = 160, 50, 32
"""Colours of a channel (they wrap around), least contrast with what is beneath, and the noise's amplitude."""


class Shape(NamedTuple):
    """One shape; `size` is the diameter of the disc of equal area, so no class is larger than another."""

    kind: int
    """Class id."""
    size: float
    row: float
    column: float
    turn: tuple[float, float]
    """Cosine and sine of its rotation."""
    shift: tuple[int, int, int]
    """What is added to the colour beneath, channel by channel."""


class Shapes:
    """The scenes of one split."""

    classes = CLASSES

    def __init__(self, split: str, count: int) -> None:
        self.split, self.count = split, count
        self.names = [f"{split}-{index:06}" for index in range(count)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "3 H W"], Int64[Tensor, "H W"]]:
        if not 0 <= index < self.count:
            raise IndexError(f"scene {index} of {self.count}")
        generator = np.random.default_rng([("train", "val").index(self.split), index])
        image, labels = draw(plan(generator), generator)
        return torch.from_numpy(image), torch.from_numpy(labels)


def open_split(data: DataConfig, split: str) -> Shapes:
    """As many scenes as `data.train` or `data.val` says, else 4,000 and 200."""
    count = getattr(data, split)
    if count is None:
        count = COUNTS[split]
    if isinstance(count, bool) or not str(count).isdecimal() or int(count) < 1:
        raise UserError(f"data.{split} is {count!r}; shapes are drawn, so give how many scenes: 1 or more")
    return Shapes(split, int(count))


def plan(generator: np.random.Generator) -> list[Shape]:
    """The shapes that a scene tries to place, the largest first."""
    shapes = []
    for smallest, tried in TRIED:
        for size in sorted(smallest * (1 + generator.random(tried)), reverse=True):
            row, column, slope = generator.random(3)
            margin = REACH * size / 2
            # Slopes of a half angle give every rotation by arithmetic alone: exact on every machine.
            half = 2 * slope - 1
            turn = ((1 - half * half) / (1 + half * half), 2 * half / (1 + half * half))
            place = (margin + value * (SIDE - 1 - 2 * margin) for value in (row, column))
            shift = (int(value) for value in generator.integers(SHIFT, LEVELS - SHIFT, 3, endpoint=True))
            shapes.append(Shape(int(generator.integers(1, len(CLASSES))), float(size), *place, turn, tuple(shift)))
    return shapes


def draw(
    shapes: Sequence[Shape], generator: np.random.Generator
) -> tuple[UInt8[np.ndarray, "3 H W"], Int64[np.ndarray, "H W"]]:
    """A scene of these shapes, in this order; one that would straddle another's edge is left out."""
    labels = np.zeros((SIDE, SIDE), np.int64)
    region = np.zeros((SIDE, SIDE), np.int64)
    colours = [generator.integers(0, LEVELS, 3)]
    for shape in shapes:
        window = _window(shape)
        beneath = region[window].flat[0]
        if (region[window] != beneath).any():
            continue
        inside = _inside(shape, window)
        colours.append((colours[beneath] + np.array(shape.shift)) % LEVELS)
        region[window][inside] = len(colours) - 1
        if not labels[window].flat[0]:
            labels[window][inside] = shape.kind
    noise = generator.integers(-NOISE, NOISE, (3, SIDE, SIDE), dtype=np.int16, endpoint=True)
    offset = (256 - LEVELS) // 2
    painted = np.array(colours, np.int16).T[:, region] + offset + noise
    return painted.astype(np.uint8), labels


REACH = 1.5552
"""A triangle's corners lie on a circle this many times as wide as the disc of equal area."""


def _window(shape: Shape) -> tuple[slice, slice]:
    """Rows and columns that hold the shape, whichever way it is turned, and a pixel around it."""
    reach = REACH * shape.size / 2 + 1
    rows, columns = (
        slice(max(0, int(centre - reach)), min(SIDE, int(centre + reach) + 1)) for centre in (shape.row, shape.column)
    )
    return rows, columns


def _inside(shape: Shape, window: tuple[slice, slice]) -> Bool[np.ndarray, "_ _"]:
    """Which pixels of the window the shape covers."""
    rows = np.arange(window[0].start, window[0].stop)[:, None] - shape.row
    columns = np.arange(window[1].start, window[1].stop)[None] - shape.column
    cosine, sine = shape.turn
    along, across = cosine * columns + sine * rows, cosine * rows - sine * columns
    name, half = CLASSES[shape.kind], shape.size / 2
    if name == "disc":
        return rows * rows + columns * columns <= half * half
    if name == "square":
        return np.maximum(abs(along), abs(across)) <= 0.8862 * half
    # Three half-planes at the radius of the inscribed circle, which is half of the outer one's.
    return np.maximum(across, 0.8660254 * abs(along) - across / 2) <= REACH / 2 * half
