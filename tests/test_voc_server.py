"""`predict --format voc-server`: the archive that PASCAL VOC's evaluation server takes."""

import io
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scaleseg import checkpoint
from scaleseg.batch import Item
from scaleseg.cli import main
from scaleseg.config import merge
from scaleseg.datasets.voc import CLASSES
from scaleseg.errors import UserError
from scaleseg.model import create_model
from scaleseg.segmentation import segment
from scaleseg.voc_server import pack, select

INSIDE = "results/VOC2012/Segmentation/comp6_test_cls"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A tiny model of VOC's classes that says more than one thing."""
    torch.manual_seed(0)
    model = {"segmenter": "small", "scales": [1.0], "fusion": "average", "pretrained": "none"}
    model["options"] = {"width": 4, "num_features": 8}
    network = create_model(**model, classes=CLASSES)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn_like(parameter))
    checkpoint.save(tmp_path / "model", network, merge({"model": model, "data": {"classes": list(CLASSES)}}))
    return tmp_path / "model"


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "JPEGImages"
    folder.mkdir()
    for index, name in enumerate(("2008_000006", "2008_000011", "2009_000003")):
        pixels = np.random.default_rng(index).integers(0, 255, (40, 60 + index, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.jpg")
    return folder


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["scaleseg", *map(str, arguments)])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_the_archive_holds_each_mask_as_an_indexed_png_under_its_id(
    saved: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert call(monkeypatch, "predict", saved, photographs, "--format", "voc-server", "--out", out) == 0
    with tarfile.open(out / "results.tgz") as archive:
        names = [member.name for member in archive.getmembers()]
        assert names == [f"{INSIDE}/{path.stem}.png" for path in sorted(photographs.iterdir())]
        opened = archive.extractfile(names[1])
        assert opened is not None
        mask = Image.open(io.BytesIO(opened.read()))
    said = segment(checkpoint.load(saved), photographs / "2008_000011.jpg", precision="float32")
    assert mask.mode == "P"
    assert (np.asarray(mask) == said.labels.numpy()).mean() > 0.99
    assert mask.getpalette()[3 * 15 : 3 * 15 + 3] == [192, 128, 128]  # VOC's colour of a person


def test_a_list_of_ids_chooses_the_images(
    saved: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing, out = tmp_path / "test.txt", tmp_path / "out"
    listing.write_text("2009_000003\n2008_000006\n")
    arguments = ("predict", saved, photographs, "--format", "voc-server", "--ids", listing, "--out", out)
    assert call(monkeypatch, *arguments) == 0
    with tarfile.open(out / "results.tgz") as archive:
        assert [Path(name).stem for name in archive.getnames()] == ["2008_000006", "2009_000003"]


def test_an_id_without_an_image_is_named(tmp_path: Path) -> None:
    listing = tmp_path / "test.txt"
    listing.write_text("a\nb\n")
    with pytest.raises(UserError, match=r"1 of the 2 ids of .* are no images there \(b\)"):
        select([Item(Path("a.jpg"), "a")], listing)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00"])
def test_a_list_that_is_none_is_the_users_error(tmp_path: Path, content: bytes) -> None:
    listing = tmp_path / "test.txt"
    listing.write_bytes(content)
    with pytest.raises(UserError, match="ids"):
        select([Item(Path("a.jpg"), "a")], listing)


def test_two_images_of_one_name_are_refused() -> None:
    with pytest.raises(UserError, match="knows an image by its name alone"):
        select([Item(Path("one/a.jpg"), "one/a"), Item(Path("two/a.jpg"), "two/a")], None)


def test_the_same_masks_make_the_same_archive(tmp_path: Path) -> None:
    for out in (tmp_path / "one", tmp_path / "two"):
        (out / "masks").mkdir(parents=True)
        Image.new("P", (3, 2)).save(out / "masks" / "a.png")
    one, two = (pack(out, [Item(Path("a.jpg"), "a")]).read_bytes() for out in (tmp_path / "one", tmp_path / "two"))
    assert one == two


def test_a_name_may_be_as_long_as_a_file_systems(tmp_path: Path) -> None:
    name = "ä" * 120
    (tmp_path / "masks").mkdir()
    Image.new("P", (3, 2)).save(tmp_path / "masks" / f"{name}.png")
    with tarfile.open(pack(tmp_path, [Item(Path(f"{name}.jpg"), name)])) as archive:
        assert archive.getnames() == [f"{INSIDE}/{name}.png"]


def test_another_model_than_voc_s_is_refused(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("predict", "voc-animals-lite", photographs, "--format", "voc-server", "--out", tmp_path / "out")
    assert call(monkeypatch, *arguments) == 1
    assert "the server knows VOC's 21 alone" in capsys.readouterr().err


def test_a_damaged_photograph_leaves_no_archive(
    saved: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photographs / "2008_000006.jpg").write_bytes(b"no photograph")
    out = tmp_path / "out"
    assert call(monkeypatch, "predict", saved, photographs, "--format", "voc-server", "--out", out) == 1
    assert not (out / "results.tgz").exists()


@pytest.mark.parametrize("arguments", [("--format", "zip"), ("--ids", "list.txt")])
def test_options_that_do_not_fit_are_refused(
    arguments: tuple[str, str], saved: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(monkeypatch, "predict", saved, photographs, "--out", tmp_path / "out", *arguments) == 1
