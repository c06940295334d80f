"""The benchmarks: that they compare the same network, time the real trainer, count right and write everything down."""

import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from scaleseg.errors import UserError
from scaleseg.images import read, read_labels
from scaleseg.segmentation import predict

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPT = FOLDER / "inference.py"
KEYS = {
    "command", "date", "torch", "threads", "cpu", "size", "scales", "pretrained", "image", "precision", "runs",
    "seconds", "medians", "ratio", "plain_gflops", "peak_fp32_gflops", "peak_bf16_gflops", "max_abs_difference",
    "label_agreement", "parts_seconds",
}  # fmt: skip


def script(name: str) -> ModuleType:
    """A benchmark as a module, its peak measured on a tiny convolution; scripts find each other as when they are run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        importlib.import_module("machine").PEAK_SHAPES = ((8, 9),)
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def inference() -> ModuleType:
    return script("inference")


@pytest.fixture(scope="module")
def training() -> ModuleType:
    return script("training")


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


@pytest.fixture(scope="module")
def trained(training: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A report of two timed and two profiled steps of lite0, as small as they can be."""
    path = tmp_path_factory.mktemp("benchmark") / "training.json"
    small = ["--only=lite0", "--steps=2", "--profiled=2", "--batch=2", "--crop=64", "--workers=0", "--threads=1"]
    assert training.main([*small, "--json", str(path)]) == 0
    return dict(json.loads(path.read_text(encoding="utf-8"))["systems"]["lite0"])


def test_the_parts_of_a_step_are_all_of_it(training, trained):
    assert list(trained["percent"]) == list(training.GROUPS)
    assert sum(trained["percent"].values()) == pytest.approx(100)


def test_most_of_a_step_is_convolution(trained):
    assert trained["percent"]["convolution, forward"] + trained["percent"]["convolution, backward"] > 30


@pytest.mark.parametrize("part", ["attention head", "batch norm folding", "optimiser", "cross entropy", "resizing"])
def test_the_profiler_finds_the_part(trained, part):
    assert trained["percent"][part] > 0


def test_as_many_steps_are_timed_as_asked_for(trained):
    assert len(trained["seconds"]) == 2 and min(trained["seconds"]) > 0


def test_images_a_second_are_the_batch_over_the_median_step(trained):
    assert trained["images_per_s"] == pytest.approx(2 / trained["seconds_a_step"])


def test_timing_leaves_the_trainer_as_it_was(training, trained):
    assert training.loop.batches.__module__ == training.loop.Trainer.__module__.replace("loop", "loading")
    assert isinstance(training.loop.Trainer, type)


@pytest.mark.parametrize("groups", [1, 8])
def test_backward_is_counted_as_twice_the_forward(training, groups):
    layer = torch.nn.Conv2d(8, 8, 3, padding=1, groups=groups)
    maps = torch.randn(2, 8, 5, 7, requires_grad=True)
    forward = 2 * 2 * 8 * (8 // groups) * 9 * 35
    assert training.count_flops(lambda: layer(maps).sum().backward()) == 3 * forward


def test_the_photographs_are_jpeg_of_voc_s_size_with_masks_of_its_ids(training, tmp_path):
    training.write_photographs(tmp_path, count=2)
    photo, mask = tmp_path / "images" / "001.jpg", read_labels(tmp_path / "masks" / "001.png")
    assert photo.read_bytes().startswith(b"\xff\xd8")  # JPEG's first bytes
    assert read(photo).shape == (3, *mask.shape) == (3, 375, 500)
    assert set(np.unique(mask)) <= {*range(21), 255}


def test_no_steps_to_time_are_refused(training, capsys):
    with pytest.raises(SystemExit):
        training.main(["--steps", "0"])
    assert "--steps is 0" in capsys.readouterr().err


@pytest.fixture(scope="module")
def learning() -> ModuleType:
    return script("learning")


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine photographs of 170 x 190, the right half of each an object; two more whose middle is all ground."""
    root = tmp_path_factory.mktemp("halves")
    for part in ("images", "masks"):
        (root / part).mkdir()
    for index in range(11):
        ids = np.zeros((170, 190), np.uint8)
        ids[:, 95:] = 0 if index < 2 else 1 + index % 2
        colours = np.array([(40, 90, 40), (200, 60, 60), (60, 60, 200)], np.uint8)
        Image.fromarray(colours[ids]).save(root / "images" / f"{index:02}.png")
        Image.fromarray(ids).save(root / "masks" / f"{index:02}.png")
    return root


@pytest.fixture(scope="module")
def learned(learning: ModuleType, halves: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """How `small` was told to learn, and where that was written."""
    path = tmp_path_factory.mktemp("learning") / "learning.json"
    command = ["small", "--data", str(halves), "--steps", "20", "--json", str(path)]
    assert learning.main(command) == 0
    return command, path


def written(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def test_the_photographs_to_learn_are_the_first_with_something_to_tell_apart(learning, halves):
    names, pairs = learning.photographs(str(halves))
    assert names == [f"{index:02}" for index in range(2, 10)]
    assert {(tuple(image.shape), tuple(labels.shape)) for image, labels in pairs} == {((3, 161, 161), (161, 161))}


def test_a_photograph_to_learn_is_the_middle_of_its_file(learning, halves):
    _, pairs = learning.photographs(str(halves))
    whole = read_labels(halves / "masks" / "02.png")
    assert np.array_equal(pairs[0][1].numpy(), whole[4:165, 14:175])


def test_too_few_photographs_are_refused(learning, halves, capsys):
    assert learning.main(["small", "--data", str(halves / "nowhere")]) == 1
    with pytest.raises(UserError, match="has 9 photographs with a middle that is 20 to 80 % object; 10 are needed"):
        learning.photographs(str(halves), count=10)


def test_the_constant_loss_is_the_cross_entropy_of_the_frequencies(learning):
    labels = torch.randint(0, 4, (12, 9), generator=torch.Generator().manual_seed(1))
    labels[0] = 255
    counts = labels[labels < 255].bincount()
    scores = (counts / counts.sum()).log().expand(*labels.shape, -1).permute(2, 0, 1)
    expected = torch.nn.functional.cross_entropy(scores[None], labels[None], ignore_index=255)
    assert learning.constant_loss([(torch.zeros(3, 12, 9), labels)]) == pytest.approx(expected.item(), rel=1e-5)


def test_what_learned_is_written_with_what_it_needs_to_be_repeated(learned):
    result = written(learned[1])["segmenters"]["small"]
    assert result["learns"] and result["after"] < result["before"] / 2
    assert {"torch", "cpu", "threads", "parameters", "start", "optimizer", "lr", "seconds"} <= result.keys()


def test_the_report_of_learning_names_no_folder(learned, halves):
    text = learned[1].read_text(encoding="utf-8")
    assert str(halves.parent) not in text and str(learned[1].parent) not in text


def test_what_was_measured_is_not_measured_again(learning, learned):
    command, path = learned
    before = written(path)["segmenters"]
    assert learning.main(command) == 0
    assert written(path)["segmenters"] == before


def test_the_same_seed_learns_the_same(learning, learned):
    command, path = learned
    before = written(path)["segmenters"]["small"]
    assert learning.main([*command, "--again"]) == 0
    again = written(path)["segmenters"]["small"]
    assert [again[name] for name in ("before", "after", "highest")] == [
        before[name] for name in ("before", "after", "highest")
    ]
    assert again["seconds"] != before["seconds"]


def test_another_task_does_not_mix_with_this_one(learning, learned, capsys):
    command, _ = learned
    assert learning.main([*command, "--seed", "1"]) == 1
    assert "holds another task" in capsys.readouterr().err


def test_a_network_that_does_not_learn_is_said_to(learning, halves, tmp_path, capsys):
    path = tmp_path / "learning.json"
    assert learning.main(["small", "--data", str(halves), "--steps", "1", "--json", str(path)]) == 1
    assert not written(path)["segmenters"]["small"]["learns"]
    assert "DOES NOT LEARN" in capsys.readouterr().out


def test_every_recipe_of_learning_is_a_segmenter_s(learning):
    assert {recipe.segmenter or name for name, recipe in learning.RECIPES.items()} == set(learning.list_segmenters())


def test_a_segmenter_that_is_not_there_is_named(learning, halves, capsys):
    assert learning.main(["smal", "--data", str(halves)]) == 1
    assert "network is 'smal'; did you mean 'small'" in capsys.readouterr().err


def test_refinement_is_compared_with_its_oracles(tmp_path):
    path = tmp_path / "refine.json"
    assert script("refine").main(["--rounds", "1", "--json", str(path)]) == 0
    report = written(path)
    assert report["dt_ratio"] > 0
    assert report["dt_filter_ratio"] > 0
    assert report["dt_label_agreement"] > 0.999
    assert report.get("crf_label_agreement", 1) > 0.995


def test_refinement_is_timed_on_a_device():
    times = script("refine").clocked(torch.device("cpu"), 1)
    assert times["crf_cpu_ms"] > 0
    assert times["dt_cpu_ms"] > 0


def test_refinement_on_a_gpu_that_is_not_there_is_refused_in_one_line(capsys):
    assert script("refine").main(["--device", "cuda:99"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
