"""benchmarks/micro_batches.py: rows for a loop, for batches and for the server, with figures that can be compared."""

import json
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from conftest import small_config, small_model
from scaleseg import checkpoint

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def micro_batches() -> ModuleType:
    """benchmarks/micro_batches.py."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return import_module("micro_batches")
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_each_way_of_working_has_its_images_a_second(micro_batches: ModuleType, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "model", small_model(), small_config())
    options = ["--model", str(tmp_path / "model"), "--batches", "1", "2", "--size", "33", "--clients", "2"]
    assert micro_batches.main([*options, "--seconds", "0.05", "--json", str(tmp_path / "b.json")]) == 0
    rows = json.loads((tmp_path / "b.json").read_text())["rows"]
    assert [(row["what"], row["batch"]) for row in rows] == [
        ("loop", 1), ("batch", 1), ("batch", 2), ("server", 1), ("server", 2),
    ]  # fmt: skip
    assert all(row["images_per_second"] > 0 for row in rows)


def test_a_model_that_is_not_there_is_told(micro_batches: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert micro_batches.main(["--model", "./nothing"]) == 1
    assert "nothing" in capsys.readouterr().err
