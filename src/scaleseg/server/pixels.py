"""What is said of single pixels: probabilities, the weight of each scale, and what each scale alone would have said."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from scaleseg.geometry import Grid
from scaleseg.model import Prediction
from scaleseg.refine import Refine
from scaleseg.segmentation import Segmentation, at_image

__all__ = ["Pixel", "read_pixels"]


@dataclass(frozen=True)
class Pixel:
    """What is said of one pixel."""

    row: int
    column: int
    label: int
    probabilities: Float[Tensor, "classes"]
    weights: Float[Tensor, "scales"]
    """Behind the class chosen here."""
    per_scale: tuple[Float[Tensor, "classes"], ...]
    """Each scale's own probabilities."""


def read_pixels(
    where: Sequence[tuple[int, int]], fused: Prediction, said: Segmentation, refine: Refine | None
) -> tuple[Pixel, ...]:
    """The numbers at (row, column); probabilities are those of `fused`, refined if the labels are."""
    if not where:
        return ()
    refined = None if refine is None else at_image(fused, said.image, refine)
    found = []
    for row, column in where:
        merged = (
            _at(fused.grid, fused.scores, row, column).softmax(dim=0) if refined is None else refined[:, row, column]
        )
        alone = tuple(_at(fused.grid, scores, row, column).softmax(dim=0).cpu() for scores in fused.per_scale)
        label, weights = int(said.labels[row, column]), said.scale_weights[:, row, column]
        found.append(Pixel(row, column, label, merged.cpu(), weights, alone))
    return tuple(found)


def _at(grid: Grid, maps: Float[Tensor, "1 channels _ _"], row: int, column: int) -> Float[Tensor, "channels"]:
    """What `Grid.to_image` says at one pixel: made from the maps' part around it, for the whole may be gigabytes."""
    one = int(grid.align_corners)
    down, across = (_window(at, grid, axis, maps.shape[axis - 2], one) for axis, at in enumerate((row, column)))
    part = replace(grid, image=(down.pixels, across.pixels))
    cut = maps[..., down.cells, across.cells]
    return part.to_image(cut)[0, :, row - down.start, column - across.start]


@dataclass(frozen=True)
class _Window:
    """Some steps of a grid along one axis: an image of its own, with its own whole cells."""

    start: int
    """Its first pixel."""
    pixels: int
    cells: slice


def _window(at: int, grid: Grid, axis: int, cells: int, one: int) -> _Window:
    """The step in which a pixel lies, and one on each side that lends its cells to interpolation; all if cells do not align."""
    steps = (grid.padded[axis] - one) // grid.step
    if (cells - one) % steps:
        return _Window(0, grid.image[axis], slice(None))
    density = (cells - one) // steps
    first = max(0, min(at // grid.step, steps - 1) - 1)
    last = min(steps, first + 3)
    return _Window(first * grid.step, (last - first) * grid.step + one, slice(first * density, last * density + one))
