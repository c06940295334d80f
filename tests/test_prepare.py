"""`data prepare`: VOC with SBD as published, from any kind of archive; a kill leaves nothing half made."""

import fcntl
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import official
from official import drawn, ids_of, jpeg, palette_png, sbd_files, tree, voc_files, write
from scaleseg import atomic
from scaleseg.cli.app import app
from scaleseg.config import DataConfig
from scaleseg.datasets import open_evaluation, open_training, open_whole
from scaleseg.datasets.voc import VOC
from scaleseg.errors import UserError
from scaleseg.images import palette, read
from scaleseg.prepare import list_preparations, prepare, voc_animals
from scaleseg.recipes import load_recipe

TRAIN, VAL = ["2007_000001", "2007_000002"], ["2007_000003"]
SBD_TRAIN, SBD_VAL = ["2008_000004", "2007_000001"], ["2008_000005", "2007_000003"]
AUGMENTED = ["2007_000001", "2007_000002", "2008_000004", "2008_000005"]
"""By hand: both SBD lists and VOC's train list, less VOC's val list."""


@pytest.fixture(autouse=True)
def counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The official counts, as of these archives."""
    monkeypatch.setattr("scaleseg.prepare.voc.COUNTS", {"train": 2, "val": 1, "trainaug": 4})


DEVKIT = voc_files(TRAIN, VAL, ["2008_000004", "2008_000005", "2009_000009"])
SBD = sbd_files(SBD_TRAIN, SBD_VAL)


def devkit() -> dict[str, bytes]:
    return dict(DEVKIT)


def sbd() -> dict[str, bytes]:
    return dict(SBD)


@pytest.fixture
def archives(tmp_path: Path) -> list[Path]:
    """As they are downloaded."""
    return [write(tmp_path / "VOCtrainval.tar", devkit()), write(tmp_path / "benchmark.tgz", sbd())]


def test_the_preparations_are_the_folders_files() -> None:
    assert list_preparations() == ("coco", "person-part", "voc", "voc-animals")


def test_voc_becomes_a_devkit_with_the_published_lists(archives: list[Path], tmp_path: Path) -> None:
    report = prepare("voc", archives, tmp_path / "out")
    assert report.counts == {"train": 2, "val": 1, "trainval": 3, "trainaug": 4}
    for name, ids in (("train", TRAIN), ("val", VAL), ("trainval", TRAIN + VAL), ("trainaug", AUGMENTED)):
        listing = tmp_path / f"out/VOC2012/ImageSets/Segmentation/{name}.txt"
        assert listing.read_text().split() == ids


def test_photographs_and_vocs_own_masks_are_copied_byte_for_byte(archives: list[Path], tmp_path: Path) -> None:
    prepare("voc", archives, tmp_path / "out")
    files = devkit()
    for key in AUGMENTED + VAL:
        assert (tmp_path / f"out/VOC2012/JPEGImages/{key}.jpg").read_bytes() == files[
            f"VOCdevkit/VOC2012/JPEGImages/{key}.jpg"
        ]
    for key in TRAIN + VAL:
        for part in ("SegmentationClass", "SegmentationClassAug"):
            own = files[f"VOCdevkit/VOC2012/SegmentationClass/{key}.png"]
            assert (tmp_path / f"out/VOC2012/{part}/{key}.png").read_bytes() == own


def test_where_voc_has_no_mask_sbds_is_taken_in_vocs_palette(archives: list[Path], tmp_path: Path) -> None:
    prepare("voc", archives, tmp_path / "out")
    for key, seed in (("2008_000004", 200), ("2008_000005", 202)):
        path = tmp_path / f"out/VOC2012/SegmentationClassAug/{key}.png"
        assert np.array_equal(ids_of(path), drawn(seed))
        with Image.open(path) as image:
            assert image.getpalette()[: 21 * 3] == palette(21)[:21].ravel().tolist()
        assert not (tmp_path / f"out/VOC2012/SegmentationClass/{key}.png").exists()


def test_photographs_in_no_list_stay_behind(archives: list[Path], tmp_path: Path) -> None:
    prepare("voc", archives, tmp_path / "out")
    assert len(list((tmp_path / "out/VOC2012/JPEGImages").iterdir())) == len(AUGMENTED + VAL)


def test_what_was_prepared_is_read(archives: list[Path], tmp_path: Path) -> None:
    prepare("voc", archives, tmp_path / "out")
    data = load_recipe("voc-attention", [f"data={tmp_path / 'out/data.yaml'}"]).data
    assert list(open_training(data).train.names) == AUGMENTED
    labels = open_evaluation(data).dataset[0][1]
    assert np.array_equal(labels.numpy(), ids_of(tmp_path / f"out/VOC2012/SegmentationClass/{VAL[0]}.png"))


@pytest.mark.parametrize("ending", ["", ".zip", ".tar", ".tar.gz", ".tgz"])
def test_an_archive_may_be_of_any_kind(ending: str, archives: list[Path], tmp_path: Path) -> None:
    others = [write(tmp_path / f"a{ending}", devkit()), write(tmp_path / f"b{ending}", sbd())]
    prepare("voc", archives, tmp_path / "out")
    prepare("voc", others, tmp_path / "other")
    first, second = tree(tmp_path / "out"), tree(tmp_path / "other")
    assert {**first, "prepared.json": b""} == {**second, "prepared.json": b""}


@pytest.mark.parametrize("inner", ["VOCdevkit", "VOCdevkit/VOC2012"])
def test_an_unpacked_folder_may_be_given_from_any_depth(inner: str, tmp_path: Path) -> None:
    write(tmp_path / "a", devkit())
    write(tmp_path / "b", sbd())
    report = prepare("voc", [tmp_path / "a" / inner, tmp_path / "b/benchmark_RELEASE/dataset"], tmp_path / "out")
    assert report.counts["trainaug"] == 4


def test_sbds_archive_alone_says_which_file_of_which_archive_is_missing(archives: list[Path], tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"Segmentation/train\.txt of VOCtrainval_11-May-2012\.tar was not found in .*benchmark"
    ):
        prepare("voc", archives[1:], tmp_path / "out")


def test_vocs_archive_alone_says_which_file_of_which_archive_is_missing(archives: list[Path], tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"dataset/train\.txt of SBD's benchmark\.tgz was not found.*--allow-incomplete"
    ):
        prepare("voc", archives[:1], tmp_path / "out")


def test_wrong_counts_say_what_was_found_and_what_is_official(
    archives: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scaleseg.prepare.voc.COUNTS", {"train": 1464, "val": 1449, "trainaug": 10582})
    with pytest.raises(
        UserError, match=r"found train 2, val 1, trainaug 4; the official counts are train 1,464, val 1,449"
    ):
        prepare("voc", archives, tmp_path / "out")


def test_incomplete_data_are_made_on_request_and_marked(archives: list[Path], tmp_path: Path) -> None:
    report = prepare("voc", archives[:1], tmp_path / "out", allow_incomplete=True)
    assert report.counts["trainaug"] == len(TRAIN)
    assert any(note.startswith("incomplete: found train 2, val 1, trainaug 2") for note in report.notes)
    mark = json.loads((tmp_path / "out/prepared.json").read_text())
    assert (mark["finished"], mark["incomplete"]) == (True, True)


def test_a_listed_photograph_that_is_in_no_archive_is_named(tmp_path: Path) -> None:
    files = devkit()
    del files["VOCdevkit/VOC2012/JPEGImages/2008_000004.jpg"]
    given = [write(tmp_path / "a.tar", files), write(tmp_path / "b.tgz", sbd())]
    with pytest.raises(UserError, match="1 of 5 listed photographs or their masks are in no archive: 2008_000004"):
        prepare("voc", given, tmp_path / "out")
    assert prepare("voc", given, tmp_path / "out", allow_incomplete=True).counts["trainaug"] == 3


def test_a_forgotten_archive_can_be_added(archives: list[Path], tmp_path: Path) -> None:
    prepare("voc", archives[:1], tmp_path / "out", allow_incomplete=True)
    assert prepare("voc", archives, tmp_path / "out").counts["trainaug"] == 4
    prepare("voc", archives, tmp_path / "fresh")
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


def test_the_wrong_archive_at_first_does_not_spoil_the_folder(archives: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UserError):
        prepare("voc", archives[1:], tmp_path / "out")
    assert prepare("voc", archives, tmp_path / "out").counts["train"] == 2


def test_other_archives_need_another_folder(archives: list[Path], tmp_path: Path) -> None:
    prepare("voc", archives, tmp_path / "out")
    other = write(tmp_path / "other.tar", devkit())
    with pytest.raises(UserError, match=r"was begun as voc from VOCtrainval\.tar, benchmark\.tgz"):
        prepare("voc", [other, archives[1]], tmp_path / "out")


def test_a_folder_that_holds_something_else_is_left_alone(archives: list[Path], tmp_path: Path) -> None:
    write(tmp_path / "mine", {"VOC2012/JPEGImages/a.jpg": b"mine"})
    with pytest.raises(UserError, match="is not empty"):
        prepare("voc", archives, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").rglob("*") if path.is_file()] == ["a.jpg"]


def test_a_folder_within_a_source_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a", {**devkit(), **sbd()})
    with pytest.raises(UserError, match="lies in --from"):
        prepare("voc", [tmp_path / "a"], tmp_path / "a/out")


def test_a_file_as_the_folder_is_refused(archives: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--to .*benchmark\.tgz is a file; give a new folder"):
        prepare("voc", archives[:1], archives[1])


def test_an_archive_given_twice_counts_once(archives: list[Path], tmp_path: Path) -> None:
    prepare("voc", [*archives, archives[0], tmp_path / "." / "benchmark.tgz"], tmp_path / "out")
    mark = json.loads((tmp_path / "out/prepared.json").read_text())
    assert mark["sources"] == ["VOCtrainval.tar", "benchmark.tgz"]


def test_other_years_in_the_devkit_are_left_alone(tmp_path: Path) -> None:
    write(tmp_path / "a", devkit())
    older = voc_files(["2007_000032", TRAIN[0]], VAL, [], year=2007)
    older["VOCdevkit/VOC2007/SegmentationClass/2007_000001.png"] = palette_png(np.ones((9, 12)))
    write(tmp_path / "a", older)
    prepare("voc", [tmp_path / "a/VOCdevkit", write(tmp_path / "b.tgz", sbd())], tmp_path / "out")
    own = devkit()["VOCdevkit/VOC2012/SegmentationClass/2007_000001.png"]
    assert (tmp_path / "out/VOC2012/SegmentationClass/2007_000001.png").read_bytes() == own
    assert (tmp_path / "out/VOC2012/ImageSets/Segmentation/train.txt").read_text().split() == TRAIN


def test_lists_without_photographs_make_nothing(archives: list[Path], tmp_path: Path) -> None:
    lists = {name: content for name, content in devkit().items() if name.endswith(".txt")}
    with pytest.raises(UserError, match="of 5 listed photographs none is there with its mask"):
        prepare("voc", [write(tmp_path / "a.zip", lists), archives[1]], tmp_path / "out", allow_incomplete=True)
    assert json.loads((tmp_path / "out/prepared.json").read_text())["finished"] is False


def test_an_unknown_name_gets_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'voc-animals'"):
        prepare("voc-animal", [], tmp_path)


def test_somebody_elses_unfinished_files_are_left_alone(archives: list[Path], tmp_path: Path) -> None:
    name = f"{atomic.MARK}123-model.bin"
    write(tmp_path / "mine", {name: b"being written", "model.txt": b"mine"})
    with pytest.raises(UserError, match="is not empty"):
        prepare("voc", archives, tmp_path / "mine")
    assert (tmp_path / "mine" / name).is_file()


@pytest.mark.parametrize("writes", [0, 1, 2, 5, 9, 14, 19])
def test_an_interrupted_preparation_goes_on_to_the_same_bytes(
    writes: int, archives: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare("voc", archives, tmp_path / "whole")
    counted = stop_after(writes)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(atomic, "write", counted)
        prepare("voc", archives, tmp_path / "out")
    if writes > 1:
        with pytest.raises(UserError, match="half prepared; give the same `scaleseg data prepare voc` again"):
            VOC(tmp_path / "out", "train")
    prepare("voc", archives, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def stop_after(count: int) -> Callable[[Path, bytes | str], None]:
    """`atomic.write` that is interrupted at its `count`-th call."""
    left, real = [count], atomic.write

    def write_some(path: Path, content: bytes | str) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        real(path, content)

    return write_some


def test_work_that_is_done_is_not_done_again(archives: list[Path], tmp_path: Path) -> None:
    prepare("voc", archives, tmp_path / "out")
    photographs = sorted((tmp_path / "out/VOC2012/JPEGImages").iterdir())
    photographs[0].unlink()
    before = {path: path.stat().st_mtime_ns for path in photographs[1:]}
    prepare("voc", archives, tmp_path / "out")
    assert photographs[0].is_file()
    assert {path: path.stat().st_mtime_ns for path in photographs[1:]} == before


KILLED = """
import os, sys
from pathlib import Path
from scaleseg.prepare import prepare, voc
voc.COUNTS = {"train": 2, "val": 1, "trainaug": 4}
left, real = [13], os.fsync
def fsync(descriptor):
    left[0] -= 1
    if not left[0]:
        os._exit(9)
    real(descriptor)
os.fsync = fsync
prepare("voc", [Path(item) for item in sys.argv[2:]], Path(sys.argv[1]))
"""


def test_a_killed_preparation_leaves_no_half_file_and_goes_on(archives: list[Path], tmp_path: Path) -> None:
    prepare("voc", archives, tmp_path / "whole")
    command = [sys.executable, "-c", KILLED, str(tmp_path / "out"), *map(str, archives)]
    assert subprocess.run(command, check=False, timeout=60).returncode == 9
    assert any(name.rpartition("/")[2].startswith(atomic.MARK) for name in tree(tmp_path / "out"))
    prepare("voc", archives, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_two_at_once_do_not_write_into_one_folder(archives: list[Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with (tmp_path / "out/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another prepare is writing"):
            prepare("voc", archives, tmp_path / "out")


def test_a_devkit_made_by_hand_needs_no_mark(tmp_path: Path) -> None:
    write(tmp_path / "mine", devkit())
    assert list(VOC(tmp_path / "mine/VOCdevkit", "train").names) == TRAIN


def test_voc_animals_are_the_committed_ids() -> None:
    train, val, dev = (voc_animals.read_ids(split) for split in ("train", "val", "dev"))
    assert [len(set(ids)) for ids in (train, val, dev)] == [2800, 445, 280]
    assert set(dev) <= set(train)
    assert not set(train) & set(val)


def test_voc_animals_feed_their_recipe(archives: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = {"train": ["2007_000001", "2008_000004"], "val": VAL, "dev": ["2008_000004"]}
    monkeypatch.setattr(voc_animals, "read_ids", ids.__getitem__)
    report = prepare("voc-animals", archives, tmp_path / "out")
    assert report.counts == {"train": 2, "val": 1, "dev": 1}
    data = load_recipe("voc-animals-lite0", [f"data={tmp_path / 'out/data.yaml'}"]).data
    splits = open_training(data)
    assert (list(splits.train.names), list(splits.dev.names)) == (["2007_000001"], ["2008_000004"])
    assert data.classes == load_recipe("voc-animals-lite0").data.classes
    cut = np.array([data.label_map.get(number, -1) for number in range(256)])
    assert np.array_equal(splits.dev[0][1].numpy(), cut[drawn(200)])


def test_the_wheel_would_carry_the_lists() -> None:
    """hatch packs what lies in the package's folder and git does not ignore."""
    lists = Path(voc_animals.__file__).parent / "lists"
    assert {path.name for path in lists.iterdir()} == {f"voc-animals-{split}.txt" for split in ("train", "val", "dev")}


def test_a_rotation_mark_that_masks_do_not_follow_is_removed(tmp_path: Path) -> None:
    files = devkit()
    name = "VOCdevkit/VOC2012/JPEGImages/2007_000001.jpg"
    files[name] = jpeg(0, orientation=6)
    given = [write(tmp_path / "a.tar", files), write(tmp_path / "b.tgz", sbd())]
    report = prepare("voc", given, tmp_path / "out")
    assert report.notes == ["rotation marks that masks do not follow were removed from photographs: 1"]
    with Image.open(io.BytesIO(files[name])) as image:
        stored = np.array(image)
    read_back = read(tmp_path / "out/VOC2012/JPEGImages/2007_000001.jpg")
    assert np.array_equal(read_back.permute(1, 2, 0).numpy(), stored)


def test_a_mask_of_another_size_than_its_photograph_is_named(tmp_path: Path) -> None:
    files = {**devkit(), "VOCdevkit/VOC2012/SegmentationClass/2007_000001.png": palette_png(np.zeros((4, 5)))}
    given = [write(tmp_path / "a.tar", files), write(tmp_path / "b.tgz", sbd())]
    with pytest.raises(UserError, match=r"2007_000001\.png is 5 x 4, its photograph 12 x 9"):
        prepare("voc", given, tmp_path / "out")


def test_a_pair_of_two_sizes_comes_anew_from_a_better_archive(archives: list[Path], tmp_path: Path) -> None:
    wrong = {**devkit(), "VOCdevkit/VOC2012/JPEGImages/2008_000004.jpg": jpeg(3, (5, 4))}
    whole = archives[0].read_bytes()
    write(archives[0], wrong)
    with pytest.raises(UserError, match=r"2008_000004\.png is 12 x 9.* 5 x 4.* give the same command again"):
        prepare("voc", archives, tmp_path / "out")
    archives[0].write_bytes(whole)
    prepare("voc", archives, tmp_path / "out")
    prepare("voc", archives, tmp_path / "whole")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("JPEGImages/2007_000001.jpg", b"no jpeg", "is no JPEG"),
        ("SegmentationClass/2007_000001.png", palette_png(np.full((9, 12), 77)), "it is no VOC mask"),
        ("ImageSets/Segmentation/train.txt", b"../../etc/passwd..\n", "found train"),
        ("ImageSets/Segmentation/train.txt", b"a b\n$(rm)\n", "is no id"),
        ("ImageSets/Segmentation/train.txt", b"\xff\xfe\0", "cannot be read as text"),
    ],
)
def test_a_damaged_member_is_named(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    given = [
        write(tmp_path / "a.tar", {**devkit(), f"VOCdevkit/VOC2012/{name}": content}),
        write(tmp_path / "b.tgz", sbd()),
    ]
    with pytest.raises(UserError, match=message):
        prepare("voc", given, tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"MATLAB" + bytes(200), official.mat({"GTcls": 3}), official.mat({"x": 1})])
def test_a_mat_that_is_none_of_sbds_is_named(content: bytes, tmp_path: Path) -> None:
    files = {**sbd(), "benchmark_RELEASE/dataset/cls/2008_000004.mat": content}
    given = [write(tmp_path / "a.tar", devkit()), write(tmp_path / "b.tgz", files)]
    with pytest.raises(UserError, match=r"b\.tgz:benchmark_RELEASE/dataset/cls/2008_000004\.mat"):
        prepare("voc", given, tmp_path / "out")


def test_a_mat_with_foreign_ids_is_named(tmp_path: Path) -> None:
    files = {**sbd(), "benchmark_RELEASE/dataset/cls/2008_000004.mat": official.gtcls_mat(drawn(0, 60))}
    given = [write(tmp_path / "a.tar", devkit()), write(tmp_path / "b.tgz", files)]
    with pytest.raises(UserError, match=r"2008_000004\.mat has ids that are neither 0 to 20 nor 255"):
        prepare("voc", given, tmp_path / "out")


def test_an_archive_cut_short_is_named_and_a_whole_one_goes_on(archives: list[Path], tmp_path: Path) -> None:
    prepare("voc", archives, tmp_path / "whole")
    content = archives[1].read_bytes()
    archives[1].write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"benchmark\.tgz"):
        prepare("voc", archives, tmp_path / "out")
    archives[1].write_bytes(content)
    prepare("voc", archives, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_a_full_disk_leaves_nothing_half_made(
    archives: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, real = [6], os.fsync

    def fsync(descriptor: int) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise OSError(28, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(os, "fsync", fsync)
        prepare("voc", archives, tmp_path / "out")
    assert not [name for name in tree(tmp_path / "out") if atomic.MARK in name]
    prepare("voc", archives, tmp_path / "out")
    prepare("voc", archives, tmp_path / "whole")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_names_and_links_of_a_hostile_tar_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(jpeg(77))
    hostile = tmp_path / "a.tar"
    with tarfile.open(hostile, "w") as archive:
        for name, target in (("../../escaped.txt", None), ("/VOC2012/JPEGImages/2008_000004.jpg", "secret.jpg")):
            member = tarfile.TarInfo(name)
            if target:
                member.type, member.linkname = tarfile.SYMTYPE, str(tmp_path / target)
            archive.addfile(member, io.BytesIO())
        for name, content in devkit().items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    before = set(tmp_path.rglob("*"))
    prepare("voc", [hostile, write(tmp_path / "b.tgz", sbd())], tmp_path / "out")
    outside = {path for path in set(tmp_path.rglob("*")) - before if not path.is_relative_to(tmp_path / "out")}
    assert outside == {tmp_path / "b.tgz"}
    kept = (tmp_path / "out/VOC2012/JPEGImages/2008_000004.jpg").read_bytes()
    assert kept == devkit()["VOCdevkit/VOC2012/JPEGImages/2008_000004.jpg"]


def test_links_in_a_folder_are_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "a", {**devkit(), **sbd()})
    photo = tmp_path / "a/VOCdevkit/VOC2012/JPEGImages/2008_000004.jpg"
    photo.rename(tmp_path / "elsewhere.jpg")
    photo.symlink_to(tmp_path / "elsewhere.jpg")
    with pytest.raises(UserError, match=r"in no archive: 2008_000004; .*links in there, which are not followed: 1;"):
        prepare("voc", [tmp_path / "a"], tmp_path / "out")


def test_a_mark_that_cannot_be_read_is_a_user_error(archives: list[Path], tmp_path: Path) -> None:
    write(tmp_path / "out", {"prepared.json": b"{", "VOC2012/JPEGImages/a.jpg": b""})
    with pytest.raises(UserError, match=r"prepared\.json cannot be read"):
        prepare("voc", archives, tmp_path / "out")
    with pytest.raises(UserError, match=r"prepared\.json cannot be read"):
        open_whole(DataConfig(dataset="voc", root=str(tmp_path / "out")), "train")


def test_the_verb_says_what_was_made_where_and_what_comes_next(archives: list[Path], tmp_path: Path) -> None:
    given = [word for path in archives for word in ("--from", str(path))]
    ended = CliRunner().invoke(app, ["data", "prepare", "voc", *given, "--to", str(tmp_path / "my data")])
    assert ended.exit_code == 0
    assert ended.output.splitlines() == [
        "train 2, val 1, trainval 3, trainaug 4",
        f"wrote {tmp_path}/my data; next: scaleseg data check voc-attention 'data={tmp_path}/my data/data.yaml'",
    ]
    checked = CliRunner().invoke(app, ["data", "check", "voc-attention", f"data={tmp_path}/my data/data.yaml"])
    assert "train: 4 photographs" in checked.output


def test_the_verb_names_every_preparation_in_its_help() -> None:
    ended = CliRunner().invoke(app, ["data", "prepare", "--help"])
    for word in (
        *list_preparations(),
        "VOCtrainval_11-May-2012.tar",
        "benchmark.tgz",
        "trainval.tar.gz",
        "val2014.zip",
    ):
        assert word in ended.output
