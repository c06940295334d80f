"""VGG-16 as the segmenters that stand on it take it: its layers' names, and its parameters from elsewhere.

Files have Caffe's names (`conv1_1.weight`, BGR, Caffe mean) or torchvision's (`features.0.weight`). torchvision
published two kinds: its own training (with classifier) and the original Caffe features (classifier absent or NaN), each
with its own normalisation.
"""

from collections import OrderedDict
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scaleseg.errors import UserError
from scaleseg.segmenters.contract import CAFFE, Normalization, Segmenter
from scaleseg.segmenters.sources import assign, fetch, read_parameters

__all__ = ["CONVOLUTIONS", "VGG16", "ReducedVGG16", "decimated", "initialize", "read_vgg16"]

CONVOLUTIONS = {
    "conv1": (2, 64), "conv2": (2, 128), "conv3": (3, 256), "conv4": (3, 512), "conv5": (3, 512),
}  # fmt: skip
"""How many convolutions a stage has, and how many channels."""

WHOLE = {
    "fc6.weight": (4096, 512, 7, 7), "fc6.bias": (4096,), "fc7.weight": (4096, 4096, 1, 1), "fc7.bias": (4096,),
}  # fmt: skip
"""ImageNet's fully connected layers, as convolutions."""

STRIDES = {"conv1": 2, "conv2": 2, "conv3": 2, "conv4": 1, "conv5": 1}
"""Of the poolings, where scores lie every 8 pixels."""

TORCHVISION_CAFFE = Normalization((0.48235, 0.45882, 0.40784), (1 / 255, 1 / 255, 1 / 255))
TORCHVISION_OWN = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OFFICIAL = "https://download.pytorch.org/models/vgg16_features-amdegroot-88682ab5.pth"


class VGG16(NamedTuple):
    """Parameters under Caffe's names, and what they expect of an image."""

    convolutions: dict[str, Tensor]
    classifier: dict[str, Tensor]
    """fc6 and fc7 as convolutions, whole (`WHOLE`) or cut already; empty where the file has none."""
    normalization: Normalization


class ReducedVGG16(Segmenter):
    """VGG-16 at stride 8 with 1,024 filters in fc6 and fc7, which LargeFOV and its relatives stand on.

    pool4 and pool5 do not stride, conv5 is dilated by 2; fc6 is 3x3, dilated by 12. `pooling` is the side of pool1 to
    pool3: 3 with padding aligns grids of 32k+1, 2 as in VGG itself makes a cell of 8 x 8 pixels.
    """

    output_stride = 8
    bf16_helps_training = True

    def __init__(self, *, pool5a: bool, dropout: float, pooling: int = 3) -> None:
        super().__init__()
        self.align_corners = pooling == 3
        self.trunk = _dilated(pool5a, pooling)
        self.taps = {"trunk.relu2_2": 128, "trunk.relu3_3": 256, "trunk.relu4_3": 512}
        self.fc6 = nn.Conv2d(512, 1024, 3, padding=12, dilation=12)
        self.fc7 = nn.Conv2d(1024, 1024, 1)
        self.dropout = nn.Dropout(dropout)
        initialize(self.trunk)
        for layer in (self.fc6, self.fc7):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def classifier(self, maps: Float[Tensor, "n 512 h w"]) -> tuple[Float[Tensor, "n 1024 h w"], ...]:
        """fc6 and fc7 of the trunk's maps, each after ReLU and dropout."""
        fc6 = self.dropout(self.fc6(maps).relu())
        return fc6, self.dropout(self.fc7(fc6).relu())

    def load_pretrained(self, source: str) -> None:
        """`imagenet` or a path (`read_vgg16`); a whole fc6 and fc7 are cut as the DeepLab papers do, absent ones stay random.

        fc6 and fc7 keep the paper's rate even where they start at random: at ten times it, training blew up in 10 steps.
        """
        vgg = read_vgg16(source)
        classifier = decimated(vgg.classifier)
        absent = {name for name, _ in self.named_children()} - {"trunk", "fc6", "fc7"}
        if "fc6.weight" not in classifier:
            absent |= {"fc6", "fc7"}
        convolutions = {
            f"trunk.{name}" if name.startswith("conv") else name: tensor for name, tensor in vgg.convolutions.items()
        }
        assign(self, convolutions | classifier, source, fresh=tuple(absent))
        self.normalization = vgg.normalization
        self.random_layers = ("fc6", "fc7") if "fc6" in absent else ()
        if "fc6" in absent:
            # VGG's activations are large (about 20, rms): at 0.01, as elsewhere, training diverges (docs/decisions.md).
            nn.init.normal_(self.fc6.weight, std=0.0003)


def read_vgg16(source: str) -> VGG16:
    """`imagenet` (the official download, checked and cached), or a path; ImageNet's 1,000 scores (fc8) are left out."""
    tensors = read_parameters(fetch(OFFICIAL, "88682ab5") if source == "imagenet" else source)
    normalization = CAFFE
    if any(name.startswith("features.") for name in tensors):
        with_classifier = _finite(tensors, "classifier.0.weight") and _finite(tensors, "classifier.3.weight")
        normalization = TORCHVISION_OWN if with_classifier else TORCHVISION_CAFFE
        tensors = _from_torchvision(tensors, with_classifier=with_classifier)
    classifier = {name: tensor for name, tensor in tensors.items() if name.startswith(("fc6.", "fc7."))}
    kept = {name: tensor for name, tensor in tensors.items() if name not in classifier and not name.startswith("fc8.")}
    return VGG16(kept, classifier, normalization)


def decimated(classifier: dict[str, Tensor]) -> dict[str, Tensor]:
    """fc6 and fc7 as LargeFOV has them (DeepLab v2, section 4.1.1); what is cut already is returned as it is.

    1,024 of the 4,096 filters (drawn with seed 0: the published draw is lost), fc6's 7x7 taps thinned to 3x3.
    """
    if "fc6.weight" not in classifier or classifier["fc6.weight"].shape[0] != WHOLE["fc6.weight"][0]:
        return classifier
    for name, shape in WHOLE.items():
        found = tuple(classifier[name].shape) if name in classifier else "missing"
        if found != shape:
            raise UserError(f"the classifier does not fit: {name} is {found}; {shape} is expected")
    generator = torch.Generator().manual_seed(0)
    rows6 = torch.randperm(4096, generator=generator)[:1024].sort().values
    rows7 = torch.randperm(4096, generator=generator)[:1024].sort().values
    return {
        "fc6.weight": classifier["fc6.weight"][rows6][:, :, ::3, ::3].contiguous(),
        "fc6.bias": classifier["fc6.bias"][rows6],
        "fc7.weight": classifier["fc7.weight"][rows7][:, rows6].contiguous(),
        "fc7.bias": classifier["fc7.bias"][rows7],
    }


def initialize(trunk: nn.Module) -> None:
    """Random parameters for convolutions that ReLU follows."""
    for layer in trunk.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


def _dilated(pool5a: bool, pooling: int) -> nn.Sequential:
    """The thirteen convolutions and five poolings, under Caffe's names."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    width = 3
    for stage, (count, channels) in CONVOLUTIONS.items():
        for index in range(1, count + 1):
            spread = 2 if stage == "conv5" else 1
            layers[f"{stage}_{index}"] = nn.Conv2d(width, channels, 3, padding=spread, dilation=spread)
            layers[f"relu{stage[4:]}_{index}"] = nn.ReLU(inplace=True)
            width = channels
        side = pooling if STRIDES[stage] == 2 else 3
        layers[f"pool{stage[4:]}"] = nn.MaxPool2d(side, STRIDES[stage], padding=(side - 1) // 2, ceil_mode=True)
    if pool5a:
        layers["pool5a"] = nn.AvgPool2d(3, 1, padding=1)  # counts the padding, as Caffe does
    return nn.Sequential(layers)


def _from_torchvision(tensors: dict[str, Tensor], *, with_classifier: bool) -> dict[str, Tensor]:
    """torchvision's numbered layers under Caffe's names."""
    names = [f"{stage}_{index}" for stage, (count, _) in CONVOLUTIONS.items() for index in range(1, count + 1)]
    numbers = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    known = dict(zip((f"features.{number}." for number in numbers), (f"{name}." for name in names), strict=True))
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.startswith("classifier."):
            continue
        stem, kind = name[: name.rfind(".") + 1], name[name.rfind(".") + 1 :]
        renamed[known.get(stem, stem) + kind] = tensor
    return renamed | (_classifier(tensors) if with_classifier else {})


def _classifier(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's linear layers as convolutions."""
    renamed = {}
    for name, shape in WHOLE.items():
        layer = {"fc6": "classifier.0", "fc7": "classifier.3"}[name[:3]] + name[3:]
        expected = (shape[0], shape[1] * shape[2] * shape[3]) if len(shape) == 4 else shape
        found = tuple(tensors[layer].shape) if layer in tensors else "missing"
        if found != expected:
            raise UserError(f"the classifier does not fit: {layer} is {found}; {expected} is expected")
        renamed[name] = tensors[layer].view(shape)
    return renamed


def _finite(tensors: dict[str, Tensor], name: str) -> bool:
    return name in tensors and bool(torch.isfinite(tensors[name]).all())
