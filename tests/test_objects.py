"""Objects against scikit-image's components, and their scores against hand-counted cases and loops over masks."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage import measure

from scaleseg.errors import UserError
from scaleseg.geometry import IGNORE
from scaleseg.metrics import find_objects


def grid(*rows: str) -> np.ndarray:
    """Digits are class ids, a dot is background, # is void."""
    ids = {".": 0, "#": IGNORE}
    return np.array([[ids[letter] if letter in ids else int(letter) for letter in row] for row in rows], np.int64)


def components(ids: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """(class, mask) by scikit-image, which knows several classes at once."""
    numbers = measure.label(np.where(ids == IGNORE, 0, ids), background=0, connectivity=2)
    return [(int(ids[numbers == one][0]), numbers == one) for one in range(1, numbers.max() + 1)]


def by_loops(labels: np.ndarray, predicted: np.ndarray) -> list[tuple[int, int, int, float]]:
    """(class, pixels, hits, union) of each object, mask by mask."""
    found, valid = [], labels != IGNORE
    objects, said = components(labels), components(predicted)
    for kind, mask in objects:
        union = float(mask.sum())
        for said_kind, part in said:
            if said_kind == kind and (part & mask).any():
                covered = np.any([other for other_kind, other in objects if other_kind == kind], axis=0)
                spill = (part & valid & ~covered).sum()
                union += spill * (part & mask).sum() / (part & covered).sum()
        found.append((kind, int(mask.sum()), int((mask & (predicted == kind)).sum()), union))
    return sorted(found)


def scores(labels: np.ndarray, predicted: np.ndarray) -> list[tuple[int, int, int, float]]:
    found = find_objects(labels, predicted)
    rows = zip(*(part.tolist() for part in (found.classes, found.pixels, found.hits, found.unions)), strict=True)
    return sorted(rows)


def test_an_object_and_its_spill_are_counted_by_hand() -> None:
    labels = grid("11..", "11..", "....")
    predicted = grid("111.", "1...", "....")
    assert scores(labels, predicted) == [(1, 4, 3, 5.0)]


def test_two_objects_under_one_prediction_pay_for_its_spill_by_their_shares() -> None:
    labels = grid("11.1", "11..")
    predicted = grid("1111", "1...")  # shares 3 pixels with the first, 1 with the second, spills over 1
    assert scores(labels, predicted) == [(1, 1, 1, 1.25), (1, 4, 3, 4.75)]


def test_a_prediction_of_another_class_is_no_part_of_an_object_s_union() -> None:
    assert scores(grid("11", ".."), grid("22", "22")) == [(1, 2, 0, 2.0)]


def test_corners_connect() -> None:
    assert len(find_objects(grid("1.", ".1"), grid("..", "..")).pixels) == 1


def test_background_has_no_objects_and_raises_no_alarm() -> None:
    found = find_objects(grid("..", "11"), grid("..", ".."))
    assert found.classes.tolist() == [1]
    assert found.alarm_pixels.tolist() == []


def test_void_does_not_hide_what_spills_beyond_it() -> None:
    labels = grid("11#...")
    predicted = grid("11111.")
    assert scores(labels, predicted) == [(1, 2, 2, 4.0)]


def test_what_is_predicted_on_void_alone_is_no_alarm() -> None:
    found = find_objects(grid("..##"), grid("..11"))
    assert found.alarm_pixels.tolist() == []


def test_a_component_that_touches_no_object_of_its_class_is_an_alarm_without_its_void() -> None:
    found = find_objects(grid("2...", "...#"), grid("1..3", "..33"))
    assert (found.alarm_classes.tolist(), found.alarm_pixels.tolist()) == ([1, 3], [1, 2])


def test_each_pixel_of_spill_counts_once() -> None:
    generator = np.random.default_rng(0)
    labels, predicted = (np.kron(generator.integers(0, 3, (9, 9)), np.ones((3, 3), np.int64)) for _ in range(2))
    found = find_objects(labels, predicted)
    extra = (found.unions - found.pixels).sum() + found.alarm_pixels.sum()
    expected = sum(int(((predicted == kind) & (labels != kind)).sum()) for kind in (1, 2))
    assert extra == pytest.approx(expected)


@settings(max_examples=150, deadline=None)
@given(
    arrays(np.int64, (6, 8), elements=st.sampled_from([0, 0, 1, 2, IGNORE])),
    arrays(np.int64, (6, 8), elements=st.sampled_from([0, 0, 1, 2])),
)
def test_scores_are_those_of_loops_over_masks(labels: np.ndarray, predicted: np.ndarray) -> None:
    for found, expected in zip(scores(labels, predicted), by_loops(labels, predicted), strict=True):
        assert found == pytest.approx(expected)


def test_the_numbers_are_scikit_image_s_components() -> None:
    labels = np.kron(np.random.default_rng(1).integers(0, 4, (12, 15)), np.ones((4, 4), np.int64))
    found = find_objects(labels, labels)
    masks = {(kind, mask.tobytes()) for kind, mask in components(labels)}
    numbered = {(int(kind), (found.ids == index).tobytes()) for index, kind in enumerate(found.classes, start=1)}
    assert numbered == masks


def test_a_perfect_prediction_scores_one_for_every_object() -> None:
    labels = np.kron(np.random.default_rng(2).integers(0, 4, (9, 9)), np.ones((2, 2), np.int64))
    found = find_objects(labels, labels)
    assert (found.hits / found.unions).tolist() == [1.0] * len(found.pixels)


def test_an_image_without_objects_has_none() -> None:
    found = find_objects(np.zeros((4, 4), np.int64), np.zeros((4, 4), np.int64))
    assert (len(found.classes), len(found.pixels), len(found.unions)) == (0, 0, 0)


def test_without_scipy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.ndimage", None)
    with pytest.raises(UserError, match=r"pip install 'scaleseg\[report\]'"):
        find_objects(grid("1"), grid("1"))
