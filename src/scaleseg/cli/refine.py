"""refine-search."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaleseg.cli.output import bar, say

if TYPE_CHECKING:
    from scaleseg.refine_search import Found, Order

__all__ = ["add_to"]

SHOWN = 5
"""Rows that are printed; table.md has all."""


def add_to(app: typer.Typer) -> None:
    """Hang this verb on the app."""
    app.command(
        name="refine-search", epilog="Try: scaleseg refine-search runs/a/best --refine domain --out runs/a-domain"
    )(refine_search)


def refine_search(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint folder, a bundled name, or a Hub id.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="Settings as key=value: data.train and data.dev as in training, or where to begin, such as refine.bi_w=3."
        ),
    ] = None,
    refine: Annotated[str, typer.Option(help="crf, domain, or domain-learned.", show_default=False)] = ...,  # type: ignore[assignment]
    out: Annotated[Path, typer.Option(help="The folder of the table and of what is done.", show_default=False)] = ...,  # type: ignore[assignment]
    images: Annotated[
        int, typer.Option(min=1, help="Photographs, evenly spaced over the development split.", metavar="N")
    ] = 100,
    rounds: Annotated[int, typer.Option(min=1, help="Grids: each is half as wide as the one before.", metavar="N")] = 3,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes; else as many as there are cores. Results are the same.",
            metavar="N",
            show_default=False,
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Of the network: auto, cpu, cuda, cuda:N or mps.")] = "auto",
) -> None:
    """Find a refinement's settings for a model, coarse to fine, on photographs that no figure is reported on.

    These are the run's development split, or with data.val=PATH, and no
    data.train, those. The best settings go into the checkpoint's config.json
    (of a bundled model, or one of the Hub, into that of a copy, OUT/checkpoint).
    Ctrl-C ends; the same command goes on.
    """
    from scaleseg.devices import cores
    from scaleseg.interruption import Interrupted
    from scaleseg.refine_search import Order, search

    command = shlex.join(["scaleseg", *sys.argv[1:]])
    order = Order(
        checkpoint, refine, out, tuple(overrides or ()), images, rounds, jobs or cores(), device, command=command
    )
    try:
        found = search(order, say=say, progress=bar)
    except Interrupted as stop:
        say(f"scaleseg: {stop}", error=True)
        raise typer.Exit(130) from None
    _show(found)
    _end(found, order)


def _show(found: "Found") -> None:
    """The best rows, and that without refinement."""
    from rich.console import Console
    from rich.table import Table

    from scaleseg.metrics import TRIMAP

    rows = found.table.ranked[:SHOWN]
    rows += [found.table.none] if found.table.none not in rows else []
    table = Table(*found.table.names, "mIoU %", f"within {TRIMAP} px of borders", "round")
    for column in table.columns:
        column.justify = "right"
    for row in rows:
        table.add_row(*found.table.cells(row))
    Console().print(table)


def _end(found: "Found", order: "Order") -> None:
    """What was written where, and what to do with it."""
    table, best, before = found.table, found.table.best, found.before
    say(f"all {len(table.rows)} rows: {order.out}/table.md, table.json")
    if best.mIoU <= table.none.mIoU:
        say(f"no setting of {order.refine} is better than none on these photographs")
    where = found.target.folder if found.target.is_copy else Path(order.checkpoint)
    if found.better:
        gain = 100 * (best.mIoU - before.mIoU)
        new = f"a copy of {order.checkpoint}" if found.target.is_copy else "its parameters are as they were"
        say(f"wrote the best settings, {gain:.2f} points above those before, into {where / 'config.json'} ({new})")
    else:
        say(f"{order.checkpoint} keeps its settings: none that was tried is better")
        where = where if where.exists() else Path(order.checkpoint)
    say(f"next: {_next(found, order, where)}")


def _next(found: "Found", order: "Order", where: Path) -> str:
    """The command that measures what was found, on the photographs that are reported."""
    data = [item for item in order.overrides if item.startswith(("data.", "data="))]
    data = [item for item in data if not item.startswith(("data.train=", "data.dev="))]
    data += [] if found.reported else ["data.val=PATH"]
    return shlex.join(["scaleseg", "evaluate", str(where), *data, "--refine", order.refine])
