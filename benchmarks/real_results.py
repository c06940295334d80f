"""The paper's experiment on real photographs: every cell trained, measured with its last checkpoint, compared, collected.

    python benchmarks/real_results.py voc-animals/data.yaml --out runs/real --to docs/results/voc-animals-lite0
    python benchmarks/real_results.py voc-animals/data.yaml --network largefov --device cuda --minutes 25 \
        --pretrained vgg16-imagenet.safetensors --out runs/real-vgg --to docs/results/voc-animals-largefov
    python benchmarks/real_results.py camvid.zip --table camvid --out runs/camvid --to docs/results/camvid-lite0

Trained by `ablate` and measured by `evaluate --deep`, commands of scaleseg that are printed and can be given by hand. What
is done is not done again: the same command goes on after whatever stopped it. Cells come in the order of GROUPS, so that
what does not fit in the time is missing from the end. With `--minutes`, a trial measures how fast a step and a measurement
are, and steps and cells are chosen such that they fit, the steps the same for all; OUT/plan.json keeps them.

`--to` gets a small JSON a cell: settings, versions, speed, training curve and what `evaluate --deep` found, without the
list of photographs; and differences.json, paired bootstraps of cells that differ in one thing, of each and the
baseline, and of extra supervision and one loss at a higher rate.
"""

import argparse
import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any

from machine import machine

import scaleseg
from scaleseg import atomic
from scaleseg.analysis import compare, read
from scaleseg.checkpoint import read_config
from scaleseg.cli.deep import bare

__all__ = ["GROUPS", "Cell", "collect", "curve", "main"]

EVERY = 50
"""Steps between two points of a training curve."""

LEAST = 500
"""Steps below which `--minutes` leaves out cells instead."""


@dataclass(frozen=True)
class Cell:
    """One run: a cell of `scaleseg ablate`, a seed, and the settings that the table does not have."""

    name: str
    seed: int = 0
    extra: tuple[str, ...] = ()
    suffix: str = ""
    network: str = ""
    """The one that it is for; empty = all."""

    @property
    def label(self) -> str:
        """What it is called in files."""
        return f"{self.name}{self.suffix}" + (f"-seed-{self.seed}" if self.seed else "")


PLUS = ("data.random_scale=[0.6,1.4]",)
"""The paper's "+": photographs enlarged or shrunk at random in training."""

RATE = ("train.lr=0.001",)
"""The paper's rate, which suits lite0 better with one scale, and so with one loss (docs/decisions.md)."""

GROUPS = (
    tuple(map(Cell, ("baseline", "attention-3-es", "max-3-es", "average-3-es"))),
    tuple(map(Cell, ("attention-3", "max-3", "average-3"))),
    (*map(Cell, ("attention-2-es", "attention-2")), Cell("baseline", extra=RATE, suffix="-rate", network="lite0")),
    (Cell("attention-3", extra=RATE, suffix="-rate", network="lite0"),),
    tuple(map(Cell, ("max-2-es", "average-2-es", "max-2", "average-2"))),
    tuple(Cell(name, extra=RATE, suffix="-rate", network="lite0") for name in ("average-3", "max-3")),
    (Cell("msc", network="largefov"), Cell("attention-3-es", extra=PLUS, suffix="-plus")),
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

COST = Path(__file__).parent / "results" / "expected_hours.json"
"""The arithmetic of each cell's training step, by expected_hours.py."""


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
        return _groups(self.table, self.network)

    def folder(self, cell: Cell) -> Path:
        """A cell's run folder."""
        return self.parent(cell) / "cells" / cell.name / f"seed-{cell.seed}"

    def parent(self, cell: Cell) -> Path:
        """The folder of its `ablate`: settings beyond the table's need one of their own."""
        return self.out / f"table{cell.suffix}"

    def measured(self, cell: Cell) -> Path:
        """What `evaluate --deep` found of it."""
        return self.out / "deep" / f"{cell.label}.json"


def main(arguments: Sequence[str] | None = None) -> None:
    """Carry out what the command line says."""
    asked = _asked(arguments)
    chosen, steps = _plan(asked)
    settings = (*_settings(asked), f"train.steps={steps}", *asked.overrides)
    job = Job(asked.table, asked.data, asked.out, asked.network, asked.device, asked.jobs, settings)
    for group in chosen:
        at_once = len(group) if job.jobs > 1 else 1  # one at a time, what is finished is safe the sooner
        for cells in (group[start : start + at_once] for start in range(0, len(group), at_once)):
            _train(job, cells)
            for cell in cells:
                _measure(job, cell)
                if asked.to:
                    collect(job, asked.to)


def collect(job: Job, to: Path) -> None:
    """Write what every finished cell came to, and the differences between them."""
    done = [cell for group in job.groups for cell in group if job.measured(cell).exists()]
    to.mkdir(parents=True, exist_ok=True)
    for cell in done:
        target, found = to / f"{cell.label}.json", _document(job, cell)
        if not target.exists() or json.loads(target.read_text(encoding="utf-8"))["val"] != found["val"]:
            atomic.write(target, json.dumps(found, indent=1) + "\n")
    atomic.write(to / "differences.json", json.dumps(_differences(job, done), indent=1) + "\n")


def _document(job: Job, cell: Cell) -> dict[str, Any]:
    """All that is kept of a run; paths without the folders of this machine."""
    run = json.loads((job.folder(cell) / "metrics.json").read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in (job.folder(cell) / "metrics.jsonl").read_text().splitlines()]
    deep = json.loads(job.measured(cell).read_text(encoding="utf-8"))
    del deep["analysis"]["images"]
    document = {
        "table": job.table,
        "cell": asdict(cell),
        "settings": run["settings"],
        "overrides": [*job.settings, *cell.extra],
        "training": {name: run[name] for name in ("steps", "seconds", "images_per_s", "threads", "device")},
        "curve": curve(lines),
        "dev": [{"step": line["step"], "mIoU": line["dev"]["mIoU"]} for line in lines if "dev" in line],
        "val": deep,
        "versions": {"scaleseg": scaleseg.__version__},
        "machine": machine(),
    }
    without_folders: dict[str, Any] = json.loads(bare(json.dumps(document)))
    return without_folders


def curve(lines: Sequence[dict[str, Any]]) -> list[list[float]]:
    """[step, mean loss of the merged scores over the batches logged in the EVERY steps before it]."""
    losses = [(line["step"], line["loss_fused"]) for line in lines if "loss_fused" in line]
    steps = range(EVERY, int(losses[-1][0]) + 1, EVERY) if losses else ()
    return [[end, round(mean(loss for step, loss in losses if end - EVERY < step <= end), 4)] for end in steps]


def _differences(job: Job, done: Sequence[Cell]) -> list[dict[str, Any]]:
    """Of all pairs that a question is about, and that are done; 95 % paired bootstrap."""
    pairs = [(one, other) for one in done for other in done if _is_asked(one, other)]
    return [{"of": one.label, "less": other.label, **_difference(job, other, one)} for one, other in pairs]


def _is_asked(one: Cell, other: Cell) -> bool:
    """Whether they are a cell and a baseline, or differ in fusion (attention first), scales, extra supervision or "+" alone.

    Extra supervision is also compared with one loss at the rate that suits it.
    """
    if one.seed != other.seed or one.label == other.label:
        return False
    if other.name == "baseline":
        return one.label != "baseline"
    if one.suffix or other.suffix:
        plain, own = one.name == other.name and not other.suffix, one.name == f"{other.name}-es" and not one.suffix
        return plain or (own and other.suffix == "-rate")
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
    """What `scaleseg compare` says of the two; kept beside what was measured."""
    target = job.out / "deep" / "differences" / f"{second.label}-less-{first.label}.json"
    if not target.exists():
        target.parent.mkdir(exist_ok=True)
        found = compare(*(read(job.measured(cell)).analysis for cell in (first, second)))
        atomic.write(target, json.dumps(found.to_dict()) + "\n")
    document: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
    return document


def _train(job: Job, cells: Sequence[Cell]) -> None:
    """One `ablate` for the cells that share a folder."""
    for table in dict.fromkeys(map(job.parent, cells)):
        here = [cell for cell in cells if job.parent(cell) == table]
        only = [word for name in dict.fromkeys(cell.name for cell in here) for word in ("--only", name)]
        _call(
            "ablate", job.table, job.source, *job.settings, *here[0].extra, "--out", str(table), "--device", job.device,
            "--jobs", str(job.jobs), "--seeds", str(1 + max(cell.seed for cell in here)), *only,
        )  # fmt: skip


def _measure(job: Job, cell: Cell) -> None:
    """`evaluate --deep` of its last checkpoint, once."""
    if (job.folder(cell) / "metrics.json").exists() and not job.measured(cell).exists():
        job.measured(cell).parent.mkdir(parents=True, exist_ok=True)
        last, to = str(job.folder(cell) / "last"), str(job.measured(cell))
        _call("evaluate", last, job.source, "--deep", "--device", job.device, "--json", to)


def _settings(asked: argparse.Namespace) -> list[str]:
    """Those of the network, the table and `--pretrained`."""
    own = CAMVID_LITE0 if (asked.table, asked.network) == ("camvid", "lite0") else ()
    return [*NETWORKS[asked.network], *own, *([f"model.pretrained={asked.pretrained}"] if asked.pretrained else [])]


def _groups(table: str, network: str) -> tuple[tuple[Cell, ...], ...]:
    return tuple(tuple(cell for cell in group if cell.network in ("", network)) for group in TABLES[table][1])


def _plan(asked: argparse.Namespace) -> tuple[list[list[Cell]], int]:
    """Which cells, and how many steps each; what was planned once stays."""
    groups, file = _groups(asked.table, asked.network), asked.out / "plan.json"
    if file.exists():
        plan = json.loads(file.read_text(encoding="utf-8"))
        if asked.steps not in (None, plan["steps"]):
            raise SystemExit(f"{file} says {plan['steps']} steps, --steps {asked.steps}; choose another --out for that")
    else:
        cells = [cell for group in groups for cell in group]
        steps, count = (asked.steps or 1000, len(cells)) if asked.minutes is None else _that_fit(asked, cells)
        plan = {"steps": steps, "minutes": asked.minutes, "cells": [cell.label for cell in cells[:count]]}
        asked.out.mkdir(parents=True, exist_ok=True)
        atomic.write(file, json.dumps(plan, indent=1) + "\n")
    labels = [cell.label for group in groups for cell in group]
    if unknown := set(asked.only or ()) - set(labels):
        raise SystemExit(f"--only {', '.join(sorted(unknown))}: no such cell; there are {', '.join(labels)}")
    wanted = set(asked.only or plan["cells"])
    return [kept for group in groups if (kept := [cell for cell in group if cell.label in wanted])], int(plan["steps"])


def _that_fit(asked: argparse.Namespace, cells: Sequence[Cell]) -> tuple[int, int]:
    """Steps, and how many of the cells: a trial tells what a step and a measurement of the baseline take."""
    trial, source = asked.out / "trial", f"{TABLES[asked.table][0]}={asked.data}"
    if not (trial / "last").exists():
        _call(
            "train", f"{asked.table}-baseline", source, *_settings(asked), *asked.overrides, "train.steps=40",
            "train.validate_every=1000", "--out", str(trial), "--device", asked.device,
        )  # fmt: skip
    begin = time.monotonic()
    _call(
        "evaluate", str(trial / "last"), source, "--deep", "--device", asked.device, "--json", str(trial / "deep.json")
    )
    look = time.monotonic() - begin
    lines = [json.loads(line) for line in (trial / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    batch = read_config(trial / "last").train.batch
    per_step = batch / median(line["images_per_s"] for line in lines[1:] if line.get("images_per_s"))
    return _fitting([_cost(cell) for cell in cells], 60 * asked.minutes - 2 * look, per_step, look)


def _fitting(costs: Sequence[float], seconds: float, per_step: float, look: float) -> tuple[int, int]:
    """As many cells as can have LEAST steps, and then as many steps as fit; a cell is looked at three times.

    (By the trainer on the development split, by `ablate`, and by `evaluate --deep`.)
    """
    for count in range(len(costs), 0, -1):
        work = sum(costs[:count])
        steps = int((seconds - 3 * look * work) / (work * per_step))
        if steps >= LEAST:
            return steps, count
    raise SystemExit(
        f"--minutes is too little for one cell of {LEAST} steps of {per_step:.2f} s and three looks of {look:.0f} s; give more, "
        "or --steps"
    )


def _cost(cell: Cell) -> float:
    """How much a step of it is, in steps of the baseline."""
    runs = json.loads(COST.read_text(encoding="utf-8"))["runs"]
    return float(runs[cell.name]["gflop_a_crop"] / runs["baseline"]["gflop_a_crop"])


def _call(*words: str) -> None:
    """A command of scaleseg, shown and carried out; what fails ends this script with its exit code."""
    print("+ " + shlex.join(["scaleseg", *words]), flush=True)
    code = _run([sys.executable, "-m", "scaleseg", *words])
    if code:
        raise SystemExit(code)


def _run(command: list[str]) -> int:
    """In a session of its own: Ctrl-C and SIGTERM are handed on once, and it has the time to save."""
    child = subprocess.Popen(command, start_new_session=True)
    with _handed_on(child):
        return child.wait()


@contextmanager
def _handed_on(child: "subprocess.Popen[bytes]") -> Iterator[None]:
    before = {
        number: signal.signal(number, lambda number, _: child.send_signal(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help="of every cell; 1000 unless told")
    length.add_argument("--minutes", type=float, help="choose steps and cells such that they fit in so many minutes")
    parser.add_argument(
        "--only", action="append", help="cells by their label, such as attention-3-es or baseline-seed-1"
    )
    return parser.parse_intermixed_args(arguments)


if __name__ == "__main__":
    main()
