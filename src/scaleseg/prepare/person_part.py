"""PASCAL-Person-Part, 1,716 / 1,817 photographs (paper, section 4.1): VOC 2010's people in six parts and background.

The 24 parts of PASCAL-Part are merged as the paper's follow-up does (AST, `num_human_parts=6`), left and right joined. A
person's pixel without a part label is background (AST's rule; the paper is silent). Where the authors' own archive,
pascal_person_part.zip, is given too, its lists and its masks are taken as they are.
"""

from pathlib import PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import UInt8

from scaleseg.datasets.person_part import CLASSES
from scaleseg.errors import UserError
from scaleseg.geometry import IGNORE
from scaleseg.images import read_labels
from scaleseg.prepare.job import Errand, Job, Report, of_another_year, parse_ids
from scaleseg.prepare.mat import as_records, as_text, read_mat
from scaleseg.prepare.pictures import png

__all__ = ["PARTS", "build", "merge_parts"]

COUNTS = {"train": 1716, "val": 1817}
MERGED = {
    "head": "head hair lear rear leye reye lebrow rebrow nose mouth", "torso": "torso neck",
    "upper-arms": "luarm ruarm", "lower-arms": "llarm rlarm lhand rhand",
    "upper-legs": "luleg ruleg", "lower-legs": "llleg rlleg lfoot rfoot",
}  # fmt: skip
PARTS = {part: CLASSES.index(name) for name, parts in MERGED.items() for part in parts.split()}
"""Class id of each part of PASCAL-Part's people."""
PUBLISHED = "pascal_person_part_gt"
VOC_LISTS = ("Main", "Segmentation", "Layout", "Action")
"""Folders of VOC's ImageSets: a train.txt elsewhere is a list of people, but for SBD's own."""
SBD = "benchmark_RELEASE"


def build(job: Job) -> Report:
    """images/, masks/ and lists/, which the reader `person_part` takes as `data.root`."""
    lists, published, official = _read_lists(job)
    if official:
        job.expect(COUNTS, {name: len(ids) for name, ids in lists.items()})
    people = set(_masks(job, lists, published, official))
    wanted = sorted({key for ids in lists.values() for key in ids if official or key in people})
    job.fetch("copying photographs", {
        f"JPEGImages/{key}.jpg": Errand([f"images/{key}.jpg"], job.photograph) for key in wanted
    })  # fmt: skip
    there = job.whole({key: (f"images/{key}.jpg", f"masks/{key}.png") for key in wanted})
    kept = {name: [key for key in ids if key in there] for name, ids in lists.items()}
    job.write_lists("person_part", CLASSES, kept)
    if not official:
        job.notes.append(
            "these are VOC 2010's own train and val lists cut to photographs of people with labelled parts, not the official "
            "lists (1,716 / 1,817): those are in pascal_person_part.zip, or give yours with --from train.txt --from val.txt"
        )
    return job.finish({name: len(ids) for name, ids in kept.items()}, "person-part-attention")


def merge_parts(content: bytes, label: str) -> UInt8[np.ndarray, "H W"]:
    """The seven classes of a .mat of Annotations_Part; later parts lie on top, as in the archive's own mat2map.m."""
    things = [
        thing
        for record in as_records(read_mat(content, label).get("anno"))
        for thing in as_records(record.get("objects"))
    ]
    if not things:
        raise UserError(f"{label} has no anno.objects; give the folder Annotations_Part, unchanged")
    labels = np.zeros_like(_mask(things[0], label), np.uint8)
    for thing in things:
        for part in as_records(thing.get("parts")) if as_text(thing.get("class")) == "person" else []:
            mask = _mask(part, label)
            if mask.shape != labels.shape:
                raise UserError(f"{label} has masks of different sizes; give the folder Annotations_Part, unchanged")
            class_id = PARTS.get(as_text(part.get("part_name")), 0)
            if class_id:
                labels[mask > 0] = class_id
    return labels


def _mask(record: dict[str, Any], label: str) -> np.ndarray:
    mask = record.get("mask")
    if not isinstance(mask, np.ndarray) or mask.ndim != 2 or not mask.size:
        raise UserError(f"{label} has an object or a part without a mask; give the folder Annotations_Part, unchanged")
    return mask


def _read_lists(job: Job) -> tuple[dict[str, list[str]], set[str], bool]:
    """Ids of train and val, ids with a published mask, and whether the lists are of people."""
    published: set[str] = set()

    def name(path: PurePosixPath) -> str | None:
        if path.parent.name == PUBLISHED and path.suffix == ".png":
            published.add(path.stem)
        foreign = of_another_year(path, "VOC2010") or SBD in path.parts
        if path.name not in ("train.txt", "val.txt") or foreign:
            return None
        return path.stem if path.parent.name not in VOC_LISTS else f"{path.parent.name}/{path.stem}"

    found = job.texts(name)
    official = "train" in found and "val" in found
    prefix = "" if official else "Main/" if "Main/train" in found and "Main/val" in found else "Segmentation/"
    return _parse_lists(job, found, prefix), published, official


def _parse_lists(job: Job, found: dict[str, tuple[str, str]], prefix: str) -> dict[str, list[str]]:
    for split in ("train", "val"):
        if f"{prefix}{split}" not in found:
            raise UserError(
                f"VOCdevkit/VOC2010/ImageSets/Main/{split}.txt of VOCtrainval_03-May-2010.tar was not found in {job.given}; "
                "give it with --from"
            )
    texts = {split: found[f"{prefix}{split}"] for split in ("train", "val")}
    lists = {split: parse_ids(text, label) for split, (label, text) in texts.items()}
    both = {*lists["train"]} & {*lists["val"]}
    if both:
        raise UserError(
            f"train.txt and val.txt share ids ({len(both)}, such as {min(both)}); give lists that share none"
        )
    return lists


def _masks(job: Job, lists: dict[str, list[str]], published: set[str], official: bool) -> list[str]:
    """Write the masks that show somebody, and all that an official list names; their ids."""
    seen: set[str] = set()

    def merged(content: bytes, label: str) -> bytes | None:
        seen.add(PurePosixPath(label).stem)
        labels = merge_parts(content, label)
        return png(labels, len(CLASSES)) if official or labels.any() else None

    ids = sorted({key for split in lists.values() for key in split})
    ready = {f"{PUBLISHED}/{key}.png": Errand([f"masks/{key}.png"], _published) for key in ids if key in published}
    for errand in (
        ready.values() if job.grown else ()
    ):  # merged, perhaps, while pascal_person_part.zip was not given yet
        (job.folder / errand.outputs[0]).unlink(missing_ok=True)
    drawn = {f"Annotations_Part/{key}.mat": Errand([f"masks/{key}.png"], merged) for key in ids if key not in published}
    job.fetch("merging parts", {**ready, **drawn})
    there = [key for key in ids if (job.folder / f"masks/{key}.png").is_file()]
    missing = sorted({*ids} - {*there} - seen)
    if missing:
        job.lack(
            f"{len(missing)} of {len(ids)} files of Annotations_Part were not found, such as {missing[0]}.mat of trainval.tar.gz"
        )
    if published:
        job.notes.append(f"masks of pascal_person_part.zip taken as they are: {len(published)}")
    return there


def _published(content: bytes, label: str) -> bytes:
    ids = read_labels(content, label)
    if not np.isin(ids, [*range(len(CLASSES)), IGNORE]).all():
        raise UserError(f"{label} has ids that are neither 0 to 6 nor 255; give pascal_person_part.zip, unchanged")
    return content
