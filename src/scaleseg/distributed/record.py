"""What an output folder knows of the run in it: its settings, what is done, and what failed.

    settings.json     what everything here was made with; another run's are refused
    done.jsonl        an image a line, written after its files, with their sizes
    failures.jsonl    an image a line, with the reason; of the last run alone, for failures are tried again

One process writes them, under a lock. A line that was cut short, or whose files are not there with these sizes, counts
for nothing.
"""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from scaleseg import atomic
from scaleseg.batch import Item, files_of
from scaleseg.errors import UserError

__all__ = ["Record", "sizes_of"]

SETTINGS, DONE, FAILURES = "settings.json", "done.jsonl", "failures.jsonl"


class Record:
    """The record of one output folder, held by this process while the context is open."""

    def __init__(self, out: Path, settings: dict[str, Any]) -> None:
        self.out, self.settings = out, settings
        self.wanted: list[str] = settings["save"]

    def __enter__(self) -> "Record":
        self._lock = atomic.lock(self.out, "another predict")
        try:
            self._check_settings()
            self._failures = (self.out / FAILURES).open("w", encoding="utf-8")
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._failures.close()
        self._lock.close()

    def unfinished(self, items: Sequence[Item]) -> list[int]:
        """Indices of the items that are still to do; the record of what is not there any more is dropped."""
        index = {item.name: number for number, item in enumerate(items)}
        done: set[int] = set()
        kept: list[str] = []
        dropped = False
        for line, entry in self._lines():
            number = index.get(entry["name"]) if entry else None
            good = entry is not None and (number is None or (number not in done and self._holds(entry, items[number])))
            if good:
                kept.append(line)
                done |= {number} if number is not None else set()
            dropped |= not good
        if dropped:
            atomic.write(self.out / DONE, "".join(kept))
        return [number for number in range(len(items)) if number not in done]

    def add(self, done: Sequence[tuple[Item, list[int]]], failed: Sequence[tuple[Item, str]]) -> None:
        """Note items whose files are there, with the sizes of these, and items that failed; on disk when it returns."""
        if done:
            with (self.out / DONE).open("a", encoding="utf-8") as file:
                _append(file, [{"name": item.name, "source": _source(item), "bytes": sizes} for item, sizes in done])
        if failed:
            _append(
                self._failures,
                [{"name": item.name, "source": _source(item), "problem": problem} for item, problem in failed],
            )

    def _check_settings(self) -> None:
        path = self.out / SETTINGS
        if not path.exists():
            (self.out / DONE).unlink(missing_ok=True)  # of whom? it says nothing of what it was made with
            atomic.write(path, json.dumps(self.settings, indent=2) + "\n")
            return
        try:
            theirs = json.loads(path.read_text(encoding="utf-8"))
            other = [key for key in self.settings if key != "checkpoint" and theirs[key] != self.settings[key]]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path} is damaged, so nothing is known of what is there; choose another --out") from None
        if "fingerprint" in other:
            raise UserError(
                f"{self.out} was begun with another checkpoint ({theirs['checkpoint']!r}); take that one, or choose another --out"
            )
        if other:
            key = other[0]
            raise UserError(
                f"{self.out} was begun with {key} {_said(theirs[key])}, not {_said(self.settings[key])}; "
                f"take the same --{key.replace('_', '-')}, or choose another --out"
            )

    def _lines(self) -> Iterator[tuple[str, dict[str, Any] | None]]:
        """Each line with what it says, None for one that was cut short or is damaged."""
        try:
            with (self.out / DONE).open(encoding="utf-8", errors="replace") as file:
                for line in file:
                    yield line, _entry(line)
        except FileNotFoundError:
            return

    def _holds(self, entry: dict[str, Any], item: Item) -> bool:
        """Whether the line is about this very image, and its files are there, whole."""
        return bool(entry["source"] == _source(item) and entry["bytes"] == sizes_of(self.out, item.name, self.wanted))


def sizes_of(out: Path, name: str, wanted: Sequence[str]) -> list[int]:
    """Bytes of each file of an item; -1 for one that is not there."""
    found = []
    for file in files_of(name, wanted):
        try:
            found.append((out / file).stat().st_size)
        except OSError:
            found.append(-1)
    return found


def _entry(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
        whole = line.endswith("\n") and {"name", "source", "bytes"} <= entry.keys()
    except (ValueError, AttributeError):
        return None
    return entry if whole and isinstance(entry["name"], str) else None


def _append(file: IO[str], entries: Sequence[dict[str, Any]]) -> None:
    file.write("".join(json.dumps(entry) + "\n" for entry in entries))
    file.flush()
    os.fsync(file.fileno())


def _source(item: Item) -> str:
    return item.url or str(item.source.absolute())


def _said(value: Any) -> str:
    return ",".join(value) if isinstance(value, list) else str(value)
