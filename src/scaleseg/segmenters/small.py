"""A small network that learns from scratch in minutes on a CPU: for the synthetic shapes, for tests, for teaching.

VGG's manner in a tenth of its width: aligned grids, output stride 8, a dilated layer before the head.
"""

from jaxtyping import Float
from torch import Tensor, nn

from scaleseg.errors import UserError
from scaleseg.segmenters.contract import Dense, Head, Segmenter
from scaleseg.segmenters.sources import assign, read_parameters

__all__ = ["Small"]


class Small(Segmenter):
    """About 0.1 M parameters at `width` 16; a cell sees 15 + 16 x `dilation` pixels."""

    align_corners = True
    output_stride = 8

    def __init__(
        self, num_classes: int, *, width: int = 16, num_features: int = 64, dilation: int = 2, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if not (0 < width <= 1024 and 0 < num_features <= 65536 and 0 < dilation <= 1024):
            raise ValueError(
                f"width is {width}, num_features {num_features}, dilation {dilation}; expected 1 to 1,024, "
                "65,536 and 1,024"
            )
        self.num_features = num_features
        self.trunk = nn.Sequential(
            *_convolution(3, width, stride=2),
            *_convolution(width, 2 * width, stride=2),
            *_convolution(2 * width, 4 * width, stride=2),
            *_convolution(4 * width, num_features, dilation=dilation),
        )
        self.dropout = nn.Dropout(dropout)
        self.head = Head(num_features, num_classes)
        self.fresh_layers = ("head",)
        self.taps = {"trunk.1": width, "trunk.3": 2 * width}

    def forward(self, images: Float[Tensor, "n 3 H W"]) -> Dense:
        features = self.dropout(self.trunk(images))
        return Dense(features, self.head(features))

    def load_pretrained(self, source: str) -> None:
        """A path of this network's own state dict; it has no ImageNet parameters."""
        if source == "imagenet":
            raise UserError("model.pretrained is imagenet, but the segmenter small has none; use model.pretrained=none")
        assign(self, read_parameters(source), source, fresh=("head",))


def _convolution(channels: int, out: int, *, stride: int = 1, dilation: int = 1) -> tuple[nn.Module, nn.Module]:
    layer = nn.Conv2d(channels, out, 3, stride, padding=dilation, dilation=dilation)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer, nn.ReLU(inplace=True)
