"""Padding, score grids and resizing: any size is usable, cells look where they should, labels are never blended."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scaleseg.geometry import IGNORE, Grid, pad, resize, resize_labels, resize_photo

quick = settings(max_examples=40, deadline=None)
sides = st.integers(1, 200)
sizes = st.tuples(sides, sides)
conventions = st.sampled_from([True, False])
exact_scales = st.lists(st.sampled_from([1.0, 0.75, 0.5, 0.25]), min_size=1, unique=True).map(tuple)
any_scales = st.lists(st.floats(0.1, 3), min_size=1, max_size=4).map(tuple)
seeds = st.integers(0, 2**31)


def random_maps(size, seed=0, channels=2):
    return torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(seed))


def random_labels(size, seed=0):
    labels = torch.randint(0, 21, (1, *size), generator=torch.Generator().manual_seed(seed))
    return torch.where(labels == 20, IGNORE, labels)


def source_positions(source, target, align_corners):
    """Where each target pixel lies on the source axis, in exact fractions."""
    if align_corners:
        return [Fraction(i * (source - 1), max(target - 1, 1)) for i in range(target)]
    return [Fraction((2 * i + 1) * source, 2 * target) - Fraction(1, 2) for i in range(target)]


def nearest(position, source):
    """The nearest pixel; of two equally near ones, the second."""
    return min(max(floor(position + Fraction(1, 2)), 0), source - 1)


def interpolated(maps, size, align_corners):
    """Bilinear resizing by numpy: one axis, then the other; `np.interp` holds the border value beyond the border."""
    for axis, target in ((-2, size[0]), (-1, size[1])):
        source = maps.shape[axis]
        positions = [float(position) for position in source_positions(source, target, align_corners)]
        maps = np.apply_along_axis(lambda line, at=positions, n=source: np.interp(at, range(n), line), axis, maps)
    return maps


# sizes


@quick
@given(sizes, any_scales, st.sampled_from([8, 16]), conventions)
def test_maps_of_any_scale_are_cropped_back_to_the_image(image, scales, stride, align_corners):
    grid = Grid(image, scales, stride, align_corners)
    for scale in scales:
        assert grid.to_image(random_maps(grid.score_size(scale))).shape == (1, 2, *image)


@quick
@given(sizes, exact_scales, st.sampled_from([8, 16]), conventions)
def test_padding_is_the_smallest_step_that_holds_the_image(image, scales, stride, align_corners):
    grid = Grid(image, scales, stride, align_corners)
    one = int(align_corners)
    for side, padded in zip(image, grid.padded, strict=True):
        assert side <= padded
        assert (padded - one) % grid.step == 0
        assert padded - grid.step < side or padded == grid.step + one


@quick
@given(sizes, exact_scales, conventions)
def test_a_padded_size_needs_no_more_padding(image, scales, align_corners):
    padded = Grid(image, scales, 8, align_corners).padded
    assert Grid(padded, scales, 8, align_corners).padded == padded


@quick
@given(sizes, exact_scales)
def test_aligned_inputs_and_scores_keep_their_corners_on_the_image_s_corners(image, scales):
    grid = Grid(image, scales, 8, True)
    for scale in scales:
        for padded, pixels, cells in zip(grid.padded, grid.input_size(scale), grid.score_size(scale), strict=True):
            assert pixels - 1 == (padded - 1) * scale == (cells - 1) * 8


@quick
@given(sizes, exact_scales, st.sampled_from([8, 16]))
def test_half_pixel_inputs_and_scores_keep_their_borders_on_the_image_s_borders(image, scales, stride):
    grid = Grid(image, scales, stride, False)
    for scale in scales:
        for padded, pixels, cells in zip(grid.padded, grid.input_size(scale), grid.score_size(scale), strict=True):
            assert pixels == padded * scale == cells * stride


@quick
@given(sizes, any_scales, st.sampled_from([8, 16]), conventions)
def test_an_odd_scale_s_input_is_usable_and_within_half_a_cell_of_its_wish(image, scales, stride, align_corners):
    grid, one = Grid(image, scales, stride, align_corners), int(align_corners)
    for scale in scales:
        for padded, pixels in zip(grid.padded, grid.input_size(scale), strict=True):
            assert (pixels - one) % stride == 0
            wish = (padded - one) * scale
            assert abs(pixels - one - wish) <= stride / 2 or (pixels - one == stride and wish < stride)


@quick
@given(sizes, any_scales, conventions)
def test_scales_are_merged_on_the_finest_one_s_grid(image, scales, align_corners):
    grid = Grid(image, scales, 8, align_corners)
    rows, columns = zip(*(grid.score_size(scale) for scale in scales), strict=True)
    assert grid.fused == (max(rows), max(columns))


# scores to pixels


@quick
@given(sizes, seeds)
def test_an_aligned_cell_s_score_is_the_score_of_its_pixel(image, seed):
    grid = Grid(image, (1.0,), 8, True)
    scores = random_maps(grid.fused, seed)
    at_cells = grid.to_image(scores)[..., ::8, ::8]
    torch.testing.assert_close(at_cells, scores[..., : at_cells.shape[-2], : at_cells.shape[-1]])


@quick
@given(sizes)
def test_a_half_pixel_cell_s_score_is_the_score_of_its_centre(image):
    grid = Grid(image, (1.0,), 8, False)
    centres = [8 * torch.arange(cells) + 3.5 for cells in grid.fused]
    pixels = [torch.arange(side).clamp(3.5, float(at[-1])) for side, at in zip(image, centres, strict=True)]
    ramp = (centres[0][:, None] + centres[1])[None, None]
    torch.testing.assert_close(grid.to_image(ramp)[0, 0], pixels[0][:, None] + pixels[1])


def test_an_image_that_needs_no_padding_is_resized_as_a_whole():
    grid = Grid((65, 97), (1.0, 0.5), 8, True)
    scores = random_maps(grid.fused)
    torch.testing.assert_close(grid.to_image(scores), resize(scores, (65, 97), align_corners=True))


# resizing


@quick
@given(sizes, sizes, conventions, seeds)
def test_bilinear_resizing_agrees_with_numpy(source, target, align_corners, seed):
    maps = random_maps(source, seed, channels=1)
    ours = resize(maps, target, align_corners=align_corners)
    oracle = interpolated(maps.numpy().astype(np.float64), target, align_corners)
    np.testing.assert_allclose(ours.numpy(), oracle, atol=2e-4)


@quick
@given(st.tuples(st.integers(2, 99), st.integers(2, 99)), st.tuples(st.integers(2, 99), st.integers(2, 99)))
def test_an_aligned_linear_ramp_stays_the_same_ramp(source, target):
    rows, columns = torch.linspace(0, 1, source[0]), torch.linspace(0, 1, source[1])
    ramp = (rows[:, None] + 10 * columns)[None, None]
    expected = (torch.linspace(0, 1, target[0])[:, None] + 10 * torch.linspace(0, 1, target[1]))[None, None]
    torch.testing.assert_close(resize(ramp, target, align_corners=True), expected, atol=1e-4, rtol=0)


def test_resizing_to_the_same_size_changes_no_bit():
    maps = random_maps((17, 23))
    assert torch.equal(resize(maps, (17, 23), align_corners=True), maps)


@pytest.mark.parametrize("size", [(60, 90), (31, 44), (7, 5), (40, 19)])
def test_photographs_are_resized_as_by_pillow(size):
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    pillow = np.asarray(Image.fromarray(noise).resize(size[::-1], Image.Resampling.BILINEAR))
    ours = resize_photo(torch.from_numpy(noise).permute(2, 0, 1), size).permute(1, 2, 0).numpy()
    assert np.abs(ours.astype(int) - pillow.astype(int)).max() <= 1


def test_padding_grows_at_the_bottom_and_the_right_with_zeros():
    images = random_maps((5, 7), channels=3)
    padded = pad(images, (8, 9))
    expected = torch.zeros(1, 3, 8, 9)
    expected[..., :5, :7] = images
    assert torch.equal(padded, expected)


# labels


@quick
@given(sizes, sizes, conventions, seeds)
def test_labels_take_the_nearest_pixel_s_name(source, target, align_corners, seed):
    labels = random_labels(source, seed)
    rows, columns = (
        [nearest(position, many) for position in source_positions(many, few, align_corners)]
        for many, few in zip(source, target, strict=True)
    )
    expected = labels.numpy()[:, rows][:, :, columns]
    assert np.array_equal(resize_labels(labels, target, align_corners=align_corners).numpy(), expected)


@quick
@given(sizes, any_scales, conventions, seeds)
def test_labels_on_a_score_grid_hold_no_id_that_was_not_there(image, scales, align_corners, seed):
    labels = random_labels(image, seed)
    grid = Grid(image, scales, 8, align_corners)
    known = {*labels.unique().tolist(), IGNORE}
    for scale in scales:
        assert set(grid.labels_at(labels, grid.score_size(scale)).unique().tolist()) <= known


@quick
@given(sizes, conventions)
def test_cells_are_void_exactly_where_their_pixel_is_padding(image, align_corners):
    grid = Grid(image, (1.0,), 8, align_corners)
    first = 0 if align_corners else 4
    rows, columns = (
        torch.tensor([first + 8 * cell < side for cell in range(cells)])
        for side, cells in zip(image, grid.fused, strict=True)
    )
    void = grid.labels_at(torch.zeros(1, *image, dtype=torch.int64), grid.fused) == IGNORE
    assert torch.equal(~void[0], rows[:, None] & columns)


def test_labels_on_their_own_grid_stay_as_they_are():
    labels = random_labels((19, 33))
    assert torch.equal(resize_labels(labels, (19, 33), align_corners=False), labels)


def test_labels_of_another_size_than_their_image_are_refused():
    grid = Grid((40, 50), (1.0,), 8, True)
    with pytest.raises(ValueError, match=r"labels are \(50, 40\), their image is \(40, 50\)"):
        grid.labels_at(torch.zeros(1, 50, 40, dtype=torch.int64), grid.fused)
