"""A report without labels: photographs, what the model sees in them, and which scale it believed where."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from scaleseg.batch import expand
from scaleseg.devices import explained
from scaleseg.errors import UserError
from scaleseg.images import IMAGE_SUFFIXES, read
from scaleseg.report.gallery import COUNT, DIVIDED, Section, Shown, random_places, show
from scaleseg.report.page import Group, Page
from scaleseg.report.use import scale_use, sentence
from scaleseg.report.wish import Bar, Opened, facts, footer
from scaleseg.report.words import photographs
from scaleseg.segmentation import segment

__all__ = ["gallery_page", "on_photographs"]

LEDE = (
    "In each weight map, bright is where the model believes that scale; at every pixel the weights sum to one, so what one "
    "scale gains the others lose."
)

DRAWN = 30
"""Of more than DRAWN + COUNT photographs, so many at random are shown, and the COUNT most divided of the others."""


def on_photographs(opened: Opened, say: Callable[[str], None], bar: Bar) -> Page:
    """The page on `wish.images`; a photograph that cannot be read is said and left out."""
    files = _files(opened.wish.images)
    say(f"{photographs(len(files))}; {opened.how}")
    shown, left_out = _seen(opened, files, say, bar)
    data = f"{photographs(len(shown))} without labels"
    notes = f"left out, for they could not be read: {', '.join(left_out)}" if left_out else ""
    return gallery_page(
        opened.name,
        opened.model.scales,
        len(opened.model.classes),
        shown,
        facts=f"{opened.name}: {facts(opened)}",
        footer=footer(opened.wish.command, opened.name, data, opened.how, notes=notes),
    )


def gallery_page(
    name: str,
    scales: tuple[float, ...],
    num_classes: int,
    shown: Sequence[Shown],
    *,
    facts: str,
    footer: Sequence[tuple[str, str]],
) -> Page:
    """The page on photographs that were segmented already; those without maps count in its figures alone."""
    kept = {place: one for place, one in enumerate(shown) if one.maps is not None}
    said = sentence(shown, scales)
    charts = scale_use(shown, scales)
    return Page(
        title="Which scale to believe" if len(scales) > 1 else "What the model sees",
        lede=f"{LEDE} {said}" if len(scales) > 1 else said,
        facts=facts,
        model=name,
        scales=scales,
        num_classes=num_classes,
        shown=kept,
        sections=_sections(kept, len(shown)),
        groups=[Group("use", "Scale use", charts)] if charts else [],
        footer=footer,
    )


def _files(images: Sequence[str]) -> list[tuple[Path, str]]:
    """Every photograph that was given, once, and its path below what was given, for people."""
    found: dict[Path, str] = {}
    for path, below in (pair for given in images for pair in expand(given)):
        found.setdefault(path, below.as_posix())
    if not found:
        raise UserError(
            f"--images {', '.join(images)} holds no photographs; give files, folders or globs of {', '.join(IMAGE_SUFFIXES)}"
        )
    return list(found.items())


def _seen(
    opened: Opened, files: Sequence[tuple[Path, str]], say: Callable[[str], None], bar: Bar
) -> tuple[list[Shown], list[str]]:
    """Each photograph that can be read, and the names of the others; only those that are shown keep their maps."""
    everything = len(files) <= DRAWN + COUNT
    drawn = set(range(len(files)) if everything else random_places(len(files), DRAWN, 0))
    shown: dict[int, Shown] = {}
    left_out, reason = [], ""
    with bar("segmenting", len(files)) as advance:
        for place, (path, name) in enumerate(files):
            try:
                shown[place] = _one(opened, path, name)
            except UserError as error:
                reason = str(error)
                left_out.append(name)
                say(f"left out: {reason}")
            _forget(shown, drawn)
            advance()
    if not shown:
        raise UserError(reason if len(files) == 1 else f"none of the {len(files)} photographs can be used: {reason}")
    return list(shown.values()), left_out


def _one(opened: Opened, path: Path, name: str) -> Shown:
    device = opened.model.mean.device
    with explained(device, f"give --max-memory to work in tiles, shrink {path}, or choose another --device"):
        result = segment(
            opened.model, read(path), precision="float32", refine=opened.sharpen, max_memory=opened.wish.max_memory
        )
        return show(name, result, note=result.note)


def _forget(shown: dict[int, Shown], drawn: set[int]) -> None:
    """Keep the maps of the photographs that were drawn and of the COUNT most divided of the others so far."""
    others = [place for place, one in shown.items() if place not in drawn and one.maps is not None]
    for place in sorted(others, key=lambda place: -shown[place].division)[COUNT:]:
        shown[place] = replace(shown[place], maps=None)


def _sections(kept: Mapping[int, Shown], total: int) -> list[Section]:
    if len(kept) == total:
        return [
            Section(
                "photographs",
                "Photographs",
                "What the model sees in each, and where it believes which scale.",
                tuple(kept),
            )
        ]
    divided = sorted(kept, key=lambda place: -kept[place].division)[:COUNT]
    drawn = tuple(place for place in kept if place not in divided)
    return [
        Section("divided", "Most divided", DIVIDED, tuple(divided)),
        Section("random", "At random", f"Drawn from the others of {total:,} photographs (seed 0).", drawn),
    ]
