"""benchmarks/development.py: checkpoints are measured on the photographs held back, each once."""

import importlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from conftest import small_config, small_model
from scaleseg import checkpoint

ROOT = Path(__file__).parents[1]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    yield importlib.import_module("development")


@pytest.fixture
def data(folder: Path) -> Path:
    """A data.yaml of six photographs, of which two are held back."""
    (folder.parent / "dev.txt").write_text("p1\np4\n")
    path = folder.parent / "data.yaml"
    path.write_text(f"dataset: folder\ntrain: {folder.name}\nval: {folder.name}\ndev: dev.txt\n")
    return path


def test_each_step_is_measured_once_on_what_is_held_back(
    script: ModuleType, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path / "model", small_model(), small_config())
    step, other = (f"{name}: {tmp_path / 'model'} {{}}" for name in ("merged by attention", "merged by average"))
    words = [str(data), "--json", str(tmp_path / "steps.json"), "--device", "cpu"]
    script.main([*words, step.format("")])
    script.main([*words, step.format(""), other.format("'model.fusion=average'")])
    found = json.loads((tmp_path / "steps.json").read_text())
    assert [one["step"] for one in found] == ["merged by attention", "merged by average"]
    assert [one["images"] for one in found] == [2, 2]
    assert found[0]["per_scale"] == found[1]["per_scale"]
    assert found[0]["mIoU"] != found[1]["mIoU"]
    assert "settings" not in found[0]  # no run's folder
    monkeypatch.setattr(script, "measure", None)  # nothing is measured any more
    script.main([*words, other.format("'model.fusion=average'"), step.format("")])
    assert json.loads((tmp_path / "steps.json").read_text()) == found[::-1]


def test_of_a_run_its_settings_and_curve_are_kept_and_no_folders(
    script: ModuleType, data: Path, folder: Path, tmp_path: Path
) -> None:
    config = small_config()
    config = replace(config, data=replace(config.data, train=(str(folder),), dev=0.5))
    checkpoint.save(tmp_path / "run" / "last", small_model(), config)
    lines = [{"step": step, "loss_fused": step / 100, "images_per_s": step / 10} for step in range(10, 110, 10)]
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = [str(data), "--json", str(tmp_path / "steps.json"), "--device", "cpu"]
    script.main([*words, f"a step: {tmp_path / 'run' / 'last'}"])
    text = (tmp_path / "steps.json").read_text()
    (kept,) = json.loads(text)
    assert (kept["curve"], kept["images_per_s"]) == ([[50, 0.3], [100, 0.8]], 5.5)
    assert (kept["settings"]["train"]["steps"], kept["settings"]["data"]["dev"]) == (config.train.steps, 0.5)
    assert str(tmp_path) not in text


def test_a_bundled_models_name_is_no_folder_with_a_log(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("{}")
    assert script.training(Path("voc-animals-lite")) == {}


def test_without_a_development_split_there_is_nothing_to_choose_on(
    script: ModuleType, data: Path, tmp_path: Path
) -> None:
    checkpoint.save(tmp_path / "model", small_model(), small_config())
    data.write_text(data.read_text().replace("dev.txt", "0"))
    with pytest.raises(SystemExit, match="no development split"):
        script.measure(data, str(tmp_path / "model"), [], "cpu")
