"""Test-time flipping: the mean of an image and its mirror image, on the image's own grid."""

import pytest
import torch
from torch import Tensor

from cells import Cells, Exact, cells_model, noise
from conftest import small_model
from scaleseg.engines import Engine, Flipped, Tiled, TorchEngine
from scaleseg.model import Prediction, ScaleAware

BOTH = pytest.mark.parametrize("align_corners", [True, False], ids=["aligned", "half-pixel"])


def maps_of(prediction: Prediction) -> list[Tensor]:
    assert prediction.edges is not None
    return [prediction.scores, prediction.scale_weights, *prediction.per_scale, prediction.edges]


def assert_same(one: Prediction, two: Prediction, tolerance: float = 1e-6) -> None:
    assert one.grid == two.grid
    for left, right in zip(maps_of(one), maps_of(two), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=tolerance, check_dtype=False)


def small_edges() -> ScaleAware:
    """A network that sees several cells and has no symmetry of its own."""
    torch.manual_seed(0)
    from scaleseg.model import create_model

    options = {"width": 4, "num_features": 8}
    return create_model(
        "small", num_classes=3, scales=(1.0, 0.5), pretrained="none", attention_width=8, edge_net=True, options=options
    ).eval()


def test_a_symmetric_image_gets_a_symmetric_answer() -> None:
    half = noise(40, 64)
    symmetric = torch.cat([half, noise(40, 1, 1), half.flip(-1)], dim=2)
    for maps in maps_of(Flipped(TorchEngine(small_edges(), "float32"), small_edges())(symmetric)):
        assert torch.equal(maps, maps.flip(-1))


def test_without_flipping_the_answer_is_not_symmetric() -> None:
    """Else the test above would prove nothing."""
    half = noise(40, 64)
    scores = TorchEngine(small_edges(), "float32")(torch.cat([half, noise(40, 1, 1), half.flip(-1)], dim=2)).scores
    assert not torch.equal(scores, scores.flip(-1))


def test_a_symmetric_image_gets_a_symmetric_answer_on_half_pixel_grids() -> None:
    model, half = cells_model(align_corners=False), noise(40, 48)
    with torch.no_grad():
        model.segmenter.get_submodule("look").weight[:, 1:] = 0
    for maps in maps_of(Flipped(Exact(model), model)(torch.cat([half, half.flip(-1)], dim=2))):
        torch.testing.assert_close(maps, maps.flip(-1), rtol=0, atol=1e-12)


def test_scores_are_the_mean_of_both() -> None:
    model, image = small_edges(), noise(33, 97)
    with torch.no_grad():
        one, two = model(image[None] / 255), model(image.flip(-1)[None] / 255)
    found = Flipped(TorchEngine(model, "float32"), model)(image)
    torch.testing.assert_close(found.scores, (one.scores + two.scores.flip(-1)) / 2)
    torch.testing.assert_close(found.edges, (one.edges + two.edges.flip(-1)) / 2)


@BOTH
def test_a_network_that_sees_one_cell_says_the_same_of_both(align_corners: bool) -> None:
    """So the mirrored image's cells, turned back, are the image's own: nothing is shifted."""
    model = cells_model(align_corners=align_corners)
    image = noise(50, 97 if align_corners else 96)
    assert_same(Flipped(Exact(model), model)(image), Exact(model)(image))


@BOTH
@pytest.mark.parametrize("columns", [81, 90, 95])
def test_what_is_padded_changes_no_cell_inside_the_image(align_corners: bool, columns: int) -> None:
    model, image = cells_model(align_corners=align_corners), noise(50, columns)
    inside = columns // Cells.output_stride - 2
    found, plain = Flipped(Exact(model), model)(image), Exact(model)(image)
    assert found.grid == plain.grid
    assert found.edges is not None and found.edges.shape[-2:] == image.shape[-2:]
    torch.testing.assert_close(found.scores[..., :inside], plain.scores[..., :inside], rtol=0, atol=1e-6)


@BOTH
def test_padding_is_the_mean_colour_to_the_nearest_8_bits(align_corners: bool) -> None:
    model = cells_model(align_corners=align_corners)
    engine = Exact(model)
    Flipped(engine, model)(noise(20, 83))
    given = model.normalize(engine.seen[0][None].double() / 255)[..., 83:]
    assert given.shape[-1] and float((given * model.std).abs().max()) <= 0.5 / 255 + 1e-6


@BOTH
@pytest.mark.parametrize("size", [(150, 131), (64, 200)])
def test_flipping_and_tiling_may_stand_in_either_order(align_corners: bool, size: tuple[int, int]) -> None:
    model, image = cells_model(align_corners=align_corners), noise(*size)
    side = 64 + align_corners
    whole = Flipped(Exact(model), model)(image)
    assert_same(Flipped(Tiled(Exact(model), model, side, 16), model)(image), whole)
    assert_same(Tiled(Flipped(Exact(model), model), model, side, 16)(image), whole)


def test_the_engines_around_an_engine_are_in_its_name() -> None:
    model = small_model()
    engine = Flipped(Tiled(TorchEngine(model, "float32"), model, 1217), model)
    assert isinstance(engine, Engine)
    assert (engine.name, engine.precision) == ("torch, tiles of 1217, flipped", "float32")
