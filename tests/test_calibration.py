"""Calibration against a hand-computed case, a loop over bins and scikit-learn's reliability curve."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from scaleseg.metrics import Reliability


def drawn(seed: int, count: int = 5000) -> tuple[np.ndarray, np.ndarray]:
    """Confidences, and answers that are right less often than these say."""
    generator = np.random.default_rng(seed)
    confidence = generator.uniform(0.2, 1, count).astype(np.float32)
    return confidence, generator.random(count) < confidence**2


def counted(*parts: tuple[np.ndarray, np.ndarray]) -> Reliability:
    reliability = Reliability()
    for confidence, right in parts:
        reliability.add(confidence, right)
    return reliability


def test_four_pixels_are_counted_by_hand() -> None:
    found = counted((np.array([0.9, 0.9, 0.5, 0.5]), np.array([True, False, True, True])))
    # Two pixels at 0.9 of which half are right, two at 0.5 of which all are: both bins half of the pixels.
    assert found.ece == pytest.approx(0.5 * abs(0.9 - 0.5) + 0.5 * abs(0.5 - 1))


def test_the_error_is_a_loop_over_fifteen_bins() -> None:
    confidence, right = drawn(0)
    expected = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].astype(np.float64).mean())
    assert counted((confidence, right)).ece == pytest.approx(expected)


def test_the_curve_is_scikit_learn_s() -> None:
    confidence, right = drawn(1)
    accuracy, mean = calibration_curve(right, confidence, n_bins=15, strategy="uniform")
    found = counted((confidence, right))
    there = found.pixels > 0
    assert found.accuracy[there] == pytest.approx(accuracy)
    assert found.confidence[there] == pytest.approx(mean)


def test_photograph_by_photograph_is_all_at_once() -> None:
    parts = [drawn(2), drawn(3, 70), drawn(4, 0)]
    together = counted((np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])))
    assert counted(*parts).ece == pytest.approx(together.ece)


def test_a_model_that_is_as_sure_as_it_is_right_has_no_error() -> None:
    assert counted((np.full(10, 0.8), np.arange(10) < 8)).ece == pytest.approx(0)


@pytest.mark.parametrize(("confidence", "place"), [(1.0, 14), (1.0000001, 14), (0.0, 0), (1 / 15, 0)])
def test_both_ends_have_a_bin(confidence: float, place: int) -> None:
    assert int(counted((np.array([confidence]), np.array([True]))).pixels.argmax()) == place


def test_shares_add_up_to_one() -> None:
    assert counted(drawn(5)).shares.sum() == pytest.approx(1)


def test_nothing_counted_is_no_error() -> None:
    assert Reliability().ece == 0
