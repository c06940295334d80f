"""What an engine promises: one photograph in, one prediction out, whatever computes it."""

from typing import Protocol, runtime_checkable

from jaxtyping import UInt8
from torch import Tensor

from scaleseg.model import Prediction

__all__ = ["Engine"]


@runtime_checkable
class Engine(Protocol):
    """Runs one model; engines may be put around engines, to work in tiles or to look at the mirror image too."""

    name: str
    """What computes: torch, onnx or openvino, and what stands around it."""
    precision: str
    """In which numbers: float32, bf16 or int8."""

    def __call__(self, image: UInt8[Tensor, "3 H W"]) -> Prediction:
        """A batch of one, in float32, on the whole image's grid."""
        ...
