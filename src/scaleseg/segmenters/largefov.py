"""DeepLab-LargeFOV on VGG-16, the paper's network for one scale (section 3.1; layers as in the released configuration).

321 x 321 pixels become 41 x 41 scores. Pooling is 3x3 with padding 1, so that grids of 32k+1 stay aligned; pool4 and
pool5 do not stride, conv5 is dilated by 2 and fc6 by 12. `pool5a`, a 3x3 average pooling behind pool5, is in the
DeepLab v1 release and absent from the networks of the paper's authors that we could read; it is off by default.
"""

import hashlib
from collections import OrderedDict
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scaleseg.errors import UserError
from scaleseg.segmenters.contract import CAFFE, Dense, Head, Normalization, Segmenter
from scaleseg.segmenters.sources import assign, read_parameters

__all__ = ["LargeFOV"]

CONVOLUTIONS = {
    "conv1": (2, 64), "conv2": (2, 128), "conv3": (3, 256), "conv4": (3, 512), "conv5": (3, 512),
}  # fmt: skip
STRIDES = {"conv1": 2, "conv2": 2, "conv3": 2, "conv4": 1, "conv5": 1}

CLASSIFIER = {
    "classifier.0.weight": (4096, 25088), "classifier.0.bias": (4096,),
    "classifier.3.weight": (4096, 4096), "classifier.3.bias": (4096,),
}  # fmt: skip
"""The layers of torchvision's VGG-16 that fc6 and fc7 are cut from."""

TORCHVISION_CAFFE = Normalization((0.48235, 0.45882, 0.40784), (1 / 255, 1 / 255, 1 / 255))
TORCHVISION_OWN = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OFFICIAL = "https://download.pytorch.org/models/vgg16_features-amdegroot-88682ab5.pth"


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
        for layer in self.trunk:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
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
        """`imagenet` (the official download, checked and cached), or a path.

        A path is a file with Caffe's names (`conv1_1.weight`, BGR, Caffe mean) or torchvision's (`features.0.weight`).
        torchvision published two kinds: its own training (with classifier; fc6 and fc7 are then cut out of it as the
        DeepLab papers do) and the original Caffe features (classifier absent or NaN), each with its own normalisation.
        """
        tensors = read_parameters(_download() if source == "imagenet" else source)
        if any(name.startswith("features.") for name in tensors):
            whole = _finite(tensors, "classifier.0.weight") and _finite(tensors, "classifier.3.weight")
            self.normalization = TORCHVISION_OWN if whole else TORCHVISION_CAFFE
            tensors = _from_torchvision(tensors, with_classifier=whole)
        else:
            self.normalization = CAFFE
            tensors = {_trunk_name(name): tensor for name, tensor in tensors.items()}
        random: tuple[str, ...] = ()
        if "fc6.weight" not in tensors:
            random = ("fc6", "fc7")
            # VGG's activations are large (about 20, rms): at 0.01, as elsewhere, training diverges (docs/decisions.md).
            nn.init.normal_(self.fc6.weight, std=0.0003)
        assign(self, tensors, source, fresh=("fc8", *random))


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


def _trunk_name(name: str) -> str:
    return f"trunk.{name}" if name.startswith("conv") else name


def _from_torchvision(tensors: dict[str, Tensor], *, with_classifier: bool) -> dict[str, Tensor]:
    """torchvision's numbered layers under Caffe's names; fc6 and fc7 are decimated (DeepLab v2, section 4.1.1)."""
    names = [f"{stage}_{index}" for stage, (count, _) in CONVOLUTIONS.items() for index in range(1, count + 1)]
    numbers = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    known = dict(zip((f"features.{number}." for number in numbers), (f"trunk.{name}." for name in names), strict=True))
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.startswith("classifier."):
            continue
        stem, kind = name[: name.rfind(".") + 1], name[name.rfind(".") + 1 :]
        renamed[known.get(stem, stem) + kind] = tensor
    if with_classifier:
        renamed |= _decimated(tensors)
    return renamed


def _decimated(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """1,024 of the 4,096 filters (drawn with seed 0: the published draw is lost), fc6's 7x7 taps thinned to 3x3."""
    for name, shape in CLASSIFIER.items():
        found = tuple(tensors[name].shape) if name in tensors else "missing"
        if found != shape:
            raise UserError(f"the classifier does not fit: {name} is {found}; {shape} is expected")
    generator = torch.Generator().manual_seed(0)
    rows6 = torch.randperm(4096, generator=generator)[:1024].sort().values
    rows7 = torch.randperm(4096, generator=generator)[:1024].sort().values
    fc6 = tensors["classifier.0.weight"].view(4096, 512, 7, 7)
    return {
        "fc6.weight": fc6[rows6][:, :, ::3, ::3].contiguous(),
        "fc6.bias": tensors["classifier.0.bias"][rows6],
        "fc7.weight": tensors["classifier.3.weight"][rows7][:, rows6, None, None].contiguous(),
        "fc7.bias": tensors["classifier.3.bias"][rows7],
    }


def _finite(tensors: dict[str, Tensor], name: str) -> bool:
    return name in tensors and bool(torch.isfinite(tensors[name]).all())


def _download() -> Path:
    """The official file in PyTorch's cache, its SHA-256 checked at each use."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(OFFICIAL).name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(OFFICIAL, str(path), hash_prefix="88682ab5", progress=False)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"{OFFICIAL} could not be fetched ({error}); fetch it elsewhere and give its path as model.pretrained"
            ) from error
    if not hashlib.sha256(path.read_bytes()).hexdigest().startswith("88682ab5"):
        raise UserError(f"{path} is damaged: its hash does not begin with 88682ab5; delete it and start again")
    return path
