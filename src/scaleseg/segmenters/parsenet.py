"""ParseNet (Liu, Rabinovich and Berg, arXiv 1506.04579), a row of the paper's table 4: LargeFOV that sees the whole image.

The average of fc7 over the image, pool6, is classified beside fc7 at each position, both brought to the same length
first and scaled channel by channel. The scores are added: a linear classifier on the concatenation is just that.

Layers, their names and fillers (10 for scales), the dropout of 0.3 on pool6 and poolings of 2x2 as in VGG are those of
github debidatta/caffe-parsenet, examples/keypoint_detection, a fork of the authors' code; the sum, and that pool6 is of
fc7, agree with what is said of the authors' own VOC network, which we could not read. It scales scores up by a learned
deconvolution that starts bilinear; here it stays bilinear, as for every segmenter.

The average is over the padded image; where an image is segmented in tiles, over the tile.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scaleseg.segmenters.contract import Dense, Head
from scaleseg.segmenters.vgg import ReducedVGG16

__all__ = ["Normalize", "ParseNet"]


class ParseNet(ReducedVGG16):
    """20,529,002 parameters at 21 classes: 23,573 more than LargeFOV."""

    num_features = 1024

    def __init__(self, num_classes: int, *, dropout: float = 0.5, context_dropout: float = 0.3) -> None:
        super().__init__(pool5a=False, dropout=dropout, pooling=2)
        self.fc7_norm = Normalize(1024)
        self.pool6_1x1_norm = Normalize(1024)
        self.pool6_dropout = nn.Dropout(context_dropout)
        self.fc7_norm_score = Head(1024, num_classes)
        self.pool6_1x1_norm_score = Head(1024, num_classes)
        self.fresh_layers = ("fc7_norm_score", "pool6_1x1_norm_score")

    def forward(self, images: Float[Tensor, "n 3 H W"]) -> Dense:
        _, fc7 = self.classifier(self.trunk(images))
        features = self.fc7_norm(fc7)
        context = self.pool6_dropout(self.pool6_1x1_norm(fc7.mean(dim=(2, 3), keepdim=True)))
        return Dense(features, self.fc7_norm_score(features) + self.pool6_1x1_norm_score(context))


class Normalize(nn.Module):
    """Vectors over channels brought to length 1, each channel then times its learned scale; in float32, as scores are."""

    def __init__(self, channels: int, scale: float = 10.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), scale))

    def forward(self, maps: Float[Tensor, "n channels h w"]) -> Float[Tensor, "n channels h w"]:
        maps = maps.to(self.weight.dtype)
        length = (maps.square().sum(dim=1, keepdim=True) + 1e-10).sqrt()  # 1e-10 as in Caffe's layer
        return maps / length * self.weight[:, None, None]
