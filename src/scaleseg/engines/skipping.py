"""Leaving out scales that can no longer matter: not in the paper, and off unless asked for.

The coarsest scale is looked at first; it costs little. What it says of itself, and what the fusion makes of it, tells how much
another scale could still change: the weight that it would get, where the answer is not yet sure. A scale for which that is below
the threshold is not computed; the nearest one that was stands for it.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from scaleseg.devices import autocast, choose_precision, memory_format
from scaleseg.geometry import Grid, pad, resize
from scaleseg.model import Prediction, ScaleAware
from scaleseg.segmenters import Dense

__all__ = ["Skipping"]


class Skipping:
    """Runs a model's scales as far as they matter; around it, `Tiled` decides anew for each tile.

    `threshold` is a mean over pixels of weight times doubt (1 less the largest probability): 0 skips nothing, above 1 all but
    the coarsest scale. `looked` counts what was computed, by scale. Edges are not given: they need the finest scale.
    """

    def __init__(self, model: ScaleAware, threshold: float, precision: str = "auto") -> None:
        self.model = model
        self.threshold = threshold
        self.name = f"torch, skipping scales below {threshold:g}"
        self.precision = choose_precision(precision, model.mean.device, helps=model.segmenter.bf16_helps)
        self.looked = dict.fromkeys(model.scales, 0)

    @torch.inference_mode()
    def __call__(self, image: UInt8[Tensor, "3 H W"]) -> Prediction:
        model, device = self.model, self.model.mean.device
        was_training = model.training
        model.eval()
        try:
            with autocast(device, self.precision):
                batch = (image.to(device).float() / 255)[None].contiguous(memory_format=memory_format(device))
                prediction = self._run(batch)
        finally:
            model.train(was_training)
        per_scale = tuple(scores.float() for scores in prediction.per_scale)
        return Prediction(
            prediction.scores.float(), prediction.scale_weights.float(), per_scale, prediction.grid, prediction.edges
        )

    def _run(self, batch: Float[Tensor, "1 3 H W"]) -> Prediction:
        grid = self.model.grid((batch.shape[-2], batch.shape[-1]))
        padded = pad(self.model.normalize(batch), grid.padded)
        first, *others = _order(self.model.scales)
        seen = _Seen(self.model, grid)
        seen.add(first, self._look(padded, first, grid))
        for index in others:
            if self.threshold <= 0 or _importance(seen.fused(), index) >= self.threshold:
                seen.add(index, self._look(padded, index, grid))
        return seen.fused()

    def _look(self, padded: Tensor, index: int, grid: Grid) -> Dense:
        scale = self.model.scales[index]
        self.looked[scale] += 1
        dense = self.model.segmenter(resize(padded, grid.input_size(scale), align_corners=grid.align_corners))
        merged = resize(dense.features, grid.fused, align_corners=grid.align_corners)
        return Dense(merged, dense.scores)


class _Seen:
    """The scales that were looked at, and what the fusion makes of them."""

    def __init__(self, model: ScaleAware, grid: Grid) -> None:
        self.model, self.grid = model, grid
        self.looks: dict[int, Dense] = {}
        self.embedded: dict[tuple[int, int], Tensor | None] = {}  # a fifth of all arithmetic: nothing twice

    def add(self, index: int, look: Dense) -> None:
        self.looks[index] = look

    def fused(self) -> Prediction:
        """The prediction where every scale that was not looked at is stood for by the nearest that was, the coarser of two."""
        scales = self.model.scales
        stands = [min(self.looks, key=lambda known: (abs(scales[known] - scale), scales[known])) for scale in scales]
        embedded = [self._embedded(known, index) for index, known in enumerate(stands)]
        return self.model.fuse([self.looks[known].scores for known in stands], embedded, self.grid)

    def _embedded(self, known: int, index: int) -> Tensor | None:
        """What the fusion keeps of one scale, in the place of another."""
        if (known, index) not in self.embedded:
            self.embedded[known, index] = self.model.fusion.embed(self.looks[known].features, index)
        return self.embedded[known, index]


def _importance(prediction: Prediction, index: int) -> float:
    """The scale's weight, averaged over pixels by how unsure the answer is."""
    doubt = 1 - prediction.scores.float().softmax(dim=1).amax(dim=1)
    return float((prediction.scale_weights[:, index].amax(dim=1) * doubt).mean())


def _order(scales: tuple[float, ...]) -> list[int]:
    """The coarsest scale, then the finest, which changes most, then the others from the coarse end."""
    rising = sorted(range(len(scales)), key=lambda index: scales[index])
    return [rising[0], *rising[-1:], *rising[1:-1]] if len(rising) > 1 else rising
