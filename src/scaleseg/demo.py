"""A first look: a model on a few photographs, as pictures, numbers and one page to open and to hand on.

The page is a single file: pictures are data URIs, its own policy forbids every request, and it needs no script.
"""

import base64
import io
import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image

from scaleseg import atomic
from scaleseg.checkpoint import load
from scaleseg.devices import choose_device, describe, place
from scaleseg.errors import UserError
from scaleseg.images import draw_weights, palette
from scaleseg.segmentation import Segmentation, choose_refine, segment

__all__ = ["demo"]

MODEL = "voc-animals-lite"

BUNDLED = {
    "chelsea": "a cat. Photograph by Stefan van der Walt, CC0",
    "astronaut": "a person. Photograph by NASA, public domain",
    "coffee": "a cup on a table. Photograph by Rachel Michetti, CC0",
}
"""Free photographs in scikit-image's wheel; the last is a control: nothing in it is a person or an animal."""

PAGE_BYTES = 2_000_000
"""A page is below it if its pictures can be: the first of `SIDES` that fits is taken, else the last."""

SIDES = (720, 512, 360, 256, 160)
"""Longer sides of the page's pictures in pixels; 720 is sharp on a phone and in a column of a desk's screen."""

NOTEWORTHY = 0.01
"""The page's sentences leave out classes that cover less of every photograph: a few stray pixels say nothing."""


@dataclass(frozen=True)
class _Class:
    """A class that occurs in a photograph, and how much each scale counts there on average."""

    name: str
    colour: str
    share: float
    weights: tuple[float, ...]


@dataclass(frozen=True)
class _Shown:
    """What the page needs of one photograph; the pictures are already small."""

    name: str
    note: str
    classes: tuple[_Class, ...]
    means: tuple[float, ...]
    photo: Image.Image
    overlay: Image.Image
    maps: tuple[Image.Image, ...]


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
    render = _template()
    photos = _named(images) if images else _bundled()
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
        shown.append(_reduced(name, "" if images else BUNDLED[name], result))
        _write(out, _pictures(name, result))
        say(f"  {name}: " + ", ".join(f"{label} {_percent(share)}" for label, share in results[name].items()))
    page = _page(render, shown, model, network.scales, _command(model, images, refine))
    _write(out, {"results.json": json.dumps(results, indent=2) + "\n", "index.html": page})
    say(f"open {out / 'index.html'}")
    return out / "index.html"


def _template() -> Callable[..., str]:
    """The page as a function of what it shows. Escaping is on: names come from files and checkpoints."""
    jinja2 = _extra("jinja2", "jinja2")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "data_uri": _data_uri}
    render: Callable[..., str] = environment.get_template("demo.html.jinja").render
    return render


def _bundled() -> dict[str, Path]:
    """The photographs as files: read from scikit-image's own folder, for its functions may ask the network."""
    folder = Path(_extra("skimage", "scikit-image").__file__).parent / "data"
    photos = {name: folder / f"{name}.png" for name in BUNDLED}
    missing = [path.name for path in photos.values() if not path.is_file()]
    if missing:
        raise UserError(
            f"{folder} has no {', '.join(missing)}; install scikit-image anew, or give your own photographs"
        )
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


def _extra(module: str, project: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise UserError(
            f"the demo needs {project}, which is not installed; run: pip install 'scaleseg[demo]'"
        ) from None


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


def _reduced(name: str, note: str, result: Segmentation) -> _Shown:
    """One photograph's pictures at the page's largest size, and its numbers."""
    photo = Image.fromarray(result.image.permute(1, 2, 0).numpy())
    size = _fitted(photo, SIDES[0])
    labels = np.asarray(Image.fromarray(result.labels.numpy()).resize(size, Image.Resampling.NEAREST))
    maps = (draw_weights(one_scale[None]).resize(size) for one_scale in result.scale_weights)
    return _Shown(
        name,
        note,
        _classes(result),
        tuple(result.scale_weights.mean(dim=(1, 2)).tolist()),
        photo.resize(size),
        result.overlay().resize(size),
        tuple(_outlined(picture, labels) for picture in maps),
    )


def _classes(result: Segmentation) -> tuple[_Class, ...]:
    """The classes that occur, largest first; class 0 has no colour, for the overlay leaves it as it is."""
    colours, rows = palette(len(result.classes)), []
    for index in torch.unique(result.labels).tolist():
        there = result.labels == index
        weights = tuple(result.scale_weights[:, there].mean(dim=1).tolist())
        share = int(there.sum()) / there.numel()
        rows.append(_Class(result.classes[index], _css(colours[index]) if index else "transparent", share, weights))
    return tuple(sorted(rows, key=lambda row: -row.share))


def _outlined(picture: Image.Image, labels: UInt8[np.ndarray, "h w"]) -> Image.Image:
    """A weight map with the classes' borders in white: a map without them is hard to place in its photograph."""
    border = np.zeros(labels.shape, bool)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    border[:, 1:] |= across
    border[:, :-1] |= across
    border[1:] |= down
    border[:-1] |= down
    pixels = np.array(picture)
    pixels[border] = 255
    return Image.fromarray(pixels)


def _page(
    render: Callable[..., str], shown: Sequence[_Shown], model: str, scales: Sequence[float], command: str
) -> str:
    """The page, with pictures as large as its size allows."""
    ramp = np.asarray(draw_weights(torch.linspace(0, 1, 9)[None, None]))[0]
    page = ""
    for side in SIDES:
        page = render(
            shown=shown,
            side=side,
            model=model,
            scales=[f"{scale:g}" for scale in scales],
            sentence=_sentence(shown, scales),
            ramp=", ".join(map(_css, ramp)),
            command=command,
        )
        if len(page.encode()) < PAGE_BYTES:
            break
    return page


def _sentence(shown: Sequence[_Shown], scales: Sequence[float]) -> str:
    """What to look at: for each scale, the class on which it weighs most."""
    names, means = _means_by_class(shown)
    if np.ptp(means, axis=1).max() < 0.005:
        return f"Here no scale stands out: on every class each weighs {_percent(1 / len(scales))} on average."
    best = means.argmax(axis=0)
    first, *others = (
        (f"scale {scale:g}", f"on {names[best[i]]}", _percent(means[best[i], i])) for i, scale in enumerate(scales)
    )
    told = [f"{first[0]} is believed most {first[1]} ({first[2]} on average)"]
    return f"Here {_listed([*told, *(f'{scale} {where} ({weight})' for scale, where, weight in others)])}."


def _means_by_class(shown: Sequence[_Shown]) -> tuple[list[str], Float[np.ndarray, "classes scales"]]:
    """Names, and each scale's mean weight there over all photographs; every photograph counts the same."""
    shares: dict[str, float] = {}
    sums: dict[str, np.ndarray] = {}
    for photo in shown:
        for row in photo.classes:
            if row.share >= NOTEWORTHY or row is photo.classes[0]:
                shares[row.name] = shares.get(row.name, 0.0) + row.share
                sums[row.name] = sums.get(row.name, 0.0) + row.share * np.array(row.weights)
    return list(shares), np.stack([sums[name] / shares[name] for name in shares])


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _command(model: str, images: Sequence[Path], refine: str) -> str:
    """What was typed, without folders of the images: the page is for handing on."""
    options = [*(["--model", model] if model != MODEL else []), *(["--refine", refine] if refine != "none" else [])]
    return shlex.join(["scaleseg", "demo", *options, *(Path(path).name for path in images)])


def _css(colour: UInt8[np.ndarray, "3"]) -> str:
    return "rgb({} {} {})".format(*colour.tolist())


def _percent(fraction: float) -> str:
    return "<1 %" if 0 < fraction < 0.005 else f"{100 * fraction:.0f} %"


def _fitted(picture: Image.Image, side: int) -> tuple[int, int]:
    """(width, height) with the longer at most `side`, in proportion."""
    factor = min(1.0, side / max(picture.size))
    return max(1, round(picture.width * factor)), max(1, round(picture.height * factor))


def _data_uri(picture: Image.Image, side: int) -> str:
    content = _encoded(picture.resize(_fitted(picture, side)), "JPEG", quality=85, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"


def _encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()
