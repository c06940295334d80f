"""DeepLab v2's ResNet-101 with atrous spatial pyramid pooling (Chen et al., TPAMI 2018): a stronger network for one scale.

321 x 321 pixels become 41 x 41 scores, on aligned grids: layer3 and layer4 do not stride but are dilated by 2 and 4, and
four 3x3 convolutions dilated by 6, 12, 18 and 24 are summed. Layers as in the published PyTorch ports of the authors'
Caffe network, github.com/isht7/pytorch-deeplab-resnet and github.com/kazuto1011/deeplab-pytorch; names as in torchvision.

Two ResNets go by that name: Caffe's halves its maps in the first 1x1 convolution of a block, torchvision's in the 3x3.
Their parameters have the same shapes and do not fit each other, so `stride_in` has to agree with a file's origin.
"""

import re

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from scaleseg.errors import UserError
from scaleseg.segmenters.contract import CAFFE, Dense, Head, Normalization, Segmenter
from scaleseg.segmenters.sources import assign, fetch, read_parameters

__all__ = ["ResNet101"]

BLOCKS = {"layer1": (3, 64, 1, 1), "layer2": (4, 128, 2, 1), "layer3": (23, 256, 1, 2), "layer4": (3, 512, 1, 4)}
"""Of each layer: how many blocks, their inner width, the first one's stride, the dilation."""

RATES = (6, 12, 18, 24)
OFFICIAL = "https://download.pytorch.org/models/resnet101-63fe2227.pth"
HASH = "63fe2227"

KAZUTO = re.compile(
    r"(?:base\.)?layer(\d)\.(?:block(\d+)\.(reduce|conv3x3|increase|shortcut)|(conv1))\.(conv|bn)\.(\w+)"
)
"""Such as base.layer2.block1.reduce.conv.weight; the stem is layer1.conv1."""


class ResNet101(Segmenter):
    """44,048,532 parameters at 21 classes; 42,500,160 of them the trunk's."""

    align_corners = True
    output_stride = 8
    num_features = 2048

    def __init__(self, num_classes: int, *, stride_in: str = "1x1") -> None:
        super().__init__()
        if stride_in not in ("1x1", "3x3"):
            raise ValueError(f"stride_in is {stride_in!r}; choose 1x1 (Caffe's ResNet) or 3x3 (torchvision's)")
        self.num_classes = num_classes
        self.stride_in = stride_in
        self.trunk = Trunk(stride_in)
        self.aspp = nn.ModuleList(Branch(self.num_features, num_classes, rate) for rate in RATES)
        self.fresh_layers = ("aspp",)
        self.taps = {"trunk.layer1": 256, "trunk.layer2": 512}

    def forward(self, images: Float[Tensor, "n 3 H W"]) -> Dense:
        features = self.trunk(images)
        return Dense(features, torch.stack([branch(features) for branch in self.aspp]).sum(dim=0))

    def load_pretrained(self, source: str) -> None:
        """`imagenet` (torchvision's file) or a path of torchvision's names or of a port's; classifiers are left out.

        The ports' pyramid is taken where its number of classes is this network's and otherwise stays random, as the ports
        themselves fine-tune; in either case it learns as fast as a fresh layer. Names without `Scale.` or `base.` are a
        port's if a pyramid (`layer5.`) is among them.
        """
        if source == "imagenet":
            self._demand("3x3", source)
        tensors = read_parameters(fetch(OFFICIAL, HASH) if source == "imagenet" else source)
        named = {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
        own = {_own_name(name): tensor for name, tensor in named.items() if not _is_classifier(name)}
        caffe = any(name.startswith("Scale.") or KAZUTO.fullmatch(name) for name in named) or "aspp.0.weight" in own
        if "trunk.layer1.0.conv1.weight" in own:  # else `assign` says what is missing
            self._demand("1x1" if caffe else "3x3", source)
        with_aspp = "aspp.0.weight" in own and own["aspp.0.weight"].shape[0] == self.num_classes
        if not with_aspp:
            own = {name: tensor for name, tensor in own.items() if not name.startswith("aspp.")}
        assign(self, own, source, fresh=() if with_aspp else ("aspp",))
        self.normalization = CAFFE if caffe else Normalization()

    def _demand(self, stride_in: str, source: str) -> None:
        if self.stride_in != stride_in:
            origin = {"1x1": "a port of Caffe's ResNet", "3x3": "torchvision's ResNet"}[stride_in]
            raise UserError(
                f"{source} is {origin}, whose blocks stride in their {stride_in} convolution, and stride_in is "
                f"{self.stride_in}; set model.options.stride_in to {stride_in}"
            )


class Trunk(nn.Module):
    """A ResNet-101 of output stride 8, under torchvision's names; 2,048 channels out."""

    def __init__(self, stride_in: str) -> None:
        super().__init__()
        self.conv1 = _convolution(3, 64, 7, stride=2)
        self.bn1 = nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)
        width, before = 64, 1
        for name, (count, inner, stride, dilation) in BLOCKS.items():
            # A stride that is left out dilates what came after it: all of the first block, or its 3x3's successors only.
            entry = dilation if stride_in == "1x1" else before
            blocks = [Block(width, inner, stride, entry, stride_in, shortcut=True)]
            blocks += [Block(4 * inner, inner, 1, dilation, stride_in, shortcut=False) for _ in range(1, count)]
            self.add_module(name, nn.Sequential(*blocks))
            width, before = 4 * inner, dilation

    def forward(self, images: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n features h w"]:
        maps = self.pool(F.relu(self.bn1(self.conv1(images)), inplace=True))
        for name in BLOCKS:
            maps = self.get_submodule(name)(maps)
        features: Tensor = maps
        return features


class Block(nn.Module):
    """1x1 to `inner` channels, 3x3, 1x1 to four times as many; the input, projected if it has another shape, is added."""

    def __init__(self, width: int, inner: int, stride: int, dilation: int, stride_in: str, *, shortcut: bool) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_in == "1x1" else (1, stride)
        self.conv1 = _convolution(width, inner, 1, stride=first)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = _convolution(inner, inner, 3, stride=second, dilation=dilation)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = _convolution(inner, 4 * inner, 1)
        self.bn3 = nn.BatchNorm2d(4 * inner)
        nn.init.zeros_(self.bn3.weight)  # at the start each block passes its input on (Goyal et al., 1706.02677)
        projection = (_convolution(width, 4 * inner, 1, stride=stride), nn.BatchNorm2d(4 * inner)) if shortcut else ()
        self.downsample = nn.Sequential(*projection)

    def forward(self, maps: Float[Tensor, "n width _ _"]) -> Float[Tensor, "n channels _ _"]:
        inner = F.relu(self.bn1(self.conv1(maps)), inplace=True)
        inner = F.relu(self.bn2(self.conv2(inner)), inplace=True)
        return F.relu(self.bn3(self.conv3(inner)) + self.downsample(maps), inplace=True)


class Branch(Head):
    """Scores from a dilated 3x3 convolution, otherwise like `Head`: Gaussian of 0.01, bias 0, float32 under autocast."""

    def __init__(self, num_features: int, num_classes: int, rate: int) -> None:
        nn.Conv2d.__init__(self, num_features, num_classes, 3, padding=rate, dilation=rate)
        nn.init.normal_(self.weight, std=0.01)
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]


def _convolution(channels: int, out: int, kernel: int, *, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    padding = dilation * (kernel // 2)
    layer = nn.Conv2d(channels, out, kernel, stride, padding, dilation, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def _is_classifier(name: str) -> bool:
    """ImageNet's 1,000 scores, or those of COCO with which the authors' first parameters come."""
    return name.startswith(("fc.", "base.fc."))


def _own_name(name: str) -> str:
    """A parameter's name in this network; what is of no known kind gets one that the network has not."""
    pyramid = re.fullmatch(r"(?:(?:Scale\.)?layer5\.conv2d_list\.|(?:base\.)?aspp\.c)(\d\..+)", name)
    if pyramid:
        return f"aspp.{pyramid[1]}"
    match = KAZUTO.fullmatch(name)
    if not match:
        return f"trunk.{name.removeprefix('Scale.')}"
    layer, block, part, _, kind, parameter = match.groups()
    if block is None:
        return f"trunk.{'conv1' if kind == 'conv' else 'bn1'}.{parameter}"
    inner = {
        "reduce": ("conv1", "bn1"), "conv3x3": ("conv2", "bn2"), "increase": ("conv3", "bn3"),
        "shortcut": ("downsample.0", "downsample.1"),
    }[part][kind == "bn"]  # fmt: skip
    return f"trunk.layer{int(layer) - 1}.{int(block) - 1}.{inner}.{parameter}"
