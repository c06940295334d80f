"""Parameters from Caffe: read without Caffe, put where they belong, and scored as OpenCV's own importer scores them."""

import json
import sys
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import patch

import jaxtyping
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import caffe_writer as writer
import scaleseg
from scaleseg import caffe, caffe_import, model
from scaleseg.caffe import Network, layer_name, split_scale
from scaleseg.caffe_import import import_caffe
from scaleseg.checkpoint import read_config
from scaleseg.cli import main
from scaleseg.datasets.voc import CLASSES
from scaleseg.errors import UserError
from scaleseg.segmenters import Segmenter, create_segmenter
from scaleseg.segmenters.contract import CAFFE
from scaleseg.segmenters.vgg import CONVOLUTIONS, WHOLE, read_vgg16

dnn = pytest.importorskip("cv2").dnn

NARROW = 16


def narrowed(name: str, num_classes: int, divisor: int = NARROW, options: dict | None = None) -> Segmenter:
    """A network whose every layer is a `divisor`-th as wide, but for colours and classes."""
    with torch.device("meta"):  # all its parameters are replaced
        segmenter = create_segmenter(name, num_classes, options)

    def cut(channels: int) -> int:
        return channels if channels < 64 else channels // divisor

    for name, layer in list(segmenter.named_modules()):
        if isinstance(layer, nn.Conv2d):
            layer.in_channels, layer.out_channels = cut(layer.in_channels), cut(layer.out_channels)
            shape = (layer.out_channels, layer.in_channels, *layer.kernel_size)
            layer.weight = nn.Parameter(torch.zeros(shape))
            layer.bias = None if layer.bias is None else nn.Parameter(torch.zeros(layer.out_channels))
        elif isinstance(layer, nn.BatchNorm2d):
            parent, _, own = name.rpartition(".")
            setattr(segmenter.get_submodule(parent), own, nn.BatchNorm2d(cut(layer.num_features)))
    segmenter.num_features = cut(segmenter.num_features)
    return segmenter


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Without annotations checked at run time: they know the released widths, and cost 0.2 ms a call."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def plain_read() -> Callable[[Path], caffe.Net]:
    """`caffe.read` of modules loaded anew, past the hook that checks annotations: a hundred times as fast."""
    loaded: dict[str, ModuleType] = {}
    for name in ("wire", "net"):
        full = f"scaleseg.caffe.{name}"
        spec = spec_from_file_location(full, Path(caffe.__file__).with_name(f"{name}.py"))
        loaded[full] = module_from_spec(spec)
        with patch.dict(sys.modules, loaded):
            spec.loader.exec_module(loaded[full])
    return loaded["scaleseg.caffe.net"].read


@pytest.fixture
def narrow(unchecked: None, monkeypatch: pytest.MonkeyPatch) -> int:
    """Segmenters a sixteenth as wide, wherever they are made: all else is the real road, and fast."""
    return narrow_by(NARROW, monkeypatch)


def narrow_by(divisor: int, monkeypatch: pytest.MonkeyPatch) -> int:
    def create(name: str, num_classes: int, options: dict | None = None) -> Segmenter:
        return narrowed(name, num_classes, divisor, options)

    def cut(shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(axis if axis < 64 else axis // divisor for axis in shape)

    for module in (caffe_import, model):
        monkeypatch.setattr(module, "create_segmenter", create)
    stages = {stage: (count, channels // divisor) for stage, (count, channels) in CONVOLUTIONS.items()}
    monkeypatch.setattr(caffe_import, "CONVOLUTIONS", stages)
    for name in ("WHOLE", "CUT"):
        shapes = getattr(caffe_import, name)
        monkeypatch.setattr(caffe_import, name, {part: cut(shape) for part, shape in shapes.items()})
    return divisor


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    """A .caffemodel of layers."""

    def write(layers: Sequence[writer.Layer], version: str = "V2", blobs: str = "packed") -> Path:
        path = tmp_path / "net.caffemodel"
        path.write_bytes(writer.caffemodel(layers, version, blobs))
        return path

    return write


def oracle(layers: Sequence[writer.Layer], inputs: dict[str, np.ndarray], path: Path, end: str) -> torch.Tensor:
    """What OpenCV computes of a .caffemodel, its network given as a .prototxt."""
    text = writer.prototxt(layers, {name: array.shape for name, array in inputs.items()})
    net = dnn.readNetFromCaffe(np.frombuffer(text, np.uint8), np.frombuffer(path.read_bytes(), np.uint8))
    for name, array in inputs.items():
        net.setInput(array, name)
    return torch.from_numpy(net.forward(end))


def photograph(size: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(size).standard_normal((1, channels, size, size), np.float32)


def largefov(classes: int = 5, **settings: object) -> list[writer.Layer]:
    return writer.filled(writer.largefov(classes, divisor=NARROW, **settings))


def attentive(classes: int = 5, scales: Sequence[str] = ("_res075", "_res05")) -> list[writer.Layer]:
    """An attention net as its authors write it: a LargeFOV for each scale, with the same parameters, and the head."""
    one = largefov(classes)
    head = writer.filled(writer.attention(1 + len(scales), features=1024 // NARROW, width=24), seed=1)
    gentle = [replace(layer, blobs=tuple(blob * np.float32(0.3) for blob in layer.blobs)) for layer in head]
    return [*one, *(layer for scale in scales for layer in writer.at_scale(one, scale)), *gentle]


# The networks, against OpenCV


@pytest.mark.parametrize(("size", "pool5a", "version"), [(321, False, "V1"), (513, True, "V2")])
def test_largefov_scores_as_in_opencv(size: int, pool5a: bool, version: str, narrow, file, tmp_path: Path) -> None:
    layers = largefov(pool5a=pool5a)
    path = file(layers, version)
    import_caffe(path, tmp_path / "model")
    image = photograph(size)
    with torch.inference_mode():
        scores = scaleseg.load(tmp_path / "model").segmenter(torch.from_numpy(image)).scores
    torch.testing.assert_close(scores, oracle(layers, {"data": image}, path, "fc8_voc12"), atol=1e-4, rtol=0)


def test_largefov_of_full_width_scores_as_in_opencv(file, tmp_path: Path) -> None:
    layers = writer.filled(writer.largefov(21))
    path = file(layers, "V1")
    import_caffe(path, tmp_path / "model")
    image = photograph(97)
    loaded = scaleseg.load(tmp_path / "model")
    with torch.inference_mode():
        scores = loaded.segmenter(torch.from_numpy(image)).scores
    assert loaded.classes == CLASSES
    torch.testing.assert_close(scores, oracle(layers, {"data": image}, path, "fc8_voc12"), atol=1e-4, rtol=0)


def test_msc_scores_as_in_opencv(narrow, file, tmp_path: Path) -> None:
    layers = writer.filled(writer.msc(5, divisor=NARROW))
    path = file(layers)
    assert import_caffe(path, tmp_path / "model").segmenter == "msc"
    image = photograph(321)
    with torch.inference_mode():
        scores = scaleseg.load(tmp_path / "model").segmenter(torch.from_numpy(image)).scores
    torch.testing.assert_close(scores, oracle(layers, {"data": image}, path, "fc_fusion"), atol=1e-4, rtol=0)


def test_resnet101_scores_as_in_opencv(narrow, file, tmp_path: Path) -> None:
    layers = writer.filled(writer.resnet101(5, divisor=NARROW))
    path = file(layers)
    assert import_caffe(path, tmp_path / "model").segmenter == "resnet101"
    image = photograph(321)
    with torch.inference_mode():
        scores = scaleseg.load(tmp_path / "model").segmenter(torch.from_numpy(image)).scores
    torch.testing.assert_close(scores, oracle(layers, {"data": image}, path, "fc1_voc12"), atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [321, 513])
def test_the_attention_model_as_a_whole_is_what_opencv_makes_of_its_parts(
    size: int, narrow, file, tmp_path: Path
) -> None:
    layers = attentive()
    path = file(layers)
    import_caffe(path, tmp_path / "model")
    loaded = scaleseg.load(tmp_path / "model")
    assert loaded.scales == (1.0, 0.75, 0.5)
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        prediction = loaded(image)
    weights, scores = fused_by_opencv(layers, image, path)
    torch.testing.assert_close(prediction.scale_weights[:, :, 0], weights, atol=1e-4, rtol=0)
    torch.testing.assert_close(prediction.scores, scores, atol=1e-4 * float(scores.abs().max()), rtol=0)


def fused_by_opencv(layers: list[writer.Layer], image: torch.Tensor, path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Every network in OpenCV; what it lacks, Caffe's Interp and the product with the weights, in PyTorch."""
    mean = torch.tensor([104.008, 116.669, 122.675])[:, None, None]
    bgr = 255 * image.flip(1) - mean
    size = image.shape[-1]
    grid = ((size - 1) // 8 + 1,) * 2

    def interp(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return nn.functional.interpolate(maps, size, mode="bilinear", align_corners=True)

    features, scores = [], []
    single = largefov()
    for scale in (1, 0.75, 0.5):
        side = int((size - 1) * scale) + 1
        data = {"data": interp(bgr, (side, side)).numpy()}
        features.append(interp(oracle(single, data, path, "relu_fc7"), grid))
        scores.append(interp(oracle(single, data, path, "fc8_voc12"), grid))
    names = ("fc7", "fc7_res075_interp", "fc7_res05_interp")
    concat = writer.Layer("fc7_concat", "Concat", names, "fc7_concat", "concat_param { axis: 1 }")
    head = [concat, *writer.attention(3, features=1024 // NARROW, width=24)]
    given = {name: part.numpy() for name, part in zip(names, features, strict=True)}
    weights = oracle(head, given, path, "attention")
    return weights, sum(weights[:, [index]] * part for index, part in enumerate(scores))


def test_a_fully_connected_layer_is_a_convolution_over_its_whole_map(file) -> None:
    """Caffe's InnerProduct, whose rows are the taps of a 7x7 convolution in a row: as VGG-16's fc6 is stored."""
    weight = np.zeros((6, 4 * 49), np.float32)
    dense = writer.Layer(
        "fc6", "InnerProduct", ("data",), "fc6", "inner_product_param { num_output: 6 }", (weight, weight[:, 0])
    )
    layers = writer.filled([dense])
    for version in ("V1", "V2"):
        path = file(layers, version)
        network = Network.of(caffe.read(path), {}, path)
        ours = dict(caffe.tensors(network, {"fc6.weight": (6, 4, 7, 7), "fc6.bias": (6,)}, "VGG-16"))
        image = photograph(7, channels=4)
        scores = nn.functional.conv2d(torch.from_numpy(image), ours["fc6.weight"], ours["fc6.bias"])
        torch.testing.assert_close(scores[:, :, 0, 0], oracle(layers, {"data": image}, path, "fc6"), atol=1e-4, rtol=0)


# The file format


FORMS = [(version, blobs) for version in ("V0", "V1", "V2") for blobs in ("packed", "unpacked", "double", "chunked")]


@pytest.mark.parametrize(("version", "blobs"), FORMS)
def test_every_format_of_a_file_holds_the_same_parameters(version: str, blobs: str, file) -> None:
    layers = writer.filled([writer.convolution("conv1", "data", (40, 3, 7, 7)), writer.relu("conv1")])
    net = caffe.read(file(layers, version, blobs))
    assert net.version == version
    assert [(layer.name, layer.kind) for layer in net.layers] == [("conv1", "Convolution"), ("relu_conv1", "ReLU")]
    for found, written in zip(net.layers[0].blobs, layers[0].blobs, strict=True):
        np.testing.assert_array_equal(found.reshape(written.shape), written)


def test_a_blob_without_shape_is_a_single_number(tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    factor = writer.message(5, np.float32(999).tobytes())
    path.write_bytes(writer.message(100, writer.text(1, "bn") + writer.message(7, factor)))
    assert caffe.read(path).layers[0].blobs[0].size == 1


def test_parameters_are_not_copied_by_reading(file) -> None:
    path = file([writer.convolution("conv1", "data", (64, 64, 16, 16))])
    tracemalloc.start()
    net = caffe.read(path)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert net.layers[0].blobs[0].nbytes > 4_000_000
    assert taken < 400_000


def layer_of(*parts: bytes) -> bytes:
    return writer.message(100, writer.text(1, "conv1") + b"".join(parts))


def blob_of(*parts: bytes) -> bytes:
    return layer_of(writer.message(7, b"".join(parts)))


def shaped(*axes: int) -> bytes:
    return writer.message(7, writer.message(1, b"".join(map(writer.varint, axes))))


ONE = writer.message(5, b"\0\0\x80?")
NESTED = b""
for _ in range(1000):
    NESTED = writer.message(100, NESTED)
HOSTILE = {
    "empty": b"",
    "text": b'layer { name: "conv1" type: "Convolution" }\n',
    "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "jpeg": b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(range(256)),
    "zip": b"PK\x03\x04\x14\0\0\0\x08\0" + bytes(range(256)),
    "zeros": bytes(4096),
    "no layers": writer.text(1, "net"),
    "no parameters": layer_of(),
    "huge length": writer.varint(100 << 3 | 2) + writer.varint(1 << 62) + b"abc",
    "huge blob": blob_of(writer.varint(5 << 3 | 2) + writer.varint(1 << 40) + b"abcd"),
    "huge shape": blob_of(ONE, shaped(1 << 31, 1 << 31)),
    "huge old shape": blob_of(ONE, writer.varint(1 << 3) + writer.varint(1 << 63)),
    "negative axis": blob_of(ONE, shaped((1 << 64) - 1)),
    "empty axis": blob_of(shaped(0, 1 << 62, 1 << 62)),
    "many axes": blob_of(ONE, shaped(*[1] * 33)),
    "very many axes": blob_of(ONE, shaped(*[1] * 100_000)),
    "wrong shape": blob_of(ONE, shaped(2)),
    "half a number": blob_of(writer.message(5, b"\0\0\x80"), shaped(1)),
    "no numbers": blob_of(),
    "nested deep": NESTED,
    "overlong number": b"\x80" * 11 + b"\1",
    "number of 70 bits": b"\x08" + b"\xff" * 9 + b"\x7f",
    "group": writer.varint(3 << 3 | 3) + writer.varint(3 << 3 | 4),
    "wire type 6": writer.varint(3 << 3 | 6),
    "field 0": b"\0\1",
    "blob is a number": layer_of(writer.varint(7 << 3) + b"\1"),
    "data is a number": blob_of(writer.varint(5 << 3) + b"\1", shaped(1)),
    "data is of 64 bits": blob_of(writer.varint(5 << 3 | 1) + bytes(8), shaped(2)),
    "axis is of 32 bits": blob_of(ONE, writer.varint(1 << 3 | 5) + bytes(4)),
    "name is a number": writer.message(100, b"\x08\1"),
    "long name": writer.message(100, writer.text(1, "x" * 10_000_000)),
    "many layers": writer.message(100, b"") * 300_000,
    "many blobs": layer_of(writer.message(7, ONE) * 55_000),
    "alternating fields": blob_of((b"\x2d" + bytes(4) + b"\x08\1") * 55_000),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_caffemodel_is_a_sentence(name: str, plain_read, tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(HOSTILE[name])
    tracemalloc.start()
    with pytest.raises(UserError) as caught:
        plain_read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 300
    assert peak < 100_000_000


def test_what_a_file_is_instead_is_said(plain_read, tmp_path: Path) -> None:
    for name, advice in (("text", "it is text: a .prototxt"), ("hdf5", "it is HDF5"), ("jpeg", "fetch it again")):
        (tmp_path / name).write_bytes(HOSTILE[name])
        with pytest.raises(UserError, match=advice):
            plain_read(tmp_path / name)


@pytest.mark.parametrize("place", ["missing", "", "/dev/zero"])
def test_what_is_no_file_is_a_sentence(place: str, plain_read, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"give a \.caffemodel"):
        plain_read(tmp_path / place)


def small_file(version: str) -> bytes:
    """Three layers, whose parameters are stored in three ways."""
    layer = writer.filled([writer.convolution("conv1_1", "data", (2, 1, 2, 2))])[0]
    forms = ("packed", "unpacked", "double")
    return writer.text(1, "net") + b"".join(writer.caffe_layer(layer, version, form) for form in forms)


@pytest.mark.parametrize("version", ["V0", "V1", "V2"])
def test_a_file_cut_short_anywhere_holds_less_or_is_refused(version: str, plain_read, tmp_path: Path) -> None:
    whole, path = small_file(version), tmp_path / "net.caffemodel"
    read = 0
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        try:
            read += len(plain_read(path).layers) < 3
        except UserError:
            continue
    assert read == 2  # where one layer ends and the next begins


def mutant(content: bytes, generator: np.random.Generator) -> bytes:
    """A few bytes changed, cut out, doubled or swapped."""
    damaged = bytearray(content)
    for _ in range(generator.integers(1, 6)):
        start, size = int(generator.integers(len(damaged))), int(generator.integers(1, 12))
        part = damaged[start : start + size]
        odd = bytes(
            generator.choice([0, 1, 2, 5, 0x7F, 0x80, 0xFF, *generator.integers(0, 256, 3)], len(part)).astype(np.uint8)
        )
        damaged[start : start + size] = [b"", bytes(part) * 2, odd, bytes([part[0] ^ 1 << int(generator.integers(8))])][
            generator.integers(4)
        ]
    return bytes(damaged)


@pytest.mark.parametrize("version", ["V0", "V1", "V2"])
def test_over_a_thousand_damaged_files_are_read_or_refused_in_little_memory(
    version: str, plain_read, tmp_path: Path
) -> None:
    whole, path = small_file(version), tmp_path / "net.caffemodel"
    generator = np.random.default_rng(0)
    ends = {True: 0, False: 0}
    for index in range(1200):
        if index == 1100:
            tracemalloc.start()  # for these alone: it makes all slower
        path.write_bytes(mutant(whole, generator))
        try:
            plain_read(path)
            ends[True] += 1
        except UserError:
            ends[False] += 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert min(ends.values()) > 20
    assert peak < 1_000_000


def test_damaged_networks_are_imported_or_refused(unchecked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow_by(64, monkeypatch)
    head = writer.attention(2, features=16, width=4)
    layers = writer.filled([*writer.largefov(3, divisor=64), *head])
    whole, path = writer.caffemodel(layers), tmp_path / "net.caffemodel"
    generator = np.random.default_rng(1)
    ends = {True: 0, False: 0}
    for index in range(80):
        path.write_bytes(mutant(whole, generator))
        try:
            import_caffe(path, tmp_path / str(index))
            ends[True] += 1
        except UserError:
            ends[False] += 1
    assert min(ends.values()) > 0


# What a network is


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("conv1_1", "trunk.conv1_1"),
        ("fc6", "fc6"),
        ("fc8", "fc8"),
        ("fc8_voc12", "fc8"),
        ("fc8_voc10_part", "fc8"),
        ("att_conv1", "fusion.hidden"),
        ("att_fc", "fusion.logits"),
        ("pool3_ms", "pool3_ms"),
        ("conv1", "trunk.conv1"),
        ("bn_conv1", "trunk.bn1"),
        ("scale_conv1", "trunk.bn1"),
        ("res2a_branch1", "trunk.layer1.0.downsample.0"),
        ("bn5a_branch1", "trunk.layer4.0.downsample.1"),
        ("res3b2_branch2a", "trunk.layer2.2.conv1"),
        ("scale4b22_branch2c", "trunk.layer3.22.bn3"),
        ("res5c_branch2b", "trunk.layer4.2.conv2"),
        ("fc1_voc12_c3", "aspp.3"),
        ("conv4_4_CPM", None),
        ("upscore", None),
    ],
)
def test_a_layer_of_caffe_is_one_of_ours(theirs: str, ours: str | None) -> None:
    assert layer_name(theirs) == ours


def test_the_names_of_resnet_cover_it() -> None:
    with torch.device("meta"):
        own = create_segmenter("resnet101", 5).state_dict()
    ours = {layer_name(layer.name) for layer in writer.resnet101(5, divisor=16) if layer.blobs}
    assert ours == {name.rpartition(".")[0] for name in own}


@pytest.mark.parametrize(
    ("name", "base", "scale"),
    [("conv1_1_res05", "conv1_1", 0.5), ("fc8_voc12_res075", "fc8_voc12", 0.75), ("fc7_res025_interp", "fc7_interp", 0.25),
     ("res2a_branch1", "res2a_branch1", 1.0), ("res5c", "res5c", 1.0)],
)  # fmt: skip
def test_a_name_tells_its_scale(name: str, base: str, scale: float) -> None:
    assert split_scale(name) == (base, scale)


def test_normalisation_is_caffes(narrow, file, tmp_path: Path) -> None:
    import_caffe(file(largefov()), tmp_path / "model")
    loaded = scaleseg.load(tmp_path / "model")
    assert loaded.order.tolist() == [2, 1, 0]
    torch.testing.assert_close(loaded.mean.flatten(), torch.tensor(CAFFE.mean))
    torch.testing.assert_close(loaded.std.flatten(), torch.tensor(CAFFE.std))


@pytest.mark.parametrize(
    ("suffixes", "scales"), [((), (1.0, 0.5)), (("_res05",), (1.0, 0.5)), (("_res075",), (1.0, 0.75))]
)
def test_scales_come_of_the_names_or_else_of_the_heads_width(suffixes, scales, narrow, file, tmp_path: Path) -> None:
    layers = attentive(scales=suffixes or ("_res05",))
    kept = [layer for layer in layers if suffixes or "_res" not in layer.name]
    import_caffe(file(kept), tmp_path / "model")
    assert scaleseg.load(tmp_path / "model").scales == scales


def test_a_head_for_other_scales_than_the_names_tell_is_refused(narrow, file, tmp_path: Path) -> None:
    layers = [*attentive(), *writer.at_scale(largefov(), "_res025")]
    with pytest.raises(UserError, match="tell of"):
        import_caffe(file(layers), tmp_path / "model")


@pytest.mark.parametrize(("operation", "fusion"), [("MAX", "max"), ("SUM", "average"), (None, "max")])
def test_scales_without_attention_are_merged_as_the_eltwise_layer_says(
    operation, fusion, narrow, file, tmp_path
) -> None:
    one = writer.filled(writer.resnet101(5, divisor=NARROW))
    layers = [*one, *writer.at_scale(one, "_res075"), *writer.at_scale(one, "_res05")]
    merge = writer.Layer("fc_fusion", "Eltwise", (), "fc_fusion", f"eltwise_param {{ operation: {operation} }}")
    import_caffe(file([*layers, merge] if operation else layers), tmp_path / "model")
    settings = read_config(tmp_path / "model").model
    assert (settings.fusion, settings.scales) == (fusion, (1.0, 0.75, 0.5))


def test_copies_of_a_shared_layer_must_be_equal(narrow, file, tmp_path: Path) -> None:
    other = [writer.at_scale(writer.filled(largefov(), seed=9), "_res05")[0]]
    with pytest.raises(UserError, match=r"'conv1_1' and 'conv1_1_res05' should share .* --map NAME=-"):
        import_caffe(file([*largefov(), *other]), tmp_path / "model")
    done = import_caffe(file([*largefov(), *other]), tmp_path / "model", names={"conv1_1_res05": "-"})
    assert done.left_out == ("conv1_1_res05",)


def test_classes_are_numbers_vocs_or_given(narrow, file, tmp_path: Path) -> None:
    import_caffe(file(largefov(21)), tmp_path / "voc")
    import_caffe(file(largefov(3)), tmp_path / "numbers")
    import_caffe(file(largefov(3)), tmp_path / "named", classes=["ground", "cat", "dog"])
    named = [read_config(tmp_path / name).data.classes for name in ("voc", "numbers", "named")]
    assert named == [CLASSES, ("0", "1", "2"), ("ground", "cat", "dog")]


def test_a_single_class_is_one(narrow, file, tmp_path: Path) -> None:
    import_caffe(file(largefov(1)), tmp_path / "model", classes=["cat"])
    assert read_config(tmp_path / "model").data.classes == ("cat",)


def test_a_model_tells_its_source_and_no_training(narrow, file, tmp_path: Path) -> None:
    import_caffe(file(largefov()), tmp_path / "model")
    document = json.loads((tmp_path / "model" / "config.json").read_text())
    assert document["about"] == {"source": "net.caffemodel"}
    assert "train" not in document


def test_batch_norm_is_divided_by_its_factor(narrow, file, tmp_path: Path) -> None:
    layers = writer.filled(writer.resnet101(5, divisor=NARROW))
    import_caffe(file(layers), tmp_path / "model")
    mean, variance, factor = next(layer.blobs for layer in layers if layer.name == "bn_conv1")
    own = load_file(tmp_path / "model" / "model.safetensors")
    np.testing.assert_allclose(own["segmenter.trunk.bn1.running_mean"], mean / factor, rtol=1e-6)
    np.testing.assert_allclose(own["segmenter.trunk.bn1.running_var"], variance / factor, rtol=1e-6)


def test_another_epsilon_is_another_network(narrow, file, tmp_path: Path) -> None:
    layers = writer.filled(writer.resnet101(5, divisor=NARROW))
    odd = [
        replace(layer, settings="batch_norm_param { eps: 0.001 }") if layer.kind == "BatchNorm" else layer
        for layer in layers
    ]
    with pytest.raises(UserError, match=r"adds 0.001 to the variance; .* adds 1e-05"):
        import_caffe(file(odd), tmp_path / "model")


# A start for training


def dense(name: str, rows: int, columns: int) -> writer.Layer:
    blobs = (np.zeros((rows, columns), np.float32), np.zeros(rows, np.float32))
    return writer.Layer(name, "InnerProduct", ("pool5",), name, "", blobs)


def test_imagenets_vgg_is_a_file_that_read_vgg16_reads(narrow, file, tmp_path: Path) -> None:
    """V1, as VGG_ILSVRC_16_layers.caffemodel; 7x7 and 1x1 taps in a row; fc8 left out."""
    convolutions = list(writer.vgg(NARROW))
    classifier = [dense("fc6", 256, 32 * 49), dense("fc7", 256, 256), dense("fc8", 1000, 256)]
    layers = writer.filled([*convolutions, *classifier])
    done = import_caffe(file(layers, "V1"), tmp_path / "vgg")
    assert (done.complete, done.left_out, done.title) == (False, ("fc8",), "VGG-16")
    assert [path.name for path in (tmp_path / "vgg").iterdir()] == ["model.safetensors"]
    read = read_vgg16(str(done.written))
    given = {layer.name: layer.blobs for layer in layers}
    assert read.normalization == CAFFE
    np.testing.assert_array_equal(read.classifier["fc6.weight"], given["fc6"][0].reshape(256, 32, 7, 7))
    np.testing.assert_array_equal(read.classifier["fc7.weight"], given["fc7"][0].reshape(256, 256, 1, 1))
    assert {f"{layer.name}.weight" for layer in convolutions if layer.blobs} <= read.convolutions.keys()


def test_the_shapes_of_vgg_are_those_that_largefov_starts_from() -> None:
    with torch.device("meta"):
        own = create_segmenter("largefov", 2).state_dict()
    whole = caffe_import._vgg_shapes(Network.of(caffe.Net("V1", ()), {}, Path("x")))
    assert whole == {name: tuple(tensor.shape) for name, tensor in own.items() if name.startswith("trunk.")}
    assert {name: tuple(own[name].shape) for name in WHOLE} == caffe_import.CUT


def test_deeplabs_init_model_starts_largefov(narrow, file, tmp_path: Path) -> None:
    layers = [layer for layer in largefov() if not layer.name.startswith("fc8")]
    done = import_caffe(file(layers), tmp_path / "init")
    started = narrowed("largefov", 7)
    started.load_pretrained(str(done.written))
    image = photograph(65)
    with torch.inference_mode():
        features = started.eval()(torch.from_numpy(image)).features
    theirs = oracle(layers, {"data": image}, file(layers), "relu_fc7")
    torch.testing.assert_close(features, theirs, atol=1e-4, rtol=0)


def test_a_resnet_without_pyramid_starts_resnet101(narrow, file, tmp_path: Path) -> None:
    layers = [layer for layer in writer.filled(writer.resnet101(5, divisor=NARROW)) if "fc1_voc12" not in layer.name]
    done = import_caffe(file([*layers, writer.filled([dense("fc1000", 1000, 128)])[0]]), tmp_path / "init")
    assert (done.title, done.left_out) == ("ResNet-101", ("fc1000",))
    started = narrowed("resnet101", 7)
    started.load_pretrained(str(done.written))
    image = photograph(65)
    with torch.inference_mode():
        features = started.eval()(torch.from_numpy(image)).features
    assert started.normalization == CAFFE
    torch.testing.assert_close(features, oracle(layers, {"data": image}, file(layers), "relu_res5c"), atol=1e-4, rtol=0)


def test_names_for_classes_of_a_start_are_refused(narrow, file, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no scores of pixels"):
        import_caffe(file(list(writer.vgg(NARROW))), tmp_path / "vgg", classes=["a"])


# What does not fit


def renamed(layers: list[writer.Layer], old: str, new: str) -> list[writer.Layer]:
    return [replace(layer, name=new) if layer.name == old else layer for layer in layers]


def test_unknown_and_missing_layers_are_listed(narrow, file, tmp_path: Path) -> None:
    layers = renamed(renamed(largefov(), "fc7", "dense7"), "conv3_2", "conv3_two")
    with pytest.raises(UserError) as caught:
        import_caffe(file(layers), tmp_path / "model")
    assert "unknown layers with parameters: conv3_two, dense7" in str(caught.value)
    assert "trunk.conv3_2.weight, trunk.conv3_2.bias" in str(caught.value)
    assert "--map THEIRS=OURS" in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_an_unknown_layer_can_be_mapped_or_left_out(narrow, file, tmp_path: Path) -> None:
    extra = writer.filled([writer.convolution("aux", "fc7", (4, 64, 1, 1))])
    layers = [*renamed(largefov(), "fc8_voc12", "score"), *extra]
    done = import_caffe(file(layers), tmp_path / "model", names={"score": "fc8", "aux": "-"})
    assert done.left_out == ("aux",)
    own = load_file(tmp_path / "model" / "model.safetensors")
    score = next(layer for layer in layers if layer.name == "score")
    np.testing.assert_array_equal(own["segmenter.fc8.weight"], score.blobs[0])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"scores": "fc8"}, "no layer 'scores' with parameters; did you mean 'score'"),
        ({"score": "fc9"}, r"has no layer 'fc9'; choose for example"),
        ({"score": "trunk.conv1_1"}, r"both are trunk.conv1_1; leave one out"),
        ({"relu_fc7": "-"}, "no layer 'relu_fc7' with parameters"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused(names: dict[str, str], message: str, narrow, file, tmp_path: Path) -> None:
    layers = [*largefov(), *writer.filled([writer.convolution("score", "fc7", (4, 64, 1, 1))])]
    with pytest.raises(UserError, match=message):
        import_caffe(file(layers), tmp_path / "model", names=names)


def broken(layers: list[writer.Layer], name: str, *blobs: np.ndarray) -> list[writer.Layer]:
    return [replace(layer, blobs=blobs) if layer.name == name else layer for layer in layers]


ONES = np.ones((64, 64, 1, 1), np.float32)


@pytest.mark.parametrize(
    ("blobs", "message"),
    [
        ((ONES[:, :32], ONES[:, 0, 0, 0]), r"fc7 has \(64, 32, 1, 1\) for fc7.weight; .* has \(64, 64, 1, 1\)"),
        ((ONES,), r"without parameters remain: fc7.bias"),
        ((ONES, ONES[0, :, 0, 0], ONES), r"'fc7' has 3 blobs; weight, bias are known"),
        ((ONES * np.float32("nan"), ONES[:, 0, 0, 0]), "fc7 holds NaN"),
        ((ONES * np.float32("inf"), ONES[:, 0, 0, 0]), "fc7 holds NaN, infinity"),
    ],
)
def test_blobs_that_do_not_fit_are_refused(blobs, message: str, narrow, file, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        import_caffe(file(broken(largefov(), "fc7", *blobs)), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_numbers_beyond_float32_are_refused(narrow, file, tmp_path: Path) -> None:
    layers = broken(largefov(), "fc7", ONES.astype(np.float64) * 1e300, ONES[:, 0, 0, 0])
    path = tmp_path / "net.caffemodel"
    path.write_bytes(b"".join(writer.caffe_layer(layer, "V2", "double") for layer in layers))
    with pytest.raises(UserError, match="fc7 holds NaN, infinity"):
        import_caffe(path, tmp_path / "model")


def test_a_negative_variance_is_refused(narrow, file, tmp_path: Path) -> None:
    layers = writer.filled(writer.resnet101(5, divisor=NARROW))
    four = np.ones(4, np.float32)
    with pytest.raises(UserError, match="bn_conv1 holds NaN, infinity or a negative variance"):
        import_caffe(file(broken(layers, "bn_conv1", four, -four, four[:1])), tmp_path / "model")


def test_more_than_255_classes_are_refused(narrow, file, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="256 classes"):
        import_caffe(file(largefov(256)), tmp_path / "model")


# The command line


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., SimpleNamespace]:
    """Run `scaleseg` with arguments in this process."""

    def run(*arguments: object) -> SimpleNamespace:
        monkeypatch.setattr(sys, "argv", ["scaleseg", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return run


def test_the_verb_says_what_it_found_and_what_comes_next(call, narrow, file, tmp_path: Path) -> None:
    path = file([*attentive(), *writer.filled([writer.convolution("aux", "fc7", (4, 64, 1, 1))])])
    ended = call("import-caffe", path, "--to", tmp_path / "model", "--map", "aux=-", "--classes", "a, b,c,d,e")
    assert ended.code == 0, ended.err
    assert f"{path} (Caffe V2): DeepLab-LargeFOV, attention over scales 1, 0.75, 0.5, 5 classes; 18 layers" in ended.out
    assert "left out: aux" in ended.out
    assert f"next: scaleseg predict {tmp_path / 'model'}" in ended.out
    assert scaleseg.load(tmp_path / "model").classes == ("a", "b", "c", "d", "e")


def test_the_verb_names_the_file_for_training(call, narrow, file, tmp_path: Path) -> None:
    ended = call("import-caffe", file(list(writer.vgg(NARROW))), "--to", tmp_path / "my models")
    assert ended.code == 0, ended.err
    assert f"model.pretrained='{tmp_path / 'my models' / 'model.safetensors'}'" in ended.out


@pytest.mark.parametrize("there", ["file", "folder with content"])
def test_the_verb_overwrites_nothing(there: str, call, narrow, file, tmp_path: Path) -> None:
    target = tmp_path / "target"
    kept = target if there == "file" else target / "kept"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("mine")
    ended = call("import-caffe", file(largefov()), "--to", target)
    assert (ended.code, kept.read_text()) == (1, "mine")
    assert ended.err == f"scaleseg: {target} is there already; choose a new or an empty folder\n"


def test_a_link_that_leads_to_itself_is_refused(call, narrow, file, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    ended = call("import-caffe", file(largefov()), "--to", tmp_path / "loop")
    assert (ended.code, len(ended.err.strip().splitlines())) == (1, 1)


def test_the_verb_fills_an_empty_folder(call, narrow, file, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file(largefov())
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert call("import-caffe", path, "--to", ".").code == 0
    assert (tmp_path / "empty" / "config.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--map", "score"], "--map is 'score'; give THEIRS=OURS"),
        (["--map", "=fc8"], "--map is '=fc8'; give THEIRS=OURS"),
        (["--map", "fc7=fc6", "--map", "fc7=-"], "--map says fc7=fc6 and fc7=-; say once what a layer is"),
        (["--classes", "a,b"], "--classes names 2 classes, but "),
        (["--classes", "a,a,b,c,d"], "data.classes"),
    ],
)
def test_a_users_mistake_is_one_line(arguments: list[str], message: str, call, narrow, file, tmp_path: Path) -> None:
    ended = call("import-caffe", file(largefov()), "--to", tmp_path / "model", *arguments)
    assert ended.code == 1
    assert message in ended.err
    assert len(ended.err.strip().splitlines()) == 1


def test_the_help_says_what_is_accepted_and_ends_with_a_line_to_copy(call) -> None:
    ended = call("import-caffe", "--help")
    assert "Try: scaleseg import-caffe" in ended.out.strip().splitlines()[-1]
    assert all(name in ended.out for name in ("LargeFOV", "ResNet-101", "VGG-16", "--map", "--classes"))
