"""train, evaluate."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaleseg.cli.deep import bare, print_analysis, written
from scaleseg.cli.engines import (
    Calibration,
    Device,
    EngineName,
    Flip,
    MaxMemory,
    Precision,
    Refinement,
    Skip,
    build,
    bytes_of,
)  # fmt: skip
from scaleseg.cli.output import bar, one_line, say

if TYPE_CHECKING:
    from scaleseg.metrics import Metrics

__all__ = ["add_to"]

Overrides = Annotated[list[str] | None, typer.Argument(help="Settings as key=value, such as train.steps=100.")]
Checkpoint = Annotated[str, typer.Argument(help="A checkpoint folder, a bundled name, or a Hub id.")]


def add_to(app: typer.Typer) -> None:
    """Hang these verbs on the app."""
    app.command(epilog="Try: scaleseg train shapes-attention train.steps=60 --out runs/shapes")(train)
    app.command(epilog="Try: scaleseg evaluate voc-animals-lite data.val=photos.zip")(evaluate)


def train(
    recipe: Annotated[str, typer.Argument(help="The name of a recipe (scaleseg list) or the path of a YAML file.")],
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="The run's folder.", show_default=False)] = ...,  # type: ignore[assignment]
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, to the same bits.")] = False,
    device: Device = "auto",
) -> None:
    """Train a model; a killed run goes on with --resume. Many GPUs: torchrun --nproc-per-node N -m scaleseg train ..."""
    from scaleseg.devices import keep_memory
    from scaleseg.interruption import Interrupted
    from scaleseg.recipes import load_recipe
    from scaleseg.training import speaks
    from scaleseg.training import train as run

    keep_memory()
    try:
        config = load_recipe(recipe, overrides or [])
        folder = run(config, out, resume=resume, device=device, say=say)
    except Interrupted as stop:
        say(f"scaleseg: {stop}", error=True)
        raise typer.Exit(130) from None
    if speaks():
        where = "" if config.data.val is not None else " data.val=..."
        say(f"done: {folder} (also {out}/last); next: scaleseg evaluate {out}/best{where}")


def evaluate(
    checkpoint: Checkpoint,
    overrides: Overrides = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures here.", show_default=False)
    ] = None,
    device: Device = "auto",
    engine: EngineName = "torch",
    precision: Precision = "float32",
    calibration: Calibration = None,
    refine: Refinement = "none",
    skip: Skip = None,
    flip: Flip = False,
    max_memory: MaxMemory = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Say why too: by fusion and object size, borders, calibration, scales.")
    ] = False,
) -> None:
    """Measure a model: mIoU over a whole dataset, each photograph at its own resolution."""
    from scaleseg import atomic
    from scaleseg.analysis import analyze
    from scaleseg.datasets import open_evaluation
    from scaleseg.devices import describe
    from scaleseg.engines import Plan
    from scaleseg.evaluation import evaluate as measure
    from scaleseg.evaluation import open_checkpoint

    if json_file:
        atomic.check_writable(json_file, "--json")
    config, model, sharpen = open_checkpoint(checkpoint, overrides or (), device=device, refine=refine)
    measured, where, limit = open_evaluation(config.data), model.mean.device, bytes_of(max_memory)
    computes = build(model, Plan(engine, precision, skip, flip), calibration=calibration, refine=refine)
    how = f"{computes.name}, {computes.precision}"
    say(f"{measured.note}; {describe(where)}; {how}; refine: {sharpen or 'none'}")
    with bar("evaluating", len(measured.dataset)) as advance:
        options: dict[str, Any] = {"refine": sharpen, "engine": computes, "max_memory": limit}
        options["progress"] = lambda done, total: advance()
        analysis = analyze(model, measured.dataset, **options) if deep else None
        metrics = analysis.metrics if analysis else measure(model, measured.dataset, **options)
    document = {
        **metrics.to_dict(), "checkpoint": checkpoint, "overrides": overrides or [],
        "engine": computes.name, "precision": computes.precision, "max_memory": max_memory,
        "refine": repr(sharpen) if sharpen else "none", "device": describe(where), "note": measured.note,
    }  # fmt: skip
    if analysis:
        document |= {"checkpoint": bare(checkpoint), "overrides": [bare(item) for item in overrides or []]}
        document |= {"note": bare(measured.note), "analysis": analysis.to_dict()}
    with written(json_file, document):
        _print_metrics(metrics)
        if analysis:
            print_analysis(analysis, refined=sharpen is not None)


def _print_metrics(metrics: "Metrics") -> None:
    """A table in percent; the rich library draws it where it can."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        "class",
        "IoU %",
        title=f"{metrics.images} images, {metrics.pixels:,} labelled pixels",
        title_justify="left",
        min_width=48,
    )
    table.columns[1].justify = "right"
    for name, value in metrics.IoU.items():
        table.add_row(escape(one_line(name)), f"{100 * value:.2f}")
    console = Console()
    console.print(table)
    if metrics.absent:
        say(f"in neither labels nor predictions, and in no mean: {', '.join(metrics.absent)}")
    each = "  ".join(f"scale {scale}: {100 * value:.2f}" for scale, value in metrics.per_scale.items())
    console.print(f"mIoU of each scale alone   {each}", highlight=False)
    console.print(
        f"mIoU {100 * metrics.mIoU:.2f} %   mAcc {100 * metrics.mAcc:.2f} %   aAcc {100 * metrics.aAcc:.2f} %   "
        f"fwIoU {100 * metrics.fwIoU:.2f} %{_near_borders(metrics)}",
        highlight=False,
    )


def _near_borders(metrics: "Metrics") -> str:
    from scaleseg.metrics import TRIMAP

    if metrics.trimap_mIoU is None:
        return ""
    return f"   mIoU within {TRIMAP} px of borders {100 * metrics.trimap_mIoU:.2f} %"
