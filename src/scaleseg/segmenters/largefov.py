"""DeepLab-LargeFOV on VGG-16, the paper's network for one scale (section 3.1; layers as in the released configuration).

321 x 321 pixels become 41 x 41 scores. Pooling is 3x3 with padding 1, so that grids of 32k+1 stay aligned; pool4 and
pool5 do not stride, conv5 is dilated by 2 and fc6 by 12. `pool5a`, a 3x3 average pooling behind pool5, is in the
DeepLab v1 release and absent from the networks of the paper's authors that we could read; it is off by default.
"""

from collections import OrderedDict

from jaxtyping import Float
from torch import Tensor, nn

from scaleseg.segmenters.contract import Dense, Head, Segmenter
from scaleseg.segmenters.sources import assign
from scaleseg.segmenters.vgg import CONVOLUTIONS, decimated, initialize, read_vgg16

__all__ = ["LargeFOV"]

STRIDES = {"conv1": 2, "conv2": 2, "conv3": 2, "conv4": 1, "conv5": 1}


class LargeFOV(Segmenter):
    """20,505,429 parameters at 21 classes."""

    align_corners = True
    output_stride = 8
    num_features = 1024
    bf16_helps_training = True

    def __init__(self, num_classes: int, *, pool5a: bool = False, dropout: float = 0.5) -> None:
        super().__init__()
        self.trunk = _vgg16(pool5a)
        self.fc6 = nn.Conv2d(512, 1024, 3, padding=12, dilation=12)
        self.fc7 = nn.Conv2d(1024, 1024, 1)
        self.fc8 = Head(1024, num_classes)
        self.dropout = nn.Dropout(dropout)
        initialize(self.trunk)
        for layer in (self.fc6, self.fc7):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        # fc6 and fc7 keep the paper's rate even where they start at random: at ten times it, training blew up in 10 steps.
        self.fresh_layers = ("fc8",)

    def forward(self, images: Float[Tensor, "n 3 H W"]) -> Dense:
        maps = self.dropout(self.fc6(self.trunk(images)).relu())
        features = self.dropout(self.fc7(maps).relu())
        return Dense(features, self.fc8(features))

    def load_pretrained(self, source: str) -> None:
        """`imagenet` or a path (`vgg.py`); a whole fc6 and fc7 are cut as the DeepLab papers do, absent ones stay random."""
        vgg = read_vgg16(source)
        self.normalization = vgg.normalization
        classifier = decimated(vgg.classifier)
        random: tuple[str, ...] = ()
        if "fc6.weight" not in classifier:
            random = ("fc6", "fc7")
            # VGG's activations are large (about 20, rms): at 0.01, as elsewhere, training diverges (docs/decisions.md).
            nn.init.normal_(self.fc6.weight, std=0.0003)
        convolutions = {
            f"trunk.{name}" if name.startswith("conv") else name: tensor for name, tensor in vgg.convolutions.items()
        }
        assign(self, convolutions | classifier, source, fresh=("fc8", *random))


def _vgg16(pool5a: bool) -> nn.Sequential:
    """The thirteen convolutions and five poolings, under Caffe's names."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    width = 3
    for stage, (count, channels) in CONVOLUTIONS.items():
        for index in range(1, count + 1):
            spread = 2 if stage == "conv5" else 1
            layers[f"{stage}_{index}"] = nn.Conv2d(width, channels, 3, padding=spread, dilation=spread)
            layers[f"relu{stage[4:]}_{index}"] = nn.ReLU(inplace=True)
            width = channels
        layers[f"pool{stage[4:]}"] = nn.MaxPool2d(3, STRIDES[stage], padding=1, ceil_mode=True)
    if pool5a:
        layers["pool5a"] = nn.AvgPool2d(3, 1, padding=1)  # counts the padding, as Caffe does
    return nn.Sequential(layers)
