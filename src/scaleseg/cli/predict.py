"""predict."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
    check,
)
from scaleseg.cli.output import bar, say
from scaleseg.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from scaleseg.batch import Item
    from scaleseg.engines import Plan

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Hang this verb on the app."""
    app.command(epilog="Try: scaleseg predict voc-animals-lite photos/ --out out/")(predict)


def predict(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint folder, a bundled name, or a Hub id.")],
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Image files, folders (with all below them), globs, lists (@list.txt) or addresses (s3://...)."
        ),
    ],
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
    engine: EngineName = "torch",
    precision: Precision = "auto",
    calibration: Calibration = None,
    refine: Refinement = "none",
    skip: Skip = None,
    flip: Flip = False,
    max_memory: MaxMemory = None,
    distributed: Annotated[
        bool, typer.Option("--distributed", help="Many workers, by Ray; a stopped run goes on where it was.")
    ] = False,
    ray_address: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="--distributed: a Ray that runs already.", show_default=False),
    ] = None,
    actors: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="--distributed: how many workers.", show_default=False)
    ] = None,
) -> None:
    """Segment photographs: masks, overlays, and which scale was believed where."""
    from scaleseg.batch import left_out
    from scaleseg.distributed import find_inputs, segment_distributed
    from scaleseg.engines import Plan
    from scaleseg.errors import choose

    for_server = choose("--format", layout, ("folders", "voc-server")) == "voc-server"
    if ids and not for_server:
        raise UserError(f"--ids is {ids}, which only --format voc-server takes; give the images themselves")
    if not distributed and (ray_address or actors):
        raise UserError("--ray-address and --actors are for --distributed; give that too, or leave them out")
    if distributed and (for_server or calibration):
        raise UserError("--distributed goes with neither --format voc-server nor --calibration; leave one out")
    items, kinds = find_inputs(inputs, out), [kind.strip() for kind in save.split(",")]
    if others := left_out(inputs):
        say(others)
    plan, limit = Plan(engine, precision, skip, flip), bytes_of(max_memory)
    check(plan, calibration=calibration, refine=refine, save=kinds)
    if not distributed:
        _alone(checkpoint, items, out, kinds, plan, limit, refine, device, calibration, for_server=for_server, ids=ids)
        return
    with bar("predicting", len(items)) as advance:
        totals = segment_distributed(
            checkpoint, items, out, save=kinds, plan=plan, max_memory=limit, refine=refine, device=device,
            address=ray_address, actors=actors, report=_reporter(advance), tell=say,
        )  # fmt: skip
    before = f", {totals.before} of them before" if totals.before else ""
    say(f"{totals.done + totals.before} of {len(items)} images segmented into {out}/{before}")
    if totals.failed:
        raise typer.Exit(1)


def _alone(
    checkpoint: str,
    items: "list[Item]",
    out: Path,
    kinds: list[str],
    plan: "Plan",
    limit: int | None,
    refine: str,
    device: str,
    calibration: str | None,
    *,
    for_server: bool,
    ids: Path | None,
) -> None:
    """In this process; exit 1 if an image failed."""
    from scaleseg.batch import check_save, make_folder, segment_files
    from scaleseg.checkpoint import load
    from scaleseg.devices import choose_device, describe, place
    from scaleseg.segmentation import choose_refine
    from scaleseg.voc_server import check_classes, pack, select

    where = choose_device(device)
    model = place(load(checkpoint), where)
    if for_server:
        check_classes(model.classes)
        items, kinds = select(items, ids), ["masks"]
    check_save(model, kinds)
    sharpen = choose_refine(model, refine)
    make_folder(out)  # before an engine converts the model, which takes seconds to minutes
    computes = build(model, plan, calibration=calibration, refine=refine, save=kinds)
    what = f"{len(items)} {'image' if len(items) == 1 else 'images'}"
    say(f"{what}, {describe(where)}; {computes.name}, {computes.precision}; refine: {refine}")
    with bar("predicting", len(items)) as advance:
        outcome = segment_files(
            model, items, out, save=kinds, refine=sharpen, engine=computes, max_memory=limit,
            report=_reporter(advance), tell=say,
        )  # fmt: skip
    say(f"{len(outcome.done)} of {len(items)} images segmented into {out}/")
    if for_server and not outcome.failed:
        say(f"packed for the VOC server: {pack(out, items)}")
    if outcome.failed:
        raise typer.Exit(1)


def _reporter(advance: "Callable[[], None]") -> "Callable[[Item, str | None], None]":
    """Moves the bar, and says which image failed and why."""

    def report(item: "Item", problem: str | None) -> None:
        advance()
        if problem:
            say(f"scaleseg: skipped: {problem}", error=True)

    return report
