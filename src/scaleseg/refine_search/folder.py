"""The folder of a search: what it was begun with, and every result as it came.

    cache/search.json             the checkpoint (as a hash), the photographs' names, the settings that a search began at
    cache/00000.safetensors, ...  what refinement needs of each photograph (cache.py)
    cache/results.jsonl           a line for each setting and image (measure.py)

At every moment, a kill leaves no more than a line cut short, which is dropped. One search at a time writes here.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scaleseg import atomic
from scaleseg.config import RefineConfig
from scaleseg.errors import UserError
from scaleseg.interruption import Interrupted
from scaleseg.refine_search.grid import values
from scaleseg.refine_search.measure import Tally, Task, label

__all__ = ["Results", "alone", "begin", "stop_if"]

FORMAT = 1


@contextmanager
def alone(out: Path) -> Iterator[Path]:
    """The folder `cache` of `out`, locked; UserError if it cannot be written or another search is there."""
    cache = out / "cache"
    with atomic.lock(out, "another search, or a run,"):
        cache.mkdir(exist_ok=True)
        for folder in (out, cache):
            atomic.remove_leftovers(folder)
        yield cache


def stop_if(interrupted: Sequence[int], out: Path) -> None:
    """Raises Interrupted once there is anything in `interrupted`."""
    if interrupted:
        raise Interrupted(f"stopped; what was done is saved in {out}, and the same command goes on")


def begin(cache: Path, checkpoint: str, names: Sequence[str], kind: str, settings: RefineConfig) -> dict[str, Any]:
    """The settings that the search of this refinement began at: `settings`, where it begins now.

    UserError if the folder holds a search of another checkpoint (by its hash) or on other photographs.
    """
    path = cache / "search.json"
    new = {"format": FORMAT, "checkpoint": checkpoint, "photographs": list(names), "start": {}}
    document = _read(path) if path.exists() else _fresh(cache, new)
    if document["checkpoint"] != checkpoint:
        raise UserError(
            f"{cache.parent} holds the search of another checkpoint; choose another --out, or delete {cache} to begin anew"
        )
    if document["photographs"] != list(names):
        raise UserError(
            f"{cache.parent} holds a search on other photographs ({_some(document['photographs'])} there, {_some(names)} "
            f"now); give the same data and --images, choose another --out, or delete {cache} to begin anew"
        )
    if kind not in document["start"]:
        document["start"][kind] = values(settings, kind)
        atomic.write(path, json.dumps(document, indent=2) + "\n")
    start: dict[str, Any] = document["start"][kind]
    return start


class Results:
    """What was measured so far, by setting and image; each line is written as it comes."""

    def __init__(self, cache: Path) -> None:
        path = cache / "results.jsonl"
        self._known: dict[tuple[str, int], Tally] = {}
        lines = path.read_bytes().split(b"\n") if path.exists() else []
        kept = [line for line in lines if self._take(line)]
        if b"\n".join([*kept, b""]) != b"\n".join(lines):
            atomic.write(path, b"".join(line + b"\n" for line in kept))
        self._file = path.open("ab")

    def __enter__(self) -> "Results":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, task: Task) -> Tally | None:
        """What was measured; None if it was not."""
        return self._known.get((label(task.refine, task.settings), task.image))

    def put(self, task: Task, tally: Tally) -> None:
        """Keep it, in the file too."""
        key = label(task.refine, task.settings), task.image
        line = {"refine": key[0], "image": key[1], **tally._asdict()}
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()
        self._known[key] = tally

    def _take(self, line: bytes) -> bool:
        try:
            said = json.loads(line)
            tally = Tally(*([(int(place), int(count)) for place, count in said[name]] for name in Tally._fields))
            self._known[str(said["refine"]), int(said["image"])] = tally
        except (ValueError, KeyError, TypeError):  # cut short by a kill
            return False
        return True


def _fresh(cache: Path, document: dict[str, Any]) -> dict[str, Any]:
    """`document`, if nothing is here that it would be mixed up with, or that a search would write over."""
    foreign = [item.name for item in cache.iterdir()]
    if foreign:
        raise UserError(f"{cache} holds {foreign[0]} and no search.json; delete {cache}, or choose another --out")
    table = cache.parent / "table.json"
    if table.exists() and '"searched"' not in table.read_text(encoding="utf-8", errors="replace"):
        raise UserError(f"{table} is the table of something else; choose another --out")
    return document


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        known = document["format"] == FORMAT and isinstance(document["start"], dict)
        known = known and isinstance(document["checkpoint"], str) and isinstance(document["photographs"], list)
    except (OSError, ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise UserError(f"{path} is damaged, or of another version; delete {path.parent} to begin anew")
    return dict(document)


def _some(names: Sequence[str]) -> str:
    return f"{len(names)}, the first {names[0]!r}" if names else "none"
