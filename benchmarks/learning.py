"""Does every segmenter learn? 100 steps on eight photographs, for each: the loss must fall below half of what it was.

    python benchmarks/learning.py --data photographs.zip --pretrained vgg16.safetensors --json learning.json

Each network alone, at one scale, with the library's own loss and optimiser: batches of two of the same eight crops of
161 x 161, in an order drawn anew for each round. The photographs are the first eight of `--data` (a folder or zip with
images/ and masks/ of VOC's ids) whose middle is from 20 to 80 % object. What is said at the end is memory, not skill: that
gradients reach what they should, that nothing blows up, that initial values and rates suit each other.

`before` and `after` are the mean loss over the eight, without dropout; `constant` is the loss of the best answer that
looks at no pixel, the frequency of each class: half of the first loss is easy where few classes are there, this is not.
Networks on VGG start from `--pretrained` (fc6 and fc7 random unless the file has them), lite0 from `imagenet`, small and
resnet101 from random values. fcn is FCN-8s at once, fcn-staged goes from 32s over 16s to 8s. A name that `--json` already
holds is left out unless `--again`.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from machine import machine
from torch import Tensor

from scaleseg import UserError, atomic
from scaleseg.config import DataConfig, TrainConfig
from scaleseg.datasets import open_whole
from scaleseg.datasets.voc import CLASSES
from scaleseg.errors import choose
from scaleseg.geometry import IGNORE
from scaleseg.loss import scale_aware_loss
from scaleseg.model import ScaleAware, create_model, list_segmenters
from scaleseg.training.optimizer import create_optimizer, freeze_batch_norm

__all__ = ["RECIPES", "constant_loss", "learn", "main", "photographs"]

SIDE, PHOTOGRAPHS, BATCH = 161, 8, 2
"""161 is 32k+1; what it is padded to for other grids is void."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained here."""

    train: TrainConfig
    start: str = "vgg"
    """`vgg` is `--pretrained`; else as `model.pretrained`."""
    options: dict[str, Any] = field(default_factory=dict)
    """As `model.options`."""
    segmenter: str = ""
    """"" = the name under which this stands."""
    then: tuple["Recipe", ...] = ()
    """Later stages, of as many steps; each starts from the network of the one before, by the names they share."""


PAPER = TrainConfig(optimizer="sgd", lr=0.001, momentum=0.9, weight_decay=0.0005, fresh_lr=10.0, bias_lr=2.0)
"""Section 4 of the paper, whatever the batch."""

RECIPES = {
    "fcn": Recipe(PAPER, options={"at_once": True}),  # at these rates, unscaled skips blow up in 3 steps
    "fcn-staged": Recipe(
        PAPER,
        options={"stride": 32},
        segmenter="fcn",
        then=(
            Recipe(replace(PAPER, lr=1e-6, fresh_lr=1.0), options={"stride": 16}),
            Recipe(replace(PAPER, lr=1e-7, fresh_lr=1.0), options={"stride": 8}),
        ),
    ),
    "largefov": Recipe(PAPER),
    "lite0": Recipe(
        TrainConfig(optimizer="adamw", lr=0.0002, weight_decay=0.01, fresh_lr=5.0, bias_lr=1.0), start="imagenet"
    ),
    "msc": Recipe(replace(PAPER, fresh_lr=1.0)),  # as released; at 10 the loss was 3.4 after 25 steps, here 0.4
    "parsenet": Recipe(PAPER),
    "resnet101": Recipe(
        TrainConfig(optimizer="adamw", lr=0.0002, weight_decay=0.01, fresh_lr=5.0, bias_lr=1.0), start="none"
    ),
    "small": Recipe(
        TrainConfig(optimizer="adamw", lr=0.002, weight_decay=0.01, fresh_lr=1.0, bias_lr=1.0), start="none"
    ),
}
"""A segmenter that is not here is trained as the paper trains, from random values."""

NAMES = tuple(sorted({*list_segmenters(), *RECIPES}))

Pair = tuple[Tensor, Tensor]
"""RGB in [0, 1], and labels, both 161 x 161."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Train each segmenter that `--json` lacks, print a line for each; 1 if one of them did not learn."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parse(given)
    try:
        report = _report(options, shlex.join(["python", "benchmarks/learning.py", *map(_bare, given)]))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0 if all(result["learns"] for result in report["segmenters"].values()) else 1


def photographs(path: str, count: int = PHOTOGRAPHS) -> tuple[list[str], list[Pair]]:
    """Names and the middles of the first photographs that hold something to tell apart."""
    dataset = open_whole(DataConfig(train=path, classes=CLASSES), "train")
    names: list[str] = []
    pairs: list[Pair] = []
    for index in range(len(dataset)):
        image, labels = dataset[index]
        top, left = ((side - SIDE) // 2 for side in labels.shape)
        middle = labels[max(top, 0) :, max(left, 0) :][:SIDE, :SIDE]
        valid = middle != IGNORE
        share = ((middle > 0) & valid).sum() / valid.sum().clamp(min=1)
        if top < 0 or left < 0 or not 0.2 <= share <= 0.8:
            continue
        names.append(dataset.names[index])
        pairs.append((image[:, top : top + SIDE, left : left + SIDE].float() / 255, middle))
        if len(pairs) == count:
            return names, pairs
    raise UserError(f"--data has {len(pairs)} photographs with a middle that is 20 to 80 % object; {count} are needed")


def constant_loss(pairs: Sequence[Pair]) -> float:
    """Cross entropy of the classes' own frequencies: the best that an answer can do which is the same everywhere."""
    labels = torch.cat([labels[labels != IGNORE] for _, labels in pairs])
    frequency = labels.bincount() / len(labels)
    return float(-(frequency * frequency.clamp(min=1e-12).log()).sum())


def learn(
    model: ScaleAware, settings: TrainConfig, pairs: Sequence[Pair], steps: int, say: Callable[[str], None] = print
) -> list[float]:
    """The loss of each step; BatchNorm of a pretrained network (`freeze_bn`) stays as it is."""
    optimizer = create_optimizer(model, settings, set(model.fresh()))
    order: list[int] = []
    losses = []
    draw = torch.Generator().manual_seed(settings.seed)
    for step in range(steps):
        order = order if len(order) >= BATCH else [*order, *torch.randperm(len(pairs), generator=draw).tolist()]
        chosen, order = order[:BATCH], order[BATCH:]
        torch.manual_seed(settings.seed * 1_000_003 + step)
        model.train()
        if settings.freeze_bn:
            freeze_batch_norm(model)
        optimizer.zero_grad()
        loss = _loss(model, [pairs[index] for index in chosen])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if not (step + 1) % 25:
            say(f"  step {step + 1}: {sum(losses[-10:]) / len(losses[-10:]):.3f}")
    return losses


def _report(options: argparse.Namespace, command: str) -> dict[str, Any]:
    names, pairs = photographs(options.data)
    task = {
        "data": Path(options.data).name, "photographs": names, "crop": SIDE, "batch": BATCH, "steps": options.steps,
        "seed": options.seed, "constant": constant_loss(pairs),
    }  # fmt: skip
    report: dict[str, Any] = {"command": command, "task": task, "segmenters": {}}
    if options.json and options.json.is_file():
        before = json.loads(options.json.read_text(encoding="utf-8"))
        if before["task"] != task:
            raise UserError(f"{options.json.name} holds another task (photographs, steps or seed); name another file")
        report["segmenters"] = before["segmenters"]
    for name in options.segmenters or NAMES:
        choose("network", name, NAMES)
        if name in report["segmenters"] and not options.again:
            continue
        print(name)
        result = _measure(name, options, pairs, task["constant"])
        report["segmenters"] = dict(sorted({**report["segmenters"], name: result}.items()))
        print(f"  {_sentence(result)}", flush=True)
        _write(report, options.json)
    _write(report, options.json)
    return report


def _write(report: dict[str, Any], path: Path | None) -> None:
    if path:
        atomic.write(path, json.dumps(report, indent=2) + "\n")


def _measure(name: str, options: argparse.Namespace, pairs: Sequence[Pair], constant: float) -> dict[str, Any]:
    """One network's figures."""
    recipe = RECIPES.get(name, Recipe(PAPER, "none"))
    start = options.pretrained if recipe.start == "vgg" else recipe.start
    segmenter, fixed = recipe.segmenter or name, {"seed": options.seed, "freeze_bn": start != "none"}
    settings = replace(recipe.train, **fixed)
    torch.manual_seed(options.seed)
    model = _create(segmenter, start, recipe.options)
    before, begin = _mean_loss(model, pairs), time.perf_counter()
    losses = learn(model, settings, pairs, options.steps)
    stages = [{"options": recipe.options, "lr": settings.lr, "after": _mean_loss(model, pairs)}]
    for stage in recipe.then:
        coarser, model = model, _create(segmenter, "none", stage.options)
        model.load_state_dict(coarser.state_dict(), strict=False)
        losses += learn(model, replace(stage.train, **fixed), pairs, options.steps)
        stages.append({"options": stage.options, "lr": stage.train.lr, "after": _mean_loss(model, pairs)})
    seconds, after = time.perf_counter() - begin, stages[-1]["after"]
    window = min(10, options.steps)
    return {
        **machine(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "options": recipe.options,
        **({"stages": stages} if recipe.then else {}),
        "start": Path(start).name,
        "optimizer": settings.optimizer,
        "lr": settings.lr,
        "fresh_lr": settings.fresh_lr,
        "bias_lr": settings.bias_lr,
        "weight_decay": settings.weight_decay,
        "before": before,
        "after": after,
        "first_steps": sum(losses[:window]) / window,
        "last_steps": sum(losses[-window:]) / window,
        "highest": max(losses),
        "seconds": seconds,
        "learns": after < before / 2,
        "beats_constant": after < constant,
    }


def _create(segmenter: str, start: str, options: dict[str, Any]) -> ScaleAware:
    return create_model(segmenter, classes=CLASSES, fusion="average", scales=(1.0,), pretrained=start, options=options)


@torch.no_grad()
def _mean_loss(model: ScaleAware, pairs: Sequence[Pair]) -> float:
    """Over all photographs, one by one, in evaluation mode."""
    model.eval()
    return sum(float(_loss(model, [pair])) for pair in pairs) / len(pairs)


def _loss(model: ScaleAware, pairs: Sequence[Pair]) -> Tensor:
    images, labels = (torch.stack(parts) for parts in zip(*pairs, strict=True))
    return scale_aware_loss(model(images), labels)


def _sentence(result: dict[str, Any]) -> str:
    verdict = "learns" if result["learns"] else "DOES NOT LEARN"
    return (
        f"{verdict}: {result['before']:.3f} -> {result['after']:.3f}, steps {result['first_steps']:.3f} -> "
        f"{result['last_steps']:.3f} (highest {result['highest']:.2f}), {result['seconds']:.0f} s"
    )


def _bare(argument: str) -> str:
    """A path without its folders: they say nothing elsewhere."""
    return Path(argument).name if "/" in argument else argument


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("segmenters", nargs="*", help="which networks (default: all)")
    parser.add_argument("--data", required=True, metavar="PATH", help="a folder or zip with images/ and masks/")
    parser.add_argument(
        "--pretrained", default="none", metavar="PATH", help="VGG-16's parameters (default none: random)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number here, after each network")
    parser.add_argument("--again", action="store_true", help="measure what FILE holds already, too")
    parser.add_argument("--steps", type=int, default=100, help="default 100")
    parser.add_argument("--seed", type=int, default=0, help="default 0")
    options = parser.parse_args(arguments)
    if options.steps < 1:
        parser.error(f"--steps is {options.steps}; give at least 1")
    return options


if __name__ == "__main__":
    sys.exit(main())
