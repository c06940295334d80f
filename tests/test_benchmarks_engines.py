"""`scaleseg benchmark` and benchmarks/engines.py: children that answer, figures that add up, a table that auto reads."""

import json
import os
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch

from conftest import small_config, small_model
from scaleseg import checkpoint
from scaleseg.benchmark import Contender, benchmark, contenders, gflop, peak_memory, photographs, rounds, started
from scaleseg.engines import create_engine
from scaleseg.engines.table import read_table
from scaleseg.errors import UserError
from scaleseg.model import create_model

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
TORCH = (Contender("torch", "float32"),)


@pytest.fixture(scope="module")
def engines() -> ModuleType:
    """benchmarks/engines.py."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return import_module("engines")
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A checkpoint of the tiny model."""
    path = tmp_path / "model"
    checkpoint.save(path, small_model(), small_config())
    return path


def test_what_is_measured_is_what_auto_reads(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scaleseg.benchmark.contenders", lambda: TORCH)
    monkeypatch.setattr("scaleseg.benchmark.PEAK_SHAPES", ((8, 9),))
    report = benchmark(str(saved), size=40, seconds=0.01, cache=tmp_path / "cache")
    (row,) = read_table(checkpoint.load(saved), tmp_path / "cache")
    assert row.images_per_second == report.results[0].images_per_second
    assert report.results[0].images_per_second == pytest.approx(1 / report.results[0].seconds)
    assert report.results[0].rounds >= 3
    said: list[str] = []
    create_engine("auto", checkpoint.load(saved), cache=tmp_path / "cache", say=said.append)
    assert "takes torch, float32: it was measured" in said[0]


def test_a_share_of_the_peak_is_operations_a_second_over_it(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scaleseg.benchmark.contenders", lambda: TORCH)
    monkeypatch.setattr("scaleseg.benchmark.peak_gflops", lambda dtype: 50.0)
    report = benchmark(str(saved), size=40, seconds=0.01, cache=tmp_path / "cache")
    result = report.results[0]
    assert result.peak_share == pytest.approx(report.gflop / result.seconds / 50)
    assert json.loads(json.dumps(report.to_dict()))["results"][0]["engine"] == "torch"


@pytest.mark.parametrize(("size", "seconds"), [(1, 1.0), (33, 0.0), (33, float("nan"))])
def test_no_pixels_or_no_time_is_a_users_mistake(saved: Path, size: int, seconds: float) -> None:
    with pytest.raises(UserError, match="--size"):
        benchmark(str(saved), size=size, seconds=seconds)


def test_a_child_measures_the_miou_that_evaluate_measures(saved: Path, folder: Path, tmp_path: Path) -> None:
    from scaleseg.datasets import open_evaluation
    from scaleseg.evaluation import evaluate
    from scaleseg.recipes import override

    overrides = [f"data.val={folder}"]
    config = override({"data": {"classes": ["ground", "disc", "bar"]}}, overrides)
    expected = evaluate(checkpoint.load(saved), open_evaluation(config.data).dataset).mIoU
    with started(str(saved), TORCH, 33, tmp_path) as (child,):
        assert child.ask({"overrides": overrides, "images": 100}) == pytest.approx(expected, abs=1e-9)


def test_a_childs_mistake_is_told_in_one_sentence(tmp_path: Path) -> None:
    nowhere = started(str(tmp_path / "nowhere"), TORCH, 33, tmp_path)
    with pytest.raises(UserError, match=r"torch, float32: .*nowhere") as raised:
        nowhere.__enter__()
    assert "Traceback" not in str(raised.value)


def test_a_child_that_is_gone_is_told(saved: Path, tmp_path: Path) -> None:
    with started(str(saved), TORCH, 33, tmp_path) as (child,):
        child.process.kill()
        with pytest.raises(UserError, match="its process ended with code -9"):
            child.ask("time")


def test_rounds_ask_everybody_in_turns() -> None:
    heard: list[str] = []
    laps = rounds([lambda: heard.append("a") or 1.0, lambda: heard.append("b") or 2.0], seconds=1e-9)
    assert heard == ["a", "b"] * 3
    assert laps == [[1.0] * 3, [2.0] * 3]


def test_operations_are_those_of_the_convolutions_counted_by_hand() -> None:
    model = create_model("small", num_classes=3, fusion="average", scales=(1.0,), pretrained="none")
    counted = 0.0

    def count(layer: torch.nn.Conv2d, given: tuple[torch.Tensor, ...], maps: torch.Tensor) -> None:
        nonlocal counted
        counted += 2 * layer.weight.numel() * maps.shape[-2] * maps.shape[-1] / 1e9

    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(count)
    model.eval()(torch.zeros(1, 3, 64, 64))
    by_hand = counted  # now: the hooks are copied along, and count on
    assert gflop(model, 64) == pytest.approx(by_hand)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells it without the parent's share")
def test_peak_memory_has_what_was_held_and_let_go() -> None:
    before = peak_memory()
    assert before is not None
    held = bytearray(os.urandom(1)) * (64 << 20)
    del held
    after = peak_memory()
    assert after is not None and after >= before
    assert after >= 64 << 20


def test_photographs_have_the_size_that_is_asked_for() -> None:
    assert {tuple(photo.shape) for photo in photographs(65)} == {(3, 65, 65)}


def test_torch_in_float32_always_takes_part() -> None:
    assert contenders()[0] == Contender("torch", "float32")


def test_plain_lite0_says_what_the_model_says_with_layers_folded(engines: ModuleType) -> None:
    model = checkpoint.load("voc-animals-lite")
    image = photographs(97)[0]
    with torch.inference_mode():
        expected = model(image[None].float() / 255).at()
    torch.testing.assert_close(engines.plain_lite0(model, image), expected, atol=1e-3, rtol=1e-3)


def test_an_earlier_runs_miou_is_kept_for_the_same_question_alone(engines: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "engines.json"
    before = {"overrides": ["a=b"], "images": 12, "torch": "2", "mIoU": {"torch, float32": 0.5}}
    path.write_text(json.dumps(before))
    options = engines._parse(["a=b", "--images", "12", "--json", str(path)])
    assert engines._earlier(options, before) == {"torch, float32": 0.5}
    assert engines._earlier(options, {**before, "images": 13}) == {}


def test_the_benchmark_of_engines_runs_on_torch_alone(
    engines: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "engines.json"
    order = ["--only", "torch", "--skip-vgg", "--size", "33", "--seconds", "0.01", "--cache", tmp_path, "--json", path]
    assert engines.main([str(word) for word in order]) == 0
    rows = json.loads(path.read_text())["bundled"]["rows"]
    assert rows[0]["engine"] == "plain"
    assert {row["engine"] for row in rows[1:]} == {"torch"}
    assert all(row["ratio"] == pytest.approx(row["seconds"] / rows[0]["seconds"]) for row in rows)
    assert "images/s" in capsys.readouterr().out
