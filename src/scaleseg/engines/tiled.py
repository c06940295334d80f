"""Large images in tiles: an engine around an engine, whose memory depends on the tile and hardly on the image.

Tiles are windows of the padded image whose borders lie on multiples of `Grid.step`: every scale then has in a tile exactly
the cells that it has in the whole image. A network sees zeros beyond a tile's border, so what it says near one is not what
it would say of the whole: neighbours overlap by two halos and a step, the outer halo of each counts nothing, and between the
halos the weights go from one tile to the other in a straight line. They sum to one, so what does not depend on the tile
comes out as it is. Everything is blended on the score grids, which are small, and nothing at the image's size but edges.
"""

import ctypes
from collections.abc import Iterator, Sequence
from fractions import Fraction
from math import ceil
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from scaleseg.engines.contract import Engine
from scaleseg.geometry import Grid, resize
from scaleseg.model import Prediction, ScaleAware

__all__ = ["HALO", "Tiled", "default_halo", "smallest_side"]

HALO = 256
"""Pixels, as the coarsest scale sees them, that a tile's border spoils: docs/decisions.md has what was measured."""


class Tiled:
    """Runs `engine`, made for `model`, on windows of at most `side` x `side` pixels, and blends what it says of them.

    `halo` is how many pixels next to a border inside the image do not count; without it, what was measured to do. An image
    that fits into one window goes to the engine as it is. ValueError if the windows are too small for their halos.
    """

    def __init__(self, engine: Engine, model: ScaleAware, side: int, halo: int | None = None) -> None:
        self.engine = engine
        self.model = model
        self.side = side
        self.halo = default_halo(model) if halo is None else halo
        self.name = f"{engine.name}, tiles of {side}"
        self.precision = engine.precision
        grid = model.grid((1, 1))
        if side < _smallest(grid, self.halo):
            raise ValueError(
                f"side is {side}; with a halo of {self.halo} expected at least {_smallest(grid, self.halo)}"
            )

    @torch.inference_mode()
    def __call__(self, image: UInt8[Tensor, "3 H W"]) -> Prediction:
        grid = self.model.grid((image.shape[1], image.shape[2]))
        rows, columns = (_axis(grid, side, self.side, self.halo) for side in grid.padded)
        if len(rows.starts) == len(columns.starts) == 1:
            return self.engine(image)
        blend = _Blend(grid, rows, columns)
        for row, top in enumerate(rows.pixels()):
            for column, left in enumerate(columns.pixels()):
                blend.add(self.engine(image[:, top, left].contiguous()), row, column)
                _give_back()
        return blend.prediction()


def default_halo(model: ScaleAware) -> int:
    """Pixels next to a tile's border in which `model` is not to be believed."""
    return ceil(HALO / min(model.scales))


def smallest_side(model: ScaleAware) -> int:
    """The side of the smallest tiles in which `model` can work."""
    return _smallest(model.grid((1, 1)), default_halo(model))


def _give_back() -> None:
    """Have glibc return what tensors left free between others, up to hundreds of MB; nothing without glibc."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        return


class _Axis(NamedTuple):
    """The windows along one axis; all lengths but `step` in steps."""

    starts: tuple[int, ...]
    length: int
    total: int
    halo: int
    step: int
    one: int
    """Pixels and cells that a grid has beyond its steps: 1 where corners are aligned."""

    def pixels(self) -> Iterator[slice]:
        """Each window's pixels in the padded image; the image may end before the last window does."""
        for start in self.starts:
            yield slice(start * self.step, (start + self.length) * self.step + self.one)

    def shares(self, density: int) -> Float[Tensor, "windows cells"]:
        """What each window counts at each cell of a map with `density` cells a step."""
        where = (torch.arange(self.total * density + self.one, dtype=torch.float64) + (1 - self.one) / 2) / density
        raw = torch.ones(len(self.starts), len(where), dtype=torch.float64)
        for index, (left, right) in enumerate(zip(self.starts, self.starts[1:], strict=False)):
            low, high = right + self.halo, left + self.length - self.halo
            rising = ((where - low) / (high - low)).clamp(0, 1)
            raw[index] = torch.minimum(raw[index], 1 - rising)
            raw[index + 1] = torch.minimum(raw[index + 1], rising)
        for index, start in enumerate(self.starts):
            raw[index, (where < start) | (where > start + self.length)] = 0
        return (raw / raw.sum(dim=0)).float()


class _Canvas:
    """A map of the whole padded image, to which windows are added."""

    def __init__(self, rows: _Axis, columns: _Axis, density: int) -> None:
        self.axes = rows, columns
        self.shares = rows.shares(density), columns.shares(density)
        self.density = density
        self.maps = torch.empty(0)

    def add(self, part: Tensor, row: int, column: int) -> None:
        """Add what window (row, column) says; its map may end before the window does."""
        rows, columns = (share.to(part.device) for share in self.shares)
        if not self.maps.numel():
            self.maps = part.new_zeros(*part.shape[:-2], rows.shape[1], columns.shape[1])
        top, left = (axis.starts[index] * self.density for axis, index in zip(self.axes, (row, column), strict=True))
        down, right = (slice(start, start + length) for start, length in zip((top, left), part.shape[-2:], strict=True))
        self.maps[..., down, right] += part * (rows[row, down, None] * columns[column, right])


class _Blend:
    """The whole image's prediction in the making.

    A scale of which a step has no whole number of cells (such as 0.6) has other cells in a tile than in the whole; its maps go
    through the grid of scale 1.
    """

    def __init__(self, grid: Grid, rows: _Axis, columns: _Axis) -> None:
        self.grid = grid
        finest = max(grid.scales)
        self.scales = (finest, finest, *grid.scales)
        self.canvases = [_Canvas(rows, columns, _density(grid, scale) or _density(grid, 1.0)) for scale in self.scales]
        self.edges = _Canvas(rows, columns, grid.step)
        self.weights: Sequence[int] = ()

    def add(self, said: Prediction, row: int, column: int) -> None:
        maps = (said.scores, said.scale_weights.flatten(1, 2), *said.per_scale)
        self.weights = said.scale_weights.shape[1:3]
        for canvas, scale, part in zip(self.canvases, self.scales, maps, strict=True):
            canvas.add(self._on(part, said.grid, scale), row, column)
        if said.edges is not None:
            self.edges.add(said.edges, row, column)

    def prediction(self) -> Prediction:
        scores, weights, *per_scale = (
            resize(canvas.maps, self.grid.score_size(scale), align_corners=self.grid.align_corners)
            for canvas, scale in zip(self.canvases, self.scales, strict=True)
        )
        rows, columns = self.grid.image
        edges = self.edges.maps[:, :rows, :columns] if self.edges.maps.numel() else None
        return Prediction(scores, _unflat(weights, self.weights), tuple(per_scale), self.grid, edges)

    def _on(self, part: Tensor, grid: Grid, scale: float) -> Tensor:
        """A window's map on a grid that has the cells of the whole image."""
        size = part.shape[-2:] if _density(grid, scale) else grid.score_size(1.0)
        return resize(part, (size[0], size[1]), align_corners=grid.align_corners)


def _unflat(maps: Tensor, sizes: Sequence[int]) -> Tensor:
    """(1, scales x classes, h, w) as (1, scales, classes, h, w)."""
    return maps.reshape(1, *sizes, *maps.shape[-2:])


def _axis(grid: Grid, padded: int, side: int, halo: int) -> _Axis:
    """Windows of one length, spread evenly; one window where the side holds all of it."""
    one = int(grid.align_corners)
    total, length = (padded - one) // grid.step, (side - one) // grid.step
    spoilt = ceil(halo / grid.step)
    if total <= length:
        return _Axis((0,), total, total, spoilt, grid.step, one)
    count = 1 + ceil((total - length) / (length - 2 * spoilt - 1))
    starts = tuple(index * (total - length) // (count - 1) for index in range(count))
    return _Axis(starts, length, total, spoilt, grid.step, one)


def _density(grid: Grid, scale: float) -> int:
    """Cells of a scale in a step; 0 if that is no whole number."""
    cells = Fraction(scale).limit_denominator(1000) * grid.step / grid.output_stride
    return int(cells) if cells.denominator == 1 else 0


def _smallest(grid: Grid, halo: int) -> int:
    """Twice the halo, a step to blend in and a step to move on by."""
    return (2 * ceil(halo / grid.step) + 2) * grid.step + int(grid.align_corners)
