"""What the benchmarks share: which machine this is, and the most arithmetic that it was measured to do."""

import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

__all__ = ["machine", "peak_gflops", "synchronize", "timed"]

PEAK_SHAPES = ((256, 65), (256, 129), (512, 65))
"""(channels, side) of the 3x3 convolutions that show what this machine can do."""


def peak_gflops(dtype: torch.dtype, device: torch.device | str = "cpu", repeats: int = 5) -> float:
    """The most that a large 3x3 convolution in channels_last was measured to reach; 1e9 operations a second."""
    best, batch = 0.0, 1 if torch.device(device).type == "cpu" else 32
    for channels, side in PEAK_SHAPES:
        layer = nn.Conv2d(channels, channels, 3, padding=1).to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        maps = torch.randn(batch, channels, side, side, device=device).to(dtype, memory_format=torch.channels_last)
        with torch.inference_mode():
            laps = [_synchronized(device, layer, maps) for _ in range(1 + repeats)][1:]
        best = max(best, 2 * 9 * batch * channels**2 * side**2 / min(laps) / 1e9)
    return best


def timed(do: Callable[..., object], *arguments: object) -> float:
    """How long one call takes."""
    begin = time.perf_counter()
    do(*arguments)
    return time.perf_counter() - begin


def synchronize(device: torch.device | str) -> None:
    """Wait until the device has done what it was given, so that a clock can be read."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def machine() -> dict[str, Any]:
    """Date, PyTorch, threads and processor: what a figure is worth nothing without."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processors": os.cpu_count(),
        "cpu": _cpu(),
    }


def _synchronized(device: torch.device | str, do: Callable[..., object], *arguments: object) -> float:
    synchronize(device)
    return timed(lambda: (do(*arguments), synchronize(device)))


def _cpu() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
