"""DeepLab v2's ResNet-101: dilation, the pyramid, and parameters under the names of torchvision and of two ports."""

import hashlib
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from scaleseg.errors import UserError
from scaleseg.geometry import Grid
from scaleseg.segmenters import create_segmenter, resnet101
from scaleseg.segmenters.contract import CAFFE, Normalization
from scaleseg.training.optimizer import freeze_batch_norm

CLASSES = 3
DEPTHS = {"layer1": 3, "layer2": 4, "layer3": 23, "layer4": 3}
INNER = {"layer1": 64, "layer2": 128, "layer3": 256, "layer4": 512}
FEATURES = 16
"""Of the narrow network."""


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def narrow(monkeypatch):
    """The same network with a few channels and blocks."""
    blocks = {name: (2, 4, stride, dilation) for name, (_, _, stride, dilation) in resnet101.BLOCKS.items()}
    monkeypatch.setattr(resnet101, "BLOCKS", blocks)
    monkeypatch.setattr(resnet101.ResNet101, "num_features", FEATURES)


def create(stride_in="1x1", num_classes=CLASSES):
    """Every parameter and statistic random, so that nothing is one or zero by its initial value."""
    network = create_segmenter("resnet101", num_classes, {"stride_in": stride_in})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.ndim == 4:
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * (2 / tensor[0].numel()) ** 0.5)
            elif tensor.ndim == 1:
                spread = torch.rand(tensor.shape, generator=generator)
                tensor.copy_(spread + 0.5 if name.endswith(("running_var", "weight")) else spread - 0.5)
    return network.eval()


def on_meta(stride_in="1x1", num_classes=21):
    """The network in its real size, without memory."""
    with torch.device("meta"):
        return create_segmenter("resnet101", num_classes, {"stride_in": stride_in}).eval()


def test_the_number_of_parameters_follows_from_the_layers():
    trunk, width = 3 * 49 * 64 + 2 * 64, 64
    for layer, inner in INNER.items():
        block = 9 * inner**2 + 4 * inner**2 + 2 * (inner + inner + 4 * inner)
        trunk += DEPTHS[layer] * block + (width + 2) * 4 * inner  # the projection and its norm
        trunk += width * inner + (DEPTHS[layer] - 1) * 4 * inner**2
        width = 4 * inner
    network = on_meta()
    assert sum(parameter.numel() for parameter in network.trunk.parameters()) == trunk
    assert sum(parameter.numel() for parameter in network.aspp.parameters()) == 4 * (9 * 2048 + 1) * 21


@pytest.mark.parametrize("stride_in", ["1x1", "3x3"])
def test_321_pixels_become_41_cells(stride_in):
    dense = on_meta(stride_in)(torch.zeros(1, 3, 321, 513, device="meta"))
    assert dense.features.shape == (1, 2048, 41, 65)
    assert dense.scores.shape == (1, 21, 41, 65)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("stride_in", ["1x1", "3x3"])
@pytest.mark.parametrize("scale", [1.5, 1.0, 0.75, 0.5, 0.25])
@torch.no_grad()
def test_scores_lie_on_the_grid_of_every_scale(stride_in, scale):
    network = create(stride_in)
    for size in [(1, 1), (33, 65), (97, 34), (50, 129), (161, 96)]:
        grid = Grid(size, (1.0, scale), network.output_stride, network.align_corners)
        scores = network(noise(1, 3, *grid.input_size(scale))).scores
        assert tuple(scores.shape[-2:]) == grid.score_size(scale)


# what it computes


def strided(trunk, images, stride_in):
    """An ordinary ResNet of output stride 32 with the same parameters: every layer but the first halves the maps."""
    tensors = trunk.state_dict()

    def normed(name, norm, maps, **settings):
        maps = F.conv2d(maps, tensors[f"{name}.weight"], **settings)
        mean, variance, gain, bias = (
            tensors[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(maps, mean, variance, gain, bias, eps=1e-5)

    maps = F.max_pool2d(F.relu(normed("conv1", "bn1", images, stride=2, padding=3)), 3, 2, padding=1)
    for layer, (count, *_) in resnet101.BLOCKS.items():
        for index in range(count):
            name, stride = f"{layer}.{index}", 2 if index == 0 and layer != "layer1" else 1
            first, second = (stride, 1) if stride_in == "1x1" else (1, stride)
            inner = F.relu(normed(f"{name}.conv1", f"{name}.bn1", maps, stride=first))
            inner = F.relu(normed(f"{name}.conv2", f"{name}.bn2", inner, stride=second, padding=1))
            inner = normed(f"{name}.conv3", f"{name}.bn3", inner)
            if index == 0:
                maps = normed(f"{name}.downsample.0", f"{name}.downsample.1", maps, stride=stride)
            maps = F.relu(inner + maps)
    return maps


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("stride_in", ["1x1", "3x3"])
@torch.no_grad()
def test_dilation_adds_cells_between_those_of_the_strided_network(stride_in):
    network, images = create(stride_in), noise(1, 3, 129, 193)
    coarse = strided(network.trunk, images, stride_in)
    assert coarse.shape == (1, FEATURES, 5, 7)
    torch.testing.assert_close(network(images).features[..., ::4, ::4], coarse, atol=1e-5, rtol=1e-4)


@pytest.mark.usefixtures("narrow")
@torch.no_grad()
def test_the_two_strides_are_two_networks():
    images = noise(1, 3, 65, 65)
    assert not torch.allclose(create("1x1")(images).features, create("3x3")(images).features)


@pytest.mark.usefixtures("narrow")
@torch.no_grad()
def test_scores_are_the_sum_of_four_dilated_convolutions():
    network = create()
    features, scores, _ = network(noise(2, 3, 65, 97))
    parts = [
        F.conv2d(features, branch.weight, branch.bias, padding=rate, dilation=rate)
        for branch, rate in zip(network.aspp, (6, 12, 18, 24), strict=True)
    ]
    torch.testing.assert_close(scores, sum(parts), atol=1e-5, rtol=1e-4)


@pytest.mark.usefixtures("narrow")
@torch.no_grad()
def test_one_feature_is_seen_from_33_cells_up_to_24_away():
    """The centre, and eight neighbours at each of four distances."""
    network, impulse = create(), torch.zeros(1, FEATURES, 65, 65)
    impulse[..., 32, 32] = 1
    for branch in network.aspp:
        branch.weight.fill_(1)
        branch.bias.zero_()
    seen = sum(branch(impulse) for branch in network.aspp)[0, 0].nonzero() - 32
    assert {tuple(cell) for cell in seen.tolist()} == {
        (rate * up, rate * right) for rate in (6, 12, 18, 24) for up in (-1, 0, 1) for right in (-1, 0, 1)
    }


@pytest.mark.usefixtures("narrow")
@torch.no_grad()
def test_scores_are_float32_under_autocast_too():
    with torch.autocast("cpu", torch.bfloat16):
        scores = create()(noise(1, 3, 33, 33)).scores
    assert scores.dtype == torch.float32
    assert not torch.equal(scores, scores.bfloat16().float())


@pytest.mark.usefixtures("narrow")
@torch.no_grad()
def test_a_new_network_passes_its_input_through_every_block():
    network = create_segmenter("resnet101", CLASSES).eval()
    maps = noise(1, FEATURES, 5, 5).relu()
    torch.testing.assert_close(network.trunk.layer3[1](maps), maps)


@pytest.mark.usefixtures("narrow")
def test_every_layer_learns():
    network = create().train()
    F.cross_entropy(network(noise(2, 3, 65, 65)).scores, torch.zeros(2, 9, 9, dtype=torch.long)).backward()
    assert [name for name, parameter in network.named_parameters() if not parameter.grad.any()] == []


def statistics(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items() if "running" in name}


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("frozen", [True, False])
@torch.no_grad()
def test_statistics_follow_the_batch_unless_they_are_frozen(frozen):
    network, images = create().train(), noise(2, 3, 33, 33)
    if frozen:
        freeze_batch_norm(network)
    before = statistics(network)
    network(images)
    kept = [torch.equal(tensor, before[name]) for name, tensor in statistics(network).items()]
    assert kept == [frozen] * len(before)


@pytest.mark.usefixtures("narrow")
@torch.no_grad()
def test_frozen_statistics_give_in_training_what_they_give_in_evaluation():
    network, images = create(), noise(2, 3, 33, 33)
    evaluated = network(images).scores
    freeze_batch_norm(network.train())
    torch.testing.assert_close(network(images).scores, evaluated)


# parameters from elsewhere


def torchvision_name(name):
    return name.removeprefix("trunk.")


def isht7_name(name):
    return f"Scale.{name.removeprefix('trunk.')}".replace("Scale.aspp.", "Scale.layer5.conv2d_list.")


def isht7_bare_name(name):
    return isht7_name(name).removeprefix("Scale.")


def kazuto_name(name):
    """Stem layer1, then layer2 to layer5; blocks from 1."""
    if name.startswith("aspp."):
        return name.replace("aspp.", "base.aspp.c")
    path, parameter = name.removeprefix("trunk.").rsplit(".", 1)
    if "." not in path:
        return f"base.layer1.conv1.{'conv' if path == 'conv1' else 'bn'}.{parameter}"
    layer, block, part = path.split(".", 2)
    parts = {
        "conv1": "reduce.conv", "bn1": "reduce.bn", "conv2": "conv3x3.conv", "bn2": "conv3x3.bn",
        "conv3": "increase.conv", "bn3": "increase.bn", "downsample.0": "shortcut.conv", "downsample.1": "shortcut.bn",
    }  # fmt: skip
    return f"base.layer{int(layer[5:]) + 1}.block{int(block) + 1}.{parts[part]}.{parameter}"


def kazuto_bare_name(name):
    return kazuto_name(name).removeprefix("base.")


Naming = Callable[[str], str]
PORTS = [isht7_name, isht7_bare_name, kazuto_name, kazuto_bare_name]


def renamed(network, naming, *, aspp):
    return {naming(n): tensor for n, tensor in network.state_dict().items() if aspp or not n.startswith("aspp.")}


def saved(tensors, path):
    torch.save(tensors, path)
    return str(path)


def assert_same(network, other, start=""):
    own = network.state_dict()
    names = [name for name in own if name.startswith(start) and "num_batches" not in name]
    assert names
    assert [name for name in names if not torch.equal(own[name], other.state_dict()[name])] == []


def test_these_are_the_names_of_the_published_files():
    """As torchvision's resnet.py, isht7's train.py and kazuto1011's convert.py have them."""
    assert torchvision_name("trunk.layer3.22.bn2.running_var") == "layer3.22.bn2.running_var"
    assert isht7_name("aspp.0.weight") == "Scale.layer5.conv2d_list.0.weight"
    assert kazuto_name("trunk.conv1.weight") == "base.layer1.conv1.conv.weight"
    assert kazuto_name("trunk.layer1.0.conv1.weight") == "base.layer2.block1.reduce.conv.weight"
    assert kazuto_name("aspp.0.weight") == "base.aspp.c0.weight"


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("naming", PORTS)
def test_a_port_fills_trunk_and_pyramid_of_as_many_classes(naming, tmp_path):
    source, network = create(), create_segmenter("resnet101", CLASSES)
    network.load_pretrained(saved(renamed(source, naming, aspp=True), tmp_path / "port.pth"))
    assert_same(network, source)
    assert network.normalization == CAFFE
    assert network.fresh_layers == ("aspp",)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("naming", PORTS)
def test_a_pyramid_of_other_classes_stays_as_it_was(naming, tmp_path):
    source, network = create(num_classes=CLASSES + 1), create_segmenter("resnet101", CLASSES)
    before = network.aspp.state_dict()["2.weight"].clone()
    network.load_pretrained(saved(renamed(source, naming, aspp=True), tmp_path / "port.pth"))
    assert torch.equal(network.aspp[2].weight, before)
    assert_same(network, source, start="trunk.")


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("naming", [isht7_name, kazuto_name, kazuto_bare_name])
def test_a_port_without_a_pyramid_fills_the_trunk(naming, tmp_path):
    source, network = create(), create_segmenter("resnet101", CLASSES)
    network.load_pretrained(saved(renamed(source, naming, aspp=False), tmp_path / "init.pth"))
    assert_same(network, source, start="trunk.")


@pytest.mark.usefixtures("narrow")
def test_the_authors_initial_parameters_fill_the_trunk_and_their_91_classes_are_left_out(tmp_path):
    """deeplabv1_resnet101-coco.pth: a port's names, one layer of scores for COCO."""
    source, network = create(), create_segmenter("resnet101", CLASSES)
    tensors = renamed(source, kazuto_bare_name, aspp=False) | {"fc.weight": noise(91, FEATURES, 1, 1)}
    network.load_pretrained(saved(tensors, tmp_path / "coco.pth"))
    assert_same(network, source, start="trunk.")
    assert network.normalization == CAFFE


@pytest.mark.usefixtures("narrow")
def test_torchvision_s_resnet_fills_the_trunk_and_leaves_its_classifier_out(tmp_path):
    source, network = create("3x3"), create_segmenter("resnet101", CLASSES, {"stride_in": "3x3"})
    tensors = renamed(source, torchvision_name, aspp=False) | {"fc.weight": noise(10, FEATURES), "fc.bias": noise(10)}
    network.load_pretrained(saved(tensors, tmp_path / "resnet101.pth"))
    assert_same(network, source, start="trunk.")
    assert network.normalization == Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def expanded(shapes, path):
    """A file as small as its values: every tensor is one number, expanded."""
    return saved({name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}, path)


def published_shapes():
    """Names and shapes of torchvision's ResNet-101, from the architecture's own numbers."""
    shapes, width = {"conv1.weight": (64, 3, 7, 7)}, 64
    norms = [("bn1", 64)]
    for layer, inner in INNER.items():
        for index in range(DEPTHS[layer]):
            name = f"{layer}.{index}"
            shapes |= {
                f"{name}.conv1.weight": (inner, width, 1, 1),
                f"{name}.conv2.weight": (inner, inner, 3, 3),
                f"{name}.conv3.weight": (4 * inner, inner, 1, 1),
            }
            norms += [(f"{name}.bn1", inner), (f"{name}.bn2", inner), (f"{name}.bn3", 4 * inner)]
            if index == 0:
                shapes[f"{name}.downsample.0.weight"] = (4 * inner, width, 1, 1)
                norms.append((f"{name}.downsample.1", 4 * inner))
            width = 4 * inner
    for name, size in norms:
        shapes |= {f"{name}.{part}": (size,) for part in ("weight", "bias", "running_mean", "running_var")}
    return shapes


def test_torchvision_s_resnet_fits_in_its_real_size(tmp_path):
    shapes = published_shapes() | {"fc.weight": (1000, 2048), "fc.bias": (1000,)}
    on_meta("3x3").load_pretrained(expanded(shapes, tmp_path / "resnet101.pth"))


@pytest.mark.parametrize("naming", [isht7_name, kazuto_name])
def test_a_port_s_resnet_fits_in_its_real_size(naming, tmp_path):
    shapes = {naming(f"trunk.{name}"): shape for name, shape in published_shapes().items()}
    for index in range(4):
        shapes |= {naming(f"aspp.{index}.weight"): (21, 2048, 3, 3), naming(f"aspp.{index}.bias"): (21,)}
    on_meta("1x1").load_pretrained(expanded(shapes, tmp_path / "port.pth"))


# what does not fit


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize(
    ("naming", "stride_in", "needed"), [(torchvision_name, "1x1", "3x3"), (isht7_name, "3x3", "1x1")]
)
def test_parameters_of_the_other_resnet_are_refused_and_the_option_is_named(naming, stride_in, needed, tmp_path):
    network = create_segmenter("resnet101", CLASSES, {"stride_in": stride_in})
    path = saved(renamed(create(), naming, aspp=False), tmp_path / "other.pth")
    with pytest.raises(UserError, match=rf"other\.pth is .*set model\.options\.stride_in to {needed}"):
        network.load_pretrained(path)


@pytest.mark.usefixtures("narrow")
def test_imagenet_needs_torchvision_s_stride_and_says_so_before_it_downloads(monkeypatch):
    monkeypatch.setattr(resnet101, "fetch", lambda url, digits: pytest.fail("downloaded"))
    with pytest.raises(UserError, match=r"imagenet is torchvision's .*set model\.options\.stride_in to 3x3"):
        create_segmenter("resnet101", CLASSES).load_pretrained("imagenet")


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("naming", PORTS)
@pytest.mark.parametrize("missing", ["trunk.layer2.1.bn2.running_mean", "aspp.3.bias"])
def test_what_a_port_lacks_is_named(naming, missing, tmp_path):
    tensors = renamed(create(), naming, aspp=True)
    del tensors[naming(missing)]
    with pytest.raises(UserError, match=f"missing {missing}; surplus none"):
        create_segmenter("resnet101", CLASSES).load_pretrained(saved(tensors, tmp_path / "port.pth"))


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("surplus", ["layer6.0.conv1.weight", "base.layer2.block9.reduce.conv.weight", "Scale.extra"])
def test_what_a_port_has_beyond_the_network_is_named(surplus, tmp_path):
    tensors = renamed(create(), kazuto_name, aspp=True) | {surplus: noise(2)}
    with pytest.raises(UserError, match=r"missing none; surplus trunk\.(layer6|layer1\.8|extra)"):
        create_segmenter("resnet101", CLASSES).load_pretrained(saved(tensors, tmp_path / "port.pth"))


@pytest.mark.usefixtures("narrow")
def test_what_is_no_resnet_is_not_called_one(tmp_path):
    path = saved({"features.0.weight": noise(4, 3, 3, 3)}, tmp_path / "vgg.pth")
    with pytest.raises(UserError, match=r"vgg\.pth does not fit: missing trunk\.bn1\.bias, .*surplus trunk\.features"):
        create_segmenter("resnet101", CLASSES).load_pretrained(path)


@pytest.mark.usefixtures("narrow")
def test_a_stride_in_another_convolution_is_the_users_error():
    with pytest.raises(UserError, match=r"stride_in is '7x7'; choose 1x1 \(Caffe's ResNet\) or 3x3 \(torchvision's\)"):
        create_segmenter("resnet101", CLASSES, {"stride_in": "7x7"})


@pytest.fixture
def cached(monkeypatch, tmp_path):
    """Where PyTorch would keep the official file."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    path = tmp_path / "checkpoints" / "resnet101-63fe2227.pth"
    path.parent.mkdir()
    return path


@pytest.mark.usefixtures("narrow")
def test_a_damaged_download_is_named_and_not_read(cached):
    cached.write_bytes(b"cut off")
    network = create_segmenter("resnet101", CLASSES, {"stride_in": "3x3"})
    with pytest.raises(UserError, match=r"resnet101-63fe2227\.pth is damaged: .*delete it"):
        network.load_pretrained("imagenet")


@pytest.mark.usefixtures("narrow")
def test_the_official_file_is_read_from_the_cache(cached, monkeypatch):
    source = create("3x3")
    torch.save(renamed(source, torchvision_name, aspp=False), cached)
    monkeypatch.setattr(resnet101, "HASH", hashlib.sha256(cached.read_bytes()).hexdigest()[:8])
    network = create_segmenter("resnet101", CLASSES, {"stride_in": "3x3"})
    network.load_pretrained("imagenet")
    assert_same(network, source, start="trunk.")


@pytest.mark.usefixtures("narrow")
def test_a_download_that_fails_says_what_to_do(cached, monkeypatch):
    def unreachable(*args, **kwargs):
        raise OSError("no route")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    network = create_segmenter("resnet101", CLASSES, {"stride_in": "3x3"})
    with pytest.raises(UserError, match=r"could not be fetched \(no route\); fetch it elsewhere and give its path"):
        network.load_pretrained("imagenet")


def test_every_norm_divides_as_caffe_does():
    norms = [module for module in on_meta().modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 1 + 3 * 33 + 4
    assert {norm.eps for norm in norms} == {1e-5}
