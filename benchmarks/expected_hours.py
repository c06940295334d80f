"""How long the paper's tables take: every cell's arithmetic, and what that means on machines whose speed is known.

    python benchmarks/expected_hours.py --json benchmarks/results/expected_hours.json

The recipes voc-* are taken as they are (LargeFOV, crops of 321, 30 of them a step). Arithmetic is counted, forward and
backward, for one crop: convolutions, a multiply-add is two. The paper trained attention at three scales in about 21 hours
on a Tesla K40 (section 4); that gives the K40's speed, and with it the other cells' hours. `--training` is what
benchmarks/training.py measured on this machine. What a GPU of today sustains is for its owner to fill in.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from machine import machine
from training import count_flops

from scaleseg import atomic, checkpoint
from scaleseg.ablate.cells import TABLES, Cell, grid, resolve
from scaleseg.config import Config
from scaleseg.datasets.voc import CLASSES
from scaleseg.loss import scale_aware_loss
from scaleseg.recipes import load_recipe
from scaleseg.training.optimizer import freeze

__all__ = ["K40_HOURS", "gflop_a_crop", "main"]

K40_HOURS = 21.0
"""Fine-tuning attention at three scales on one K40 (paper, section 4)."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Count, and write `--json`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--training", type=Path, default=Path(__file__).parent / "results" / "training.json")
    asked = parser.parse_args(given)
    command = shlex.join(["python", "benchmarks/expected_hours.py", *given])
    document = {"command": command, **machine(), **expected(json.loads(asked.training.read_text(encoding="utf-8")))}
    text = json.dumps(document, indent=1) + "\n"
    if asked.json:
        atomic.write(asked.json, text)
    else:
        print(text, end="")


def expected(training: dict[str, Any]) -> dict[str, Any]:
    """Every cell's arithmetic; and what a second brings on the machines that are known."""
    table = TABLES["voc"]
    recipe = load_recipe(table.recipe)
    runs = {}
    for cell in grid(table, recipe.model.segmenter):
        config = config_of(recipe, cell)
        crops = config.train.steps * config.train.batch
        each = gflop_a_crop(config)
        runs[cell.name] = {"gflop_a_crop": each, "crops": crops, "pflop": each * crops / 1e6}
    measured = training["systems"]["largefov"]
    k40 = 1000 * runs["attention-3-es"]["pflop"] / (K40_HOURS * 3600)
    here = {"cpu": training["cpu"], "threads": training["threads"], "precision": measured["precision"]}
    return {
        "runs": runs,
        "tflops": {"Tesla K40": k40, "here": measured["gflops"] / 1000},
        "here": here,
    }


def config_of(recipe: Config, cell: Cell) -> Config:
    """A cell's settings; MSc's are its own recipe's, with the branches alone in training."""
    return load_recipe("voc-msc") if cell.name == "msc" else resolve(recipe, dict(cell.settings))


def gflop_a_crop(config: Config) -> float:
    """Of one crop's forward, loss and backward, with random parameters."""
    side = config.data.crop
    named = replace(config, model=replace(config.model, pretrained="none"), data=replace(config.data, classes=CLASSES))
    model = checkpoint.build(named).train()
    freeze(model, config.train.freeze)
    images, labels = torch.rand(1, 3, side, side), torch.randint(0, len(CLASSES), (1, side, side))

    def step() -> None:
        loss = scale_aware_loss(model(images), labels, extra_supervision=config.train.extra_supervision)
        loss.backward()

    return count_flops(step) / 1e9


if __name__ == "__main__":
    main()
