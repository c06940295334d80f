"""Checkpoints measured on the development split, where choices are made: the photographs that are reported on have no say.

    python benchmarks/development.py voc-animals/data.yaml --json steps.json \
        "the bundled model: voc-animals-lite" "at output stride 8: voc-animals-lite 'model.options={output_stride: 8}'"

Each argument is a name, a colon, a checkpoint and settings of it, as a shell would split them. What the file has already
is not measured again; what is named in one call stands in that order. Of a checkpoint in its run's folder, settings and
training curve are kept as well.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from machine import machine
from real_results import curve

from scaleseg import atomic
from scaleseg.checkpoint import read_config
from scaleseg.cli.deep import bare
from scaleseg.config import to_dict
from scaleseg.datasets import open_training
from scaleseg.evaluation import evaluate, open_checkpoint

__all__ = ["main", "measure", "training"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure each, and add it to `--json`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("data", type=Path, help="data.yaml with a development split")
    parser.add_argument("steps", nargs="+", help="NAME: CHECKPOINT [key=value ...]")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args(list(sys.argv[1:] if arguments is None else arguments))
    done = json.loads(asked.json.read_text(encoding="utf-8")) if asked.json.exists() else []
    names = [step.partition(": ")[0] for step in asked.steps]
    for step in asked.steps:
        name, _, words = step.partition(": ")
        if name not in {one["step"] for one in done}:
            checkpoint, *overrides = shlex.split(words)
            found = measure(asked.data, checkpoint, overrides, asked.device)
            about = {"step": name, "checkpoint": checkpoint, "overrides": overrides}
            document = {**about, **found, **training(Path(checkpoint)), **machine()}
            done.append(json.loads(bare(json.dumps(document))))
        done.sort(key=lambda one: names.index(one["step"]) if one["step"] in names else -1)
        atomic.write(asked.json, json.dumps(done, indent=1) + "\n")
        print(f"{name}: {100 * next(one['mIoU'] for one in done if one['step'] == name):.2f} % mIoU")


def measure(data: Path, checkpoint: str, overrides: Sequence[str], device: str) -> dict[str, Any]:
    """mIoU, merged and of each scale alone, on the whole development split."""
    subject = open_checkpoint(checkpoint, [f"data={data}", *overrides], device=device, refine="none")
    held = open_training(subject.config.data).dev
    if held is None:
        raise SystemExit("data.dev is 0, so there is no development split; give data.dev in data.yaml")
    metrics = evaluate(subject.model, held)
    return {"mIoU": metrics.mIoU, "per_scale": metrics.per_scale, "images": metrics.images}


def training(checkpoint: Path) -> dict[str, Any]:
    """How a checkpoint in its run's folder was trained: settings, curve and speed."""
    log = checkpoint.parent / "metrics.jsonl"
    if not (checkpoint.is_dir() and log.exists()):
        return {}
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    config = to_dict(read_config(checkpoint))
    speed = median(line["images_per_s"] for line in lines if "images_per_s" in line)
    settings = {name: config[name] for name in ("model", "data", "train")}
    return {"settings": settings, "curve": curve(lines), "images_per_s": speed}


if __name__ == "__main__":
    main()
