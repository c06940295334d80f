"""demo, list, doctor."""

import json
from pathlib import Path
from typing import Annotated

import typer

from scaleseg.cli.output import say

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Hang these verbs on the app."""
    app.command(epilog="Try: scaleseg demo --out scaleseg-demo")(demo)
    app.command(name="list", epilog="Try: scaleseg list")(list_names)
    app.command(epilog="Try: scaleseg doctor --json > doctor.json")(doctor)


def demo(
    images: Annotated[
        list[Path] | None, typer.Argument(help="Photographs to show instead of the built-in ones.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("scaleseg-demo"),
    model: Annotated[str, typer.Option(help="A checkpoint folder, a bundled name, or a Hub id.")] = "voc-animals-lite",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
) -> None:
    """Segment real photographs with the bundled model and write a page that shows which scale was believed where."""
    from scaleseg.demo import demo as show

    show(out, model=model, images=images or [], device=device, say=say)


def list_names() -> None:
    """List recipes, segmenters, fusions, datasets and bundled models."""
    from scaleseg.checkpoint import list_bundled
    from scaleseg.datasets import list_datasets
    from scaleseg.fusion import FUSIONS
    from scaleseg.model import list_models
    from scaleseg.recipes import list_recipes

    for title, names in (
        ("recipes", list_recipes()),
        ("segmenters", list_models()),
        ("fusions", tuple(FUSIONS)),
        ("datasets", list_datasets()),
        ("bundled models", list_bundled()),
    ):
        say(f"{title:<15} {', '.join(names) or '-'}")


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")] = False,
) -> None:
    """Tell what this machine can do: devices and their speed, memory, extras; exit code 1 if scaleseg cannot work."""
    from scaleseg.doctor import examine

    report = examine()
    if as_json:
        say(json.dumps(report.to_dict()))
    else:
        for line in report.lines:
            say(line)
        for kind, found in (("warning", report.warnings), ("problem", report.problems)):
            for line in found:
                say(f"{kind}: {line}")
        if not report.problems:
            say("nothing found that would stop scaleseg")
    if report.problems:
        raise typer.Exit(1)
