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
from torch import Tensor

from scaleseg import atomic
from scaleseg.devices import explained
from scaleseg.engines import Engine
from scaleseg.errors import UserError, choose, reason
from scaleseg.images import IMAGE_SUFFIXES, MAX_BYTES, read
from scaleseg.model import ScaleAware
from scaleseg.refine import Refine
from scaleseg.segmentation import Segmentation, choose_refine, segment

__all__ = [
    "OUTPUTS", "Item", "Outcome", "check_save", "expand", "files_of", "find_images", "gather", "left_out", "make_folder",
    "segment_files", "segment_item",
]  # fmt: skip

OUTPUTS = ("masks", "overlays", "weights", "edges")
"""Folders that `segment_files` fills: palette PNGs of class ids; drawings; a PNG strip and a lossless .npz of the weights;
PNG and .npz of a learned edge map."""

OTHERS = (
    ".heic",
    ".heif",
    ".avif",
    ".gif",
    ".jp2",
    ".jxl",
    ".dng",
    ".cr2",
    ".cr3",
    ".nef",
    ".arw",
    ".raf",
    ".orf",
    ".rw2",
)
"""Photographs in formats that are not decoded here."""

SUFFIXES = {"masks": (".png",), "overlays": (".png",), "weights": (".png", ".npz"), "edges": (".png", ".npz")}


@dataclass(frozen=True, slots=True)
class Item:
    """A file to segment and the name of what is made of it (without suffix, with subfolders)."""

    source: Path
    name: str
    url: str | None = None
    """Where fsspec reads it (s3://bucket/photos/a.jpg); `source` is then only the path in it."""


@dataclass(frozen=True)
class Outcome:
    """What became of the files."""

    done: tuple[Item, ...]
    failed: tuple[tuple[Item, str], ...]


def find_images(inputs: Sequence[str], out: Path) -> list[Item]:
    """Files, folders (with all below them) and globs, as items whose names never collide; UserError if there are none."""
    return gather((pair for given in inputs for pair in expand(given)), inputs, out)


def expand(given: str) -> list[tuple[Path, Path]]:
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
    return [pair for match in matches for pair in expand(str(match))]


def left_out(inputs: Sequence[str]) -> str:
    """A sentence on the photographs in folders that `expand` passes over for their format; empty if there are none."""
    files = (item for given in inputs if Path(given).is_dir() for item in Path(given).rglob("*"))
    kinds = Counter(
        item.suffix.lower() for item in files if item.suffix.lower() in OTHERS and not item.name.startswith(".")
    )
    if not kinds:
        return ""
    counted = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return f"left out, for they cannot be decoded here: {counted}; convert them to JPEG or PNG"


def gather(pairs: Iterable[tuple[Path | str, Path]], inputs: Sequence[str], out: Path) -> list[Item]:
    """Items of (path or URL, path that names it): each file once, and nothing that lies in `out`."""
    found: dict[str, tuple[Path | str, Path]] = {}
    real = _Real(out)
    inside = 0
    for source, relative in pairs:
        key, within = (source, False) if isinstance(source, str) else real(source)
        inside += within
        if not within:
            found.setdefault(key, (source, relative))
    if inside and not found:
        raise UserError(f"all {inside} images are inside --out {out}, where results go; choose another --out")
    if not found:
        others = left_out(inputs)
        raise UserError(
            f"no images in {', '.join(inputs)}; give files, folders or globs of {', '.join(IMAGE_SUFFIXES)}"
            + (f" ({others})" if others else "")
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
    engine: Engine | None = None,
    max_memory: int | None = None,
    report: Callable[[Item, str | None], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Outcome:
    """Segment each item and write its files under `out`.

    `report` hears of each, with the reason if it failed; `tell` hears what a refinement has to say of one.
    """
    wanted = check_save(model, save)
    sharpen = choose_refine(model, refine)
    make_folder(out)
    done: list[Item] = []
    failed: list[tuple[Item, str]] = []
    for item in items:
        problem = None
        try:
            note = segment_item(
                model, item, out, wanted,
                precision=precision, refine=sharpen, engine=engine, max_memory=max_memory,
            )  # fmt: skip
            if note and tell:
                tell(note)
            done.append(item)
        except UserError as error:
            problem = str(error)
        if problem:
            failed.append((item, problem))
        if report:
            report(item, problem)
    return Outcome(tuple(done), tuple(failed))


def make_folder(out: Path) -> None:
    """The folder for results, if it is not there yet; UserError if it cannot be."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out} cannot be written ({error.strerror}); choose another folder") from error


def check_save(model: ScaleAware, save: Iterable[str]) -> list[str]:
    """The kinds of output by name; UserError for an unknown one, and for edges of a model that learned none."""
    wanted = [choose("--save", kind, OUTPUTS) for kind in save]
    if "edges" in wanted and model.edge_net is None:
        raise UserError(
            "--save names edges, but this model learned none (model.edge_net=true in training); leave edges out"
        )
    return wanted


def files_of(name: str, wanted: Iterable[str]) -> list[str]:
    """What is written of an item of this name, as paths below the output folder."""
    return [f"{kind}/{name}{suffix}" for kind in wanted for suffix in SUFFIXES[kind]]


def segment_item(
    model: ScaleAware,
    item: Item,
    out: Path,
    wanted: list[str],
    *,
    precision: str = "auto",
    refine: Refine | None = None,
    engine: Engine | None = None,
    max_memory: int | None = None,
) -> str:
    """Segment one item and write its files; what the refinement has to say of it, or nothing. UserError if it fails."""
    name = item.url or item.source
    remedy = f"give --max-memory to work in tiles, shrink {name}, or choose another --device"
    with explained(model.mean.device, remedy):  # drawing, too
        image = _fetch(item.url) if item.url else item.source
        result = segment(model, image, precision=precision, refine=refine, engine=engine, max_memory=max_memory)
        _write(result, out, item.name, wanted)
    return f"{name}: {result.note}" if result.note else ""


def _fetch(url: str) -> Tensor:
    """The photograph at a URL; UserError if it cannot be read, whatever the store's own library raises."""
    import fsspec  # type: ignore[import-untyped]  # comes with PyTorch

    try:
        with fsspec.open(url, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UserError(f"{url} does not exist") from None
    except Exception as error:  # of many stores: OSError, botocore's, aiohttp's; ImportError names what to install
        raise UserError(f"{url} cannot be read ({reason(error)}); look at the address and who may read it") from error
    if len(content) > MAX_BYTES:
        raise UserError(f"{url} has more than {MAX_BYTES:,} bytes; it is refused: give a smaller file")
    return read(content, url)


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


class _Real:
    """The real path of a file, and whether it lies in a folder: a folder is asked once, for files may be millions."""

    def __init__(self, folder: Path) -> None:
        self._folder = Path(os.path.realpath(folder))
        self._known: dict[Path, tuple[str, bool]] = {}

    def __call__(self, path: Path) -> tuple[str, bool]:
        if path.name in ("", "..") or os.path.islink(path):  # noqa: PTH114 - no error of too long a name; a link that leads to itself stays as it is
            path = Path(os.path.realpath(path))
        if path.parent not in self._known:
            parent = Path(os.path.realpath(path.parent))
            self._known[path.parent] = (str(parent), self._folder in (parent, *parent.parents))
        parent_path, within = self._known[path.parent]
        return os.path.join(parent_path, path.name), within  # noqa: PTH118


def _named(found: Iterable[tuple[Path | str, Path]]) -> list[Item]:
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
        items.append(
            Item(source, name) if isinstance(source, Path) else Item(Path(source.partition("://")[2]), name, source)
        )
    return items
