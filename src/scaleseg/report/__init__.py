"""A report to hand on: one HTML file with figures, charts, and photographs with what was seen at which scale.

A page is made in three steps: what it shows (`measured`, `unlabelled`), as text (`page.compose`), as a file (here).
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from scaleseg import atomic
from scaleseg.errors import UserError
from scaleseg.report.gallery import Shown, show
from scaleseg.report.measured import measured_page, on_labels
from scaleseg.report.page import Page, compose, template
from scaleseg.report.unlabelled import gallery_page, on_photographs
from scaleseg.report.wish import Bar, Wish, footer, open_model, quiet

__all__ = [
    "Page", "Shown", "Wish", "compose", "footer", "gallery_page", "measured_page", "report", "show", "template",
]  # fmt: skip


def report(wish: Wish, out: Path, *, say: Callable[[str], None] = print, bar: Bar = quiet) -> Path:
    """Write the page to the file `out`, whole or not at all; its path is returned.

    UserError before the long work for an `out` that cannot be written, a model that does not fit, or a missing extra.
    """
    render = template("report")
    _check(wish)
    atomic.check_writable(out, "--out")
    opened = open_model(wish)
    page = on_photographs(opened, say, bar) if wish.images else on_labels(opened, say, bar)
    say("drawing the page")
    text = compose(render, page)
    try:
        atomic.write(out, text)
    except OSError as error:
        raise UserError(f"--out {out} cannot be written ({error.strerror}); choose another path") from error
    return out


def _check(wish: Wish) -> None:
    if wish.images and wish.analysis:
        raise UserError("--images are photographs without labels, and --analysis holds figures; give one of them")
    if not wish.images and find_spec("scipy") is None:
        raise UserError("the report needs scipy, which is not installed; run: pip install 'scaleseg[report]'")
    if wish.analysis and not wish.analysis.is_file():
        raise UserError(f"--analysis is {wish.analysis}, which is no file; give what evaluate --deep --json wrote")
