"""What a network for one scale promises, whichever it is, and the layer that every one of them ends with."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["CAFFE", "Dense", "Head", "Normalization", "Segmenter"]


@dataclass(frozen=True)
class Normalization:
    """What the first layer expects: (x - mean) / std of RGB in [0, 1], its channels then swapped if `bgr`."""

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    bgr: bool = False


CAFFE = Normalization((122.675 / 255, 116.669 / 255, 104.008 / 255), (1 / 255, 1 / 255, 1 / 255), bgr=True)
"""BGR, 0..255, less the mean of the released DeepLab configurations."""


class Dense(NamedTuple):
    """A segmenter's answer on its score grid."""

    features: Float[Tensor, "n features h w"]
    """What a fusion looks at: the last layer before the head, fc7 or its equivalent, unless an option says otherwise."""
    scores: Float[Tensor, "n classes h w"]
    """Before softmax ("logits")."""
    taps: Mapping[str, Tensor] = MappingProxyType({})
    """Inner maps by name, each (n, channels, rows, columns) on a grid of the whole input; filled by `Segmenter.tapped`."""


class Segmenter(nn.Module, ABC):
    """A network for one scale: normalised images in, features and scores out, one cell per `output_stride` pixels."""

    num_features: int
    output_stride: int
    align_corners: bool
    smallest: int = 2
    """The side of an input from which every inner map, too, has two cells: where exports begin."""
    bf16_helps: bool = True
    """On a CPU that multiplies bf16, inference was measured to be faster in it."""
    bf16_helps_training: bool = False
    """The same of a training step."""

    def __init__(self) -> None:
        super().__init__()
        self.normalization = Normalization()
        self.fresh_layers: tuple[str, ...] = ()
        self.random_layers: tuple[str, ...] = ()
        self.taps: dict[str, int] = {}  # inner layers that an edge map can be learned from, and their channels

    @abstractmethod
    def forward(self, images: Float[Tensor, "n 3 H W"]) -> Dense:
        """Scores of images whose sides suit the grid (`geometry.Grid.input_size`)."""

    @abstractmethod
    def load_pretrained(self, source: str) -> None:
        """Parameters from a path or from `imagenet`; UserError if they do not fit.

        Sets `normalization`, `fresh_layers`, and `random_layers`: what the file lacks and learns at the base rate.
        """

    def tapped(self, images: Float[Tensor, "n 3 H W"]) -> Dense:
        """The same answer with the maps of the layers that `taps` names."""
        found: dict[str, Tensor] = {}

        def keep(name: str) -> Any:
            return lambda layer, given, maps: found.__setitem__(name, maps)

        hooks = [self.get_submodule(name).register_forward_hook(keep(name)) for name in self.taps]
        try:
            return self(images)._replace(taps=found)  # type: ignore[no-any-return]
        finally:
            for hook in hooks:
                hook.remove()

    def fresh(self) -> Iterator[nn.Parameter]:
        """Parameters trained at `train.fresh_lr` times the learning rate: what makes scores, and what else starts at random."""
        for name in self.fresh_layers:
            yield from self.get_submodule(name).parameters()


class Head(nn.Conv2d):
    """Features to scores, a 1x1 convolution: Gaussian of 0.01, bias 0, as in the released configuration.

    It computes in float32 under autocast too: scores rounded to bf16's 8 bits would flip labels.
    """

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__(num_features, num_classes, 1)
        nn.init.normal_(self.weight, std=0.01)
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]

    def forward(self, features: Float[Tensor, "n features h w"]) -> Float[Tensor, "n classes h w"]:
        device = features.device.type
        if not torch.amp.is_autocast_available(device):  # such as meta
            return super().forward(features)
        with torch.autocast(device, enabled=False):
            return super().forward(features.to(self.weight.dtype))
