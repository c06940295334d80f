"""Fusions: weights over scales are non-negative, sum to one, and learn where they can."""

import pytest
import torch
from torch import nn

from scaleseg.errors import UserError
from scaleseg.fusion import FUSIONS, Attention, Average, Max, create_fusion

FEATURES = 6


def random_maps(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def lively_attention(num_scales, *, seed=0, dropout=0.0, **design):
    """An attention head whose last layer has learned something."""
    torch.manual_seed(seed)
    fusion = Attention(num_scales, FEATURES, width=8, dropout=dropout, **design)
    for parameter in fusion.parameters():
        nn.init.normal_(parameter, std=0.5)
    return fusion


def create(name, num_scales):
    return lively_attention(num_scales) if name == "attention" else create_fusion(name, num_scales, FEATURES)


def fused(fusion, features, scores):
    embedded = [fusion.embed(maps, index) for index, maps in enumerate(features)]
    return (fusion.weights(embedded, scores) * scores).sum(dim=1)


def weights_of(fusion, num_scales, *, size=(5, 7), classes=4, batch=2):
    features = random_maps(num_scales, batch, FEATURES, *size)
    scores = random_maps(batch, num_scales, classes, *size, seed=1)
    embedded = [fusion.embed(maps, index) for index, maps in enumerate(features)]
    return fusion.weights(embedded, scores)


@pytest.mark.parametrize("num_scales", [1, 2, 3, 4])
@pytest.mark.parametrize("name", FUSIONS)
def test_weights_sum_to_one_over_scales(name, num_scales):
    total = weights_of(create(name, num_scales), num_scales).sum(dim=1)
    torch.testing.assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize("name", FUSIONS)
def test_weights_are_never_negative(name):
    assert bool((weights_of(create(name, 3), 3) >= 0).all())


@pytest.mark.parametrize(("name", "axis"), [("average", 1), ("max", 4), ("attention", 1)])
def test_only_max_weighs_each_class_by_itself(name, axis):
    assert weights_of(create(name, 3), 3).shape == (2, 3, axis, 5, 7)


@pytest.mark.parametrize("name", FUSIONS)
def test_fused_scores_lie_between_those_of_the_scales(name):
    scores = random_maps(2, 3, 4, 5, 7)
    merged = fused(create(name, 3), random_maps(3, 2, FEATURES, 5, 7, seed=1), scores)
    assert bool((merged <= scores.amax(dim=1) + 1e-6).all() and (merged >= scores.amin(dim=1) - 1e-6).all())


@pytest.mark.parametrize("name", FUSIONS)
def test_one_scale_is_left_as_it_is(name):
    scores = random_maps(2, 1, 4, 5, 7)
    torch.testing.assert_close(fused(create(name, 1), random_maps(1, 2, FEATURES, 5, 7), scores), scores[:, 0])


@pytest.mark.parametrize("name", FUSIONS)
def test_scales_that_agree_are_left_as_they_are(name):
    one = random_maps(2, 1, 4, 5, 7)
    merged = fused(create(name, 3), random_maps(3, 2, FEATURES, 5, 7), one.expand(-1, 3, -1, -1, -1))
    torch.testing.assert_close(merged, one[:, 0])


def test_average_is_the_mean_over_scales():
    scores = random_maps(2, 3, 4, 5, 7)
    torch.testing.assert_close(fused(Average(), random_maps(3, 2, FEATURES, 5, 7), scores), scores.mean(dim=1))


def test_max_is_the_highest_score_of_any_scale():
    scores = random_maps(2, 3, 4, 5, 7)
    torch.testing.assert_close(fused(Max(), random_maps(3, 2, FEATURES, 5, 7), scores), scores.amax(dim=1))


def test_max_gives_a_tie_to_one_scale_alone():
    tied = torch.zeros(1, 3, 2, 4, 4)
    assert set(Max().weights([None] * 3, tied).flatten().tolist()) == {0.0, 1.0}


def test_attention_shifts_with_its_logits_only_between_scales():
    fusion = lively_attention(3)
    before = weights_of(fusion, 3)
    with torch.no_grad():
        fusion.logits.bias += 7
    torch.testing.assert_close(weights_of(fusion, 3), before)


def test_attention_sees_the_features_of_every_scale():
    fusion = lively_attention(3)
    features = [maps.requires_grad_() for maps in random_maps(3, 1, FEATURES, 5, 7)]
    embedded = [fusion.embed(maps, index) for index, maps in enumerate(features)]
    fusion.weights(embedded, random_maps(1, 3, 4, 5, 7))[0, 0, 0, 2, 3].backward()
    assert all(bool(maps.grad.any()) for maps in features)


def test_attention_sees_a_neighbourhood_of_three_by_three():
    fusion = lively_attention(2)
    features = [maps.requires_grad_() for maps in random_maps(2, 1, FEATURES, 7, 9)]
    embedded = [fusion.embed(maps, index) for index, maps in enumerate(features)]
    fusion.weights(embedded, random_maps(1, 2, 4, 7, 9))[0, 0, 0, 3, 4].backward()
    seen = features[0].grad[0].abs().sum(dim=0).nonzero()
    assert bool((seen >= torch.tensor([2, 3])).all() and (seen <= torch.tensor([4, 5])).all())


DESIGNS = [{"kernel": 1}, {"layers": 1}, {"kernel": 1, "layers": 1}]
"""The paper's other heads (section 4.1)."""


@pytest.mark.parametrize("design", DESIGNS)
def test_every_design_of_the_head_gives_weights(design):
    weights = weights_of(lively_attention(3, **design), 3)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones_like(weights[:, 0]))
    assert float(weights.detach().std()) > 0.01


@pytest.mark.parametrize("design", DESIGNS)
def test_every_design_starts_from_the_average_and_can_learn(design):
    fusion = Attention(3, FEATURES, width=8, dropout=0.0, **design)
    assert bool((weights_of(fusion, 3) == 1 / 3).all())
    merged = fused(fusion, random_maps(3, 1, FEATURES, 5, 5), random_maps(1, 3, 4, 5, 5, seed=1))
    merged.square().sum().backward()
    assert bool((fusion.logits or fusion.hidden).weight.grad.any())


def test_a_kernel_of_one_sees_one_cell_alone():
    fusion = lively_attention(2, kernel=1)
    features = [maps.requires_grad_() for maps in random_maps(2, 1, FEATURES, 7, 9)]
    embedded = [fusion.embed(maps, index) for index, maps in enumerate(features)]
    fusion.weights(embedded, random_maps(1, 2, 4, 7, 9))[0, 0, 0, 3, 4].backward()
    assert features[0].grad[0].abs().sum(dim=0).nonzero().tolist() == [[3, 4]]


def test_a_head_of_one_layer_is_one_convolution_of_the_concatenation():
    fusion = lively_attention(3, layers=1)
    features = random_maps(3, 2, FEATURES, 5, 7)
    embedded = [fusion.embed(maps, index) for index, maps in enumerate(features)]
    by_hand = fusion.hidden(torch.cat(list(features), dim=1)).softmax(dim=1)
    torch.testing.assert_close(fusion.weights(embedded, random_maps(2, 3, 4, 5, 7))[:, :, 0], by_hand)


def test_attention_does_not_look_at_scores():
    fusion = lively_attention(2)
    embedded = [fusion.embed(maps, index) for index, maps in enumerate(random_maps(2, 1, FEATURES, 5, 5))]
    one, other = (fusion.weights(embedded, random_maps(1, 2, 4, 5, 5, seed=seed)) for seed in (1, 2))
    assert torch.equal(one, other)


def test_a_new_attention_head_can_learn():
    fusion = Attention(2, FEATURES, width=8, dropout=0.0)
    merged = fused(fusion, random_maps(2, 1, FEATURES, 5, 5), random_maps(1, 2, 4, 5, 5, seed=1))
    merged.square().sum().backward()
    assert bool(fusion.logits.weight.grad.any())


def test_every_parameter_of_a_lively_head_has_a_gradient():
    fusion = lively_attention(3)
    merged = fused(fusion, random_maps(3, 1, FEATURES, 5, 5), random_maps(1, 3, 4, 5, 5, seed=1))
    merged.square().sum().backward()
    assert all(bool(parameter.grad.any()) for parameter in fusion.parameters())


def test_attention_drops_out_in_training():
    fusion = lively_attention(2, dropout=0.5).train()
    assert not torch.equal(weights_of(fusion, 2), weights_of(fusion, 2))


def test_attention_drops_nothing_out_in_evaluation():
    fusion = lively_attention(2, dropout=0.5).eval()
    assert torch.equal(weights_of(fusion, 2), weights_of(fusion, 2))


def test_huge_attention_logits_choose_one_scale_and_stay_finite():
    fusion = lively_attention(2)
    with torch.no_grad():
        fusion.logits.bias.copy_(torch.tensor([1e9, 0.0]))
    weights = weights_of(fusion, 2)
    assert bool((weights[:, 0] == 1).all() and (weights[:, 1] == 0).all())


def test_average_and_max_keep_nothing_of_the_features():
    assert [fusion.embed(random_maps(1, FEATURES, 3, 3), 0) for fusion in (Average(), Max())] == [None, None]


def test_average_and_max_have_nothing_to_learn():
    assert [len(list(fusion.parameters())) for fusion in (Average(), Max())] == [0, 0]


def test_an_unknown_fusion_is_the_users_error_and_names_the_nearest():
    with pytest.raises(UserError, match="fusion is 'maxx'; did you mean 'max'"):
        create_fusion("maxx", 2, FEATURES)
