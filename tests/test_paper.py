"""One test for each equation and claim of the paper (Chen et al., Attention to Scale, CVPR 2016)."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from scaleseg.config import TrainConfig
from scaleseg.fusion import Attention, create_fusion
from scaleseg.geometry import IGNORE, Grid, resize
from scaleseg.loss import scale_aware_losses
from scaleseg.model import Prediction, create_model
from scaleseg.training.optimizer import create_optimizer, rate

THREE = (1.0, 0.75, 0.5)


def random_maps(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def small(fusion="attention", scales=THREE):
    """The method on a network of seconds, its attention head moved away from its uniform start."""
    torch.manual_seed(0)
    model = create_model("small", num_classes=3, fusion=fusion, scales=scales, pretrained="none", attention_width=8)
    for parameter in model.fusion.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model.eval()


@pytest.fixture(scope="module")
def shapes_only():
    """The paper's largest model without memory or arithmetic: only sizes are worked out."""
    with torch.device("meta"):
        return create_model("largefov", num_classes=21, fusion="attention", scales=THREE, pretrained="none").eval()


# Section 3.1: DeepLab-LargeFOV


def test_largefov_has_20_5_million_parameters(shapes_only):
    assert sum(parameter.numel() for parameter in shapes_only.segmenter.parameters()) == 20_505_429


@pytest.mark.parametrize(("pixels", "cells"), [(321, 41), (241, 31), (161, 21), (513, 65), (385, 49), (257, 33)])
def test_largefov_scores_one_cell_per_eight_pixels(shapes_only, pixels, cells):
    scores = shapes_only.segmenter(torch.empty(1, 3, pixels, pixels, device="meta")).scores
    assert scores.shape == (1, 21, cells, cells)


def test_pool5a_changes_neither_sizes_nor_parameters(shapes_only):
    with torch.device("meta"):
        other = create_model("largefov", num_classes=21, pretrained="none", options={"pool5a": True}).segmenter
        assert other(torch.empty(1, 3, 321, 321)).scores.shape == (1, 21, 41, 41)
    assert sum(p.numel() for p in other.parameters()) == 20_505_429


# Section 3.2: several scales of one image


@pytest.mark.parametrize(("side", "inputs"), [(321, [321, 241, 161]), (513, [513, 385, 257])])
def test_a_crop_is_seen_at_three_sizes(side, inputs):
    grid = Grid((side, side), THREE, 8, True)
    assert [grid.input_size(scale) for scale in THREE] == [(pixels, pixels) for pixels in inputs]


def test_a_crop_of_321_is_neither_padded_nor_cut():
    assert Grid((321, 321), THREE, 8, True).padded == (321, 321)


@pytest.mark.parametrize(("side", "cells"), [(321, [41, 31, 21]), (513, [65, 49, 33])])
def test_scores_of_three_sizes_are_merged_at_the_finest(shapes_only, side, cells):
    prediction = shapes_only(torch.empty(1, 3, side, side, device="meta"))
    assert [scores.shape[-1] for scores in prediction.per_scale] == cells
    assert prediction.scores.shape == (1, 21, cells[0], cells[0])


def test_merged_scores_are_brought_to_the_image_by_eight(shapes_only):
    assert shapes_only(torch.empty(1, 3, 321, 321, device="meta")).at().shape == (1, 21, 321, 321)


def test_the_half_scale_input_is_every_second_pixel():
    images = random_maps(1, 3, 321, 321)
    torch.testing.assert_close(resize(images, (161, 161), align_corners=True), images[..., ::2, ::2], atol=1e-4, rtol=0)


def test_scales_share_one_network(shapes_only):
    with torch.device("meta"):
        one = create_model("largefov", num_classes=21, fusion="average", scales=(1.0,), pretrained="none")
    assert {name for name, _ in one.named_parameters()} == {
        name for name, _ in shapes_only.named_parameters() if not name.startswith("fusion.")
    }


@pytest.mark.parametrize(("num_scales", "parameters"), [(2, 9_438_722), (3, 14_157_827), (4, 18_876_932)])
def test_the_attention_head_has_512_filters_and_one_logit_a_scale(num_scales, parameters):
    with torch.device("meta"):
        head = Attention(num_scales, 1024)
    assert sum(parameter.numel() for parameter in head.parameters()) == parameters


@torch.no_grad()
def test_equations_1_and_2_are_the_paper_s_loops():
    model, images = small(), torch.rand(1, 3, 33, 33, generator=torch.Generator().manual_seed(1))
    prediction = model(images)
    side = prediction.grid.fused
    normalized = model.normalize(images)
    sizes = [(33, 33), (25, 25), (17, 17)]
    dense = [model.segmenter(F.interpolate(normalized, size, mode="bilinear", align_corners=True)) for size in sizes]
    features, f = (
        [F.interpolate(maps, side, mode="bilinear", align_corners=True)[0] for maps in kind]
        for kind in zip(*((answer.features, answer.scores) for answer in dense), strict=True)
    )
    hidden = F.conv2d(torch.cat(features)[None], model.fusion.hidden.weight, model.fusion.hidden.bias, padding=1).relu()
    h = F.conv2d(hidden, model.fusion.logits.weight, model.fusion.logits.bias)[0]
    g, w = torch.zeros(3, *side), torch.zeros(3, *side)
    for row in range(side[0]):
        for column in range(side[1]):
            for s in range(3):
                total = sum(math.exp(float(h[t, row, column])) for t in range(3))
                w[s, row, column] = math.exp(float(h[s, row, column])) / total  # Eq. 2
                for c in range(3):
                    g[c, row, column] += w[s, row, column] * f[s][c, row, column]  # Eq. 1
    torch.testing.assert_close(prediction.scale_weights[0, :, 0], w)
    torch.testing.assert_close(prediction.scores[0], g)


@pytest.mark.parametrize("num_scales", [1, 2, 3, 4])
def test_the_streamed_sum_is_the_convolution_of_the_concatenation(num_scales):
    torch.manual_seed(0)
    head = Attention(num_scales, 6, width=10)
    nn.init.normal_(head.hidden.bias)
    features = random_maps(num_scales, 2, 6, 5, 7)
    streamed = sum(head.embed(maps, index) for index, maps in enumerate(features))
    torch.testing.assert_close(streamed, head.hidden(torch.cat([*features], dim=1)))


@torch.no_grad()
def test_attention_whose_last_layer_is_zero_is_the_average():
    model, images = small(), torch.rand(1, 3, 65, 65)
    nn.init.zeros_(model.fusion.logits.weight)
    nn.init.zeros_(model.fusion.logits.bias)
    with_head = model(images).scores
    model.fusion = create_fusion("average", 3, 64)
    torch.testing.assert_close(with_head, model(images).scores)


def test_training_starts_from_the_average():
    head = Attention(3, 6, width=8)
    features, scores = random_maps(3, 1, 6, 5, 5), random_maps(1, 3, 4, 5, 5)
    weights = head.weights([head.embed(maps, index) for index, maps in enumerate(features)], scores)
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / 3))


def test_average_pooling_is_the_mean_of_the_scales():
    scores = random_maps(2, 3, 4, 5, 5)
    weights = create_fusion("average", 3, 6).weights([None] * 3, scores)
    torch.testing.assert_close((weights * scores).sum(dim=1), scores.mean(dim=1))


def test_max_pooling_is_torch_s_max_in_value_and_in_gradient():
    ours, theirs = random_maps(2, 3, 4, 5, 5).requires_grad_(), random_maps(2, 3, 4, 5, 5).requires_grad_()
    pull = random_maps(2, 4, 5, 5, seed=1)
    merged = (create_fusion("max", 3, 6).weights([None] * 3, ours) * ours).sum(dim=1)
    oracle = theirs.max(dim=1).values
    merged.backward(pull)
    oracle.backward(pull)
    torch.testing.assert_close(merged, oracle)
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_the_gradient_reaches_scores_and_features_through_the_weights():
    model = small().train()
    model(torch.rand(1, 3, 33, 33)).scores.square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_scoring_then_enlarging_is_enlarging_then_scoring():
    fc8, fc7 = nn.Conv2d(16, 5, 1), random_maps(1, 16, 21, 21)
    scored_first = resize(fc8(fc7), (41, 41), align_corners=True)
    torch.testing.assert_close(scored_first, fc8(resize(fc7, (41, 41), align_corners=True)))


# Section 3.3: extra supervision


def prediction_and_labels(scales):
    grid = Grid((321, 321), scales, 8, True)
    per_scale = tuple(random_maps(1, 5, *grid.score_size(scale), seed=index) for index, scale in enumerate(scales))
    scores = random_maps(1, 5, *grid.fused, seed=9)
    weights = torch.full((1, len(scales), 1, *grid.fused), 1 / len(scales))
    labels = torch.randint(0, 6, (1, 321, 321), generator=torch.Generator().manual_seed(0))
    return Prediction(scores, weights, per_scale, grid), torch.where(labels == 5, IGNORE, labels)


def cross_entropy(scores, labels):
    return F.cross_entropy(scores, labels, ignore_index=IGNORE)


@pytest.mark.parametrize("scales", [(1.0, 0.5), THREE, (1.0, 0.75, 0.5, 0.25)])
def test_s_scales_have_1_plus_s_cross_entropies_of_weight_one(scales):
    losses = scale_aware_losses(*prediction_and_labels(scales))
    assert len(losses.per_scale) == len(scales)
    torch.testing.assert_close(losses.total, losses.fused + sum(losses.per_scale))


def test_one_scale_has_one_cross_entropy():
    prediction, labels = prediction_and_labels((1.0,))
    losses = scale_aware_losses(prediction, labels)
    assert losses.per_scale == ()
    torch.testing.assert_close(losses.total, cross_entropy(prediction.scores, labels[:, ::8, ::8]))


@pytest.mark.parametrize(("cells", "step"), [(41, 8), (21, 16)])
def test_labels_are_subsampled_never_blended(cells, step):
    labels = prediction_and_labels(THREE)[1]
    grid = Grid((321, 321), THREE, 8, True)
    assert torch.equal(grid.labels_at(labels, (cells, cells)), labels[:, ::step, ::step])


def test_merged_scores_are_compared_with_every_eighth_label():
    prediction, labels = prediction_and_labels(THREE)
    expected = cross_entropy(prediction.scores, labels[:, ::8, ::8])
    torch.testing.assert_close(scale_aware_losses(prediction, labels).fused, expected)


def test_half_scale_scores_are_compared_with_every_sixteenth_label_on_their_own_grid():
    prediction, labels = prediction_and_labels(THREE)
    expected = cross_entropy(prediction.per_scale[2], labels[:, ::16, ::16])
    torch.testing.assert_close(scale_aware_losses(prediction, labels).per_scale[2], expected)


def test_three_quarter_scale_scores_are_compared_on_the_merged_grid():
    prediction, labels = prediction_and_labels(THREE)
    enlarged = F.interpolate(prediction.per_scale[1], (41, 41), mode="bilinear", align_corners=True)
    expected = cross_entropy(enlarged, labels[:, ::8, ::8])
    torch.testing.assert_close(scale_aware_losses(prediction, labels).per_scale[1], expected)


# Section 4: training


def rates_and_decays(**settings):
    model = small()
    optimizer = create_optimizer(model, TrainConfig(**settings), model.fresh())
    found = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    return {name: found[id(parameter)] for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(
    ("name", "lr", "decay"),
    [
        ("segmenter.trunk.0.weight", 0.001, 0.0005),
        ("segmenter.trunk.0.bias", 0.002, 0.0),
        ("segmenter.head.weight", 0.01, 0.0005),
        ("segmenter.head.bias", 0.02, 0.0),
        ("fusion.hidden.weight", 0.01, 0.0005),
        ("fusion.logits.bias", 0.02, 0.0),
    ],
)
def test_biases_learn_twice_and_new_layers_ten_times_as_fast(name, lr, decay):
    assert rates_and_decays()[name] == pytest.approx((lr, decay))


def test_the_fusion_may_have_a_rate_of_its_own():
    own, shared = rates_and_decays(fusion_lr=0.2), rates_and_decays()
    for name, (lr, decay) in own.items():
        times = 0.2 if name.startswith("fusion.") else 1
        assert (lr, decay) == pytest.approx((times * shared[name][0], shared[name][1])), name


def test_a_fusion_that_is_loaded_learns_like_the_rest_that_is():
    model = small()
    fresh = [name for name in model.fresh() if not name.startswith("fusion.")]
    groups = create_optimizer(model, TrainConfig(fusion_lr=0.2), fresh).param_groups
    loaded = id(model.fusion.hidden.weight)
    assert [group["lr"] for group in groups if loaded in map(id, group["params"])] == [pytest.approx(0.001)]


@pytest.mark.parametrize("fresh_lr", [0.001, 1.0, 10.0])
def test_groups_stand_in_the_order_that_checkpoints_rely_on(fresh_lr):
    model = small()
    fresh = set(model.fresh())
    kinds = {id(parameter): (name in fresh, parameter.ndim == 1) for name, parameter in model.named_parameters()}
    groups = create_optimizer(model, TrainConfig(fresh_lr=fresh_lr), fresh).param_groups
    found = [{kinds[id(parameter)] for parameter in group["params"]} for group in groups]
    assert found == [{kind} for kind in sorted(set(kinds.values()))]


@pytest.mark.parametrize("fusion_lr", [1.0, 0.2])
def test_no_parameter_is_left_out_of_the_optimiser(fusion_lr):
    model = small()
    optimizer = create_optimizer(model, TrainConfig(fusion_lr=fusion_lr), model.fresh())
    trained = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(trained) == sorted(id(parameter) for parameter in model.parameters())


def test_momentum_is_0_9():
    model = small()
    assert {group["momentum"] for group in create_optimizer(model, TrainConfig(), model.fresh()).param_groups} == {0.9}


@pytest.mark.parametrize(("step", "share"), [(0, 1), (1999, 1), (2000, 0.1), (3999, 0.1), (4000, 0.01), (5999, 0.01)])
def test_the_rate_falls_to_a_tenth_every_2000_steps(step, share):
    assert rate(TrainConfig(), step) == pytest.approx(share)


def test_the_last_layer_starts_as_a_gaussian_of_deviation_0_01():
    torch.manual_seed(0)
    head = create_model("small", num_classes=255, fusion="average", pretrained="none").segmenter.head
    assert float(head.weight.detach().std()) == pytest.approx(0.01, rel=0.05)
    assert not head.bias.any()
