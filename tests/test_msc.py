"""DeepLab-MSc-LargeFOV: LargeFOV and five branches, as in the released configuration."""

import pytest
import torch
import torch.nn.functional as F

from scaleseg.segmenters import create_segmenter
from scaleseg.segmenters.vgg import CONVOLUTIONS

CLASSES = 3
STRIDES = {"data": 8, "pool1": 4, "pool2": 2, "pool3": 1, "pool4": 1}
CHANNELS = {"data": 3, "pool1": 64, "pool2": 128, "pool3": 256, "pool4": 512}
BRANCHES = [f"{name}_{part}" for name in STRIDES for part in ("conv", "fc", "ms")]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return create_segmenter("msc", CLASSES).eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(1, 3, 65, 97, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def seen(network, images):
    """What each layer of the branches and fc8 is given and gives, by name; and the answer as `answer`."""
    found, handles = {}, []
    for name in (*BRANCHES, "fc8"):
        layer = network.get_submodule(name)
        handles.append(
            layer.register_forward_hook(lambda _, given, made, name=name: found.update({name: (*given, made)}))
        )
    with torch.no_grad():
        found["answer"] = network(images)
    for handle in handles:
        handle.remove()
    return found


def parameters(network):
    return {name: parameter.shape for name, parameter in network.named_parameters()}


def test_the_branches_add_three_layers_of_128_channels_for_each_of_five_maps():
    with torch.device("meta"):
        largefov, msc = (
            sum(p.numel() for p in create_segmenter(name, 21).parameters()) for name in ("largefov", "msc")
        )
    layers = sum(9 * channels * 128 + 128 + 128 * 128 + 128 + 128 * 21 + 21 for channels in CHANNELS.values())
    assert msc - largefov == layers == 1_206_121


def test_a_trained_largefov_s_parameters_have_a_place_by_name_and_shape(network):
    with torch.device("meta"):
        largefov = create_segmenter("largefov", CLASSES)
    assert parameters(largefov).items() <= parameters(network).items()


def test_what_largefov_has_not_is_named_as_in_the_release(network):
    with torch.device("meta"):
        largefov = create_segmenter("largefov", CLASSES)
    added = {name.rpartition(".")[0] for name in parameters(network).keys() - parameters(largefov).keys()}
    assert added == set(BRANCHES)


@torch.no_grad()
def test_without_the_branches_classifiers_the_scores_are_largefov_s(network, images):
    largefov = create_segmenter("largefov", CLASSES).eval()
    largefov.load_state_dict({name: network.state_dict()[name] for name in largefov.state_dict()})
    kept = {name: tensor.clone() for name, tensor in network.state_dict().items() if "_ms." in name}
    for name, tensor in network.state_dict().items():
        if name in kept:
            tensor.zero_()
    msc, alone = network(images), largefov(images)
    network.load_state_dict(kept, strict=False)
    assert torch.equal(msc.scores, alone.scores)
    assert torch.equal(msc.features, alone.features)


@torch.no_grad()
def test_the_sum_is_one_classifier_on_the_concatenation(network, seen):
    """As DeepLab v1 describes it: 5 x 128 channels beside fc7."""
    heads = [network.get_submodule(name) for name in ("fc8", *(f"{name}_ms" for name in STRIDES))]
    maps = torch.cat([seen["fc8"][0], *(seen[f"{name}_ms"][0] for name in STRIDES)], dim=1)
    assert maps.shape[1] == 1024 + 640
    weight, bias = torch.cat([head.weight for head in heads], dim=1), sum(head.bias for head in heads)
    torch.testing.assert_close(seen["answer"].scores, F.conv2d(maps, weight, bias))


@pytest.mark.parametrize("name", STRIDES)
@torch.no_grad()
def test_a_branch_looks_at_every_so_many_th_pixel_of_its_map(network, seen, name):
    """The release tests with branches that do not stride: at the corners of cells, they say the same."""
    layer = network.get_submodule(f"{name}_conv")
    given, made = seen[f"{name}_conv"]
    dense = F.conv2d(given, layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(made, dense[..., :: STRIDES[name], :: STRIDES[name]], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", STRIDES)
def test_relu_lies_between_the_layers_of_a_branch(seen, name):
    assert torch.equal(seen[f"{name}_fc"][0], seen[f"{name}_conv"][1].relu())
    assert torch.equal(seen[f"{name}_ms"][0], seen[f"{name}_fc"][1].relu())


def test_the_first_branch_looks_at_the_image(seen, images):
    assert torch.equal(seen["data_conv"][0], images)


@pytest.mark.parametrize("name", [name for name in STRIDES if name != "data"])
@torch.no_grad()
def test_the_other_branches_look_at_the_poolings(network, seen, images, name):
    maps = images
    for layer, module in network.trunk.named_children():
        maps = module(maps)
        if layer == name:
            break
    assert torch.equal(seen[f"{name}_conv"][0], maps)


@pytest.mark.parametrize("rows", range(1, 13))
def test_every_branch_fits_the_score_grid_of_any_32k_plus_1(rows):
    columns = 14 - rows
    with torch.device("meta"):
        answer = create_segmenter("msc", CLASSES)(torch.empty(1, 3, 32 * rows + 1, 32 * columns + 1))
    assert answer.scores.shape == (1, CLASSES, 4 * rows + 1, 4 * columns + 1)


@pytest.mark.parametrize(
    ("layer", "spread"),
    [("data_conv", 0.001), ("pool3_fc", 0.001), ("pool4_conv", 0.001), ("pool4_fc", 0.005), ("pool1_ms", 0.01)],
)
def test_branches_start_as_the_release_fills_them(network, layer, spread):
    filled = network.get_submodule(layer)
    assert filled.weight.std().item() == pytest.approx(spread, rel=0.1)
    assert not filled.bias.any()


def test_a_vgg_file_fills_the_trunk_and_leaves_the_branches_fresh(tmp_path):
    tensors, width = {}, 3
    for stage, (count, channels) in CONVOLUTIONS.items():
        for index in range(1, count + 1):
            tensors[f"{stage}_{index}.weight"] = torch.tensor(float(index)).expand(channels, width, 3, 3)
            tensors[f"{stage}_{index}.bias"] = torch.tensor(0.0).expand(channels)
            width = channels
    torch.save(tensors, tmp_path / "vgg16.pth")
    network = create_segmenter("msc", CLASSES)
    network.load_pretrained(str(tmp_path / "vgg16.pth"))
    assert all(torch.equal(network.trunk.state_dict()[name], tensor) for name, tensor in tensors.items())
    assert set(network.fresh_layers) == {*BRANCHES, "fc8"}


def test_with_largefov_frozen_every_branch_still_learns(network, images):
    """The release's second stage."""
    frozen = [network.get_submodule(name) for name in ("trunk", "fc6", "fc7", "fc8")]
    for layer in frozen:
        layer.requires_grad_(False)
    network(images).scores.square().sum().backward()
    learns = {name.rpartition(".")[0] for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    for layer in frozen:
        layer.requires_grad_(True)
    network.zero_grad()
    assert learns == set(BRANCHES)


@pytest.mark.parametrize("train", [False, True])
@torch.no_grad()
def test_branches_drop_half_of_their_channels_in_training_only(network, images, train):
    layer, shares = network.get_submodule("data_fc"), []
    handle = network.get_submodule("data_ms").register_forward_hook(
        lambda _, given, made: shares.append((given[0] == 0).float().mean().item())
    )
    layer.bias += 10  # so that ReLU makes no zeros
    network.train(train)(images)
    layer.bias -= 10
    network.eval()
    handle.remove()
    assert shares == [pytest.approx(0.5 if train else 0, abs=0.05)]


def test_pool5a_can_be_had_here_too():
    with torch.device("meta"):
        assert "pool5a" in dict(create_segmenter("msc", CLASSES, {"pool5a": True}).trunk.named_children())
