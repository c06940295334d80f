"""benchmarks/expected_hours.py: arithmetic is counted forward and backward, and the K40's speed is what the paper's hours say."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from scaleseg.recipes import load_recipe

ROOT = Path(__file__).parents[1]
TINY = ("model.segmenter=small", "model.options={width: 4, num_features: 8}", "model.attention_width=8", "data.crop=33")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    yield importlib.import_module("expected_hours")


def test_more_scales_and_an_attention_head_are_more_arithmetic_but_a_loss_more_is_none(script: ModuleType) -> None:
    kinds = (
        ("voc-baseline",), ("voc-average",), ("voc-attention",), ("voc-attention", "train.extra_supervision=false"),
    )  # fmt: skip
    counts = [script.gflop_a_crop(load_recipe(name, [*TINY, *extra])) for name, *extra in kinds]
    assert counts[0] < counts[1] < counts[2] == counts[3]


def test_what_is_frozen_has_no_backward(script: ModuleType) -> None:
    whole, part = (
        script.gflop_a_crop(load_recipe("voc-baseline", [*TINY, *extra])) for extra in ((), ("train.freeze=[trunk]",))
    )
    assert part < whole


def test_the_k40_takes_the_papers_hours(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "gflop_a_crop", lambda config: 100.0 * len(config.model.scales))
    training = {"cpu": "a", "threads": 2, "systems": {"largefov": {"precision": "bf16", "gflops": 500.0}}}
    found = script.expected(training)
    seconds = 1000 * found["runs"]["attention-3-es"]["pflop"] / found["tflops"]["Tesla K40"]
    assert seconds == pytest.approx(21 * 3600)
    assert found["runs"]["attention-3-es"]["pflop"] == pytest.approx(300 * 30 * 6000 / 1e6)
    assert found["tflops"]["here"] == 0.5
    assert len(found["runs"]) == 14
