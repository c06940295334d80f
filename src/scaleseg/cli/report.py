"""report."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from scaleseg.cli.engines import Device, MaxMemory, Refinement, bytes_of
from scaleseg.cli.output import bar, say

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Hang this verb on the app."""
    app.command(epilog="Try: scaleseg report voc-animals-lite data.val=photos.zip --out report.html")(report)


def report(
    checkpoint: Annotated[
        str, typer.Argument(help="A run's folder, a checkpoint's folder, a bundled name, or a Hub id.", metavar="RUN")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings as key=value, such as data.val=photos.zip.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The page to write.", show_default=False)] = ...,  # type: ignore[assignment]
    images: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH",
            help="Photographs without labels (a file, a folder or a glob; may be given again): no figures, only what the "
            "model sees and which scale it believes where.",
            show_default=False,
        ),
    ] = None,
    analysis: Annotated[
        Path | None,
        typer.Option(help="What evaluate --deep --json wrote: figures are not measured again.", show_default=False),
    ] = None,
    device: Device = "auto",
    refine: Refinement = "none",
    max_memory: MaxMemory = None,
) -> None:
    """Write one page to hand on: figures with intervals, charts, and photographs with what was seen at which scale."""
    from scaleseg.report import Wish
    from scaleseg.report import report as write

    wish = Wish(
        checkpoint, tuple(overrides or ()), tuple(images or ()), analysis, device, refine, bytes_of(max_memory),
        ("scaleseg", *sys.argv[1:]),
    )  # fmt: skip
    path = write(wish, out, say=say, bar=bar)
    say(f"open {path}")
