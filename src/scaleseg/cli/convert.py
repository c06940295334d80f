"""import-caffe."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaleseg.cli.output import say
from scaleseg.errors import UserError

if TYPE_CHECKING:
    from scaleseg.caffe_import import Imported

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Hang these verbs on the app."""
    app.command(
        name="import-caffe", epilog="Try: scaleseg import-caffe train_iter_6000.caffemodel --to models/largefov"
    )(import_caffe)


def import_caffe(
    net: Annotated[Path, typer.Argument(help="The .caffemodel, of any of Caffe's formats; no .prototxt is needed.")],
    to: Annotated[Path, typer.Option(help="The folder to write: new, or empty.", show_default=False)] = ...,  # type: ignore[assignment]
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            help="What a layer is, as THEIRS=OURS (such as score=fc8), or THEIRS=- to leave it out; as often as needed.",
            show_default=False,
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(help="Names by comma, in the order of the scores; else VOC's 21, or numbers.", show_default=False),
    ] = None,
) -> None:
    """Take the parameters of a Caffe network over.

    A checkpoint folder comes of DeepLab-LargeFOV, DeepLab-MSc-LargeFOV and
    DeepLab v2 on ResNet-101, at one scale or several, with or without attention;
    a file for model.pretrained of ImageNet's VGG-16 and ResNet-101, and of
    DeepLab's "init" models.
    """
    from scaleseg.caffe_import import import_caffe as take_over

    listed = [name.strip() for name in classes.split(",") if name.strip()] if classes is not None else None
    done = take_over(net, to, names=_mapping(names or []), classes=listed)
    say(
        f"{net} (Caffe {done.version}): {done.title}; {done.layers} layers with parameters, {done.parameters:,} numbers"
    )
    if done.left_out:
        say(f"left out: {', '.join(done.left_out)}")
    for note in done.notes:
        say(f"note: {note}")
    say(f"wrote {done.written}; next: {_next(done)}")


def _mapping(given: list[str]) -> dict[str, str]:
    names: dict[str, str] = {}
    for item in given:
        theirs, separator, ours = item.partition("=")
        if not (theirs and separator and ours):
            raise UserError(f"--map is {item!r}; give THEIRS=OURS, such as score=fc8, or THEIRS=- to leave a layer out")
        if names.setdefault(theirs, ours) != ours:
            raise UserError(f"--map says {theirs}={names[theirs]} and {item}; say once what a layer is")
    return names


def _next(done: "Imported") -> str:
    written = shlex.quote(str(done.written))
    if done.complete:
        return f"scaleseg predict {written} photos/ --out out/"
    recipe = "voc-resnet101" if done.segmenter == "resnet101" else "voc-attention"
    return f"scaleseg train {recipe} data.root=VOCdevkit model.pretrained={written} --out runs/{recipe}"
