"""benchmarks/skipping.py: its figures are the library's own, and objects are counted by their size."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import small_config, small_model
from scaleseg import checkpoint
from scaleseg.config import to_dict
from scaleseg.datasets import open_evaluation
from scaleseg.evaluation import evaluate
from scaleseg.recipes import override

pytest.importorskip("scipy")
BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def skipping(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    sys.modules.pop("skipping", None)
    import skipping

    return skipping


def test_thresholds_are_measured_beside_the_plain_engine(skipping, folder: Path, tmp_path: Path) -> None:
    saved = tmp_path / "model"
    checkpoint.save(saved, small_model(), small_config())
    out = tmp_path / "s.json"
    words = [str(saved), f"data.val={folder}", "data.dataset=folder", "--thresholds", "0", "1.5", "--json", str(out)]
    assert skipping.main(words) == 0
    report = json.loads(out.read_text())
    none, all_but_one = report["skipping"]
    config = override(to_dict(small_config()), [f"data.val={folder}"])
    expected = evaluate(checkpoint.load(saved), open_evaluation(config.data).dataset).mIoU
    assert report["plain"]["mIoU"] == none["mIoU"] == expected and report["photographs"] == 6
    assert none["computed"] == {"1": 1.0, "0.5": 1.0} and none["arithmetic"] == 1.0
    assert all_but_one["computed"] == {"1": 0.0, "0.5": 1.0} and all_but_one["arithmetic"] == 5.0


def test_objects_are_connected_components_by_their_share(skipping) -> None:
    truth = np.zeros((10, 10), np.int64)
    truth[0, 0] = 1
    truth[5:, :] = 2
    truth[2, 2], truth[3, 3] = 1, 1  # touch at a corner: one object
    truth[0, 9] = 255
    found = sorted((size, int(mask.sum())) for size, mask in skipping._objects(truth))
    assert found == [("1 to 5 %", 1), ("1 to 5 %", 2), ("above 40 %", 50)]
