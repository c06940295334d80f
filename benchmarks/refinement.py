"""What do refinements bring? none, crf, domain and domain-learned on labelled photographs, from the same predictions.

    python benchmarks/refinement.py voc-animals-lite data.val=voc-animals-val.zip \
        --json docs/results/refinement.json --markdown docs/refinement.md

The network runs once a photograph, in float32; every refinement works on that prediction. Kept are one confusion matrix a
photograph and kind, of all pixels and of those within 1, 2, 3, 5, 10 and 20 px of a label border. From these come mIoU,
its difference to `none`, and 95 % intervals: the bootstrap over photographs, 1,000 resamples, seed 0, paired for
differences. `seconds` are medians over photographs, from scores to labels, and beside them the network's own.

A stopped run goes on where it was (`--cache`, written every 25 photographs). `--from-json FILE --markdown PAGE` writes the
page again without measuring; `--picture FILE` draws scikit-image's cat, and measures nothing if it stands alone.
"""

import argparse
import hashlib
import io
import json
import platform
import re
import shlex
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, TypeVar
from zipfile import BadZipFile

import numpy as np
import refinement_page
import torch
from machine import machine, synchronize

import scaleseg
from scaleseg import UserError, atomic
from scaleseg.checkpoint import load, locate, read_config
from scaleseg.config import DataConfig, to_dict
from scaleseg.datasets import Dataset, open_evaluation
from scaleseg.devices import choose_device, describe, place
from scaleseg.metrics import TRIMAP, Confusion, Metrics, bootstrap, bootstrap_difference, miou, near_borders
from scaleseg.model import ScaleAware
from scaleseg.recipes import override
from scaleseg.refine import REFINEMENTS, Refine
from scaleseg.segmentation import at_image, choose_refine, predict

__all__ = ["Job", "chosen", "main", "measure", "report"]

WIDTHS = tuple(sorted({1, 2, 3, 5, 10, 20, TRIMAP}))
"""How far from a label border, in pixels; behind all pixels, the second axis of what is counted."""
BAND = 1 + WIDTHS.index(TRIMAP)
EVERY = 25
"""Photographs between two writings of the cache."""
RESAMPLES, SEED = 1000, 0

Kinds = Mapping[str, Refine | None]
Answer = TypeVar("Answer")


class Job:
    """A model, its refinements and labelled photographs; `key` says in JSON what a cache must have been made with."""

    def __init__(self, model: ScaleAware, kinds: Kinds, dataset: Dataset, name: str) -> None:
        if tuple(dataset.classes) != model.classes:
            raise UserError(
                f"the model's classes are {', '.join(model.classes[:8])}, the data's {', '.join(dataset.classes[:8])}; they "
                "must be the same, in the same order (data.classes, data.label_map)"
            )
        self.model, self.kinds, self.dataset, self.name = model, kinds, dataset, name
        here = machine()
        self.key: dict[str, Any] = {
            "model": _model_digest(model),
            "data": _data_digest(dataset),
            "settings": {kind: repr(refine) if refine else "none" for kind, refine in kinds.items()},
            "widths": list(WIDTHS),
            "machine": [describe(model.mean.device), *(here[name] for name in ("cpu", "threads", "torch"))],
            "scaleseg": scaleseg.__version__,
        }


class Counted:
    """One row a photograph: confusion matrices (kinds, all pixels and WIDTHS, classes, classes), and seconds."""

    def __init__(self, matrices: list[np.ndarray] | None = None, seconds: list[list[float]] | None = None) -> None:
        self.matrices = matrices or []
        self.seconds = seconds or []  # the network's, then each kind's


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, draw and write what is asked for; 1 with a sentence for what cannot be done."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parse(given)
    try:
        if options.from_json:
            result = _read(options.from_json)
        else:
            result = _run(options, shlex.join(["python", "benchmarks/refinement.py", *map(_bare, given)]))
        if result and options.markdown:
            refinement_page.rewrite(options.markdown, result, options.from_json or options.json)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on where the cache ends", file=sys.stderr)
        return 130
    return 0


def chosen(model: ScaleAware) -> tuple[dict[str, Refine | None], dict[str, str]]:
    """The refinements that this model can do, and why it cannot do the others."""
    left_out = {}
    if model.edge_net is None:
        left_out["domain-learned"] = "left out: this model learned no edge map (model.edge_net=true in training)"
    return {kind: choose_refine(model, kind) for kind in REFINEMENTS if kind not in left_out}, left_out


def measure(job: Job, cache: Path | None = None) -> Counted:
    """Every photograph, those in the cache left out; UserError for a cache of another job."""
    counted = _resumed(cache, job.key) if cache else Counted()
    total = len(job.dataset)
    for index in range(len(counted.matrices), total):
        matrices, seconds = _one(job, *job.dataset[index])
        counted.matrices.append(matrices)
        counted.seconds.append(seconds)
        if index + 1 == total or (index + 1) % EVERY == 0:
            print(f"{index + 1} of {total} photographs", flush=True)
            if cache:
                _write(cache, _packed(job.key, counted))
    return counted


def report(job: Job, counted: Counted) -> dict[str, Any]:
    """What the JSON holds of the figures; fractions from 0 to 1."""
    matrices, seconds = np.stack(counted.matrices), np.array(counted.seconds)
    labelled = matrices[:, 0, 0].sum(axis=(0, 2))
    if not matrices[:, :, BAND].any():
        raise UserError(f"the masks of {job.name} have no border between labels, so there is nothing to measure")
    return {
        "data": job.name,
        "data_sha256": job.key["data"],
        "model_sha256": job.key["model"],
        "images": len(matrices),
        "pixels": int(matrices[:, 0, 0].sum()),
        "classes": list(job.model.classes),
        "not_in_labels": [name for name, rows in zip(job.model.classes, labelled, strict=True) if not rows],
        "precision": "float32",
        "device": describe(job.model.mean.device),
        "unit": "fractions from 0 to 1; intervals hold 95 % of the resamples; trimap and curve: within so many px of a border",
        "resamples": RESAMPLES,
        "seed": SEED,
        "trimap": TRIMAP,
        "network_seconds": median(seconds[:, 0]),
        "kinds": {
            kind: {
                "settings": job.key["settings"][kind],
                **_figures(matrices[:, number], job.model.classes),
                **({"difference": _differences(matrices[:, 0], matrices[:, number])} if number else {}),
                "seconds": median(seconds[:, 1 + number]),
            }
            for number, kind in enumerate(job.kinds)
        },
    }


def _run(options: argparse.Namespace, command: str) -> dict[str, Any] | None:
    """None if only the picture was asked for."""
    folder = locate(options.checkpoint)
    config = override(to_dict(read_config(folder)), options.overrides)
    model = place(load(folder, config.model), choose_device(options.device))
    model.refine = config.refine
    kinds, left_out = chosen(model)
    for kind, why in left_out.items():
        print(f"{kind} is {why}")
    if options.picture:
        _write(options.picture, refinement_page.png(refinement_page.draw(model, kinds)))
    if not (options.json or options.markdown):
        if options.picture:
            return None
        print("neither --json nor --markdown is given: figures are only printed")
    job = Job(model, kinds, open_evaluation(config.data).dataset, _data_name(config.data))
    cache = options.cache or (options.json and options.json.with_suffix(".partial.npz"))
    result = {
        "command": command, "checkpoint": _bare(options.checkpoint), **machine(), "python": platform.python_version(),
        "numpy": np.__version__, "scaleseg": scaleseg.__version__, **report(job, measure(job, cache)), "left_out": left_out,
    }  # fmt: skip
    print(refinement_page.table(result))
    if options.json:
        _write(options.json, json.dumps(result, indent=2) + "\n")
    if cache:
        cache.unlink(missing_ok=True)
    return result


def _one(job: Job, image: torch.Tensor, labels: torch.Tensor) -> tuple[np.ndarray, list[float]]:
    """One photograph's row."""
    device, truth = job.model.mean.device, labels.numpy()
    prediction, lap = _clocked(device, lambda: predict(job.model, image, precision="float32"))
    bands = [None, *(near_borders(truth, width) for width in WIDTHS)]
    rows, laps = [], [lap]
    for refine in job.kinds.values():
        guess, lap = _clocked(device, lambda refine=refine: at_image(prediction, image, refine).argmax(dim=0))
        rows.append(np.stack([_matrix(truth, guess.cpu().numpy(), band, len(job.model.classes)) for band in bands]))
        laps.append(lap)
    return np.stack(rows), laps


def _matrix(truth: np.ndarray, guess: np.ndarray, band: np.ndarray | None, classes: int) -> np.ndarray:
    confusion = Confusion(classes)
    confusion.add(truth, guess, band)
    return confusion.matrix


def _clocked(device: torch.device, do: Callable[[], Answer]) -> tuple[Answer, float]:
    synchronize(device)
    begin = time.perf_counter()
    answer = do()
    synchronize(device)
    return answer, time.perf_counter() - begin


def _figures(stack: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Of one kind's (images, bands, classes, classes)."""
    whole = _metrics(stack[:, 0], classes)
    return {
        "mIoU": whole.mIoU,
        "interval": bootstrap(stack[:, 0], resamples=RESAMPLES, seed=SEED),
        "trimap_mIoU": _metrics(stack[:, BAND], classes).mIoU,
        "trimap_interval": bootstrap(stack[:, BAND], resamples=RESAMPLES, seed=SEED),
        "curve": {str(width): _metrics(stack[:, 1 + at], classes).mIoU for at, width in enumerate(WIDTHS)},
        "IoU": whole.IoU,
        "absent": list(whole.absent),
    }


def _differences(before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    """Of the means, and between which 95 % of the paired resamples' differences lie."""
    return {
        name: {
            "mIoU": float(np.subtract(*miou(np.stack([after[:, band].sum(0), before[:, band].sum(0)])))),
            "interval": bootstrap_difference(before[:, band], after[:, band], resamples=RESAMPLES, seed=SEED),
        }
        for name, band in (("all", 0), ("trimap", BAND))
    }


def _metrics(matrices: np.ndarray, classes: Sequence[str]) -> Metrics:
    confusion = Confusion(len(classes))
    confusion.matrix, confusion.images = matrices.sum(0), len(matrices)
    return confusion.metrics(classes)


def _packed(key: Mapping[str, Any], counted: Counted) -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, key=json.dumps(key), matrices=counted.matrices, seconds=counted.seconds)
    return content.getvalue()


def _resumed(cache: Path, key: Mapping[str, Any]) -> Counted:
    """What an earlier run left; nothing if it left nothing."""
    if not cache.exists():
        return Counted()
    try:
        with np.load(io.BytesIO(cache.read_bytes()), allow_pickle=False) as left:
            theirs, matrices, seconds = dict(json.loads(str(left["key"]))), left["matrices"], left["seconds"]
    except (OSError, EOFError, ValueError, KeyError, IndexError, TypeError, BadZipFile, zlib.error) as error:
        raise UserError(
            f"{cache.name} cannot be read as a cache ({error}); delete it, or give another --cache"
        ) from error
    other = [name for name in key if theirs.get(name) != key[name]]
    if other:
        raise UserError(
            f"{cache.name} was made with another {' and another '.join(other)}; delete it, or give another --cache"
        )
    print(f"going on after {len(matrices)} photographs of {cache.name}")
    return Counted(list(matrices), seconds.tolist())


def _model_digest(model: ScaleAware) -> str:
    """Of the parameters and of how they are used."""
    digest = hashlib.sha256(repr((model.settings, model.scales)).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _data_digest(dataset: Dataset) -> str:
    """Of every photograph and mask as they are read: half a minute for thousands, and a bad file shows at once."""
    digest = hashlib.sha256()
    for index, name in enumerate(dataset.names):
        image, labels = dataset[index]
        digest.update(f"{name} {tuple(labels.shape)}".encode() + image.numpy().tobytes() + labels.numpy().tobytes())
    return digest.hexdigest()


def _data_name(data: DataConfig) -> str:
    """File names without their folders, which say nothing elsewhere."""
    value = data.train if data.val is None else data.val
    items = [str(item) for item in (value if isinstance(value, list | tuple) else [value])]
    names = [Path(path).name + colon + part for path, colon, part in (item.partition(":") for item in items)]
    kind = "" if data.dataset == "folder" else f"{data.dataset} "
    return f"{kind}{', '.join(names)}{', development split' if data.val is None else ''}"


def _bare(argument: str) -> str:
    """An argument whose paths from the root, from home or from above have lost their folders."""
    return re.sub(r"(?:(?<=^)|(?<=[=\[,'\" ]))(?:/|~|\.\./)(?:[^,\]'\"=]*/)?", "", argument)


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise UserError(f"--from-json {path.name} cannot be read ({error}); give what --json wrote") from error


def _write(path: Path, content: bytes | str) -> None:
    try:
        atomic.write(path, content)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); choose another path") from error


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checkpoint", nargs="?", help="a checkpoint folder, a bundled name, or a Hub id")
    parser.add_argument("overrides", nargs="*", help="settings as key=value, such as data.val=photographs.zip")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number here")
    parser.add_argument("--markdown", type=Path, metavar="PAGE", help="write the figures between this page's markers")
    parser.add_argument("--from-json", type=Path, metavar="FILE", help="measure nothing: the figures are in FILE")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the cat (PNG)")
    parser.add_argument(
        "--cache", type=Path, metavar="FILE", help="what a stopped run leaves (default: beside --json, .partial.npz)"
    )
    parser.add_argument("--device", default="cpu", help="cpu (default), auto, cuda, cuda:N or mps")
    options = parser.parse_intermixed_args(arguments)
    if options.from_json and (options.checkpoint or options.picture or options.json or not options.markdown):
        parser.error("--from-json takes --markdown PAGE and nothing else: nothing is measured or drawn")
    if not (options.from_json or options.checkpoint):
        parser.error("give a checkpoint, such as voc-animals-lite, and data.val=PATH; or --from-json FILE")
    return options


if __name__ == "__main__":
    sys.exit(main())
