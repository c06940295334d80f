"""The loop: batch, loss, step; validate, save, go on. A killed run resumes to the same bits.

What makes it exact: samples and their variation depend on (seed, epoch, index) alone, dropout on (seed, step, process),
and a checkpoint holds everything else (parameters, optimiser, what was best). All processes hold the same parameters;
the first one writes.
"""

import time
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scaleseg import checkpoint
from scaleseg.config import Config
from scaleseg.datasets import Subset, open_training
from scaleseg.devices import autocast, choose_precision, describe, explained, memory_format, no_tf32, place
from scaleseg.errors import UserError
from scaleseg.evaluation import count
from scaleseg.interruption import Interrupted
from scaleseg.loss import Losses, count_valid, scale_aware_losses
from scaleseg.refine import learned_filter
from scaleseg.training.loading import Batch, batches
from scaleseg.training.moving_average import MovingAverage
from scaleseg.training.optimizer import create_optimizer, freeze, freeze_batch_norm, has_batch_norm, rate, set_rate
from scaleseg.training.processes import Processes, joined, launch
from scaleseg.training.progress import Progress
from scaleseg.training.run_folder import RunFolder, fingerprint
from scaleseg.training.signals import GO_ON, ended_workers, interrupts
from scaleseg.training.start import begin, choose_class_weights, create

__all__ = ["train"]


@dataclass
class Best:
    """The best measurement of the development split so far."""

    step: int = 0
    mIoU: float = -1.0


def train(
    config: Config, folder: Path, *, resume: bool = False, device: str = "auto", say: Callable[[str], None] = print
) -> Path:
    """Train as `config` says; returns the last checkpoint's folder. Under torchrun, as one of its processes.

    Raises UserError for settings or data that cannot be used, for a loss that is not finite and for a process that was
    lost; Interrupted after SIGINT or SIGTERM, when everything is saved.
    """
    with joined(device) as processes, ExitStack() as held:
        tell = say if processes.first else _silent
        run = RunFolder(folder)
        with processes.together():
            if processes.first:
                held.enter_context(run)
        mark, again = launch()
        again = processes.any(again) and processes.any(processes.first and run.claimed() == mark)
        with processes.together():
            config, state = begin(run, config, resume or again, tell)
            trainer = Trainer(run, config, state, processes, tell)
        processes.agree("settings; give every machine the same command", fingerprint(trainer.config))
        processes.agree("training photographs; give every machine the same files", trainer.photographs)
        processes.agree("checkpoints; --out must be a folder that every machine sees", trainer.step)
        with processes.together():
            trainer.open(config, mark, resumed=state is not None)
        processes.spread(trainer.numbers())
        return trainer.run_to_end()


class Trainer:
    """One run in progress, in one of its processes."""

    def __init__(
        self,
        run: RunFolder,
        config: Config,
        state: dict[str, Any] | None,
        processes: Processes,
        say: Callable[[str], None],
    ) -> None:
        self.run, self.processes, self.device, self.say = run, processes, processes.device, say
        _check_shares(config, processes.count)
        splits = open_training(config.data)
        self.train_set, self.dev_set = splits.train, splits.dev
        self.photographs = zlib.crc32("\n".join(self.train_set.names).encode())
        say(f"{len(self.train_set)} training photographs, {len(self.train_set.classes)} classes; {splits.note}")
        self.config = config = replace(config, data=replace(config.data, classes=self.train_set.classes))
        torch.manual_seed(config.train.seed)
        self.model, self.fresh = create(config, state, run, say)
        place(self.model, self.device)
        self.filter = learned_filter(config.refine) if self.model.edge_net else None
        pretrained = config.model.pretrained != "none" or config.train.init_from is not None
        self.frozen = config.train.freeze_bn and pretrained
        if self.frozen:
            freeze_batch_norm(self.model)
        else:
            processes.share_batch_norm(self.model)
        freeze(self.model, config.train.freeze, self.fresh)
        self.model.checkpointing = config.train.checkpointing
        if config.train.checkpointing and not self.frozen and has_batch_norm(self.model):
            raise UserError(
                "train.checkpointing is true, but BatchNorm learns here and would count every batch twice; use pretrained "
                "parameters with train.freeze_bn=true, or train.accumulate to save memory"
            )
        self.optimizer = create_optimizer(self.model, config.train, self.fresh)
        self.step, self.best = 0, Best()
        self.average = MovingAverage(self.model, config.train.ema) if config.train.ema else None
        if state:
            self._restore(state)
        self.class_weights = (
            state["class_weights"] if state else choose_class_weights(config.train.class_weights, self.train_set, say)
        )
        helps = self.model.segmenter.bf16_helps_training or self.device.type == "cuda"
        self.precision = choose_precision(config.train.precision, self.device, helps=helps)
        many = f", {processes.count} processes" if processes.count > 1 else ""
        say(f"device {describe(self.device)}, {self.precision}{many}")

    def open(self, config: Config, mark: str, *, resumed: bool) -> None:
        """Take the folder: not before all else is found good, so that a mistyped path does not take it."""
        if not self.processes.first:
            return
        self.run.forget_after(self.step)  # also what ended before its first checkpoint
        self.run.write_config(config)
        self.run.claim(mark)
        if resumed:
            self.run.point("last", self.step)
            best = (self.best.step if self.dev_set is not None else 0) or self.step
            if self.run.checkpoint(best).exists():  # a kill may have come between a checkpoint and its pointers
                self.run.point("best", best)

    def run_to_end(self) -> Path:
        """The remaining steps, then a last measurement and checkpoint."""
        settings, processes = self.config.train, self.processes
        progress = Progress(
            self.run if processes.first else None, self.say, steps=settings.steps, batch=settings.batch,
            every=settings.log_every, scales=self.model.scales, device=self.device,
        )  # fmt: skip
        stream = batches(self.train_set, self.config, self.step, processes.share(settings.batch))
        saved = time.monotonic()
        with interrupts() as interrupted, ended_workers(interrupted):
            while self.step < settings.steps:
                with processes.together():
                    batch = next(stream)
                losses, lr = self._train_step(batch)
                self.step += 1
                if self.average:
                    self.average.update(self.step)
                progress.step(self.step, losses, lr)
                at_end = self.step == settings.steps
                improved = (at_end or not self.step % settings.validate_every) and self._validate(progress)
                late = processes.first and time.monotonic() - saved > 60 * settings.save_minutes
                stopping, overdue = processes.sum(torch.tensor([bool(interrupted) and not at_end, late]).int()).tolist()
                if at_end or improved or stopping or overdue or not self.step % settings.save_every:
                    with processes.together():
                        self._save()
                    saved = time.monotonic()
                if stopping:
                    processes.leave(Interrupted(f"stopped at step {self.step} and saved; {GO_ON}"))
        progress.close()
        return self.run.checkpoint(self.step)

    def _train_step(self, batch: Batch) -> tuple[Losses, float]:
        """One step of the optimiser; the losses are the whole batch's, over all processes."""
        settings = self.config.train
        torch.manual_seed(settings.seed * 1_000_003 + self.step + self.processes.rank * 0x9E3779B1)
        self.model.train()
        if self.frozen:
            freeze_batch_norm(self.model)
        freeze(self.model, settings.freeze)
        images, labels = batch.images.to(self.device), batch.labels.to(self.device)
        grid = self.model.grid((images.shape[-2], images.shape[-1]))
        own = count_valid(grid, labels, extra_supervision=settings.extra_supervision, filtered=self.filter is not None)
        valid: list[int] = self.processes.sum(torch.tensor(own)).tolist()
        cut = zip(images.chunk(settings.accumulate), labels.chunk(settings.accumulate), strict=True)
        remedy = "lower train.batch or data.crop, or raise train.accumulate"
        with self.processes.together(), explained(self.device, remedy), no_tf32(self.device):
            parts = [self._backward(image_part, label_part, valid) for image_part, label_part in cut]
        self.processes.add([p.grad for p in self.model.parameters() if p.grad is not None])
        losses = self._summed(parts)
        if not torch.isfinite(losses.total):
            self.processes.fail(
                f"the loss is {float(losses.total)} at step {self.step + 1}; lower train.lr, or look at this batch: "
                + ", ".join(batch.names)
            )
        share = rate(settings, self.step)
        set_rate(self.optimizer, share)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if not self.frozen:
            self.processes.spread([b for b in self.model.buffers() if b.is_floating_point()])
        return losses, settings.lr * share

    def _backward(self, images: Tensor, labels: Tensor, valid: list[int]) -> Losses:
        values = (images.float() / 255).contiguous(memory_format=memory_format(self.device))
        with autocast(self.device, self.precision):
            prediction = self.model(values)
        filtered = None
        if self.filter and prediction.edges is not None:
            filtered = self.filter.of_scores(prediction.grid.to_image(prediction.scores.float()), prediction.edges)
        losses = scale_aware_losses(
            prediction,
            labels,
            extra_supervision=self.config.train.extra_supervision,
            class_weights=self.class_weights,
            valid=valid,
            filtered=filtered,
        )
        losses.total.backward()  # type: ignore[no-untyped-call]
        return Losses(losses.total.detach(), losses.fused, losses.per_scale)

    def numbers(self) -> list[Tensor]:
        """Parameters and statistics: what all processes must hold alike."""
        return [tensor for tensor in self.model.state_dict().values() if tensor.is_floating_point()]

    def _summed(self, parts: list[Losses]) -> Losses:
        """The whole batch's losses: each part was divided by the whole batch's pixels already."""
        each = torch.stack([torch.stack([part.total, part.fused, *part.per_scale]) for part in parts]).sum(dim=0)
        total, fused, *per_scale = self.processes.sum(each.cpu())
        return Losses(total, fused, tuple(per_scale))

    def _validate(self, progress: Progress) -> bool:
        """Measure the development split, each process its share of it; whether this is the best so far."""
        if self.dev_set is None:
            return False
        processes = self.processes
        mine = Subset(self.dev_set, range(processes.rank, len(self.dev_set), processes.count))
        with processes.together(), self._averaged():
            counts = count(self.model, mine, refine=self.filter, workers=min(self.config.data.workers, 1))
        for confusion in counts.all:
            confusion.matrix = processes.sum(torch.from_numpy(confusion.matrix)).numpy()
            confusion.images = len(self.dev_set)
        metrics = counts.metrics()
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
        if not self.processes.first:
            return
        best = self.best.step if self.dev_set is not None else self.step
        state = {
            "step": self.step, "optimizer": self.optimizer.state_dict(), "fresh": self.fresh,
            "best": {"step": self.best.step, "mIoU": self.best.mIoU}, "photographs": self.photographs,
            "class_weights": self.class_weights, "processes": self.processes.count,
        }  # fmt: skip
        about = {"step": self.step, "dev_mIoU": self.best.mIoU if best == self.step and self.best.step else None}
        if self.average:
            state["learned"] = self.average.learned()
        folder = self.run.checkpoint(self.step)
        if not folder.exists():
            with self._averaged():
                checkpoint.save(folder, self.model, self.config, training_state=state, about=about)
        self.run.point("last", self.step)
        if best in (0, self.step):  # before the first measurement the newest is the best there is
            self.run.point("best", self.step)
        self.run.prune(settings.keep, best)

    def _averaged(self) -> AbstractContextManager[None]:
        """The model as it is measured and saved: with `train.ema`, its moving average."""
        return self.average.in_place() if self.average else nullcontext()

    def _restore(self, state: dict[str, Any]) -> None:
        if state["photographs"] != self.photographs:
            raise UserError("data.train holds other photographs than when this run began; restore them, or start anew")
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.best = state["step"], Best(**state["best"])
        if self.step > self.config.train.steps:
            raise UserError(f"the run is at step {self.step} already; give train.steps more than that")
        if self.average:
            self.average.restore(state["learned"])
        self.say(f"going on from step {self.step}")
        settings, before = self.config.train, state.get("processes", 1)
        if before != self.processes.count:
            self.say(f"processes: {before} before, {self.processes.count} now; the same samples, but not the same bits")
        if settings.schedule == "poly" and settings.steps > (settings.schedule_steps or settings.steps):
            self.say(f"warning: train.schedule_steps is {settings.schedule_steps}; beyond it the learning rate is zero")


def _check_shares(config: Config, count: int) -> None:
    parts = count * config.train.accumulate
    if config.train.batch % parts:
        raise UserError(
            f"train.batch is {config.train.batch}; {count} processes with train.accumulate={config.train.accumulate} "
            f"need a multiple of {parts}: the batch is that of all processes together"
        )


def _silent(line: str) -> None:
    """What the other processes say: the first speaks for all."""
