"""The checkpoint that settings are searched for, and where the best of them are written: its own config.json, or a copy's."""

import json
import os
import shutil
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from scaleseg import atomic, checkpoint
from scaleseg.config import RefineConfig
from scaleseg.errors import UserError
from scaleseg.refine_search.grid import values

__all__ = ["Target", "choose_target", "fingerprint"]

COPY = "checkpoint"
"""In OUT: what a bundled model and one of the Hub become."""


class Target(NamedTuple):
    """A folder, which may not be there yet."""

    folder: Path
    source: Path
    """Where the checkpoint lies that it is, or becomes a copy of."""

    @property
    def is_copy(self) -> bool:
        return self.folder != self.source

    def settings(self) -> RefineConfig:
        """Those that it has so far."""
        return checkpoint.read_config(self.folder if self.folder.exists() else self.source).refine

    def write(self, kind: str, best: RefineConfig) -> None:
        """Change this refinement's settings in its config.json, and nothing else, in one step."""
        settings = self.settings()
        if self.folder.exists():
            document = _document(self.folder)
            document["refine"] = {**asdict(settings), **values(best, kind)}
            atomic.write(self.folder / "config.json", json.dumps(document, indent=2) + "\n")
            return
        with atomic.fresh_folder(self.folder) as temporary:
            document = {**_document(self.source), "refine": {**asdict(settings), **values(best, kind)}}
            (temporary / "config.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
            for name in ("model.safetensors", "README.md"):
                if (self.source / name).is_file():
                    shutil.copyfile(self.source / name, temporary / name)


def choose_target(name: str, source: Path, out: Path) -> Target:
    """A folder of the user's own itself; of a bundled name, a Hub id or a folder that may not be written to, a copy.

    UserError if the place of the copy is taken by another checkpoint.
    """
    own = (Path(name) / "config.json").is_file() and os.access(source, os.W_OK)
    if own and not source.resolve().is_relative_to(checkpoint.BUNDLED.resolve()):
        return Target(source, source)
    copy = out / COPY
    if copy.exists() and not (_is_checkpoint(copy) and fingerprint(copy) == fingerprint(source)):
        raise UserError(f"{copy}, where {name} with its best settings is to be copied, is taken; choose another --out")
    return Target(copy, source)


def fingerprint(folder: Path) -> str:
    """A hash of all that scores depend on: config.json less `refine`, and the parameters."""
    document = {key: value for key, value in _document(folder).items() if key != "refine"}
    made = sha256(json.dumps(document, sort_keys=True).encode())
    with (folder / "model.safetensors").open("rb") as file:
        while part := file.read(2**20):
            made.update(part)
    return made.hexdigest()


def _is_checkpoint(folder: Path) -> bool:
    return all((folder / name).is_file() for name in ("config.json", "model.safetensors"))


def _document(folder: Path) -> dict[str, Any]:
    """Read by `checkpoint.read_config` before, so that it is there and JSON."""
    document: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return document
