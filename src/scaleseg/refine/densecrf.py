"""The fully connected CRF behind DeepLab's sharp edges (Krähenbühl and Koltun, NIPS 2011; DeepLab v1, section 3.2).

Mean field with the Potts model: each pixel's belief is its own score plus what all other pixels say, weighed by a Gaussian of
distance (smoothness) and by one of distance and colour (appearance). Both Gaussians are filters on a permutohedral lattice,
built once an image, normalised symmetrically as in the authors' code.
"""

from dataclasses import dataclass
from math import ceil

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from scaleseg.errors import UserError
from scaleseg.geometry import Size, resize, resize_photo
from scaleseg.refine.contract import check
from scaleseg.refine.permutohedral import Lattice

__all__ = ["PUBLISHED", "DenseCRF"]

SMALLEST = 1e-5
"""Probabilities below count as this much, as in pydensecrf's unary_from_softmax."""


@dataclass(frozen=True)
class DenseCRF:
    """Mean-field inference under DeepLab's names for the parameters; the defaults are DeepLab-LargeFOV's.

    The appearance kernel has weight `bi_w` and standard deviations of `bi_xy_std` pixels and `bi_rgb_std` grey levels, the
    smoothness kernel `pos_w` and `pos_xy_std` pixels. An image of more than `max_pixels` is refined at a smaller size (the
    deviations shrink with it), and what changed there is carried over: about 250 bytes a pixel, and 16 a pixel and class.
    """

    bi_w: float = 4.0
    bi_xy_std: float = 121.0
    bi_rgb_std: float = 5.0
    pos_w: float = 3.0
    pos_xy_std: float = 3.0
    iterations: int = 10
    max_pixels: int = 2_000_000

    def __post_init__(self) -> None:
        for name in ("bi_xy_std", "bi_rgb_std", "pos_xy_std"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UserError(f"{name} of the CRF is {getattr(self, name)}; give a number above 0")
        for name in ("bi_w", "pos_w"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UserError(f"{name} of the CRF is {getattr(self, name)}; give a number of at least 0")
        if not 0 <= self.iterations <= 1000 or self.max_pixels < 1:
            raise UserError(
                f"iterations of the CRF are {self.iterations}, max_pixels {self.max_pixels}; give 0 to 1000, and 1 or more"
            )

    def __call__(
        self,
        probabilities: Float[Tensor, "classes H W"],
        image: UInt8[Tensor, "3 _ _"],
        edges: Float[Tensor, "_ _"] | None = None,
    ) -> Float[Tensor, "classes H W"]:
        """The refined probabilities, float32; `edges` are not looked at."""
        check(probabilities, image, edges)
        probabilities = probabilities.float()
        whole: Size = (image.shape[1], image.shape[2])
        size = self._refined_at(whole)
        return (
            self._infer(probabilities, image, 1.0) if size == whole else self._carried_over(probabilities, image, size)
        )

    def note(self, size: Size) -> str:
        """At how many pixels an image of (rows, columns) is refined; '' if at all of them."""
        rows, columns = self._refined_at(size)
        if (rows, columns) == size:
            return ""
        return f"refined at {columns} x {rows} of {size[1]} x {size[0]} pixels (max_pixels is {self.max_pixels:,})"

    def _refined_at(self, size: Size) -> Size:
        rows, columns = size
        smaller = max((rows * columns / self.max_pixels) ** 0.5, 1.0)
        return ceil(rows / smaller), ceil(columns / smaller)

    def _carried_over(self, probabilities: Tensor, image: Tensor, size: Size) -> Tensor:
        """Inference at a smaller size; the change of the log-probabilities is enlarged and added."""
        at = resize(probabilities[None], size, align_corners=False)[0]
        refined = self._infer(at, resize_photo(image, size), size[0] / image.shape[1])
        change = refined.clamp(min=SMALLEST).log() - at.clamp(min=SMALLEST).log()
        whole: Size = (image.shape[1], image.shape[2])
        log = probabilities.clamp(min=SMALLEST).log() + resize(change[None], whole, align_corners=False)[0]
        return log.softmax(dim=0)

    def _infer(self, probabilities: Tensor, image: Tensor, scale: float) -> Tensor:
        classes, rows, columns = probabilities.shape
        own = probabilities.clamp(min=SMALLEST).log().flatten(1).t().contiguous()
        kernels = [
            (weight, _Kernel(points))
            for weight, points in (
                (self.pos_w, _positions(image) / (self.pos_xy_std * scale)),
                (
                    self.bi_w,
                    torch.cat([_positions(image) / (self.bi_xy_std * scale), image.flatten(1) / self.bi_rgb_std]),
                ),
            )
            if weight
        ]
        belief = own.softmax(dim=1)
        for _ in range(self.iterations):
            said = own
            for weight, kernel in kernels:
                said = torch.add(said, kernel(belief), alpha=weight)
            belief = said.softmax(dim=1)
        return belief.t().reshape(classes, rows, columns).contiguous()


class _Kernel:
    """A Gaussian filter, normalised symmetrically: D^-1/2 K D^-1/2 with D the row sums of K."""

    def __init__(self, points: Float[Tensor, "dimensions pixels"]) -> None:
        self.lattice = Lattice(points)
        ones = torch.ones(points.shape[1], 1, device=points.device)
        self.normalizer = (self.lattice(ones) + 1e-20).rsqrt()

    def __call__(self, values: Float[Tensor, "pixels classes"]) -> Float[Tensor, "pixels classes"]:
        return self.lattice(values * self.normalizer).mul_(self.normalizer)


def _positions(image: UInt8[Tensor, "3 H W"]) -> Float[Tensor, "2 pixels"]:
    """Row and column of each pixel."""
    rows, columns = (torch.arange(side, dtype=torch.float32, device=image.device) for side in image.shape[1:])
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy")).flatten(1)


PUBLISHED = {
    "deeplab": DenseCRF(5.0, 50.0, 10.0),
    "deeplab-msc": DenseCRF(3.0, 95.0, 3.0),
    "deeplab-coco": DenseCRF(5.0, 67.0, 3.0),
    "largefov": DenseCRF(4.0, 121.0, 5.0),
    "msc-largefov": DenseCRF(4.0, 83.0, 5.0),
    "coco-largefov": DenseCRF(5.0, 69.0, 5.0),
    "msc-coco-largefov": DenseCRF(4.0, 59.0, 5.0),
    "deeplab-v2": DenseCRF(4.0, 67.0, 3.0, 3.0, 1.0),
}
"""By name of the model: the first three from the DeepLab v1 release, the last from kazuto1011/deeplab-pytorch; those with
`largefov` are said in comments of several repositories, and were not found in a release."""
