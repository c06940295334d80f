"""data init, data check."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaleseg.cli.output import bar, one_line, say
from scaleseg.errors import UserError

if TYPE_CHECKING:
    from scaleseg.config import DataConfig
    from scaleseg.data_check import Split

__all__ = ["app"]

app = typer.Typer(help="Look at your photographs and masks before a run.", no_args_is_help=True)


@app.command(epilog="Try: scaleseg data init cats/")
def init(
    folder: Annotated[Path, typer.Argument(help="A folder with images/ and masks/.")],
    classes: Annotated[
        str | None, typer.Option(help="Names by comma, in the order of their ids.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a data.yaml that is there.")] = False,
) -> None:
    """Write data.yaml for a folder of photographs and masks."""
    from omegaconf import OmegaConf

    from scaleseg import atomic
    from scaleseg.data_check import describe_folder

    path = folder / "data.yaml"
    if path.exists() and not force:
        raise UserError(f"{path} is there already; edit it, or replace it with --force")
    names = [name.strip() for name in classes.split(",") if name.strip()] if classes else None
    section, notes = describe_folder(folder, names)
    header = "# Paths are relative to this file. A class id is a place in `classes`; 255 is void.\n"
    try:
        atomic.write(path, header + OmegaConf.to_yaml(OmegaConf.create(section)))
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror})") from error
    for note in notes:
        say(note)
    say(f"{len(section['classes'])} classes: {', '.join(section['classes'])} (rename them in {path})")
    say(f"wrote {path}; next: scaleseg data check {path}")


@app.command(epilog="Try: scaleseg data check cats/data.yaml")
def check(
    what: Annotated[str, typer.Argument(help="A recipe, a data.yaml, or a folder or zip with images/ and masks/.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings as key=value.", show_default=False)] = None,
) -> None:
    """Read every pair and report what would spoil a run; exit code 1 if anything would."""
    from scaleseg.data_check import check as read_all

    config = _settings(what, overrides or [])
    with bar("reading", None) as advance:
        report = read_all(config, lambda name, done, total: advance())
    for split in report.splits:
        _print_split(split)
    say(report.note)
    problems = sum(len(split.problems) for split in report.splits)
    if problems:
        say(f"{problems} {'problem' if problems == 1 else 'problems'} would spoil a run")
        raise typer.Exit(1)
    say("nothing found that would spoil a run")


def _settings(what: str, overrides: list[str]) -> "DataConfig":
    """A recipe's data section, a data.yaml's, or one made up for a bare folder."""
    from scaleseg.data_check import describe_folder, describe_ids
    from scaleseg.datasets.folder import find_ids
    from scaleseg.recipes import load_recipe, override, read_yaml

    path = Path(what)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        content = read_yaml(path)
        is_recipe = isinstance(content.get("model"), dict) or isinstance(content.get("train"), dict)
        return load_recipe(what, overrides).data if is_recipe else override({}, [f"data={path}", *overrides]).data
    if path.is_dir():
        section, _ = describe_folder(path)
        for key in ("train", "val"):
            if key in section:
                section[key] = str(path / section[key])
        return override({"data": section}, overrides).data
    if path.is_file():
        classes, _ = describe_ids(find_ids([what]))
        return override({"data": {"dataset": "folder", "train": what, **classes}}, overrides).data
    return load_recipe(what, overrides).data


def _print_split(split: "Split") -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    table = Table(
        "id", "class", "pixels %", "images", "share of its images: 10 %", "median", "90 %", title_justify="left"
    )
    table.title = f"{split.name}: {split.images} photographs"
    for column in (0, 2, 3, 4, 5, 6):
        table.columns[column].justify = "right"
    for index, name in enumerate(split.classes):
        shares = (f"{100 * share:.1f}" for share in split.sizes(index))
        table.add_row(
            str(index),
            escape(one_line(name)),
            f"{100 * split.frequency(index):.2f}",
            str(len(split.shares.get(index, []))),
            *shares,
        )
    console.print(table)
    if split.pixels.sum():
        say(f"void: {100 * split.pixels[255] / split.pixels.sum():.2f} % of all pixels")
    for line in split.problems:
        say(f"problem: {line}")
    for line in split.warnings:
        say(f"warning: {line}")
