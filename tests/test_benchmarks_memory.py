"""benchmarks/memory.py: what it measures is there, and everything is written down. Sizes are tiny, and nothing is a child."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import small_model
from scaleseg.errors import UserError

FOLDER = Path(__file__).parents[1] / "benchmarks"

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the peak of a process is read on Linux"
)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module; its cases run in this process, on a tiny model."""
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location("benchmark_memory", FOLDER / "memory.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "_child", lambda kind, case, **_: module.CASES[kind](**case))
    monkeypatch.setattr(module.scaleseg, "load", lambda _: small_model())
    return module


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for index, colour in enumerate(((200, 0, 0), (0, 200, 0))):
        Image.new("RGB", (30, 20), colour).save(folder / f"{index}.png")
    return folder


def test_a_mosaic_is_full_of_photographs_in_turn(memory: ModuleType, photographs: Path) -> None:
    picture = memory.mosaic((40, 150), 0.1, str(photographs)).numpy()
    assert [tuple(picture[:, 20, column]) for column in (10, 60, 110)] == [(200, 0, 0), (0, 200, 0), (200, 0, 0)]
    assert np.all(picture.sum(axis=0) == 200)


def test_every_number_is_written_down(memory: ModuleType, photographs: Path, tmp_path: Path) -> None:
    given = [
        "--segmenters",
        "small",
        "--sizes",
        "65",
        "--large",
        "700",
        "40",
        "--whole",
        "1200",
        "40",
        "--side",
        "1089",
    ]
    small = ["--images", str(photographs), "--zoom", "0.1", "--halos", "64", "--json", str(tmp_path / "memory.json")]
    assert memory.main([*given, *small]) == 0
    report: dict[str, Any] = json.loads((tmp_path / "memory.json").read_text())
    assert {"one", "three", "ratio", "glibc_default"} == report["scales"][0].keys()
    assert report["large"]["bytes"] > 10**7
    assert report["agreement"]["halos"].keys() == {"64", str(report["agreement"]["halo"])}
    assert 0 < report["agreement"]["halos"]["64"]["same_labels"] <= 1


def test_a_meter_sees_what_was_taken_and_given_back(memory: ModuleType) -> None:
    meter = memory.Meter(small_model())
    taken = torch.ones(100_000_000, dtype=torch.uint8)
    del taken
    assert 95_000_000 < meter.above() < 130_000_000


def test_a_case_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location("benchmark_memory", FOLDER / "memory.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(UserError, match="no reason given"):
        module._child("scales", {})
    assert module.main(["--parts", "scales"]) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
