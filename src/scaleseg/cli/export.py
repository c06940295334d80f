"""export."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaleseg.cli.output import say

if TYPE_CHECKING:
    from scaleseg.export import Difference, Format
    from scaleseg.model import ScaleAware

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Hang this verb on the app."""
    app.command(epilog="Try: scaleseg export voc-animals-lite animals.onnx --format onnx --verify")(export)


def export(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint folder, a bundled name, or a Hub id.")],
    out: Annotated[Path, typer.Argument(help="What to write: NAME.pt2, NAME.onnx, or for openvino a folder.")],
    layout: Annotated[str, typer.Option("--format", help="pt2 (PyTorch), onnx or openvino.", show_default=False)] = ...,  # type: ignore[assignment]
    precision: Annotated[
        str, typer.Option(help="Of the parameters in the file: float32, or float16 (not pt2; half the size).")
    ] = "float32",
    labels: Annotated[bool, typer.Option("--labels", help="Give the class ids too, as bytes.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Run the file in its own runtime and compare with PyTorch.")
    ] = False,
    images: Annotated[
        list[str] | None,
        typer.Option(help="For --verify: your own images, a folder or a glob; as often as needed.", show_default=False),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="For --verify: the largest score error that passes, as a part of the scores' range (0.0001; 0.02 for float16).",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a model as one file for programs without scaleseg, for images of every size.

    It takes RGB bytes (n, 3, rows, columns) as `images` and gives `scores` and
    `scale_weights` at the image's size; preprocessing is inside.
    """
    from scaleseg.checkpoint import load
    from scaleseg.export import check_out, choose_format, export_model

    kind = choose_format(layout, precision, out)
    check_out(out)
    chosen = _images(images, verify, tolerance, out)
    model = load(checkpoint)
    done = export_model(model, out, kind, precision=precision, labels=labels, name=_name(checkpoint))
    say(
        f"wrote {out}, {done.bytes / 1e6:.1f} MB, {precision}: {', '.join(done.outputs)}, sides from {done.smallest} pixels"
    )
    if verify:
        _verify(model, out, kind, chosen, precision, tolerance)
    else:
        say(f"not verified; remove it and give --verify too, to compare it with PyTorch in {kind.name}'s own runtime")
    say(f"use it: {kind.usage.format(out=out)}")


def _images(given: list[str] | None, verify: bool, tolerance: float | None, out: Path) -> list[Path]:
    """The files that --images names; UserError for options that would do nothing."""
    from scaleseg.batch import find_images
    from scaleseg.errors import UserError
    from scaleseg.images import read

    if (given or tolerance is not None) and not verify:
        raise UserError(f"{'--images' if given else '--tolerance'} is given, which only --verify uses; give that too")
    if tolerance is not None and not tolerance >= 0:
        raise UserError(f"--tolerance is {tolerance}; give 0 or more, a part of the scores' range such as 0.0001")
    paths = [Path(item.source) for item in find_images(given, out)] if given else []
    for path in paths:  # one that cannot be read is told before the model is converted, and the file written
        read(path)
    return paths


def _verify(
    model: "ScaleAware", out: Path, kind: "Format", images: list[Path], precision: str, tolerance: float | None
) -> None:
    """Say how far it is from PyTorch; exit code 1 if that is too far."""
    from scaleseg.export import TOLERANCE, verify_export

    limit = TOLERANCE[precision] if tolerance is None else tolerance
    verified = verify_export(model, out, kind, images=images, tolerance=limit, report=_tell)
    say(
        f"largest score error {verified.error:.1e} of the scores' range (tolerance {limit:g}); "
        f"{100 * verified.agreement:.4f} % equal labels"
    )
    if not verified.passed:
        say(f"scaleseg: {out} does not say what the model says; do not use it, and please report it", error=True)
        raise typer.Exit(1)


def _tell(one: "Difference") -> None:
    say(
        f"  {one.batch} x {one.size[0]} x {one.size[1]} ({one.name}): score error {one.error:.1e}, "
        f"weight error {one.weights:.1e} on average, {100 * one.agreement:.4f} % equal labels"
    )


def _name(checkpoint: str) -> str:
    """As given; of a folder elsewhere on this machine the last parts only."""
    return "/".join(Path(checkpoint).parts[-2:]) if Path(checkpoint).is_absolute() else checkpoint
