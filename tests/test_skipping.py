"""Scales that are left out: where nothing is skipped all is as always, and what is skipped is really not computed."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from conftest import CLASSES, small_model
from scaleseg.cli.app import app
from scaleseg.engines import Engine, Tiled, TorchEngine
from scaleseg.engines.skipping import Skipping
from scaleseg.errors import UserError
from scaleseg.fusion import Average
from scaleseg.model import ScaleAware, create_model
from scaleseg.segmentation import segment


def three_scales(fusion: str, seed: int = 0) -> ScaleAware:
    torch.manual_seed(seed)
    options = {"width": 4, "num_features": 8}
    model = create_model(
        "small",
        classes=CLASSES,
        fusion=fusion,
        scales=(1.0, 0.75, 0.5),
        pretrained="none",
        attention_width=8,
        options=options,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return model.eval()


@pytest.fixture
def photo() -> torch.Tensor:
    return torch.randint(0, 256, (3, 45, 62), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("fusion", ["average", "max", "attention"])
def test_at_threshold_zero_every_scale_is_computed_and_the_answer_is_the_model_s(
    fusion: str, photo: torch.Tensor
) -> None:
    model = three_scales(fusion)
    skipping, plain = Skipping(model, 0.0, "float32"), TorchEngine(model, "float32")
    one, other = skipping(photo), plain(photo)
    assert skipping.looked == {1.0: 1, 0.75: 1, 0.5: 1}
    assert torch.allclose(one.scores, other.scores, atol=1e-5)
    assert torch.allclose(one.scale_weights, other.scale_weights, atol=1e-5)


@pytest.mark.parametrize("fusion", ["average", "max", "attention"])
def test_above_one_only_the_coarsest_scale_is_computed_and_stands_for_all(fusion: str, photo: torch.Tensor) -> None:
    model = three_scales(fusion)
    skipping = Skipping(model, 1.1, "float32")
    prediction = skipping(photo)
    assert skipping.looked == {1.0: 0, 0.75: 0, 0.5: 1}
    coarse = TorchEngine(model, "float32")(photo).per_scale[2]
    assert all(torch.equal(scores, coarse) for scores in prediction.per_scale)
    assert torch.allclose(prediction.scale_weights.sum(dim=1), torch.ones(()), atol=1e-5)


def test_between_the_finest_scale_comes_before_the_middle_one(photo: torch.Tensor) -> None:
    counts = set()
    for threshold in (0.05, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3):
        skipping = Skipping(three_scales("average"), threshold, "float32")
        skipping(photo)
        counts.add(tuple(skipping.looked.values()))
    assert counts <= {(1, 1, 1), (1, 0, 1), (0, 1, 1), (0, 0, 1)} and len(counts) > 1


def test_with_average_fusion_importance_is_a_third_of_the_doubt(photo: torch.Tensor) -> None:
    model = three_scales("average")
    coarse = Skipping(model, 1.1, "float32")(photo)
    third = float((1 - coarse.scores.softmax(dim=1).amax(dim=1)).mean()) / 3
    below, above = Skipping(model, third * 0.999, "float32"), Skipping(model, third * 1.001, "float32")
    below(photo), above(photo)
    assert below.looked[1.0] == 1 and above.looked == {1.0: 0, 0.75: 0, 0.5: 1}


def test_one_scale_is_never_skipped(photo: torch.Tensor) -> None:
    model = small_model()
    model.scales = (1.0,)
    model.fusion = Average()
    assert torch.equal(Skipping(model, 5.0, "float32")(photo).scores, TorchEngine(model, "float32")(photo).scores)


def test_a_skipping_engine_is_an_engine_and_leaves_training_mode_alone(photo: torch.Tensor) -> None:
    model = three_scales("attention").train()
    skipping = Skipping(model, 0.1)
    assert isinstance(skipping, Engine)
    segment(model, photo, engine=skipping)
    assert model.training


def test_each_tile_decides_for_itself() -> None:
    model = three_scales("average")
    image = torch.randint(0, 256, (3, 64, 400), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    skipping = Skipping(model, 0.0, "float32")
    Tiled(skipping, model, 192, halo=32)(image)
    assert skipping.looked[0.5] > 1


@pytest.mark.parametrize("how", [[], ["--distributed"]])
@pytest.mark.parametrize("needs", [["--refine", "domain-learned"], ["--save", "masks,edges"]])
def test_what_needs_the_finest_scale_is_refused_beside_skipping(
    tmp_path: Path, how: list[str], needs: list[str]
) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    words = ["predict", "voc-animals-lite", str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), "--skip", "0.1"]
    result = CliRunner().invoke(app, [*words, *needs, *how])
    assert isinstance(result.exception, UserError) and "--skip may leave out the finest scale" in str(result.exception)


def test_a_threshold_that_is_none_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    words = ["predict", "voc-animals-lite", str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), "--skip", "nan"]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, UserError) and "--skip is nan; give a threshold from 0" in str(result.exception)
