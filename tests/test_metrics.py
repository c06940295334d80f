"""Confusion matrices against scikit-learn, borders against SciPy and loops, the bootstrap against loops."""

import json
import warnings
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, jaccard_score

from scaleseg.geometry import IGNORE
from scaleseg.metrics import Confusion, Metrics, bootstrap, bootstrap_difference, miou, near_borders

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


def each(*pairs: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The confusion matrix of each pair by itself."""
    return np.stack([count(pair).matrix for pair in pairs])


def touches(labels: np.ndarray) -> list[tuple[int, int]]:
    """The pixels with a 4-neighbour of another id."""
    rows, columns = labels.shape
    found = []
    for row, column in product(range(rows), range(columns)):
        for there, beside in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            if 0 <= there < rows and 0 <= beside < columns and labels[there, beside] != labels[row, column]:
                found.append((row, column))
    return found


def photographs(hits: np.ndarray) -> np.ndarray:
    """Matrices of 100 pixels of class 0 each; misses are called 1, whose IoU is 0, so mIoU = hits / 200."""
    matrices = np.zeros((len(hits), 2, 2), np.int64)
    matrices[:, 0] = np.stack([hits, 100 - hits], 1)
    return matrices


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


def test_where_counts_what_it_marks_as_if_the_rest_were_void() -> None:
    labels, predicted = PAIRS[0]
    where = np.random.default_rng(5).random(labels.shape) < 0.3
    confusion = Confusion(5)
    confusion.add(labels, predicted, where)
    assert np.array_equal(confusion.matrix, count((np.where(where, labels, IGNORE), predicted)).matrix)


def test_where_everywhere_is_no_where() -> None:
    labels, predicted = PAIRS[0]
    confusion = Confusion(5)
    confusion.add(labels, predicted, np.ones(labels.shape, bool))
    assert np.array_equal(confusion.matrix, count(PAIRS[0]).matrix)


def test_an_image_of_which_nothing_is_counted_is_an_image() -> None:
    confusion = Confusion(5)
    confusion.add(*PAIRS[0], np.zeros(PAIRS[0][0].shape, bool))
    assert (confusion.images, int(confusion.matrix.sum())) == (1, 0)


@pytest.mark.parametrize("size", [(23, 16), (1, 17), (24, 17)])
def test_where_of_another_size_is_a_value_error(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="where"):
        Confusion(5).add(*PAIRS[0], np.ones(size, bool))


def test_the_figure_of_the_trimap_survives_json() -> None:
    metrics = replace(count(*PAIRS).metrics(NAMES), trimap_mIoU=0.25)
    assert json.loads(json.dumps(metrics.to_dict()))["trimap_mIoU"] == 0.25


def test_a_confusion_matrix_knows_nothing_of_a_trimap() -> None:
    assert count(*PAIRS).metrics(NAMES).trimap_mIoU is None


@pytest.mark.parametrize(("width", "expected"), [(1, "00011000"), (2, "00111100"), (3, "01111110"), (9, "11111111")])
def test_a_band_has_its_width_on_both_sides_of_a_border(width: int, expected: str) -> None:
    mask = near_borders(np.array([[7, 7, 7, 7, 2, 2, 2, 2]]), width)
    assert mask.astype(int).tolist() == [[int(digit) for digit in expected]]


def test_a_border_of_one_pixel_is_a_cross_that_grows_by_squares() -> None:
    labels = np.zeros((7, 7), int)
    labels[3, 3] = 1
    assert near_borders(labels, 1)[2:5, 2:5].tolist() == [[False, True, False], [True] * 3, [False, True, False]]
    grown = np.pad(np.ones((5, 5), bool), 1)
    grown[[1, 1, 5, 5], [1, 5, 1, 5]] = False
    assert np.array_equal(near_borders(labels, 2), grown)


def test_void_has_borders_and_stays_in_the_mask() -> None:
    labels = np.array([[3, 3, 3, IGNORE, IGNORE, IGNORE, IGNORE, 3, 3]], np.uint8)
    assert near_borders(labels, 1).astype(int).tolist() == [[0, 0, 1, 1, 0, 0, 1, 1, 0]]


@pytest.mark.parametrize("size", [(1, 1), (5, 4), (0, 3)])
def test_the_edge_of_an_image_is_no_border(size: tuple[int, int]) -> None:
    assert near_borders(np.full(size, 4), 3).tolist() == np.zeros(size, bool).tolist()


@pytest.mark.parametrize("width", [0, -1])
def test_a_band_without_width_is_a_value_error(width: int) -> None:
    with pytest.raises(ValueError, match=f"width is {width}"):
        near_borders(np.zeros((3, 3), int), width)


@settings(max_examples=200, deadline=None)
@given(
    arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.sampled_from([0, 0, 1, IGNORE])),
    st.integers(1, 12),
)
def test_near_a_border_is_near_a_pixel_that_touches_one(labels: np.ndarray, width: int) -> None:
    expected = np.zeros(labels.shape, bool)
    for pixel, (row, column) in product(np.ndindex(labels.shape), touches(labels)):
        expected[pixel] |= max(abs(pixel[0] - row), abs(pixel[1] - column)) < width
    assert np.array_equal(near_borders(labels, width), expected)


@pytest.mark.parametrize("width", [2, 3, 4, 6, 20])
def test_borders_are_those_of_scipy_s_dilation(width: int) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    labels = ndimage.zoom(np.random.default_rng(6).integers(0, 4, (5, 4)), 20, order=0)
    outside = [ndimage.binary_dilation(labels == known) & (labels != known) for known in range(4)]
    expected = ndimage.binary_dilation(np.any(outside, axis=0), np.ones((3, 3)), iterations=width - 1)
    assert np.array_equal(near_borders(labels, width), expected)


def test_the_miou_of_a_stack_is_each_image_s_macro_jaccard_score() -> None:
    pairs = (*PAIRS, draw(4, classes=3))
    expected = [jaccard_score(*valid(pair), average="macro") for pair in pairs]
    assert miou(each(*pairs)) == pytest.approx(expected)


def test_the_miou_of_the_sum_is_that_of_the_metrics() -> None:
    assert miou(each(*PAIRS).sum(0, keepdims=True)).tolist() == [count(*PAIRS).metrics(NAMES).mIoU]


def test_the_miou_of_nothing_is_zero_as_in_the_metrics() -> None:
    assert miou(np.zeros((2, 5, 5), int)).tolist() == [Confusion(5).metrics(NAMES).mIoU] * 2 == [0, 0]


def test_matrices_of_bytes_do_not_overflow() -> None:
    assert miou(np.full((1, 2, 2), 200, np.uint8)) == pytest.approx([1 / 3])


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_the_bootstrap_is_a_loop_over_draws_with_replacement(share: float) -> None:
    matrices, generator = (
        each(*(draw(seed, classes=2 + seed % 4, size=(4, 3)) for seed in range(6))),
        np.random.default_rng(3),
    )
    values = []
    for _ in range(40):
        confusion = Confusion(5)
        for image in generator.integers(0, 6, 6):
            confusion.matrix += matrices[image]
        values.append(confusion.metrics(NAMES).mIoU)
    expected = np.percentile(values, [50 - 50 * share, 50 + 50 * share])
    assert bootstrap(matrices, resamples=40, seed=3, share=share) == pytest.approx(expected.tolist())


def test_the_bootstrap_of_a_mean_is_the_normal_interval() -> None:
    hits = np.random.default_rng(7).integers(20, 90, 400)
    half = 1.96 * hits.std() / np.sqrt(len(hits)) / 200
    expected = hits.mean() / 200 - half, hits.mean() / 200 + half
    assert bootstrap(photographs(hits), resamples=4000) == pytest.approx(expected, abs=half / 10)


def test_a_class_that_a_draw_lacks_is_left_out_of_its_mean() -> None:
    alone = np.array([[[9, 0], [0, 0]], [[0, 0], [0, 9]]])  # each photograph has a class of its own, and all is right
    assert bootstrap(alone, resamples=50) == (1, 1)


@pytest.mark.parametrize("resamples", [1, 50])
def test_the_interval_of_one_image_is_its_miou(resamples: int) -> None:
    expected = miou(each(PAIRS[0]))[0]
    assert bootstrap(each(PAIRS[0]), resamples=resamples) == (expected, expected)


def test_the_interval_of_one_draw_is_a_point() -> None:
    low, high = bootstrap(each(*PAIRS), resamples=1)
    assert low == high


def test_a_seed_decides_the_interval() -> None:
    first, again, other = (bootstrap(each(*PAIRS), resamples=50, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_how_many_are_drawn_at_a_time_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = bootstrap(each(*PAIRS), resamples=50)
    for draws in (1, 2 * len(PAIRS) + 1, 49 * len(PAIRS)):
        monkeypatch.setattr("scaleseg.metrics.resampling._DRAWS", draws)
        assert bootstrap(each(*PAIRS), resamples=50) == expected


def test_what_makes_an_image_hard_for_both_cancels() -> None:
    hits = np.random.default_rng(8).integers(20, 80, 30)
    low, high = bootstrap_difference(photographs(hits), photographs(hits + 10), resamples=100)
    assert (low, high) == pytest.approx((0.05, 0.05))


def test_the_difference_is_taken_on_the_bootstrap_s_own_draws() -> None:
    nothing_right = photographs(np.zeros(len(PAIRS), np.int64))
    other = each(*((labels % 2, predicted % 2) for labels, predicted in PAIRS))[:, :2, :2]
    assert bootstrap_difference(nothing_right, other, resamples=50, seed=4) == bootstrap(other, resamples=50, seed=4)


def test_the_difference_the_other_way_round_has_the_other_sign() -> None:
    first, second = each(*PAIRS), each(*(draw(seed) for seed in range(10, 14)))
    low, high = bootstrap_difference(first, second, resamples=50)
    assert low < high
    assert bootstrap_difference(second, first, resamples=50) == pytest.approx((-high, -low))


def test_no_images_are_a_value_error() -> None:
    nothing = np.zeros((0, 5, 5), int)
    with pytest.raises(ValueError, match="0 images"):
        bootstrap(nothing)
    with pytest.raises(ValueError, match="0 images"):
        bootstrap_difference(nothing, nothing)


@pytest.mark.parametrize("resamples", [0, -3])
def test_no_resamples_are_a_value_error(resamples: int) -> None:
    with pytest.raises(ValueError, match=f"{resamples} resamples"):
        bootstrap(each(*PAIRS), resamples=resamples)


@pytest.mark.parametrize("share", [0.0, 1.0, 95.0, float("nan")])
def test_a_share_that_is_not_between_zero_and_one_is_a_value_error(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        bootstrap(each(*PAIRS), share=share)


@pytest.mark.parametrize("shape", [(3, 5, 5), (4, 4, 4)])
def test_a_difference_of_other_images_or_classes_is_a_value_error(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="the same images and classes"):
        bootstrap_difference(each(*PAIRS), np.ones(shape, int))
