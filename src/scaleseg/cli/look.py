"""demo, list, doctor."""

import json
import textwrap
from pathlib import Path
from typing import Annotated

import typer

from scaleseg.cli.output import say

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Hang these verbs on the app."""
    app.command(epilog="Try: scaleseg demo --out scaleseg-demo")(demo)
    app.command(name="list", epilog="Try: scaleseg list recipes")(list_names)
    app.command(epilog="Try: scaleseg doctor --json > doctor.json")(doctor)


def demo(
    images: Annotated[
        list[Path] | None, typer.Argument(help="Photographs to show instead of the built-in ones.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("scaleseg-demo"),
    model: Annotated[str, typer.Option(help="A checkpoint folder, a bundled name, or a Hub id.")] = "voc-animals-lite",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    refine: Annotated[
        str, typer.Option(help="none, crf, domain, or domain-learned: sharper edges, after the network.")
    ] = "none",
) -> None:
    """Segment real photographs with the bundled model and write a page that shows which scale was believed where."""
    from scaleseg.demo import demo as show

    show(out, model=model, images=images or [], device=device, refine=refine, say=say)


def list_names(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="recipes (with what each promises), segmenters, fusions, datasets or models.", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")] = False,
) -> None:
    """List recipes, segmenters, fusions, datasets and bundled models."""
    from scaleseg.checkpoint import list_bundled
    from scaleseg.datasets import list_datasets
    from scaleseg.errors import choose
    from scaleseg.fusion import FUSIONS
    from scaleseg.model import list_models
    from scaleseg.recipes import list_recipes

    names = {
        "recipes": list_recipes(),
        "segmenters": list_models(),
        "fusions": tuple(FUSIONS),
        "datasets": list_datasets(),
        "models": list_bundled(),
    }
    kinds = [choose("what to list", kind, names)] if kind else list(names)
    if as_json:
        say(json.dumps({name: _recipes() if name == "recipes" else list(names[name]) for name in kinds}))
    elif kind == "recipes":
        _print_recipes()
    else:
        for name in kinds:
            say(f"{name:<10} {', '.join(names[name]) or '-'}")


def _recipes() -> list[dict[str, str]]:
    """Every recipe in its own words."""
    from scaleseg.recipes import describe_recipe, list_recipes

    return [describe_recipe(name)._asdict() for name in list_recipes()]


def _print_recipes() -> None:
    for recipe in _recipes():
        say(recipe["name"])
        for key in ("about", "expect", "command", "cost", "note"):
            if recipe[key]:
                label = {"about": "", "command": "run: "}.get(key, f"{key}: ")
                for line in textwrap.wrap(label + recipe[key], 116, break_long_words=False, break_on_hyphens=False):
                    say(f"    {line}")


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
