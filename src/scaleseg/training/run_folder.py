"""A run's folder: config.yaml, metrics.jsonl, checkpoints/step-N, and the pointers `last` and `best`.

At every moment, a kill leaves either the old state or the new one. One process at a time writes here.
"""

import json
import os
import shutil
import zlib
from pathlib import Path
from typing import IO, Any

from omegaconf import OmegaConf

from scaleseg import atomic
from scaleseg.config import Config, merge, to_dict
from scaleseg.errors import UserError

__all__ = ["RunFolder", "differences", "fingerprint"]

_held: set[IO[str]] = set()


def _let_go() -> None:
    """In a forked data worker, which may outlive a killed trainer for seconds and must not hold its lock."""
    for lock in _held:
        lock.close()
    _held.clear()


os.register_at_fork(after_in_child=_let_go)


class RunFolder:
    """The folder of one run, held by a lock that dies with its process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self._lock: IO[str] | None = None

    def __enter__(self) -> "RunFolder":
        self._lock = atomic.lock(self.path, "another run")
        _held.add(self._lock)
        for folder in (self.path, self.checkpoints):
            atomic.remove_leftovers(folder)
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock:
            _held.discard(self._lock)
            self._lock.close()

    def claimed(self) -> str:
        """The mark of the last torchrun that trained here; "" if none did."""
        try:
            return (self.path / ".lock").read_text(encoding="utf-8")
        except (OSError, ValueError):
            return ""

    def claim(self, mark: str) -> None:
        """Leave a mark, so that a torchrun which starts again knows its own run from another's."""
        assert self._lock
        self._lock.truncate(0)
        self._lock.write(mark)
        self._lock.flush()

    def read_config(self) -> Config:
        """The settings that the run was started with."""
        path = self.path / "config.yaml"
        try:
            content = OmegaConf.to_container(OmegaConf.load(path))
        except Exception as error:
            raise UserError(
                f"{path} cannot be read ({error}); restore it, or start again with another --out"
            ) from error
        if not isinstance(content, dict):
            raise UserError(f"{path} holds no settings; restore it, or start again with another --out")
        return merge({str(key): value for key, value in content.items()})

    def write_config(self, config: Config) -> None:
        """The resolved settings: they repeat the run."""
        atomic.write(self.path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(to_dict(config))))

    def newest(self) -> Path | None:
        """The checkpoint with most steps; one that is there is complete."""
        return max(self._saved(), key=_step, default=None)

    def checkpoint(self, step: int) -> Path:
        """Where the checkpoint of a step lies."""
        return self.checkpoints / f"step-{step}"

    def point(self, name: str, step: int) -> None:
        """`last` or `best` to a step's checkpoint, in one step."""
        atomic.point(self.path / name, f"checkpoints/step-{step}")

    def prune(self, keep: int, best: int) -> None:
        """Delete all but the newest `keep` checkpoints and the best."""
        for folder in sorted(self._saved(), key=_step)[:-keep]:
            if _step(folder) != best:
                shutil.rmtree(folder.rename(folder.with_name(f"{atomic.MARK}pruned-{folder.name}")), ignore_errors=True)

    def append(self, record: dict[str, Any]) -> None:
        """A line of metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def forget_after(self, step: int) -> None:
        """Drop lines of metrics.jsonl that a resumed run will write again, and one that a kill cut short."""
        path = self.path / "metrics.jsonl"
        if path.is_file():
            kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _is_before(line, step)]
            atomic.write(path, "".join(f"{line}\n" for line in kept))

    def _saved(self) -> list[Path]:
        """The checkpoints; a copy that somebody named step-5-old is none of ours."""
        return [path for path in self.checkpoints.glob("step-*") if path.name.removeprefix("step-").isdecimal()]


def differences(before: Config, now: Config) -> list[str]:
    """Settings that may not change on a resume and did, as sentences; paths, workers, length and logging may."""
    old, new = _flat(to_dict(before)), _flat(to_dict(now))
    return [
        f"{key}: {old.get(key)} then, {new.get(key)} now"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not _may_change(key, old.get(key), new.get(key))
    ]


def fingerprint(config: Config) -> int:
    """A number for the settings that every process must share: all but where things lie on its machine."""
    flat = _flat(to_dict(config))
    local = {"data.root", "data.train", "data.val", "data.workers", "model.pretrained", "train.init_from"}
    local |= {"data.dev"} if isinstance(flat["data.dev"], str) else set()
    return zlib.crc32(json.dumps([(key, value) for key, value in sorted(flat.items()) if key not in local]).encode())


FREE = {
    "data.root", "data.train", "data.val", "data.workers", "model.pretrained", "train.steps", "train.init_from",
    "train.log_every", "train.validate_every", "train.save_every", "train.save_minutes", "train.keep",
}  # fmt: skip

AFTERWARDS = {
    f"refine.{name}"
    for name in ("bi_w", "bi_xy_std", "bi_rgb_std", "pos_w", "pos_xy_std", "crf_iterations", "crf_max_pixels")
} | {"refine.sigma_s", "refine.sigma_r"}
"""No part of training."""


def _may_change(key: str, old: object, new: object) -> bool:
    """The development split may move as a file, but not change its share."""
    return key in FREE or key in AFTERWARDS or (key == "data.dev" and isinstance(old, str) and isinstance(new, str))


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and path != "data.label_map":
        return {k: v for name, inner in value.items() for k, v in _flat(inner, f"{path}.{name}".lstrip(".")).items()}
    return {path: value}


def _is_before(line: str, step: int) -> bool:
    try:
        return int(json.loads(line)["step"]) <= step
    except (ValueError, KeyError, TypeError):
        return False


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))
