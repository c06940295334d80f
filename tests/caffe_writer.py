"""Caffe's files, written by hand: .caffemodel in the formats V0, V1 and V2, and .prototxt for an oracle to run.

Networks are lists of layers; `largefov`, `msc` and `resnet101` are those that DeepLab released, in any width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from struct import pack

import numpy as np

V1_KINDS = {"Convolution": 4, "Dropout": 6, "Eltwise": 25, "InnerProduct": 14, "Pooling": 17, "ReLU": 18, "Concat": 3}
V0_KINDS = {"Convolution": "conv", "InnerProduct": "innerproduct", "Pooling": "pool", "ReLU": "relu"}


@dataclass(frozen=True)
class Layer:
    """A layer of a .prototxt, and its parameters."""

    name: str
    kind: str
    bottom: tuple[str, ...]
    top: str
    settings: str = ""
    blobs: tuple[np.ndarray, ...] = ()


def convolution(
    name: str, bottom: str, weight: Sequence[int], *, pad: int = 0, hole: int = 1, stride: int = 1, bias: bool = True
) -> Layer:
    """A convolution whose parameters are still zero; `weight` is (out, in, rows, columns)."""
    settings = (
        f"convolution_param {{ num_output: {weight[0]} kernel_size: {weight[2]} pad: {pad} dilation: {hole} "
        f"stride: {stride} bias_term: {str(bias).lower()} }}"
    )
    blobs = (np.zeros(weight, np.float32), *([np.zeros(weight[0], np.float32)] if bias else []))
    return Layer(name, "Convolution", (bottom,), name, settings, blobs)


def relu(bottom: str) -> Layer:
    return Layer(f"relu_{bottom}", "ReLU", (bottom,), bottom)


def pool(name: str, bottom: str, stride: int, kind: str = "MAX") -> Layer:
    """3x3, padded by 1; Caffe rounds up."""
    return Layer(
        name, "Pooling", (bottom,), name, f"pooling_param {{ pool: {kind} kernel_size: 3 stride: {stride} pad: 1 }}"
    )


def normalization(name: str, scale: str, bottom: str, channels: int, eps: float | None = None) -> list[Layer]:
    """BatchNorm (mean, variance, what to divide them by) and Scale (gamma, beta), in place."""
    zeros = np.zeros(channels, np.float32)
    settings = "batch_norm_param { use_global_stats: true " + (f"eps: {eps} }}" if eps else "}")
    return [
        Layer(name, "BatchNorm", (bottom,), bottom, settings, (zeros, zeros, np.zeros(1, np.float32))),
        Layer(scale, "Scale", (bottom,), bottom, "scale_param { bias_term: true }", (zeros, zeros)),
    ]


def vgg(divisor: int = 1) -> Iterator[Layer]:
    """LargeFOV's trunk: the layers up to pool5, each 1 / `divisor` as wide as the released ones."""
    bottom, width = "data", 3
    for stage, (count, channels) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)], 1):
        hole = 2 if stage == 5 else 1
        for index in range(1, count + 1):
            layer = convolution(f"conv{stage}_{index}", bottom, (channels // divisor, width, 3, 3), pad=hole, hole=hole)
            yield layer
            yield relu(layer.name)
            bottom, width = layer.name, channels // divisor
        yield pool(f"pool{stage}", bottom, 2 if stage < 4 else 1)
        bottom = f"pool{stage}"


def largefov(classes: int, *, exp: str = "voc12", pool5a: bool = False, divisor: int = 1) -> list[Layer]:
    """The released DeepLab-LargeFOV (config/DeepLab-LargeFOV/test.prototxt), up to fc8."""
    layers = list(vgg(divisor))
    bottom, wide = "pool5", 1024 // divisor
    if pool5a:
        layers.append(pool("pool5a", bottom, 1, "AVE"))
        bottom = "pool5a"
    for layer in (
        convolution("fc6", bottom, (wide, 512 // divisor, 3, 3), pad=12, hole=12),
        convolution("fc7", "fc6", (wide, wide, 1, 1)),
    ):
        layers += [layer, relu(layer.name), Layer(f"drop_{layer.name}", "Dropout", (layer.name,), layer.name)]
    return [*layers, convolution(f"fc8_{exp}", "fc7", (classes, wide, 1, 1))]


def attention(scales: int, *, features: int = 1024, width: int = 512) -> list[Layer]:
    """The head of the authors' attention nets, on the features of all scales in one input."""
    return [
        convolution("att_conv1", "fc7_concat", (width, features * scales, 3, 3), pad=1),
        relu("att_conv1"),
        Layer("drop_att_conv1", "Dropout", ("att_conv1",), "att_conv1"),
        convolution("att_fc", "att_conv1", (scales, width, 1, 1)),
        Layer("attention", "Softmax", ("att_fc",), "attention"),
    ]


def msc(classes: int, *, divisor: int = 1) -> list[Layer]:
    """DeepLab-MSc-LargeFOV as it is trained (config/DeepLab-MSc/train.prototxt): branches stride to the score grid."""
    layers, wide = largefov(classes, pool5a=True, divisor=divisor), 128 // divisor
    branches = {"data": (3, 8), "pool1": (64, 4), "pool2": (128, 2), "pool3": (256, 1), "pool4": (512, 1)}
    for name, (full, stride) in branches.items():
        channels = 3 if name == "data" else full // divisor
        for layer in (
            convolution(f"{name}_conv", name, (wide, channels, 3, 3), pad=1, stride=stride),
            convolution(f"{name}_fc", f"{name}_conv", (wide, wide, 1, 1)),
        ):
            layers += [layer, relu(layer.name)]
        layers.append(convolution(f"{name}_ms", f"{name}_fc", (classes, wide, 1, 1)))
    ends = (*(f"{name}_ms" for name in branches), "fc8_voc12")
    return [*layers, Layer("fc_fusion", "Eltwise", ends, "fc_fusion", "eltwise_param { operation: SUM }")]


def resnet101(classes: int, *, divisor: int = 1) -> list[Layer]:
    """DeepLab v2 on ResNet-101 at one scale; names as in MSRA's ResNet and in the ports' converters."""
    bottom, width = "pool1", 64 // divisor
    layers = [convolution("conv1", "data", (width, 3, 7, 7), pad=3, stride=2, bias=False)]
    layers += [*normalization("bn_conv1", "scale_conv1", "conv1", width), relu("conv1"), pool("pool1", "conv1", 2)]
    stages = {2: (3, 64, 1, 1), 3: (4, 128, 2, 1), 4: (23, 256, 1, 2), 5: (3, 512, 1, 4)}
    for stage, (count, full, stride, hole) in stages.items():
        inner = full // divisor
        for index in range(count):
            place = "abc"[index] if stage in (2, 5) else f"b{index}" if index else "a"
            block = f"{stage}{place}"
            layers += _block(block, bottom, width, inner, stride if index == 0 else 1, hole)
            bottom, width = f"res{block}", 4 * inner
    rates = (6, 12, 18, 24)
    layers += [
        convolution(f"fc1_voc12_c{n}", bottom, (classes, width, 3, 3), pad=r, hole=r) for n, r in enumerate(rates)
    ]
    ends = tuple(f"fc1_voc12_c{index}" for index in range(4))
    return [*layers, Layer("fc1_voc12", "Eltwise", ends, "fc1_voc12", "eltwise_param { operation: SUM }")]


def _block(block: str, bottom: str, width: int, inner: int, stride: int, hole: int) -> list[Layer]:
    """One residual block: 1x1 (which strides), 3x3, 1x1, and a projection where the shape changes."""
    parts = [
        ("2a", bottom, (inner, width, 1, 1), {"stride": stride}),
        ("2b", f"res{block}_branch2a", (inner, inner, 3, 3), {"pad": hole, "hole": hole}),
        ("2c", f"res{block}_branch2b", (4 * inner, inner, 1, 1), {}),
    ]
    shortcut = width != 4 * inner
    if shortcut:
        parts.insert(0, ("1", bottom, (4 * inner, width, 1, 1), {"stride": stride}))
    layers: list[Layer] = []
    for branch, below, weight, settings in parts:
        name = f"res{block}_branch{branch}"
        layers.append(convolution(name, below, weight, bias=False, **settings))
        layers += normalization(f"bn{block}_branch{branch}", f"scale{block}_branch{branch}", name, weight[0])
        layers += [relu(name)] if branch in ("2a", "2b") else []
    ends = (f"res{block}_branch1" if shortcut else bottom, f"res{block}_branch2c")
    return [
        *layers,
        Layer(f"res{block}", "Eltwise", ends, f"res{block}", "eltwise_param { operation: SUM }"),
        relu(f"res{block}"),
    ]


def filled(layers: Sequence[Layer], seed: int = 0) -> list[Layer]:
    """The same with random parameters that keep the size of the maps (He); a BatchNorm's have a factor of about 1000."""
    generator = np.random.default_rng(seed)

    def numbers(layer: Layer) -> tuple[np.ndarray, ...]:
        shapes = [blob.shape for blob in layer.blobs]
        if layer.kind == "BatchNorm":
            mean, variance = (generator.random(shapes[0], np.float32) for _ in range(2))
            return (mean - 0.5) * 300, (variance + 0.5) * 999.5, np.array([999.5], np.float32)
        if layer.kind == "Scale":
            return generator.random(shapes[0], np.float32) * 0.4 + 0.4, generator.random(shapes[1], np.float32) - 0.5
        spreads = [np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1 for shape in shapes]
        return tuple(
            generator.standard_normal(shape, np.float32) * np.float32(spread)
            for shape, spread in zip(shapes, spreads, strict=True)
        )

    return [replace(layer, blobs=numbers(layer)) if layer.blobs else layer for layer in layers]


def at_scale(layers: Sequence[Layer], suffix: str) -> list[Layer]:
    """The copy of a network at another scale, its layers named with a suffix such as `_res05`, with the same parameters."""
    return [
        replace(layer, name=layer.name + suffix, top=layer.top + suffix, bottom=tuple(b + suffix for b in layer.bottom))
        for layer in layers
    ]


def prototxt(layers: Sequence[Layer], inputs: dict[str, Sequence[int]]) -> bytes:
    """The network as text, with named inputs of given shapes."""
    lines = []
    for name, shape in inputs.items():
        dims = " ".join(f"dim: {axis}" for axis in shape)
        lines.append(f'input: "{name}" input_shape {{ {dims} }}')
    for layer in layers:
        bottoms = " ".join(f'bottom: "{name}"' for name in layer.bottom)
        lines.append(
            f'layer {{ name: "{layer.name}" type: "{layer.kind}" {bottoms} top: "{layer.top}" {layer.settings} }}'
        )
    return "\n".join(lines).encode()


def caffemodel(layers: Sequence[Layer], version: str = "V2", blobs: str = "packed") -> bytes:
    """The network with its parameters. `blobs` are packed, unpacked, double, or chunked (packed in two parts)."""
    return text(1, "net") + b"".join(caffe_layer(layer, version, blobs) for layer in layers)


def caffe_layer(layer: Layer, version: str = "V2", blobs: str = "packed") -> bytes:
    """One field of a NetParameter."""
    encoded = [blob(array, blobs, legacy=version != "V2") for array in layer.blobs]
    if version == "V2":
        tops = b"".join(text(3, name) for name in layer.bottom) + text(4, layer.top)
        eltwise = message(110, varint(1 << 3) + varint(2)) if "MAX" in layer.settings else b""
        eps = layer.settings.partition("eps: ")[2].split(" ")[0]
        norm = message(139, varint(3 << 3 | 5) + pack("<f", float(eps))) if eps else b""
        inner = (
            text(1, layer.name) + text(2, layer.kind) + tops + b"".join(message(7, b) for b in encoded) + eltwise + norm
        )
        return message(100, inner)
    if version == "V1":
        kind = varint(5 << 3) + varint(V1_KINDS[layer.kind])
        rates = varint(7 << 3 | 5) + pack("<f", 1.0) + varint(7 << 3 | 5) + pack("<f", 2.0)
        return message(2, text(4, layer.name) + kind + b"".join(message(6, b) for b in encoded) + rates)
    inner = text(1, layer.name) + text(2, V0_KINDS[layer.kind]) + b"".join(message(50, b) for b in encoded)
    return message(2, message(1, inner) + text(2, "bottom") + text(3, "top"))


def blob(array: np.ndarray, form: str = "packed", *, legacy: bool = False) -> bytes:
    """A BlobProto; a small one with a gradient of the same size, which nobody should read."""
    if legacy:
        axes = (1,) * (4 - array.ndim) + array.shape
        shape = b"".join(varint(number << 3) + varint(axis) for number, axis in enumerate(axes, 1))
    else:
        shape = message(7, message(1, b"".join(map(varint, array.shape))))
    with np.errstate(over="ignore"):
        flat = array.astype("<f4").ravel()
    if form == "unpacked":
        numbers = b"".join(varint(5 << 3 | 5) + value.tobytes() for value in flat)
    elif form == "double":
        numbers = message(8, array.astype("<f8").tobytes())
    elif form == "chunked":
        numbers = message(5, flat[:1].tobytes()) + message(5, flat[1:].tobytes())
    else:
        numbers = message(5, flat.tobytes())
    gradient = message(6, np.full_like(flat, 7).tobytes()) if len(flat) < 10_000 else b""
    return numbers + gradient + shape


def text(number: int, content: str) -> bytes:
    return message(number, content.encode())


def message(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])
