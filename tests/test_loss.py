"""The loss: 1 + S cross entropies over valid pixels, the same however a batch is divided."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scaleseg.geometry import IGNORE, Grid, resize
from scaleseg.loss import class_weights, count_valid, scale_aware_loss, scale_aware_losses
from scaleseg.model import Prediction

CLASSES = 4
SCALES = (1.0, 0.75, 0.5)


def random_prediction(image=(65, 97), scales=SCALES, *, batch=2, align_corners=True, seed=0):
    """Scores as leaves, so that gradients can be read off them."""
    generator = torch.Generator().manual_seed(seed)
    grid = Grid(image, scales, 8, align_corners)
    per_scale = tuple(
        torch.randn(batch, CLASSES, *grid.score_size(scale), generator=generator).requires_grad_() for scale in scales
    )
    fused = torch.randn(batch, CLASSES, *grid.fused, generator=generator).requires_grad_()
    weights = torch.full((batch, len(scales), 1, *grid.fused), 1 / len(scales))
    return Prediction(fused, weights, per_scale, grid)


def random_labels(image=(65, 97), *, batch=2, void=0.2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (batch, *image), generator=generator)
    return torch.where(torch.rand(batch, *image, generator=generator) < void, IGNORE, labels)


def cross_entropy_by_hand(scores, labels, weights=None):
    """The mean over valid pixels, in numpy: minus the log of the softmax at the labelled class."""
    scores = scores.detach().double().numpy()
    log_softmax = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    image, row, column = np.nonzero(labels.numpy() != IGNORE)
    labelled = labels.numpy()[image, row, column]
    weights = np.ones(CLASSES) if weights is None else weights.numpy()
    return float((-log_softmax[image, labelled, row, column] * weights[labelled]).sum() / len(labelled))


def test_the_merged_scores_cross_entropy_is_the_mean_over_valid_pixels():
    prediction, labels = random_prediction(), random_labels()
    by_hand = cross_entropy_by_hand(prediction.scores, labels[:, ::8, ::8])
    assert float(scale_aware_losses(prediction, labels).fused) == pytest.approx(by_hand, rel=1e-5)


def test_each_scale_has_its_own_cross_entropy():
    prediction, labels = random_prediction(), random_labels()
    three_quarters = resize(prediction.per_scale[1], prediction.grid.fused, align_corners=True)
    by_hand = [
        cross_entropy_by_hand(prediction.per_scale[0], labels[:, ::8, ::8]),
        cross_entropy_by_hand(three_quarters, labels[:, ::8, ::8]),
        cross_entropy_by_hand(prediction.per_scale[2], labels[:, ::16, ::16]),
    ]
    assert [float(loss) for loss in scale_aware_losses(prediction, labels).per_scale] == pytest.approx(
        by_hand, rel=1e-5
    )


def test_half_pixel_labels_are_those_at_the_cells_centres():
    prediction = random_prediction((64, 96), (1.0, 0.5), align_corners=False)
    labels = random_labels((64, 96))
    by_hand = [
        cross_entropy_by_hand(prediction.per_scale[0], labels[:, 4::8, 4::8]),
        cross_entropy_by_hand(prediction.per_scale[1], labels[:, 8::16, 8::16]),
    ]
    assert [float(loss) for loss in scale_aware_losses(prediction, labels).per_scale] == pytest.approx(
        by_hand, rel=1e-5
    )


def test_gradients_are_those_of_torch_cross_entropy():
    prediction, labels = random_prediction(), random_labels()
    scale_aware_loss(prediction, labels).backward()
    scores = prediction.scores.detach().clone().requires_grad_()
    F.cross_entropy(scores, labels[:, ::8, ::8], ignore_index=IGNORE).backward()
    torch.testing.assert_close(prediction.scores.grad, scores.grad)


def test_the_total_is_the_sum_of_the_parts():
    losses = scale_aware_losses(random_prediction(), random_labels())
    torch.testing.assert_close(losses.total, losses.fused + sum(losses.per_scale))


def test_every_scale_s_scores_have_a_gradient():
    prediction = random_prediction()
    scale_aware_loss(prediction, random_labels()).backward()
    assert all(bool(scores.grad.any()) for scores in (prediction.scores, *prediction.per_scale))


def test_without_extra_supervision_only_the_merged_scores_are_compared():
    prediction, labels = random_prediction(), random_labels()
    losses = scale_aware_losses(prediction, labels, extra_supervision=False)
    assert losses.per_scale == ()
    assert torch.equal(losses.total, scale_aware_losses(prediction, labels).fused)


def test_without_extra_supervision_no_scale_has_a_gradient_of_its_own():
    prediction = random_prediction()
    scale_aware_loss(prediction, random_labels(), extra_supervision=False).backward()
    assert [scores.grad for scores in prediction.per_scale] == [None, None, None]


def test_scores_that_know_nothing_lose_the_log_of_the_number_of_classes():
    prediction = random_prediction()
    unsure = prediction._replace(
        scores=torch.zeros_like(prediction.scores), per_scale=tuple(map(torch.zeros_like, prediction.per_scale))
    )
    assert scale_aware_loss(unsure, random_labels()).item() == pytest.approx(4 * math.log(CLASSES), rel=1e-6)


def test_an_all_void_batch_loses_nothing():
    assert scale_aware_loss(random_prediction(), random_labels(void=1.1)).item() == 0


def test_an_all_void_batch_has_zero_gradients():
    prediction = random_prediction()
    scale_aware_loss(prediction, random_labels(void=1.1)).backward()
    for scores in (prediction.scores, *prediction.per_scale):
        assert torch.equal(scores.grad, torch.zeros_like(scores))


def test_void_pixels_have_no_gradient():
    prediction, labels = random_prediction(scales=(1.0,)), random_labels()
    scale_aware_loss(prediction, labels).backward()
    void = (labels[:, ::8, ::8] == IGNORE)[:, None].expand_as(prediction.scores)
    assert not prediction.scores.grad[void].any()


def test_padding_is_never_trained_on():
    prediction, labels = random_prediction((40, 50), (1.0,)), random_labels((40, 50), void=0)
    scale_aware_loss(prediction, labels).backward()
    trained = prediction.scores.grad.abs().sum(dim=(0, 1)) > 0
    expected = torch.zeros_like(trained)
    expected[:5, :7] = True  # pixels 0, 8 .. 32 of 40 and 0, 8 .. 48 of 50
    assert torch.equal(trained, expected)


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_of_a_batch_sum_to_the_whole_batch_s_loss(parts):
    prediction, labels = random_prediction(batch=4), random_labels(batch=4)
    labels[0] = IGNORE  # parts differ in how much is valid
    valid = count_valid(prediction.grid, labels)
    total = sum(
        scale_aware_losses(Prediction(scores, weights, per_scale, prediction.grid), part, valid=valid).total
        for scores, weights, part, *per_scale in zip(
            prediction.scores.chunk(parts),
            prediction.scale_weights.chunk(parts),
            labels.chunk(parts),
            *(scores.chunk(parts) for scores in prediction.per_scale),
            strict=True,
        )
        for per_scale in [tuple(per_scale)]
    )
    torch.testing.assert_close(total, scale_aware_loss(prediction, labels))


def test_valid_pixels_are_counted_on_each_grid():
    labels = random_labels()
    on_eight, on_sixteen = (int((labels[:, ::step, ::step] != IGNORE).sum()) for step in (8, 16))
    assert count_valid(random_prediction().grid, labels) == [on_eight, on_eight, on_eight, on_sixteen]


def test_one_count_is_enough_without_extra_supervision():
    assert len(count_valid(random_prediction().grid, random_labels(), extra_supervision=False)) == 1


def test_scores_in_bfloat16_are_compared_in_float32():
    prediction, labels = random_prediction(scales=(1.0,)), random_labels()
    half = prediction._replace(scores=prediction.scores.bfloat16())
    rounded = prediction._replace(scores=prediction.scores.bfloat16().float())
    assert torch.equal(scale_aware_loss(half, labels), scale_aware_loss(rounded, labels))


# class weights


def test_class_weights_multiply_each_pixel_s_loss():
    prediction, labels = random_prediction(), random_labels()
    weights = torch.tensor([0.5, 2.0, 1.0, 3.0])
    by_hand = cross_entropy_by_hand(prediction.scores, labels[:, ::8, ::8], weights)
    assert float(scale_aware_losses(prediction, labels, class_weights=weights).fused) == pytest.approx(
        by_hand, rel=1e-5
    )


def test_weights_of_one_change_nothing():
    prediction, labels = random_prediction(), random_labels()
    weighted = scale_aware_loss(prediction, labels, class_weights=torch.ones(CLASSES))
    torch.testing.assert_close(weighted, scale_aware_loss(prediction, labels))


def test_equally_frequent_classes_weigh_the_same():
    assert class_weights([500, 500, 500], [1500, 1500, 1500]).tolist() == pytest.approx([1, 1, 1])


def test_class_weights_are_inverse_to_the_frequency_where_a_class_occurs():
    pixels, present = [900, 90, 10], [1000, 1000, 200]
    weights = class_weights(pixels, present)
    shares = [float(w) * p / n for w, p, n in zip(weights, pixels, present, strict=True)]
    assert shares == pytest.approx([shares[0]] * 3)


def test_class_weights_have_a_mean_of_one_over_all_pixels():
    pixels = torch.tensor([900, 90, 10])
    weights = class_weights(pixels.tolist(), [1000, 1000, 200])
    assert float((weights * pixels).sum() / pixels.sum()) == pytest.approx(1)


def test_an_absent_class_does_not_change_the_weights_of_others():
    with_absent = class_weights([900, 90, 0, 10], [1000, 1000, 0, 200])
    torch.testing.assert_close(with_absent[[0, 1, 3]], class_weights([900, 90, 10], [1000, 1000, 200]))


def test_an_absent_class_weighs_one():
    assert float(class_weights([900, 90, 0, 10], [1000, 1000, 0, 200])[2]) == pytest.approx(1)


def test_without_any_labelled_pixel_every_class_weighs_one():
    assert class_weights([0, 0], [0, 0]).tolist() == [1, 1]
