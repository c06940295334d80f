"""What a run says while it runs: a line at a time, `metrics.jsonl`, TensorBoard if it is installed."""

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from scaleseg.loss import Losses
from scaleseg.metrics import Metrics
from scaleseg.training.run_folder import RunFolder

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["Progress"]


class Progress:
    """Times the steps and reports every `every`; without a run's folder it writes nothing."""

    def __init__(
        self,
        run: RunFolder | None,
        say: Callable[[str], None],
        *,
        steps: int,
        batch: int,
        every: int,
        scales: tuple[float, ...],
        device: torch.device,
    ) -> None:
        self.run, self.say, self.device = run, say, device
        self.steps, self.batch, self.every, self.scales = steps, batch, every, scales
        self._since = self._begun = time.monotonic()
        self._counted = self._done = 0
        self._board = _board(run.path) if run else None

    def step(self, step: int, losses: Losses, lr: float) -> None:
        """After each step, counted from 1."""
        self._counted += 1
        if step % self.every and step != self.steps:
            return
        now = time.monotonic()
        passed = now - self._since
        speed = self._counted * self.batch / passed if passed > 0 else 0.0  # a clock may stand still or go backwards
        self._done += self._counted
        left = max(0.0, (self.steps - step) * (now - self._begun) / self._done)
        self._since, self._counted = now, 0
        per_scale = {f"{s:g}": float(loss) for s, loss in zip(self.scales, losses.per_scale, strict=False)}
        total, fused = float(losses.total), float(losses.fused)
        record = {
            "step": step, "loss": total, "loss_fused": fused, "loss_per_scale": per_scale,
            "lr": lr, "images_per_s": round(speed, 3), "memory_gb": round(_memory(self.device), 3),
        }  # fmt: skip
        self._append(record)
        self._plot(step, {"loss/total": total, "loss/fused": fused, "lr": lr})
        self._plot(step, {f"loss/{scale}": loss for scale, loss in per_scale.items()})
        listed = "".join(f" {scale}:{loss:.3f}" for scale, loss in per_scale.items())
        self.say(
            f"step {step}/{self.steps}  loss {total:.3f}  fused {fused:.3f}{listed}  "
            f"lr {lr:.2e}  {speed:.1f} images/s  {_clock(left)} left  {_memory(self.device):.1f} GB"
        )

    def validated(self, step: int, metrics: Metrics, best: bool) -> None:
        """After each measurement of the development split."""
        self._append({"step": step, "dev": metrics.to_dict()})
        self._plot(step, {"dev/mIoU": metrics.mIoU})
        each = "  ".join(f"{scale}: {100 * value:.2f}" for scale, value in metrics.per_scale.items())
        self.say(f"step {step}  dev mIoU {100 * metrics.mIoU:.2f} %  (scales {each}){'  best so far' if best else ''}")
        self.rest()

    def rest(self) -> None:
        """Time that was not training: not to be counted into images/s."""
        paused = time.monotonic() - self._since
        if not self._counted:
            self._since += paused

    def _append(self, record: dict[str, Any]) -> None:
        if self.run:
            self.run.append(record)

    def _plot(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items() if self._board else ():
            assert self._board is not None
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush what is held back."""
        if self._board:
            self._board.close()


def _board(folder: Path) -> "SummaryWriter | None":
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"))


def _memory(device: torch.device) -> float:
    """Most memory used so far, in GB: of the GPU that is used, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
