"""FCN against its published numbers: crops, deconvolutions, skips, and what its files may hold."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scaleseg.errors import UserError
from scaleseg.segmenters import create_segmenter, fcn
from scaleseg.segmenters.contract import CAFFE
from scaleseg.segmenters.vgg import CONVOLUTIONS, VGG16, WHOLE

CLASSES = 3
STRIDES = (32, 16, 8)
SKIPPED = {32: (), 16: ("pool4",), 8: ("pool4", "pool3")}
PUBLISHED = {32: {"image": 19}, 16: {"pool4": 5, "image": 27}, 8: {"pool4": 5, "pool3": 9, "image": 31}}
"""The offsets of the Crop layers in voc-fcn{32,16,8}s/train.prototxt."""


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def narrow(monkeypatch, request):
    """The same network with a few channels, but for the tests of the real one's size."""
    if "full_size" not in request.keywords.get("usefixtures", pytest.mark.usefixtures()).args:
        monkeypatch.setattr(fcn, "CONVOLUTIONS", {stage: (count, 4) for stage, (count, _) in CONVOLUTIONS.items()})
        monkeypatch.setattr(fcn, "WIDTH", 8)


@pytest.fixture
def full_size():
    """Asked for by tests of the network in its real width."""


def create(stride, **options):
    """A narrow network whose every parameter is random, so that no score is zero by its initial value."""
    torch.manual_seed(stride)
    network = create_segmenter("fcn", CLASSES, {"stride": stride, **options})
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.ndim == 4 else 0.1))
    return network.eval()


def deconvolved(scores, kernel, stride):
    """Caffe's Deconvolution as surgery.py fills it: a full kernel, zero between different classes."""
    centre = kernel / 2 - 0.5
    rows, columns = np.ogrid[:kernel, :kernel]
    taps = (1 - abs(rows - centre) / (kernel // 2)) * (1 - abs(columns - centre) / (kernel // 2))
    weight = torch.zeros(CLASSES, CLASSES, kernel, kernel)
    weight[range(CLASSES), range(CLASSES)] = torch.from_numpy(taps).float()
    return F.conv_transpose2d(scores, weight, stride=stride)


def crop(maps, offset, like):
    return maps[:, :, offset : offset + like.shape[2], offset : offset + like.shape[3]]


def by_hand(network, images, stride):
    """voc-fcn*s/net.py read aloud, with the numbers of its prototxt."""
    parameters, maps, pools = dict(network.named_parameters()), images, {}

    def layer(name, maps, padding=0):
        return F.conv2d(maps, parameters[f"{name}.weight"], parameters[f"{name}.bias"], padding=padding)

    for stage, (count, _) in CONVOLUTIONS.items():
        for index in range(1, count + 1):
            name = f"{stage}_{index}"
            maps = F.relu(layer(f"trunk.{name}", maps, 100 if name == "conv1_1" else 1))
        pools[stage] = maps = F.max_pool2d(maps, 2, 2, ceil_mode=True)
    scores = layer("score_fr", F.relu(layer("fc7", F.relu(layer("fc6", maps)))))
    if stride == 32:
        return crop(deconvolved(scores, 64, 32), 19, images)
    scores = deconvolved(scores, 4, 2)
    scores = scores + crop(layer("score_pool4", pools["conv4"]), 5, scores)
    if stride == 16:
        return crop(deconvolved(scores, 32, 16), 27, images)
    scores = deconvolved(scores, 4, 2)
    scores = scores + crop(layer("score_pool3", pools["conv3"]), 9, scores)
    return crop(deconvolved(scores, 16, 8), 31, images)


@pytest.mark.parametrize("stride", STRIDES)
def test_crops_are_those_of_the_reference(stride):
    assert create_segmenter("fcn", CLASSES, {"stride": stride}).crops == PUBLISHED[stride]


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("size", [(1, 1), (53, 70), (375, 500)])
@torch.no_grad()
def test_scores_are_those_of_the_reference(stride, size):
    network, images = create(stride), noise(1, 3, *size)
    torch.testing.assert_close(network(images).scores, by_hand(network, images, stride), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("stride", STRIDES)
@torch.no_grad()
def test_scores_have_the_size_of_the_image_whatever_that_is(stride):
    network = create(stride)
    for rows, columns in [(side, 67 - side) for side in range(1, 67)]:
        assert network(noise(1, 3, rows, columns)).scores.shape == (1, CLASSES, rows, columns)


@pytest.mark.parametrize("stride", STRIDES)
@torch.no_grad()
def test_an_image_moved_by_32_pixels_moves_the_scores_by_32(stride):
    network, wide = create(stride), noise(1, 3, 672, 672)
    here, there = network(wide[..., 32:, 32:]).scores, network(wide[..., :-32, :-32]).scores
    torch.testing.assert_close(here[..., 240:368, 240:368], there[..., 272:400, 272:400], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("stride", STRIDES)
@torch.no_grad()
def test_symmetric_filters_see_a_symmetric_image_symmetrically(stride):
    """Wrong crops would shift the scores. 58 + 2 x 99 is a multiple of 32, so poolings are symmetric too."""
    network, half = create(stride), noise(1, 3, 40, 29)
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.copy_((parameter + parameter.flip(3)) / 2)
    scores = network(torch.cat([half, half.flip(3)], dim=3)).scores
    torch.testing.assert_close(scores, scores.flip(3), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("factor", [2, 8, 16, 32])
def test_a_deconvolution_interpolates_between_half_pixel_cells(factor):
    maps = noise(2, CLASSES, 4, 5)
    interpolated = F.interpolate(maps, scale_factor=factor, mode="bilinear", align_corners=False)
    inner = (..., slice(factor, 4 * factor), slice(factor, 5 * factor))  # where no neighbour is missing
    edge = factor // 2
    torch.testing.assert_close(fcn.Bilinear(factor)(maps)[inner], interpolated[..., edge:-edge, edge:-edge])


def test_deconvolutions_have_nothing_to_learn_or_to_save():
    network = create_segmenter("fcn", CLASSES)
    assert not [name for name in network.state_dict() if "upscore" in name]


def test_a_map_that_does_not_lie_on_another_cannot_be_cropped_to_it():
    pixels = fcn.Lattice()
    with pytest.raises(ValueError, match="does not lie on"):
        pixels.shrunk(2, 2, 0).cells_before(pixels)
    with pytest.raises(ValueError, match="does not lie on"):
        pixels.cells_before(pixels.shrunk(2, 1, 0))


@pytest.mark.parametrize(("coarse", "fine"), [(32, 16), (16, 8)])
def test_a_finer_network_has_every_parameter_of_the_coarser_one(coarse, fine):
    theirs, own = (create_segmenter("fcn", CLASSES, {"stride": stride}).state_dict() for stride in (coarse, fine))
    assert theirs.keys() < own.keys()
    assert all(own[name].shape == tensor.shape for name, tensor in theirs.items())


@pytest.mark.parametrize("stride", STRIDES)
def test_scores_start_at_zero(stride):
    network = create_segmenter("fcn", CLASSES, {"stride": stride})
    assert not network(noise(1, 3, 20, 20)).scores.any()


@pytest.mark.parametrize("stride", [16, 8])
@torch.no_grad()
def test_at_once_is_a_hundredth_of_pool4_and_a_ten_thousandth_of_pool3(stride):
    plain, scaled, images = create(stride), create(stride, at_once=True), noise(1, 3, 40, 50)
    for pool, factor in zip(SKIPPED[stride], (100, 10_000), strict=False):
        scaled.get_submodule(f"score_{pool}").weight.mul_(factor)
    torch.testing.assert_close(scaled(images).scores, plain(images).scores, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("stride", STRIDES)
def test_every_layer_learns(stride):
    network = create(stride)
    F.cross_entropy(network(noise(2, 3, 65, 65)).scores, torch.zeros(2, 65, 65, dtype=torch.long)).backward()
    assert [name for name, parameter in network.named_parameters() if not parameter.grad.any()] == []


@pytest.mark.parametrize("stride", STRIDES)
def test_the_layers_of_scores_are_fresh(stride):
    names = ["score_fr", *(f"score_{pool}" for pool in SKIPPED[stride])]
    assert list(create_segmenter("fcn", CLASSES, {"stride": stride}).fresh_layers) == names


def test_dropout_is_for_training():
    network, images = create(32, dropout=0.5).train(), noise(1, 3, 9, 9)
    assert not torch.equal(network(images).scores, network(images).scores)


@torch.no_grad()
def test_scores_are_float32_under_autocast_too():
    with torch.autocast("cpu", torch.bfloat16):
        scores = create(8)(noise(1, 3, 20, 30)).scores
    assert scores.dtype == torch.float32
    assert not torch.equal(scores, scores.bfloat16().float())


@pytest.mark.parametrize("stride", [4, 0, 64])
def test_a_stride_that_fcn_has_not_is_the_users_error(stride):
    with pytest.raises(UserError, match=f"stride is {stride}; choose 8, 16 or 32"):
        create_segmenter("fcn", CLASSES, {"stride": stride})


def test_nothing_can_be_scaled_at_once_without_skips():
    with pytest.raises(UserError, match="stride 32 has none; choose stride 8 or 16"):
        create_segmenter("fcn", CLASSES, {"stride": 32, "at_once": True})


# parameters from elsewhere


@pytest.fixture
def vgg(monkeypatch):
    """What a file for the narrow network holds; `vgg["classifier"]` may be changed before it is read."""
    own = create_segmenter("fcn", CLASSES).state_dict()
    drawn = {name.removeprefix("trunk."): noise(*tensor.shape, seed=len(name)) for name, tensor in own.items()}
    parts = {
        "convolutions": {name: tensor for name, tensor in drawn.items() if name.startswith("conv")},
        "classifier": {name: tensor for name, tensor in drawn.items() if name.startswith("fc")},
    }
    monkeypatch.setattr(fcn, "read_vgg16", lambda source: VGG16(**parts, normalization=CAFFE))
    return parts


def test_a_whole_vgg_fills_all_but_the_scores(vgg):
    network = create_segmenter("fcn", CLASSES)
    network.load_pretrained("vgg16.pth")
    own = {name.removeprefix("trunk."): tensor for name, tensor in network.state_dict().items()}
    for name, tensor in (vgg["convolutions"] | vgg["classifier"]).items():
        assert torch.equal(own[name], tensor)
    assert not any(tensor.any() for name, tensor in own.items() if name.startswith("score"))
    assert network.normalization == CAFFE


def test_without_a_classifier_fc6_and_fc7_are_random_and_still_learn_at_the_trunk_s_rate(vgg):
    vgg["classifier"] = {}
    network = create_segmenter("fcn", CLASSES)
    network.load_pretrained("vgg16.pth")
    assert network.fc6.weight.std().item() == pytest.approx(0.00013, rel=0.1)
    assert network.fc7.weight.std().item() == pytest.approx(0.01, rel=0.3)
    assert network.fresh_layers == ("score_fr", "score_pool4", "score_pool3")
    assert network.random_layers == ("fc6", "fc7")


def test_fc6_without_fc7_is_incomplete(vgg):
    vgg["classifier"] = {name: tensor for name, tensor in vgg["classifier"].items() if name.startswith("fc6")}
    with pytest.raises(UserError, match=r"missing fc7\.bias, fc7\.weight"):
        create_segmenter("fcn", CLASSES).load_pretrained("vgg16.pth")


def test_refused_parameters_leave_the_network_as_it_was(vgg):
    del vgg["convolutions"]["conv5_3.bias"]
    network = create_segmenter("fcn", CLASSES)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(UserError, match=r"missing trunk\.conv5_3\.bias"):
        network.load_pretrained("vgg16.pth")
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


# in its real width, without memory


def on_meta(stride):
    with torch.device("meta"):
        return create_segmenter("fcn", 21, {"stride": stride})


@pytest.mark.usefixtures("full_size")
@pytest.mark.parametrize("stride", STRIDES)
def test_the_number_of_parameters_follows_from_the_layers(stride):
    widths = [3, *(channels for count, channels in CONVOLUTIONS.values() for _ in range(count))]
    trunk = sum(9 * before * after + after for before, after in pairwise(widths))
    layers = trunk + (49 * 512 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 21
    skips = {32: 0, 16: (512 + 1) * 21, 8: (512 + 1 + 256 + 1) * 21}[stride]
    assert sum(parameter.numel() for parameter in on_meta(stride).parameters()) == layers + skips


def saved(tensors, path):
    """A file as small as the tensors' values: each is one number, expanded."""
    torch.save({name: torch.zeros(()).expand(shape) for name, shape in tensors.items()}, path)
    return str(path)


@pytest.fixture
def torchvision():
    """Names and shapes of torchvision's whole VGG-16."""
    widths = [3, *(channels for count, channels in CONVOLUTIONS.values() for _ in range(count))]
    numbers = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    shapes = {}
    for number, before, after in zip(numbers, widths[:-1], widths[1:], strict=True):
        shapes |= {f"features.{number}.weight": (after, before, 3, 3), f"features.{number}.bias": (after,)}
    for number, before, after in ((0, 25088, 4096), (3, 4096, 4096), (6, 4096, 1000)):
        shapes |= {f"classifier.{number}.weight": (after, before), f"classifier.{number}.bias": (after,)}
    return shapes


@pytest.mark.usefixtures("full_size")
def test_torchvision_s_whole_vgg_fits(torchvision, tmp_path):
    network = on_meta(8)
    network.load_pretrained(saved(torchvision, tmp_path / "vgg16.pth"))
    assert network.normalization.mean == (0.485, 0.456, 0.406)


@pytest.mark.usefixtures("full_size")
def test_caffe_s_whole_vgg_fits(tmp_path):
    shapes = {
        name.removeprefix("trunk."): p.shape for name, p in on_meta(32).state_dict().items() if "score" not in name
    }
    network = on_meta(8)
    network.load_pretrained(saved(shapes | WHOLE, tmp_path / "vgg16.pth"))
    assert network.normalization == CAFFE


@pytest.mark.usefixtures("full_size")
def test_a_classifier_cut_for_largefov_is_the_users_error(tmp_path):
    shapes = {
        name.removeprefix("trunk."): p.shape for name, p in on_meta(32).state_dict().items() if "score" not in name
    }
    cut = {"fc6.weight": (1024, 512, 3, 3), "fc6.bias": (1024,), "fc7.weight": (1024, 1024, 1, 1), "fc7.bias": (1024,)}
    with pytest.raises(UserError, match=r"init\.pth: fc6 is 1024 x 512 x 3 x 3; FCN needs .* 4096 x 512 x 7 x 7"):
        on_meta(8).load_pretrained(saved(shapes | cut, tmp_path / "init.pth"))
