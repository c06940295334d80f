"""Reading photographs and label images as people have them; drawing labels and weights. Pillow and numpy are the oracles."""

import io
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from scaleseg.errors import UserError
from scaleseg.images import draw_overlay, draw_weights, label_image, palette, read, read_labels, to_tensor

RANDOM = np.random.default_rng(0)
PHOTO = RANDOM.integers(0, 256, (6, 9, 3), dtype=np.uint8)
IDS = RANDOM.integers(0, 21, (6, 9), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def channels_last(source: object) -> np.ndarray:
    return read(source, "photo").permute(1, 2, 0).numpy()


def bomb(columns: int, rows: int) -> bytes:
    """A PNG of a few bytes whose header claims a huge picture."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


def big_endian_tiff(values: np.ndarray) -> bytes:
    """An uncompressed 16-bit grey TIFF in Motorola order, as microscopes and Photoshop write it."""
    data = values.astype(">u2").tobytes()
    rows, columns = values.shape
    short = {256: columns, 257: rows, 258: 16, 259: 1, 262: 1, 277: 1, 278: rows}
    long = {273: 8, 279: len(data)}
    entries = {tag: struct.pack(">HHIHH", tag, 3, 1, value, 0) for tag, value in short.items()}
    entries |= {tag: struct.pack(">HHII", tag, 4, 1, value) for tag, value in long.items()}
    directory = b"".join(entries[tag] for tag in sorted(entries))
    return (
        struct.pack(">2sHI", b"MM", 42, 8 + len(data)) + data + struct.pack(">H", len(entries)) + directory + b"\0" * 4
    )


@pytest.mark.parametrize("kind", ["path", "string", "bytes", "file"])
def test_every_kind_of_source_gives_the_same_pixels(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(Image.fromarray(PHOTO)))
    source = {"path": path, "string": str(path), "bytes": path.read_bytes(), "file": io.BytesIO(path.read_bytes())}
    assert np.array_equal(channels_last(source[kind]), PHOTO)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(PHOTO), "JPEG", exif=exif, quality=95)
    assert np.array_equal(channels_last(content), np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content)))))


def test_orientation_six_is_a_quarter_turn_clockwise() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert np.array_equal(channels_last(encoded(Image.fromarray(PHOTO), exif=exif)), np.rot90(PHOTO, -1))


def test_damaged_exif_does_not_stop_a_photograph_from_being_read() -> None:
    content = encoded(Image.fromarray(PHOTO), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05garbage")
    assert read(content).shape == (3, 6, 9)


def test_grey_has_three_equal_channels() -> None:
    assert np.array_equal(channels_last(encoded(Image.fromarray(IDS))), np.stack([IDS] * 3, axis=2))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_what_is_transparent_is_white(mode: str) -> None:
    image = Image.fromarray(PHOTO).convert(mode)
    image.putalpha(0)
    assert (channels_last(encoded(image)) == 255).all()


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_what_is_opaque_keeps_its_colour(mode: str) -> None:
    image = Image.fromarray(PHOTO).convert(mode)
    assert np.array_equal(channels_last(encoded(image)), np.asarray(image.convert("RGB")))


def test_half_transparent_is_half_white() -> None:
    image = Image.new("RGBA", (2, 2), (0, 100, 200, 128))
    assert np.abs(channels_last(encoded(image))[0, 0].astype(int) - (127, 177, 227)).max() <= 1


@pytest.mark.parametrize("top", [255, 65535])
def test_sixteen_bit_grey_is_scaled_not_clipped(top: int) -> None:
    values = np.array([[0, 128 * 257, 65535]], np.uint16)
    values[0, 2] = top
    expected = [0, 128, round(top / 257)]
    assert channels_last(encoded(Image.fromarray(values)))[0, :, 0].tolist() == expected


def test_sixteen_bit_grey_in_motorola_order_is_scaled_too() -> None:
    values = np.array([[0, 128 * 257, 65535]])
    assert channels_last(big_endian_tiff(values))[0, :, 0].tolist() == [0, 128, 255]


def test_cmyk_becomes_rgb() -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # no cyan: red
    red, green, blue = channels_last(encoded(image, "JPEG"))[8, 8].tolist()
    assert red > 240
    assert max(green, blue) < 15


def test_a_palette_is_looked_up() -> None:
    image = Image.fromarray(PHOTO).quantize(8)
    assert np.array_equal(channels_last(encoded(image)), np.asarray(image.convert("RGB")))


def test_the_transparent_entry_of_a_palette_is_white() -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8))
    image.putpalette([10, 20, 30, 40, 50, 60])
    assert channels_last(encoded(image, transparency=0))[0].tolist() == [[255] * 3, [40, 50, 60]]


def test_one_bit_is_black_and_white() -> None:
    bits = np.array([[True, False, True]])
    assert channels_last(encoded(Image.fromarray(bits)))[0, :, 0].tolist() == [255, 0, 255]


def test_a_float_tiff_from_0_to_1_is_scaled() -> None:
    values = np.array([[0, 0.5, 1]], np.float32)
    assert channels_last(encoded(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [0, 128, 255]


def test_a_float_tiff_from_0_to_255_is_not() -> None:
    values = np.array([[0, 127.6, 255]], np.float32)
    assert channels_last(encoded(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_float_tiff_with_values_that_are_none_is_refused(value: float) -> None:
    with pytest.raises(UserError, match=r"depth\.tif holds NaN or infinity"):
        read(encoded(Image.fromarray(np.array([[0, value]], np.float32)), "TIFF"), "depth.tif")


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV", "I", "I;16", "F"]
)
def test_every_mode_of_pillow_is_rgb_at_the_end(mode: str) -> None:
    assert to_tensor(Image.new(mode, (3, 2))).shape == (3, 2, 3)


JPEG = encoded(Image.fromarray(RANDOM.integers(0, 256, (64, 64, 3), dtype=np.uint8)), "JPEG")
PNG = encoded(Image.fromarray(RANDOM.integers(0, 256, (64, 64, 3), dtype=np.uint8)))
UNREADABLE = {
    "text.jpg": b"this is no photograph",
    "short.jpg": JPEG[: len(JPEG) // 2],
    "short.png": PNG[: len(PNG) // 2],
    "header.png": PNG[:20],
    "empty.png": b"",
    "wide.png": bomb(2**31 - 1, 2**31 - 1),
    "bomb.png": bomb(20_000, 20_000),
    "lying.png": bomb(3000, 3000),
}


@pytest.mark.parametrize("reader", [read, read_labels])
@pytest.mark.parametrize("name", UNREADABLE)
def test_a_file_that_cannot_be_read_is_named(reader: object, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(UNREADABLE[name])
    with pytest.raises(UserError, match=name):
        reader(tmp_path / name)


@pytest.mark.parametrize("size", [(2**31 - 1, 2**31 - 1), (20_000, 20_000)])
def test_a_huge_picture_is_refused_before_it_is_decoded(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", decoded.append)
    with pytest.raises(UserError):
        read(bomb(*size))
    assert decoded == []


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.png does not exist"):
        read(tmp_path / "gone.png")


def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=tmp_path.name):
        read(tmp_path)


@pytest.mark.parametrize("mode", ["grey", "palette", "rgb", "rgba", "sixteen", "thirty-two"])
def test_ids_are_read_from_every_honest_mask(mode: str) -> None:
    with_palette = Image.fromarray(IDS)
    with_palette.putpalette(palette(21).tobytes())
    image = {
        "grey": Image.fromarray(IDS),
        "palette": with_palette,
        "rgb": Image.fromarray(np.stack([IDS] * 3, axis=2)),
        "rgba": Image.fromarray(IDS).convert("RGBA"),
        "sixteen": Image.fromarray(IDS.astype(np.uint16)),
        "thirty-two": Image.fromarray(IDS.astype(np.int32)),
    }[mode]
    assert np.array_equal(read_labels(encoded(image, "TIFF" if mode == "thirty-two" else "PNG")), IDS)


def test_a_palette_mask_gives_its_index_whatever_its_colours_and_transparency() -> None:
    image = Image.fromarray(IDS)
    image.putpalette([7, 7, 7] * 256)
    assert np.array_equal(read_labels(encoded(image, transparency=0)), IDS)


def test_a_one_bit_mask_has_ids_0_and_1() -> None:
    bits = np.array([[True, False, True]])
    assert read_labels(encoded(Image.fromarray(bits))).tolist() == [[1, 0, 1]]


def test_a_colour_mask_is_refused() -> None:
    with pytest.raises(UserError, match=r"mask\.png is a colour image"):
        read_labels(encoded(Image.fromarray(PHOTO)), "mask.png")


def test_ids_above_255_are_refused_and_named() -> None:
    with pytest.raises(UserError, match=r"mask\.png has ids from 3 to 300"):
        read_labels(encoded(Image.fromarray(np.array([[3, 300]], np.uint16))), "mask.png")


def test_ids_above_255_in_motorola_order_are_refused() -> None:
    with pytest.raises(UserError, match="300"):
        read_labels(big_endian_tiff(np.array([[3, 300]])), "mask.tif")


def test_ids_in_motorola_order_are_read() -> None:
    assert np.array_equal(read_labels(big_endian_tiff(IDS)), IDS)


@pytest.mark.parametrize("value", [0.5, np.nan])
def test_a_float_mask_whose_values_are_no_whole_numbers_is_refused(value: float) -> None:
    with pytest.raises(UserError, match=r"mask\.tif"):
        read_labels(encoded(Image.fromarray(np.array([[0, value]], np.float32)), "TIFF"), "mask.tif")


def test_a_label_image_gives_its_ids_back() -> None:
    ids = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(read_labels(encoded(label_image(ids, 21))), ids)


def test_the_palette_begins_with_vocs_colours() -> None:
    """Background, aeroplane, bicycle, bird and boat of the devkit's VOCcolormap.m; void is cream."""
    expected = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128)]
    assert [tuple(colour) for colour in palette(21)[:5].tolist()] == expected
    assert palette(21)[255].tolist() == [224, 224, 192]


def test_colours_of_classes_differ() -> None:
    assert len({tuple(colour) for colour in palette(255).tolist()}) == 256


def test_ids_beyond_the_classes_are_black() -> None:
    assert (palette(5)[5:255] == 0).all()


def test_an_overlay_is_as_large_as_its_photograph() -> None:
    labels = torch.from_numpy(IDS)
    assert draw_overlay(read(encoded(Image.fromarray(PHOTO))), labels, 21).size == (9, 6)


def test_background_stays_as_it_is() -> None:
    drawn = draw_overlay(torch.from_numpy(PHOTO).permute(2, 0, 1), torch.zeros(6, 9, dtype=torch.uint8), 21)
    assert np.array_equal(np.asarray(drawn), PHOTO)


def test_an_opaque_overlay_has_the_class_colour() -> None:
    drawn = draw_overlay(
        torch.zeros(3, 4, 4, dtype=torch.uint8), torch.full((4, 4), 3, dtype=torch.uint8), 21, opacity=1.0
    )
    assert (np.asarray(drawn) == palette(21)[3]).all()


def test_weights_stand_side_by_side() -> None:
    assert draw_weights(torch.rand(3, 6, 9)).size == (27, 6)


def test_more_weight_is_brighter() -> None:
    strip = draw_weights(torch.linspace(0, 1, 9).reshape(1, 1, 9)).convert("L")
    brightness = np.asarray(strip)[0].astype(int)
    assert (np.diff(brightness) > 0).all()


def test_a_picture_that_was_opened_but_never_decoded_is_the_users_mistake_if_it_is_cut_short(tmp_path: Path) -> None:
    Image.effect_noise((64, 64), 50).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:1000])
    with Image.open(tmp_path / "cut.png") as opened, pytest.raises(UserError, match="damaged or cut short"):
        to_tensor(opened)


def test_damaged_metadata_of_a_whole_picture_is_left_out_without_a_warning() -> None:
    """A directory of EXIF that claims an entry and ends: Pillow would warn; warnings are errors here."""
    cut = b"Exif\0\0MM\0*\0\0\0\x08\0\x01"
    assert np.array_equal(channels_last(encoded(Image.fromarray(PHOTO), exif=cut)), PHOTO)


def test_a_decoder_that_fails_in_its_own_way_is_a_user_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise struct.error("unpack requires a buffer of 4 bytes")

    monkeypatch.setattr(ImageOps, "exif_transpose", fail)
    with pytest.raises(
        UserError, match=r"^photo cannot be decoded \(unpack requires a buffer of 4 bytes\); it is damaged"
    ):
        channels_last(encoded(Image.fromarray(PHOTO)))


def test_too_little_memory_for_a_picture_is_not_called_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageOps, "exif_transpose", fail)
    with pytest.raises(UserError, match=r"^photo has more pixels than memory holds; shrink it$"):
        channels_last(encoded(Image.fromarray(PHOTO)))


def test_reading_takes_little_more_memory_than_the_picture() -> None:
    """One copy beside numpy's view of Pillow's memory, which itself tracemalloc does not see."""
    content = encoded(Image.new("RGB", (2000, 1000)))
    tracemalloc.start()
    try:
        read(content, "photo")
        assert tracemalloc.get_traced_memory()[1] < 2.2 * 2000 * 1000 * 3
    finally:
        tracemalloc.stop()


def test_pillow_says_nothing_of_its_own_about_damage(capfd: pytest.CaptureFixture[str]) -> None:
    """Where nobody set up logging, Python prints what a library logs; a process of its own has nothing set up."""
    code = "import logging, scaleseg.images; logging.getLogger('PIL.TiffImagePlugin').error('More samples per pixel')"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", ["EPS", "GIF", "PPM"])
def test_a_file_of_another_kind_is_refused_whatever_it_is_called(kind: str, tmp_path: Path) -> None:
    """Pillow would start Ghostscript for PostScript."""
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(Image.fromarray(PHOTO), kind))
    with pytest.raises(UserError, match="is no image that can be read; give"):
        read(path)


def in_one_piece(image: torch.Tensor, labels: torch.Tensor, num_classes: int, opacity: float) -> np.ndarray:
    """What `draw_overlay` draws, by whole arrays in float32."""
    photo, ids = image.permute(1, 2, 0).numpy().astype(np.float32), labels.numpy()
    blend = np.where((ids > 0)[..., None], opacity, 0.0).astype(np.float32)
    mixed = photo * (1 - blend) + palette(num_classes)[ids] * blend
    mixed[:, 1:][ids[:, 1:] != ids[:, :-1]] = 255
    mixed[1:][ids[1:] != ids[:-1]] = 255
    return mixed.round().astype(np.uint8)


@pytest.mark.parametrize("drawn", [1, 100, 10**6])
def test_an_overlay_in_strips_has_the_pixels_of_one_in_one_piece(drawn: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scaleseg.images.DRAWN", drawn)
    image = torch.from_numpy(RANDOM.integers(0, 256, (3, 23, 31), dtype=np.uint8))
    labels = torch.from_numpy(RANDOM.integers(0, 2, (23, 31), dtype=np.uint8) * 20)
    assert np.array_equal(np.asarray(draw_overlay(image, labels, 21, 0.6)), in_one_piece(image, labels, 21, 0.6))


def test_weights_in_strips_have_the_pixels_of_those_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = torch.rand(3, 17, 13)
    whole = np.asarray(draw_weights(weights))
    each = [np.asarray(draw_weights(one[None])) for one in weights]
    assert np.array_equal(whole, np.concatenate(each, axis=1))
    monkeypatch.setattr("scaleseg.images.DRAWN", 50)
    assert np.array_equal(np.asarray(draw_weights(weights)), whole)


def test_drawing_takes_little_more_memory_than_the_drawing() -> None:
    """In float32 an overlay would take thirteen times as much; a drawing has three bytes a pixel."""
    image, labels = torch.zeros(3, 2000, 3000, dtype=torch.uint8), torch.ones(2000, 3000, dtype=torch.uint8)
    tracemalloc.start()
    try:
        draw_overlay(image, labels, 21)
        assert tracemalloc.get_traced_memory()[1] < 2000 * 3000 * 3 + 60 * 10**6
    finally:
        tracemalloc.stop()
