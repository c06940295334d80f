"""What every segmenter promises, whichever it is; and where parameters from elsewhere are taken or refused."""

import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

import scaleseg
from scaleseg.errors import UserError
from scaleseg.geometry import Grid
from scaleseg.model import create_model
from scaleseg.segmenters import create_segmenter, list_options
from scaleseg.segmenters.contract import CAFFE, Head
from scaleseg.segmenters.lite0 import LITE0, SameConv, Trunk, _normed, _relu6

CLASSES = 3
VGG = {
    "conv1_1": (64, 3), "conv1_2": (64, 64), "conv2_1": (128, 64), "conv2_2": (128, 128),
    "conv3_1": (256, 128), "conv3_2": (256, 256), "conv3_3": (256, 256),
    "conv4_1": (512, 256), "conv4_2": (512, 512), "conv4_3": (512, 512),
    "conv5_1": (512, 512), "conv5_2": (512, 512), "conv5_3": (512, 512),
}  # fmt: skip
TORCHVISION = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def saved(tensors, path):
    torch.save(tensors, path)
    return str(path)


# the contract


@pytest.fixture(scope="module", params=scaleseg.list_models())
def segmenter(request):
    torch.manual_seed(0)
    return create_segmenter(request.param, CLASSES).eval()


@pytest.mark.parametrize("size", [(1, 1), (37, 60), (64, 33)])
@torch.no_grad()
def test_features_and_scores_lie_on_the_score_grid(segmenter, size):
    grid = Grid(size, (1.0,), segmenter.output_stride, segmenter.align_corners)
    dense = segmenter(noise(1, 3, *grid.padded))
    assert dense.features.shape == (1, segmenter.num_features, *grid.fused)
    assert dense.scores.shape == (1, CLASSES, *grid.fused)


@pytest.mark.parametrize("scale", [1.0, 0.75, 0.5])
@torch.no_grad()
def test_every_scale_of_an_image_suits_the_segmenter(segmenter, scale):
    grid = Grid((50, 41), (1.0, 0.75, 0.5), segmenter.output_stride, segmenter.align_corners)
    scores = segmenter(noise(1, 3, *grid.input_size(scale))).scores
    assert tuple(scores.shape[-2:]) == grid.score_size(scale)


@torch.no_grad()
def test_scores_of_a_new_network_are_finite(segmenter):
    grid = Grid((64, 64), (1.0,), segmenter.output_stride, segmenter.align_corners)
    dense = segmenter(noise(1, 3, *grid.padded))
    assert bool(dense.scores.isfinite().all() and dense.features.isfinite().all())


@torch.no_grad()
def test_evaluation_is_repeatable(segmenter):
    images = noise(1, 3, *Grid((33, 33), (1.0,), segmenter.output_stride, segmenter.align_corners).padded)
    assert torch.equal(segmenter(images).scores, segmenter(images).scores)


@torch.no_grad()
def test_scores_are_a_linear_layer_on_the_features_where_one_head_makes_them(segmenter):
    head = only_head(segmenter)
    if head is None:
        pytest.skip("several layers make its scores")
    images = noise(1, 3, *Grid((33, 33), (1.0,), segmenter.output_stride, segmenter.align_corners).padded)
    dense = segmenter(images)
    by_hand = torch.einsum("cf,nfhw->nchw", head.weight[:, :, 0, 0], dense.features) + head.bias[:, None, None]
    torch.testing.assert_close(dense.scores, by_hand, atol=1e-4, rtol=1e-4)


def only_head(network):
    """The one layer that makes scores of features; None if there are others, or if it sees other maps."""
    found = [layer for layer in network.modules() if isinstance(layer, Head)]
    return found[0] if len(found) == 1 and found[0].in_channels == network.num_features else None


@pytest.mark.parametrize("name", ["largefov", "lite0", "small"])
def test_these_networks_make_their_scores_with_one_head(name):
    with torch.device("meta"):
        assert only_head(create_segmenter(name, CLASSES)) is not None


def test_fresh_parameters_are_some_of_the_network_s_each_once(segmenter):
    fresh = [id(parameter) for parameter in segmenter.fresh()]
    assert len(fresh) == len(set(fresh)) > 0
    assert set(fresh) < {id(parameter) for parameter in segmenter.parameters()}


def test_every_fresh_layer_has_parameters(segmenter):
    assert all(list(segmenter.get_submodule(name).parameters()) for name in segmenter.fresh_layers)


def test_a_layer_with_one_filter_a_class_is_fresh(segmenter):
    """No file of another task can fill it, and nothing else in these networks is as narrow."""
    fresh = {id(parameter) for parameter in segmenter.fresh()}
    scoring = [
        parameter
        for layer in segmenter.modules()
        if isinstance(layer, nn.Conv2d) and layer.out_channels == CLASSES
        for parameter in layer.parameters()
    ]
    assert scoring
    assert fresh >= {id(parameter) for parameter in scoring}


def test_parameters_of_a_path_that_is_no_file_are_the_users_error(segmenter, tmp_path):
    with pytest.raises(UserError, match="is not a file; give a path"):
        segmenter.load_pretrained(str(tmp_path / "nowhere.safetensors"))


@pytest.mark.parametrize("name", scaleseg.list_models())
def test_an_unknown_option_is_the_users_error_and_names_it(name):
    with pytest.raises(UserError, match=f"option of {name} is 'dropuot'; .*choose "):
        create_segmenter(name, CLASSES, {"dropuot": 0.1})


def test_a_misspelt_option_is_guessed():
    with pytest.raises(UserError, match="option of largefov is 'dropuot'; did you mean 'dropout'"):
        create_segmenter("largefov", CLASSES, {"dropuot": 0.1})


@pytest.mark.parametrize("name", [name for name in scaleseg.list_models() if "dropout" in list_options(name)])
def test_an_option_out_of_range_is_the_users_error(name):
    with torch.device("meta"), pytest.raises(UserError, match=rf"model.options of {name} are .*dropout"):
        create_segmenter(name, CLASSES, {"dropout": 7.0})


@pytest.mark.parametrize("name", scaleseg.list_models())
def test_the_number_of_classes_is_no_option(name):
    with pytest.raises(UserError, match=f"option of {name} is 'num_classes'"):
        create_segmenter(name, CLASSES, {"num_classes": 4})


def test_the_models_are_the_files_of_the_folder():
    assert {"largefov", "lite0", "small"} <= set(scaleseg.list_models())


@pytest.mark.parametrize("name", ["contract", "sources", "vgg", "__init__", "../largefov"])
def test_what_is_no_segmenter_cannot_be_created(name):
    with pytest.raises(UserError, match=r"model\.segmenter is"):
        create_segmenter(name, CLASSES)


# parameters from elsewhere, on the small network


@pytest.fixture
def small():
    return create_segmenter("small", CLASSES, {"width": 4, "num_features": 8})


@pytest.fixture
def trunk(small):
    """What a file for the small network must hold."""
    return {name: noise(*tensor.shape) for name, tensor in small.state_dict().items() if name.startswith("trunk.")}


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_parameters_are_copied_by_name_and_the_head_stays_fresh(small, trunk, tmp_path, suffix):
    path, head = tmp_path / f"trunk.{suffix}", small.head.weight.clone()
    save_file(trunk, path) if suffix == "safetensors" else torch.save(trunk, path)
    small.load_pretrained(str(path))
    assert all(torch.equal(small.state_dict()[name], tensor) for name, tensor in trunk.items())
    assert torch.equal(small.head.weight, head)


def test_a_state_dict_inside_a_checkpoint_is_found(small, trunk, tmp_path):
    small.load_pretrained(saved({"state_dict": trunk}, tmp_path / "run.pth"))
    assert torch.equal(small.state_dict()["trunk.0.weight"], trunk["trunk.0.weight"])


def test_half_precision_parameters_are_widened(small, trunk, tmp_path):
    small.load_pretrained(saved({name: tensor.half() for name, tensor in trunk.items()}, tmp_path / "half.pth"))
    assert torch.equal(small.trunk[0].weight, trunk["trunk.0.weight"].half().float())


def test_missing_parameters_are_named(small, trunk, tmp_path):
    del trunk["trunk.2.bias"]
    with pytest.raises(UserError, match=r"missing trunk\.2\.bias; surplus none"):
        small.load_pretrained(saved(trunk, tmp_path / "few.pth"))


def test_surplus_parameters_are_named(small, trunk, tmp_path):
    with pytest.raises(UserError, match=r"missing none; surplus trunk\.9\.weight"):
        small.load_pretrained(saved(trunk | {"trunk.9.weight": noise(3)}, tmp_path / "many.pth"))


def test_misshaped_parameters_are_named_with_both_shapes(small, trunk, tmp_path):
    with pytest.raises(UserError, match=r"trunk\.0\.bias is \(5,\); \(4,\) is expected"):
        small.load_pretrained(saved(trunk | {"trunk.0.bias": noise(5)}, tmp_path / "wide.pth"))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_parameters_that_are_not_finite_are_named(small, trunk, tmp_path, value):
    trunk["trunk.4.weight"][0, 0, 0, 0] = value
    with pytest.raises(UserError, match=r"trunk\.4\.weight holds NaN or infinity"):
        small.load_pretrained(saved(trunk, tmp_path / "nan.pth"))


def test_refused_parameters_leave_the_network_as_it_was(small, trunk, tmp_path):
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    with pytest.raises(UserError):
        small.load_pretrained(saved(trunk | {"trunk.6.bias": noise(5)}, tmp_path / "wide.pth"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in small.state_dict().items())


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return exec, (f"open({str(self.path)!r}, 'w').close()",)


@pytest.mark.parametrize("dump", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_pickle_with_code_in_it_is_refused_and_not_executed(small, trunk, tmp_path, dump):
    sprung, path = tmp_path / "sprung", tmp_path / "trap.pth"
    dump({**trunk, "trap": Trap(sprung)}, path)
    with pytest.raises(UserError, match=r"trap\.pth"):
        small.load_pretrained(str(path))
    assert not sprung.exists()


def test_values_that_are_no_tensors_are_named(small, trunk, tmp_path):
    with pytest.raises(UserError, match=r"holds more than tensors \(epoch\)"):
        small.load_pretrained(saved(trunk | {"epoch": 3}, tmp_path / "mixed.pth"))


@pytest.mark.parametrize("content", [{"state_dict": [1, 2]}, {0: torch.zeros(2)}])
def test_what_is_no_state_dict_is_the_users_error(small, tmp_path, content):
    with pytest.raises(UserError, match=r"odd\.pth"):
        small.load_pretrained(saved(content, tmp_path / "odd.pth"))


@pytest.mark.parametrize("name", ["broken.pth", "broken.safetensors", "empty.pth", "empty.safetensors"])
def test_a_damaged_file_is_the_users_error(small, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"" if name.startswith("empty") else b"no parameters at all")
    with pytest.raises(UserError, match=name):
        small.load_pretrained(str(path))


def test_a_network_without_imagenet_parameters_says_so(small):
    with pytest.raises(UserError, match=r"use model\.pretrained=none"):
        small.load_pretrained("imagenet")


# LargeFOV: Caffe's names and torchvision's


def spread(value, *shape):
    """A tensor of one value, as small on disk as the value."""
    return torch.tensor(float(value)).expand(*shape)


def vgg_trunk(names):
    """Convolutions in order, number i filled with i, under the names given."""
    tensors = {}
    for number, (name, shape) in enumerate(zip(names, VGG.values(), strict=True), start=1):
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = spread(number, *shape, 3, 3), spread(-number, shape[0])
    return tensors


@pytest.fixture(scope="module")
def largefov():
    return create_segmenter("largefov", CLASSES)


@pytest.fixture
def caffe():
    return vgg_trunk(VGG)


@pytest.fixture
def torchvision():
    return vgg_trunk([f"features.{number}" for number in TORCHVISION])


@pytest.fixture(scope="module")
def classifier():
    """Layers that say where each parameter came from: biases their filter, weights their input (and filter)."""
    taps = torch.arange(512 * 49.0).expand(4096, -1)
    filters = torch.arange(4096.0)
    return {
        "classifier.0.weight": taps, "classifier.0.bias": filters,
        "classifier.3.weight": filters[:, None] * 4096 + filters, "classifier.3.bias": filters,
        "classifier.6.weight": spread(0, 1000, 4096), "classifier.6.bias": spread(0, 1000),
    }  # fmt: skip


def test_caffe_s_safetensors_fill_each_convolution_by_its_name(largefov, tmp_path):
    path = tmp_path / "vgg16.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in vgg_trunk(VGG).items()}, path)
    largefov.load_pretrained(str(path))
    assert [float(largefov.trunk.get_submodule(name).weight.detach().mean()) for name in VGG] == [*range(1, 14)]


def heads(network):
    """fc6, fc7 and fc8 as they are now."""
    return {name: p.detach().clone() for name, p in network.named_parameters() if name.startswith("fc")}


def only_fc6_was_drawn_anew(before, network):
    """fc7 and fc8 stay; fc6 suits VGG's large activations."""
    same = {name for name, tensor in heads(network).items() if torch.equal(tensor, before[name])}
    spread_of_fc6 = network.fc6.weight.detach().std().item()
    return same == set(before) - {"fc6.weight"} and spread_of_fc6 == pytest.approx(0.0003, rel=0.02)


def test_caffe_s_trunk_leaves_fc6_random_and_fc7_and_fc8_as_they_were(largefov, caffe, tmp_path):
    before = heads(largefov)
    largefov.load_pretrained(saved(caffe, tmp_path / "vgg16.pth"))
    assert only_fc6_was_drawn_anew(before, largefov)


def test_only_fc8_learns_fast_even_where_fc6_and_fc7_start_at_random(largefov, caffe, tmp_path):
    largefov.load_pretrained(saved(caffe, tmp_path / "vgg16.pth"))
    assert [id(p) for p in largefov.fresh()] == [id(p) for p in largefov.fc8.parameters()]
    assert largefov.random_layers == ("fc6", "fc7")


def test_caffe_s_whole_network_fills_fc6_and_fc7(caffe, tmp_path):
    network = create_segmenter("largefov", CLASSES)
    caffe |= {"fc6.weight": spread(6, 1024, 512, 3, 3), "fc6.bias": spread(-6, 1024)}
    caffe |= {"fc7.weight": spread(7, 1024, 1024, 1, 1), "fc7.bias": spread(-7, 1024)}
    network.load_pretrained(saved(caffe, tmp_path / "init.pth"))
    assert network.random_layers == ()
    assert [set(p.detach().unique().tolist()) for layer in (network.fc6, network.fc7) for p in layer.parameters()] == [
        {6}, {-6}, {7}, {-7},
    ]  # fmt: skip


def test_caffe_s_parameters_are_shown_bgr_less_caffe_s_mean(largefov, caffe, tmp_path):
    largefov.load_pretrained(saved(caffe, tmp_path / "vgg16.pth"))
    assert largefov.normalization == CAFFE
    assert largefov.normalization.bgr
    assert [255 * value for value in largefov.normalization.mean] == pytest.approx([122.675, 116.669, 104.008])


def test_the_model_takes_over_the_normalisation_of_its_parameters(caffe, tmp_path):
    model = create_model("largefov", num_classes=2, fusion="max", pretrained=saved(caffe, tmp_path / "vgg16.pth"))
    grey = torch.full((1, 3, 2, 2), 0.5)
    expected = torch.tensor([127.5 - 104.008, 127.5 - 116.669, 127.5 - 122.675])
    torch.testing.assert_close(model.normalize(grey)[0, :, 0, 0], expected, atol=1e-3, rtol=0)


def test_torchvision_s_numbers_are_caffe_s_names(largefov, torchvision, tmp_path):
    largefov.load_pretrained(saved(torchvision, tmp_path / "vgg16_features.pth"))
    assert [float(largefov.trunk.get_submodule(name).weight.detach().mean()) for name in VGG] == [*range(1, 14)]
    assert [float(largefov.trunk.get_submodule(name).bias[0].detach()) for name in VGG] == [*range(-1, -14, -1)]


def test_torchvision_s_features_alone_are_the_original_caffe_ones_in_rgb(largefov, torchvision, tmp_path):
    largefov.load_pretrained(saved(torchvision, tmp_path / "vgg16_features.pth"))
    assert not largefov.normalization.bgr
    assert largefov.normalization.std == pytest.approx([1 / 255] * 3)


@pytest.mark.parametrize("with_nan", [False, True])
def test_a_classifier_that_is_absent_or_nan_leaves_fc6_and_fc7_random(
    largefov, torchvision, classifier, tmp_path, with_nan
):
    before = heads(largefov)
    nothing = {name: spread(math.nan, *tensor.shape) for name, tensor in classifier.items()} if with_nan else {}
    largefov.load_pretrained(saved(torchvision | nothing, tmp_path / "vgg16.pth"))
    assert only_fc6_was_drawn_anew(before, largefov)


def test_a_classifier_of_nan_has_the_normalisation_of_none(largefov, torchvision, classifier, tmp_path):
    largefov.load_pretrained(saved(torchvision, tmp_path / "vgg16_features.pth"))
    absent = largefov.normalization
    nothing = {name: spread(math.nan, *tensor.shape) for name, tensor in classifier.items()}
    largefov.load_pretrained(saved(torchvision | nothing, tmp_path / "vgg16_nan.pth"))
    assert largefov.normalization == absent


@pytest.fixture(scope="module")
def decimated(classifier, tmp_path_factory):
    """LargeFOV cut out of a whole VGG-16 of torchvision's own training."""
    tensors = vgg_trunk([f"features.{number}" for number in TORCHVISION]) | classifier
    network = create_segmenter("largefov", CLASSES)
    network.load_pretrained(saved(tensors, tmp_path_factory.mktemp("parameters") / "vgg16.pth"))
    return network


def test_torchvision_s_own_training_is_shown_rgb_in_its_own_normalisation(decimated):
    assert (decimated.normalization.mean, decimated.normalization.bgr) == ((0.485, 0.456, 0.406), False)


def test_with_a_classifier_only_fc8_is_fresh(decimated):
    assert [id(p) for p in decimated.fresh()] == [id(p) for p in decimated.fc8.parameters()]


def test_fc6_keeps_every_third_tap_of_the_seven(decimated):
    taps = torch.arange(512 * 49.0).view(512, 7, 7)[:, ::3, ::3]
    assert torch.equal(decimated.fc6.weight, taps.expand(1024, -1, -1, -1))


def test_fc6_and_fc7_keep_1024_different_filters(decimated):
    assert [len(layer.bias.unique()) for layer in (decimated.fc6, decimated.fc7)] == [1024, 1024]


def test_fc7_listens_to_the_filters_that_fc6_kept(decimated):
    by_hand = decimated.fc7.bias[:, None] * 4096 + decimated.fc6.bias
    assert torch.equal(decimated.fc7.weight[:, :, 0, 0], by_hand)


@pytest.mark.parametrize("missing", ["conv4_2.bias", "conv1_1.weight"])
def test_a_convolution_that_caffe_s_file_lacks_is_named(largefov, caffe, tmp_path, missing):
    del caffe[missing]
    with pytest.raises(UserError, match=rf"missing trunk\.{missing}"):
        largefov.load_pretrained(saved(caffe, tmp_path / "vgg16.pth"))


def test_fc6_without_fc7_is_incomplete(largefov, caffe, tmp_path):
    caffe |= {"fc6.weight": spread(6, 1024, 512, 3, 3), "fc6.bias": spread(6, 1024)}
    with pytest.raises(UserError, match=r"missing fc7\.bias, fc7\.weight"):
        largefov.load_pretrained(saved(caffe, tmp_path / "init.pth"))


def test_torchvision_s_vgg_with_batch_norm_does_not_fit(largefov, torchvision, tmp_path):
    torchvision["features.1.running_mean"] = spread(0, 64)
    with pytest.raises(UserError, match=r"surplus features\.1\.running_mean"):
        largefov.load_pretrained(saved(torchvision, tmp_path / "vgg16_bn.pth"))


@pytest.mark.parametrize(
    ("name", "shape"),
    [("classifier.0.bias", None), ("classifier.0.weight", (512, 25088)), ("classifier.3.bias", (10,))],
)
def test_a_classifier_that_cannot_be_cut_is_the_users_error(largefov, torchvision, classifier, tmp_path, name, shape):
    damaged = {other: tensor for other, tensor in (torchvision | classifier).items() if other != name}
    if shape:
        damaged[name] = spread(0, *shape)
    with pytest.raises(UserError, match=name):
        largefov.load_pretrained(saved(damaged, tmp_path / "vgg16.pth"))


@pytest.fixture(scope="module")
def looked_at():
    """The answers of one LargeFOV to one image, by what a fusion looks at."""
    torch.manual_seed(0)
    network, answers = create_segmenter("largefov", CLASSES).eval(), {}
    for name in ("fc6", "fc7", "fc8"):
        other = create_segmenter("largefov", CLASSES, {"features": name}).eval()
        other.load_state_dict(network.state_dict())
        with torch.no_grad():
            answers[name] = other(noise(1, 3, 65, 65))
        assert other.num_features == answers[name].features.shape[1]
    return network, answers


def test_what_a_fusion_looks_at_does_not_change_the_scores(looked_at):
    _, answers = looked_at
    assert torch.equal(answers["fc6"].scores, answers["fc7"].scores)
    assert torch.equal(answers["fc8"].scores, answers["fc7"].scores)


@torch.no_grad()
def test_fc7_is_one_layer_above_fc6(looked_at):
    network, answers = looked_at
    torch.testing.assert_close(network.fc7(answers["fc6"].features).relu(), answers["fc7"].features)


def test_fc6_and_fc7_are_looked_at_behind_their_relu(looked_at):
    _, answers = looked_at
    assert min(answers[name].features.min() for name in ("fc6", "fc7")) == 0


def test_fc8_is_the_scores(looked_at):
    _, answers = looked_at
    assert torch.equal(answers["fc8"].features, answers["fc8"].scores)


@pytest.mark.parametrize("given", ["fc9", "pool5", ""])
def test_a_map_that_is_not_there_is_the_users_error(given):
    with pytest.raises(UserError, match=rf"model.options.features is '{given}'; .*choose fc6, fc7 or fc8"):
        create_segmenter("largefov", CLASSES, {"features": given})


# Lite0: its PyPI package, BatchNorm, TensorFlow's padding


@pytest.fixture(scope="module")
def lite0():
    torch.manual_seed(0)
    network = create_segmenter("lite0", CLASSES)
    network.load_pretrained("imagenet")
    return network.eval()


def test_lite0_s_package_fills_the_trunk_and_leaves_the_rest_fresh(lite0):
    fresh = {id(parameter) for parameter in lite0.fresh()}
    assert {name.split(".")[0] for name, p in lite0.named_parameters() if id(p) in fresh} == {"context", "head"}
    assert all(id(parameter) not in fresh for parameter in lite0.trunk.parameters())


def test_lite0_is_shown_values_around_127_over_128(lite0):
    assert lite0.normalization == LITE0
    assert [255 * value for value in LITE0.mean + LITE0.std] == pytest.approx([127] * 3 + [128] * 3)


@torch.no_grad()
def test_folding_batch_norm_gives_what_unfolded_gives(lite0):
    images = noise(1, 3, 64, 64)
    folded, layers = lite0.trunk(images), 0

    def unfolded(convolution, norm, maps):
        nonlocal layers
        layers += 1
        scaled = (convolution(maps) - norm.running_mean[:, None, None]) / (norm.running_var + 1e-3).sqrt()[
            :, None, None
        ]
        return scaled * norm.weight[:, None, None] + norm.bias[:, None, None]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scaleseg.segmenters.lite0._normed", unfolded)
        torch.testing.assert_close(folded, lite0.trunk(images), atol=1e-4, rtol=1e-3)
    assert layers == 1 + 2 + 15 * 3


def test_folding_batch_norm_gives_the_gradient_that_unfolded_gives():
    torch.manual_seed(0)
    convolution, norm, maps = SameConv(4, 6, 3), nn.BatchNorm2d(6, eps=1e-3).eval(), noise(1, 4, 8, 8)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    _normed(convolution, norm, maps).square().sum().backward()
    folded, convolution.weight.grad = convolution.weight.grad, None
    norm(convolution(maps)).square().sum().backward()
    torch.testing.assert_close(folded, convolution.weight.grad, atol=1e-4, rtol=1e-4)


def test_batch_norm_in_training_follows_the_batch():
    torch.manual_seed(0)
    convolution, norm = SameConv(4, 6, 3), nn.BatchNorm2d(6).train()
    normed = _normed(convolution, norm, 5 + noise(4, 4, 8, 8))
    torch.testing.assert_close(normed.mean(dim=(0, 2, 3)), torch.zeros(6), atol=1e-5, rtol=0)
    assert bool(norm.running_mean.any())


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (5, 1), (5, 2)])
@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_same_convolution_pads_as_tensorflow_does(kernel, stride, dilation):
    torch.manual_seed(0)
    convolution, maps = SameConv(2, 3, kernel, stride=stride, dilation=dilation), noise(1, 2, 16, 24)
    wanted = []
    for side in (24, 16):  # TensorFlow: ceil(side / stride) outputs; of the padding, the smaller half comes first
        total = max((math.ceil(side / stride) - 1) * stride + dilation * (kernel - 1) + 1 - side, 0)
        wanted += [total // 2, total - total // 2]
    by_hand = F.conv2d(F.pad(maps, wanted), convolution.weight, stride=stride, dilation=dilation)
    torch.testing.assert_close(convolution(maps), by_hand)


@pytest.mark.parametrize("stride", [8, 16])
@torch.no_grad()
def test_dilation_adds_cells_between_those_of_the_strided_network(lite0, stride):
    finer, coarser = Trunk(stride).eval(), Trunk(2 * stride).eval()
    finer.load_state_dict(lite0.trunk.state_dict())
    coarser.load_state_dict(lite0.trunk.state_dict())
    images = noise(1, 3, 64, 96)
    torch.testing.assert_close(finer(images)[..., 1::2, 1::2], coarser(images), atol=1e-4, rtol=1e-3)


def test_an_output_stride_that_lite0_has_not_is_the_users_error():
    with pytest.raises(UserError, match="output_stride is 32; choose 8 or 16"):
        create_segmenter("lite0", CLASSES, {"output_stride": 32})


@pytest.fixture
def trunk_alone(lite0):
    """The published parameters without the classifier's."""
    return {name: tensor for name, tensor in lite0.trunk.state_dict().items() if "num_batches" not in name}


def test_the_classifier_s_parameters_beside_lite0_s_trunk_are_not_needed(trunk_alone, tmp_path):
    network = create_segmenter("lite0", CLASSES)
    network.load_pretrained(saved(trunk_alone, tmp_path / "trunk.pth"))
    assert all(torch.equal(network.trunk.state_dict()[name], tensor) for name, tensor in trunk_alone.items())


def test_a_statistic_that_lite0_s_file_lacks_is_named(lite0, trunk_alone, tmp_path):
    del trunk_alone["_bn0.running_var"]
    with pytest.raises(UserError, match=r"missing _bn0\.running_var"):
        lite0.load_pretrained(saved(trunk_alone, tmp_path / "few.pth"))


def test_parameters_that_are_no_real_numbers_are_refused(small, trunk, tmp_path):
    """torch would drop the imaginary part with a warning."""
    path = tmp_path / "complex.safetensors"
    save_file(trunk | {"trunk.0.bias": torch.ones(trunk["trunk.0.bias"].shape, dtype=torch.complex64)}, path)
    with pytest.raises(UserError, match=r"trunk\.0\.bias holds complex64; real numbers are expected"):
        small.load_pretrained(str(path))


def test_a_newline_in_a_tensors_name_does_not_tear_a_message(small, trunk, tmp_path):
    path = tmp_path / "odd.safetensors"
    save_file(trunk | {"a\nb": torch.ones(1)}, path)
    with pytest.raises(UserError, match=r"surplus 'a\\nb'$"):
        small.load_pretrained(str(path))


def gradients(do, *inputs):
    """Of a weighted sum of what `do` makes of the inputs."""
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    made = do(*leaves)
    weights = torch.randn(made.shape, generator=torch.Generator().manual_seed(2))
    return torch.autograd.grad((made * weights).sum(), leaves)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_relu6_has_the_bits_of_pytorch_s_in_value_and_gradient(dtype):
    maps = (8 * torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(1))).to(dtype)
    maps[0, 0, 0, :2] = torch.tensor([0.0, 6.0])
    assert torch.equal(_relu6(maps.clone()), F.relu6(maps))
    for own, other in zip(gradients(lambda x: _relu6(1 * x), maps), gradients(F.relu6, maps), strict=True):
        assert torch.equal(own, other)


@pytest.mark.parametrize(("kernel", "dilation"), [(3, 2), (5, 2), (5, 4)])
def test_a_dilated_depthwise_convolution_has_the_gradients_of_pytorch_s(kernel, dilation):
    torch.manual_seed(0)
    layer = SameConv(8, 8, kernel, dilation=dilation, groups=8)
    inputs = torch.randn(2, 8, 12, 9), layer.weight.detach(), torch.randn(8)
    spread = dilation * (kernel - 1) // 2
    plain = gradients(lambda x, w, b: F.conv2d(x, w, b, padding=spread, dilation=dilation, groups=8), *inputs)
    torch.testing.assert_close(gradients(layer.convolve, *inputs), plain)


def test_a_dilated_convolution_learns_under_autocast_too():
    layer, maps = SameConv(4, 4, 3, dilation=2, groups=4), torch.randn(1, 4, 8, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        layer(maps).float().sum().backward()
    assert maps.grad is not None
    assert layer.weight.grad.dtype == torch.float32
