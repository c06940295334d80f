"""What a report is to be of, and the model that it means."""

import platform
import shlex
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from scaleseg import __version__
from scaleseg.config import Config
from scaleseg.devices import describe
from scaleseg.evaluation import best_of, open_checkpoint
from scaleseg.model import ScaleAware
from scaleseg.refine import Refine
from scaleseg.report.history import of_run
from scaleseg.report.words import listed, without_folders

__all__ = ["Bar", "Opened", "Wish", "facts", "footer", "open_model", "quiet"]

Bar = Callable[[str, int], AbstractContextManager[Callable[[], None]]]
"""A progress bar: from a title and a total, a function that counts one more."""


@dataclass(frozen=True)
class Wish:
    """What the user asks for."""

    checkpoint: str
    """A run's folder, a checkpoint's folder, a bundled name or a Hub id."""
    overrides: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    """Photographs without labels (files, folders, globs): no figures, only what was seen at which scale."""
    analysis: Path | None = None
    """What `evaluate --deep --json` wrote: the figures are not measured again."""
    device: str = "auto"
    refine: str = "none"
    max_memory: int | None = None
    command: tuple[str, ...] = ()
    """What was typed; it is shown without folders."""


@dataclass(frozen=True)
class Opened:
    """A model, ready to look at photographs."""

    wish: Wish
    name: str
    """For people: no folders of this machine."""
    config: Config
    model: ScaleAware
    sharpen: Refine | None
    history: Path | None
    """The metrics.jsonl of the run that the checkpoint lies in."""

    @property
    def how(self) -> str:
        """Device and refinement, for a line of output."""
        return f"{describe(self.model.mean.device)}; refine: {self.sharpen or 'none'}"


def open_model(wish: Wish) -> Opened:
    """Load what `wish.checkpoint` means; of a run, `best`, or `last` where nothing chose a best one."""
    chosen = best_of(wish.checkpoint)
    subject = open_checkpoint(chosen, wish.overrides, device=wish.device, refine=wish.refine)
    folder = Path(chosen)
    here = (folder / "config.json").is_file()  # else a bundled name or a Hub id
    return Opened(wish, _called(folder) if here else chosen, *subject, of_run(folder) if here else None)


def facts(opened: Opened) -> str:
    """The model in one line."""
    model, settings = opened.model, opened.config.model
    scales = listed([f"{scale:g}" for scale in model.scales])
    merged = f"scales {scales}, merged by {settings.fusion}" if len(model.scales) > 1 else f"one scale, {scales}"
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return f"{settings.segmenter}, {len(model.classes)} classes, {merged}, {parameters / 1e6:.2f} million parameters"


def footer(command: Sequence[str], model: str, data: str, how: str, *, notes: str = "") -> list[tuple[str, str]]:
    """How the page came about, for its end."""
    made = f"scaleseg {__version__}, PyTorch {torch.__version__}, Python {platform.python_version()}"
    rows = [("Model", model), ("Data", data), ("Computed on", how), ("Versions", made)]
    rows += [("Date", f"{datetime.now(UTC):%Y-%m-%d}"), *([("Notes", notes)] if notes else [])]
    return [("Command", shlex.join(map(without_folders, command))), *rows] if command else rows


def quiet(title: str, total: int) -> AbstractContextManager[Callable[[], None]]:
    """A progress bar that shows nothing."""
    return nullcontext(_nothing)


def _nothing() -> None:
    """Counts nothing."""


def _called(folder: Path) -> str:
    """A folder's own name, and the run's before `best` and `last`."""
    path = folder if folder.name and folder.name != ".." else folder.resolve()
    return f"{path.absolute().parent.name}/{path.name}" if path.name in ("best", "last") else path.name
