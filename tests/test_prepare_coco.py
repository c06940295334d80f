"""`data prepare coco`: polygons, run lengths and crowds as masks, pycocotools as the oracle; the draw is the same everywhere."""

import json
import os
import sys
import tracemalloc
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as oracle
from pycocotools.coco import COCO

from official import ids_of, jpeg, tree, write
from scaleseg.config import DataConfig
from scaleseg.datasets import open_training, open_whole
from scaleseg.datasets.coco import CATEGORIES, CLASSES
from scaleseg.errors import UserError
from scaleseg.prepare import prepare
from scaleseg.prepare.render import object_mask, render

SIZE = (9, 12)
"""Rows and columns of the photographs."""
SQUARE = [2.0, 1.0, 8.0, 1.0, 8.0, 7.0, 2.0, 7.0]
SMALL = [3.0, 2.0, 5.0, 2.0, 5.0, 4.0, 3.0, 4.0]
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11
DATA = os.environ.get("SCALESEG_DATA")


def runs(mask: np.ndarray) -> list[int]:
    """Uncompressed run lengths, down the columns, background first."""
    flat = mask.astype(np.uint8).flatten(order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *ends.tolist(), len(flat)]).tolist()
    return [0, *lengths] if flat[0] else lengths


CROWD = np.zeros(SIZE, bool)
CROWD[5:, 5:] = True
OBJECTS = [
    {"category_id": 90, "iscrowd": 0, "segmentation": [SMALL]},  # listed first, and yet on top
    {"category_id": 1, "iscrowd": 0, "segmentation": [SQUARE]},
    {"category_id": 1, "iscrowd": 1, "segmentation": {"size": list(SIZE), "counts": runs(CROWD)}},
]


def instances(numbers: range, prefix: str) -> dict[str, object]:
    """An instances_*.json of photographs with these ids; every second one shows something."""
    images = [
        {"id": number, "file_name": f"{prefix}{number:012}.jpg", "height": SIZE[0], "width": SIZE[1]}
        for number in numbers
    ]
    objects = [{"image_id": number, "id": place, **one} for number in numbers[::2] for place, one in enumerate(OBJECTS)]
    categories = [{"id": number, "name": name} for number, name in CATEGORIES.items()]
    return {"images": images, "annotations": objects, "categories": categories}


def archives(folder: Path, train: int = 5, val: int = 3) -> list[Path]:
    """The three of COCO 2014."""
    contents = {
        "train": instances(range(1, train + 1), "COCO_train2014_"),
        "val": instances(range(101, 101 + val), "COCO_val2014_"),
    }
    files = {
        f"annotations/instances_{split}2014.json": json.dumps(content).encode() for split, content in contents.items()
    }
    files["annotations/captions_train2014.json"] = b"none of ours"
    photographs = {
        split: {f"{split}2014/{image['file_name']}": jpeg(image["id"]) for image in content["images"]}
        for split, content in contents.items()
    }
    return [
        write(folder / "annotations_trainval2014.zip", files),
        *(write(folder / f"{split}2014.zip", content) for split, content in photographs.items()),
    ]


@pytest.fixture(autouse=True)
def sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """COCO's own, as of these archives."""
    monkeypatch.setattr("scaleseg.prepare.coco.POOLS", {"train": 5, "val": 3})
    monkeypatch.setattr("scaleseg.prepare.coco.DRAWN", {"train": 4, "val": 2})


def test_a_scene_is_drawn_as_by_hand() -> None:
    """Pixel (y, x) is in a polygon of whole corners if its own place is: the crowd ends up beneath both."""
    expected = np.zeros(SIZE, np.uint8)
    expected[CROWD] = 255
    expected[1:7, 2:8] = 1
    expected[2:4, 3:5] = 80
    assert np.array_equal(render(OBJECTS, SIZE, "a.jpg"), expected)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_the_order_of_the_objects_in_the_file_does_not_matter(order: list[int]) -> None:
    assert np.array_equal(render([OBJECTS[place] for place in order], SIZE, "a.jpg"), render(OBJECTS, SIZE, "a.jpg"))


def test_nothing_annotated_is_background() -> None:
    assert not render([], SIZE, "a.jpg").any()


CORNER = st.floats(-2, 14, allow_nan=False, width=32)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.lists(CORNER, min_size=6, max_size=12).filter(lambda corners: len(corners) % 2 == 0), min_size=1, max_size=3
    )
)
def test_polygons_are_what_pycocotools_makes_of_them(polygons: list[list[float]]) -> None:
    expected = oracle.decode(oracle.merge(oracle.frPyObjects(polygons, *SIZE))).astype(bool)
    assert np.array_equal(object_mask(polygons, SIZE), expected)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0.0, 0.02, 0.5, 1.0]), st.sampled_from([(9, 12), (1, 1), (70, 50)]))
def test_run_lengths_are_what_pycocotools_makes_of_them(seed: int, share: float, size: tuple[int, int]) -> None:
    mask = np.random.default_rng(seed).random(size) < share
    encoded = oracle.encode(np.asfortranarray(mask.astype(np.uint8)))
    compressed = {"size": list(size), "counts": encoded["counts"].decode()}
    assert np.array_equal(object_mask(compressed, size), mask)
    assert np.array_equal(object_mask({"size": list(size), "counts": runs(mask)}, size), mask)


@pytest.mark.parametrize(
    "segmentation",
    [
        None,
        "polygon",
        [1, 2, 3],
        [[1e9] * 6],
        [[float("nan")] * 6],
        [["a"] * 6],
        [[1.0] * 7],
        [[10**400] * 6],
        [[-20.0, 0.0, 30.0, 0.0] * 30_000],
        {"size": [9, 12]},
        {"size": [90, 12], "counts": [1080]},
        {"size": [9, 12], "counts": [107]},
        {"size": [9, 12], "counts": [10**30]},
        {"size": [9, 12], "counts": [-8, 116]},
        {"size": [9, 12], "counts": [[108]]},
        {"size": [9, 12], "counts": "zzzzzzzzzzzz"},
        {"size": [9, 12], "counts": "\x00"},
        {"size": [9, 12], "counts": "\u20ac"},
    ],
)
def test_an_object_that_cannot_be_drawn_is_refused_before_c_code_sees_it(segmentation: object) -> None:
    annotation = {"category_id": 1, "iscrowd": 0, "segmentation": segmentation}
    with pytest.raises(UserError, match=r"a\.jpg has an object that cannot be drawn"):
        render([annotation], SIZE, "a.jpg")


def test_of_two_objects_as_large_the_later_one_is_on_top() -> None:
    two = [{"category_id": category, "iscrowd": 0, "segmentation": [SQUARE]} for category in (3, 2)]
    assert set(np.unique(render(two, SIZE, "a.jpg"))) == {0, 2}


def test_many_objects_take_the_memory_of_few() -> None:
    """A mask of each, all at once, would be 60 MB."""
    whole = {"category_id": 1, "iscrowd": 0, "segmentation": {"size": [500, 400], "counts": [0, 200_000]}}
    tracemalloc.start()
    try:
        render([whole] * 300, (500, 400), "a.jpg")
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_class_ids_follow_the_category_ids_without_gaps() -> None:
    assert (len(CLASSES), len(CATEGORIES), list(CATEGORIES)) == (81, 80, sorted(CATEGORIES))
    for place, (category, name) in enumerate(CATEGORIES.items(), 1):
        drawn = render([{"category_id": category, "iscrowd": 0, "segmentation": [SQUARE]}], SIZE, "a.jpg")
        assert drawn.max() == place
        assert CLASSES[place] == name


def test_the_draw_is_by_the_smallest_lots(tmp_path: Path) -> None:
    report = prepare("coco", archives(tmp_path), tmp_path / "out")
    assert report.counts == {"train": 4, "val": 2}
    for split, names in (
        ("train", [f"COCO_train2014_{number:012}" for number in range(1, 6)]),
        ("val", [f"COCO_val2014_{number:012}" for number in range(101, 104)]),
    ):
        lots = sorted(names, key=lambda name: sha256(f"scaleseg-coco-0:{name}".encode()).digest())
        assert (tmp_path / f"out/lists/{split}.txt").read_text().split() == sorted(lots[: report.counts[split]])


def test_what_was_prepared_is_read(tmp_path: Path) -> None:
    prepare("coco", archives(tmp_path), tmp_path / "out")
    data = DataConfig(dataset="coco", root=str(tmp_path / "out"), dev=0)
    train, val = open_training(data).train, open_whole(data, "val")
    assert (train.classes, len(train), len(val)) == (CLASSES, 4, 2)
    scenes = {name: train[index][1] for index, name in enumerate(train.names)}
    for name, labels in scenes.items():
        shown = render(OBJECTS if int(name[-1]) % 2 else [], SIZE, name)
        assert np.array_equal(labels.numpy(), shown)
    assert (tmp_path / f"out/images/{val.names[0]}.jpg").read_bytes() == jpeg(int(val.names[0][-3:]))


def test_prepared_twice_is_the_same(tmp_path: Path) -> None:
    given_archives = archives(tmp_path)
    prepare("coco", given_archives, tmp_path / "out")
    before = tree(tmp_path / "out")
    prepare("coco", given_archives, tmp_path / "out")
    assert tree(tmp_path / "out") == before


def test_another_coco_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="found train 7, val 3; the official counts are train 5, val 3"):
        prepare("coco", archives(tmp_path, train=7), tmp_path / "out")


def test_photographs_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="2 of 6 listed photographs or their masks are in no archive: COCO_val2014_"):
        prepare("coco", archives(tmp_path)[:2], tmp_path / "out")


def test_annotations_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"instances_train2014\.json of annotations_trainval2014\.zip was not found"):
        prepare("coco", archives(tmp_path)[1:], tmp_path / "out")


def test_a_photograph_of_another_size_than_its_record_is_named(tmp_path: Path) -> None:
    given_archives = archives(tmp_path)
    files = {f"train2014/COCO_train2014_{number:012}.jpg": jpeg(number, (5, 4)) for number in range(1, 6)}
    write(given_archives[1], files)
    with pytest.raises(UserError, match=r"\.png is 12 x 9, its photograph 5 x 4"):
        prepare("coco", given_archives, tmp_path / "out")


def test_one_file_of_another_name_is_cut_in_two_on_request(tmp_path: Path) -> None:
    content = instances(range(1, 10), "")
    files = {f"images/{number:012}.jpg": jpeg(number) for number in range(1, 10)}
    path = write(tmp_path / "tiny.zip", {**files, "annotations/instances_tiny.json": json.dumps(content).encode()})
    report = prepare("coco", [path], tmp_path / "out", allow_incomplete=True)
    assert report.counts == {"train": 4, "val": 2}
    assert report.notes[-1] == "instances_tiny.json is neither train nor val: it was cut into both, 20 to 3"
    ids = [set((tmp_path / f"out/lists/{split}.txt").read_text().split()) for split in ("train", "val")]
    assert not ids[0] & ids[1]


def changed(key: str, **values: object) -> bytes:
    content = instances(range(1, 6), "COCO_train2014_")
    content[key][0].update(values)
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"images": 3}',
        b"[" * 100_000,
        changed("images", file_name="../../escaped.jpg"),
        changed("images", file_name="a.png"),
        changed("images", file_name=".jpg"),
        changed("images", file_name=" .jpg"),
        changed("images", file_name="a b.jpg"),
        changed("images", height=-9),
        changed("images", height=10**9),
        changed("images", width="12"),
        changed("annotations", image_id=77),
        changed("annotations", category_id=12),
        changed("categories", name="robot"),
    ],
)
def test_a_file_that_is_no_instances_file_is_named(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scaleseg.prepare.coco.DRAWN", {"train": 5, "val": 3})
    given_archives = archives(tmp_path)
    val = json.dumps(instances(range(101, 104), "COCO_val2014_")).encode()
    write(given_archives[0], {"instances_train2014.json": content, "instances_val2014.json": val})
    with pytest.raises(UserError, match=r"instances_train2014\.json|file_name holds"):
        prepare("coco", given_archives, tmp_path / "out")


def test_without_pycocotools_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(UserError, match=r"pip install 'scaleseg\[data\]'"):
        object_mask([SQUARE], SIZE)


@pytest.mark.skipif(not DATA, reason="SCALESEG_DATA names no folder with coco-tiny.zip")
def test_real_coco_objects_are_where_pycocotools_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """48 photographs of COCO: a pixel is not background exactly where some object or crowd lies."""
    monkeypatch.setattr("scaleseg.prepare.coco.DRAWN", {"train": 10_000, "val": 1_500})
    report = prepare("coco", [Path(str(DATA)) / "coco-tiny.zip"], tmp_path / "out", allow_incomplete=True)
    assert report.counts == {"train": 42, "val": 6}
    write(tmp_path, {"coco.json": (json.dumps(real())).encode()})
    reference = COCO(str(tmp_path / "coco.json"))
    for path in (tmp_path / "out/masks").iterdir():
        labels = ids_of(path)
        objects = reference.loadAnns(reference.getAnnIds(imgIds=[int(path.stem)]))
        covered = np.zeros(labels.shape, bool)
        for one in objects:
            covered |= reference.annToMask(one).astype(bool)
        assert np.array_equal(labels > 0, covered)


def real() -> dict[str, object]:
    import zipfile

    with zipfile.ZipFile(Path(str(DATA)) / "coco-tiny.zip") as archive:
        content: dict[str, object] = json.loads(archive.read("annotations/instances_tiny.json"))
    return content
