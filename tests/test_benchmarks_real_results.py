"""benchmarks/real_results.py: cells are trained, measured and compared once, a second call does nothing, JSON stays small."""

import importlib
import json
import os
import signal
import sys
import threading
import time
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
    monkeypatch.setattr(script, "_run", in_process)  # starting PyTorch takes seconds
    words = [str(data), *TINY, "--out", str(tmp_path / "runs"), "--to", str(tmp_path / "to"), "--steps", "2"]
    script.main([*words, "--device", "cpu"])
    said = capfd.readouterr().out
    assert [said.count(f"+ scaleseg {verb}") for verb in ("ablate", "evaluate")] == [2, 2]
    document = json.loads((tmp_path / "to" / "attention-3-es.json").read_text())
    assert document["training"]["steps"] == 2
    assert document["val"]["analysis"]["mIoU"]["value"] == pytest.approx(document["val"]["mIoU"])
    assert "images" not in document["val"]["analysis"]
    differences = json.loads((tmp_path / "to" / "differences.json").read_text())
    assert [(one["of"], one["less"]) for one in differences] == [("attention-3-es", "baseline")]
    script.main([*words, "--device", "cpu"])
    assert capfd.readouterr().out.count("+ scaleseg evaluate") == 0
    assert json.loads((tmp_path / "to" / "attention-3-es.json").read_text()) == document
    assert str(tmp_path) not in (tmp_path / "to" / "attention-3-es.json").read_text()
    with pytest.raises(SystemExit, match=r"plan\.json says 2 steps, --steps 3; choose another --out"):
        script.main([*words[:-1], "3"])
    with pytest.raises(SystemExit, match="no such cell; there are baseline, attention-3-es"):
        script.main([*words, "--only", "attention"])


def test_a_curve_is_the_mean_of_the_steps_before_each_point(script: ModuleType) -> None:
    lines = [{"step": step, "loss_fused": float(step)} for step in range(10, 101, 10)] + [{"step": 100, "dev": {}}]
    assert script.curve(lines) == [[50, 30.0], [100, 80.0]]


@pytest.mark.parametrize("network", ["lite0", "largefov"])
def test_the_settings_of_each_network_are_settings(script: ModuleType, network: str) -> None:
    config = load_recipe("voc-animals-attention", script.NETWORKS[network])
    assert config.train.schedule == "poly"


def test_cells_cost_what_their_arithmetic_is(script: ModuleType) -> None:
    costs = [script._cost(script.Cell(name)) for name in ("msc", "baseline", "attention-2", "max-3-es", "attention-3")]
    assert costs == sorted(costs)
    assert costs[3] == pytest.approx(1 + 0.75**2 + 0.5**2, rel=0.02)


def test_what_does_not_fit_in_the_minutes_is_left_out_from_the_end(script: ModuleType) -> None:
    assert script._fitting([1, 2, 2], 3000, 0.5, 10) == (1140, 3)
    assert script._fitting([1, 2, 2], 1000, 0.5, 10) == (606, 2)
    assert script._fitting([1, 2, 2], 800, 0.5, 10) == (1540, 1)
    with pytest.raises(SystemExit, match=r"too little for one cell of 500 steps of 0\.50 s"):
        script._fitting([1, 2, 2], 200, 0.5, 10)


def test_cells_of_another_network_are_left_out(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "TABLES", {"voc-animals": ("data", script.GROUPS)})
    names = {
        network: {c.label for g in script._groups("voc-animals", network) for c in g} for network in script.NETWORKS
    }
    assert names["largefov"] - names["lite0"] == {"msc"}
    assert names["lite0"] - names["largefov"] == {
        f"{name}-rate" for name in ("baseline", "attention-3", "average-3", "max-3")
    }


def test_a_signal_is_handed_on_once(script: ModuleType, tmp_path: Path) -> None:
    program = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.2), sys.exit(7)))\n"
        f"open({str(tmp_path / 'ready')!r}, 'w').close()\ntime.sleep(30)\n"
    )
    threading.Thread(target=terminate_when, args=(tmp_path / "ready",)).start()
    assert script._run([sys.executable, "-c", program]) == 7
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def terminate_when(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ("one", "other", "asked"),
    [
        ("max-2", "baseline", True), ("baseline", "max-2", False), ("attention-3", "max-3", True), ("max-3", "average-3", False),
        ("max-3-es", "max-3", True), ("max-3", "max-3-es", False), ("average-3", "average-2", True),
        ("average-2", "average-3", False), ("attention-3-es", "max-3", False), ("max-3-es", "max-2", False),
        ("baseline", "baseline", False),
    ],
)  # fmt: skip
def test_cells_are_compared_that_differ_in_one_thing(script: ModuleType, one: str, other: str, asked: bool) -> None:
    assert script._is_asked(script.Cell(one), script.Cell(other)) is asked
    assert not script._is_asked(script.Cell(one), script.Cell(other, seed=1))


def test_each_cell_is_compared_with_the_baseline_at_its_own_rate_too(script: ModuleType) -> None:
    plain, own = script.Cell("baseline"), script.Cell("baseline", extra=script.RATE, suffix="-rate")
    assert [script._is_asked(script.Cell("max-2"), one) for one in (plain, own)] == [True, True]
    assert (script._is_asked(own, plain), script._is_asked(plain, own)) == (True, False)


def test_a_loss_on_every_scale_is_compared_with_one_loss_at_its_own_rate(script: ModuleType) -> None:
    own = script.Cell("max-3", extra=script.RATE, suffix="-rate")
    others = [script.Cell(name) for name in ("max-3-es", "max-3", "attention-3-es", "max-2")]
    assert [script._is_asked(one, own) for one in others] == [True, False, False, False]
    assert [script._is_asked(own, one) for one in others] == [False, True, False, False]


def test_the_plus_is_compared_with_the_same_without_and_the_baseline(script: ModuleType) -> None:
    plus = script.Cell("attention-3-es", extra=script.PLUS, suffix="-plus")
    others = [script.Cell(name) for name in ("attention-3-es", "baseline", "max-3-es")]
    assert [script._is_asked(plus, other) for other in others] == [True, True, False]
    assert not any(script._is_asked(other, plus) for other in others)


@pytest.mark.parametrize("network", ["lite0", "largefov"])
def test_camvid_is_trained_by_settings_of_its_own(script: ModuleType, network: str, tmp_path: Path) -> None:
    asked = script._asked(["camvid.zip", "--table", "camvid", "--network", network, "--out", str(tmp_path / "o")])
    config = load_recipe("camvid-attention", script._settings(asked))
    assert config.train.optimizer == ("adamw" if network == "lite0" else "sgd")


def test_settings_may_stand_behind_options(script: ModuleType, tmp_path: Path) -> None:
    asked = script._asked(["data.yaml", "--out", str(tmp_path / "o"), "train.seed=3", "--steps", "9", "train.ema=0.9"])
    assert (asked.overrides, asked.steps, script._plan(asked)[1]) == (["train.seed=3", "train.ema=0.9"], 9, 9)
