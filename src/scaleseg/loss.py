"""The loss on every scale: one cross entropy of the merged scores and one of each scale's own (paper, section 3.3).

Each is a sum over valid pixels, divided by the number of valid pixels of the whole batch. Where 1/scale is a whole
number, labels are subsampled to that scale's own grid; otherwise its scores are brought to the merged grid (as the
authors' network does for 0.75). With one scale there is one cross entropy. Where a filter comes behind the merged scores
(the learned domain transform), the first cross entropy is that of the filtered ones, at the image's own size.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from scaleseg.geometry import IGNORE, Grid, Size, resize

__all__ = ["Losses", "class_weights", "count_valid", "scale_aware_loss", "scale_aware_losses"]


class Losses(NamedTuple):
    """The parts of the loss; `total` is what is minimised."""

    total: Float[Tensor, ""]
    fused: Float[Tensor, ""]
    per_scale: tuple[Float[Tensor, ""], ...]
    """Empty without extra supervision."""


@runtime_checkable
class Predicted(Protocol):
    """What the loss reads of a `model.Prediction`."""

    @property
    def scores(self) -> Tensor: ...
    @property
    def per_scale(self) -> tuple[Tensor, ...]: ...
    @property
    def grid(self) -> Grid: ...


def scale_aware_loss(
    prediction: Predicted,
    labels: Int64[Tensor, "n H W"],
    *,
    extra_supervision: bool = True,
    class_weights: Float[Tensor, "classes"] | None = None,
    filtered: Float[Tensor, "n classes H W"] | None = None,
) -> Float[Tensor, ""]:
    """1 + S cross entropies of a `Prediction`; labels at the image's size, 255 = void. No valid pixel: 0.

    `filtered` are merged scores at the image's size behind a filter; they then stand for the prediction's own.
    """
    return scale_aware_losses(
        prediction, labels, extra_supervision=extra_supervision, class_weights=class_weights, filtered=filtered
    ).total


def scale_aware_losses(
    prediction: Predicted,
    labels: Int64[Tensor, "n H W"],
    *,
    extra_supervision: bool = True,
    class_weights: Float[Tensor, "classes"] | None = None,
    valid: Sequence[int] | None = None,
    filtered: Float[Tensor, "n classes H W"] | None = None,
) -> Losses:
    """The parts one by one; `valid` are the whole batch's pixel counts (`count_valid`) if this is a part of a batch."""
    grid = prediction.grid
    at = _labels(grid, labels, extra_supervision, at_image=filtered is not None)
    counts = valid if valid is not None else [_count(wanted) for wanted in at]
    merged = prediction.scores if filtered is None else filtered
    maps = [merged, *(prediction.per_scale if len(at) > 1 else ())]
    parts = []
    for scores, wanted, count in zip(maps, at, counts, strict=True):
        size = wanted.shape[-2], wanted.shape[-1]
        resized = resize(scores.float(), size, align_corners=grid.align_corners)
        weight = None if class_weights is None else class_weights.to(resized)
        summed = F.cross_entropy(resized, wanted, weight=weight, ignore_index=IGNORE, reduction="sum")
        parts.append(summed / max(count, 1))
    return Losses(torch.stack(parts).sum(), parts[0].detach(), tuple(part.detach() for part in parts[1:]))


def count_valid(
    grid: Grid, labels: Int64[Tensor, "n H W"], *, extra_supervision: bool = True, filtered: bool = False
) -> list[int]:
    """How many pixels each of the cross entropies averages over; `filtered`: whether a filter comes before the first."""
    return [_count(wanted) for wanted in _labels(grid, labels, extra_supervision, at_image=filtered)]


def class_weights(pixels: Sequence[int], present: Sequence[int]) -> Float[Tensor, "classes"]:
    """Median frequency balancing (Eigen and Fergus, ICCV 2015, section 6.3.2), scaled to a mean of 1 over all pixels.

    `pixels` of each class; `present`: the pixels of the images in which it occurs. An absent class weighs 1.
    """
    seen = torch.tensor(pixels, dtype=torch.float64)
    frequency = seen / torch.tensor(present, dtype=torch.float64).clamp(min=1)
    there = frequency > 0
    if not bool(there.any()):
        return torch.ones(len(pixels))
    weights = frequency[there].median() / frequency.clamp(min=1e-12)
    scaled = weights * seen.sum() / (weights * seen).sum()
    return torch.where(there, scaled, 1.0).float()


def _labels(grid: Grid, labels: Tensor, extra_supervision: bool, *, at_image: bool) -> list[Tensor]:
    """The labels that each cross entropy compares with: on the merged grid or the image's own, then each scale's."""
    sizes: list[Size] = []
    if extra_supervision and len(grid.scales) > 1:
        sizes = [grid.score_size(scale) if _is_whole(1 / scale) else grid.fused for scale in grid.scales]
    first = labels if at_image else grid.labels_at(labels, grid.fused)
    return [first, *(grid.labels_at(labels, size) for size in sizes)]


def _count(labels: Tensor) -> int:
    return int((labels != IGNORE).sum())


def _is_whole(number: float) -> bool:
    return abs(number - round(number)) < 1e-6
