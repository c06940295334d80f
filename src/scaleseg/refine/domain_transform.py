"""The domain transform: an edge-preserving filter in four sweeps (Gastal and Oliveira, SIGGRAPH 2011; recursive filtering).

Each sweep carries values along rows or columns and lets them pass as far as no edge is in the way. The edges are those of the
photograph (the classic), or a map that a network learned (Chen et al., arXiv 1511.03328): formulas, order of the sweeps and
gradients are those of the authors' layer (caffe_ssl, src/caffe/layers/domain_transform_layer.cpp).
"""

from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from scaleseg.errors import UserError
from scaleseg.refine.contract import check

__all__ = ["DomainTransform", "domain_transform"]


@dataclass(frozen=True)
class DomainTransform:
    """A refinement by the domain transform: `sigma_s` pixels, `sigma_r` of the edges' own unit, in `iterations` rounds.

    Without `edges` the photograph's own count: the sum over channels of absolute differences of grey levels in [0, 1].
    """

    sigma_s: float = 50.0
    sigma_r: float = 0.5
    iterations: int = 3
    min_weight: float = 0.0

    def __post_init__(self) -> None:
        for name in ("sigma_s", "sigma_r"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UserError(f"{name} of the domain transform is {getattr(self, name)}; give a number above 0")
        if not 1 <= self.iterations <= 20 or not 0 <= self.min_weight < 1:
            raise UserError(
                f"iterations of the domain transform are {self.iterations}, min_weight {self.min_weight}; give 1 to 20, and "
                "from 0 to below 1"
            )

    def __call__(
        self,
        probabilities: Float[Tensor, "classes H W"],
        image: UInt8[Tensor, "3 _ _"],
        edges: Float[Tensor, "_ _"] | None = None,
    ) -> Float[Tensor, "classes H W"]:
        """The filtered probabilities, float32: a mean of distributions is one."""
        check(probabilities, image, edges)
        across, down = (edges[None], edges[None]) if edges is not None else _differences(image)
        return domain_transform(
            probabilities[None].float(), across, down, sigma_s=self.sigma_s, sigma_r=self.sigma_r,
            iterations=self.iterations, min_weight=self.min_weight,
        )[0]  # fmt: skip


def domain_transform(
    values: Float[Tensor, "n channels H W"],
    across: Float[Tensor, "n H W"],
    down: Float[Tensor, "n H W"] | None = None,
    *,
    sigma_s: float,
    sigma_r: float,
    iterations: int = 3,
    min_weight: float = 0.0,
) -> Float[Tensor, "n channels H W"]:
    """Filtered values, differentiable in values and edges; no edge is below 0.

    `across[..., i]` is the edge between columns i-1 and i, `down[..., i, :]` between rows; a learned map serves as both.
    """
    across, down = 1 + across * (sigma_s / sigma_r), 1 + (across if down is None else down) * (sigma_s / sigma_r)
    for index in range(1, iterations + 1):
        sigma = sigma_s * sqrt(3) * 2 ** (iterations - index) / sqrt(4**iterations - 1)
        for axis, distance in ((3, across), (2, down)):
            weights = torch.exp(-sqrt(2) / sigma * distance).clamp(min_weight, 1.0)
            values = _back_and_forth(values, weights, axis)
    return values


def _back_and_forth(values: Tensor, weights: Tensor, axis: int) -> Tensor:
    """Both sweeps along an axis: towards the end, then back to the beginning."""
    along, passed = values.movedim(axis, 0), weights.movedim(axis - 1, 0).unsqueeze(2)
    swept = _sweep(along, passed)
    swept = _sweep(swept.flip(0), passed.roll(-1, 0).flip(0))
    return swept.flip(0).movedim(0, axis)


def _sweep(values: Float[Tensor, "length n channels others"], weights: Float[Tensor, "length n 1 others"]) -> Tensor:
    swept: Tensor = _Sweep.apply(values.contiguous(), weights.contiguous())  # type: ignore[no-untyped-call]
    return swept


class _Sweep(torch.autograd.Function):
    """y[0] = x[0], y[i] = x[i] + w[i] (y[i-1] - x[i]); w[0] plays no part."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weights: Tensor) -> Tensor:
        swept = _scan(values, weights) if values.is_cuda else _step(values, weights)
        ctx.save_for_backward(values, weights, swept)
        return swept

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        values, weights, swept = ctx.saved_tensors
        carried = gradients[0].clone()
        for index in range(len(carried) - 1, 0, -1):
            carried[index - 1].addcmul_(weights[index], carried[index])
        of_weights = torch.zeros_like(weights)
        of_weights[1:] = (carried[1:] * (swept[:-1] - values[1:])).sum(dim=2, keepdim=True)
        of_values = carried.clone()
        of_values[1:] *= 1 - weights[1:]
        return of_values, of_weights


def _step(values: Tensor, weights: Tensor) -> Tensor:
    """One row or column after another: all that a CPU can use."""
    swept = torch.empty_like(values)
    swept[0] = values[0]
    for before, now, value, weight in zip(swept[:-1], swept[1:], values[1:], weights[1:], strict=True):
        torch.lerp(value, before, weight.expand_as(value), out=now)
    return swept


def _scan(values: Tensor, weights: Tensor) -> Tensor:
    """The same in log2(length) rounds over everything: few launches for a GPU (Hillis and Steele, 1986)."""
    share = weights.clone()
    share[0] = 0
    swept = (1 - share) * values
    reach = 1
    while reach < len(values):
        swept = torch.cat([swept[:reach], swept[reach:] + share[reach:] * swept[:-reach]])
        share = torch.cat([share[:reach], share[reach:] * share[:-reach]])
        reach *= 2
    return swept


def _differences(image: UInt8[Tensor, "3 H W"]) -> tuple[Float[Tensor, "1 H W"], Float[Tensor, "1 H W"]]:
    """Between each pixel and the one to its left, and the one above."""
    levels = image.float() / 255
    across, down = torch.zeros_like(levels[:1]), torch.zeros_like(levels[:1])
    across[0, :, 1:] = (levels[:, :, 1:] - levels[:, :, :-1]).abs().sum(dim=0)
    down[0, 1:] = (levels[:, 1:] - levels[:, :-1]).abs().sum(dim=0)
    return across, down
