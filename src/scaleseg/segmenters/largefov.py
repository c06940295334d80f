"""DeepLab-LargeFOV on VGG-16, the paper's network for one scale (section 3.1; layers as in the released configuration).

321 x 321 pixels become 41 x 41 scores. Pooling is 3x3 with padding 1, so that grids of 32k+1 stay aligned; pool4 and
pool5 do not stride, conv5 is dilated by 2 and fc6 by 12. `pool5a`, a 3x3 average pooling behind pool5, is in the
DeepLab v1 release and absent from the networks of the paper's authors that we could read; it is off by default.
`features` is the map that a fusion looks at: fc7, or fc6 or fc8 for the comparison in section 4.1.
"""

from jaxtyping import Float
from torch import Tensor

from scaleseg.errors import choose
from scaleseg.segmenters.contract import Dense, Head
from scaleseg.segmenters.vgg import ReducedVGG16

__all__ = ["LargeFOV"]


class LargeFOV(ReducedVGG16):
    """20,505,429 parameters at 21 classes."""

    def __init__(self, num_classes: int, *, pool5a: bool = False, dropout: float = 0.5, features: str = "fc7") -> None:
        super().__init__(pool5a=pool5a, dropout=dropout)
        widths = {"fc6": 1024, "fc7": 1024, "fc8": num_classes}
        self.features = choose("model.options.features", str(features), widths)
        self.num_features = widths[self.features]
        self.fc8 = Head(1024, num_classes)
        self.fresh_layers = ("fc8",)

    def forward(self, images: Float[Tensor, "n 3 H W"]) -> Dense:
        fc6, fc7 = self.classifier(self.trunk(images))
        return self.dense(fc6, fc7, self.fc8(fc7))

    def dense(self, fc6: Tensor, fc7: Tensor, scores: Tensor) -> Dense:
        """The answer, with the map that `features` names."""
        return Dense({"fc6": fc6, "fc7": fc7, "fc8": scores}[self.features], scores)
