"""A model that sees one cell at a time, so that what it says of a part of an image is what it says of the whole."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conftest import CLASSES
from scaleseg.fusion import create_fusion
from scaleseg.model import Prediction, ScaleAware
from scaleseg.refine import EdgeNet
from scaleseg.segmenters import Segmenter
from scaleseg.segmenters.contract import Dense, Head

__all__ = ["Cells", "Exact", "cells_model", "noise"]


class Cells(Segmenter):
    """Stride 4; a cell is the mean of its pixels, or of the nine around the pixel that it lies on where corners are aligned."""

    output_stride = 4
    num_features = 6

    def __init__(self, *, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.look = nn.Conv2d(3, 5, 1)
        self.taps = {"look": 5}
        self.mix = nn.Conv2d(5, self.num_features, 1)
        self.head = Head(self.num_features, len(CLASSES))
        self.fresh_layers = ("head",)

    def forward(self, images: Tensor) -> Dense:
        looked = self.look(images)
        cells = _around(looked) if self.align_corners else F.avg_pool2d(looked, 4)
        features = torch.tanh(self.mix(cells))
        return Dense(features, self.head(features))

    def load_pretrained(self, source: str) -> None:
        raise NotImplementedError


def _around(maps: Tensor) -> Tensor:
    """One pixel alone would be the same at every scale, and a tie."""
    return F.avg_pool2d(maps, 3, 4, padding=1, count_include_pad=False)


class Exact:
    """An engine in float64: what is left of a difference is not rounding."""

    name = "exact"
    precision = "float64"

    def __init__(self, model: ScaleAware) -> None:
        self.model = model
        self.seen: list[Tensor] = []

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> Prediction:
        self.seen.append(image)
        return self.model((image.double() / 255)[None])


def cells_model(
    *, align_corners: bool, fusion: str = "attention", scales: tuple[float, ...] = (1.0, 0.75, 0.5), edges: bool = True
) -> ScaleAware:
    """In float64, its parameters large and random; attention's first convolution is 1x1."""
    torch.manual_seed(3)
    segmenter = Cells(align_corners=align_corners)
    rule = create_fusion(fusion, len(scales), Cells.num_features, width=8, kernel=1)
    model = ScaleAware(segmenter, rule, scales, CLASSES, edge_net=EdgeNet(segmenter.taps) if edges else None)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
        said = segmenter(model.normalize(noise(64, 64)[None] / 255)).scores
        segmenter.head.bias -= said.mean(dim=(0, 2, 3))  # else one class may win everywhere
    return model.double().eval()


def noise(rows: int, columns: int, seed: int = 0) -> Tensor:
    """A photograph of which no two parts are alike."""
    return torch.randint(0, 256, (3, rows, columns), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
