"""ablate."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaleseg.cli.output import say

if TYPE_CHECKING:
    from scaleseg.ablate.sheet import Sheet

__all__ = ["add_to"]

ONLY = (
    "Choose cells: a name (baseline, msc, or FUSION-SCALES with -es for extra supervision: max-2, average-3, "
    "attention-3-es) or KEY=VALUE of their settings, such as model.fusion=attention, model.scales=[1,0.5] or "
    "train.extra_supervision=true. May be given again: names add up, of several keys all must hold."
)
TABLE = (
    "voc (the paper's Table 3; with --init coco Table 5), person-part (Tables 1 and 2), coco (6 and 7), or one that the "
    "paper does not have: voc-animals, camvid, shapes."
)
INIT = "What every cell starts from: a checkpoint, or coco, which trains the recipe coco-pretrain first (needs --coco-root)."


def add_to(app: typer.Typer) -> None:
    """Hang this verb on the app."""
    app.command(epilog="Try: scaleseg ablate shapes --out runs/t")(ablate)


def ablate(
    table: Annotated[str, typer.Argument(help=TABLE)],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings of all cells as key=value, such as data.root=VOCdevkit.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder of the runs and the table.", show_default=False)] = ...,  # type: ignore[assignment]
    recipe: Annotated[
        str, typer.Option(help="A recipe instead of the table's own, by name or path.", show_default=False)
    ] = "",
    only: Annotated[list[str] | None, typer.Option(help=ONLY, metavar="NAME|KEY=VALUE")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each cell, with the seeds 0 to N-1.", metavar="N")] = 1,
    jobs: Annotated[
        int, typer.Option(min=1, help="Cells at a time; on several GPUs they take turns.", metavar="N")
    ] = 1,
    init: Annotated[str | None, typer.Option(help=INIT, metavar="CHECKPOINT|coco", show_default=False)] = None,
    coco_root: Annotated[Path | None, typer.Option(help="COCO's folder, for --init coco.", show_default=False)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
) -> None:
    """Train and measure every cell of one of the paper's tables, and lay them out beside the paper's own figures.

    Cells are {max, average, attention} x {2, 3 scales} x {without, with extra supervision}, one scale, and MSc. OUT gets
    table.md, table.json and table.svg, anew after every cell. Ctrl-C saves and ends; the same command goes on. A cell
    that fails does not stop the others; the exit code is then 1.
    """
    from scaleseg.ablate import Plan
    from scaleseg.ablate import ablate as carry_out
    from scaleseg.interruption import Interrupted

    plan = Plan(table, out, tuple(overrides or ()), recipe, tuple(only or ()), seeds, init, coco_root)
    command = shlex.join(["scaleseg", *sys.argv[1:]])
    try:
        sheet = carry_out(plan, jobs=jobs, device=device, command=command, say=say)
    except Interrupted as stop:
        say(f"scaleseg: {stop}", error=True)
        raise typer.Exit(130) from None
    _end(sheet, out)


def _end(sheet: "Sheet", out: Path) -> None:
    """Where the table is, and which cells failed."""
    failed = [f"{name} seed {seed}" for name, row in sheet.rows.items() for seed in row.failed]
    say(f"{'with failures' if failed else 'done'}: {out}/table.md, table.json, table.svg")
    if failed:
        say(
            f"scaleseg: failed: {', '.join(failed)}; their log.txt says more, and the same command tries again",
            error=True,
        )
        raise typer.Exit(1)
