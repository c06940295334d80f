"""The photograph and its mirror image, averaged: a little better, at twice the time (test-time flipping)."""

import torch
from jaxtyping import UInt8
from torch import Tensor

from scaleseg.engines.contract import Engine
from scaleseg.model import Prediction, ScaleAware

__all__ = ["Flipped"]


class Flipped:
    """Runs `engine`, made for `model`, on an image and on its mirror image, and averages all that it says of both.

    The columns are padded with the mean colour before: on the mirrored image's own grid, cells would not coincide.
    """

    def __init__(self, engine: Engine, model: ScaleAware) -> None:
        self.engine = engine
        self.model = model
        self.name = f"{engine.name}, flipped"
        self.precision = engine.precision

    @torch.inference_mode()
    def __call__(self, image: UInt8[Tensor, "3 H W"]) -> Prediction:
        grid = self.model.grid((image.shape[1], image.shape[2]))
        padded = self._padded(image, grid.padded[1])
        one, two = self.engine(padded), self.engine(padded.flip(-1))
        edges = None
        if one.edges is not None and two.edges is not None:
            edges = _mean(one.edges, two.edges)[..., : grid.image[1]]
        per_scale = tuple(_mean(left, right) for left, right in zip(one.per_scale, two.per_scale, strict=True))
        return Prediction(
            _mean(one.scores, two.scores), _mean(one.scale_weights, two.scale_weights), per_scale, grid, edges
        )

    def _padded(self, image: Tensor, columns: int) -> Tensor:
        """With `columns` columns, the further ones of the mean colour: as near to what the model pads with as 8 bits get."""
        missing = columns - image.shape[2]
        if not missing:
            return image
        colour = (self.model.mean.flatten().cpu() * 255).round().to(torch.uint8)
        return torch.cat([image, colour[:, None, None].expand(3, image.shape[1], missing).to(image.device)], dim=2)


def _mean(one: Tensor, mirrored: Tensor) -> Tensor:
    """Of a map and of the map of the mirror image, turned back."""
    return (one + mirrored.flip(-1)) / 2
