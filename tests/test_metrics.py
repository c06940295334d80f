"""The figures of one confusion matrix, against scikit-learn."""

import json
import warnings

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, jaccard_score

from scaleseg.geometry import IGNORE
from scaleseg.metrics import Confusion, Metrics

NAMES = ("a", "b", "c", "d", "e")


def draw(seed: int, classes: int = 5, size: tuple[int, int] = (23, 17)) -> tuple[np.ndarray, np.ndarray]:
    """Labels with a tenth of void, and predictions that are right about half of the time."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, classes, size)
    guess = np.where(generator.random(size) < 0.5, truth, generator.integers(0, classes, size))
    return np.where(generator.random(size) < 0.1, IGNORE, truth), guess


def count(*pairs: tuple[np.ndarray, np.ndarray], classes: int = 5) -> Confusion:
    confusion = Confusion(classes)
    for labels, predicted in pairs:
        confusion.add(labels, predicted)
    return confusion


def valid(*pairs: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """All pixels that are not void, end to end."""
    truth = np.concatenate([labels.ravel() for labels, _ in pairs])
    guess = np.concatenate([predicted.ravel() for _, predicted in pairs])
    return truth[truth != IGNORE], guess[truth != IGNORE]


PAIRS = (draw(0), draw(1), draw(2, size=(1, 1)), draw(3, size=(5, 40)))


def test_the_matrix_is_scikit_learns() -> None:
    assert np.array_equal(count(*PAIRS).matrix, confusion_matrix(*valid(*PAIRS), labels=range(5)))


def test_the_iou_of_each_class_is_its_jaccard_score() -> None:
    expected = jaccard_score(*valid(*PAIRS), labels=range(5), average=None)
    assert list(count(*PAIRS).metrics(NAMES).IoU.values()) == pytest.approx(expected)


def test_miou_is_the_macro_jaccard_score() -> None:
    assert count(*PAIRS).metrics(NAMES).mIoU == pytest.approx(jaccard_score(*valid(*PAIRS), average="macro"))


def test_fwiou_is_the_weighted_jaccard_score() -> None:
    assert count(*PAIRS).metrics(NAMES).fwIoU == pytest.approx(jaccard_score(*valid(*PAIRS), average="weighted"))


def test_macc_is_the_balanced_accuracy() -> None:
    assert count(*PAIRS).metrics(NAMES).mAcc == pytest.approx(balanced_accuracy_score(*valid(*PAIRS)))


def test_aacc_is_the_share_of_pixels_that_are_right() -> None:
    truth, guess = valid(*PAIRS)
    assert count(*PAIRS).metrics(NAMES).aAcc == pytest.approx((truth == guess).mean())


def test_images_and_valid_pixels_are_counted() -> None:
    metrics = count(*PAIRS).metrics(NAMES)
    assert (metrics.images, metrics.pixels) == (len(PAIRS), valid(*PAIRS)[0].size)


def test_what_is_predicted_on_void_changes_nothing() -> None:
    labels, predicted = PAIRS[0]
    other = np.where(labels == IGNORE, (predicted + 1) % 5, predicted)
    assert np.array_equal(count((labels, predicted)).matrix, count((labels, other)).matrix)


def test_a_class_absent_from_both_is_left_out_and_named() -> None:
    labels, predicted = draw(4, classes=3)
    metrics = count((labels, predicted)).metrics(NAMES)
    expected = jaccard_score(*valid((labels, predicted)), labels=range(3), average="macro")
    assert (metrics.absent, metrics.mIoU) == (("d", "e"), pytest.approx(expected))


def test_a_class_that_is_only_predicted_counts_as_zero_iou() -> None:
    metrics = count((np.zeros((1, 4), int), np.array([[0, 0, 0, 1]]))).metrics(NAMES)
    assert metrics.IoU == {"a": 0.75, "b": 0.0}


def test_a_class_that_is_only_predicted_is_in_no_mean_accuracy() -> None:
    assert count((np.zeros((1, 4), int), np.array([[0, 0, 0, 1]]))).metrics(NAMES).mAcc == 0.75


def test_nothing_counted_is_all_absent_and_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = count((np.full((3, 3), IGNORE), np.zeros((3, 3), int))).metrics(NAMES)
    assert (metrics.absent, metrics.mIoU, metrics.pixels) == (NAMES, 0.0, 0)


def test_bytes_are_counted_without_overflow() -> None:
    labels = np.full((20, 20), 254, np.uint8)
    assert count((labels, labels), classes=255).matrix[254, 254] == 400


@pytest.mark.parametrize("wrong", [-1, 5, 254])
def test_a_label_that_is_neither_a_class_nor_void_is_a_value_error(wrong: int) -> None:
    with pytest.raises(ValueError, match="labels"):
        count((np.array([[0, wrong]]), np.array([[0, 0]])))


@pytest.mark.parametrize("wrong", [-1, 5, 255])
def test_a_prediction_that_is_no_class_is_a_value_error(wrong: int) -> None:
    with pytest.raises(ValueError, match="predict"):
        count((np.array([[1, 1]]), np.array([[0, wrong]])))


def test_a_refused_image_is_not_counted() -> None:
    confusion = Confusion(5)
    with pytest.raises(ValueError, match="labels"):
        confusion.add(np.array([[0, 9]]), np.array([[0, 0]]))
    assert (confusion.images, int(confusion.matrix.sum())) == (0, 0)


def test_metrics_survive_json() -> None:
    metrics = count(*PAIRS).metrics(NAMES)
    read = json.loads(json.dumps(metrics.to_dict()))
    assert Metrics(**{**read, "absent": tuple(read["absent"])}) == metrics
