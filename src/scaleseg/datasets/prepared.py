"""Folders that `scaleseg data prepare` made: images/, masks/, lists/ of ids, and prepared.json, which says that all is there.

Masks hold class ids and 255 for void. `data.train` and `data.val` name lists: `train`, `val`, or any of your own.
"""

import json
from pathlib import Path
from typing import Any

from scaleseg.config import DataConfig
from scaleseg.datasets.archive import Archive
from scaleseg.datasets.pairs import Pair, Pairs, images_in, table
from scaleseg.errors import UserError

__all__ = ["MARK", "list_split", "open_prepared", "read_mark", "refuse_unfinished"]

MARK = "prepared.json"
"""Written first with `finished` false, and last with true."""


def open_prepared(data: DataConfig, split: str, name: str, classes: tuple[str, ...]) -> Pairs:
    """The list that `data.train` or `data.val` names, of the folder that `data prepare NAME` wrote."""
    if data.root is None:
        raise UserError(f"data.root is not set; give the folder that `scaleseg data prepare {name}` wrote")
    root = Path(data.root)
    mark = read_mark(root)
    if mark is None:
        raise UserError(f"{root} has no {MARK}; give the folder that `scaleseg data prepare {name}` wrote")
    if mark.get("name") != name:
        raise UserError(f"{root} was prepared as {str(mark.get('name'))!r}; this dataset reads {name!r}")
    refuse_unfinished(root)
    archive = Archive(root)
    images, masks = images_in(archive, "images"), images_in(archive, "masks")
    ids = list_split(root / "lists" / f"{getattr(data, split) or split}.txt")
    for missing in (key for key in ids if key not in images or key not in masks):
        raise UserError(f"{missing} has no photograph or no mask in {root}; {_again(name)}")
    return Pairs([Pair(key, archive, images[key], masks[key]) for key in ids], classes, table(len(classes)))


def read_mark(folder: Path) -> dict[str, Any] | None:
    """What `prepared.json` of a folder says; None if there is none; UserError if it cannot be read."""
    path = folder / MARK
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); prepare the data into a new folder") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no settings; prepare the data into a new folder")
    return {str(key): value for key, value in content.items()}


def refuse_unfinished(folder: Path) -> None:
    """UserError if a `data prepare` was interrupted here; a folder made by hand passes."""
    mark = read_mark(folder)
    if mark is not None and mark.get("finished") is not True:
        raise UserError(f"{folder} is only half prepared; {_again(str(mark.get('name')))}")


def list_split(path: Path) -> list[str]:
    """A list's ids; UserError names the lists there are. Official ones may hold two paths a line: the first one counts."""
    if not path.is_file():
        there = sorted(item.stem for item in path.parent.glob("*.txt"))
        raise UserError(f"{path} does not exist; the lists there are: {', '.join(there) or 'none'}")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as text ({error}); it is a list of ids, one a line") from error
    return [Path(line.split()[0]).stem for line in lines if line.strip()]


def _again(name: str) -> str:
    return f"give the same `scaleseg data prepare {name}` again: it goes on where it stopped"
