"""voc-animals: VOC 2012 and SBD cut to people and five animals, 2,800 / 445 photographs, as the bundled model learned them.

The ids lie beside this file: lists/voc-animals-train.txt and -val.txt, and -dev.txt, the 280 of train that choose the
checkpoint. Masks keep VOC's ids; `data.label_map` makes seven classes of them.
"""

from pathlib import Path

from omegaconf import OmegaConf

from scaleseg.prepare.job import Errand, Job, Report, parse_ids
from scaleseg.prepare.voc import DEVKIT, mask_errand, read_lists
from scaleseg.recipes import load_recipe

__all__ = ["build", "read_ids"]

RECIPE = "voc-animals-lite0"


def build(job: Job) -> Report:
    """images/ and masks/ with train/ and val/ in each, dev.txt, and data.yaml with the recipe's classes."""
    voc_train, voc_val, _ = read_lists(job)
    own = {*voc_train, *voc_val}
    splits = {key: split for split in ("train", "val") for key in read_ids(split)}
    errands = {
        f"JPEGImages/{key}.jpg": Errand([f"images/{split}/{key}.jpg"], job.photograph) for key, split in splits.items()
    }
    for key, split in splits.items():
        errands.update(mask_errand(key, own, [f"masks/{split}/{key}.png"]))
    job.fetch("preparing voc-animals", errands, DEVKIT)
    there = job.whole({key: (f"images/{split}/{key}.jpg", f"masks/{split}/{key}.png") for key, split in splits.items()})
    dev = [key for key in read_ids("dev") if key in there]
    job.write("dev.txt", "".join(f"{key}\n" for key in dev))
    counts = {name: sum(splits[key] == name for key in there) for name in ("train", "val")}
    _write_settings(job, bool(dev), counts)
    return job.finish({**counts, "dev": len(dev)}, RECIPE)


def read_ids(split: str) -> list[str]:
    """The committed list of `train`, `val` or `dev`."""
    path = Path(__file__).parent / "lists" / f"voc-animals-{split}.txt"
    return parse_ids(path.read_text(encoding="utf-8"), path.name)


def _write_settings(job: Job, dev: bool, counts: dict[str, int]) -> None:
    recipe = load_recipe(RECIPE).data
    section: dict[str, object] = {"dataset": "folder"}
    section.update({name: f".:{name}" for name, count in counts.items() if count})
    if dev:
        section["dev"] = "dev.txt"
    section.update(classes=list(recipe.classes), label_map=dict(recipe.label_map))
    job.write("data.yaml", OmegaConf.to_yaml(OmegaConf.create(section)))
