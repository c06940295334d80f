"""Varying a training pair: seeded, and image and labels move together."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from scaleseg.geometry import IGNORE
from scaleseg.transforms import MEAN_COLOUR, Augment, sample_generator

FULL = Augment(crop=33, mirror=True, random_scale=(0.5, 2.0), colour_jitter=0.3)
SEEDS = range(30)


def painted(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Labels in which every pixel's id is its own (below 255), and an image that shows the id in its channels."""
    ids = torch.arange(rows * columns).reshape(rows, columns) % 251
    return torch.stack([ids, ids, ids]).to(torch.uint8), ids


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def show(labels: Tensor) -> Tensor:
    """The image that `painted` would paint for labels; padding has the mean colour."""
    colour = torch.tensor(MEAN_COLOUR)[:, None, None]
    return torch.where(labels == IGNORE, colour, labels).to(torch.uint8)


def test_the_same_generator_state_gives_the_same_pair() -> None:
    image, labels = painted(40, 50)
    first, second = (FULL(image, labels, generator(7)) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_another_seed_gives_another_crop() -> None:
    image, labels = painted(80, 90)
    crops = {tuple(FULL(image, labels, generator(seed))[1].flatten().tolist()) for seed in SEEDS}
    assert len(crops) > len(SEEDS) / 2


def test_what_was_drawn_elsewhere_changes_nothing() -> None:
    image, labels = painted(40, 50)
    first = FULL(image, labels, generator(7))
    torch.manual_seed(123)
    torch.rand(10)
    assert torch.equal(FULL(image, labels, generator(7))[0], first[0])


def test_turning_one_variation_off_leaves_the_other_draws_as_they_were() -> None:
    image, labels = painted(80, 90)
    for seed in SEEDS:
        plain = Augment(20, mirror=True)(image, labels, generator(seed))[1]
        assert torch.equal(Augment(20, mirror=True, colour_jitter=0.5)(image, labels, generator(seed))[1], plain)


@pytest.mark.parametrize("size", [(40, 50), (10, 50), (50, 10), (9, 8), (20, 20)])
@pytest.mark.parametrize("mirror", [False, True])
def test_image_and_labels_move_together(size: tuple[int, int], mirror: bool) -> None:
    image, labels = painted(*size)
    for seed in SEEDS:
        varied, moved = Augment(20, mirror=mirror)(image, labels, generator(seed))
        assert torch.equal(varied, show(moved))


def test_image_and_labels_move_together_when_scaled() -> None:
    """Two colours: away from their border an image pixel's colour is what its label says."""
    labels = torch.zeros(60, 70, dtype=torch.int64)
    labels[20:, 30:] = 1
    image = (labels * 200).to(torch.uint8).repeat(3, 1, 1)
    for seed in SEEDS:
        varied, moved = Augment(40, random_scale=(0.5, 2.0))(image, labels, generator(seed))
        expected = show(torch.where(moved == 1, 200, moved))
        share = (varied != expected).any(dim=0).float().mean()
        assert share < 0.16  # the border of the two, at most two pixels to each side of two lines of 40


@pytest.mark.parametrize("mirror", [False, True])
def test_padding_lies_at_the_bottom_and_the_right_before_the_mirror(mirror: bool) -> None:
    image, labels = painted(5, 7)
    for seed in SEEDS:
        varied, moved = Augment(12, mirror=mirror)(image, labels, generator(seed))
        upright = moved if moved[0, 0] != IGNORE else moved.flip(-1)
        inside = torch.zeros(12, 12, dtype=torch.bool)
        inside[:5, :7] = True
        assert torch.equal(upright != IGNORE, inside)
        assert torch.equal(
            varied[:, moved == IGNORE].unique(dim=1), torch.tensor(MEAN_COLOUR, dtype=torch.uint8)[:, None]
        )


def test_about_half_of_the_pairs_are_mirrored() -> None:
    image, labels = painted(20, 20)
    flipped = sum(
        bool(torch.equal(Augment(20)(image, labels, generator(seed))[1], labels.flip(-1))) for seed in range(200)
    )
    assert 70 <= flipped <= 130


def test_without_mirror_a_pair_that_fits_stays_as_it_is() -> None:
    image, labels = painted(20, 20)
    for seed in SEEDS:
        assert torch.equal(Augment(20, mirror=False)(image, labels, generator(seed))[1], labels)


def test_crops_reach_all_four_borders() -> None:
    image, labels = painted(13, 13)
    corners = [Augment(10, mirror=False)(image, labels, generator(seed))[1][0, 0].item() for seed in range(200)]
    rows, columns = np.divmod(np.array(corners), 13)
    assert set(rows) == set(columns) == {0, 1, 2, 3}


def test_scaled_sizes_keep_to_their_bounds_and_come_near_them() -> None:
    image, labels = torch.zeros(3, 100, 50, dtype=torch.uint8), torch.zeros(100, 50, dtype=torch.int64)
    augment = Augment(200, random_scale=(0.6, 1.4))
    rows = [int((augment(image, labels, generator(seed))[1] != IGNORE).any(dim=1).sum()) for seed in range(200)]
    assert min(rows) >= 60
    assert max(rows) <= 140
    assert min(rows) < 65
    assert max(rows) > 135


def test_labels_are_never_blended() -> None:
    labels = torch.randint(0, 2, (40, 40), generator=generator(0)) * 7
    image = torch.zeros(3, 40, 40, dtype=torch.uint8)
    for seed in SEEDS:
        assert set(FULL(image, labels, generator(seed))[1].unique().tolist()) <= {0, 7, IGNORE}


def test_void_in_the_labels_stays_void() -> None:
    image, labels = torch.zeros(3, 40, 40, dtype=torch.uint8), torch.full((40, 40), IGNORE)
    assert (FULL(image, labels, generator(0))[1] == IGNORE).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 60), (60, 1)])
def test_an_image_one_pixel_wide_gives_a_whole_crop(size: tuple[int, int]) -> None:
    image, labels = painted(*size)
    for seed in SEEDS:
        varied, moved = FULL(image, labels, generator(seed))
        assert varied.shape == (3, 33, 33)
        assert (moved != IGNORE).any()


def test_the_given_pair_is_left_as_it_was() -> None:
    image, labels = painted(20, 20)
    before = image.clone(), labels.clone()
    for seed in SEEDS:
        varied, moved = FULL(image, labels, generator(seed))
        varied.zero_()
        moved.zero_()
    assert torch.equal(image, before[0])
    assert torch.equal(labels, before[1])


def test_colour_varies_without_moving_labels() -> None:
    image, labels = painted(20, 20)
    varied, moved = Augment(20, mirror=False, colour_jitter=0.5)(image, labels, generator(1))
    assert torch.equal(moved, labels)
    assert not torch.equal(varied, image)


def test_a_grey_image_stays_grey_whatever_its_colour_jitter() -> None:
    image, labels = painted(20, 20)
    for seed in SEEDS:
        varied, _ = Augment(20, mirror=False, colour_jitter=0.9)(image, labels, generator(seed))
        assert (varied == varied[:1]).all()


def test_a_flat_image_knows_only_brightness() -> None:
    """Contrast and saturation turn about the mean, so grey of one value is multiplied by Pillow's brightness factor."""
    image, labels = torch.full((3, 4, 4), 100, dtype=torch.uint8), torch.zeros(4, 4, dtype=torch.int64)
    for seed in SEEDS:
        draw = torch.rand(7, generator=generator(seed)).tolist()[4]
        expected = ImageEnhance.Brightness(Image.new("L", (1, 1), 100)).enhance(1 + 0.4 * (2 * draw - 1))
        varied = Augment(4, mirror=False, colour_jitter=0.4)(image, labels, generator(seed))[0]
        assert abs(int(varied[0, 0, 0]) - int(expected.getpixel((0, 0)))) <= 1


def test_every_sample_has_a_generator_of_its_own() -> None:
    keys = [(seed, epoch, index) for seed in range(4) for epoch in range(6) for index in range(-1, 40)]
    assert len({sample_generator(*key).initial_seed() for key in keys}) == len(keys)


def test_a_sample_generator_repeats() -> None:
    first, second = (torch.rand(3, generator=sample_generator(1, 2, 3)) for _ in range(2))
    assert torch.equal(first, second)
