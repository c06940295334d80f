"""Every resize and rounding rule: where the pixels of an image lie on the score grids of several scales.

Two conventions exist, and a segmenter says which one is its own:

- *align_corners* (the paper and the whole Caffe family): the corner pixels of two grids coincide. Images are padded to
  32k+1, a score grid of output stride 8 has 4k+1 cells, and cell i looks at pixel 8i exactly (321 -> 41, 241 -> 31,
  161 -> 21; 513 -> 65).
- *half-pixel* (modern encoders): the borders of two grids coincide. Images are padded to a multiple of the stride
  for which every scale is a whole number of cells, and cell i covers pixels [stride * i, stride * (i + 1)).

Padding goes to the bottom and the right and is cropped again by `Grid.to_image`, so no caller sees a divisibility rule.
Nobody else calls `F.interpolate`.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, lcm

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

__all__ = ["IGNORE", "Grid", "Size", "pad", "resize", "resize_labels", "resize_photo"]

IGNORE = 255
"""The void label: never trained on, never counted."""

Size = tuple[int, int]
"""(rows, columns)"""


@dataclass(frozen=True)
class Grid:
    """The grids of one image size: its padded size, and each scale's input and score sizes."""

    image: Size
    scales: tuple[float, ...]
    output_stride: int
    align_corners: bool

    @property
    def step(self) -> int:
        """What a padded side grows by: 4 x stride when aligned (32k+1 at stride 8), else what the scales need."""
        if self.align_corners:
            return 4 * self.output_stride
        parts = [Fraction(scale).limit_denominator(1000).denominator for scale in self.scales]
        return self.output_stride * lcm(*[part for part in parts if part <= 4])

    @property
    def padded(self) -> Size:
        """The smallest usable size that holds the image."""
        one = 1 if self.align_corners else 0
        rows, columns = (steps * self.step + one for steps in self._steps())
        return rows, columns

    @property
    def smallest(self) -> int:
        """The smallest side at which every scale's score grid has two cells of its own accord: where exports begin.

        PyTorch's exporter takes no size to be open that may be 0 or 1.
        """
        steps_to_cells = Fraction(self.step, self.output_stride) * Fraction(min(self.scales)).limit_denominator(1000)
        cells = 1 if self.align_corners else 2
        steps = max(1, ceil((cells - Fraction(1, 2)) / steps_to_cells))
        return (steps - 1) * self.step + 2

    def input_size(self, scale: float) -> Size:
        """What the segmenter sees at `scale`: exact where the scale allows it, else the nearest usable size."""
        one = 1 if self.align_corners else 0
        rows, columns = (cells * self.output_stride + one for cells in self._cells(scale))
        return rows, columns

    def score_size(self, scale: float) -> Size:
        """The segmenter's own score grid at `scale`."""
        one = 1 if self.align_corners else 0
        rows, columns = (cells + one for cells in self._cells(scale))
        return rows, columns

    @property
    def fused(self) -> Size:
        """The score grid on which scales are merged: the finest scale's (paper, section 3.2)."""
        return self.score_size(max(self.scales))

    def to_image(self, maps: Float[Tensor, "n channels _ _"]) -> Float[Tensor, "n channels H W"]:
        """Score maps of the padded image, on any grid, as maps of the image itself."""
        whole = resize(maps, self.padded, align_corners=self.align_corners)
        if torch.compiler.is_compiling():  # a slice would ask whether there is anything to cut off
            return pad(whole, self.image)
        rows, columns = self.image
        return whole[..., :rows, :columns]

    def labels_at(self, labels: Int[Tensor, "n H W"], size: Size) -> Int[Tensor, "n h w"]:
        """The image's labels on a score grid of the padded image; padding is void."""
        if tuple(labels.shape[-2:]) != self.image:
            raise ValueError(f"labels are {tuple(labels.shape[-2:])}, their image is {self.image}")
        rows, columns = (padded - side for padded, side in zip(self.padded, self.image, strict=True))
        padded = F.pad(labels, (0, columns, 0, rows), value=IGNORE)
        return resize_labels(padded, size, align_corners=self.align_corners)

    def _steps(self) -> Size:
        one = 1 if self.align_corners else 0
        rows, columns = (_at_least_one((side - one + self.step - 1) // self.step) for side in self.image)
        return rows, columns

    def _cells(self, scale: float) -> Size:
        rows, columns = (_at_least_one(self._cells_along(steps, scale)) for steps in self._steps())
        return rows, columns

    def _cells_along(self, steps: int, scale: float) -> int:
        """How many cells `steps` become at `scale`, to the nearest whole number."""
        if not isinstance(steps, torch.SymInt):
            # floor(x + 1/2): Python's round() goes to even, which would shrink 2.5 and grow 3.5.
            return int(steps * self.step * scale / self.output_stride + 0.5)
        cells = Fraction(self.step, self.output_stride) * Fraction(scale).limit_denominator(1000)
        if cells.denominator == 1:  # no rounding: what is exported stays as simple as it is
            return steps * cells.numerator
        return (2 * steps * cells.numerator + cells.denominator) // (2 * cells.denominator)


def _at_least_one(count: int) -> int:
    """Of a size that stands for many while a model is exported, the exporter sees to it by the smallest size it takes."""
    return count if isinstance(count, torch.SymInt) else max(1, count)


def resize(
    maps: Float[Tensor, "n channels _ _"], size: Size, *, align_corners: bool
) -> Float[Tensor, "n channels h w"]:
    """Bilinear, two taps an axis, no antialiasing: at 321 -> 161, aligned, it is exactly x[::2, ::2] (as in Caffe)."""
    if _is_size(maps, size):
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=align_corners)


def resize_labels(labels: Int[Tensor, "n _ _"], size: Size, *, align_corners: bool) -> Int[Tensor, "n h w"]:
    """Labels on another grid, by nearest pixel: names are never blended."""
    rows = _nearest(labels.shape[-2], size[0], align_corners).to(labels.device)
    columns = _nearest(labels.shape[-1], size[1], align_corners).to(labels.device)
    return labels[:, rows[:, None], columns]


def resize_photo(image: UInt8[Tensor, "3 _ _"], size: Size) -> UInt8[Tensor, "3 h w"]:
    """A photograph at another size (augmentation, previews): bilinear, half-pixel, antialiased when it shrinks."""
    if tuple(image.shape[-2:]) == size:
        return image
    return F.interpolate(image[None], size=size, mode="bilinear", align_corners=False, antialias=True)[0]


def pad(images: Float[Tensor, "n channels _ _"], size: Size) -> Float[Tensor, "n channels H W"]:
    """Normalised images grown at the bottom and the right to `size` with zeros, the mean colour; or cut there."""
    rows, columns = images.shape[-2:]
    return F.pad(images, (0, size[1] - columns, 0, size[0] - rows))


def _is_size(maps: Tensor, size: Size) -> bool:
    """Whether maps have this size; while a model is exported, whether they have it for images of every size."""
    sides = zip(maps.shape[-2:], size, strict=True)
    if torch.compiler.is_compiling():  # an ordinary comparison would fix the size of what is exported
        from torch.fx.experimental.symbolic_shapes import statically_known_true  # takes a second

        return all(statically_known_true(side == wished) for side, wished in sides)
    return all(side == wished for side, wished in sides)


def _nearest(source: int, target: int, align_corners: bool) -> Tensor:
    """Index of the source pixel nearest to each target pixel, in whole numbers so that no rounding error decides."""
    index = torch.arange(target)
    if align_corners:
        steps = max(target - 1, 1)
        return (2 * index * (source - 1) + steps) // (2 * steps)
    return (2 * index + 1) * source // (2 * target)
