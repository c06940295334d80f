"""Segmenting many files: masks, overlays and scale weights, one bad file among many reported and skipped."""

import errno
import glob
import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from scaleseg import atomic
from scaleseg.devices import explained
from scaleseg.errors import UserError, choose
from scaleseg.images import IMAGE_SUFFIXES
from scaleseg.model import ScaleAware
from scaleseg.refine import Refine
from scaleseg.segmentation import Segmentation, choose_refine, segment

__all__ = ["OUTPUTS", "Item", "Outcome", "find_images", "segment_files"]

OUTPUTS = ("masks", "overlays", "weights", "edges")
"""Folders that `segment_files` fills: palette PNGs of class ids; drawings; a PNG strip and a lossless .npz of the weights;
PNG and .npz of a learned edge map."""


@dataclass(frozen=True)
class Item:
    """A file to segment and the name of what is made of it (without suffix, with subfolders)."""

    source: Path
    name: str


@dataclass(frozen=True)
class Outcome:
    """What became of the files."""

    done: tuple[Item, ...]
    failed: tuple[tuple[Item, str], ...]


def find_images(inputs: Sequence[str], out: Path) -> list[Item]:
    """Files, folders (with all below them) and globs, as items whose names never collide; UserError if there are none."""
    found: dict[Path, tuple[Path, Path]] = {}
    inside, inside_of = 0, Path(os.path.realpath(out))
    for given in inputs:
        for path, relative in _expand(given):
            real = Path(os.path.realpath(path))  # a link that leads to itself stays as it is
            if inside_of not in real.parents:
                found.setdefault(real, (path, relative))
            else:
                inside += 1
    if inside and not found:
        raise UserError(f"all {inside} images are inside --out {out}, where results go; choose another --out")
    if not found:
        raise UserError(
            f"no images in {', '.join(inputs)}; give files, folders or globs of {', '.join(IMAGE_SUFFIXES)}"
        )
    return _named(found.values())


def segment_files(
    model: ScaleAware,
    items: Sequence[Item],
    out: Path,
    *,
    save: Iterable[str] = OUTPUTS[:3],
    precision: str = "auto",
    refine: str | Refine | None = None,
    report: Callable[[Item, str | None], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Outcome:
    """Segment each item and write its files under `out`.

    `report` hears of each, with the reason if it failed; `tell` hears what a refinement has to say of one.
    """
    wanted = [choose("--save", kind, OUTPUTS) for kind in save]
    if "edges" in wanted and model.edge_net is None:
        raise UserError(
            "--save names edges, but this model learned none (model.edge_net=true in training); leave edges out"
        )
    sharpen = choose_refine(model, refine)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out is {out}, which cannot be made ({error.strerror}); choose another folder") from error
    done: list[Item] = []
    failed: list[tuple[Item, str]] = []
    for item in items:
        problem = None
        try:
            with explained(model.mean.device, f"shrink {item.source}, or choose another --device"):  # drawing, too
                result = segment(model, item.source, precision=precision, refine=sharpen)
                _write(result, out, item.name, wanted)
            if result.note and tell:
                tell(f"{item.source}: {result.note}")
            done.append(item)
        except UserError as error:
            problem = str(error)
        if problem:
            failed.append((item, problem))
        if report:
            report(item, problem)
    return Outcome(tuple(done), tuple(failed))


def _write(result: Segmentation, out: Path, name: str, wanted: list[str]) -> None:
    try:
        if "masks" in wanted:
            _save(out / "masks" / f"{name}.png", _png(result.label_image()))
        if "overlays" in wanted:
            _save(out / "overlays" / f"{name}.png", _png(result.overlay()))
        if "weights" in wanted:
            _save(out / "weights" / f"{name}.png", _png(result.weights_image()))
            content = io.BytesIO()
            np.savez_compressed(content, scale_weights=result.scale_weights.numpy(), scales=np.array(result.scales))
            _save(out / "weights" / f"{name}.npz", content.getvalue())
        if "edges" in wanted and result.edges is not None:
            _save(out / "edges" / f"{name}.png", _png(result.edges_image()))
            content = io.BytesIO()
            np.savez_compressed(content, edges=result.edges.numpy())
            _save(out / "edges" / f"{name}.npz", content.getvalue())
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "make room there" if full else "choose another --out"
        raise UserError(f"{name} cannot be written under {out} ({error.strerror or error}); {advice}") from error


def _save(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(path, content)


def _png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def _expand(given: str) -> list[tuple[Path, Path]]:
    """(path, path below what was given) of every image that an input means; a file is taken whatever its suffix."""
    path = Path(given)
    if path.is_dir():
        return [
            (item, item.relative_to(path))
            for item in sorted(path.rglob("*"))
            if item.suffix.lower() in IMAGE_SUFFIXES and item.is_file() and not item.name.startswith(".")
        ]
    if os.path.lexists(path):  # a dangling link too: it is reported and skipped like any file that cannot be read
        return [(path, Path(path.name))]
    matches = [Path(match) for match in sorted(glob.glob(given, recursive=True))]
    if not matches:
        raise UserError(f"{given} does not exist and matches nothing; give files, folders or globs")
    return [pair for match in matches for pair in _expand(str(match))]


def _named(found: Iterable[tuple[Path, Path]]) -> list[Item]:
    """The stem, with the suffix where two files share it, with a number where even that is not enough."""
    pairs = list(found)
    stems = [relative.with_suffix("").as_posix() for _, relative in pairs]
    shared = {stem for stem, times in Counter(stems).items() if times > 1}
    taken: set[str] = set(stems) - shared
    items = []
    for (source, relative), stem in zip(pairs, stems, strict=True):
        name = stem
        if stem in shared:
            name = base = f"{stem}-{relative.suffix.lower().lstrip('.')}"
            number = 2
            while name in taken:
                name, number = f"{base}-{number}", number + 1
            taken.add(name)
        items.append(Item(source, name))
    return items
