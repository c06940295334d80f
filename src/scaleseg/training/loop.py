"""The loop: batch, loss, step; validate, save, go on. A killed run resumes to the same bits.

What makes it exact: samples and their variation depend on (seed, epoch, index) alone, dropout on (seed, step), and a
checkpoint holds everything else (parameters, optimiser, what was best).
"""

import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scaleseg import checkpoint
from scaleseg.config import Config
from scaleseg.datasets import Dataset, open_training
from scaleseg.devices import autocast, choose_device, choose_precision, describe
from scaleseg.errors import UserError
from scaleseg.evaluation import evaluate
from scaleseg.geometry import IGNORE
from scaleseg.loss import Losses, class_weights, count_valid, scale_aware_losses
from scaleseg.model import ScaleAware
from scaleseg.training.loading import Batch, batches
from scaleseg.training.optimizer import create_optimizer, freeze_batch_norm, rate, set_rate
from scaleseg.training.progress import Progress
from scaleseg.training.run_folder import RunFolder, differences
from scaleseg.training.signals import Interrupted, ended_workers, interrupts

__all__ = ["train"]


@dataclass
class Best:
    """The best measurement of the development split so far."""

    step: int = 0
    mIoU: float = -1.0


def train(
    config: Config, folder: Path, *, resume: bool = False, device: str = "auto", say: Callable[[str], None] = print
) -> Path:
    """Train as `config` says; returns the last checkpoint's folder.

    Raises UserError for settings or data that cannot be used and for a loss that is not finite, Interrupted after
    SIGINT or SIGTERM, when everything is saved.
    """
    with RunFolder(folder) as run:
        config, state = _begin(run, config, resume, say)
        trainer = Trainer(run, config, state, choose_device(device), say)
        run.write_config(config)  # not before all is opened: a mistyped path must not take the folder
        return trainer.run_to_end()


class Trainer:
    """One run in progress."""

    def __init__(
        self,
        run: RunFolder,
        config: Config,
        state: dict[str, Any] | None,
        device: torch.device,
        say: Callable[[str], None],
    ) -> None:
        self.run, self.config, self.device, self.say = run, config, device, say
        splits = open_training(config.data)
        self.train_set, self.dev_set = splits.train, splits.dev
        self.photographs = zlib.crc32("\n".join(self.train_set.names).encode())
        say(f"{len(self.train_set)} training photographs, {len(self.train_set.classes)} classes; {splits.note}")
        config = replace(config, data=replace(config.data, classes=self.train_set.classes))
        self.config = config
        torch.manual_seed(config.train.seed)
        self.model, self.fresh = _create(config, state, run, say)
        self.model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        pretrained = config.model.pretrained != "none" or config.train.init_from is not None
        self.frozen = config.train.freeze_bn and pretrained
        if self.frozen:
            freeze_batch_norm(self.model)
        self.optimizer = create_optimizer(self.model, config.train, self.fresh)
        self.step, self.best = 0, Best()
        self.class_weights = self._class_weights(state)
        if state:
            self._restore(state)
        helps = self.model.segmenter.bf16_helps_training or device.type == "cuda"
        self.precision = choose_precision(config.train.precision, device, helps=helps)
        say(f"device {describe(device)}, {self.precision}")

    def run_to_end(self) -> Path:
        """The remaining steps, then a last measurement and checkpoint."""
        settings = self.config.train
        progress = Progress(
            self.run, self.say, steps=settings.steps, batch=settings.batch, every=settings.log_every,
            scales=self.model.scales,
        )  # fmt: skip
        saved = time.monotonic()
        with interrupts() as interrupted, ended_workers(interrupted):
            for batch in batches(self.train_set, self.config, self.step):
                losses, lr = self._train_step(batch)
                self.step += 1
                progress.step(self.step, losses, lr)
                at_end = self.step == settings.steps
                improved = (at_end or not self.step % settings.validate_every) and self._validate(progress)
                overdue = time.monotonic() - saved > 60 * settings.save_minutes
                if at_end or improved or interrupted or overdue or not self.step % settings.save_every:
                    self._save()
                    saved = time.monotonic()
                if interrupted and not at_end:
                    raise Interrupted(f"stopped at step {self.step} and saved; the same command with --resume goes on")
        progress.close()
        return self.run.checkpoint(self.step)

    def _train_step(self, batch: Batch) -> tuple[Losses, float]:
        """One step of the optimiser; the losses are the whole batch's."""
        settings = self.config.train
        torch.manual_seed(settings.seed * 1_000_003 + self.step)
        self.model.train()
        if self.frozen:
            freeze_batch_norm(self.model)
        images, labels = batch.images.to(self.device), batch.labels.to(self.device)
        grid = self.model.grid((images.shape[-2], images.shape[-1]))
        valid = count_valid(grid, labels, extra_supervision=settings.extra_supervision)
        parts = [
            self._backward(image_part, label_part, valid)
            for image_part, label_part in zip(
                images.chunk(settings.accumulate), labels.chunk(settings.accumulate), strict=True
            )
        ]
        losses = _summed(parts)
        if not torch.isfinite(losses.total):
            raise UserError(
                f"the loss is {float(losses.total)} at step {self.step + 1}; lower train.lr, or look at this batch: "
                + ", ".join(batch.names)
            )
        share = rate(settings, self.step)
        set_rate(self.optimizer, share)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return losses, settings.lr * share

    def _backward(self, images: Tensor, labels: Tensor, valid: list[int]) -> Losses:
        values = (images.float() / 255).contiguous(memory_format=torch.channels_last)
        with autocast(self.device, self.precision):
            prediction = self.model(values)
        losses = scale_aware_losses(
            prediction,
            labels,
            extra_supervision=self.config.train.extra_supervision,
            class_weights=self.class_weights,
            valid=valid,
        )
        losses.total.backward()  # type: ignore[no-untyped-call]
        return Losses(losses.total.detach(), losses.fused, losses.per_scale)

    def _validate(self, progress: Progress) -> bool:
        """Measure the development split; whether this is the best so far."""
        if self.dev_set is None:
            return False
        metrics = evaluate(self.model, self.dev_set, workers=min(self.config.data.workers, 1))
        improved = metrics.mIoU > self.best.mIoU
        if improved:
            self.best = Best(self.step, metrics.mIoU)
        progress.validated(self.step, metrics, improved)
        return improved

    def _save(self) -> None:
        settings = self.config.train
        broken = [name for name, parameter in self.model.named_parameters() if not torch.isfinite(parameter).all()]
        if broken:
            raise UserError(
                f"at step {self.step} {broken[0]} is not finite, and is not saved; lower train.lr and go on"
            )
        best = self.best.step if self.dev_set is not None else self.step
        state = {
            "step": self.step, "optimizer": self.optimizer.state_dict(), "fresh": self.fresh,
            "best": {"step": self.best.step, "mIoU": self.best.mIoU}, "photographs": self.photographs,
            "class_weights": self.class_weights,
        }  # fmt: skip
        about = {"step": self.step, "dev_mIoU": self.best.mIoU if best == self.step and self.best.step else None}
        folder = self.run.checkpoint(self.step)
        if not folder.exists():
            checkpoint.save(folder, self.model, self.config, training_state=state, about=about)
        self.run.point("last", self.step)
        if best in (0, self.step):  # before the first measurement the newest is the best there is
            self.run.point("best", self.step)
        self.run.prune(settings.keep, best)

    def _restore(self, state: dict[str, Any]) -> None:
        if state["photographs"] != self.photographs:
            raise UserError("data.train holds other photographs than when this run began; restore them, or start anew")
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.best = state["step"], Best(**state["best"])
        if self.step > self.config.train.steps:
            raise UserError(f"the run is at step {self.step} already; give train.steps more than that")
        self.run.forget_after(self.step)
        self.run.point("last", self.step)
        best = (self.best.step if self.dev_set is not None else 0) or self.step
        if self.run.checkpoint(best).exists():  # a kill may have come between a checkpoint and its pointers
            self.run.point("best", best)
        self.say(f"going on from step {self.step}")
        settings = self.config.train
        if settings.schedule == "poly" and settings.steps > (settings.schedule_steps or settings.steps):
            self.say(f"warning: train.schedule_steps is {settings.schedule_steps}; beyond it the learning rate is zero")

    def _class_weights(self, state: dict[str, Any] | None) -> Tensor | None:
        wish, classes = self.config.train.class_weights, self.train_set.classes
        if wish is None or state:
            return state["class_weights"] if state else None
        if wish == "auto":
            weights = _weights_from(self.train_set)
            listed = ", ".join(f"{name} {float(value):.2f}" for name, value in zip(classes, weights, strict=True))
            self.say(f"class weights: {listed}")
            return weights
        numbers = wish if isinstance(wish, list | tuple) else []
        usable = all(isinstance(value, int | float) and 0 <= value < float("inf") for value in numbers)
        if not usable or len(numbers) != len(classes):
            raise UserError(f"train.class_weights is {wish}; give auto, or {len(classes)} numbers, one a class")
        return torch.tensor([float(value) for value in numbers])


def _begin(
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
    if state is None:
        run.forget_after(0)  # what ended before its first checkpoint left nothing to go on from
        if resume:
            say(f"{run.path} has no checkpoint yet: starting from the beginning")
    return config, state


def _create(
    config: Config, state: dict[str, Any] | None, run: RunFolder, say: Callable[[str], None]
) -> tuple[ScaleAware, list[str]]:
    """The model to train, and the names of its parameters that are not pretrained."""
    if state:
        model = checkpoint.load(run.checkpoint(state["step"]))
        return model, list(state["fresh"])
    if config.train.init_from:
        model = checkpoint.build(replace(config, model=replace(config.model, pretrained="none")))
        renewed = checkpoint.start_from(model, config.train.init_from)
        say(f"starting from {config.train.init_from}; fresh: {', '.join(renewed) or 'nothing'}")
        return model, list(renewed)
    model = checkpoint.build(config)
    say(f"{sum(p.numel() for p in model.parameters()):,} parameters, pretrained: {config.model.pretrained}")
    return model, model.fresh()


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


def _summed(parts: list[Losses]) -> Losses:
    """The whole batch's losses: each part was divided by the whole batch's pixels already."""
    per_scale = zip(*(part.per_scale for part in parts), strict=True)
    return Losses(
        torch.stack([part.total for part in parts]).sum(),
        torch.stack([part.fused for part in parts]).sum(),
        tuple(torch.stack(scale).sum() for scale in per_scale),
    )
