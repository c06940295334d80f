"""train, evaluate, predict."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaleseg.cli.output import bar, one_line, say
from scaleseg.errors import UserError

if TYPE_CHECKING:
    from scaleseg.metrics import Metrics

__all__ = ["add_to"]

Overrides = Annotated[list[str] | None, typer.Argument(help="Settings as key=value, such as train.steps=100.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Checkpoint = Annotated[str, typer.Argument(help="A checkpoint folder, a bundled name, or a Hub id.")]
Refinement = Annotated[
    str, typer.Option(help="none, crf, domain, or domain-learned: sharper edges, after the network.")
]
Precision = Annotated[str, typer.Option(help="float32, bf16 or auto (bf16 where it was measured to help).")]


def add_to(app: typer.Typer) -> None:
    """Hang these verbs on the app."""
    app.command(epilog="Try: scaleseg train shapes-attention train.steps=60 --out runs/shapes")(train)
    app.command(epilog="Try: scaleseg evaluate voc-animals-lite data.val=photos.zip")(evaluate)
    app.command(epilog="Try: scaleseg predict voc-animals-lite photos/ --out out/")(predict)


def train(
    recipe: Annotated[str, typer.Argument(help="The name of a recipe (scaleseg list) or the path of a YAML file.")],
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="The run's folder.", show_default=False)] = ...,  # type: ignore[assignment]
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, to the same bits.")] = False,
    device: Device = "auto",
) -> None:
    """Train a model; a killed run goes on with --resume. Many GPUs: torchrun --nproc-per-node N -m scaleseg train ..."""
    from scaleseg.devices import keep_memory
    from scaleseg.recipes import load_recipe
    from scaleseg.training import Interrupted, speaks
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
    precision: Precision = "float32",
    refine: Refinement = "none",
) -> None:
    """Measure a model: mIoU over a whole dataset, each photograph at its own resolution."""
    from scaleseg import atomic
    from scaleseg.checkpoint import load, locate, read_config
    from scaleseg.config import to_dict
    from scaleseg.datasets import open_evaluation
    from scaleseg.devices import choose_device, describe, place
    from scaleseg.evaluation import evaluate as measure
    from scaleseg.recipes import override
    from scaleseg.segmentation import choose_refine

    folder = locate(checkpoint)  # once: a Hub id could mean another commit the next time
    config = override(to_dict(read_config(folder)), overrides or [])
    measured = open_evaluation(config.data)
    where = choose_device(device)
    model = place(load(folder, config.model), where)
    model.refine = config.refine
    sharpen = choose_refine(model, refine)
    say(f"{measured.note}; {describe(where)}, {precision}; refine: {sharpen or 'none'}")
    with bar("evaluating", len(measured.dataset)) as advance:
        metrics = measure(
            model, measured.dataset, precision=precision, refine=sharpen, progress=lambda done, total: advance()
        )
    _print_metrics(metrics)
    if json_file:
        document = {
            **metrics.to_dict(), "checkpoint": checkpoint, "overrides": overrides or [], "precision": precision,
            "refine": repr(sharpen) if sharpen else "none", "device": describe(where), "note": measured.note,
        }  # fmt: skip
        try:
            atomic.write(json_file, json.dumps(document, indent=2) + "\n")
        except OSError as error:
            raise UserError(f"--json {json_file} cannot be written ({error.strerror}); choose another path") from error


def predict(
    checkpoint: Checkpoint,
    inputs: Annotated[list[str], typer.Argument(help="Image files, folders (with all below them) or globs.")],
    out: Annotated[Path, typer.Option(help="The folder to write to.", show_default=False)] = ...,  # type: ignore[assignment]
    save: Annotated[str, typer.Option(help="Which of masks, overlays, weights and edges to write, by comma.")] = (
        "masks,overlays,weights"
    ),
    layout: Annotated[
        str, typer.Option("--format", help="folders, or voc-server: masks alone, packed for PASCAL VOC's test server.")
    ] = "folders",
    ids: Annotated[
        Path | None,
        typer.Option(
            help="voc-server: only the images of this list, ImageSets/Segmentation/test.txt.", show_default=False
        ),
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    refine: Refinement = "none",
) -> None:
    """Segment photographs: masks, overlays, and which scale was believed where."""
    from scaleseg.batch import Item, find_images, segment_files
    from scaleseg.checkpoint import load
    from scaleseg.devices import choose_device, choose_precision, describe, place
    from scaleseg.errors import choose
    from scaleseg.voc_server import check_classes, pack, select

    for_server = choose("--format", layout, ("folders", "voc-server")) == "voc-server"
    if ids and not for_server:
        raise UserError(f"--ids is {ids}, which only --format voc-server takes; give the images themselves")
    items = find_images(inputs, out)
    where = choose_device(device)
    model = place(load(checkpoint), where)
    if for_server:
        check_classes(model.classes)
        items, save = select(items, ids), "masks"
    exact = choose_precision(precision, where, helps=model.segmenter.bf16_helps)
    say(f"{len(items)} {'image' if len(items) == 1 else 'images'}, {describe(where)}, {exact}; refine: {refine}")
    with bar("predicting", len(items)) as advance:

        def report(item: Item, problem: str | None) -> None:
            advance()
            if problem:
                say(f"scaleseg: skipped: {problem}", error=True)

        outcome = segment_files(
            model, items, out, save=[kind.strip() for kind in save.split(",")], precision=exact, refine=refine,
            report=report, tell=say,
        )  # fmt: skip
    say(f"{len(outcome.done)} of {len(items)} images segmented into {out}/")
    if for_server and not outcome.failed:
        say(f"packed for the VOC server: {pack(out, items)}")
    if outcome.failed:
        raise typer.Exit(1)


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
