"""The COCO 2014 subset, 10,000 / 1,500 photographs with 81 classes (paper, section 4.3), drawn from train2014 and val2014.

The paper drew at random and published neither lists nor seed. Here a photograph's lot is the SHA-256 of "SEED:id", and
those with the smallest are drawn, from all photographs: the same ones everywhere. Smaller objects lie on top of larger
ones; a crowd is void (255) where no single object lies. Masks of objects are drawn by pycocotools, as COCO's own are.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from scaleseg.datasets.coco import CATEGORIES, CLASSES
from scaleseg.errors import UserError
from scaleseg.prepare.job import Errand, Job, Report, check_id
from scaleseg.prepare.pictures import png
from scaleseg.prepare.render import render

__all__ = ["SEED", "build", "draw"]

SEED = "scaleseg-coco-0"
DRAWN = {"train": 10_000, "val": 1_500}
POOLS = {"train": 82_783, "val": 40_504}
"""Photographs of train2014 and val2014."""
LONGEST_SIDE = 4000
"""COCO's own photographs have 640 at most."""


class Photo(NamedTuple):
    """One that was drawn, and what lies on it."""

    key: str
    file: str
    size: tuple[int, int]
    """Rows and columns."""
    annotations: list[dict[str, Any]]


def build(job: Job) -> Report:
    """images/, masks/ and lists/, which the reader `coco` takes as `data.root`."""
    drawn = _read_instances(job)
    photos = {photo.key: photo for split in drawn.values() for photo in split}
    if len(photos) < sum(map(len, drawn.values())):
        raise UserError("train and val share photographs; give COCO's own annotations_trainval2014.zip")
    with job.bar("drawing masks", len(photos)) as advance:
        for photo in photos.values():
            if not (job.folder / f"masks/{photo.key}.png").is_file():
                labels = render(photo.annotations, photo.size, photo.file)
                job.write(f"masks/{photo.key}.png", png(labels, len(CLASSES)))
            advance()
    job.fetch("copying photographs", {
        photo.file: Errand([f"images/{photo.key}.jpg"], job.photograph) for photo in photos.values()
    })  # fmt: skip
    there = job.whole({key: (f"images/{key}.jpg", f"masks/{key}.png") for key in photos})
    kept = {split: [photo.key for photo in drawn[split] if photo.key in there] for split in drawn}
    job.write_lists("coco", CLASSES, kept)
    return job.finish({split: len(ids) for split, ids in kept.items()}, "coco-attention")


def draw(pool: Iterable[Photo], count: int) -> list[Photo]:
    """Those with the smallest lots, by name."""
    lots = sorted(pool, key=lambda photo: hashlib.sha256(f"{SEED}:{photo.key}".encode()).digest())
    return sorted(lots[:count], key=lambda photo: photo.key)


def _read_instances(job: Job) -> dict[str, list[Photo]]:
    """The drawn photographs of train and of val; one file of another name is cut in the paper's proportion."""
    found = job.texts(_instances)
    drawn: dict[str, list[Photo]] = {"train": [], "val": []}
    sizes = dict.fromkeys(drawn, 0)
    for split in drawn:
        if split in found:
            sizes[split], pools = _photos(*found.pop(split), lambda pool, split=split: {split: pool})  # type: ignore[misc]
            drawn.update(pools)
        else:
            job.lack(f"annotations/instances_{split}2014.json of annotations_trainval2014.zip was not found")
    if found and not any(sizes.values()):
        label, text = found.popitem()[1]
        drawn = _photos(label, text, _cut)[1]
        job.notes.append(f"{PurePosixPath(label).name} is neither train nor val: it was cut into both, 20 to 3")
    elif any(sizes.values()):
        job.expect(POOLS, sizes)
    else:
        raise UserError("no instances_*.json was found; give annotations_trainval2014.zip with --from")
    return drawn


def _instances(path: PurePosixPath) -> str | None:
    """`train`, `val` or another name for instances_*.json."""
    if not path.name.startswith("instances_") or path.suffix != ".json":
        return None
    return next((split for split in DRAWN if path.name.startswith(f"instances_{split}20")), path.stem)


def _cut(pool: list[Photo]) -> dict[str, list[Photo]]:
    """20 to 3, by the same lots."""
    val = draw(pool, max(1, round(DRAWN["val"] / sum(DRAWN.values()) * len(pool))))
    held = {photo.key for photo in val}
    return {"train": [photo for photo in pool if photo.key not in held], "val": val}


def _photos(
    label: str, text: str, share: Callable[[list[Photo]], dict[str, list[Photo]]]
) -> tuple[int, dict[str, list[Photo]]]:
    """How many photographs an instances_*.json has, and those drawn of each split, with their objects."""
    try:
        content = json.loads(text)
        for category in content["categories"]:
            if CATEGORIES.get(category["id"]) != category["name"]:
                raise UserError(f"{label} has the category {category['name']!r:.80}, which is none of COCO's 80")
        photos = {_whole(image["id"]): _photo(image) for image in content["images"]}
        drawn = {split: draw(pool, DRAWN[split]) for split, pool in share(list(photos.values())).items()}
        kept = {photo.key for pool in drawn.values() for photo in pool}
        for annotation in content["annotations"]:
            photo = photos[annotation["image_id"]]
            if photo.key in kept:
                photo.annotations.append(_checked(annotation))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{label} is no COCO instances file ({type(error).__name__}: {error!s:.80}); download it again"
        ) from error
    return len(photos), drawn


def _photo(image: Mapping[str, Any]) -> Photo:
    file, size = str(image["file_name"]), (_whole(image["height"]), _whole(image["width"]))
    if (
        PurePosixPath(file).name != file
        or not file.endswith(".jpg")
        or not all(0 < side <= LONGEST_SIDE for side in size)
    ):
        raise ValueError(f"a photograph {file!r:.80} of {size[1]} x {size[0]}")
    return Photo(check_id(PurePosixPath(file).stem, "file_name"), file, size, [])


def _checked(annotation: Mapping[str, Any]) -> dict[str, Any]:
    if annotation["category_id"] not in CATEGORIES:
        raise ValueError(f"an annotation of the category {annotation['category_id']!r:.80}")
    return {key: annotation.get(key) for key in ("category_id", "iscrowd", "segmentation")}


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r:.80} where a whole number belongs")
    return value
