"""Mean weights against masks, the correlation against ranks by hand, how divided an image is against a hand-made case."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from scaleseg.metrics import GroupMeans, division, interval, spearman, spearman_interval, sums_of_draws


def weights_of(seed: int, scales: int = 3, size: tuple[int, int] = (11, 13)) -> np.ndarray:
    raw = np.random.default_rng(seed).random((scales, *size)).astype(np.float32)
    return raw / raw.sum(axis=0)


def ranks(values: np.ndarray) -> np.ndarray:
    """Of ties, the mean of the places that they take."""
    return np.array([(values < one).sum() + ((values == one).sum() + 1) / 2 for one in values])


def test_group_means_are_means_over_masks() -> None:
    parts = [(weights_of(seed), np.random.default_rng(seed).integers(0, 3, (11, 13))) for seed in range(3)]
    means = GroupMeans(4, 3)
    for weights, groups in parts:
        means.add(weights.reshape(3, -1), groups.ravel())
    for group in range(3):
        expected = np.concatenate([weights[:, groups == group] for weights, groups in parts], axis=1).mean(axis=1)
        assert means.mean(group) == pytest.approx(tuple(expected), rel=1e-5)
    assert means.mean(3) is None


def test_weights_that_are_everywhere_the_same_divide_nothing() -> None:
    assert division(np.broadcast_to(np.array([0.25, 0.75])[:, None, None], (2, 4, 5)).copy()) == 0


def test_an_image_of_two_halves_that_believe_other_scales_is_divided_by_a_half() -> None:
    weights = np.zeros((2, 4, 6))
    weights[0, :, :3], weights[1, :, 3:] = 1, 1  # the mean is a half; each pixel is half away from it, on both scales
    assert division(weights) == 0.5


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1)), min_size=3, max_size=30))
def test_the_correlation_is_scipy_s(pairs: list[tuple[int, float]]) -> None:
    first, second = np.array(pairs, float).T
    if np.ptp(first) and np.ptp(second):
        assert spearman(first, second) == pytest.approx(float(spearmanr(first, second).statistic), abs=1e-12)


def test_the_correlation_is_pearson_s_of_ranks_with_ties() -> None:
    generator = np.random.default_rng(0)
    first = generator.integers(0, 6, 40).astype(float)
    second = first + generator.integers(0, 5, 40)
    assert spearman(first, second) == pytest.approx(np.corrcoef(ranks(first), ranks(second))[0, 1])


@pytest.mark.parametrize(("values", "expected"), [([1.0, 2.0, 40.0], 1.0), ([9.0, 3.0, -1.0], -1.0)])
def test_what_only_rises_or_falls_is_one(values: list[float], expected: float) -> None:
    assert spearman(np.array([0.1, 0.2, 0.3]), np.array(values)) == pytest.approx(expected)


@pytest.mark.parametrize("second", [[1.0, 2.0], [2.0, 2.0, 2.0]])
def test_two_objects_or_equal_ones_have_no_correlation_and_no_interval(second: list[float]) -> None:
    first = np.arange(len(second), dtype=float)
    images = np.arange(len(second))
    assert spearman(first, np.array(second)) is None
    assert spearman_interval(first, np.array(second), images) is None


def test_the_interval_is_a_loop_over_draws_of_images() -> None:
    generator = np.random.default_rng(1)
    images = np.repeat([7, 2, 9, 4], [3, 5, 1, 4])
    first = generator.random(13)
    second = first + generator.random(13)
    chosen, found = np.random.default_rng(5), []
    for _ in range(60):
        drawn = [np.flatnonzero(images == np.unique(images)[index]) for index in chosen.integers(0, 4, 4)]
        pairs = np.concatenate(drawn)
        if len(np.unique(first[pairs])) > 1 and len(pairs) > 2:
            found.append(np.corrcoef(ranks(first[pairs]), ranks(second[pairs]))[0, 1])
    expected = np.percentile(found, [2.5, 97.5])
    assert spearman_interval(first, second, images, resamples=60, seed=5) == pytest.approx(tuple(expected))


def test_objects_of_one_image_are_no_many_witnesses() -> None:
    values = np.arange(50.0)
    other = values + np.random.default_rng(2).normal(0, 20, 50)
    alone = spearman_interval(values, other, np.zeros(50, np.int64), resamples=20)
    assert alone == (spearman(values, other),) * 2


def test_draws_take_the_same_images_of_every_table() -> None:
    generator = np.random.default_rng(3)
    hits = generator.integers(0, 9, (12, 2)).astype(float)
    one, two = sums_of_draws([(hits, hits + 1), (2 * hits, hits)], resamples=30)
    assert np.array_equal(2 * one[0], two[0])
    assert np.array_equal(one[0], two[1])


def test_the_interval_of_a_mean_over_objects_is_that_of_sums_over_counts() -> None:
    generator = np.random.default_rng(4)
    scores = [generator.random(count) for count in generator.integers(0, 6, 20)]
    table = np.array([[one.sum()] for one in scores]), np.array([[float(len(one))] for one in scores])
    ((sums, counts),) = sums_of_draws([table], resamples=40, seed=6)
    again = np.random.default_rng(6)
    draws = [again.integers(0, 20, 20) for _ in range(40)]
    expected = [np.concatenate([scores[index] for index in draw]).mean() for draw in draws]
    assert interval((sums / counts)[:, 0]) == pytest.approx(tuple(np.percentile(expected, [2.5, 97.5])))
