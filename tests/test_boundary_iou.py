"""Boundary IoU against OpenCV's erosion, the trimap curve against its own bands, distances against SciPy."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from scaleseg.geometry import IGNORE
from scaleseg.metrics import Confusion, Trimap, border_distance, boundary_tally, mean_ratio, near_borders


def blobs(seed: int, size: tuple[int, int] = (90, 120), classes: int = 4, void: bool = True) -> np.ndarray:
    """Labels in patches of about 15 pixels, some of them void."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, classes, (size[0] // 15 + 1, size[1] // 15 + 1))
    if void:
        coarse[generator.random(coarse.shape) < 0.1] = IGNORE
    return np.kron(coarse, np.ones((15, 15), np.int64))[: size[0], : size[1]]


def eroded_away(mask: np.ndarray) -> np.ndarray:
    """What the authors call the boundary of a mask, by the steps of their paper: pad, erode, subtract."""
    rows, columns = mask.shape
    width = max(1, round(0.02 * float(np.sqrt(rows**2 + columns**2))))
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    inner = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=width)
    return mask & (inner[1:-1, 1:-1] == 0)


def by_erosion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> tuple[list[int], list[int]]:
    masks = [(eroded_away(labels == index), eroded_away(predicted == index)) for index in range(classes)]
    return [int((a & b).sum()) for a, b in masks], [int((a | b).sum()) for a, b in masks]


@pytest.mark.parametrize("size", [(90, 120), (60, 60), (37, 203), (500, 375)])
def test_boundary_iou_is_what_erosion_by_opencv_makes_of_each_class(size: tuple[int, int]) -> None:
    labels, predicted = (blobs(seed, size, void=False) for seed in (0, 1))
    predicted[labels == 1] = 1
    hits, unions = boundary_tally(labels, predicted, 4)
    assert (hits.tolist(), unions.tolist()) == by_erosion(labels, predicted, 4)


@settings(max_examples=100, deadline=None)
@given(arrays(np.int64, (7, 9), elements=st.integers(0, 2)), arrays(np.int64, (7, 9), elements=st.integers(0, 2)))
def test_boundaries_of_tiny_images_are_those_of_opencv(labels: np.ndarray, predicted: np.ndarray) -> None:
    hits, unions = boundary_tally(labels, predicted, 3)
    assert (hits.tolist(), unions.tolist()) == by_erosion(labels, predicted, 3)


def test_a_square_that_is_one_pixel_off_is_counted_by_hand() -> None:
    labels, predicted = np.zeros((9, 9), np.int64), np.zeros((9, 9), np.int64)  # 2 % of the diagonal: 1 pixel, at least
    labels[2:6, 2:6], predicted[2:6, 3:7] = 1, 1
    hits, unions = boundary_tally(labels, predicted, 2)
    # Two outlines of 12 pixels; they share the upper and the lower side's middle 3 pixels.
    assert (int(hits[1]), int(unions[1])) == (6, 18)


def test_the_edge_of_the_image_is_a_contour() -> None:
    everything = np.zeros((20, 30), np.int64)
    _, unions = boundary_tally(everything, everything, 1)
    assert unions.tolist() == [2 * 20 + 2 * 28]


def test_a_perfect_prediction_is_all_hits_whatever_void_there_is() -> None:
    labels = blobs(2)
    assert (labels == IGNORE).any()
    predicted = np.where(labels == IGNORE, 1, labels)
    hits, unions = boundary_tally(labels, predicted, 4)
    assert hits.tolist() == unions.tolist()


def test_what_is_predicted_on_void_changes_no_boundary() -> None:
    labels, predicted = blobs(3), blobs(4, void=False)
    other = np.where(labels == IGNORE, (predicted + 1) % 4, predicted)
    for one, two in zip(boundary_tally(labels, predicted, 4), boundary_tally(labels, other, 4), strict=True):
        assert one.tolist() == two.tolist()


def test_an_inner_mistake_far_from_all_contours_costs_little_and_plain_iou_nothing_more() -> None:
    labels = np.zeros((200, 200), np.int64)
    labels[20:180, 20:180] = 1
    shifted = np.roll(labels, 4, axis=0)
    hits, unions = boundary_tally(labels, shifted, 2)
    confusion = Confusion(2)
    confusion.add(labels, shifted)
    assert float(mean_ratio(hits[None].astype(float), unions[None].astype(float))[0]) < confusion.metrics("ab").mIoU


@pytest.mark.parametrize("most", [1, 2, 5, 20])
def test_near_borders_is_the_distance_up_to_its_width(most: int) -> None:
    labels = blobs(5)
    distance = border_distance(labels, most)
    assert distance.max() <= most + 1
    for width in range(1, most + 1):
        assert np.array_equal(distance <= width, near_borders(labels, width))


def test_the_distance_is_scipy_s_chessboard_transform() -> None:
    labels = blobs(6)
    expected = ndimage.distance_transform_cdt(~near_borders(labels, 1), "chessboard") + 1
    assert np.array_equal(border_distance(labels, 20), np.minimum(expected, 21))


def test_the_trimap_curve_is_the_miou_of_each_band() -> None:
    pairs = [(blobs(seed), blobs(seed + 50, void=False)) for seed in range(3)]
    trimap = Trimap(4, 20)
    for labels, predicted in pairs:
        trimap.add(labels, predicted, border_distance(labels, 20))
    for width, found in enumerate(trimap.curve(), start=1):
        confusion = Confusion(4)
        for labels, predicted in pairs:
            confusion.add(labels, predicted, near_borders(labels, width))
        assert found == confusion.metrics("abcd").mIoU


def test_a_trimap_of_images_without_borders_is_zero() -> None:
    trimap, plain = Trimap(2, 3), np.zeros((5, 5), np.int64)
    trimap.add(plain, plain, border_distance(plain, 3))
    assert trimap.curve().tolist() == [0, 0, 0]


@pytest.mark.parametrize("most", [0, -2])
def test_a_distance_without_width_is_a_value_error(most: int) -> None:
    with pytest.raises(ValueError, match=f"width is {most}"):
        border_distance(np.zeros((3, 3), np.int64), most)
