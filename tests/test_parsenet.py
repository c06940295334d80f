"""ParseNet: fc7 and its average over the image, brought to the same length and classified."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from scaleseg.errors import UserError
from scaleseg.segmenters import create_segmenter
from scaleseg.segmenters.parsenet import Normalize
from scaleseg.segmenters.vgg import CONVOLUTIONS

CLASSES = 3
SCORING = ("fc7_norm_score", "pool6_1x1_norm_score")


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def network():
    """With scales that are not all alike."""
    torch.manual_seed(0)
    network = create_segmenter("parsenet", CLASSES).eval()
    with torch.no_grad():
        for layer in (network.fc7_norm, network.pool6_1x1_norm):
            layer.weight.uniform_(5, 15)
    return network


def test_parsenet_has_a_scale_a_channel_and_a_classifier_more_than_largefov():
    with torch.device("meta"):
        largefov, parsenet = (
            sum(p.numel() for p in create_segmenter(name, 21).parameters()) for name in ("largefov", "parsenet")
        )
    assert parsenet - largefov == 2 * 1024 + 1024 * 21 + 21


def test_a_new_layer_brings_every_vector_to_length_10():
    lengths = Normalize(64)(noise(2, 64, 5, 7)).norm(dim=1)
    torch.testing.assert_close(lengths, torch.full((2, 5, 7), 10.0))


def test_normalising_is_pytorch_s_times_a_scale_a_channel():
    layer, maps = Normalize(6), noise(2, 6, 4, 3)
    scales = torch.arange(1.0, 7.0)
    layer.weight.data = scales
    torch.testing.assert_close(layer(maps), F.normalize(maps, dim=1) * scales[:, None, None])


def test_normalising_forgets_how_long_vectors_were():
    layer, maps = Normalize(8), noise(1, 8, 3, 3)
    torch.testing.assert_close(layer(1000 * maps), layer(maps))


def test_the_gradients_of_normalising_are_those_of_finite_differences():
    layer, maps = Normalize(3).double(), noise(1, 3, 2, 2).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda maps, weight: layer(maps), (maps, layer.weight))


def test_a_vector_of_zeros_stays_one_and_sends_no_infinity_back():
    maps = torch.zeros(1, 4, 1, 1, requires_grad=True)
    made = Normalize(4)(maps)
    made.sum().backward()
    assert not made.any()
    assert bool(maps.grad.isfinite().all())


@torch.no_grad()
def test_the_scores_are_one_classifier_s_on_the_concatenation_of_fc7_and_its_average(network):
    images = noise(2, 3, 64, 40)
    fc7 = F.relu(network.fc7(F.relu(network.fc6(network.trunk(images)))))
    average = fc7.flatten(2).mean(dim=2)[:, :, None, None].expand_as(fc7)
    scales = torch.cat([network.fc7_norm.weight, network.pool6_1x1_norm.weight])[:, None, None]
    both = torch.cat([F.normalize(fc7, dim=1), F.normalize(average, dim=1)], dim=1) * scales
    heads = [network.get_submodule(name) for name in SCORING]
    weight, bias = torch.cat([head.weight for head in heads], dim=1), heads[0].bias + heads[1].bias
    answer = network(images)
    torch.testing.assert_close(answer.scores, F.conv2d(both, weight, bias), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(answer.features, both[:, :1024], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_context_is_the_same_everywhere_in_an_image_and_not_in_another(network):
    kept = network.fc7_norm_score.weight.clone()
    network.fc7_norm_score.weight.zero_()
    scores = network(noise(2, 3, 64, 40)).scores
    network.fc7_norm_score.weight.copy_(kept)
    first, second = scores[:, :, 0, 0]
    torch.testing.assert_close(scores, scores[:, :, :1, :1].expand_as(scores), rtol=0, atol=0)
    assert not torch.allclose(first, second)


def test_pooling_is_vgg_s_where_it_strides(network):
    poolings = [layer for layer in network.trunk.modules() if isinstance(layer, nn.MaxPool2d)]
    assert [(layer.kernel_size, layer.stride, layer.padding) for layer in poolings] == [(2, 2, 0)] * 3 + [(3, 1, 1)] * 2


@pytest.mark.parametrize("rows", range(1, 8))
def test_a_cell_is_a_block_of_8_by_8_pixels(rows):
    columns = 9 - rows
    with torch.device("meta"):
        network = create_segmenter("parsenet", CLASSES)
        scores = network(torch.empty(1, 3, 8 * rows, 8 * columns)).scores
    assert scores.shape == (1, CLASSES, rows, columns)
    assert (network.align_corners, network.output_stride) == (False, 8)


@torch.no_grad()
def test_scores_and_lengths_are_computed_in_float32_under_autocast(network):
    with torch.autocast("cpu", torch.bfloat16):
        answer = network(noise(1, 3, 64, 40))
    assert answer.scores.dtype == answer.features.dtype == torch.float32
    wanted = network.fc7_norm.weight.square().sum().sqrt() / 1024**0.5
    assert answer.features.square().sum(dim=1).sqrt().mean() == pytest.approx(wanted.item(), rel=0.1)


def test_a_vgg_file_fills_the_trunk_and_leaves_scales_at_10(tmp_path):
    tensors, width = {}, 3
    for stage, (count, channels) in CONVOLUTIONS.items():
        for index in range(1, count + 1):
            tensors[f"{stage}_{index}.weight"] = torch.tensor(float(index)).expand(channels, width, 3, 3)
            tensors[f"{stage}_{index}.bias"] = torch.tensor(0.0).expand(channels)
            width = channels
    torch.save(tensors, tmp_path / "vgg16.pth")
    network = create_segmenter("parsenet", CLASSES)
    network.load_pretrained(str(tmp_path / "vgg16.pth"))
    assert all(torch.equal(network.trunk.state_dict()[name], tensor) for name, tensor in tensors.items())
    assert network.fc7_norm.weight.unique().tolist() == network.pool6_1x1_norm.weight.unique().tolist() == [10]


def test_what_learns_fast_is_what_scores(network):
    assert set(network.fresh_layers) == set(SCORING)


def test_the_scales_learn(network):
    network(noise(1, 3, 64, 40)).scores.square().sum().backward()
    moved = [bool(layer.weight.grad.any()) for layer in (network.fc7_norm, network.pool6_1x1_norm)]
    network.zero_grad()
    assert moved == [True, True]


@pytest.mark.parametrize(("train", "share"), [(True, 0.3), (False, 0)])
@torch.no_grad()
def test_three_in_ten_channels_of_the_average_are_dropped_in_training_only(network, train, share):
    seen = []
    handle = network.pool6_1x1_norm_score.register_forward_hook(lambda _, given, made: seen.append(given[0]))
    network.fc7.bias += 10  # so that ReLU makes no zeros
    network.train(train)(noise(4, 3, 64, 40))
    network.fc7.bias -= 10
    network.eval()
    handle.remove()
    assert (seen[0] == 0).float().mean().item() == pytest.approx(share, abs=0.05)


def test_the_average_s_own_dropout_has_a_range_too():
    with pytest.raises(UserError, match=r"model.options of parsenet are .*dropout"):
        create_segmenter("parsenet", CLASSES, {"context_dropout": 1.5})
