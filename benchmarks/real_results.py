"""The paper's experiment on real photographs: every cell trained, measured with its last checkpoint, compared, collected.

    python benchmarks/real_results.py voc-animals/data.yaml --out runs/real --to docs/results/voc-animals-lite0
    python benchmarks/real_results.py voc-animals/data.yaml --network largefov --device cuda --minutes 25 \
        --pretrained vgg16-imagenet.safetensors --out runs/real-vgg --to docs/results/voc-animals-largefov
    python benchmarks/real_results.py camvid.zip --table camvid --out runs/camvid --to docs/results/camvid-lite0

Each step is a command of scaleseg that can be given by hand, and is printed: `ablate` for the cells (in the order of
GROUPS, so that what does not fit in the time is missing from the end), `evaluate --deep` for each finished one. What is
done is not done again: the same command goes on after whatever stopped it. With `--minutes`, speed is measured first and
the steps, the same for all cells, are fixed such that GROUPS fits; they are kept in OUT/plan.json.

`--to` gets a small JSON a cell: settings, versions, speed, training curve and what `evaluate --deep` found, without the
list of photographs; and differences.json, paired bootstraps of cells that differ in one thing, and of each and the
baseline.
"""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from machine import machine

import scaleseg
from scaleseg import atomic

__all__ = ["GROUPS", "Cell", "collect", "main"]

EVERY = 50
"""Steps that one point of a training curve stands for."""


@dataclass(frozen=True)
class Cell:
    """One run: a cell of `scaleseg ablate`, a seed, and the settings that the table does not have."""

    name: str
    seed: int = 0
    extra: tuple[str, ...] = ()
    suffix: str = ""

    @property
    def label(self) -> str:
        """What it is called in files."""
        return f"{self.name}{self.suffix}" + (f"-seed-{self.seed}" if self.seed else "")


PLUS = ("data.random_scale=[0.6,1.4]",)
"""The paper's "+": photographs enlarged or shrunk at random in training."""

GROUPS = (
    tuple(map(Cell, ("baseline", "attention-3-es", "max-3-es", "average-3-es"))),
    tuple(map(Cell, ("attention-3", "max-3", "average-3"))),
    tuple(map(Cell, ("attention-2-es", "attention-2"))),
    tuple(map(Cell, ("max-2-es", "average-2-es", "max-2", "average-2"))),
    (Cell("msc"), Cell("attention-3-es", extra=PLUS, suffix="-plus")),
    tuple(Cell(name, seed) for seed in (1, 2) for name in ("baseline", "attention-3-es", "max-3-es", "average-3-es")),
)

TABLES = {"voc-animals": ("data", GROUPS), "camvid": ("data.root", (GROUPS[0][:2],))}
"""The setting that names the data, and the cells."""

NETWORKS = {
    "lite0": (
        "model.segmenter=lite0", "model.attention_width=128", "data.crop=225", "train.batch=8", "train.lr=0.0003",
        "train.schedule=poly",
    ),
    "largefov": ("train.precision=bf16", "train.schedule=poly", "data.workers=8", "train.save_minutes=1"),
}  # fmt: skip
"""Settings that all cells share. lite0's rate was chosen on the development split (docs/decisions.md)."""

CAMVID_LITE0 = (
    "data.crop=257", "data.random_scale=[0.5,1.5]", "data.colour_jitter=0.3", "train.optimizer=adamw", "train.lr=0.0002",
    "train.fresh_lr=5", "train.bias_lr=1", "train.weight_decay=0.01", "train.warmup_steps=50",
)  # fmt: skip
"""As the bundled model was trained on other photographs; nothing was tried on CamVid."""

RELATIVE_COST = {"baseline": 1.0, "msc": 1.3, "2": 1.25, "3": 1.8125}
"""Pixels that a step looks at, beside the baseline's: the sum of the squared scales."""


@dataclass(frozen=True)
class Job:
    """What was asked for."""

    table: str
    data: Path
    out: Path
    network: str
    device: str
    jobs: int
    settings: tuple[str, ...] = field(default=())

    @property
    def source(self) -> str:
        """The setting that says where the photographs are."""
        return f"{TABLES[self.table][0]}={self.data}"

    @property
    def groups(self) -> tuple[tuple[Cell, ...], ...]:
        """The cells, in the order in which they are trained."""
        return TABLES[self.table][1]

    def folder(self, cell: Cell) -> Path:
        """A cell's run folder."""
        return self.parent(cell) / "cells" / cell.name / f"seed-{cell.seed}"

    def parent(self, cell: Cell) -> Path:
        """The folder of its `ablate`: settings beyond the table's need one of their own."""
        return self.out / ("plus" if cell.extra else "table")

    def measured(self, cell: Cell) -> Path:
        """What `evaluate --deep` found of it."""
        return self.out / "deep" / f"{cell.label}.json"


def main(arguments: Sequence[str] | None = None) -> None:
    """Carry out what the command line says."""
    asked = _asked(arguments)
    settings = tuple(_settings(asked))
    job = Job(asked.table, asked.data, asked.out, asked.network, asked.device, asked.jobs, settings)
    chosen = [[cell for cell in group if not asked.only or cell.label in asked.only] for group in job.groups]
    for group in filter(None, chosen):
        _train(job, group)
        for cell in group:
            if (job.folder(cell) / "metrics.json").exists() and not job.measured(cell).exists():
                job.measured(cell).parent.mkdir(parents=True, exist_ok=True)
                _call(
                    "evaluate", str(job.folder(cell) / "last"), job.source, "--deep", "--device", job.device,
                    "--json", str(job.measured(cell)),
                )  # fmt: skip
        if asked.to:
            collect(job, asked.to)


def collect(job: Job, to: Path) -> None:
    """Write what every finished cell came to, and the differences between them."""
    done = [cell for group in job.groups for cell in group if job.measured(cell).exists()]
    to.mkdir(parents=True, exist_ok=True)
    for cell in done:
        atomic.write(to / f"{cell.label}.json", json.dumps(_document(job, cell), indent=1) + "\n")
    atomic.write(to / "differences.json", json.dumps(_differences(job, done), indent=1) + "\n")


def _document(job: Job, cell: Cell) -> dict[str, Any]:
    run = json.loads((job.folder(cell) / "metrics.json").read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in (job.folder(cell) / "metrics.jsonl").read_text().splitlines()]
    deep = json.loads(job.measured(cell).read_text(encoding="utf-8"))
    del deep["analysis"]["images"]
    return {
        "table": job.table,
        "cell": asdict(cell),
        "settings": run["settings"],
        "overrides": list(job.settings),
        "training": {name: run[name] for name in ("steps", "seconds", "images_per_s", "threads", "device")},
        "curve": _curve(lines),
        "dev": [{"step": line["step"], "mIoU": line["dev"]["mIoU"]} for line in lines if "dev" in line],
        "val": deep,
        "versions": {"scaleseg": scaleseg.__version__},
        "machine": machine(),
    }


def _curve(lines: Sequence[dict[str, Any]]) -> list[list[float]]:
    """[step, mean loss of the merged scores over the EVERY steps before it]."""
    losses = [(line["step"], line["loss_fused"]) for line in lines if "loss_fused" in line]
    steps = range(EVERY, int(losses[-1][0]) + 1, EVERY) if losses else ()
    return [[end, round(mean(loss for step, loss in losses if end - EVERY < step <= end), 4)] for end in steps]


def _differences(job: Job, done: Sequence[Cell]) -> list[dict[str, Any]]:
    """Of all pairs that a question is about, and that are done; 95 % paired bootstrap."""
    pairs = [(one, other) for one in done for other in done if _is_asked(one, other)]
    return [{"of": one.label, "less": other.label, **_difference(job, other, one)} for one, other in pairs]


def _is_asked(one: Cell, other: Cell) -> bool:
    """Whether they are a cell and the baseline, or differ in fusion (attention first), scales or extra supervision alone."""
    if one == other or one.seed != other.seed or other.suffix:
        return False
    if one.suffix or other.name == "baseline":
        return other.name in (one.name, "baseline")
    (fusion, scales, own), (fusion_2, scales_2, own_2) = _traits(one.name), _traits(other.name)
    if (scales, own) == (scales_2, own_2):
        return fusion == "attention"
    return fusion == fusion_2 and (scales, own, scales_2, own_2) in (
        (scales, True, scales, False), ("3", own, "2", own),
    )  # fmt: skip


def _traits(name: str) -> tuple[str, str, bool]:
    """Fusion, how many scales, and whether each has a loss of its own."""
    fusion, _, rest = name.partition("-")
    return fusion, rest.removesuffix("-es"), rest.endswith("-es")


def _difference(job: Job, first: Cell, second: Cell) -> dict[str, Any]:
    target = job.out / "deep" / f"{second.label}-less-{first.label}.json"
    if not target.exists():
        _call("compare", str(job.measured(first)), str(job.measured(second)), "--json", str(target))
    document: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
    return document


def _train(job: Job, group: Sequence[Cell]) -> None:
    """One `ablate` for the cells that share folder and seed range."""
    for table in dict.fromkeys(map(job.parent, group)):
        cells = [cell for cell in group if job.parent(cell) == table]
        if job.network == "lite0":
            cells = [cell for cell in cells if cell.name != "msc"]  # it has branches for largefov alone
        if not cells:
            continue
        only = [word for name in dict.fromkeys(cell.name for cell in cells) for word in ("--only", name)]
        _call(
            "ablate", job.table, job.source, *job.settings, *cells[0].extra, "--out", str(table), "--device", job.device,
            "--jobs", str(job.jobs), "--seeds", str(1 + max(cell.seed for cell in cells)), *only,
        )  # fmt: skip


def _settings(asked: argparse.Namespace) -> list[str]:
    own = CAMVID_LITE0 if (asked.table, asked.network) == ("camvid", "lite0") else ()
    given = [*NETWORKS[asked.network], *own, *([f"model.pretrained={asked.pretrained}"] if asked.pretrained else [])]
    return [*given, f"train.steps={_steps(asked, given)}", *asked.overrides]


def _steps(asked: argparse.Namespace, settings: Sequence[str]) -> int:
    """As asked for, or as many as fit in the minutes; once fixed they stay."""
    plan = asked.out / "plan.json"
    if plan.exists():
        return int(json.loads(plan.read_text(encoding="utf-8"))["steps"])
    steps = asked.steps if asked.minutes is None else _that_fit(asked, settings)
    asked.out.mkdir(parents=True, exist_ok=True)
    atomic.write(plan, json.dumps({"steps": steps, "minutes": asked.minutes}) + "\n")
    return int(steps)


def _that_fit(asked: argparse.Namespace, settings: Sequence[str]) -> int:
    """A fifth of the time is left for measuring and for starting."""
    trial, (source, groups) = asked.out / "trial", TABLES[asked.table]
    if not (trial / "last").exists():
        _call(
            "train", f"{asked.table}-baseline", f"{source}={asked.data}", *settings, "train.steps=40",
            "train.validate_every=1000", "--out", str(trial), "--device", asked.device,
        )  # fmt: skip
    lines = [json.loads(line) for line in (trial / "metrics.jsonl").read_text().splitlines()]
    per_step = min(30 / line["images_per_s"] for line in lines[1:] if line.get("images_per_s"))
    cost = sum(_cost(cell) for group in groups for cell in group)
    return int(0.8 * 60 * asked.minutes / (cost * per_step))


def _cost(cell: Cell) -> float:
    return RELATIVE_COST.get(cell.name) or RELATIVE_COST[cell.name.split("-")[1]]


def _call(*words: str) -> None:
    """A command of scaleseg, shown and carried out; what fails ends this script with its exit code."""
    print("+ " + shlex.join(["scaleseg", *words]), flush=True)
    code = subprocess.call([sys.executable, "-m", "scaleseg", *words])
    if code:
        raise SystemExit(code)


def _asked(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n\n")[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "data", type=Path, help="data.yaml of `scaleseg data prepare voc-animals`, or CamVid's folder or zip"
    )
    parser.add_argument("overrides", nargs="*", help="further settings of all cells, as key=value")
    parser.add_argument("--out", type=Path, required=True, help="the folder of the runs")
    parser.add_argument("--to", type=Path, help="the folder of the small JSON files")
    parser.add_argument("--table", choices=sorted(TABLES), default="voc-animals")
    parser.add_argument("--network", choices=sorted(NETWORKS), default="lite0")
    parser.add_argument("--pretrained", help="ImageNet's parameters, where they are not fetched")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--minutes", type=float, help="fix the steps such that all fits in so many minutes")
    parser.add_argument(
        "--only", action="append", help="cells by their label, such as attention-3-es or baseline-seed-1"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
