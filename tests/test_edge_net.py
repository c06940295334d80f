"""The learned edge map: where it looks, what it promises, and that the loss behind the filter teaches it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

import scaleseg
from conftest import CLASSES, small_config, small_model
from scaleseg import checkpoint
from scaleseg.cli.app import app
from scaleseg.config import Config, RefineConfig, merge, to_dict
from scaleseg.datasets import open_training
from scaleseg.errors import UserError
from scaleseg.evaluation import evaluate
from scaleseg.geometry import Grid
from scaleseg.loss import count_valid, scale_aware_loss
from scaleseg.model import ScaleAware, create_model
from scaleseg.refine import DenseCRF, DomainTransform, EdgeNet, create_refine, learned_filter
from scaleseg.segmentation import at_image, choose_refine, predict, segment
from scaleseg.segmenters import create_segmenter, list_segmenters
from scaleseg.training import train

TAPPED = [name for name in list_segmenters() if name != "fcn"]
"""FCN pads images by 100 pixels: its inner maps do not lie on the image."""


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def edge_model(seed: int = 0) -> ScaleAware:
    """A tiny model with random parameters and an edge map."""
    torch.manual_seed(seed)
    options = {"width": 4, "num_features": 8}
    model = create_model(
        "small",
        classes=CLASSES,
        scales=(1.0, 0.5),
        pretrained="none",
        attention_width=8,
        edge_net=True,
        options=options,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return model.eval()


@pytest.fixture
def photo() -> torch.Tensor:
    return torch.randint(0, 256, (3, 29, 42), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


# where it looks


@pytest.mark.parametrize("name", TAPPED)
@torch.no_grad()
def test_taps_have_the_channels_that_the_segmenter_says_and_change_nothing(name: str) -> None:
    segmenter = create_segmenter(name, 3).eval()
    grid = Grid((64, 65), (1.0,), segmenter.output_stride, segmenter.align_corners)
    image = noise(1, 3, *grid.padded)
    tapped, plain = segmenter.tapped(image), segmenter(image)
    assert {name: maps.shape[1] for name, maps in tapped.taps.items()} == segmenter.taps != {}
    assert torch.equal(tapped.scores, plain.scores) and not plain.taps
    assert all(max(maps.shape[2:]) >= max(tapped.scores.shape[2:]) for maps in tapped.taps.values())


@pytest.mark.parametrize("name", TAPPED)
def test_no_later_layer_writes_over_a_tapped_map(name: str) -> None:
    segmenter = create_segmenter(name, 3).eval()
    copies: dict[str, torch.Tensor] = {}
    for layer in segmenter.taps:
        segmenter.get_submodule(layer).register_forward_hook(
            lambda module, given, maps, layer=layer: copies.__setitem__(layer, maps.clone())
        )
    with torch.no_grad():
        taps = segmenter.tapped(noise(1, 3, 65, 65)).taps
    assert all(torch.equal(maps, copies[layer]) for layer, maps in taps.items())


def test_no_hook_is_left_behind_even_where_the_network_fails() -> None:
    segmenter = create_segmenter("small", 3)
    with pytest.raises(RuntimeError, match=r"type"):
        segmenter.tapped(noise(1, 3, 16, 16).double())
    assert not any(layer._forward_hooks for layer in segmenter.modules())


def test_a_network_without_taps_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"model.edge_net is true, but fcn has no inner maps"):
        create_model("fcn", num_classes=3, pretrained="none", edge_net=True)


# what it promises


def test_edges_are_a_1x1_convolution_over_the_enlarged_maps_and_relu() -> None:
    net = EdgeNet({"near": 5, "far": 7})
    grid = Grid((32, 48), (1.0,), 8, align_corners=False)
    taps = {"near": noise(2, 5, 16, 24), "far": noise(2, 7, 8, 12, seed=1)}
    side_by_side = torch.cat([grid.to_image(taps[name]) for name in ("near", "far")], dim=1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn_like(parameter))
        weight = torch.cat([part.weight for part in net.parts], dim=1)
        expected = F.conv2d(side_by_side, weight, net.bias).relu()[:, 0]
        edges = net(taps, grid)
    assert torch.allclose(edges, expected, atol=1e-5)
    assert bool((edges > 0).any()) and bool((edges == 0).any())


def test_the_border_of_the_padding_is_no_edge() -> None:
    net = EdgeNet({"map": 1})
    grid = Grid((41, 50), (1.0,), 8, align_corners=False)
    assert grid.padded == (48, 56)
    maps = torch.ones(1, 1, 24, 28)
    maps[..., 20:, :] = maps[..., 24:] = 100.0  # what a network makes of photograph beside padding
    with torch.no_grad():
        net.parts[0].weight.fill_(1.0)  # type: ignore[union-attr]
        edges = net({"map": maps}, grid)
    assert edges.shape == (1, 41, 50) and torch.allclose(edges, torch.tensor(1.1))


def test_a_prediction_carries_edges_of_the_image_s_size(photo: torch.Tensor) -> None:
    prediction = predict(edge_model(), photo)
    assert prediction.edges is not None and prediction.edges.shape == (1, 29, 42)
    assert bool((prediction.edges >= 0).all())


def test_edges_come_from_the_finest_scale_wherever_it_stands(photo: torch.Tensor) -> None:
    model = edge_model()
    edges = predict(model, photo).edges
    model.scales = model.scales[::-1]
    assert edges is not None and torch.equal(edges, predict(model, photo).edges)


def test_an_edge_map_does_not_change_the_scores(photo: torch.Tensor) -> None:
    model = edge_model()
    with_edges = predict(model, photo)
    model.edge_net = None
    without = predict(model, photo)
    assert torch.equal(with_edges.scores, without.scores) and without.edges is None


def test_a_learned_refinement_is_the_filter_of_the_scores_that_training_uses(photo: torch.Tensor) -> None:
    model = edge_model()
    prediction = predict(model, photo)
    filter_ = learned_filter(model.refine)
    refined = at_image(prediction, photo, filter_)
    assert prediction.edges is not None
    trained_on = filter_.of_scores(prediction.at(), prediction.edges)[0].softmax(dim=0)
    assert torch.allclose(refined, trained_on, atol=1e-5)


def test_a_learned_refinement_without_edges_is_a_programmer_s_mistake(photo: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="no edges are given"):
        DomainTransform(learned=True)(torch.full((2, 29, 42), 0.5), photo)


def test_edges_of_a_model_do_not_reach_the_photograph_s_own_filter(photo: torch.Tensor) -> None:
    probabilities = noise(3, 29, 42).softmax(dim=0)
    plain = DomainTransform()
    assert torch.equal(plain(probabilities, photo, torch.ones(29, 42)), plain(probabilities, photo))


# the names


def test_each_name_makes_what_its_settings_say() -> None:
    settings = RefineConfig(
        bi_w=1.0, bi_xy_std=2.0, bi_rgb_std=3.0, pos_w=4.0, pos_xy_std=5.0, crf_iterations=6, crf_max_pixels=7,
        sigma_s=8.0, sigma_r=9.0, learned_sigma_s=10.0, learned_sigma_r=11.0, iterations=12, min_weight=0.5,
    )  # fmt: skip
    assert create_refine("none", settings) is None
    assert create_refine("crf", settings) == DenseCRF(1.0, 2.0, 3.0, 4.0, 5.0, 6, 7)
    assert create_refine("domain", settings) == DomainTransform(8.0, 9.0, 12, 0.5)
    assert create_refine("domain-learned", settings) == DomainTransform(10.0, 11.0, 12, 0.5, learned=True)


def test_the_defaults_of_settings_and_of_the_crf_are_one() -> None:
    assert create_refine("crf") == DenseCRF()
    assert create_refine("domain") == DomainTransform()


def test_a_name_that_is_none_is_the_users_error() -> None:
    with pytest.raises(
        UserError, match=r"--refine is 'crff'; did you mean 'crf'\? choose crf, domain, domain-learned or none"
    ):
        create_refine("crff")


def test_a_model_without_edges_cannot_use_learned_ones(model: ScaleAware) -> None:
    with pytest.raises(UserError, match=r"learned no edges .* choose none, crf or domain"):
        choose_refine(model, "domain-learned")


@pytest.mark.parametrize("name", ["crf", "domain", "domain-learned"])
def test_a_segmentation_is_refined_by_the_model_s_own_settings(photo: torch.Tensor, name: str) -> None:
    model = edge_model()
    model.refine = RefineConfig(bi_w=9.0, pos_w=9.0, sigma_r=50.0, learned_sigma_r=50.0)
    refined = segment(model, photo, precision="float32", refine=name).labels
    by_hand = at_image(predict(model, photo, precision="float32"), photo, create_refine(name, model.refine))
    assert torch.equal(refined, by_hand.argmax(dim=0).to(torch.uint8))
    assert not torch.equal(refined, segment(model, photo, precision="float32").labels)


def test_a_crf_at_a_smaller_size_says_so(photo: torch.Tensor, model: ScaleAware) -> None:
    model.refine = RefineConfig(crf_max_pixels=300)
    assert "300" in segment(model, photo, refine="crf").note
    assert segment(model, photo).note == segment(model, photo, refine="domain").note == ""


# learning


def settings(folder: Path, **training: object) -> Config:
    config = small_config(edge_net=True)
    data = {"train": str(folder), "classes": list(CLASSES), "dev": 0.2, "crop": 33, "workers": 0}
    given = {"steps": 4, "batch": 2, "validate_every": 2, "lr": 0.01, **training}
    return merge(to_dict(config), {"data": data, "train": given})


def quiet(line: str) -> None:
    """For runs whose words do not matter."""


def test_the_loss_behind_the_filter_reaches_every_parameter_of_edges_and_network() -> None:
    model = edge_model().train()
    prediction = model(torch.rand(2, 3, 33, 40))
    labels = torch.randint(0, 3, (2, 33, 40))
    filtered = learned_filter(model.refine).of_scores(prediction.at(), prediction.edges)
    scale_aware_loss(prediction, labels, filtered=filtered, extra_supervision=False).backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not bool(p.grad.abs().sum())]
    assert not silent


def test_the_filtered_scores_cross_entropy_is_at_the_image_s_size() -> None:
    prediction = edge_model()(torch.rand(1, 3, 33, 40))
    labels = torch.randint(0, 3, (1, 33, 40))
    labels[0, 0] = 255
    filtered = noise(1, 3, 33, 40)
    loss = scale_aware_loss(prediction, labels, filtered=filtered, extra_supervision=False)
    assert torch.allclose(loss, F.cross_entropy(filtered, labels, ignore_index=255))
    assert count_valid(prediction.grid, labels, filtered=True)[0] == 32 * 40


def test_only_the_edge_map_learns_where_all_else_is_frozen(folder: Path, tmp_path: Path) -> None:
    plain = settings(folder)
    first = train(replace(plain, model=replace(plain.model, edge_net=False)), tmp_path / "first", say=quiet)
    said: list[str] = []
    second = settings(folder, init_from=str(first), freeze=["segmenter", "fusion"], extra_supervision=False)
    last = train(second, tmp_path / "second", say=said.append)
    assert any("fresh: edge_net.bias, edge_net.parts.0.weight, edge_net.parts.1.weight" in line for line in said)
    before, now = load_file(first / "model.safetensors"), load_file(last / "model.safetensors")
    assert all(torch.equal(before[name], now[name]) for name in before)
    fresh = train(replace(second, train=replace(second.train, steps=1)), tmp_path / "one", say=quiet)
    early = load_file(fresh / "model.safetensors")
    assert all(not torch.equal(early[name], now[name]) for name in now if name.startswith("edge_net."))


def test_training_measures_behind_the_filter(folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    config = settings(folder, steps=2)
    last = train(config, tmp_path / "run", say=said.append)
    dev = open_training(config.data).dev
    assert dev is not None
    behind = evaluate(checkpoint.load(last), dev, refine="domain-learned").mIoU
    assert any(f"dev mIoU {100 * behind:.2f} %" in line for line in said)


def test_an_edge_map_and_its_settings_come_back_from_a_checkpoint(photo: torch.Tensor, tmp_path: Path) -> None:
    model = edge_model()
    config = merge(to_dict(small_config(edge_net=True)), {"refine": {"bi_w": 7, "learned_sigma_s": 30}})
    checkpoint.save(tmp_path / "saved", model, config)
    loaded = scaleseg.load(tmp_path / "saved")
    assert loaded.refine == config.refine and loaded.refine.bi_w == 7.0
    ours, theirs = (predict(one, photo, precision="float32").edges for one in (model, loaded))
    assert ours is not None and theirs is not None and torch.allclose(ours, theirs, atol=1e-5)


def test_a_checkpoint_from_before_refinement_has_the_defaults(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "saved", small_model(), small_config())
    path = tmp_path / "saved" / "config.json"
    document = json.loads(path.read_text())
    del document["refine"], document["model"]["edge_net"]
    path.write_text(json.dumps(document))
    assert scaleseg.load(tmp_path / "saved").refine == RefineConfig()


# the command line


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    checkpoint.save(tmp_path / "edges", edge_model(), small_config(edge_net=True))
    return tmp_path / "edges"


def run(*words: str) -> str:
    result = CliRunner().invoke(app, list(words), catch_exceptions=False, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def test_evaluate_refines_with_the_settings_on_the_line(saved: Path, folder: Path, tmp_path: Path) -> None:
    data = [f"data.val={folder}", "data.dataset=folder"]
    shown = run("evaluate", str(saved), *data, "--refine", "crf", "refine.bi_w=2.5", "--json", str(tmp_path / "m.json"))
    assert "DenseCRF(bi_w=2.5" in shown and "within 3 px of borders" in shown
    assert '"refine": "DenseCRF(bi_w=2.5' in (tmp_path / "m.json").read_text()


def test_predict_saves_learned_edges_as_numbers_and_as_a_picture(saved: Path, folder: Path, tmp_path: Path) -> None:
    image = folder / "images" / "p0.png"
    run(
        "predict",
        str(saved),
        str(image),
        "--out",
        str(tmp_path / "out"),
        "--save",
        "edges",
        "--refine",
        "domain-learned",
    )
    with np.load(tmp_path / "out" / "edges" / "p0.npz") as file:
        edges = file["edges"]
    expected = predict(checkpoint.load(saved), scaleseg.segment(checkpoint.load(saved), image).image).edges
    assert expected is not None and np.allclose(edges, expected[0].numpy(), atol=0.05)  # predict may use bf16
    with Image.open(tmp_path / "out" / "edges" / "p0.png") as picture:
        shade = np.asarray(picture)
    assert shade.shape == edges.shape
    assert shade.flat[edges.argmax()] == 0 and shade.flat[edges.argmin()] == shade.max()


def test_edges_of_a_model_that_learned_none_are_refused_before_any_work(folder: Path, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "plain", small_model(), small_config())
    words = ["predict", str(tmp_path / "plain"), str(folder), "--out", str(tmp_path / "out"), "--save", "edges"]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, UserError) and "--save names edges" in str(result.exception)
    assert not (tmp_path / "out").exists()
