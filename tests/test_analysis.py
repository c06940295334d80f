"""Deep evaluation: its figures against plain evaluation, single photographs and each other; its JSON there and back."""

import json
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Int64, UInt8
from torch import Tensor

from conftest import CLASSES, draw_pair, small_model
from scaleseg.analysis import CRUMB, SIZES, TRIMAP_WIDTHS, Analysis, analyze
from scaleseg.datasets import Subset
from scaleseg.engines import Tiled, TorchEngine
from scaleseg.errors import UserError
from scaleseg.evaluation import evaluate
from scaleseg.geometry import IGNORE
from scaleseg.metrics import TRIMAP, Confusion, find_objects
from scaleseg.model import ScaleAware, create_model
from scaleseg.segmentation import predict, segment

FUSIONS = ("average", "max", "attention")


class Drawn:
    """The tiny photographs of conftest, some times as large; of those in `void` nothing is labelled."""

    classes = CLASSES

    def __init__(self, count: int = 5, void: tuple[int, ...] = (), times: int = 3) -> None:
        self.names = [f"p{index}" for index in range(count)]
        self.void, self.times = void, times

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "3 H W"], Int64[Tensor, "H W"]]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        photo, ids = (part.repeat(self.times, axis=0).repeat(self.times, axis=1) for part in draw_pair(index))
        if index in self.void:
            ids[:] = IGNORE
        return torch.from_numpy(photo).permute(2, 0, 1).contiguous(), torch.from_numpy(ids.astype(np.int64))


@cache
def analysis(fusion: str = "attention", refine: str = "none") -> Analysis:
    return analyze(small_model(fusion), Drawn(), refine=refine)


def one_scale() -> ScaleAware:
    torch.manual_seed(0)
    options = {"width": 4, "num_features": 8}
    return create_model("small", classes=CLASSES, fusion="average", scales=(1.0,), pretrained="none", options=options)


def right(found: Analysis, fusion: str) -> list[int]:
    """Pixels of each photograph that this fusion gets right."""
    return [sum(hits for hits, _ in image.tallies[fusion].values()) for image in found.images]


@pytest.mark.parametrize("refine", ["none", "domain"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_plain_figures_are_those_of_evaluate(fusion: str, refine: str) -> None:
    assert analysis(fusion, refine).metrics == evaluate(small_model(fusion), Drawn(), refine=refine)


def test_an_engine_that_works_in_tiles_is_measured_like_any_other() -> None:
    model = small_model()
    engine, dataset = Tiled(TorchEngine(model, "float32"), model, 129, halo=8), Drawn(2, times=6)
    assert len(predict(model, dataset[0][0]).scores[0, 0]) * 8 > 129  # more than one tile
    assert analyze(model, dataset, engine=engine).metrics == evaluate(model, dataset, engine=engine)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_fused_miou_and_each_scale_s_are_the_plain_ones(fusion: str) -> None:
    found = analysis(fusion)
    alone = {name.removeprefix("scale "): each.value for name, each in found.fusions.items() if "scale" in name}
    assert found.mIoU == found.fusions["fused"]
    assert found.mIoU.value == found.metrics.mIoU
    assert alone == found.metrics.per_scale
    assert {name: each.value for name, each in found.IoU.items()} == found.metrics.IoU


@pytest.mark.parametrize("fusion", ["average", "max"])
def test_the_model_s_own_fusion_by_another_s_name_is_the_same(fusion: str) -> None:
    assert analysis(fusion).fusions[fusion] == analysis(fusion).mIoU


def test_average_and_max_do_not_depend_on_what_the_model_s_own_fusion_is() -> None:
    model, other = small_model("attention"), small_model("average")
    other.segmenter.load_state_dict(model.segmenter.state_dict())
    for name in ("scale 1", "scale 0.5", "average", "max"):
        assert analyze(other, Drawn()).fusions[name] == analysis().fusions[name]


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_oracle_is_right_wherever_a_scale_or_the_fusion_is(fusion: str) -> None:
    found = analysis(fusion)
    for name in ("fused", "scale 1", "scale 0.5"):
        assert all(best >= count for best, count in zip(right(found, "oracle"), right(found, name), strict=True))


def test_the_oracle_is_counted_by_hand() -> None:
    model, dataset, confusion = small_model(), Drawn(), Confusion(len(CLASSES))
    for index in range(len(dataset)):
        image, labels = dataset[index]
        prediction = predict(model, image, precision="float32")
        alone = [prediction.grid.to_image(scores)[0].argmax(dim=0) for scores in prediction.per_scale]
        chosen = prediction.at()[0].argmax(dim=0)
        for said in alone:
            chosen = torch.where(said == labels, labels, chosen)
        confusion.add(labels.numpy(), chosen.numpy())
    assert analysis().fusions["oracle"].value == confusion.metrics(CLASSES).mIoU


def test_an_interval_holds_its_figure_s_draws() -> None:
    for found in (analysis().mIoU, *analysis().IoU.values(), analysis().boundary_IoU):
        assert 0 <= found.low <= found.high <= 1
    assert analysis().mIoU.low < analysis().mIoU.value < analysis().mIoU.high


def test_the_trimap_curve_meets_the_plain_figure() -> None:
    assert tuple(width for width, _ in analysis().trimap) == TRIMAP_WIDTHS
    assert dict(analysis().trimap)[TRIMAP] == analysis().metrics.trimap_mIoU


@pytest.mark.parametrize("refine", ["none", "domain"])
def test_the_accuracy_of_the_bins_is_that_of_the_pixels(refine: str) -> None:
    found = analysis("attention", refine)
    assert sum(each.share for each in found.calibration.bins) == pytest.approx(1)
    assert sum(each.share * each.accuracy for each in found.calibration.bins) == pytest.approx(found.metrics.aAcc)


def test_confidence_is_the_highest_softmax_of_the_merged_scores() -> None:
    model, dataset, total, pixels = small_model(), Drawn(), 0.0, 0
    for index in range(len(dataset)):
        image, labels = dataset[index]
        best = predict(model, image, precision="float32").at()[0].softmax(dim=0).amax(dim=0)[labels != IGNORE]
        total, pixels = total + float(best.double().sum()), pixels + best.numel()
    mean = sum(each.share * each.confidence for each in analysis().calibration.bins)
    assert mean == pytest.approx(total / pixels, rel=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_weights_are_those_that_segment_shows(fusion: str) -> None:
    model, dataset, found = small_model(fusion), Drawn(), analysis(fusion)
    assert found.scale_use is not None
    shown = [segment(model, dataset[index][0], precision="float32").scale_weights.numpy() for index in range(5)]
    for image, weights in zip(found.images, shown, strict=True):
        assert image.weights == pytest.approx(tuple(weights.mean(axis=(1, 2))), abs=1e-5)
    for place, name in enumerate(CLASSES):
        on_class = [weights[:, dataset[index][1].numpy() == place] for index, weights in enumerate(shown)]
        expected = np.concatenate(on_class, axis=1).mean(axis=1)
        assert found.scale_use.classes[name] == pytest.approx(tuple(expected), abs=1e-5)


def test_weights_sum_to_one_wherever_they_are_told() -> None:
    use = analysis().scale_use
    assert use is not None
    told = [*use.zones.values(), *use.classes.values(), *(image.weights for image in analysis().images)]
    told += [size.weights for size in analysis().sizes if size.weights]
    assert [sum(weights) for weights in told] == pytest.approx([1] * len(told), abs=1e-5)
    assert set(use.zones) == {"object", "boundary", "background"}


def test_objects_are_counted_in_the_bin_of_their_share() -> None:
    expected = [0] * (len(SIZES) + 1)
    dataset = Drawn()
    for index in range(len(dataset)):
        labels = dataset[index][1].numpy()
        for pixels in find_objects(labels, labels).pixels:
            expected[sum(pixels / labels.size >= border for border in SIZES)] += 1
    assert [size.objects for size in analysis().sizes] == expected
    assert sum(expected) == 10


def test_the_iou_of_a_bin_is_the_mean_over_its_objects() -> None:
    for place, size in enumerate(analysis().sizes):
        counts, sums = zip(*(image.sizes[place] for image in analysis().images), strict=True)
        assert size.objects == sum(counts) == sum(count for count, _ in size.classes.values())
        assert (size.IoU.value if size.IoU else None) == (
            pytest.approx(sum(sums) / sum(counts)) if sum(counts) else None
        )


def test_a_crumb_is_no_object_and_is_counted_as_one() -> None:
    class Crumbs(Drawn):
        def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "3 H W"], Int64[Tensor, "H W"]]:
            image, labels = super().__getitem__(index)
            labels[:] = 0
            labels[10, : CRUMB - 1] = 1
            labels[20, :CRUMB] = 1
            return image, labels

    found = analyze(small_model(), Crumbs(2))
    assert (found.crumbs, sum(size.objects for size in found.sizes)) == (2, 2)


def test_a_photograph_s_own_figure_is_over_the_classes_that_it_has() -> None:
    dataset, image = Drawn(), analysis().images[3]
    confusion = Confusion(len(CLASSES))
    said = segment(small_model(), dataset[3][0], precision="float32").labels.numpy().astype(np.int64)
    confusion.add(dataset[3][1].numpy(), said)
    assert (image.name, image.index, image.mIoU) == ("p3", 3, pytest.approx(confusion.metrics(CLASSES).mIoU))


def test_a_photograph_of_void_has_no_figure_and_changes_no_other() -> None:
    found = analyze(small_model(), Drawn(5, void=(2,)))
    assert found.images[2].mIoU is None
    assert found.metrics == evaluate(small_model(), Drawn(5, void=(2,)))
    assert found.images[3] == analysis().images[3]


def test_nothing_labelled_is_a_user_error() -> None:
    with pytest.raises(UserError, match="no labelled pixel"):
        analyze(small_model(), Drawn(2, void=(0, 1)))


def test_another_order_of_photographs_changes_nothing_but_the_order() -> None:
    turned = analyze(small_model(), Subset(Drawn(), [3, 1, 4, 0, 2]))
    assert {name: each.value for name, each in turned.fusions.items()} == {
        name: each.value for name, each in analysis().fusions.items()
    }
    by_name = {image.name: replace(image, index=0) for image in turned.images}
    assert all(by_name[image.name] == replace(image, index=0) for image in analysis().images)
    assert turned.calibration.ece == pytest.approx(analysis().calibration.ece)
    assert turned.scale_use.correlation == pytest.approx(analysis().scale_use.correlation)
    assert turned.trimap == analysis().trimap


def test_labels_without_a_border_have_no_trimap_curve() -> None:
    class Flat(Drawn):
        def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "3 H W"], Int64[Tensor, "H W"]]:
            image, labels = super().__getitem__(index)
            return image, torch.zeros_like(labels)

    found = analyze(small_model(), Flat(2))
    assert found.trimap == ()
    assert Analysis.from_dict(found.to_dict()) == found


def test_one_scale_has_nothing_to_merge_and_no_use_of_scales() -> None:
    found = analyze(one_scale(), Drawn(3))
    assert (list(found.fusions), found.scale_use) == (["fused"], None)
    assert Analysis.from_dict(found.to_dict()) == found


def test_one_photograph_has_intervals_of_a_point() -> None:
    found = analyze(small_model(), Drawn(1))
    assert found.mIoU.low == found.mIoU.high == found.mIoU.value


def test_without_scipy_nothing_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.ndimage", None)
    told: list[int] = []
    with pytest.raises(UserError, match=r"scaleseg\[report\]"):
        analyze(small_model(), Drawn(), progress=lambda done, total: told.append(done))
    assert told == []


@pytest.mark.parametrize("fusion", FUSIONS)
def test_json_there_and_back_is_the_same(fusion: str) -> None:
    written = json.dumps(analysis(fusion).to_dict(), allow_nan=False)
    assert Analysis.from_dict(json.loads(written)) == analysis(fusion)


def test_the_file_of_the_command_line_has_it_under_analysis() -> None:
    assert Analysis.from_dict({"mIoU": 0.5, "analysis": analysis().to_dict()}) == analysis()


@cache
def text() -> str:
    return json.dumps(analyze(small_model(), Drawn(2)).to_dict())


def document() -> dict[str, Any]:
    return json.loads(text())


@pytest.mark.parametrize("foreign", [None, [], "text", 3, {}, {"mIoU": 0.5}, {"analysis": []}, {"format": 1}])
def test_a_foreign_document_is_no_deep_evaluation(foreign: object) -> None:
    with pytest.raises(UserError, match=r"no deep evaluation.*evaluate CHECKPOINT --deep --json FILE"):
        Analysis.from_dict(foreign)


def test_another_format_is_named() -> None:
    with pytest.raises(UserError, match="format 2; this version reads 1"):
        Analysis.from_dict({**document(), "format": 2})


def places(node: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """The path of everything inside a document whose keys are fields: not those of classes and fusions, which are free."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(place for key, item in items for place in places(item, (*path, key)))]


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from(["gone", None, True, "x", [], {}, float("nan"), -1e400]))
def test_damage_is_a_user_error_or_another_sound_document(data: st.DataObject, damage: object) -> None:
    damaged = document()
    place: Any = data.draw(st.sampled_from([place for place in places(damaged) if place]))
    node: Any = damaged
    for key in place[:-1]:
        node = node[key]
    if damage == "gone":
        del node[place[-1]]
    else:
        node[place[-1]] = damage
    try:
        found = Analysis.from_dict(damaged)
    except UserError:
        return
    assert Analysis.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False))) == found


@pytest.mark.parametrize(
    ("path", "wrong", "told"),
    [
        (("mIoU", "low"), "much", r"mIoU\.low is 'much'"),
        (("crumbs",), 1.5, r"crumbs is 1\.5"),
        (("images", 0, "weights"), [1.0], "1 weights"),
        (("images", 0, "tallies", "fused"), {"ground": [9, 3]}, "more hits than pixels"),
        (("images", 0, "tallies", "fused"), {"stranger": [1, 3]}, "classes"),
        (("images",), [], "no images"),
        (("crumbs",), 10**400, "crumbs is 1000"),
        (("mIoU", "low"), 10**400, "low is 1000"),
        (("sizes",), [], "5 sizes"),
    ],
)
def test_what_is_damaged_is_named(path: tuple[Any, ...], wrong: object, told: str) -> None:
    node: Any = (whole := document())
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = wrong
    with pytest.raises(UserError, match=f"damaged: .*{told}"):
        Analysis.from_dict(whole)


def test_a_figure_that_json_does_not_have_is_never_written() -> None:
    with pytest.raises(ValueError, match="nan"):
        replace(analysis(), mIoU=analysis().mIoU._replace(value=float("nan"))).to_dict()


def test_nothing_of_the_machine_is_written(tmp_path: Path) -> None:
    assert "/" not in json.dumps(analysis().to_dict()).replace("</", "")
