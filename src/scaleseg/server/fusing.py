"""Another fusion of scores that are there already: Eq. 1 with other weights, and no scale looked at again."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from scaleseg.fusion import Average, Max
from scaleseg.geometry import resize
from scaleseg.model import Prediction

__all__ = ["Said", "fuse_again"]


class Said:
    """An engine that has the prediction already: what comes after the network is `segment`'s own."""

    name = "said"
    precision = "float32"

    def __init__(self, prediction: Prediction) -> None:
        self.prediction = prediction

    def __call__(self, image: UInt8[Tensor, "3 H W"]) -> Prediction:
        """The prediction; ValueError for an image of another size."""
        if (image.shape[1], image.shape[2]) != self.prediction.grid.image:
            raise ValueError(f"the image is {tuple(image.shape[1:])}; expected {self.prediction.grid.image}")
        return self.prediction


def fuse_again(prediction: Prediction, fusion: str, weights: Sequence[float] = ()) -> Prediction:
    """The same per-scale scores by `trained` (as they are), `average`, `max`, or `weights`, one a scale, that sum to 1."""
    if fusion == "trained":
        return prediction
    grid = prediction.grid
    merged = [resize(scores, grid.fused, align_corners=grid.align_corners) for scores in prediction.per_scale]
    scores = torch.stack(merged, dim=1)
    scale_weights = _weights(scores, fusion, weights)
    return prediction._replace(scores=(scale_weights * scores).sum(dim=1), scale_weights=scale_weights)


def _weights(
    scores: Float[Tensor, "n scales classes h w"], fusion: str, weights: Sequence[float]
) -> Float[Tensor, "n scales _ h w"]:
    if fusion == "average":
        return Average().weights((), scores)
    if fusion == "max":
        return Max().weights((), scores)
    given = torch.tensor(weights, dtype=scores.dtype, device=scores.device)
    return given[None, :, None, None, None].expand(scores.shape[0], -1, 1, *scores.shape[-2:])
