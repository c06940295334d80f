"""The inference benchmark: that it compares the same network, counts right and writes everything down."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from scaleseg.segmentation import predict

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "inference.py"
KEYS = {
    "command", "date", "torch", "threads", "cpu", "size", "scales", "pretrained", "image", "precision", "runs",
    "seconds", "medians", "ratio", "plain_gflops", "peak_fp32_gflops", "peak_bf16_gflops", "max_abs_difference",
    "label_agreement", "parts_seconds",
}  # fmt: skip


@pytest.fixture(scope="module")
def inference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_inference", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.PEAK_SHAPES = ((8, 9),)
    return module


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.randint(0, 256, (3, 65, 65), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def model(inference: ModuleType, image: torch.Tensor) -> Any:
    return inference.prepare("none")


@pytest.fixture(scope="module")
def report(inference: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("benchmark") / "inference.json"
    assert inference.main(["--size", "65", "--runs", "2", "--threads", "1", "--json", str(path)]) == 0
    return dict(json.loads(path.read_text(encoding="utf-8")))


def test_the_plain_network_is_ours_in_float32(inference, model, image):
    with torch.inference_mode():
        plain = inference.plain_share_net(inference.plain_parameters(model), image)
    ours = predict(model, image, precision="float32").at()
    assert (ours - plain).abs().max() < 1e-4 * plain.abs().max()


def test_the_compared_network_attends_to_scales_unequally(model, image):
    weights = predict(model, image, precision="float32").scale_weights
    assert (weights - 1 / 3).abs().max() > 0.1


def test_the_compared_network_gives_more_than_one_label(model, image):
    assert len(predict(model, image, precision="float32").at().argmax(dim=1).unique()) > 1


def test_the_plain_parameters_are_contiguous_copies(inference, model):
    own = model.state_dict()
    plain = inference.plain_parameters(model)
    assert all(tensor.is_contiguous() and tensor.data_ptr() != own[name].data_ptr() for name, tensor in plain.items())


def test_a_convolution_counts_two_operations_a_multiply_add(inference):
    layer, maps = torch.nn.Conv2d(8, 12, 3, padding=1, device="meta"), torch.empty(1, 8, 10, 7, device="meta")
    assert inference.flops(lambda: layer(maps)) == 2 * 8 * 12 * 3 * 3 * 10 * 7


def test_the_plain_forward_counts_each_convolution_of_each_scale(inference, model, image):
    parameters = inference.plain_parameters(model)
    expected = 0
    for side in (65, 49, 33):
        for name, weight in parameters.items():
            if name.startswith("segmenter.") and name.endswith(".weight"):
                stage = int(name[20]) if "trunk" in name else 4  # segmenter.trunk.conv3_1.weight
                cells = (side - 1) // 2 ** min(stage - 1, 3) + 1
                expected += 2 * weight.numel() * cells**2
    head = parameters["fusion.hidden.weight"].numel() + parameters["fusion.logits.weight"].numel()
    expected += 2 * head * 9**2
    assert inference.flops(lambda: inference.plain_share_net(parameters, image)) == expected


def test_labels_agree_where_the_highest_score_is_of_the_same_class(inference):
    ours = torch.tensor([[1.0, 0.0, 2.0, 0.0], [0.0, 1.0, 0.0, 3.0]]).view(1, 2, 2, 2)
    plain = torch.tensor([[1.0, 0.0, 2.0, 3.5], [0.5, 1.0, 0.0, 3.0]]).view(1, 2, 2, 2)
    assert inference.compare(ours, plain) == (3.5, 0.75)


def test_the_report_holds_every_figure(report):
    assert report.keys() >= KEYS


def test_the_ratio_is_of_the_medians_of_all_runs(report):
    plain, ours = (sum(report["seconds"][name]) / 2 for name in ("plain", "ours"))
    assert report["ratio"] == pytest.approx(ours / plain)


def test_the_rate_is_the_arithmetic_over_the_median_time(report):
    assert report["plain_gflops"] == pytest.approx(report["plain_gflop"] / report["medians"]["plain"])


def test_the_parts_are_the_scales_the_head_and_the_rest(report):
    assert list(report["parts_seconds"]) == ["scale 1", "scale 0.75", "scale 0.5", "attention head", "rest"]


def test_the_threads_are_those_asked_for(report):
    assert report["threads"] == 1


def test_timing_the_parts_leaves_the_model_as_it_was(inference, model, image):
    inference.parts_seconds(model, image)
    assert "forward" not in vars(model.segmenter) and not {"embed", "weights"} & vars(model.fusion).keys()


def test_a_size_off_the_papers_grid_is_refused(inference, capsys):
    with pytest.raises(SystemExit):
        inference.main(["--size", "64"])
    assert "32k+1" in capsys.readouterr().err


def test_a_missing_file_of_parameters_is_one_sentence(inference, capsys):
    assert inference.main(["--size", "33", "--pretrained", "nowhere.safetensors"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_the_script_explains_itself():
    done = subprocess.run([sys.executable, str(SCRIPT), "--help"], capture_output=True, text=True, check=True)
    assert "--json FILE" in done.stdout
