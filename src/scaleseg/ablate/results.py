"""What a cell's run folder holds when it is done: `metrics.json`, with the settings that it is the measurement of."""

import json
import os
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any, NamedTuple

from scaleseg import atomic
from scaleseg.config import Config, to_dict
from scaleseg.errors import UserError
from scaleseg.training.run_folder import RunFolder

__all__ = ["Result", "Row", "check", "finish", "identity", "read"]

FREE = {
    "data.root", "data.workers", "train.log_every", "train.validate_every", "train.save_every", "train.save_minutes",
    "train.keep",
}  # fmt: skip
"""Settings that change nothing in `last`."""


class Result(NamedTuple):
    """A finished run; fractions, not percent."""

    seed: int
    mIoU: float
    IoU: dict[str, float]
    steps: int
    seconds: float
    """Of training, without start, measurements and checkpoints."""
    images_per_s: float | None
    images: int
    """Measured on so many photographs."""
    device: str
    threads: int
    precision: str


class Row(NamedTuple):
    """A cell over its seeds."""

    results: tuple[Result, ...] = ()
    failed: dict[int, str] = {}  # noqa: RUF012
    """By seed: what went wrong, in a line."""
    absent: str = ""
    """Why this table cannot have the cell."""

    @property
    def mIoU(self) -> float | None:  # noqa: N802
        """The mean over seeds; None without a result."""
        return mean(result.mIoU for result in self.results) if self.results else None

    @property
    def spread(self) -> float | None:
        """The sample's standard deviation over seeds; None with fewer than two."""
        return stdev(result.mIoU for result in self.results) if len(self.results) > 1 else None

    def IoU(self, name: str) -> float | None:  # noqa: N802
        """A class's, the mean over the seeds that have it."""
        values = [result.IoU[name] for result in self.results if name in result.IoU]
        return mean(values) if values else None


def identity(config: Config, out: Path) -> dict[str, Any]:
    """The settings that make a measurement what it is, flat; where `out` lies does not matter."""
    plain = json.loads(json.dumps(to_dict(config)))
    flat = {f"{section}.{name}": value for section, inner in plain.items() for name, value in inner.items()}
    start = config.train.init_from
    if start and Path(os.path.abspath(start)).is_relative_to(os.path.abspath(out)):  # noqa: PTH100
        flat["train.init_from"] = os.path.relpath(start, out)
    if config.train.schedule == "poly" and config.train.schedule_steps is None:  # what training makes of it
        flat["train.schedule_steps"] = config.train.steps
    return {name: value for name, value in flat.items() if name not in FREE}


def check(folder: Path, settings: dict[str, Any], out: Path) -> None:
    """UserError if a run folder holds a run, begun or done, of other settings."""
    before = _settings_of(folder, out)
    if before and _moved(before["train.init_from"], settings["train.init_from"], out):
        before = {**before, "train.init_from": settings["train.init_from"]}
    changed = [
        f"{name}: {before.get(name)} there, {settings.get(name)} now"
        for name in sorted(settings.keys() | (before or {}).keys())
        if before is not None and before.get(name) != settings.get(name)
    ]
    if changed:
        more = f"; and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise UserError(
            f"{folder} is a cell of other settings ({'; '.join(changed[:3])}{more}); give the settings that it began "
            "with, or choose another --out"
        )


def read(folder: Path, seed: int) -> Result | None:
    """The measurement in a run folder; None if it is not there, or not whole."""
    document = _document(folder) or {}
    if "settings" not in document or not document.keys() >= set(Result._fields) - {"seed"}:
        return None
    return Result(**{name: document[name] for name in Result._fields if name != "seed"}, seed=seed)


def finish(folder: Path, settings: dict[str, Any], threads: int) -> None:
    """Add to what `evaluate` wrote what it is the measurement of; from then on the run counts as done."""
    document = _document(folder)
    if document is None:
        raise UserError(f"{folder / 'metrics.json'} is not what evaluate writes; delete it and give the command again")
    steps = settings["train.steps"]
    document |= {"settings": settings, "steps": steps, "threads": threads, **_speed(folder, settings["train.batch"])}
    atomic.write(folder / "metrics.json", json.dumps(document, indent=2) + "\n")


def _document(folder: Path) -> dict[str, Any] | None:
    try:
        document = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def _settings_of(folder: Path, out: Path) -> dict[str, Any] | None:
    document = _document(folder)
    if document is not None and isinstance(document.get("settings"), dict):
        return {**identity(Config(), out), **document["settings"]}  # a setting newer than the file was at its default
    if (folder / "config.yaml").is_file():
        return identity(RunFolder(folder).read_config(), out)
    return None


def _moved(before: str | None, now: str | None, out: Path) -> bool:
    """Whether a start inside `out` is what a run begun there named by the place where `out` lay then."""
    if before is None or now is None or not (out / now).exists():
        return False
    parts = Path(now).parts
    return Path(before).parts[-len(parts) :] == parts


def _speed(folder: Path, batch: int) -> dict[str, float | None]:
    """Seconds and images/s of training, from the lines of metrics.jsonl: they outlive interruptions."""
    seconds, before, speeds = 0.0, 0, []
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if record.get("images_per_s"):
            speeds.append(record["images_per_s"])
            seconds += (record["step"] - before) * batch / record["images_per_s"]
            before = record["step"]
    return {"seconds": round(seconds, 1), "images_per_s": round(median(speeds), 2) if speeds else None}
