"""The synthetic scenes: the same everywhere, all sizes, all classes, and look-alikes in every local respect."""

import pickle  # of our own object, to show that workers can have it

import numpy as np
import pytest
import torch

from scaleseg.config import DataConfig
from scaleseg.datasets import open_evaluation, open_training
from scaleseg.datasets.shapes import CLASSES, SIDE, SIZES, Shapes, open_split, plan
from scaleseg.errors import UserError


def discs(count: int = 200):
    """The discs of many scenes."""
    return [disc for index in range(count) for disc in plan(np.random.default_rng([0, index]))]


def test_a_scene_depends_on_split_and_index_alone() -> None:
    forward = [Shapes("train", 5)[index] for index in range(5)]
    backward = [Shapes("train", 5)[index] for index in reversed(range(5))][::-1]
    for (image, labels), (again, labels_again) in zip(forward, backward, strict=True):
        assert torch.equal(image, again)
        assert torch.equal(labels, labels_again)


def test_train_and_val_differ() -> None:
    assert not torch.equal(Shapes("train", 1)[0][0], Shapes("val", 1)[0][0])


def test_a_longer_list_begins_with_the_shorter() -> None:
    assert torch.equal(Shapes("train", 3)[2][0], Shapes("train", 100)[2][0])


def test_scenes_survive_a_trip_to_another_process() -> None:
    scenes = pickle.loads(pickle.dumps(Shapes("val", 2)))
    assert torch.equal(scenes[1][0], Shapes("val", 2)[1][0])


def test_each_class_has_discs_of_all_sizes() -> None:
    for kind in range(1, len(CLASSES)):
        diameters = [disc.diameter for disc in discs() if disc.kind == kind]
        assert max(diameters) / min(diameters) > 12
        assert SIZES[0] <= min(diameters)
        assert max(diameters) <= SIZES[1]


def test_every_disc_lies_within_the_scene() -> None:
    for disc in discs():
        for centre in (disc.row, disc.column):
            assert disc.diameter / 2 <= centre <= SIDE - 1 - disc.diameter / 2


def test_every_class_is_half_bright_and_half_dark() -> None:
    bright, total = np.zeros(len(CLASSES)), np.zeros(len(CLASSES))
    for image, labels in (Shapes("train", 150)[index] for index in range(150)):
        is_bright = image.float().mean(0) > 128
        bright += torch.bincount(labels.flatten(), is_bright.flatten().float(), minlength=4).numpy()
        total += torch.bincount(labels.flatten(), minlength=4).numpy()
    eye, target, plain = (bright / total)[1:]
    assert (eye, target) == (pytest.approx(0.5, abs=0.02), pytest.approx(0.5, abs=0.02))
    assert plain == pytest.approx(0.5, abs=0.2)  # a large disc, bright or dark all over, weighs much


def test_the_core_and_the_ring_have_the_same_area() -> None:
    for image, labels in (Shapes("train", 40)[index] for index in range(40)):
        for disc_class in (1, 2):
            pixels = image.float().mean(0)[labels == disc_class]
            if len(pixels) > 5000:
                assert float((pixels > 128).float().mean()) == pytest.approx(0.5, abs=0.05)


def test_a_name_for_each_scene_and_an_end() -> None:
    scenes = Shapes("val", 3)
    assert scenes.names == ["val-000000", "val-000001", "val-000002"]
    with pytest.raises(IndexError):
        scenes[3]


def test_the_splits_are_as_long_as_asked() -> None:
    data = DataConfig(dataset="shapes", train=50, val=7, dev=0.1)
    splits = open_training(data)
    assert (len(splits.train), splits.dev is not None and len(splits.dev)) == (45, 5)
    assert len(open_evaluation(data).dataset) == 7
    assert len(open_split(DataConfig(dataset="shapes"), "train")) == 4000


@pytest.mark.parametrize("count", [0, "many", -3, True, 2.5])
def test_a_count_that_is_none_is_refused(count: object) -> None:
    with pytest.raises(UserError, match="how many scenes"):
        open_split(DataConfig(dataset="shapes", train=count), "train")


@pytest.mark.parametrize("count", [10**12, "9" * 5000])
def test_more_scenes_than_have_names_in_memory_are_refused(count: object) -> None:
    with pytest.raises(UserError, match="from 1 to 10,000,000"):
        open_split(DataConfig(dataset="shapes", train=count), "train")
