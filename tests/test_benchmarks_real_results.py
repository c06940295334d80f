"""benchmarks/real_results.py: cells are trained, measured and compared once, a second call does nothing, JSON stays small."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from conftest import CLASSES, write_folder
from scaleseg import cli
from scaleseg.recipes import load_recipe

ROOT = Path(__file__).parents[1]
TINY = (
    "model.segmenter=small", "model.pretrained=none", "model.options={width: 4, num_features: 8}", "model.attention_width=8",
    "train.batch=2", "data.crop=33", "data.workers=0", f"data.classes=[{','.join(CLASSES)}]",
)  # fmt: skip


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    module = importlib.import_module("real_results")
    cells = tuple(map(module.Cell, ("baseline", "attention-3-es")))
    monkeypatch.setattr(module, "TABLES", {"voc-animals": ("data", (cells,)), "camvid": ("data.root", (cells,))})
    yield module


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data.yaml of six photographs, which are both splits."""
    write_folder(tmp_path / "six")
    path = tmp_path / "data.yaml"
    path.write_text("dataset: folder\ntrain: six\nval: six\ndev: 0.2\nlabel_map: {0: 0, 1: 1, 2: 2, 255: 255}\n")
    return path


def in_process(command: list[str]) -> int:
    """What a process of its own would do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", command[2:])
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0)
    return 0


@pytest.mark.slow
def test_what_is_done_is_collected_and_not_done_again(
    script: ModuleType, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script.subprocess, "call", in_process)  # starting PyTorch takes seconds
    words = [str(data), *TINY, "--out", str(tmp_path / "runs"), "--to", str(tmp_path / "to"), "--steps", "2"]
    script.main([*words, "--device", "cpu"])
    said = capfd.readouterr().out
    assert [said.count(f"+ scaleseg {verb}") for verb in ("ablate", "evaluate", "compare")] == [1, 2, 1]
    document = json.loads((tmp_path / "to" / "attention-3-es.json").read_text())
    assert document["training"]["steps"] == 2
    assert document["val"]["analysis"]["mIoU"]["value"] == pytest.approx(document["val"]["mIoU"])
    assert "images" not in document["val"]["analysis"]
    differences = json.loads((tmp_path / "to" / "differences.json").read_text())
    assert [(one["of"], one["less"]) for one in differences] == [("attention-3-es", "baseline")]
    script.main([*words, "--device", "cpu"])
    assert [capfd.readouterr().out.count(f"+ scaleseg {verb}") for verb in ("evaluate", "compare")] == [0, 0]


def test_a_curve_is_the_mean_of_the_steps_before_each_point(script: ModuleType) -> None:
    lines = [{"step": step, "loss_fused": float(step)} for step in range(10, 101, 10)] + [{"step": 100, "dev": {}}]
    assert script._curve(lines) == [[50, 30.0], [100, 80.0]]


@pytest.mark.parametrize("network", ["lite0", "largefov"])
def test_the_settings_of_each_network_are_settings(script: ModuleType, network: str) -> None:
    config = load_recipe("voc-animals-attention", script.NETWORKS[network])
    assert config.train.schedule == "poly"


def test_cells_that_need_more_pixels_cost_more(script: ModuleType) -> None:
    costs = [script._cost(script.Cell(name)) for name in ("baseline", "attention-2", "max-3-es")]
    assert costs == sorted(costs)
    assert costs[2] == 1 + 0.75**2 + 0.5**2


@pytest.mark.parametrize(
    ("one", "other", "asked"),
    [
        ("max-2", "baseline", True), ("baseline", "max-2", False), ("attention-3", "max-3", True), ("max-3", "average-3", False),
        ("max-3-es", "max-3", True), ("max-3", "max-3-es", False), ("average-3", "average-2", True),
        ("average-2", "average-3", False), ("attention-3-es", "max-3", False), ("max-3-es", "max-2", False),
    ],
)  # fmt: skip
def test_cells_are_compared_that_differ_in_one_thing(script: ModuleType, one: str, other: str, asked: bool) -> None:
    assert script._is_asked(script.Cell(one), script.Cell(other)) is asked
    assert not script._is_asked(script.Cell(one), script.Cell(other, seed=1))


def test_the_plus_is_compared_with_the_same_without_and_the_baseline(script: ModuleType) -> None:
    plus = script.Cell("attention-3-es", extra=script.PLUS, suffix="-plus")
    others = [script.Cell(name) for name in ("attention-3-es", "baseline", "max-3-es")]
    assert [script._is_asked(plus, other) for other in others] == [True, True, False]
    assert not any(script._is_asked(other, plus) for other in others)


@pytest.mark.parametrize("network", ["lite0", "largefov"])
def test_camvid_is_trained_by_settings_of_its_own(script: ModuleType, network: str, tmp_path: Path) -> None:
    asked = script._asked(
        ["camvid.zip", "--table", "camvid", "--network", network, "--out", str(tmp_path / "o"), "--steps", "9"]
    )
    config = load_recipe("camvid-attention", script._settings(asked))
    assert (config.train.optimizer, config.train.steps) == ("adamw" if network == "lite0" else "sgd", 9)
