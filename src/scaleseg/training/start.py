"""How a run begins or goes on: its settings, its model, its class weights."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from scaleseg import checkpoint
from scaleseg.config import Config
from scaleseg.datasets import Dataset
from scaleseg.errors import UserError
from scaleseg.geometry import IGNORE
from scaleseg.loss import class_weights
from scaleseg.model import ScaleAware
from scaleseg.training.optimizer import freeze
from scaleseg.training.run_folder import RunFolder, differences

__all__ = ["begin", "choose_class_weights", "create"]


def begin(
    run: RunFolder, config: Config, resume: bool, say: Callable[[str], None]
) -> tuple[Config, dict[str, Any] | None]:
    """The resolved settings, and the state to go on from if there is one."""
    newest = run.newest()
    if newest and not resume:
        raise UserError(f"{run.path} holds a run already; go on with --resume, or choose another --out")
    if newest:
        before = run.read_config()
        if config.train.schedule_steps is None:  # poly: the horizon of the first start stays
            config = replace(config, train=replace(config.train, schedule_steps=before.train.schedule_steps))
        changed = differences(before, config)
        if changed:
            raise UserError("a resumed run keeps its settings, but these differ: " + "; ".join(changed))
    elif config.train.schedule == "poly" and config.train.schedule_steps is None:
        config = replace(config, train=replace(config.train, schedule_steps=config.train.steps))
    state = checkpoint.load_training_state(newest) if newest else None
    if state is None and resume:
        say(f"{run.path} has no checkpoint yet: starting from the beginning")
    return config, state


def create(
    config: Config, state: dict[str, Any] | None, run: RunFolder, say: Callable[[str], None]
) -> tuple[ScaleAware, list[str]]:
    """The model to train, and the names of its parameters that are not pretrained."""
    if state:
        model = checkpoint.load(run.checkpoint(state["step"]))
        return model, list(state["fresh"])
    if config.train.init_from:
        model = checkpoint.build(replace(config, model=replace(config.model, pretrained="none")))
        started = checkpoint.start_from(model, config.train.init_from)
        left = f"; left out, as this model has no place for it: {', '.join(started.left)}" if started.left else ""
        say(f"starting from {config.train.init_from}; fresh: {', '.join(started.fresh) or 'nothing'}{left}")
        return model, list(started.fresh)
    model = checkpoint.build(config)
    say(f"{sum(p.numel() for p in model.parameters()):,} parameters, pretrained: {config.model.pretrained}")
    freeze(model, config.train.freeze, _random(model, config))  # before anything else: noise that stays is a mistake
    return model, model.fresh()


def choose_class_weights(wish: Any, dataset: Dataset, say: Callable[[str], None]) -> Tensor | None:
    """`train.class_weights` as numbers: none, given, or (`auto`) counted in the labels."""
    classes = dataset.classes
    if wish is None:
        return None
    if wish == "auto":
        weights = _weights_from(dataset)
        listed = ", ".join(f"{name} {float(value):.2f}" for name, value in zip(classes, weights, strict=True))
        say(f"class weights: {listed}")
        return weights
    numbers = wish if isinstance(wish, list | tuple) else []
    usable = all(isinstance(value, int | float) and 0 <= value < float("inf") for value in numbers)
    if not usable or len(numbers) != len(classes):
        raise UserError(f"train.class_weights is {wish}; give null, auto, or {len(classes)} numbers, one a class")
    return torch.tensor([float(value) for value in numbers])


def _random(model: ScaleAware, config: Config) -> list[str]:
    """Names of all parameters that no file gave: the fresh ones, and some or all of those that learn at the base rate."""
    if config.model.pretrained == "none":
        return [name for name, _ in model.named_parameters()]
    layers = tuple(f"segmenter.{layer}." for layer in model.segmenter.random_layers)
    return [*model.fresh(), *(name for name, _ in model.named_parameters() if name.startswith(layers))]


def _weights_from(dataset: Dataset) -> Tensor:
    """Balancing weights from up to 1,000 photographs, evenly spaced."""
    pixels, present = torch.zeros(256, dtype=torch.int64), torch.zeros(256, dtype=torch.int64)
    for index in range(0, len(dataset), max(1, len(dataset) // 1000)):
        counts = torch.bincount(dataset[index][1].flatten(), minlength=256)
        counts[IGNORE] = 0
        pixels += counts
        present += torch.where(counts > 0, counts.sum(), 0)
    known = len(dataset.classes)
    return class_weights(pixels[:known].tolist(), present[:known].tolist())
