"""compare."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from scaleseg.cli.deep import bare, table, written
from scaleseg.cli.engines import Device, MaxMemory, Refinement, bytes_of
from scaleseg.cli.output import bar, one_line, say
from scaleseg.errors import UserError

if TYPE_CHECKING:
    from scaleseg.analysis import Analysis, Comparison

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Hang this verb on the app."""
    app.command(epilog="Try: scaleseg compare average.json attention.json")(compare)


def compare(
    first: Annotated[str, typer.Argument(help="What evaluate --deep --json wrote, or a run, or a checkpoint.")],
    second: Annotated[str, typer.Argument(help="The other: a gain is its gain.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings as key=value, for runs and checkpoints, such as data.val=PATH.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the differences here.", show_default=False)
    ] = None,
    device: Device = "auto",
    refine: Refinement = "none",
    max_memory: MaxMemory = None,
) -> None:
    """Say whether one model is better than another by more than chance: a paired bootstrap over photographs.

    Files are compared as they are; a run (its best) or a checkpoint is
    measured first, on the same photographs.
    """
    from scaleseg import atomic
    from scaleseg.analysis import compare as judge

    if json_file:
        atomic.check_writable(json_file, "--json")
    given = [item for item in (first, second) if not Path(item).is_file()]
    if overrides and not given:
        raise UserError(f"{overrides[0]} is a setting for a run or a checkpoint, but both are files; leave it out")
    how = _How(tuple(overrides or ()), device, refine, max_memory)
    comparison = judge(*(_analysis(item, how) for item in (first, second)))
    names = _names(first, second)
    document = {"first": bare(first), "second": bare(second), "overrides": [bare(item) for item in how.overrides]}
    with written(json_file, {**document, **comparison.to_dict()}):
        _print(comparison, names)
        say(comparison.sentence(*names))


class _How(NamedTuple):
    """How a checkpoint is measured."""

    overrides: tuple[str, ...]
    device: str
    refine: str
    max_memory: str | None


def _analysis(name: str, how: _How) -> "Analysis":
    from scaleseg.analysis import read

    return read(Path(name)).analysis if Path(name).is_file() else _measured(name, how)


def _measured(name: str, how: _How) -> "Analysis":
    """What `evaluate --deep` finds of a checkpoint, or of a run's best."""
    from scaleseg.analysis import analyze
    from scaleseg.datasets import open_evaluation
    from scaleseg.devices import describe
    from scaleseg.evaluation import best_of, open_checkpoint

    config, model, sharpen = open_checkpoint(best_of(name), how.overrides, device=how.device, refine=how.refine)
    measured = open_evaluation(config.data)
    say(f"{name}: {measured.note}; {describe(model.mean.device)}; refine: {sharpen or 'none'}")
    with bar(f"measuring {one_line(name)}", len(measured.dataset)) as advance:
        return analyze(
            model, measured.dataset, refine=sharpen, max_memory=bytes_of(how.max_memory),
            progress=lambda done, total: advance(),
        )  # fmt: skip


def _names(first: str, second: str) -> tuple[str, str]:
    """What the two are called in tables and in the sentence: as short as tells them apart."""
    short = Path(first).name.removesuffix(".json"), Path(second).name.removesuffix(".json")
    if short[0] == short[1] or not all(short):
        short = bare(first), bare(second)
    return short if short[0] != short[1] else ("the first", "the second")


def _print(comparison: "Comparison", names: Sequence[str]) -> None:
    from rich.console import Console
    from rich.markup import escape

    from scaleseg.analysis import SIZES

    borders = (0.0, *SIZES, 1.0)
    rows = {"mIoU": comparison.mIoU, "boundary IoU": comparison.boundary_IoU, **comparison.IoU}
    rows |= {
        f"objects of {100 * low:g} to {100 * high:g} %": found
        for low, high, found in zip(borders, borders[1:], comparison.sizes, strict=False)
        if found
    }
    shown = table(
        "IoU in %", *(escape(one_line(name)) for name in names), "difference", "95 % interval", "chance?", title=""
    )
    for name, found in rows.items():
        value, low, high = (100 * figure for figure in found.difference)
        figures = f"{100 * found.first:.2f}", f"{100 * found.second:.2f}", f"{value:+.2f}", f"{low:+.2f} to {high:+.2f}"
        shown.add_row(escape(one_line(name)), *figures, "no" if found.is_certain else "may be")
    Console().print(shown)
