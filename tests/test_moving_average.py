"""`train.ema`: the average is the recursion written down, it is what is measured and saved, and a resume keeps its bits."""

from pathlib import Path

import pytest
import torch
from torch import nn

from conftest import small_config
from scaleseg import checkpoint
from scaleseg.config import Config, merge, to_dict
from scaleseg.errors import UserError
from scaleseg.training import train
from scaleseg.training.moving_average import MovingAverage


def line(value: float) -> nn.Linear:
    layer = nn.Linear(1, 1)
    write(layer, value)
    return layer


def write(layer: nn.Linear, value: float) -> None:
    with torch.no_grad():
        layer.weight.fill_(value)
        layer.bias.fill_(-value)


def settings(folder: Path, steps: int = 4, ema: float = 0.9) -> Config:
    config = small_config()
    data = {"train": str(folder), "dev": 0.2, "crop": 33, "workers": 0}
    training = {
        "steps": steps, "batch": 2, "lr": 0.1, "save_every": 2, "validate_every": 100, "ema": ema, "schedule": "constant",
    }  # fmt: skip
    return merge(to_dict(config), {"data": data, "train": training})


def quiet(line: str) -> None:
    """For runs whose words do not matter."""


def parameters(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoint.read_tensors(folder)


def test_the_average_is_the_recursion_with_a_quick_start() -> None:
    layer = line(0.0)
    average, expected = MovingAverage(layer, 0.9), None
    for step, value in enumerate((1.0, 3.0, -2.0, 8.0), start=1):
        write(layer, value)
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = value if expected is None else decay * expected + (1 - decay) * value
    with average.in_place():
        assert layer.weight.item() == pytest.approx(expected)
        assert layer.bias.item() == pytest.approx(-expected)


def test_the_model_has_its_own_parameters_again_also_after_an_error() -> None:
    layer = line(1.0)
    average = MovingAverage(layer, 0.5)
    average.update(1)
    write(layer, 5.0)
    average.update(2)
    with pytest.raises(KeyError), average.in_place():
        assert layer.weight.item() != 5.0
        raise KeyError
    assert layer.weight.item() == 5.0


def test_before_the_first_step_the_model_is_its_own_average() -> None:
    layer = line(2.0)
    with MovingAverage(layer, 0.9).in_place():
        assert layer.weight.item() == 2.0


def test_what_is_saved_is_the_average_of_what_was_learned(folder: Path, tmp_path: Path) -> None:
    plain = [parameters(train(settings(folder, n, 0.0), tmp_path / f"plain-{n}", say=quiet)) for n in (1, 2)]
    saved = train(settings(folder, 2), tmp_path / "average", say=quiet)
    decay = 3 / 12  # at step 2; the first step is the average's own beginning
    for name, now in plain[1].items():
        if now.is_floating_point():
            assert torch.allclose(parameters(saved)[name], decay * plain[0][name] + (1 - decay) * now, atol=1e-6)
    learned = checkpoint.load_training_state(saved)["learned"]
    assert all(torch.equal(tensor, plain[1][name]) for name, tensor in learned.items())


def test_a_resumed_run_has_the_same_bits(folder: Path, tmp_path: Path) -> None:
    whole = train(settings(folder, 4), tmp_path / "whole", say=quiet)
    train(settings(folder, 2), tmp_path / "cut", say=quiet)
    longer = train(settings(folder, 4), tmp_path / "cut", resume=True, say=quiet)
    for name, tensor in parameters(whole).items():
        assert torch.equal(parameters(longer)[name], tensor), name


@pytest.mark.parametrize("ema", [1.0, -0.1, float("nan")])
def test_a_decay_is_below_one(ema: float) -> None:
    with pytest.raises(UserError, match=r"train.ema is .*give a number of at least 0 and below 1"):
        merge({"train": {"ema": ema}})
