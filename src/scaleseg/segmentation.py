"""One image in, one segmentation out: any image that can be read, of any size."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from scaleseg.devices import autocast, choose_precision, explained, memory_format
from scaleseg.images import draw_overlay, draw_weights, label_image, read, to_tensor
from scaleseg.model import Prediction, ScaleAware

__all__ = ["Segmentation", "predict", "segment"]

Input = str | Path | Image.Image | np.ndarray | Tensor


@dataclass(frozen=True)
class Segmentation:
    """What a model says of one image."""

    image: UInt8[Tensor, "3 H W"]
    labels: UInt8[Tensor, "H W"]
    """Class ids."""
    scale_weights: Float[Tensor, "scales H W"]
    """The weights behind the class chosen at each pixel; they sum to 1 over scales."""
    classes: tuple[str, ...]
    scales: tuple[float, ...]

    def shares(self) -> dict[str, float]:
        """The share of the image that each class covers, largest first; classes that are not there are left out."""
        counts = torch.bincount(self.labels.flatten().long(), minlength=len(self.classes))
        shares = {
            name: int(count) / self.labels.numel() for name, count in zip(self.classes, counts, strict=True) if count
        }
        return dict(sorted(shares.items(), key=lambda item: -item[1]))

    def overlay(self, opacity: float = 0.6) -> Image.Image:
        """The photograph with its classes coloured."""
        return draw_overlay(self.image, self.labels, len(self.classes), opacity)

    def label_image(self) -> Image.Image:
        """The class ids as a palette image."""
        return label_image(self.labels.numpy(), len(self.classes))

    def weights_image(self) -> Image.Image:
        """One map a scale, side by side; dark 0, yellow 1."""
        return draw_weights(self.scale_weights)


def segment(model: ScaleAware, image: Input, *, precision: str = "auto") -> Segmentation:
    """Segment a path, a PIL image, an (H, W, 3) or (H, W) uint8 array or a (3, H, W) uint8 tensor.

    `precision` is `auto` (bf16 where it was measured to help), `float32` or `bf16`. Raises UserError for a file that
    cannot be read or an image too large for the device, ValueError for an array that is no uint8 image.
    """
    name = image if isinstance(image, str | Path) else "the image"
    with explained(model.mean.device, f"shrink {name}, or choose another --device"):
        pixels = _pixels(image)
        prediction = _predict(model, pixels, precision)
        labels = prediction.at()[0].argmax(dim=0).to(torch.uint8)
        weights = _chosen_weights(prediction, labels)
        return Segmentation(pixels, labels.cpu(), weights.cpu(), model.classes, model.scales)


def predict(model: ScaleAware, image: UInt8[Tensor, "3 H W"], *, precision: str = "auto") -> Prediction:
    """The model's prediction, in float32, of one RGB image, on the model's device; UserError if it is too large there."""
    with explained(model.mean.device, "shrink the image, or choose another --device"):
        return _predict(model, image, precision)


@torch.inference_mode()
def _predict(model: ScaleAware, image: Tensor, precision: str) -> Prediction:
    was_training, device = model.training, model.mean.device
    chosen = choose_precision(precision, device, helps=model.segmenter.bf16_helps)
    batch = (image.to(device).float() / 255)[None].contiguous(memory_format=memory_format(device))
    model.eval()
    try:
        with autocast(device, chosen):
            prediction = model(batch)
    finally:
        model.train(was_training)
    per_scale = tuple(scores.float() for scores in prediction.per_scale)
    return Prediction(prediction.scores.float(), prediction.scale_weights.float(), per_scale, prediction.grid)


def _chosen_weights(prediction: Prediction, labels: Tensor) -> Float[Tensor, "scales H W"]:
    """At each pixel the weights of the class chosen there; a fusion without class axis has only one map a scale."""
    weights = prediction.scale_weights[0]
    if weights.shape[1] == 1:
        return prediction.grid.to_image(weights[None, :, 0])[0]
    chosen = torch.zeros(weights.shape[0], *labels.shape, device=weights.device)
    for class_id in torch.unique(labels).tolist():
        chosen = torch.where(labels == class_id, prediction.grid.to_image(weights[None, :, class_id])[0], chosen)
    return chosen


def _pixels(image: Input) -> UInt8[Tensor, "3 H W"]:
    if isinstance(image, str | Path):
        return read(image)
    if isinstance(image, Image.Image):
        return to_tensor(image)
    if isinstance(image, np.ndarray):
        if (
            image.dtype != np.uint8
            or image.ndim not in (2, 3)
            or not image.size
            or (image.ndim == 3 and image.shape[2] not in (1, 3, 4))
        ):
            raise ValueError(f"the array is {image.dtype} {image.shape}; expected uint8 (H, W), (H, W, 3) or (H, W, 4)")
        return to_tensor(Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image))
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3 or not image.numel():
        raise ValueError(f"the tensor is {image.dtype} {tuple(image.shape)}; expected uint8 (3, H, W)")
    return image.cpu()
