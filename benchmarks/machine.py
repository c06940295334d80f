"""What the benchmarks share: which machine this is, and the most arithmetic that it was measured to do."""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import torch

from scaleseg.benchmark import peak_gflops
from scaleseg.engines.table import processor

__all__ = ["machine", "peak_gflops", "synchronize", "timed"]


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
        "cpu": processor(),
    }
