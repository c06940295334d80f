"""A first look: a model on a few photographs, as pictures, numbers and a report to open and to hand on."""

import io
import json
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from scaleseg import atomic
from scaleseg.checkpoint import load
from scaleseg.devices import choose_device, describe, place
from scaleseg.errors import UserError
from scaleseg.model import ScaleAware
from scaleseg.report import Page, Shown, compose, footer, gallery_page, show, template
from scaleseg.report.words import listed
from scaleseg.samples import CREDITS, PROJECT, samples
from scaleseg.segmentation import Segmentation, choose_refine, segment

__all__ = ["PAGE_BYTES", "demo"]

MODEL = "voc-animals-lite"

PAGE_BYTES = 2_000_000
"""A page is below it if its pictures can be: less than a report may have, for these are few photographs."""


def demo(
    out: Path,
    *,
    model: str = MODEL,
    images: Sequence[Path] = (),
    device: str = "auto",
    refine: str = "none",
    say: Callable[[str], None] = print,
) -> Path:
    """Segment free photographs (or `images`) into the folder `out`; the path of its `index.html` is returned.

    Beside it lie NAME-mask.png (class ids), NAME-overlay.png, NAME-weights.png and `results.json`: for each
    photograph, the share of the image that each class covers. What an earlier run left under these names is replaced.
    """
    render = template("demo")
    photos = _named(images) if images else _samples()
    where = choose_device(device)
    network = place(load(model), where)
    sharpen = choose_refine(network, refine)
    say(f"model {model} on {describe(where)}; refine: {refine}")
    shown, results = [], {}
    for name, path in photos.items():
        result = segment(network, path, refine=sharpen)
        if result.note:
            say(f"  {name}: {result.note}")
        results[name] = result.shares()
        shown.append(show(name, result, note="" if images else CREDITS[name]))
        _write(out, _pictures(name, result))
        say(f"  {name}: " + ", ".join(f"{label} {_percent(share)}" for label, share in results[name].items()))
    page = _page(network, model, shown, _command(model, images, refine), f"{describe(where)}; refine: {refine}")
    _write(out, {"results.json": json.dumps(results, indent=2) + "\n"})
    _write(out, {"index.html": compose(render, page, limit=PAGE_BYTES)})
    say(f"open {out / 'index.html'}")
    say(f"see more: {shlex.join([_program(), 'serve', model])}")
    return out / "index.html"


def _page(network: ScaleAware, model: str, shown: Sequence[Shown], command: Sequence[str], how: str) -> Page:
    """The report on photographs without labels."""
    beside = "the pictures at full size and the numbers (results.json) were written beside this page"
    name = Path(model).name if Path(model).exists() else model
    return gallery_page(
        name,
        network.scales,
        len(network.classes),
        shown,
        facts=f"Model {name}, scales {listed([f'{scale:g}' for scale in network.scales])}",
        footer=footer(command, name, f"{len(shown)} photographs without labels", how, notes=beside),
    )


def _program() -> str:
    """How this very program is called: in a virtual environment that is not activated, by its path."""
    found, here = shutil.which("scaleseg"), Path(sys.argv[0])
    own = here.name == "scaleseg" and here.is_file()
    return str(here) if own and (found is None or not here.samefile(found)) else "scaleseg"


def _samples() -> dict[str, Path]:
    """The free photographs, all of them."""
    photos = samples()
    if photos is None:
        raise UserError(f"the demo needs {PROJECT}, which is not installed; run: pip install 'scaleseg[demo]'")
    missing = [name for name in CREDITS if name not in photos]
    if missing:
        raise UserError(f"{PROJECT} has no {', '.join(missing)}.png; install it anew, or give your own photographs")
    return photos


def _named(images: Sequence[Path]) -> dict[str, Path]:
    """A name for each file's results: its stem, counted where two would be the same, also to a disk without case."""
    named: dict[str, Path] = {}
    for path in map(Path, images):
        name, count, taken = path.stem, 1, {name.lower() for name in named}
        while name.lower() in taken:
            count += 1
            name = f"{path.stem}-{count}"
        named[name] = path
    return named


def _pictures(name: str, result: Segmentation) -> dict[str, bytes]:
    pictures = {"mask": result.label_image(), "overlay": result.overlay(), "weights": result.weights_image()}
    return {f"{name}-{kind}.png": _encoded(picture, "PNG") for kind, picture in pictures.items()}


def _write(out: Path, files: dict[str, Any]) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            atomic.write(out / name, content)
    except OSError as error:
        raise UserError(
            f"{out} cannot be written ({error.strerror or error}); give another folder with --out"
        ) from error


def _command(model: str, images: Sequence[Path], refine: str) -> list[str]:
    """What was typed."""
    options = [*(["--model", model] if model != MODEL else []), *(["--refine", refine] if refine != "none" else [])]
    return ["scaleseg", "demo", *options, *map(str, images)]


def _percent(fraction: float) -> str:
    return "<1 %" if 0 < fraction < 0.005 else f"{100 * fraction:.0f} %"


def _encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()
