"""The domain transform: an edge-preserving filter in four sweeps (Gastal and Oliveira, SIGGRAPH 2011; recursive filtering).

Each sweep carries values along rows or columns and lets them pass as far as no edge is in the way. The edges are those of the
photograph (the classic), or a map that a network learned (Chen et al., arXiv 1511.03328): formulas, order of the sweeps and
gradients are those of the authors' layer (caffe_ssl, src/caffe/layers/domain_transform_layer.cpp).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from scaleseg.errors import UserError
from scaleseg.geometry import Size
from scaleseg.refine.contract import check

__all__ = ["DomainTransform", "differences", "domain_transform"]

Row = TypeVar("Row")


@dataclass(frozen=True)
class DomainTransform:
    """A refinement by the domain transform: `sigma_s` pixels, `sigma_r` of the edges' own unit, in `iterations` rounds.

    Scores are filtered, as in the paper: the logarithms of the probabilities are that, but for what all classes of a pixel
    share, which softmax takes out again. Edges are the photograph's, sums over channels of absolute differences of grey
    levels in [0, 1], or, if `learned`, those that are given.
    """

    sigma_s: float = 50.0
    sigma_r: float = 0.5
    iterations: int = 3
    min_weight: float = 0.0
    learned: bool = False

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
        """The probabilities of the filtered scores, float32; ValueError if edges are needed and none are given."""
        check(probabilities, image, edges)
        if self.learned and edges is None:
            raise ValueError("no edges are given; a learned domain transform needs those of the model")
        across, down = (edges[None], None) if self.learned and edges is not None else differences(image)
        scores = probabilities.float().clamp(min=torch.finfo(torch.float32).tiny).log_()
        return self.of_scores(scores[None], across, down)[0].softmax(dim=0)

    def note(self, size: Size) -> str:
        """Nothing to say: any size is filtered as it is."""
        return ""

    def of_scores(
        self,
        scores: Float[Tensor, "n classes H W"],
        across: Float[Tensor, "n H W"],
        down: Float[Tensor, "n H W"] | None = None,
    ) -> Float[Tensor, "n classes H W"]:
        """Filtered scores of many images, to be learned through (`domain_transform`)."""
        return domain_transform(
            scores, across, down, sigma_s=self.sigma_s, sigma_r=self.sigma_r,
            iterations=self.iterations, min_weight=self.min_weight,
        )  # fmt: skip


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
    horizontal = (1 + across.unsqueeze(1) * (sigma_s / sigma_r)).transpose(2, 3)
    learning = torch.is_grad_enabled() and any(one.requires_grad for one in (values, horizontal, vertical))
    given, spare = values, None
    for index in range(1, iterations + 1):
        sigma = sigma_s * sqrt(3) * 2 ** (iterations - index) / sqrt(4**iterations - 1)
        for distance in (horizontal, vertical):  # down the rows of a turned copy, for what lies side by side is fast
            weights = torch.exp(-sqrt(2) / sigma * distance).clamp(min_weight, 1.0).to(values.dtype).contiguous()
            before, values = values, _turned(values, spare, learning)
            spare = None if learning or before is given else before  # what the caller gave is never written to
            values = _swept(_swept(values, weights, False, learning), weights, True, learning)
    return values.contiguous() if learning else _empty(values.shape, values).copy_(values)


def differences(image: UInt8[Tensor, "3 H W"]) -> tuple[Float[Tensor, "1 H W"], Float[Tensor, "1 H W"]]:
    """Between each pixel and the one to its left, and the one above."""
    levels = image.float() / 255
    across, down = torch.zeros_like(levels[:1]), torch.zeros_like(levels[:1])
    across[0, :, 1:] = (levels[:, :, 1:] - levels[:, :, :-1]).abs().sum(dim=0)
    down[0, 1:] = (levels[:, 1:] - levels[:, :-1]).abs().sum(dim=0)
    return across, down


def _turned(
    values: Float[Tensor, "n channels rows others"],
    spare: Float[Tensor, "n channels others rows"] | None,
    learning: bool,
) -> Float[Tensor, "n channels others rows"]:
    """A copy with rows and columns exchanged; in `spare`, if any, where nothing is to be differentiated."""
    if learning:
        turned: Tensor = _Turn.apply(values)  # type: ignore[no-untyped-call]
        return turned
    return _turn(values, spare)


def _swept(
    values: Float[Tensor, "n channels rows others"],
    weights: Float[Tensor, "n 1 rows others"],
    back: bool,
    learning: bool,
) -> Float[Tensor, "n channels rows others"]:
    """Down the rows, or back up; in place where nothing is to be differentiated."""
    if learning:
        swept: Tensor = _Sweep.apply(values, weights, back)  # type: ignore[no-untyped-call]
        return swept
    return _scan(values, weights, back) if values.is_cuda else _step(values, weights, back, out=values)


class _Turn(torch.autograd.Function):
    """Rows become columns."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return _turn(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        turned: Tensor = _Turn.apply(gradients[0])  # type: ignore[no-untyped-call]
        return turned


class _Sweep(torch.autograd.Function):
    """y[0] = x[0], y[i] = x[i] + w[i] (y[i-1] - x[i]); back: y[i] = x[i] + w[i+1] (y[i+1] - x[i])."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weights: Tensor, back: bool) -> Tensor:
        swept = (
            _scan(values, weights, back)
            if values.is_cuda
            else _step(values, weights, back, _laid(values.shape, values))
        )
        ctx.save_for_backward(values, weights, swept)
        ctx.back = back
        return swept

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        values, weights, swept = ctx.saved_tensors
        step_back = _step_back_in_numpy if _suits_numpy(values) else _step_back
        of_values, of_weights = step_back(
            _laid(values.shape, values).copy_(gradients[0]), values, weights, swept, ctx.back
        )
        return of_values, of_weights, None


def _suits_numpy(values: Tensor) -> bool:
    """Whether numpy may take the steps: a call costs it 0.5 us and PyTorch 8, longer than the work of one row."""
    return values.device.type == "cpu" and values.dtype in (torch.float32, torch.float64)


def _empty(size: Sequence[int], like: Tensor) -> Tensor:
    """Memory, from numpy where it can be: that asks Linux for large pages, and page faults were a quarter of the time."""
    if not _suits_numpy(like):
        return like.new_empty(size)
    return torch.from_numpy(np.empty(size, np.float32 if like.dtype == torch.float32 else np.float64))


def _laid(size: Sequence[int], like: Tensor) -> Float[Tensor, "n channels rows others"]:
    """Memory whose outermost axis is that of rows, so that one row of all channels is one piece."""
    images, channels, rows, others = size
    return _empty((rows, images, channels, others), like).permute(1, 2, 0, 3)


def _turn(
    values: Float[Tensor, "n channels rows others"], spare: Float[Tensor, "n channels others rows"] | None = None
) -> Float[Tensor, "n channels others rows"]:
    """Rows and columns exchanged; on a CPU laid as above, one plane after another (at once is half as fast)."""
    if values.device.type != "cpu":
        return values.transpose(2, 3).clone(memory_format=torch.contiguous_format)
    images, channels, rows, others = values.shape
    turned = _laid((images, channels, others, rows), values) if spare is None else spare
    for plane, whole in zip(turned.flatten(0, 1), values.flatten(0, 1), strict=True):
        plane.copy_(whole.t())
    return turned


def _step(values: Tensor, weights: Tensor, back: bool, out: Tensor) -> Tensor:
    """One row after another: all that a CPU can use; `out` may be `values`."""
    if _suits_numpy(values):
        return _step_in_numpy(values, weights, back, out)
    rows, swept, passed = (_in_order(one.unbind(2), back) for one in (values, out, weights[:, :, 1:]))
    swept[0].copy_(rows[0])
    for index, through in enumerate(passed, 1):
        torch.lerp(rows[index], swept[index - 1], through, out=swept[index])
    return out


def _step_in_numpy(values: Tensor, weights: Tensor, back: bool, out: Tensor) -> Tensor:
    rows, swept, passed = (_in_order(_arrays(one), back) for one in (values, out, weights[:, :, 1:]))
    swept[0][...] = rows[0]
    room = np.empty_like(rows[0])
    for before, row, after, through in zip(swept, rows[1:], swept[1:], passed, strict=False):
        np.subtract(before, row, room)
        np.multiply(room, through, room)
        np.add(row, room, after)
    return out


def _step_back(carried: Tensor, values: Tensor, weights: Tensor, swept: Tensor, back: bool) -> tuple[Tensor, Tensor]:
    """The gradients of values and weights, from that of what was swept, which is overwritten."""
    rows, passed = _in_order(carried.unbind(2), back), _in_order(weights[:, :, 1:].unbind(2), back)
    for index in range(len(passed), 0, -1):
        rows[index - 1].addcmul_(passed[index - 1], rows[index])
    of_values, of_weights = carried.clone(), torch.zeros_like(weights)
    length = values.shape[2] - 1
    first, second = (slice(0, length), slice(1, None)) if back else (slice(1, None), slice(0, length))
    difference = carried[:, :, first] * (swept[:, :, second] - values[:, :, first])
    of_weights[:, :, 1:] = difference.sum(dim=1, keepdim=True)
    of_values[:, :, first] *= 1 - weights[:, :, 1:]
    return of_values, of_weights


def _step_back_in_numpy(
    carried: Tensor, values: Tensor, weights: Tensor, swept: Tensor, back: bool
) -> tuple[Tensor, Tensor]:
    """The same, a row at a time while it is in the cache."""
    of_weights = torch.zeros_like(weights)
    rows, before, after = (_in_order(_arrays(one), back) for one in (values, swept, carried))
    passed, summed = (_in_order(_arrays(one[:, :, 1:]), back) for one in (weights, of_weights))
    room = np.empty_like(after[0])
    for index in range(len(passed), 0, -1):
        gradient = after[index]
        np.subtract(before[index - 1], rows[index], room)
        np.multiply(room, gradient, room)
        np.add.reduce(room, axis=1, keepdims=True, out=summed[index - 1])
        np.multiply(gradient, passed[index - 1], room)
        np.add(after[index - 1], room, after[index - 1])
        np.subtract(gradient, room, gradient)
    return carried, of_weights


def _arrays(tensor: Float[Tensor, "n channels rows others"]) -> list[NDArray[Any]]:
    """Each row as an array on the tensor's own memory."""
    return list(np.moveaxis(tensor.detach().numpy(), 2, 0))


def _in_order(rows: Sequence[Row], back: bool) -> Sequence[Row]:
    """Rows as a sweep meets them."""
    return rows[::-1] if back else rows


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
