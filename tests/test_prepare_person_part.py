"""`data prepare person-part`: 24 parts become six, hand-painted masks as the oracle."""

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from official import anno_mat, ids_of, mat, palette_png, part, text, thing, tree, voc_files, write
from scaleseg.config import DataConfig
from scaleseg.datasets import open_training, open_whole
from scaleseg.datasets.person_part import CLASSES
from scaleseg.errors import UserError
from scaleseg.prepare import prepare
from scaleseg.prepare.job import Job
from scaleseg.prepare.person_part import PARTS, merge_parts

TRAIN, VAL = ["2008_000001", "2008_000002"], ["2008_000003", "2008_000004"]
EVERYWHERE = np.ones((9, 12), bool)
LISTED = "pascal_person_part/pascal_person_part_trainval_list"


def box(rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros((9, 12), bool)
    mask[rows, columns] = True
    return mask


HEAD, HAIR, HAND, BODY = box(slice(0, 3), slice(2, 6)), box(slice(0, 1), slice(2, 6)), box(slice(5, 7), slice(8, 10)), box(
    slice(3, 8), slice(2, 7)
)  # fmt: skip
PERSON = thing("person", EVERYWHERE, part("head", HEAD), part("hair", HAIR), part("torso", BODY), part("rhand", HAND))
EXPECTED = np.select([HEAD, BODY, HAND], [1, 2, 4], 0)
"""By hand: head 1, torso 2, a hand is a lower arm, 4."""


def archives(folder: Path, *more: dict[str, bytes]) -> list[Path]:
    """The person is in one photograph of each split; the others show a dog, and a person without parts."""
    shown = {
        "2008_000001": [PERSON],
        "2008_000002": [thing("dog", EVERYWHERE, part("head", HEAD))],
        "2008_000003": [thing("person", EVERYWHERE)],
        "2008_000004": [thing("dog", HEAD), PERSON],
    }
    files = {f"trainval/Annotations_Part/{key}.mat": anno_mat(key, *things) for key, things in shown.items()}
    devkit = write(folder / "VOCtrainval_03-May-2010.tar", voc_files(TRAIN, VAL, [], year=2010))
    return [
        devkit,
        write(folder / "trainval.tar.gz", files),
        *(write(folder / f"more{i}.zip", m) for i, m in enumerate(more)),
    ]


def lists(train: list[str], val: list[str]) -> dict[str, bytes]:
    """As pascal_person_part.zip has them: two paths a line."""
    lines = {"train": train, "val": val, "trainval": train + val}
    return {
        f"{LISTED}/{name}.txt": text([f"/JPEGImages/{key}.jpg /pascal_person_part_gt/{key}.png" for key in ids])
        for name, ids in lines.items()
    }


@pytest.fixture(autouse=True)
def counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The official counts, as of these lists."""
    monkeypatch.setattr("scaleseg.prepare.person_part.COUNTS", {"train": 1, "val": 1})


def test_parts_are_merged_as_by_hand(tmp_path: Path) -> None:
    prepare("person-part", archives(tmp_path), tmp_path / "out")
    for key in ("2008_000001", "2008_000004"):
        assert np.array_equal(ids_of(tmp_path / f"out/masks/{key}.png"), EXPECTED)


def test_the_24_parts_make_six_with_left_and_right_joined() -> None:
    assert len(PARTS) == 24
    assert {CLASSES[PARTS[name]] for name in ("luarm", "ruarm")} == {"upper-arms"}
    assert {CLASSES[PARTS[name]] for name in ("llarm", "rlarm", "lhand", "rhand")} == {"lower-arms"}
    assert {CLASSES[PARTS[name]] for name in ("luleg", "ruleg")} == {"upper-legs"}
    assert {CLASSES[PARTS[name]] for name in ("llleg", "rlleg", "lfoot", "rfoot")} == {"lower-legs"}
    assert {CLASSES[PARTS[name]] for name in ("torso", "neck")} == {"torso"}
    assert sum(place == 1 for place in PARTS.values()) == 10


def test_without_official_lists_photographs_of_people_are_taken_and_it_is_said(tmp_path: Path) -> None:
    report = prepare("person-part", archives(tmp_path), tmp_path / "out")
    assert report.counts == {"train": 1, "val": 1}
    assert "not the official lists" in report.notes[-1]
    assert sorted(path.stem for path in (tmp_path / "out/images").iterdir()) == ["2008_000001", "2008_000004"]


def test_official_lists_say_who_is_in(tmp_path: Path) -> None:
    given = archives(tmp_path, lists(["2008_000001"], ["2008_000003"]))
    report = prepare("person-part", given, tmp_path / "out")
    assert (report.counts, report.notes) == ({"train": 1, "val": 1}, [])
    assert not ids_of(tmp_path / "out/masks/2008_000003.png").any()


def test_lists_may_be_given_as_files(tmp_path: Path) -> None:
    write(tmp_path / "lists", {"train.txt": b"2008_000001\n", "val.txt": b"2008_000004\n"})
    given = [*archives(tmp_path), tmp_path / "lists/train.txt", tmp_path / "lists/val.txt"]
    assert prepare("person-part", given, tmp_path / "out").notes == []


def test_official_lists_of_other_lengths_are_refused(tmp_path: Path) -> None:
    given = archives(tmp_path, lists(TRAIN, ["2008_000004"]))
    with pytest.raises(UserError, match="found train 2, val 1; the official counts are train 1, val 1"):
        prepare("person-part", given, tmp_path / "out")


def test_lists_that_share_a_photograph_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.txt and val\.txt share ids \(1, such as 2008_000001\)"):
        prepare("person-part", archives(tmp_path, lists(["2008_000001"], ["2008_000001"])), tmp_path / "out")


def test_lists_of_another_year_are_left_alone(tmp_path: Path) -> None:
    other = voc_files(["2011_000009"], ["2008_000001"], [], year=2007)
    report = prepare("person-part", [write(tmp_path / "VOCtrainval.tar", other), *archives(tmp_path)], tmp_path / "out")
    assert report.counts == {"train": 1, "val": 1}
    assert (tmp_path / "out/lists/train.txt").read_text().split() == ["2008_000001"]


def test_a_second_archive_of_the_same_name_is_another_one(tmp_path: Path) -> None:
    published = palette_png(np.full((9, 12), 6))
    given = archives(tmp_path)
    prepare("person-part", given, tmp_path / "out")
    (tmp_path / "more").mkdir()
    files = {**lists(["2008_000001"], ["2008_000004"]), "pascal_person_part_gt/2008_000001.png": published}
    prepare("person-part", [*given, write(tmp_path / "more/trainval.tar.gz", files)], tmp_path / "out")
    assert (tmp_path / "out/masks/2008_000001.png").read_bytes() == published


def test_sbds_lists_are_no_lists_of_people(tmp_path: Path) -> None:
    sbd = {f"benchmark_RELEASE/dataset/{split}.txt": text(["2008_000002"]) for split in ("train", "val")}
    report = prepare("person-part", [write(tmp_path / "all", sbd), *archives(tmp_path)], tmp_path / "out")
    assert "not the official lists" in report.notes[-1]


def test_published_masks_that_came_late_are_taken_after_a_kill_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = palette_png(np.full((9, 12), 6))
    files = {**lists(["2008_000001"], ["2008_000004"]), "pascal_person_part_gt/2008_000001.png": published}
    given = archives(tmp_path, files)
    prepare("person-part", given[:2], tmp_path / "out")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Job, "texts", Mock(side_effect=KeyboardInterrupt))
        prepare("person-part", given, tmp_path / "out")
    prepare("person-part", given, tmp_path / "out")
    assert (tmp_path / "out/masks/2008_000001.png").read_bytes() == published
    prepare("person-part", given, tmp_path / "fresh")
    assert (tmp_path / "out/prepared.json").read_bytes() == (tmp_path / "fresh/prepared.json").read_bytes()


@pytest.mark.parametrize("late", [False, True])
def test_published_masks_are_taken_as_they_are(late: bool, tmp_path: Path) -> None:
    published = palette_png(np.full((9, 12), 6))
    files = {
        **lists(["2008_000001"], ["2008_000004"]),
        "pascal_person_part/pascal_person_part_gt/2008_000001.png": published,
    }
    given = archives(tmp_path, files)
    if late:
        prepare("person-part", given[:2], tmp_path / "out")
    report = prepare("person-part", given, tmp_path / "out")
    assert (tmp_path / "out/masks/2008_000001.png").read_bytes() == published
    assert np.array_equal(ids_of(tmp_path / "out/masks/2008_000004.png"), EXPECTED)
    assert report.notes == ["masks of pascal_person_part.zip taken as they are: 1"]


def test_what_was_prepared_is_read(tmp_path: Path) -> None:
    prepare("person-part", archives(tmp_path), tmp_path / "out")
    data = DataConfig(dataset="person_part", root=str(tmp_path / "out"), dev=0)
    train = open_training(data).train
    assert (train.classes, list(train.names)) == (CLASSES, ["2008_000001"])
    assert np.array_equal(train[0][1].numpy(), EXPECTED)
    assert list(open_whole(data, "val").names) == ["2008_000004"]


def test_prepared_twice_is_the_same(tmp_path: Path) -> None:
    given = archives(tmp_path)
    prepare("person-part", given, tmp_path / "out")
    before = tree(tmp_path / "out")
    prepare("person-part", given, tmp_path / "out")
    assert tree(tmp_path / "out") == before


def test_annotations_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"4 of 4 files of Annotations_Part were not found, such as 2008_000001\.mat of trainval\.tar\.gz",
    ):
        prepare("person-part", archives(tmp_path)[:1], tmp_path / "out")


def test_photographs_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ImageSets/Main/train\.txt of VOCtrainval_03-May-2010\.tar was not found"):
        prepare("person-part", archives(tmp_path)[1:], tmp_path / "out")


@pytest.mark.parametrize(
    "content",
    [
        mat({"anno": 1}),
        mat({"other": {"objects": 2}}),
        mat({"anno": {"objects": {"class": "person", "mask": 5.0, "parts": {"part_name": "head", "mask": HEAD[:3]}}}}),
        mat({"anno": {"objects": {"class": "person", "mask": "none"}}}),
    ],
)
def test_annotations_of_another_kind_are_named(content: bytes) -> None:
    with pytest.raises(UserError, match=r"a\.mat has .*give the folder Annotations_Part, unchanged"):
        merge_parts(content, "a.mat")
