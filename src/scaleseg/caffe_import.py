"""Parameters from the Caffe world: a .caffemodel becomes a checkpoint folder, or a file for `model.pretrained`.

A network with scores of its own (DeepLab-LargeFOV, DeepLab-MSc-LargeFOV, DeepLab v2 on ResNet-101; at several scales,
with attention) becomes a folder that `load` opens. A start for training (ImageNet's VGG-16 and ResNet-101, the "init"
models of DeepLab) becomes a file of parameters. Nothing is guessed: a layer with parameters that is not known, or a
layer of ours that gets none, is an error, and the caller says what such a layer is.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from scaleseg import atomic, checkpoint
from scaleseg.caffe import Network, read, tensors
from scaleseg.config import Config, DataConfig, ModelConfig, merge, to_dict
from scaleseg.datasets.voc import CLASSES
from scaleseg.errors import UserError
from scaleseg.fusion import create_fusion
from scaleseg.model import ScaleAware
from scaleseg.segmenters import create_segmenter
from scaleseg.segmenters.contract import CAFFE
from scaleseg.segmenters.vgg import CONVOLUTIONS, WHOLE

__all__ = ["Imported", "import_caffe"]

TITLES = {"largefov": "DeepLab-LargeFOV", "msc": "DeepLab-MSc-LargeFOV", "resnet101": "DeepLab v2 on ResNet-101"}
CUT = {"fc6.weight": (1024, 512, 3, 3), "fc6.bias": (1024,), "fc7.weight": (1024, 1024, 1, 1), "fc7.bias": (1024,)}
"""DeepLab's fully connected layers, as its "init" models have them."""

SCALES: dict[int, tuple[float, ...]] = {1: (1.0,), 2: (1.0, 0.5), 3: (1.0, 0.75, 0.5), 4: (1.0, 0.75, 0.5, 0.25)}
"""The paper's, for an attention head whose network does not name its scales."""


@dataclass(frozen=True)
class Imported:
    """What was found, and what was written."""

    title: str
    segmenter: str
    version: str
    """Caffe's format: V0, V1 or V2."""
    layers: int
    """Those that were taken, each once."""
    parameters: int
    left_out: tuple[str, ...]
    notes: tuple[str, ...]
    complete: bool
    """Whether `written` is a folder for `load`; else it is a file for `model.pretrained`."""
    written: Path


def import_caffe(
    path: str | Path,
    folder: str | Path,
    *,
    names: Mapping[str, str] | None = None,
    classes: Sequence[str] | None = None,
) -> Imported:
    """Write what a .caffemodel holds into a folder that is new or empty; UserError if anything in it is not understood.

    `names` says what a layer is, by Caffe's name: a layer of ours (as below `model.segmenter`, or `fusion.hidden`,
    `fusion.logits`), or `-` to leave it out. `classes` names the scores; else they are VOC's 21, or numbers.
    """
    path, folder = Path(path), _free(Path(folder))
    network = Network.of(read(path), names or {}, path)
    if network.complete:
        return _write_model(network, folder, _classes(network, classes))
    if classes is not None:
        raise UserError(f"--classes is given, but {path} has no scores of pixels to name; leave --classes out")
    return _write_parameters(network, folder)


def _free(folder: Path) -> Path:
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UserError(f"{folder} is there already; choose a new or an empty folder")
    try:
        return folder.resolve()  # `.` has no name that another folder could take
    except (OSError, RuntimeError) as error:
        raise UserError(f"{folder} is a link that leads nowhere; choose a new or an empty folder") from error


def _write_model(network: Network, folder: Path, classes: tuple[str, ...]) -> Imported:
    model, config = _model(network, classes)
    own = model.state_dict()
    shapes = {
        name.removeprefix("segmenter."): tuple(tensor.shape)
        for name, tensor in own.items()
        if name not in ("mean", "std", "order") and not name.endswith("num_batches_tracked")
    }
    title = _title(config)
    count = 0
    for name, tensor in tensors(network, shapes, title):
        own[name if name.startswith("fusion.") else f"segmenter.{name}"].copy_(tensor)
        count += tensor.numel()
    checkpoint.save(folder, model, config, trained=False, about={"source": network.path.name})
    return _imported(network, title, count, folder)


def _write_parameters(network: Network, folder: Path) -> Imported:
    if network.segmenter == "resnet101":
        title, shapes = "ResNet-101", _resnet_shapes()
        prefix = "Scale."  # as ports of DeepLab call it: so its origin, and where it strides, is known
    else:
        title, shapes, prefix = "VGG-16", _vgg_shapes(network), ""
    names = {name: prefix + name.removeprefix("trunk.") for name in shapes}
    with atomic.fresh_folder(folder) as temporary, (temporary / "model.safetensors").open("wb") as file:
        file.write(_header({names[name]: shape for name, shape in shapes.items()}))
        for _, tensor in tensors(network, shapes, title):  # one by one: all of VGG-16 is half a gigabyte
            file.write(tensor.numpy().data)
    return _imported(network, title, sum(map(prod, shapes.values())), folder / "model.safetensors")


def _header(shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    """What a .safetensors file of float32 begins with: the length of a JSON object, padded to 8 bytes, and the object."""
    described: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * prod(shape)
        described[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(described).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _imported(network: Network, title: str, count: int, written: Path) -> Imported:
    notes = [
        "no layer without parameters is in the file: whether pool5a was there, and how scales were merged, is assumed"
    ]
    known = not network.complete or any(not layer.blobs for layer in network.net.layers)
    return Imported(
        title, network.segmenter, network.net.version, len(network.layers), count, network.left_out,
        () if known else tuple(notes), network.complete, written,
    )  # fmt: skip


def _model(network: Network, classes: tuple[str, ...]) -> tuple[ScaleAware, Config]:
    """A model as it was found, its parameters still random, and the settings that build it again."""
    averages = any(layer.name == "pool5a" for layer in network.net.layers)
    options = {"pool5a": True} if averages and network.segmenter != "resnet101" else {}
    segmenter = create_segmenter(network.segmenter, len(classes), options)
    segmenter.normalization = CAFFE
    fusion, scales, width = network.merged_by, network.scales, ModelConfig.attention_width
    if network.has_attention:
        scales = _attended(network, segmenter.num_features)
        fusion, width = "attention", network.outputs("fusion.hidden")
    if len(scales) == 1 and fusion == "max":
        fusion = "average"  # of one scale: itself
    settings = ModelConfig(network.segmenter, fusion, scales, pretrained="none", attention_width=width, options=options)
    config = merge(to_dict(Config(model=settings, data=DataConfig(classes=classes))))
    rule = create_fusion(fusion, len(scales), segmenter.num_features, width=width)
    return ScaleAware(segmenter, rule, scales, classes, settings), config


def _attended(network: Network, num_features: int) -> tuple[float, ...]:
    """The scales behind an attention head, whose input is the features of all of them, the largest scale's first."""
    shape = network.shape("fusion.hidden")
    inputs = shape[1] if len(shape) == 4 else 0
    count = inputs // num_features
    scales = network.scales if len(network.scales) > 1 else SCALES.get(count, ())
    if inputs % num_features or len(scales) != count or not count:
        raise UserError(
            f"{network.path}: the attention head has {shape}, which is {inputs / num_features:g} scales of {num_features} "
            f"features, but the layers' names tell of {list(network.scales)}; such a head cannot be used"
        )
    return scales


def _classes(network: Network, given: Sequence[str] | None) -> tuple[str, ...]:
    count = max(1, network.outputs("aspp.0" if network.segmenter == "resnet101" else "fc8"))
    if count > 255:
        raise UserError(f"{network.path} has scores of {count} classes; scaleseg has 255 at most")
    if given is not None and len(given) != count:
        raise UserError(f"--classes names {len(given)} classes, but {network.path} has scores of {count}; name as many")
    if given is not None:
        return tuple(given)
    return CLASSES if count == len(CLASSES) else tuple(str(index) for index in range(count))


def _title(config: Config) -> str:
    settings = config.model
    merged = f", {settings.fusion} over scales {', '.join(f'{scale:g}' for scale in settings.scales)}"
    return (
        f"{TITLES[settings.segmenter]}{merged if len(settings.scales) > 1 else ''}, {len(config.data.classes)} classes"
    )


def _resnet_shapes() -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        own = create_segmenter("resnet101", 1).state_dict()
    names = [name for name in own if name.startswith("trunk.") and not name.endswith("num_batches_tracked")]
    return {name: tuple(own[name].shape) for name in names}


def _vgg_shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """VGG-16's parameters under Caffe's names (below `trunk`): fully connected layers whole, or cut, or none at all."""
    shapes: dict[str, tuple[int, ...]] = {}
    width = 3
    for stage, (count, channels) in CONVOLUTIONS.items():
        for index in range(1, count + 1):
            shapes[f"trunk.{stage}_{index}.weight"] = (channels, width, 3, 3)
            shapes[f"trunk.{stage}_{index}.bias"] = (channels,)
            width = channels
    if not network.outputs("fc6") and not network.outputs("fc7"):
        return shapes
    return shapes | (WHOLE if network.outputs("fc6") == WHOLE["fc6.bias"][0] else CUT)
