"""On a CUDA device: the same answers as on the CPU, as far as rounding allows, and clear words where memory ends."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from conftest import CLASSES, draw_pair, small_config, small_model
from scaleseg.config import Config, merge, to_dict
from scaleseg.datasets.folder import Folder
from scaleseg.devices import choose_device, choose_precision, describe, explained, has_bf16, place
from scaleseg.errors import UserError
from scaleseg.evaluation import evaluate
from scaleseg.segmentation import predict, segment
from scaleseg.training import train

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CUDA = torch.device("cuda", 0)
PHOTO = torch.from_numpy(draw_pair(0)[0].repeat(8, 0).repeat(8, 1)).permute(2, 0, 1).contiguous()
"""(3, 160, 248)"""


@pytest.fixture
def little_memory() -> Iterator[None]:
    """PyTorch may take no more than 256 MiB of the GPU, so that out of memory is real and quick."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(CUDA).total_memory
    torch.cuda.set_per_process_memory_fraction(2**28 / total, CUDA)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0, CUDA)
    torch.cuda.empty_cache()


def settings(folder: Path, steps: int) -> Config:
    """A short float32 run of the tiny model without dropout, whose random numbers differ between devices."""
    config = small_config(attention_dropout=0.0)
    data = {"train": str(folder), "classes": list(CLASSES), "dev": 0, "crop": 33, "workers": 0}
    training = {"steps": steps, "batch": 2, "lr": 0.01, "schedule": "constant", "log_every": 1, "precision": "float32"}
    return merge(to_dict(config), {"data": data, "train": training})


def losses(run: Path) -> list[float]:
    """The loss of each step, as the run wrote it."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "loss" in record]


def test_auto_takes_cuda_and_names_it() -> None:
    assert choose_device("auto").type == "cuda"
    assert torch.cuda.get_device_name(CUDA) in describe(CUDA)


def test_a_number_beyond_the_last_device_is_refused_with_how_many_there_are() -> None:
    count = torch.cuda.device_count()
    with pytest.raises(UserError, match=rf"'cuda:{count}'; this machine has {count} cuda device"):
        choose_device(f"cuda:{count}")


@pytest.mark.parametrize("fusion", ["average", "max", "attention"])
def test_float32_scores_are_those_of_the_cpu(fusion: str) -> None:
    """Closer than TF32 would be, which rounds every factor to 11 bits, by up to 5e-4."""
    expected = predict(small_model(fusion), PHOTO, precision="float32").scores
    scores = predict(place(small_model(fusion), CUDA), PHOTO, precision="float32").scores.cpu()
    assert float((scores - expected).abs().max()) < 1e-4 * float(expected.abs().max())


def test_a_segmentation_comes_back_to_the_cpu_with_the_same_labels() -> None:
    expected, result = segment(small_model(), PHOTO, precision="float32"), segment(place(small_model(), CUDA), PHOTO)
    assert result.labels.device == result.scale_weights.device == torch.device("cpu")
    assert float((result.labels == expected.labels).float().mean()) > 0.95


def test_bf16_agrees_with_float32_on_nearly_every_label() -> None:
    model = place(small_model(), CUDA)
    exact, rounded = (segment(model, PHOTO, precision=precision) for precision in ("float32", "bf16"))
    assert len(exact.labels.unique()) > 1
    assert float((rounded.labels == exact.labels).float().mean()) > 0.95


def test_auto_takes_bf16_if_the_hardware_multiplies_it() -> None:
    expected = "bf16" if torch.cuda.get_device_capability(CUDA)[0] >= 8 else "float32"
    assert has_bf16(CUDA) is (expected == "bf16")
    assert choose_precision("auto", CUDA, helps=True) == expected


def test_tf32_is_as_the_process_had_it_after_a_prediction() -> None:
    before = torch.backends.cudnn.allow_tf32
    predict(place(small_model(), CUDA), PHOTO, precision="float32")
    assert torch.backends.cudnn.allow_tf32 is before


def test_the_figures_of_an_evaluation_are_those_of_the_cpu(folder: Path) -> None:
    dataset = Folder([str(folder)], CLASSES, {})
    expected, measured = (evaluate(place(small_model(), device), dataset) for device in (torch.device("cpu"), CUDA))
    assert measured.mIoU == pytest.approx(expected.mIoU, abs=2e-3)
    assert measured.aAcc == pytest.approx(expected.aAcc, abs=2e-3)
    assert measured.per_scale == pytest.approx(expected.per_scale, abs=2e-3)
    assert (measured.images, measured.pixels) == (expected.images, expected.pixels)


def test_training_goes_as_on_the_cpu(folder: Path, tmp_path: Path) -> None:
    for device in ("cpu", "cuda"):
        train(settings(folder, 3), tmp_path / device, device=device, say=lambda line: None)
    assert losses(tmp_path / "cuda") == pytest.approx(losses(tmp_path / "cpu"), rel=1e-2)


def test_a_resumed_run_ends_where_an_unbroken_one_does(folder: Path, tmp_path: Path) -> None:
    """Close, not the same bits: sums on a GPU are in no fixed order."""
    train(settings(folder, 2), tmp_path / "cut", device="cuda", say=lambda line: None)
    cut = train(settings(folder, 4), tmp_path / "cut", resume=True, device="cuda", say=lambda line: None)
    whole = train(settings(folder, 4), tmp_path / "whole", device="cuda", say=lambda line: None)
    torch.testing.assert_close(
        load_file(cut / "model.safetensors"), load_file(whole / "model.safetensors"), rtol=1e-3, atol=1e-5
    )
    assert len(losses(tmp_path / "cut")) == 4


def test_a_run_begun_on_cuda_goes_on_on_the_cpu(folder: Path, tmp_path: Path) -> None:
    train(settings(folder, 2), tmp_path / "run", device="cuda", say=lambda line: None)
    last = train(settings(folder, 3), tmp_path / "run", resume=True, device="cpu", say=lambda line: None)
    assert last.name == "step-3"


def test_bf16_trains_to_about_the_same_losses(folder: Path, tmp_path: Path) -> None:
    for precision in ("float32", "bf16"):
        config = merge(to_dict(settings(folder, 3)), {"train": {"precision": precision}})
        train(config, tmp_path / precision, device="cuda", say=lambda line: None)
    assert losses(tmp_path / "bf16") == pytest.approx(losses(tmp_path / "float32"), rel=0.1)


@pytest.mark.usefixtures("little_memory")
def test_a_batch_that_does_not_fit_is_one_line_with_the_remedy() -> None:
    model, images = place(small_model(), CUDA), torch.zeros(1, 3, 65, 65)
    said = r"^out of memory on cuda:0 \([\d.]+ GiB\): lower train\.batch$"
    with pytest.raises(UserError, match=said) as told, explained(CUDA, "lower train.batch"):
        model(images.expand(8192, -1, -1, -1).to(CUDA))
    assert isinstance(told.value.__cause__, torch.OutOfMemoryError)


@pytest.mark.usefixtures("little_memory")
def test_an_image_that_does_not_fit_is_one_line_and_the_next_one_is_segmented() -> None:
    model = place(small_model(), CUDA)
    large = torch.from_numpy(np.zeros((3, 6000, 6000), np.uint8))
    with pytest.raises(
        UserError,
        match=r"^out of memory on cuda:0 .*: give --max-memory to work in tiles, shrink the image, or choose another --device$",
    ):
        predict(model, large)
    assert segment(model, PHOTO).labels.shape == PHOTO.shape[1:]
