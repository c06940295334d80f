"""Refinement: the fully connected CRF against pydensecrf2, the domain transform against OpenCV, and what both must keep."""

import importlib.util

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scaleseg.errors import UserError
from scaleseg.refine.contract import Refine, check
from scaleseg.refine.densecrf import PUBLISHED, DenseCRF
from scaleseg.refine.domain_transform import (
    DomainTransform,
    _scan,
    _step,
    _step_back,
    _step_back_in_numpy,
    _turn,
    domain_transform,
)
from scaleseg.refine.permutohedral import Lattice

REFINEMENTS = [DenseCRF(iterations=3), DomainTransform()]


def photograph(rows: int, columns: int) -> torch.Tensor:
    """A real one: the cat of scikit-image."""
    pixels = np.asarray(Image.fromarray(skimage.data.chelsea()).resize((columns, rows)))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def beliefs(classes: int, rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    """Probabilities as a network gives them: smooth, from a coarse grid."""
    coarse = noise(1, classes, max(rows // 8, 1), max(columns // 8, 1), seed=seed) * 2
    return torch.nn.functional.interpolate(coarse, (rows, columns), mode="bilinear")[0].softmax(dim=0)


# the lattice


def test_the_lattice_filters_like_a_gaussian() -> None:
    points = torch.linspace(0, 12, 49)[None]
    values = torch.zeros(49, 1)
    values[24] = 1
    lattice = Lattice(points)
    filtered = (lattice(values) / lattice(torch.ones(49, 1)))[:, 0]
    exact = torch.exp(-((points[0] - 6) ** 2) / 2)
    assert float((filtered / filtered.sum() - exact / exact.sum()).abs().max()) < 0.02


def test_the_columns_of_values_do_not_mix() -> None:
    lattice, values = Lattice(noise(3, 50)), noise(50, 4, seed=1)
    alone = torch.cat([lattice(values[:, [column]]) for column in range(4)], dim=1)
    torch.testing.assert_close(lattice(values), alone)


@pytest.mark.parametrize("dimensions", [1, 2, 3, 5, 6])
def test_the_weights_of_a_point_are_a_partition_of_one(dimensions: int) -> None:
    weights = Lattice(noise(dimensions, 60) * 3).weights
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(60))
    assert float(weights.min()) > -1e-5


def test_more_dimensions_than_the_lattice_has_keys_for_are_refused() -> None:
    with pytest.raises(ValueError, match="points have 7 dimensions; expected 1 to 6"):
        Lattice(torch.zeros(7, 3))


# the CRF


def test_without_kernels_the_crf_changes_nothing() -> None:
    before = beliefs(4, 20, 30)
    torch.testing.assert_close(DenseCRF(bi_w=0.0, pos_w=0.0)(before, photograph(20, 30)), before, atol=1e-5, rtol=1e-4)


def test_the_crf_moves_a_border_to_the_edge_in_the_photograph() -> None:
    image = torch.zeros(3, 40, 60, dtype=torch.uint8)
    image[:, :, 33:] = 200
    right = torch.sigmoid((torch.arange(60.0) - 28.5) / 4).expand(40, 60)  # the network says: at 28
    labels = DenseCRF()(torch.stack([1 - right, right]), image).argmax(dim=0)
    assert labels[:, :33].sum() == 0
    assert bool(labels[:, 33:].all())


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_settings_give_distributions(name: str) -> None:
    after = PUBLISHED[name](beliefs(3, 24, 32), photograph(24, 32))
    torch.testing.assert_close(after.sum(dim=0), torch.ones(24, 32))


@pytest.mark.skipif(
    not importlib.util.find_spec("pydensecrf"), reason="pip install pydensecrf2 (it needs a C++ compiler)"
)
@pytest.mark.parametrize("name", ["largefov", "deeplab-v2"])
def test_the_crf_is_pydensecrf_s(name: str) -> None:
    from pydensecrf import densecrf

    crf, before, image = PUBLISHED[name], beliefs(21, 90, 120), photograph(90, 120)
    oracle = densecrf.DenseCRF2D(120, 90, 21)
    oracle.setUnaryEnergy(np.ascontiguousarray(-before.clamp(min=1e-5).log().flatten(1).numpy()))
    oracle.addPairwiseGaussian(sxy=crf.pos_xy_std, compat=crf.pos_w)
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    oracle.addPairwiseBilateral(sxy=crf.bi_xy_std, srgb=crf.bi_rgb_std, rgbim=pixels, compat=crf.bi_w)
    theirs = torch.from_numpy(np.array(oracle.inference(10)).reshape(21, 90, 120))
    ours = crf(before, image)
    assert float((ours.argmax(dim=0) == theirs.argmax(dim=0)).float().mean()) >= 0.999
    assert float((ours - theirs).abs().mean()) < 1e-4


def test_a_large_image_is_refined_at_a_smaller_size() -> None:
    before, image = beliefs(3, 120, 160), photograph(120, 160)
    whole, smaller = DenseCRF()(before, image), DenseCRF(max_pixels=60 * 80)(before, image)
    torch.testing.assert_close(smaller.sum(dim=0), torch.ones(120, 160))
    agree = (whole.argmax(dim=0) == smaller.argmax(dim=0)).float().mean()
    assert agree > (before.argmax(dim=0) == whole.argmax(dim=0)).float().mean()
    assert agree > 0.9


def test_the_crf_says_at_which_size_it_refines_a_large_image() -> None:
    said = "refined at 1633 x 1225 of 4000 x 3000 pixels (max_pixels is 2,000,000)"
    assert DenseCRF().note((3000, 4000)) == said


@pytest.mark.parametrize("size", [(1, 1), (375, 500), (1000, 2000)])
def test_the_crf_says_nothing_of_an_image_that_it_refines_as_it_is(size: tuple[int, int]) -> None:
    assert DenseCRF().note(size) == ""


def test_a_constant_image_makes_the_appearance_kernel_one_of_distance() -> None:
    before, image = beliefs(3, 24, 32), torch.full((3, 24, 32), 90, dtype=torch.uint8)
    by_colour = DenseCRF(bi_w=3.0, bi_xy_std=4.0, pos_w=0.0)(before, image)
    by_distance = DenseCRF(bi_w=0.0, pos_w=3.0, pos_xy_std=4.0)(before, image)
    assert float((by_colour - by_distance).abs().mean()) < 0.02  # lattices of 5 and of 2 dimensions differ a little


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"bi_xy_std": 0.0}, "bi_xy_std of the CRF is 0.0; give a number above 0"),
        ({"bi_rgb_std": -1.0}, "bi_rgb_std"),
        ({"pos_xy_std": float("nan")}, "pos_xy_std"),
        ({"bi_w": -1.0}, "bi_w of the CRF is -1.0; give a number of at least 0"),
        ({"pos_w": float("inf")}, "pos_w"),
        ({"iterations": -1}, "iterations of the CRF are -1"),
    ],
)
def test_settings_of_the_crf_that_mean_nothing_are_refused(given: dict[str, float], said: str) -> None:
    with pytest.raises(UserError, match=said):
        DenseCRF(**given)


# the domain transform


def test_the_image_guided_filter_is_opencv_s() -> None:
    image, before = photograph(90, 120), beliefs(4, 90, 120)
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    scores = np.ascontiguousarray(before.log().permute(1, 2, 0).numpy())
    filtered = cv2.ximgproc.dtFilter(pixels, scores, 30.0, 0.3 * 255, mode=cv2.ximgproc.DTF_RF)
    theirs = torch.from_numpy(filtered).permute(2, 0, 1).softmax(dim=0)
    torch.testing.assert_close(DomainTransform(sigma_s=30.0, sigma_r=0.3)(before, image), theirs, rtol=1e-3, atol=1e-5)


def test_gradients_are_exact() -> None:
    values = noise(1, 2, 5, 6).double().requires_grad_()
    edges = noise(1, 5, 6, seed=1).abs().double().requires_grad_()
    assert torch.autograd.gradcheck(lambda v, e: domain_transform(v, e, sigma_s=4.0, sigma_r=1.0), (values, edges))


@pytest.mark.parametrize("back", [False, True])
def test_the_scan_for_gpus_is_the_loop(back: bool) -> None:
    values, weights = noise(2, 3, 37, 5), noise(2, 1, 37, 5, seed=1).sigmoid()
    torch.testing.assert_close(_scan(values, weights, back), _step(values, weights, back, out=values.clone()))


@pytest.mark.parametrize("back", [False, True])
def test_the_steps_of_numpy_are_those_of_pytorch(back: bool) -> None:
    values, weights = noise(2, 3, 37, 5), noise(2, 1, 37, 5, seed=1).sigmoid()
    in_half = _step(values.half(), weights.half(), back, out=torch.empty(2, 3, 37, 5).half())
    torch.testing.assert_close(
        _step(values, weights, back, torch.empty_like(values)), in_half.float(), atol=5e-3, rtol=0
    )


@pytest.mark.parametrize("back", [False, True])
def test_the_gradients_of_numpy_are_those_of_pytorch(back: bool) -> None:
    values, weights = noise(2, 3, 37, 5).double(), noise(2, 1, 37, 5, seed=1).double().sigmoid()
    swept, gradient = _step(values, weights, back, torch.empty_like(values)), noise(2, 3, 37, 5, seed=2).double()
    one, other = (
        step_back(gradient.clone(), values, weights, swept, back) for step_back in (_step_back, _step_back_in_numpy)
    )
    torch.testing.assert_close(one, other)


def test_a_second_derivative_is_refused_never_wrong() -> None:
    values = noise(1, 2, 5, 6).requires_grad_()
    filtered = domain_transform(values, torch.ones(1, 5, 6), sigma_s=4.0, sigma_r=1.0)
    (slope,) = torch.autograd.grad(filtered.square().sum(), values, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        slope.sum().backward()


def test_images_of_a_batch_do_not_mix() -> None:
    values, edges = noise(3, 2, 8, 9), noise(3, 8, 9, seed=1).abs()
    alone = [
        domain_transform(value[None], edge[None], sigma_s=4.0, sigma_r=1.0)
        for value, edge in zip(values, edges, strict=True)
    ]
    assert torch.equal(domain_transform(values, edges, sigma_s=4.0, sigma_r=1.0), torch.cat(alone))


@pytest.mark.parametrize("order", [(0, 1, 3, 2), (0, 2, 3, 1), (3, 2, 1, 0)])
@pytest.mark.parametrize("learning", [False, True])
def test_how_values_lie_in_memory_is_of_no_account(order: tuple[int, ...], learning: bool) -> None:
    values, edges = noise(2, 3, 8, 9), noise(2, 8, 9, seed=1).abs()
    back = [order.index(axis) for axis in range(4)]
    strided = values.permute(order).contiguous().permute(back).requires_grad_(learning)
    kept = strided.detach().clone()
    plain = domain_transform(values, edges, sigma_s=4.0, sigma_r=1.0)
    torch.testing.assert_close(domain_transform(strided, edges, sigma_s=4.0, sigma_r=1.0), plain)
    assert torch.equal(strided.detach(), kept)


def test_double_precision_stays_double_whatever_the_edges_are() -> None:
    values, edges = noise(1, 2, 8, 9).double(), noise(1, 8, 9, seed=1).abs()
    doubled = domain_transform(values, edges, sigma_s=4.0, sigma_r=1.0)
    assert doubled.dtype == torch.float64
    torch.testing.assert_close(doubled.float(), domain_transform(values.float(), edges, sigma_s=4.0, sigma_r=1.0))


def test_what_is_turned_twice_is_as_it_was() -> None:
    values = noise(2, 3, 4, 5)
    assert torch.equal(_turn(_turn(values)), values)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (7, 9)])
def test_what_is_filtered_stays_as_it_was_and_gradients_change_no_value(size: tuple[int, int]) -> None:
    values, edges = noise(1, 2, *size), noise(1, *size, seed=1).abs()
    kept = values.clone()
    plain = domain_transform(values, edges, sigma_s=4.0, sigma_r=1.0)
    assert torch.equal(values, kept)
    learned = domain_transform(values.clone().requires_grad_(), edges, sigma_s=4.0, sigma_r=1.0)
    torch.testing.assert_close(learned.detach(), plain)


def test_without_edges_the_filter_smooths_alike_everywhere() -> None:
    dot = torch.zeros(1, 1, 41, 41)
    dot[..., 20, 20] = 1
    smooth = domain_transform(dot, torch.zeros(1, 41, 41), sigma_s=3.0, sigma_r=1.0)[0, 0]
    torch.testing.assert_close(smooth, smooth.flip(0))
    torch.testing.assert_close(smooth, smooth.flip(1), atol=1e-4, rtol=1e-3)
    assert float(smooth[20, 20]) == float(smooth.max()) < 0.2


def test_endless_edges_make_the_filter_the_identity() -> None:
    before = beliefs(3, 20, 30)
    after = DomainTransform(learned=True)(before, photograph(20, 30), torch.full((20, 30), 1e6))
    torch.testing.assert_close(after, before)


def test_nothing_passes_an_edge() -> None:
    edges = torch.zeros(1, 8, 12)
    edges[..., 6] = 1e6  # between columns 5 and 6; a map of both directions also closes the column itself
    values = torch.zeros(1, 1, 8, 12)
    values[..., :6] = 1
    filtered = domain_transform(values, edges, torch.zeros_like(edges), sigma_s=20.0, sigma_r=1.0)
    torch.testing.assert_close(filtered, values)


def test_the_result_is_nobody_else_s_memory() -> None:
    values, edges = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1)
    domain_transform(values, edges, sigma_s=4.0, sigma_r=1.0).zero_()
    assert float(values) == 1


@pytest.mark.parametrize("given", [{"sigma_s": 0.0}, {"sigma_r": -1.0}, {"iterations": 0}, {"min_weight": 1.0}])
def test_settings_of_the_domain_transform_that_mean_nothing_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(
        UserError, match=f"{next(iter(given))} of the domain transform|iterations of the domain transform"
    ):
        DomainTransform(**given)


# both


@pytest.mark.parametrize("refine", REFINEMENTS, ids=["crf", "domain"])
@settings(max_examples=15, deadline=None)
@given(
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)), classes=st.integers(1, 5), seed=st.integers(0, 99),
    spread=st.sampled_from([0.0, 1.0, 50.0]),
)  # fmt: skip
def test_probabilities_stay_a_distribution(refine, size, classes, seed, spread) -> None:
    before = (noise(classes, *size, seed=seed) * spread).softmax(dim=0)
    image = torch.randint(0, 256, (3, *size), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    after = refine(before, image)
    assert after.dtype == torch.float32
    assert float(after.min()) >= 0
    torch.testing.assert_close(after.sum(dim=0), torch.ones(size), atol=1e-4, rtol=0)


@pytest.mark.parametrize("refine", REFINEMENTS, ids=["crf", "domain"])
def test_a_refinement_keeps_the_contract(refine) -> None:
    assert isinstance(refine, Refine)


def test_the_domain_transform_has_no_size_that_it_shrinks() -> None:
    assert DomainTransform().note((30_000, 40_000)) == ""


@pytest.mark.parametrize("refine", REFINEMENTS, ids=["crf", "domain"])
def test_one_class_stays_certain(refine) -> None:
    torch.testing.assert_close(refine(torch.ones(1, 9, 7), photograph(9, 7)), torch.ones(1, 9, 7))


@pytest.mark.parametrize("refine", REFINEMENTS, ids=["crf", "domain"])
@pytest.mark.parametrize(
    ("probabilities", "said"),
    [
        (torch.full((2, 6, 8), 0.5), r"probabilities are \(6, 8\), their image \(6, 9\)"),
        (torch.full((2, 6, 9), float("nan")), "NaN"),
        (torch.full((2, 6, 9), float("inf")), "infinity"),
        (torch.full((2, 6, 9), 0.7), "sum to 1.4 to 1.4 over classes; expected 1"),
        (torch.stack([torch.full((6, 9), 1.5), torch.full((6, 9), -0.5)]), "none below 0"),
    ],
)
def test_what_is_no_distribution_over_the_image_is_refused(refine, probabilities: torch.Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        refine(probabilities, torch.zeros(3, 6, 9, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("edges", "said"),
    [
        (torch.zeros(6, 8), r"their edges \(6, 8\)"),
        (-torch.ones(6, 9), "below 0"),
        (torch.full((6, 9), float("nan")), "NaN"),
    ],
)
def test_edges_that_mean_nothing_are_refused(edges: torch.Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DomainTransform()(torch.full((2, 6, 9), 0.5), torch.zeros(3, 6, 9, dtype=torch.uint8), edges)


def test_half_precision_probabilities_pass_the_check() -> None:
    check(beliefs(5, 6, 8).half(), photograph(6, 8))
