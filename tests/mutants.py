"""Damaged files: `mutant(seed)` is one, all of it drawn from its seed; torture.py says what uses it."""

import contextlib
import io
import json
import random
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

Chance = random.Random
Files = dict[str, bytes]
"""A mutant: file contents by their names in the folder that is then used."""

# What is damaged, in how many of a hundred mutants, and what then uses it.
SHARES = {
    "image": 30, "opened": 4, "pair": 12, "zip": 14, "recipe": 12, "data": 7, "config": 8, "parameters": 5,
    "pretrained": 4, "pickle": 1, "verb": 2, "train": 1,
}  # fmt: skip


def kind_of(seed: int) -> str:
    """Which kind a seed is: any hundred consecutive seeds hold each kind as often as SHARES says; below 0 are probes."""
    if seed < 0:
        return "probe"
    order = [kind for kind, share in SHARES.items() for _ in range(share)]
    random.Random(0).shuffle(order)
    return order[seed % len(order)]


def mutant(seed: int) -> Files:
    """The files of a seed."""
    depth = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)  # writing deep nesting goes as deep
    try:
        return MUTATORS[kind_of(seed)](Chance(seed))
    finally:
        sys.setrecursionlimit(depth)


# ---------------------------------------------------------------- what is whole


@cache
def photographs() -> Files:
    """Small images of every suffix and of every way that its writer knows."""
    noise = np.random.default_rng(0)
    colour = Image.fromarray(noise.integers(0, 256, (40, 56, 3), dtype=np.uint8))
    grey, alpha = colour.convert("L"), Image.merge("RGBA", (*colour.split(), colour.convert("L")))
    paletted, bits = colour.quantize(16), grey.convert("1")
    deep = Image.fromarray(noise.integers(0, 65536, (32, 24), dtype=np.uint16))
    exact = Image.fromarray(noise.random((24, 32), dtype=np.float32))
    cmyk, lab = colour.convert("CMYK"), Image.new("LAB", (24, 24), (120, 30, 200))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a photograph"
    exif.get_ifd(0x8769)[0x9003] = "2016:06:27 10:00:00"
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", "x" * 3000, zip=True)
    texts.add_itxt("Title", "ü" * 200, "de", zip=True)
    metadata: dict[str, Any] = {"exif": exif.tobytes(), "icc_profile": b"\0" * 36 + b"acsp" + b"\0" * 88}
    made: list[tuple[str, Image.Image, dict[str, Any]]] = [
        ("plain.jpg", colour, {}), ("progressive.jpg", colour, {"progressive": True, "quality": 90, "subsampling": 0}),
        ("grey.jpeg", grey, {}), ("cmyk.jpg", cmyk, {}), ("turned.jpg", colour, {**metadata, "dpi": (72, 72)}),
        ("plain.png", colour, {}), ("deep.png", deep, {}), ("palette.png", paletted, {"transparency": 3}),
        ("bits.png", bits, {}), ("alpha.png", alpha, {"pnginfo": texts, **metadata}),
        ("film.png", colour, {"save_all": True, "append_images": [colour.rotate(90)]}),
        ("plain.webp", colour, {}), ("lossless.webp", alpha, {"lossless": True, **metadata}),
        ("film.webp", colour, {"save_all": True, "append_images": [colour.rotate(90)], "duration": 10}),
        ("plain.bmp", colour, {}), ("palette.bmp", paletted, {}), ("bits.bmp", bits, {}), ("alpha.bmp", alpha, {}),
        ("plain.tif", colour, {}), ("deep.tiff", deep, {}), ("exact.tif", exact, {}), ("lab.tif", lab, {}),
        ("pages.tif", colour, {"save_all": True, "append_images": [grey, paletted, deep]}),
        ("turned.tif", colour, {"exif": exif, "icc_profile": metadata["icc_profile"]}), ("cmyk.tif", cmyk, {}),
        *[(f"{way}.tif", colour, {"compression": way}) for way in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")],
        *[(f"{way}.tif", bits, {"compression": way}) for way in ("group3", "group4")],
    ]  # fmt: skip
    files = {}
    for name, image, options in made:
        content = io.BytesIO()
        image.copy().save(content, _format(name), **options)  # a copy: some writers leave their settings in the image
        files[name] = content.getvalue()
    files["interlaced.png"] = _interlaced()
    return files


def _format(name: str) -> str:
    return Image.registered_extensions()[f".{name.rpartition('.')[2]}"]


def _interlaced() -> bytes:
    """Pillow writes none: eight by eight pixels of grey, its seven passes written out."""
    rows = [b"\0" + bytes([40 * place] * wide) for place, (high, wide) in enumerate(_PASSES) for _ in range(high)]
    header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 1)
    return _png([(b"IHDR", header), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b"")])


_PASSES = ((1, 1), (1, 1), (1, 2), (2, 2), (2, 4), (4, 4), (4, 8))
"""Rows and columns of each Adam7 pass of eight by eight pixels."""


@cache
def masks() -> Files:
    """Class ids 0, 1 and void, as people store them."""
    ids = np.zeros((40, 56), np.uint8)
    ids[10:30, 10:30], ids[:3] = 1, 255
    grey = Image.fromarray(ids)
    paletted = Image.fromarray(ids)
    paletted.putpalette(bytes(range(256)) * 3)
    deep = Image.fromarray(ids.astype(np.uint16))
    kinds = {
        "grey.png": grey, "palette.png": paletted, "deep.png": deep, "bits.png": grey.convert("1"),
        "colour.png": grey.convert("RGB"), "grey.tif": grey, "deep.tif": deep, "grey.bmp": grey,
    }  # fmt: skip
    files = {}
    for name, image in kinds.items():
        content = io.BytesIO()
        image.save(content, _format(name), **({"compression": "tiff_lzw"} if name == "deep.tif" else {}))
        files[name] = content.getvalue()
    return files


RECIPE = """\
# A recipe with everything that YAML has a word for.
model: &network
  segmenter: small
  fusion: attention
  scales: [1.0, 0.75, 0.5]
  pretrained: none
  attention_width: 8
  options: {width: 4, num_features: 8}
data:
  dataset: folder
  train: [".", "."]
  dev: 0.5
  classes: [ground, "disc"]
  label_map: {0: 0, 1: 1, 255: 255}
  crop: 32
  mirror: yes
  random_scale: [0.5, 1.5]
  workers: 0
train:
  optimizer: adamw
  steps: 1
  batch: 2
  lr: 2.0e-4
  schedule_steps: null
  class_weights: auto
  save_minutes: 5
"""
DATA = """\
# Paths are relative to this file.
dataset: folder
train: .
val: ".:"
dev: dev.txt
classes: [ground, disc]
label_map: {0: 0, 1: 1}
"""


@cache
def checkpoint() -> Files:
    """A tiny model's config.json, model.safetensors, and the segmenter alone as a pickle."""
    import tempfile

    import torch

    from scaleseg.checkpoint import build, save
    from scaleseg.config import merge

    options = {"width": 4, "num_features": 8}
    network = {"segmenter": "small", "scales": [1.0, 0.5], "attention_width": 8, "pretrained": "none"}
    config = merge({"model": {**network, "options": options}, "data": {"classes": ["ground", "disc"]}})
    torch.manual_seed(0)
    model = build(config)
    trunk = {name: tensor for name, tensor in model.segmenter.state_dict().items() if not name.startswith("head.")}
    pickled = io.BytesIO()
    torch.save(trunk, pickled)
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder) / "saved", model, config, about={"step": 1})
        files = {name: (Path(folder) / "saved" / name).read_bytes() for name in ("config.json", "model.safetensors")}
    from safetensors.torch import save as save_tensors

    return {**files, "trunk.safetensors": save_tensors(trunk), "trunk.pth": pickled.getvalue()}


# ---------------------------------------------------------------- bytes of any file


def damage(chance: Chance, content: bytes) -> bytes:
    """A file with one to four wounds that need no knowledge of its format."""
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        content = chance.choice(_WOUNDS)(chance, content)
    return content


def _place(chance: Chance, content: bytes) -> int:
    """Somewhere, and half the time near the beginning, where headers are."""
    end = len(content) if chance.random() < 0.5 else min(len(content), 64)
    return chance.randrange(end) if end else 0


def _flip(chance: Chance, content: bytes) -> bytes:
    changed = bytearray(content or b"\0")
    for _ in range(chance.choice((1, 2, 8, 64))):
        changed[_place(chance, changed)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _set(chance: Chance, content: bytes) -> bytes:
    changed = bytearray(content or b"\0")
    for _ in range(chance.choice((1, 2, 8))):
        changed[_place(chance, changed)] = chance.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, chance.randrange(256)))
    return bytes(changed)


def _cut(chance: Chance, content: bytes) -> bytes:
    return content[: _place(chance, content)]


def _insert(chance: Chance, content: bytes) -> bytes:
    at = _place(chance, content)
    return content[:at] + chance.choice((b"\0", b"\xff" * 7, b"\n", chance.randbytes(40))) + content[at:]


def _repeat(chance: Chance, content: bytes) -> bytes:
    at, length = _place(chance, content), chance.choice((1, 4, 16, 200))
    return content[:at] + content[at : at + length] * chance.choice((2, 3, 50)) + content[at + length :]


def _zero(chance: Chance, content: bytes) -> bytes:
    at, length = _place(chance, content), chance.choice((2, 4, 8, 100))
    return content[:at] + bytes(len(content[at : at + length])) + content[at + length :]


def _swap(chance: Chance, content: bytes) -> bytes:
    one, two = sorted((_place(chance, content), _place(chance, content)))
    length = min(chance.choice((2, 8, 64)), two - one)
    return (
        content[:one] + content[two : two + length] + content[one + length : two]
        + content[one : one + length] + content[two + length :]
    )  # fmt: skip


def _number(chance: Chance, content: bytes) -> bytes:
    """A field of two, four or eight bytes, in either order, at an end of its range."""
    width, at = chance.choice((2, 4, 4, 8)), _place(chance, content)
    top = 1 << (8 * width)
    value = chance.choice((0, 1, top - 1, top // 2, top // 2 - 1, 0xFFFF, 20_000, 70_000 % top))
    return content[:at] + value.to_bytes(width, chance.choice(("little", "big"))) + content[at + width :]


_WOUNDS: tuple[Callable[[Chance, bytes], bytes], ...] = (
    _flip, _set, _cut, _insert, _repeat, _zero, _swap, _number, _number,
)  # fmt: skip


# ---------------------------------------------------------------- images, their checksums kept valid


def damaged_image(chance: Chance, name: str, content: bytes) -> bytes:
    """A wound of the format's own half of the time."""
    own = {"png": _wound_png, "jpg": _wound_jpeg, "jpeg": _wound_jpeg, "webp": _wound_webp, "bmp": _wound_bmp}
    own |= {"tif": _wound_tiff, "tiff": _wound_tiff}
    return (own[name.rpartition(".")[2]] if chance.random() < 0.5 else damage)(chance, content)


SIDES = (0, 1, 2, 50, 100, 10_000, 65_535, 2**31 - 1, 2**32 - 1)
"""Rows or columns that a header may claim: small, or more than memory holds; what lies between is no damage but slow."""


def _png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def _chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    chunks, at = [], 8
    while at + 8 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def _wound_png(chance: Chance, content: bytes) -> bytes:
    chunks = _chunks(content)
    at = chance.randrange(len(chunks))
    kind, body = chunks[at]
    choice = chance.randrange(7)
    if choice == 0:
        chunks[at] = (kind, damage(chance, body))
    elif choice == 1:
        chunks[at:at] = [chunks[at]] * chance.choice((1, 2, 100))
    elif choice == 2:
        chunks.insert(chance.randrange(len(chunks)), chunks.pop(at))
    elif choice == 3:
        chunks[at] = (chance.choice((b"IDAT", b"PLTE", b"tRNS", b"iCCP", b"fdAT", b"acTL", b"eXIf", b"gAMA")), body)
    elif choice == 4:
        header = bytearray(chunks[0][1])
        field = chance.randrange(6)
        if field == 5:
            header[:8] = struct.pack(">II", chance.choice(SIDES), chance.choice(SIDES))
        else:
            header[8 + field] = chance.choice((0, 1, 2, 3, 4, 6, 8, 16, 32, 255))
        chunks[0] = (chunks[0][0], bytes(header))
    elif choice == 5:  # a picture that is truly there, all of one colour: a small file, many pixels
        columns, rows = chance.choice(((1_500, 1_500), (12_000, 9_000), (100_000, 30), (30, 100_000)))
        chunks = [(b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)), (b"IDAT", _blank(columns, rows)),
                  (b"IEND", b"")]  # fmt: skip
    else:
        chunks[1:1] = [_odd_chunk(chance) for _ in range(chance.choice((1, 1, 30)))]
    return _png(chunks)


@cache
def _blank(columns: int, rows: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(columns + 1)) for _ in range(rows)) + packer.flush()


def _odd_chunk(chance: Chance) -> tuple[bytes, bytes]:
    unpacked = zlib.compress(b"x" * chance.choice((10, 3_000_000)))
    return chance.choice((
        (b"zTXt", b"Comment\0\0" + unpacked), (b"zTXt", b"Comment\0\7" + unpacked), (b"tEXt", b"no end"),
        (b"iTXt", b"Title\0\1\0de\0\0" + unpacked), (b"iTXt", b"Title\0\1"), (b"tEXt", b"A\0" + b"y" * 2_000_000),
        (b"iCCP", b"name\0\0" + unpacked), (b"eXIf", damage(chance, _EXIF)), (b"eXIf", b"MM\0*\0\0\0\x08" + b"\xff" * 30),
        (b"acTL", struct.pack(">II", chance.choice(SIDES), 0)), (b"fcTL", chance.randbytes(26)), (b"PLTE", b"\1\2"),
        (b"tRNS", chance.randbytes(chance.choice((0, 1, 2, 6, 300)))), (b"pHYs", bytes(9)), (b"cHRM", bytes(31)),
        (b"IHDR", bytes(13)), (b"gAMA", b""), (b"sRGB", b""), (b"IEND", b""), (b"MHDR", b""), (b"caNv", bytes(16)),
    ))  # fmt: skip


_EXIF = (
    b"MM\0*\0\0\0\x08\0\x03" + struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack(">HHII", 0x8769, 4, 1, 8)
    + struct.pack(">HHII", 0x0132, 2, 20, 4) + bytes(4)
)  # fmt: skip
"""Upright by a quarter turn, an inner directory that is the outer one, a date that lies in the header."""


def _wound_jpeg(chance: Chance, content: bytes) -> bytes:
    parts = [content[:2]]
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] != 0xDA:
        length = 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        parts.append(content[at : at + length])
        at += length
    scan = content[at:]
    where = chance.randrange(1, len(parts))
    choice = chance.randrange(6)
    if choice == 0:
        body = damage(chance, parts[where][4:])[:65_000]
        parts[where] = parts[where][:2] + struct.pack(">H", len(body) + 2) + body
    elif choice == 1:
        parts[where:where] = [parts[where]] * chance.choice((1, 3, 200))
    elif choice == 2:
        parts.insert(chance.randrange(1, len(parts)), parts.pop(where))
    elif choice == 3:
        parts.pop(where)
    elif choice == 4:
        frame = next(place for place, part in enumerate(parts) if part[1:2] in (b"\xc0", b"\xc2"))
        sides = [chance.choice(SIDES[:7]) for _ in range(2)]
        body = bytearray(parts[frame])
        body[5:9] = struct.pack(">HH", *sides)
        if chance.random() < 0.3:
            body[chance.randrange(9, len(body))] = chance.randrange(256)
        parts[frame] = bytes(body)
    else:
        kind, body = chance.choice((
            (0xE1, b"Exif\0\0" + damage(chance, _EXIF)), (0xE1, b"Exif\0\0" + _EXIF), (0xE1, b"Exif\0\0"),
            (0xE2, b"ICC_PROFILE\0" + bytes([chance.randrange(4), chance.randrange(4)]) + bytes(60)),
            (0xE2, b"MPF\0" + damage(chance, _EXIF)), (0xED, b"Photoshop 3.0\0" + damage(chance, b"8BIM" + bytes(30))),
            (0xEE, b"Adobe" + chance.randbytes(7)), (0xFE, b"z" * 65_000), (0xE0, b"JFIF\0"), (0xDD, chance.randbytes(2)),
        ))  # fmt: skip
        parts.insert(where, struct.pack(">BBH", 0xFF, kind, len(body) + 2) + body)
    return b"".join(parts) + scan


def _wound_webp(chance: Chance, content: bytes) -> bytes:
    chunks, at = [], 12
    while at + 8 <= len(content):
        length = int.from_bytes(content[at + 4 : at + 8], "little")
        chunks.append((content[at : at + 4], content[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    where = chance.randrange(len(chunks))
    choice = chance.randrange(4)
    if choice == 0:
        chunks[where] = (chunks[where][0], damage(chance, chunks[where][1]))
    elif choice == 1:
        chunks[where:where] = [chunks[where]] * chance.choice((1, 50))
    elif choice == 2:
        chunks.insert(chance.randrange(len(chunks)), chunks.pop(where))
    else:
        kind = chance.choice((b"EXIF", b"ICCP", b"XMP ", b"ANIM", b"ALPH", b"VP8X"))
        chunks.insert(where, (kind, damage(chance, chance.choice((_EXIF, b"\x1f\0\0\0" + b"\xff" * 6)))))
    body = b"WEBP" + b"".join(
        kind + struct.pack("<I", len(inner)) + inner + bytes(len(inner) % 2) for kind, inner in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _wound_bmp(chance: Chance, content: bytes) -> bytes:
    """One field of the headers: offset, header size, sides, planes, bits, compression, sizes, colours, masks."""
    at, width = chance.choice(
        ((10, 4), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2), (30, 4), (34, 4), (46, 4), (54, 4))
    )
    value = chance.choice((*range(5), 8, 12, 16, 24, 32, 40, 64, 124, *SIDES)) % (1 << 8 * width)
    return content[:at] + value.to_bytes(width, "little") + content[at + width :]


def _wound_tiff(chance: Chance, content: bytes) -> bytes:
    """One field of one directory entry, or the place of the next directory."""
    changed = bytearray(content)
    first = int.from_bytes(content[4:8], "little")
    count = int.from_bytes(content[first : first + 2], "little")
    if chance.random() < 0.15:
        changed[first + 2 + 12 * count : first + 6 + 12 * count] = struct.pack(
            "<I", chance.choice((first, 4, 2**32 - 1))
        )
    for _ in range(chance.choice((1, 1, 2))):
        entry = first + 2 + 12 * chance.randrange(count)
        choice = chance.randrange(4)
        if choice == 0:
            tag = chance.choice((256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 320, 322, 324, 338, 339, 34665))
            changed[entry : entry + 2] = struct.pack("<H", tag)
        elif choice == 1:
            changed[entry + 2 : entry + 4] = struct.pack("<H", chance.randrange(20))
        elif choice == 2:
            changed[entry + 4 : entry + 8] = struct.pack("<I", chance.choice((0, 1, 2, 3, 4, 1000, *SIDES)))
        else:
            changed[entry + 8 : entry + 12] = struct.pack("<I", chance.choice((*range(9), 16, 32, first, *SIDES)))
    return bytes(changed)


# ---------------------------------------------------------------- zips


def whole_zip(chance: Chance, files: Files) -> bytes:
    """The files in a zip, each under one of Python's methods."""
    content = io.BytesIO()
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    with zipfile.ZipFile(content, "w") as archive:
        for name, inner in files.items():
            archive.writestr(zipfile.ZipInfo(name), inner, chance.choice(methods))
        if chance.random() < 0.2:
            archive.comment = b"PK\5\6" * chance.choice((1, 100))
    return content.getvalue()


def damaged_zip(chance: Chance, files: Files) -> bytes:
    """One with odd names, or with one field of one header changed, or with wounds anywhere."""
    choice = chance.randrange(4)
    if choice == 0:
        return damage(chance, whole_zip(chance, files))
    if choice == 1:
        return whole_zip(chance, _oddly_named(chance, files))
    content = bytearray(whole_zip(chance, files))
    mark, fields = chance.choice((
        (b"PK\3\4", ((4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2))),
        (b"PK\1\2", ((4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2), (42, 4))),
        (b"PK\5\6", ((4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2))),
    ))  # fmt: skip
    places = [at for at in range(len(content)) if content.startswith(mark, at)]
    for _ in range(chance.choice((1, 1, 3))):
        offset, width = chance.choice(fields)
        at = chance.choice(places) + offset
        top = 1 << 8 * width
        value = chance.choice((0, 1, 8, 9, 12, 14, 93, 95, 99, 0x841, 40, top - 1, top // 2, len(content)))
        content[at : at + width] = (value % top).to_bytes(width, "little")
    return bytes(content)


def _oddly_named(chance: Chance, files: Files) -> Files:
    content = next(iter(files.values()))
    odd = ("../images/p.png", "/images/p.png", "images//p.png", "images/p\0.png", "images/ü\udcff.png", "images/.png",
           "images/" + "n" * 5000 + ".png", "images/a\nb.png", "images\\c.png", "images/p.png/", "./images/p.png",
           "images/p.PNG", "images/", "masks", "images/\u202e.png", "masks/p.tif", "images/c:.png")  # fmt: skip
    names = [name.encode("utf-8", "replace").decode() for name in odd]
    return {**files, **dict.fromkeys(chance.sample(names, chance.choice((1, 2, 5))), content)}


def _pair(chance: Chance, image: bytes | None = None, mask: bytes | None = None) -> Files:
    """Two pairs: one whole, one with what is given."""
    return {
        "images/p.png": image if image is not None else photographs()["plain.png"],
        "masks/p.png": mask if mask is not None else masks()["grey.png"],
        "images/q.png": photographs()["plain.png"],
        "masks/q.png": masks()["palette.png"],
    }


# ---------------------------------------------------------------- settings


def nasty(chance: Chance) -> Any:
    """A value that a setting should not have."""
    deep: Any = []
    for _ in range(chance.choice((5, 300, 900))):
        deep = [deep] if chance.random() < 0.5 else {"a": deep}
    return chance.choice((
        None, True, False, -1, 0, 1, 2, 255, 256, 65_536, 10**9, 2**31, 2**63, 10**30, 10**400, -(10**30), 0.5, -0.0, 1e308,
        1e-320, float("nan"), float("inf"), float("-inf"), "", " ", "none", "imagenet", "auto", "~", "a" * 10_000, "a\nb", "\0",
        "\x1b[31m", "ü", "\u202e", "1", "1e3", "-1", "nan", "???", "${oc.env:HOME}", "${", "$", "..", "/", ".:..", "dev.txt",
        "/dev/null", "::", "x" * 300, [], {}, [[]], [None], [1, "a"], ["a", "a"], [0.5, float("nan")], [1e9], [-1, 2], [1] * 300,
        [str(n) for n in range(300)], [10**30], {"": 1}, {"a": {"b": 1}}, {"0": 10**30}, {"-1": 0}, {"1": None}, {"x": "y"}, deep,
    ))  # fmt: skip


def change_settings(chance: Chance, settings: Any) -> Any:
    """One to three settings replaced, dropped, renamed or moved."""
    for _ in range(chance.choice((1, 1, 3))):
        places = list(_places(settings))
        if not places:
            return nasty(chance)
        holder, key = chance.choice(places)
        choice = chance.randrange(8)
        if choice == 0:
            del holder[key]
        elif choice == 1 and isinstance(holder, dict):
            holder[chance.choice(("", "a.b", " ", "\0", "model", "ü", "__class__", "${x}", "a" * 3000))] = holder.pop(
                key
            )
        elif choice == 2:
            other, place = chance.choice(places)
            with contextlib.suppress(KeyError, IndexError):
                holder[key] = json.loads(json.dumps(other[place]))
        else:
            holder[key] = nasty(chance)
    return settings


def _places(settings: Any) -> Iterator[tuple[Any, Any]]:
    items = settings.items() if isinstance(settings, dict) else enumerate(settings)
    for key, value in list(items):
        yield settings, key
        if isinstance(value, dict | list):
            yield from _places(value)


def damaged_json(chance: Chance, text: str) -> bytes:
    """Its values, its text or its bytes."""
    choice = chance.randrange(4)
    if choice < 2:
        return json.dumps(change_settings(chance, json.loads(text))).encode()
    if choice == 2:
        return damage(chance, text.encode())
    lines = text.splitlines()
    at = chance.randrange(len(lines))
    odd = ('"model": {}, "model": null,', '"a": ' + "[" * 5_000, '"a": ' + '{"a":' * 100_000,
           '"a": 1' + "0" * 5_000 + ",", '"format": 1e0,',
           '"\\ud800": 1,', '"data": {"classes": ["\\ud800", "\\u0000"]},', "\ufeff", "// a comment", "'a': 1,",
           '"a": NaN,', "\0", '"data": {"classes": ["a", "b"]},', "\t", '"format": true,')  # fmt: skip
    lines.insert(at, chance.choice(odd))
    return "\n".join(lines).encode(chance.choice(("utf-8",) * 4 + ("utf-16", "utf-8-sig")))


def damaged_yaml(chance: Chance, text: str) -> bytes:
    """Its values, its text (anchors, tags, tabs, nesting) or its bytes."""
    import yaml

    choice = chance.randrange(4)
    if choice == 0:
        return yaml.safe_dump(
            change_settings(chance, yaml.safe_load(text)), allow_unicode=chance.random() < 0.5
        ).encode()
    if choice == 1:
        return damage(chance, text.encode())
    lines = text.splitlines()
    at = chance.randrange(len(lines))
    name, colon, _ = lines[at].partition(":")
    if choice == 2 and colon:
        lines[at] = f"{name}: {chance.choice(_ODD_YAML)}"
    else:
        lines[at:at] = chance.choice(_ODD_LINES)
    joined = chance.choice(("\n", "\n", "\n", "\r", "\r\n", "\u2028")).join(lines)
    return joined.encode(chance.choice(("utf-8",) * 6 + ("utf-16", "utf-8-sig", "latin-1")), "replace")


_LAUGHS = ["lol0: &l0 [lol, lol]"] + [f"lol{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 12)]
_FEW_LAUGHS = ["  lol0: &l0 [1, 2]"] + [f"  lol{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 9)]
_ODD_YAML = (
    "!!python/object/apply:os.system [echo]", "!!python/name:os.system", "!!python/tuple [1, 2]", "!!binary aGFsbG8=",
    "!!set {a, b}", "!!omap [a: 1]", "!!timestamp 2016-06-27", "2016-06-27", "2016-13-45", "!!int a", "!!float x", "!own 1",
    "*network",
    "*none", "&a [*a]", "&a {a: *a}", "{<<: *network}", "<<", "{? [a, b] : c}", "{? {a: b} : c}", "[" * 2_000,
    "[" * 400 + "]" * 400,
    "{a: " * 300 + "1" + "}" * 300, "'", '"', '"\\ud800"', '"\\0"', "|", ">\n\n", "@", "`", "%", "1_000", "0x10", "0o17",
    "0b1", "190:20:30",
    ".nan", ".inf", "-.inf", "1e999", "9" * 5_000, "yes", "~", "- a", "a: b: c", "\ta", "{1: a, 1: b}", "{null: 1}", "{true: 1}",
    "{1.5: 1}", "{2016-06-27: 1}", "${oc.env:HOME}", "???", "\x07", "=",
)  # fmt: skip
_ODD_LINES: tuple[list[str], ...] = (
    _LAUGHS, [*_LAUGHS, "model: *l11"], ["data:", *_FEW_LAUGHS], ["a: &a", "  <<: *a"], ["---", "a: 1"], ["..."],
    ["%YAML 9.9"], ["%TAG ! x"],
    ["\t"], ["\ttrain: 1"], ["\0"], ["\ufeff"], ["- a"], ["? a"], ["model: {}"], ["model:"], ["train: 1"], ["1: 2"], ["null: 1"],
    ["? [a, b]", ": c"], ["<<: 1"], ["<<: [1]"], ["<<: {model: 1}"], ["  " * n + "a:" for n in range(400)],
    ["x" * 200_000], ["#" * 10**6],
    ["a" * 3_000 + ": 1"], ["{"], ["]"], ["&a &b c: 1"], ["!!map {}: 1"], ["=: 1"], ["'"], ['"'],
)  # fmt: skip


# ---------------------------------------------------------------- parameters


def damaged_tensors(chance: Chance, content: bytes) -> bytes:
    """Wounds anywhere, or a header whose length is right and whose content is not, or values that are no numbers."""
    choice = chance.randrange(5)
    length = int.from_bytes(content[:8], "little")
    text, values = content[8 : 8 + length], content[8 + length :]
    if choice == 0:
        return damage(chance, content)
    if choice == 1:
        at = 4 * chance.randrange(len(values) // 4)
        odd = chance.choice((b"\xff" * 4, b"\x00\x00\x80\x7f", b"\xff\xff\x7f\x7f", b"\1\0\0\0", bytes(64)))
        return content[: 8 + length] + values[:at] + odd + values[at + len(odd) :]
    header = json.loads(text)
    name = chance.choice([key for key in header if key != "__metadata__"])
    entry = header[name]
    if choice == 4:
        return _recast(chance, header, name, values)
    if choice == 2:
        text = json.dumps(_changed_entry(chance, header, name, entry)).encode()
    else:
        text = chance.choice((
            b"[" * 50_000, b"{}", b"[]", b"null", b"{" + b'"a":{' * 9_000, text[:-1] + b"," + text[1:], text + b" " * 100_000,
            text.replace(b"}", b',"extra":1}', 1), b"\xff" + text, text + b"\0", text.replace(b'"F32"', b'"f32"'), b"",
            text[:-1] + b',"' + name.encode() + b'":' + json.dumps(entry).encode() + b"}", damage(chance, text),
        ))  # fmt: skip
    return struct.pack("<Q", len(text)) + text + values


def _recast(chance: Chance, header: dict[str, Any], changed: str, values: bytes) -> bytes:
    """A file without fault whose one tensor is of another type."""
    kinds = {"F64": 8, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "I8": 1, "BOOL": 1, "U16": 2, "U64": 8, "C64": 8,
             "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1}  # fmt: skip
    kind, body = chance.choice(list(kinds)), b""
    for name, entry in header.items():
        if name != "__metadata__":
            low, high = entry["data_offsets"]
            part = values[low:high]
            if name == changed:
                own = kinds.get(entry["dtype"], 4)
                entry["dtype"], part = kind, bytes(len(part) // own * kinds[kind])
            entry["data_offsets"] = [len(body), len(body) + len(part)]
            body += part
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def _changed_entry(chance: Chance, header: dict[str, Any], name: str, entry: dict[str, Any]) -> dict[str, Any]:
    choice = chance.randrange(7)
    if choice == 0:
        entry["dtype"] = chance.choice(
            ("F64", "F16", "BF16", "I64", "BOOL", "U8", "F8_E4M3", "F8_E5M2", "F4", "C64", "U16", "X", 1)
        )
    elif choice == 1:
        entry["shape"] = chance.choice(
            ([], [0], [-1], [2**63], [2**32, 2**32], [1] * 100, [entry["shape"]], None, "a", [1.5], [0, 2**62])
        )
    elif choice == 2:
        low, high = entry["data_offsets"]
        offsets = chance.choice(
            ([high, low], [0, 4], [low, high + 4], [-4, 0], [0, 2**63], [2**64, 2**65], [low], None, [low, low])
        )
        entry["data_offsets"] = offsets
    elif choice == 3:
        header[
            chance.choice(("", "head.weight", "a\nb", "\0", "ü" * 2000, "__metadata__", "state_dict", "\x1b[2J"))
        ] = header.pop(name)
    elif choice == 4:
        entry["dtype"], entry["shape"] = chance.choice(
            (("I32", entry["shape"]), ("U8", [*entry["shape"], 4]), ("F16", [*entry["shape"], 2]))
        )
    elif choice == 5:
        entry["shape"] = [*entry["shape"], 1] if chance.random() < 0.5 else entry["shape"][::-1]
    else:
        header["__metadata__"] = nasty(chance)
    return header


# ---------------------------------------------------------------- mutants by kind


def _image(chance: Chance) -> Files:
    name = chance.choice(list(photographs()))
    content = damaged_image(chance, name, photographs()[name])
    if chance.random() < 0.05:  # under another's suffix
        name = chance.choice(list(photographs()))
    return {name: content}


def _pair_of(chance: Chance) -> Files:
    if chance.random() < 0.3:
        return _pair(chance, image=next(iter(_image(chance).values())))
    name = chance.choice(list(masks()))
    return _pair(chance, mask=damaged_image(chance, name, masks()[name]))


def _zip(chance: Chance) -> Files:
    return {"photographs.zip": damaged_zip(chance, _pair(chance))}


def _data(chance: Chance) -> Files:
    listing = b"q\np\n" if chance.random() < 0.7 else damage(chance, b"q\np\n")
    return {"data.yaml": damaged_yaml(chance, DATA), "dev.txt": listing, **_pair(chance)}


def _config(chance: Chance) -> Files:
    text = checkpoint()["config.json"].decode()
    return {"config.json": damaged_json(chance, text), "model.safetensors": checkpoint()["model.safetensors"]}


def _parameters(chance: Chance) -> Files:
    tensors = damaged_tensors(chance, checkpoint()["model.safetensors"])
    return {"config.json": checkpoint()["config.json"], "model.safetensors": tensors}


def _any_dataset(chance: Chance) -> Files:
    return chance.choice((_pair_of, _zip, _data))(chance)


def _training(chance: Chance) -> Files:
    choice = chance.randrange(4)
    recipe = damaged_yaml(chance, RECIPE) if choice < 2 else RECIPE.encode()
    listing = {"dev.txt": b"q\n"}
    if choice == 2:
        return {"recipe.yaml": recipe, **listing, **_pair_of(chance)}
    if choice == 3:
        tensors = damaged_tensors(chance, checkpoint()["trunk.safetensors"])
        return {"recipe.yaml": recipe.replace(b"pretrained: none", b"pretrained: trunk.safetensors"),
                "trunk.safetensors": tensors, **listing, **_pair(chance)}  # fmt: skip
    return {"recipe.yaml": recipe, **listing, **_pair(chance)}


MUTATORS: dict[str, Callable[[Chance], Files]] = {
    "image": _image, "opened": _image, "pair": _pair_of, "zip": _zip, "data": _data, "config": _config,
    "parameters": _parameters, "verb": _any_dataset, "train": _training,
    "recipe": lambda chance: {"recipe.yaml": damaged_yaml(chance, RECIPE)},
    "pretrained": lambda chance: {"trunk.safetensors": damaged_tensors(chance, checkpoint()["trunk.safetensors"])},
    "pickle": lambda chance: {"trunk.pth": damage(chance, checkpoint()["trunk.pth"])},
}  # fmt: skip
