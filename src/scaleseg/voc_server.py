"""What the PASCAL VOC evaluation server takes: `results.tgz` with one indexed PNG an image (paper, Table 4).

Inside, masks lie under results/VOC2012/Segmentation/comp6_test_cls, the competition that allows parameters and data from
elsewhere, ImageNet's too (VOC2012 development kit, section 5).
"""

import gzip
import io
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from scaleseg import atomic
from scaleseg.batch import Item
from scaleseg.datasets.voc import CLASSES
from scaleseg.errors import UserError

__all__ = ["check_classes", "pack", "select"]

INSIDE = "results/VOC2012/Segmentation/comp6_test_cls"


def check_classes(classes: Sequence[str]) -> None:
    """UserError unless these are VOC's 21 classes in VOC's order, which the server takes for granted."""
    if tuple(classes) != CLASSES:
        raise UserError(
            f"--format is voc-server, but the model's {len(classes)} classes are {', '.join(classes[:8])}; "
            f"the server knows VOC's {len(CLASSES)} alone: {', '.join(CLASSES[:8])}, ..."
        )


def select(items: Sequence[Item], listing: Path | None) -> list[Item]:
    """One item an id: those of a list of ids (ImageSets/Segmentation/test.txt), or all; UserError if one is missing."""
    by_id = {item.source.stem: replace(item, name=item.source.stem) for item in items}
    if len(by_id) < len(items):
        raise UserError(
            f"{len(items)} images have only {len(by_id)} names; the server knows an image by its name alone"
        )
    if listing is None:
        return list(by_id.values())
    try:
        wanted = listing.read_text(encoding="utf-8").split()
    except (OSError, ValueError) as error:
        raise UserError(f"--ids {listing} cannot be read as text ({error}); give a list of ids, one a line") from error
    missing = [name for name in wanted if name not in by_id]
    if missing or not wanted:
        few = ", ".join(missing[:4])
        raise UserError(
            f"{len(missing)} of the {len(wanted)} ids of {listing} are no images there ({few or 'the list is empty'}); "
            "give the folder JPEGImages that holds them all"
        )
    return [by_id[name] for name in dict.fromkeys(wanted)]


def pack(out: Path, items: Sequence[Item]) -> Path:
    """The masks of `items` under `out`/masks as `out`/results.tgz, the same bytes for the same masks."""
    content = io.BytesIO()
    zipped = gzip.GzipFile(fileobj=content, mode="wb", mtime=0)
    with zipped, tarfile.open(fileobj=zipped, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for item in sorted(items, key=lambda item: item.name):
            mask = (out / "masks" / f"{item.name}.png").read_bytes()
            member = tarfile.TarInfo(f"{INSIDE}/{item.name}.png")
            member.size = len(mask)
            archive.addfile(member, io.BytesIO(mask))
    path = out / "results.tgz"
    atomic.write(path, content.getvalue())
    return path
