"""Archives as the official ones are laid out, with a handful of drawn photographs, for the tests of `data prepare`."""

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import scipy.io
import scipy.sparse
from PIL import Image

__all__ = [
    "anno_mat",
    "gtcls_mat",
    "ids_of",
    "jpeg",
    "palette_png",
    "part",
    "sbd_files",
    "thing",
    "tree",
    "voc_files",
    "write",
]

SIDE = (12, 9)
"""Width and height of every photograph here."""


def jpeg(seed: int, size: tuple[int, int] = SIDE, orientation: int | None = None) -> bytes:
    """A photograph's file."""
    generator = np.random.default_rng(seed)
    image = Image.fromarray(generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def palette_png(ids: np.ndarray) -> bytes:
    """A mask's file, as VOC's are."""
    image = Image.fromarray(ids.astype(np.uint8))
    image.putpalette(bytes(range(256)) * 3)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def ids_of(path: Path) -> np.ndarray:
    """A mask's ids."""
    with Image.open(path) as image:
        return np.array(image)


def drawn(seed: int, highest: int = 21) -> np.ndarray:
    """A mask of random ids below `highest`."""
    return np.random.default_rng(seed).integers(0, highest, SIDE[::-1], dtype=np.uint8)


def gtcls_mat(ids: np.ndarray, compressed: bool = True) -> bytes:
    """SBD's struct GTcls, its sparse boundaries included."""
    boundaries = np.empty((20, 1), object)
    for place in range(20):
        boundaries[place, 0] = scipy.sparse.csc_matrix(ids == place + 1)
    struct = {"Boundaries": boundaries, "Segmentation": ids, "CategoriesPresent": np.unique(ids)}
    return mat({"GTcls": struct}, compressed)


def mat(content: Mapping[str, object], compressed: bool = True) -> bytes:
    """A MATLAB 5 file."""
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, dict(content), do_compression=compressed)
    return buffer.getvalue()


def part(name: str, mask: np.ndarray) -> tuple[object, ...]:
    """A part of a thing."""
    return name, mask.astype(np.uint8)


def thing(kind: str, mask: np.ndarray, *parts: tuple[object, ...]) -> tuple[object, ...]:
    """An object of PASCAL-Part; one without parts has a plain [] there, as in the official files."""
    listed: object = np.zeros((0, 0))
    if parts:
        listed = np.empty((1, len(parts)), [("part_name", object), ("mask", object)])
        for place, item in enumerate(parts):
            listed[0, place] = item
    return kind, 15 if kind == "person" else 12, mask.astype(np.uint8), listed


def anno_mat(name: str, *things: tuple[object, ...], compressed: bool = True) -> bytes:
    """PASCAL-Part's struct anno."""
    listed = np.empty((1, len(things)), [(key, object) for key in ("class", "class_ind", "mask", "parts")])
    for place, item in enumerate(things):
        listed[0, place] = item
    return mat({"anno": {"imname": name, "objects": listed}}, compressed)


def voc_files(train: list[str], val: list[str], more: list[str], year: int = 2012) -> dict[str, bytes]:
    """VOCdevkit: photographs of all, masks of train and val with void in a corner."""
    top = f"VOCdevkit/VOC{year}"
    files = {f"{top}/JPEGImages/{key}.jpg": jpeg(number) for number, key in enumerate(train + val + more)}
    for number, key in enumerate(train + val):
        ids = drawn(100 + number)
        ids[0, 0] = 255
        files[f"{top}/SegmentationClass/{key}.png"] = palette_png(ids)
    for sub in ("Segmentation", "Main"):
        files[f"{top}/ImageSets/{sub}/train.txt"] = text(train)
        files[f"{top}/ImageSets/{sub}/val.txt"] = text(val)
        files[f"{top}/ImageSets/{sub}/trainval.txt"] = text(sorted(train + val))
    return files


def sbd_files(train: list[str], val: list[str]) -> dict[str, bytes]:
    """benchmark_RELEASE/dataset: masks of all, and two lists."""
    top = "benchmark_RELEASE/dataset"
    files = {f"{top}/cls/{key}.mat": gtcls_mat(drawn(200 + number)) for number, key in enumerate(train + val)}
    return {**files, f"{top}/train.txt": text(train), f"{top}/val.txt": text(val), f"{top}/inst/x.mat": b"none of ours"}


def text(ids: list[str]) -> bytes:
    """A list."""
    return "".join(f"{key}\n" for key in ids).encode()


def write(path: Path, files: Mapping[str, bytes]) -> Path:
    """The files as a folder, a .zip, a .tar or a .tar.gz (.tgz), by the ending of `path`."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    elif path.suffix in (".tar", ".tgz", ".gz"):
        with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    else:
        for name, content in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    return path


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a prepared folder but its lock."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
