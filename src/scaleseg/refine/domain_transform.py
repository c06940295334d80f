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
    vertical = 1 + (across if down is None else down).unsqueeze(1) * (sigma_s / sigma_r)
    horizontal = 1 + across.unsqueeze(1).transpose(2, 3) * (sigma_s / sigma_r)
    for index in range(1, iterations + 1):
        sigma = sigma_s * sqrt(3) * 2 ** (iterations - index) / sqrt(4**iterations - 1)
        for distance in (horizontal, vertical):  # rows of a transposed copy, for what lies side by side is fast
            weights = torch.exp(-sqrt(2) / sigma * distance).clamp(min_weight, 1.0).contiguous()
            values = (
                values.transpose(2, 3).clone(memory_format=torch.contiguous_format)
                if distance is horizontal
                else values
            )
            values = _sweep(_sweep(values, weights, back=False), weights, back=True)
            values = values.transpose(2, 3).contiguous() if distance is horizontal else values
    return values


def _sweep(
    values: Float[Tensor, "n channels rows others"], weights: Float[Tensor, "n 1 rows others"], *, back: bool
) -> Float[Tensor, "n channels rows others"]:
    """Down the rows, or back up; in place where nothing is to be differentiated."""
    if torch.is_grad_enabled() and (values.requires_grad or weights.requires_grad):
        swept: Tensor = _Sweep.apply(values, weights, back)  # type: ignore[no-untyped-call]
        return swept
    return _scan(values, weights, back) if values.is_cuda else _step(values, weights, back, out=values)


class _Sweep(torch.autograd.Function):
    """y[0] = x[0], y[i] = x[i] + w[i] (y[i-1] - x[i]); back: y[i] = x[i] + w[i+1] (y[i+1] - x[i])."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weights: Tensor, back: bool) -> Tensor:
        swept = _scan(values, weights, back) if values.is_cuda else _step(values, weights, back, out=values.clone())
        ctx.save_for_backward(values, weights, swept)
        ctx.back = back
        return swept

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        values, weights, swept = ctx.saved_tensors
        carried = gradients[0].clone()
        rows, passed = carried.unbind(2), weights.unbind(2)
        for before, now, through in reversed(_order(len(rows), ctx.back)):
            rows[before].addcmul_(passed[through], rows[now])
        of_values, of_weights = carried.clone(), torch.zeros_like(weights)
        length = values.shape[2] - 1
        first, second = (slice(0, length), slice(1, None)) if ctx.back else (slice(1, None), slice(0, length))
        difference = carried[:, :, first] * (swept[:, :, second] - values[:, :, first])
        of_weights[:, :, 1:] = difference.sum(dim=1, keepdim=True)
        of_values[:, :, first] *= 1 - weights[:, :, 1:]
        return of_values, of_weights, None


def _order(length: int, back: bool) -> list[tuple[int, int, int]]:
    """(the row before, the row, the row whose weight lies between) of each step of a sweep."""
    if back:
        return [(index + 1, index, index + 1) for index in range(length - 2, -1, -1)]
    return [(index - 1, index, index) for index in range(1, length)]


def _step(values: Tensor, weights: Tensor, back: bool, out: Tensor) -> Tensor:
    """One row after another: all that a CPU can use; `out` may be `values`."""
    rows, swept, passed = values.unbind(2), out.unbind(2), weights.unbind(2)
    for before, now, through in _order(len(rows), back):
        torch.lerp(rows[now], swept[before], passed[through], out=swept[now])
    return out


def _scan(values: Tensor, weights: Tensor, back: bool) -> Tensor:
    """The same in log2(rows) rounds over everything: few launches for a GPU (Hillis and Steele, 1986)."""
    if back:
        return _scan(values.flip(2), weights.roll(-1, 2).flip(2), False).flip(2)
    share = weights.clone()
    share[:, :, 0] = 0
    swept = (1 - share) * values
    reach = 1
    while reach < values.shape[2]:
        moved = swept[:, :, reach:] + share[:, :, reach:] * swept[:, :, :-reach]
        swept = torch.cat([swept[:, :, :reach], moved], dim=2)
        share = torch.cat([share[:, :, :reach], share[:, :, reach:] * share[:, :, :-reach]], dim=2)
        reach *= 2
    return swept


def _differences(image: UInt8[Tensor, "3 H W"]) -> tuple[Float[Tensor, "1 H W"], Float[Tensor, "1 H W"]]:
    """Between each pixel and the one to its left, and the one above."""
    levels = image.float() / 255
    across, down = torch.zeros_like(levels[:1]), torch.zeros_like(levels[:1])
    across[0, :, 1:] = (levels[:, :, 1:] - levels[:, :, :-1]).abs().sum(dim=0)
    down[0, 1:] = (levels[:, 1:] - levels[:, :-1]).abs().sum(dim=0)
    return across, down
