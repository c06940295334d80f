"""PASCAL VOC 2012 with SBD's masks, 1,464 / 1,449 / 10,582 photographs (paper, section 4.2), in the devkit's own layout.

`trainaug` is SBD's train and val lists and VOC's train list together, less VOC's val list. `SegmentationClassAug` holds
VOC's own mask where VOC has one (finer, with void borders) and SBD's elsewhere (no void), as the published folder does.
"""

from collections.abc import Collection
from pathlib import PurePosixPath

import numpy as np

from scaleseg.datasets.voc import CLASSES
from scaleseg.errors import UserError
from scaleseg.geometry import IGNORE
from scaleseg.images import read_labels
from scaleseg.prepare.job import Errand, Job, Report, of_another_year, parse_ids
from scaleseg.prepare.mat import as_records, read_mat
from scaleseg.prepare.pictures import png

__all__ = ["DEVKIT", "build", "mask_errand", "own_mask", "read_lists", "sbd_mask"]

COUNTS = {"train": 1464, "val": 1449, "trainaug": 10582}
DEVKIT = "VOC2012"
ARCHIVE = "VOCtrainval_11-May-2012.tar"
LISTS = {
    "Segmentation/train.txt": f"VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt of {ARCHIVE}",
    "Segmentation/val.txt": f"VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt of {ARCHIVE}",
    "dataset/train.txt": "benchmark_RELEASE/dataset/train.txt of SBD's benchmark.tgz",
    "dataset/val.txt": "benchmark_RELEASE/dataset/val.txt of SBD's benchmark.tgz",
}
"""Where each list is expected."""


def build(job: Job) -> Report:
    """VOC2012/ with photographs, both folders of masks, and lists; `data.root` of the reader `voc`."""
    train, val, augmented = read_lists(job)
    job.expect(COUNTS, {"train": len(train), "val": len(val), "trainaug": len(augmented)})
    own, listed = {*train, *val}, sorted({*augmented, *val})
    errands = {f"JPEGImages/{key}.jpg": Errand([f"VOC2012/JPEGImages/{key}.jpg"], job.photograph) for key in listed}
    for key in listed:
        outputs = [f"VOC2012/{folder}/{key}.png" for folder in ("SegmentationClass", "SegmentationClassAug")]
        errands.update(mask_errand(key, own, outputs if key in own else outputs[1:]))
    job.fetch("preparing VOC 2012", errands, DEVKIT)
    pairs = {key: (f"VOC2012/JPEGImages/{key}.jpg", f"VOC2012/SegmentationClassAug/{key}.png") for key in listed}
    there = job.whole(pairs)
    lists = {"train": train, "val": val, "trainval": sorted(own), "trainaug": augmented}
    kept = {name: [key for key in ids if key in there] for name, ids in lists.items()}
    for name, ids in kept.items():
        job.write(f"VOC2012/ImageSets/Segmentation/{name}.txt", "".join(f"{key}\n" for key in ids))
    splits = {"train": "trainaug", "val": "val"}
    chosen = "".join(f"{split}: {name}\n" for split, name in splits.items() if kept[name])
    job.write("data.yaml", f"dataset: voc\nroot: .\n{chosen}")
    return job.finish({name: len(ids) for name, ids in kept.items()}, "voc-attention")


def read_lists(job: Job) -> tuple[list[str], list[str], list[str]]:
    """VOC's train and val, and train_aug; UserError names a list that is not there."""
    found = job.texts(_list_name, len(LISTS))
    ids: dict[str, list[str]] = {}
    for key, place in LISTS.items():
        if key in found:
            ids[key] = parse_ids(found[key][1], found[key][0])
        elif key.startswith("dataset/"):
            job.lack(f"{place} was not found")
        else:
            raise UserError(f"{place} was not found in {job.given}; give it with --from")
    train, val, sbd_train, sbd_val = (ids.get(key, []) for key in LISTS)
    return train, val, sorted({*train, *sbd_train, *sbd_val} - {*val})


def mask_errand(key: str, own: Collection[str], outputs: list[str]) -> dict[str, Errand]:
    """VOC's mask for an id that VOC labelled itself, else SBD's."""
    if key in own:
        return {f"SegmentationClass/{key}.png": Errand(outputs, own_mask)}
    return {f"cls/{key}.mat": Errand(outputs, sbd_mask)}


def own_mask(content: bytes, label: str) -> bytes:
    """VOC's PNG as it is; UserError unless it holds ids from 0 to 20 and 255."""
    _check(read_labels(content, label), label)
    return content


def sbd_mask(content: bytes, label: str) -> bytes:
    """`GTcls.Segmentation` of SBD's .mat as a PNG in VOC's palette."""
    records = as_records(read_mat(content, label).get("GTcls"))
    ids = records[0].get("Segmentation") if records else None
    if not isinstance(ids, np.ndarray) or ids.ndim != 2 or not ids.size:
        raise UserError(f"{label} has no GTcls.Segmentation; give SBD's folder cls, unchanged")
    _check(ids, label)
    return png(np.ascontiguousarray(ids.astype(np.uint8)), len(CLASSES))


def _check(ids: np.ndarray, label: str) -> None:
    if not np.isin(ids, [*range(len(CLASSES)), IGNORE]).all():
        raise UserError(f"{label} has ids that are neither 0 to {len(CLASSES) - 1} nor {IGNORE}; it is no VOC mask")


def _list_name(path: PurePosixPath) -> str | None:
    key = "/".join(path.parts[-2:])
    return key if key in LISTS and not of_another_year(path, DEVKIT) else None
