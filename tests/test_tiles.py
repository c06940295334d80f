"""Tiles, strips and limits: what is looked at in parts is what is looked at as a whole."""

import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cells import Exact, cells_model, noise
from conftest import small_model
from scaleseg import segmentation
from scaleseg.devices import place
from scaleseg.engines import Tiled, TorchEngine, check_whole, choose_side, memory, parse_bytes
from scaleseg.engines.memory import process_bytes, spelled, tensor_bytes
from scaleseg.engines.tiled import default_halo, smallest_side
from scaleseg.errors import UserError
from scaleseg.model import Prediction, ScaleAware, create_model
from scaleseg.segmentation import predict, segment
from scaleseg.segmenters.contract import Dense

BOTH = pytest.mark.parametrize("align_corners", [True, False], ids=["aligned", "half-pixel"])
FUSIONS = ("average", "max", "attention")


def assert_same(one: Prediction, two: Prediction, tolerance: float = 1e-6) -> None:
    assert one.grid == two.grid
    maps = [[said.scores, said.scale_weights, *said.per_scale] for said in (one, two)]
    for left, right in zip(*maps, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=tolerance, check_dtype=False)


@BOTH
@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("size", [(150, 131), (129, 65), (40, 333), (257, 64)])
def test_a_network_that_sees_one_cell_says_the_same_of_tiles(
    align_corners: bool, fusion: str, size: tuple[int, int]
) -> None:
    model, image = cells_model(align_corners=align_corners, fusion=fusion), noise(*size)
    engine, whole = Exact(model), Exact(model)(image)
    tiled = Tiled(engine, model, 64 + align_corners, 16)(image)
    assert len(engine.seen) > 1
    assert_same(tiled, whole)
    torch.testing.assert_close(tiled.edges, whole.edges, rtol=0, atol=1e-5, check_dtype=False)


@BOTH
def test_every_tile_has_the_same_padded_size_and_lies_on_the_grid(align_corners: bool) -> None:
    """An engine that is compiled for one size needs no other."""
    model, image, side = cells_model(align_corners=align_corners), noise(150, 231), 80 + align_corners
    engine = Exact(model)
    Tiled(engine, model, side, 16)(image)
    assert {model.grid((part.shape[1], part.shape[2])).padded for part in engine.seen} == {(side, side)}
    for part in engine.seen:
        found = [
            (top, left)
            for top in range(0, 150, 16)
            for left in range(0, 231, 16)
            if image[:, top : top + part.shape[1], left : left + part.shape[2]].equal(part)
        ]
        assert len(found) == 1


@BOTH
def test_a_small_image_is_one_tile_and_goes_to_the_engine_as_it_is(align_corners: bool) -> None:
    model, image = cells_model(align_corners=align_corners), noise(60, 64)
    engine = Exact(model)
    assert_same(Tiled(engine, model, 64 + align_corners, 16)(image), Exact(model)(image), tolerance=0)
    assert len(engine.seen) == 1 and engine.seen[0] is image


@BOTH
@pytest.mark.parametrize("scales", [(1.0, 0.6), (0.6,), (1.3, 1 / 3)])
def test_scales_without_whole_cells_in_a_step_keep_their_grids(align_corners: bool, scales: tuple[float, ...]) -> None:
    """A colour that is the same everywhere comes out as it is."""
    model = cells_model(align_corners=align_corners, scales=scales, edges=False)
    image = torch.full((3, 192 + align_corners, 192 + align_corners), 77, dtype=torch.uint8)
    assert_same(Tiled(Exact(model), model, 96 + align_corners, 16)(image), Exact(model)(image))


def test_cells_that_see_past_a_tile_agree_once_the_halo_is_as_wide_as_their_sight() -> None:
    model, image = small_model(), noise(420, 330)
    engine = TorchEngine(model, "float32")
    whole, wide, narrow = (
        engine(image), Tiled(engine, model, 289, 96)(image), Tiled(engine, model, 289, 0)(image)
    )  # fmt: skip
    assert_same(wide, whole, tolerance=1e-4)
    assert float((narrow.scores - whole.scores).abs().max()) > 1e-2


def test_the_halo_grows_with_what_the_coarsest_scale_sees() -> None:
    assert default_halo(cells_model(align_corners=True)) == 2 * default_halo(
        cells_model(align_corners=True, scales=(1.0,))
    )


def test_a_tile_smaller_than_its_halos_is_a_value_error() -> None:
    model = small_model()
    with pytest.raises(ValueError, match=f"expected at least {smallest_side(model)}"):
        Tiled(TorchEngine(model), model, smallest_side(model) - 1)


@BOTH
def test_weights_still_sum_to_one_over_scales(align_corners: bool) -> None:
    model = cells_model(align_corners=align_corners)
    weights = Tiled(Exact(model), model, 64 + align_corners, 16)(noise(150, 131)).scale_weights
    torch.testing.assert_close(weights.sum(dim=1), torch.ones_like(weights[:, 0]), check_dtype=False)


def test_a_scales_features_are_gone_before_the_next_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    model, alive, kept = small_model(), [], []
    forward = model.segmenter.forward

    def watched(images: Tensor) -> Dense:
        alive.append([reference() is not None for reference in kept])
        dense = forward(images)
        kept.append(weakref.ref(dense.features))
        return dense

    monkeypatch.setattr(model.segmenter, "forward", watched)
    with torch.no_grad():
        model(noise(65, 65)[None] / 255)
    assert alive == [[], [False]]


@pytest.mark.parametrize("segmenter", ["largefov", "lite0"])
def test_three_scales_take_hardly_more_memory_than_one(segmenter: str) -> None:
    one, three = (
        tensor_bytes(create_model(segmenter, scales=scales, num_classes=21, pretrained="none"), (513, 513))
        for scales in ((1.0,), (1.0, 0.75, 0.5))
    )
    assert one <= three <= 1.25 * one


@pytest.mark.parametrize("fusion", FUSIONS)
@BOTH
@pytest.mark.parametrize("size", [(333, 40), (321, 37), (290, 64)])
def test_a_decision_in_strips_is_the_decision_on_the_whole(
    align_corners: bool, fusion: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, image = cells_model(align_corners=align_corners, fusion=fusion).float(), noise(*size)
    whole = segment(model, image, precision="float32")
    monkeypatch.setattr(segmentation, "STRIP", 3 * 4 * 80 * 32)
    strips = segment(model, image, precision="float32")
    assert len(list(segmentation._strips(predict(model, image, precision="float32")))) > 5
    assert torch.equal(strips.labels, whole.labels)
    assert torch.allclose(strips.scale_weights, whole.scale_weights, atol=1e-5)  # with more threads not the same bits
    assert len(whole.labels.unique()) > 1


def test_a_small_image_is_one_strip() -> None:
    assert len(list(segmentation._strips(predict(small_model(), noise(65, 65))))) == 1


@pytest.mark.parametrize(
    ("text", "count"),
    [("4GB", 4 * 10**9), ("1.5 GiB", 3 * 2**29), ("800mb", 8 * 10**8), (" 512MiB ", 2**29)],
)
def test_sizes_are_numbers_with_a_unit(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["4", "GB", "", "4 gigs", "-4GB", "0GB", "4GB5", "1e3MB", "nan GB", "4KB"])
def test_other_sizes_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(
        UserError, match=r"--max-memory is .*; give a number above 0 and GB, GiB, MB or MiB, such as 4GB$"
    ):
        parse_bytes(text)


@pytest.mark.parametrize("name", ["small", "lite0"])
def test_what_tensors_take_is_what_the_profiler_sees(name: str) -> None:
    """Every allocation and release of PyTorch's CPU allocator during a real run, added up."""
    model = create_model(name, num_classes=3, scales=(1.0, 0.5), pretrained="none", attention_width=8).eval()
    image = noise(192, 256)
    place(model, torch.device("cpu"))
    TorchEngine(model, "float32")(image)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        TorchEngine(model, "float32")(image)
    events = profiler.profiler.kineto_results.events()
    changes = [
        event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()) if event.name() == "[memory]"
    ]
    assert tensor_bytes(model, (192, 256)) == pytest.approx(np.cumsum(changes).max(), rel=0.1)


def test_memory_is_a_line_over_pixels() -> None:
    model = small_model()
    line = memory._line(model, "float32")
    for size in ((257, 2049), (1281, 1281)):
        assert line[0] + line[1] * size[0] * size[1] == pytest.approx(tensor_bytes(model, size), rel=0.03)


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> ScaleAware:
    """A model in a process that holds 100 MB."""
    monkeypatch.setattr(memory, "_resident", lambda: 10**8)
    return small_model()


def test_a_side_is_the_largest_that_fits(limited: ScaleAware) -> None:
    size, limit = (6000, 8000), 2 * 10**9
    free = limit - 10**8 - memory._full_size(limited, size, whole_scores=False)
    side, step = choose_side(limited, size, limit), limited.grid((1, 1)).step
    assert process_bytes(limited, (side, side)) <= free < process_bytes(limited, (side + step, side + step))
    assert side % step == 1


def test_an_image_that_fits_needs_no_tiles(limited: ScaleAware) -> None:
    assert choose_side(limited, (300, 400), 2 * 10**9) >= 417


def test_a_refinement_leaves_less_for_tiles(limited: ScaleAware) -> None:
    sides = [choose_side(limited, (5000, 5000), 2 * 10**9, whole_scores=whole) for whole in (False, True)]
    assert sides[1] < sides[0]


def test_an_image_too_large_even_for_the_smallest_tiles_is_a_users_error(limited: ScaleAware) -> None:
    with pytest.raises(
        UserError, match=r"8000 x 6000 pixels needs .* GB even in tiles of 1089, and --max-memory is 300 MB"
    ):
        choose_side(limited, (6000, 8000), 3 * 10**8)


def test_a_limit_is_kept_by_tiles_that_change_no_label(monkeypatch: pytest.MonkeyPatch) -> None:
    model, image = cells_model(align_corners=True).float(), noise(1300, 90)
    whole = segment(model, image, precision="float32")
    monkeypatch.setattr(segmentation, "choose_side", lambda model, *_, **__: smallest_side(model))
    seen: list[tuple[int, ...]] = []
    model.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape)))
    tiled = segment(model, image, precision="float32", max_memory=1)
    assert len(seen) > 1
    assert float((tiled.labels == whole.labels).float().mean()) > 0.9999


def test_an_image_larger_than_the_machines_memory_names_the_way_out(
    limited: ScaleAware, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "memory", lambda _: 10**9)
    with pytest.raises(UserError, match=r"^photo\.jpg \(8000 x 6000 pixels\) needs .* GB in one piece.*--max-memory"):
        check_whole(limited, (6000, 8000), "float32", "photo.jpg")
    check_whole(limited, (300, 400), "float32", "photo.jpg")


def test_a_photograph_that_would_end_the_process_is_refused_before(
    tmp_path: Path, limited: ScaleAware, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "memory", lambda _: 10**5)
    monkeypatch.setattr(memory, "LARGE", 1)
    with pytest.raises(UserError, match="--max-memory"):
        segment(limited, noise(65, 65))


def test_running_out_of_memory_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    model = small_model()
    monkeypatch.setattr(model.segmenter, "forward", fail)
    with pytest.raises(UserError, match="give --max-memory"):
        segment(model, noise(65, 65))


def test_bytes_are_spelled_as_people_say_them() -> None:
    assert (spelled(4_250_000_000), spelled(512_000_000)) == ("4.2 GB", "512 MB")


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_every_engines_precision_is_allowed_for_by_what_float32_takes(limited: ScaleAware, precision: str) -> None:
    """Half as many bytes, or a quarter, never ask for more; 8 bits are counted as float32, for what they take is not known."""
    exact = process_bytes(limited, (1000, 1000))
    assert process_bytes(limited, (1000, 1000), precision) <= exact
    assert choose_side(limited, (6000, 8000), 2 * 10**9, precision) >= choose_side(limited, (6000, 8000), 2 * 10**9)
