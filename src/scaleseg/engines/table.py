"""What was measured of engines, by `scaleseg benchmark` on this machine: what `--engine auto` chooses by."""

import json
import os
import platform
from pathlib import Path
from typing import NamedTuple

import torch

from scaleseg import atomic
from scaleseg.engines.converted import cache_folder, fingerprint
from scaleseg.model import ScaleAware

__all__ = ["Row", "processor", "read_table", "write_table"]


class Row(NamedTuple):
    """One engine in one precision."""

    engine: str
    precision: str
    images_per_second: float


def read_table(model: ScaleAware, cache: Path | None = None) -> list[Row]:
    """What was measured of this model, on this machine, with as many threads; empty if nothing was, or it is unreadable."""
    try:
        document = json.loads(_path(model, cache).read_text(encoding="utf-8"))
        return [Row(str(row["engine"]), str(row["precision"]), float(row["images_per_second"])) for row in document]
    except (OSError, ValueError, KeyError, TypeError):  # made anew by the next measurement
        return []


def write_table(model: ScaleAware, rows: list[Row], cache: Path | None = None) -> Path:
    """Keep what was measured; the file that it is in."""
    path = _path(model, cache)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(path, json.dumps([row._asdict() for row in rows], indent=2) + "\n")
    return path


def processor() -> str:
    """The processor's name."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _path(model: ScaleAware, cache: Path | None) -> Path:
    """A file a model and machine: another processor, or another number of threads, may have another order."""
    words = f"{processor()}-{os.cpu_count()}-{torch.get_num_threads()}"
    plain = "".join(letter if letter.isalnum() else "-" for letter in words)
    return (cache or cache_folder()) / f"{fingerprint(model)}-{plain}.json"
