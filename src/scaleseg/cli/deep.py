"""What `evaluate --deep` prints and writes."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaleseg.cli.output import one_line, say
from scaleseg.errors import UserError

if TYPE_CHECKING:
    from scaleseg.analysis import Analysis, Estimate, ImageScore, ObjectSize, ScaleUse

__all__ = ["bare", "print_analysis", "table", "written"]

WIDTHS = (1, 3, 5, 10, 20)
"""Of the trimap curve, those that are printed; the JSON has all."""

SHOWN = 10
"""Worst and best photographs."""


@contextmanager
def written(json_file: Path | None, document: dict[str, Any]) -> Iterator[None]:
    """Figures that took long are lost neither to a full disk nor to a reader who has gone away: the file is written
    before the body prints them, and the body prints them where the file cannot be written (UserError, then)."""
    try:
        if json_file:
            _write(json_file, document)
    finally:
        yield


def _write(json_file: Path, document: dict[str, Any]) -> None:
    import json

    from scaleseg import atomic

    text = json.dumps(document, indent=2, allow_nan=False)
    try:
        atomic.write(json_file, _NUMBERS.sub(lambda found: "[" + " ".join(found[1].split()) + "]", text) + "\n")
    except OSError as error:
        raise UserError(f"--json {json_file} cannot be written ({error.strerror}); choose another path") from error


_NUMBERS = re.compile(r"\[\n([\d\s.,eE+-]+)\]")
"""A list of numbers, which goes on one line: thousands of photographs have many."""


def bare(text: str) -> str:
    """Text without the folders of absolute paths: what is handed on tells nothing of this machine."""
    return _FOLDERS.sub("", text)


_FOLDERS = re.compile(r"(?<![\w./~-])(?:file:/)?~?/(?!/)(?:[^/,\]'\"\n]*/)*(?=[^/\s])")


def print_analysis(analysis: "Analysis", *, refined: bool = False) -> None:
    """Compact tables in percent, the rest in lines; the classes are in the table of plain `evaluate`."""
    from scaleseg.analysis import FEWEST

    _print_fusions(analysis, refined)
    _print_sizes(analysis)
    if analysis.scale_use:
        _print_weights(analysis, analysis.scale_use)
    near = [f"{width} px: {100 * value:.2f}" for width, value in analysis.trimap if width in WIDTHS]
    if near:
        say("mIoU near borders      " + "  ".join(near))
    interval = _interval(analysis.boundary_IoU, len(analysis.images))
    say(f"boundary IoU           {100 * analysis.boundary_IoU.value:.2f} %, 95 % interval {interval}")
    if len(analysis.images) < FEWEST:
        say(f"fewer than {FEWEST} photographs tell no interval")
    say(
        f"calibration error      {100 * analysis.calibration.ece:.2f} points between how sure it is and how often right"
    )
    _print_images(analysis.images)


def table(*columns: str, title: str) -> Any:
    """A table whose first column is words and whose others are numbers."""
    from rich.table import Table

    made = Table(*columns, title=title, title_justify="left")
    for column in made.columns[1:]:
        column.justify = "right"
    return made


def _print_fusions(analysis: "Analysis", refined: bool) -> None:
    title = "By fusion; of these only fused is refined" if refined else "By fusion"
    shown = table("the same scores, merged by", "mIoU %", "95 % interval", title=title)
    for name, found in analysis.fusions.items():
        shown.add_row(name, f"{100 * found.value:.2f}", _interval(found, len(analysis.images)))
    _show(shown)


def _print_sizes(analysis: "Analysis") -> None:
    from scaleseg.analysis import CRUMB

    columns = ("share of the image", "objects", "IoU %", "95 % interval", "found %", "false alarms")
    shown = table(*columns, title="Objects by size")
    for place, size in enumerate(analysis.sizes):
        score = size.IoU
        shown.add_row(
            _share(size),
            str(size.objects),
            f"{100 * score.value:.2f}" if score else "-",
            _interval(score, analysis.images_of_size(place)),
            "-" if size.found is None else f"{100 * size.found:.2f}",
            str(size.false_alarms),
        )
    _show(shown)
    if analysis.crumbs:
        say(f"{analysis.crumbs} components of the labels have fewer than {CRUMB} pixels and are not counted as objects")


def _print_weights(analysis: "Analysis", use: "ScaleUse") -> None:
    shown = table("weight in % on", *(f"scale {scale:g}" for scale in analysis.scales), title="Which scale is believed")
    rows = {f"objects of {_share(size)}": size.weights for size in analysis.sizes if size.weights}
    for name, weights in (rows | use.zones).items():
        shown.add_row(name, *(f"{100 * weight:.1f}" for weight in weights))
    _show(shown)
    say(_claim(use, len(analysis.images)))


def _share(size: "ObjectSize") -> str:
    return f"{100 * size.low:g} to {100 * size.high:g} %"


def _show(shown: Any) -> None:
    from rich.console import Console

    Console().print(shown)


def _interval(found: "Estimate | None", photographs: int) -> str:
    """In percent; a dash where too few photographs stand behind it."""
    from scaleseg.analysis import FEWEST

    return f"{100 * found.low:.2f} to {100 * found.high:.2f}" if found and photographs >= FEWEST else "-"


def _claim(use: "ScaleUse", photographs: int) -> str:
    """What became of the paper's claim, in a sentence."""
    from scaleseg.analysis import FEWEST

    if use.correlation is None or use.interval is None:
        return f"objects: {use.objects}; too few, or all of one size or seen alike, to tell of size and scale"
    low, high = use.interval
    measured = f"Spearman's correlation of size and scale is {use.correlation:.2f}"
    claim = "whether larger objects tend to be seen at smaller scales is open"
    if photographs < FEWEST:
        return f"{claim}: too few photographs ({measured}, {use.objects} objects)"
    if high < 0:
        claim = "larger objects tend to be seen at smaller scales, as the paper says"
    elif low > 0:
        claim = "larger objects tend to be seen at larger scales, against what the paper says"
    return f"{claim} ({measured}, 95 % interval {low:.2f} to {high:.2f}, {use.objects} objects)"


def _print_images(images: "Sequence[ImageScore]") -> None:
    ranked = sorted((image.mIoU, image.name) for image in images if image.mIoU is not None)
    half = len(ranked) // 2  # none is worst and best
    worst, best = ranked[: min(SHOWN, half)], ranked[::-1][: min(SHOWN, len(ranked) - half)]
    for title, some in (("worst", worst), ("best", best)) if worst else ():
        names = (f"{one_line(name)} {100 * score:.1f}" for score, name in some)
        say(f"{title} photographs, mIoU in %: {', '.join(names)}")
