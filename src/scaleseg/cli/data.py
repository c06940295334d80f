"""data init, data check, data prepare."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaleseg.cli.output import bar, one_line, say
from scaleseg.errors import UserError

if TYPE_CHECKING:
    from scaleseg.config import DataConfig
    from scaleseg.data_check import Split

__all__ = ["app"]

app = typer.Typer(
    help="Photographs and masks before a run: look at yours, or build the paper's datasets.", no_args_is_help=True
)


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


@app.command(epilog="Try: scaleseg data prepare voc --from VOCdevkit --from benchmark.tgz --to voc")
def prepare(
    name: Annotated[str, typer.Argument(help="voc, voc-animals, person-part or coco.")],
    sources: Annotated[
        list[Path],
        typer.Option("--from", metavar="PATH", help="An official archive, or its folder; again for each."),
    ],
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="A new folder, or one where this stopped.")],
    allow_incomplete: Annotated[
        bool, typer.Option("--allow-incomplete", help="Make what there is, although something official is missing.")
    ] = False,
) -> None:
    """Build a dataset of the paper from the official archives you have.

    [b]voc[/b] (section 4.2): VOCtrainval_11-May-2012.tar of PASCAL VOC 2012
    and benchmark.tgz of SBD. 10,582 photographs for training, 1,449 for val.

    [b]voc-animals[/b]: the same two, cut to what the bundled model learned
    from, 2,800 and 445 photographs.

    [b]person-part[/b] (section 4.1): VOCtrainval_03-May-2010.tar of PASCAL
    VOC 2010 and trainval.tar.gz of PASCAL-Part (Annotations_Part/*.mat). For
    the official 1,716 and 1,817 also pascal_person_part.zip, or its lists
    train.txt and val.txt.

    [b]coco[/b] (section 4.3): annotations_trainval2014.zip, train2014.zip and
    val2014.zip of COCO. 10,000 and 1,500 photographs are drawn, the same ones
    everywhere. It needs pip install 'scaleseg\\[data]'.

    CamVid, Cityscapes and ADE20K are read as they are: data.root=FOLDER with
    data.dataset=camvid, cityscapes or ade20k.

    An archive is a zip, a tar, a tar.gz, or the folder it was unpacked to.
    Nothing is downloaded. Interrupted, the same command goes on.
    """
    from scaleseg.prepare import prepare as build

    report = build(name, sources, to, allow_incomplete=allow_incomplete, bar=bar)
    for note in report.notes:
        say(f"note: {note}")
    say(", ".join(f"{split} {count:,}" for split, count in report.counts.items()))
    say(f"wrote {report.folder}; next: scaleseg {report.next}")


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
