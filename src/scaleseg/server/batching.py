"""Several images in one pass of a network: those that are of one size once they are padded.

An engine takes one image; PyTorch takes a batch, and a GPU is filled only by one. What an image is told does not depend on
the others: convolutions, resizes, fusions and edge maps work on each by itself, and BatchNorm is frozen.
"""

from collections.abc import Hashable, Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from scaleseg.devices import autocast, memory_format
from scaleseg.engines import Engine, TorchEngine
from scaleseg.geometry import Grid
from scaleseg.model import Prediction, ScaleAware

__all__ = ["can_batch", "group_of", "predict_batch"]


def can_batch(engine: Engine) -> bool:
    """Whether an engine's images may be looked at together: PyTorch itself alone."""
    return isinstance(engine, TorchEngine)


def group_of(model: ScaleAware, image: UInt8[Tensor, "3 _ _"]) -> Hashable:
    """Images with the same go into one batch: the padded size."""
    return model.grid((image.shape[1], image.shape[2])).padded


@torch.inference_mode()
def predict_batch(engine: TorchEngine, images: Sequence[UInt8[Tensor, "3 _ _"]]) -> list[Prediction]:
    """What the engine says of each image by itself, to the rounding of float32; the images have one padded size."""
    model, device = engine.model, engine.model.mean.device
    if len(images) == 1:
        return [engine(images[0])]
    grids = [model.grid((image.shape[1], image.shape[2])) for image in images]
    if len({grid.padded for grid in grids}) != 1:
        raise ValueError(f"padded sizes are {[grid.padded for grid in grids]}; expected one")
    batch = torch.cat([_padded(model, image, grid) for image, grid in zip(images, grids, strict=True)])
    with autocast(device, engine.precision):
        together: Prediction = model(batch.contiguous(memory_format=memory_format(device)))
    return [_of(together, index, grid) for index, grid in enumerate(grids)]


def _padded(model: ScaleAware, image: UInt8[Tensor, "3 _ _"], grid: Grid) -> Float[Tensor, "1 3 H W"]:
    """The image in [0, 1], grown with the mean colour: normalised that is 0, which is what the model itself pads with."""
    whole = model.mean[None].expand(1, -1, *grid.padded).clone()
    whole[..., : image.shape[1], : image.shape[2]] = image.to(model.mean.device).float() / 255
    return whole


def _of(together: Prediction, index: int, grid: Grid) -> Prediction:
    """One image's part, on its own grid."""
    rows, columns = grid.image
    one = slice(index, index + 1)
    return Prediction(
        together.scores[one].float(),
        together.scale_weights[one].float(),
        tuple(scores[one].float() for scores in together.per_scale),
        grid,
        None if together.edges is None else together.edges[one, :rows, :columns],
    )
