"""PyTorch itself, on the model's own device: the engine that every other one is compared with."""

import torch
from jaxtyping import UInt8
from torch import Tensor

from scaleseg.devices import autocast, choose_precision, memory_format
from scaleseg.model import Prediction, ScaleAware

__all__ = ["TorchEngine"]


class TorchEngine:
    """Runs a model as it is. `precision` is `auto` (bf16 where it was measured to help), `float32` or `bf16`."""

    name = "torch"

    def __init__(self, model: ScaleAware, precision: str = "auto") -> None:
        self.model = model
        self.precision = choose_precision(precision, model.mean.device, helps=model.segmenter.bf16_helps)

    @torch.inference_mode()
    def __call__(self, image: UInt8[Tensor, "3 H W"]) -> Prediction:
        was_training, device = self.model.training, self.model.mean.device
        batch = (image.to(device).float() / 255)[None].contiguous(memory_format=memory_format(device))
        self.model.eval()
        try:
            with autocast(device, self.precision):
                prediction: Prediction = self.model(batch)
        finally:
            self.model.train(was_training)
        per_scale = tuple(scores.float() for scores in prediction.per_scale)
        return prediction._replace(
            scores=prediction.scores.float(), scale_weights=prediction.scale_weights.float(), per_scale=per_scale
        )
