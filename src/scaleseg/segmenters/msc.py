"""DeepLab-MSc-LargeFOV, a baseline of the paper's tables: LargeFOV, and scores from the image and four poolings added.

Five branches (DeepLab v1, section 4.3) look at the image, pool1, pool2, pool3 and pool4: a 3x3 convolution that strides
to the score grid, two layers of 128 channels, a classifier; the sum with fc8 is the score. (The text concatenates the
branches instead; a linear classifier on the concatenation is the sum of one on each part.)

Layers are named as in the released configuration (github TheLegendAli/DeepLab-Context, config/DeepLab-MSc/train.prototxt
and config/DeepLab-MSc-LargeFOV/test.prototxt), and LargeFOV's as in `largefov.py`, so that its trained parameters fit.
The release trains the branches alone, from a trained LargeFOV: `train.init_from`, `train.freeze=[trunk,fc6,fc7,fc8]`,
`train.fresh_lr=1`. It tests with branches that do not stride, and adds all at the image's size, so that those of the
image, pool1 and pool2 say more than at the corners of cells. Here a test looks at the score grid, as training does.
"""

from functools import reduce
from operator import add
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from scaleseg.segmenters.contract import Dense, Head
from scaleseg.segmenters.largefov import LargeFOV

__all__ = ["MSc"]

WIDTH = 128


class Branch(NamedTuple):
    """Which map a branch looks at, and how far that is from the score grid."""

    channels: int
    stride: int
    spread: float = 0.001
    """Of its second layer's first weights; its first layer's are of 0.001."""


BRANCHES = {
    "data": Branch(3, 8),
    "pool1": Branch(64, 4),
    "pool2": Branch(128, 2),
    "pool3": Branch(256, 1),
    "pool4": Branch(512, 1, 0.005),
}


class MSc(LargeFOV):
    """21,711,550 parameters at 21 classes: 1,206,121 more than LargeFOV."""

    def __init__(self, num_classes: int, *, pool5a: bool = False, dropout: float = 0.5, features: str = "fc7") -> None:
        super().__init__(num_classes, pool5a=pool5a, dropout=dropout, features=features)
        for name, branch in BRANCHES.items():
            first = nn.Conv2d(branch.channels, WIDTH, 3, branch.stride, padding=1)
            second = nn.Conv2d(WIDTH, WIDTH, 1)
            for layer, spread in ((first, 0.001), (second, branch.spread)):
                nn.init.normal_(layer.weight, std=spread)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
            self.add_module(f"{name}_conv", first)
            self.add_module(f"{name}_fc", second)
            self.add_module(f"{name}_ms", Head(WIDTH, num_classes))  # pool3's too: the release gives it no filler
        layers = tuple(f"{name}_{part}" for name in BRANCHES for part in ("conv", "fc", "ms"))
        self.fresh_layers = (*layers, "fc8")

    def forward(self, images: Float[Tensor, "n 3 H W"]) -> Dense:
        parts, maps = [self._branch("data", images)], images
        for name, layer in self.trunk.named_children():
            maps = layer(maps)
            if name in BRANCHES:
                parts.append(self._branch(name, maps))
        fc6, fc7 = self.classifier(maps)
        return self.dense(fc6, fc7, reduce(add, parts, self.fc8(fc7)))

    def _branch(self, name: str, maps: Float[Tensor, "n channels _ _"]) -> Float[Tensor, "n classes h w"]:
        for part in ("conv", "fc"):
            maps = self.dropout(self.get_submodule(f"{name}_{part}")(maps).relu())
        return self.get_submodule(f"{name}_ms")(maps)  # type: ignore[no-any-return]
