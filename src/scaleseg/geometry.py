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
        rows, columns = (max(1, ceil((side - one) / self.step)) * self.step + one for side in self.image)
        return rows, columns

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
        rows, columns = self.image
        return resize(maps, self.padded, align_corners=self.align_corners)[..., :rows, :columns]

    def labels_at(self, labels: Int[Tensor, "n H W"], size: Size) -> Int[Tensor, "n h w"]:
        """The image's labels on a score grid of the padded image; padding is void."""
        if tuple(labels.shape[-2:]) != self.image:
            raise ValueError(f"labels are {tuple(labels.shape[-2:])}, their image is {self.image}")
        rows, columns = (padded - side for padded, side in zip(self.padded, self.image, strict=True))
        padded = F.pad(labels, (0, columns, 0, rows), value=IGNORE)
        return resize_labels(padded, size, align_corners=self.align_corners)

    def _cells(self, scale: float) -> tuple[int, int]:
        one = 1 if self.align_corners else 0
        # floor(x + 1/2): Python's round() goes to even, which would shrink 2.5 and grow 3.5.
        rows, columns = (max(1, int((side - one) * scale / self.output_stride + 0.5)) for side in self.padded)
        return rows, columns


def resize(
    maps: Float[Tensor, "n channels _ _"], size: Size, *, align_corners: bool
) -> Float[Tensor, "n channels h w"]:
    """Bilinear, two taps an axis, no antialiasing: at 321 -> 161, aligned, it is exactly x[::2, ::2] (as in Caffe)."""
    if tuple(maps.shape[-2:]) == size:
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
    """Normalised images grown at the bottom and the right to `size` with zeros, the mean colour."""
    rows, columns = images.shape[-2:]
    return F.pad(images, (0, size[1] - columns, 0, size[0] - rows))


def _nearest(source: int, target: int, align_corners: bool) -> Tensor:
    """Index of the source pixel nearest to each target pixel, in whole numbers so that no rounding error decides."""
    index = torch.arange(target)
    if align_corners:
        steps = max(target - 1, 1)
        return (2 * index * (source - 1) + steps) // (2 * steps)
    return (2 * index + 1) * source // (2 * target)
