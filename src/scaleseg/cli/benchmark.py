"""benchmark."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaleseg.cli.deep import written
from scaleseg.cli.output import say

if TYPE_CHECKING:
    from scaleseg.benchmark import Report

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Hang this verb on the app."""
    app.command(epilog="Try: scaleseg benchmark --size 321")(benchmark)


def benchmark(
    checkpoint: Annotated[
        str, typer.Argument(help="A checkpoint folder, a bundled name, or a Hub id.")
    ] = "voc-animals-lite",
    size: Annotated[int, typer.Option(help="Rows and columns of the image.")] = 513,
    seconds: Annotated[float, typer.Option(help="About how long to measure each engine.")] = 2.0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures here.", show_default=False)
    ] = None,
) -> None:
    """Measure what this machine does with a model, engine by engine; --engine auto chooses by what was found."""
    from scaleseg import atomic
    from scaleseg.benchmark import benchmark as measure

    if json_file:
        atomic.check_writable(json_file, "--json")
    report = measure(checkpoint, size=size, seconds=seconds, say=say)
    with written(json_file, report.to_dict()):
        _print(report)


def _print(report: "Report") -> None:
    """The table; the rich library draws it where it can."""
    from rich.console import Console
    from rich.table import Table

    table = Table("engine", "precision", min_width=64)
    for title in ("images/s", "ms", "memory MiB", "of peak %"):
        table.add_column(title, justify="right")
    for result in report.results:
        memory = f"{result.memory / 2**20:.0f}" if result.memory else "-"
        share = f"{100 * result.peak_share:.0f}" if result.peak_share else "-"
        each = (f"{result.images_per_second:.2f}", f"{1000 * result.seconds:.0f}", memory, share)
        table.add_row(result.engine, result.precision, *each)
    Console().print(table)
    peaks = ", ".join(f"{value:.0f} in {precision}" for precision, value in report.peaks.items())
    say(f"{report.gflop:.1f} GFLOP an image; a large convolution reaches {peaks} GFLOP/s on {report.processor}")
    say(f"--engine auto chooses by this from now on ({report.table})")
