"""FCN-32s, 16s and 8s on VGG-16 (Long, Shelhamer and Darrell, CVPR 2015), for comparison with the paper's network.

Layers, names, crops and the at-once variant are those of github.com/shelhamer/fcn.berkeleyvision.org (voc-fcn*s/net.py):
conv1_1 pads by 100, so that every image is large enough for fc6's 7x7; poolings are 2x2; scores of pool4 and pool3 are
added on the way up; bilinear deconvolutions are fixed. Scores are at image resolution.

The finer networks have all parameters of the coarser ones: train stride 32, then 16 from it, then 8. The skips' inputs are
large (pool4: 40 to 80, rms; pool3: 200 to 440), so the reference lowers the one learning rate of all layers a hundredfold
at each stage, and so do the recipes voc-fcn16s and voc-fcn8s. At the paper's rates these two blow up in three steps (at
1e-6 and 1e-7, `train.fresh_lr` 1, they learn: benchmarks/learning.py); stride 32 learns at them, and so does `at_once`,
which scales the skips' inputs down.
"""

from collections import OrderedDict
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from fractions import Fraction

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from scaleseg.errors import UserError
from scaleseg.segmenters.contract import Dense, Head, Segmenter
from scaleseg.segmenters.sources import assign
from scaleseg.segmenters.vgg import CONVOLUTIONS, initialize, read_vgg16

__all__ = ["FCN"]

WIDTH = 4096
"""Channels of fc6 and fc7."""

SKIPS: dict[int, dict[str, float]] = {32: {}, 16: {"pool4": 0.01}, 8: {"pool4": 0.01, "pool3": 0.0001}}
"""What is added on the way up from stride 32, and what `at_once` multiplies it by."""


class FCN(Segmenter):
    """134,346,581 parameters at stride 32 and 21 classes; the skips add 10,773 at stride 16, and 5,397 more at 8.

    `features` are the scores: attention sees fc8, as in the paper's comparison of features (section 4.1), for fc7's
    4,096 channels brought to every pixel would take gigabytes.
    """

    align_corners = False
    output_stride = 1
    smallest = 27

    def __init__(self, num_classes: int, *, stride: int = 8, at_once: bool = False, dropout: float = 0.5) -> None:
        super().__init__()
        if stride not in SKIPS:
            raise ValueError(f"stride is {stride}; choose 8, 16 or 32")
        if at_once and not SKIPS[stride]:
            raise ValueError(f"at_once scales skips, and stride {stride} has none; choose stride 8 or 16")
        self.num_features = num_classes
        self.skips = {pool: scale if at_once else 1.0 for pool, scale in SKIPS[stride].items()}
        self.trunk = _vgg16()
        self.fc6 = nn.Conv2d(CONVOLUTIONS["conv5"][1], WIDTH, 7)
        self.fc7 = nn.Conv2d(WIDTH, WIDTH, 1)
        self.dropout = nn.Dropout(dropout)
        self.score_fr = _zeroed(Head(WIDTH, num_classes))
        for pool in self.skips:
            self.add_module(f"score_{pool}", _zeroed(Head(CONVOLUTIONS[f"conv{pool[4:]}"][1], num_classes)))
        self.upscore2, self.upscore = Bilinear(2), Bilinear(stride)
        self.crops = self._crops(stride)
        for part in (self.trunk, self.fc6, self.fc7):
            initialize(part)
        self.fresh_layers = ("score_fr", *(f"score_{pool}" for pool in self.skips))

    def forward(self, images: Float[Tensor, "n 3 H W"]) -> Dense:
        maps, pools = images, {}
        for name, layer in self.trunk.named_children():
            maps = layer(maps)
            if name in self.skips:
                pools[name] = maps
        maps = self.dropout(self.fc6(maps).relu())
        scores = self.score_fr(self.dropout(self.fc7(maps).relu()))
        for pool, scale in self.skips.items():
            scores = self.upscore2(scores)
            skipped = self.get_submodule(f"score_{pool}")(scale * pools[pool])
            scores = scores + _cropped(skipped, self.crops[pool], scores)
        scores = _cropped(self.upscore(scores), self.crops["image"], images)
        return Dense(scores, scores)

    def load_pretrained(self, source: str) -> None:
        """`imagenet` or a path (`vgg.py`); a whole fc6 and fc7 become convolutions, absent ones start at random."""
        vgg = read_vgg16(source)
        if "fc6.weight" in vgg.classifier and vgg.classifier["fc6.weight"].shape != self.fc6.weight.shape:
            found, whole = (" x ".join(map(str, w.shape)) for w in (vgg.classifier["fc6.weight"], self.fc6.weight))
            raise UserError(
                f"{source}: fc6 is {found}; FCN needs ImageNet's whole fc6, {whole}, not one cut for LargeFOV: "
                "give a file of the whole VGG-16, or one without fc6 and fc7"
            )
        convolutions = {
            f"trunk.{name}" if name.startswith("conv") else name: tensor for name, tensor in vgg.convolutions.items()
        }
        random: tuple[str, ...] = () if vgg.classifier else ("fc6", "fc7")
        assign(self, convolutions | vgg.classifier, source, fresh=(*self.fresh_layers, *random))
        if random:
            # For VGG's large activations (pool5: 3 to 7, rms), as in LargeFOV: as `initialize` leaves them, training blows up.
            nn.init.normal_(self.fc6.weight, std=0.00013)
            nn.init.normal_(self.fc7.weight, std=0.01)
        self.random_layers = random
        self.normalization = vgg.normalization

    def _crops(self, stride: int) -> dict[str, int]:
        """How far each skip's scores, and those at pixels ("image"), are cropped at the top and the left."""
        lattice, lattices, crops = Lattice(), {}, {}
        for name, layer in (*self.trunk.named_children(), ("fc6", self.fc6)):
            if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
                lattice = lattices[name] = lattice.shrunk(*map(_side, (layer.kernel_size, layer.stride, layer.padding)))
        for pool in self.skips:
            lattice = lattice.enlarged(2)
            crops[pool] = lattices[pool].cells_before(lattice)
        return crops | {"image": lattice.enlarged(stride).cells_before(Lattice())}


@dataclass(frozen=True)
class Lattice:
    """Where the cells of a map lie along an axis of the image: the centre of cell i is pixel `first + step * i`."""

    step: Fraction = Fraction(1)
    first: Fraction = Fraction(0)

    def shrunk(self, kernel: int, stride: int, padding: int) -> "Lattice":
        """The cells of a convolution or pooling of this map: each in the middle of its window."""
        return Lattice(self.step * stride, self.first + self.step * (Fraction(kernel - 1, 2) - padding))

    def enlarged(self, factor: int) -> "Lattice":
        """The cells of this map's `Bilinear` deconvolution: each cell becomes a window of 2 x factor cells."""
        step = self.step / factor
        return Lattice(step, self.first - step * Fraction(2 * factor - 1, 2))

    def cells_before(self, other: "Lattice") -> int:
        """How many cells of this map lie before the first one of `other`, whose cells lie on cells of this map."""
        cells = (other.first - self.first) / self.step
        if self.step != other.step or cells < 0 or cells.denominator != 1:
            raise ValueError(f"{other} does not lie on {self}")
        return int(cells)


class Pool(nn.MaxPool2d):
    """2x2 with stride 2 behind a ReLU, sizes rounded up."""

    def forward(self, maps: Float[Tensor, "n channels _ _"]) -> Float[Tensor, "n channels _ _"]:
        if torch.compiler.is_compiling():  # rounding up asks for the size; a row and a column of zeros more do the same
            pooled: Tensor = F.max_pool2d(F.pad(maps, (0, 1, 0, 1)), 2)
        else:
            pooled = super().forward(maps)
        return pooled


class Bilinear(nn.Module):
    """A deconvolution that enlarges by interpolation, each channel by itself; nothing in it learns.

    In the interior it is `F.interpolate(align_corners=False)`; the border is wider by half a cell and fades to zero.
    """

    weight: Tensor

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor
        taps = 1 - (torch.arange(2 * factor) - (factor - 0.5)).abs() / factor
        self.register_buffer("weight", torch.outer(taps, taps), persistent=False)

    def forward(self, scores: Float[Tensor, "n classes _ _"]) -> Float[Tensor, "n classes _ _"]:
        classes = scores.shape[1]
        with _full_precision(scores.device.type):
            return F.conv_transpose2d(
                scores, self.weight.expand(classes, 1, -1, -1), stride=self.factor, groups=classes
            )


def _vgg16() -> nn.Sequential:
    """The thirteen convolutions and five poolings, under Caffe's names; Caffe rounds pooled sizes up."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    width = 3
    for stage, (count, channels) in CONVOLUTIONS.items():
        for index in range(1, count + 1):
            layers[f"{stage}_{index}"] = nn.Conv2d(width, channels, 3, padding=100 if width == 3 else 1)
            layers[f"relu{stage[4:]}_{index}"] = nn.ReLU(inplace=True)
            width = channels
        layers[f"pool{stage[4:]}"] = Pool(2, 2, ceil_mode=True)
    return nn.Sequential(layers)


def _zeroed(head: Head) -> Head:
    """Scores start at zero, Caffe's default, as in the reference."""
    nn.init.zeros_(head.weight)
    return head


def _cropped(maps: Tensor, offset: int, like: Tensor) -> Tensor:
    """The part of `maps` from `offset` on that is as large as `like`."""
    rows, columns = like.shape[-2:]
    if torch.compiler.is_compiling():  # a slice would ask whether `maps` are so large
        right, below = columns + offset - maps.shape[-1], rows + offset - maps.shape[-2]
        return F.pad(maps, (-offset, right, -offset, below))
    return maps[..., offset : offset + rows, offset : offset + columns]


def _side(size: int | str | tuple[int, ...]) -> int:
    """Of a square kernel, stride or padding."""
    return int(size[0] if isinstance(size, tuple) else size)


def _full_precision(device: str) -> AbstractContextManager[object]:
    """No autocast, as in `Head`."""
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
