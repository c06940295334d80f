"""Feeding damaged files (mutants.py) to scaleseg: `python torture.py FOLDER FIRST LAST SECONDS` runs those seeds.

It prints one JSON line before and one after each mutant. What it runs is held to 2 GB and to ten seconds of processor
time, and whoever started it sees which mutant was on when it died.
"""

import contextlib
import faulthandler
import io
import json
import os
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from mutants import Files, checkpoint, kind_of, masks, mutant, photographs

FROM_IMAGES = ("image", "opened", "pair", "zip", "verb", "train")
"""Kinds that may run out of memory, and say so: an image may truly be that large."""

SECONDS = 10.0
"""Of the processor's time: a busy machine is no hang. Whoever started this process sees to one that sleeps."""
MEMORY = 2 << 30
"""On top of the address space after imports: torch and what it links to take 0.7 GB of it before any work (CPU build)."""

# ---------------------------------------------------------------- what uses them; the working directory is the mutant's


def _use_image(name: str) -> None:
    import scaleseg

    scaleseg.segment(_model(), name)


def _use_opened(name: str) -> None:
    """What Pillow alone cannot open was never given to us."""
    import scaleseg

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(name)
        except Exception:
            return
    with image:
        scaleseg.segment(_model(), image)


def _use_dataset(name: str) -> None:
    from scaleseg.config import DataConfig
    from scaleseg.data_check import check

    where = name if name.endswith(".zip") else "."
    _is_told_in_lines(check(DataConfig(train=where, val=None, classes=("ground", "disc"))))


def _use_data(name: str) -> None:
    from scaleseg.data_check import check
    from scaleseg.recipes import override

    _is_told_in_lines(check(override({}, ["data=data.yaml"]).data))


def _is_told_in_lines(report: Any) -> None:
    for split in report.splits:
        for sentence in (*split.problems, *split.warnings):
            assert len(sentence.splitlines()) == 1, f"the sentence is no single line: {sentence!r}"


def _use_recipe(name: str) -> None:
    from scaleseg.config import to_dict
    from scaleseg.recipes import load_recipe, override

    config = load_recipe(name, ["train.steps=1"])
    override(to_dict(config), [])  # what a run writes down is read again


def _use_folder(name: str) -> None:
    import scaleseg

    scaleseg.load(Path.cwd())


def _use_trunk(name: str) -> None:
    from scaleseg.model import create_model

    create_model("small", classes=("ground", "disc"), pretrained=name, options={"width": 4, "num_features": 8})


def _use_verb(name: str) -> None:
    """`scaleseg data check`: what it prints is one line on stderr and exit code 1, or a table and 0 or 1."""
    import scaleseg.cli
    from scaleseg.errors import UserError

    given = "data.yaml" if Path("data.yaml").exists() else name if name.endswith(".zip") else "."
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["scaleseg", "data", "check", given]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            scaleseg.cli.main()
        except SystemExit as stop:
            assert stop.code in (0, 1), f"exit code {stop.code}: {err.getvalue()}"
    assert "Traceback" not in out.getvalue() + err.getvalue()
    if err.getvalue():
        raise UserError(err.getvalue().removesuffix("\n"))


def _use_training(name: str) -> None:
    """A recipe that asks for much is told to do little."""
    from scaleseg.recipes import load_recipe
    from scaleseg.training import train

    little = ["train.steps=1", "train.batch=2", "train.accumulate=1", "data.workers=0", "data.crop=32"]
    train(load_recipe("recipe.yaml", little), Path("run"), device="cpu", say=lambda line: None)


USES: dict[str, Callable[[str], None]] = {
    "image": _use_image, "opened": _use_opened, "pair": _use_dataset, "zip": _use_dataset, "data": _use_data,
    "config": _use_folder, "parameters": _use_folder, "verb": _use_verb, "train": _use_training, "recipe": _use_recipe,
    "pretrained": _use_trunk, "pickle": _use_trunk, "probe": lambda name: PROBES[name](),
}  # fmt: skip


def _refuse(sentence: str) -> None:
    from scaleseg.errors import UserError

    raise UserError(sentence)


def _devour() -> None:
    from scaleseg.errors import UserError

    try:
        bytearray(MEMORY)
    except MemoryError as error:
        raise UserError("it is too large") from error


def _spin() -> None:
    while True:
        pass


PROBES: dict[str, Callable[[], object]] = {
    "fine": lambda: None, "sentence": lambda: _refuse("no"), "lines": lambda: _refuse("two\nlines"), "bug": lambda: 1 // 0,
    "warning": lambda: warnings.warn("careful", stacklevel=1), "stderr": lambda: os.write(2, b"a cry"), "memory": _devour,
    "spin": _spin, "sleep": lambda: time.sleep(1_000), "crash": os.abort,
}  # fmt: skip
"""What the harness must see, each by its name; the seeds -10 to -1."""


@cache
def _model() -> Any:
    from scaleseg.model import create_model

    options = {"width": 4, "num_features": 8}
    return create_model(
        "small", classes=("a", "b"), scales=(1.0, 0.5), pretrained="none", attention_width=8, options=options
    )


# ---------------------------------------------------------------- the process


def run_one(seed: int, use: Callable[[str], None], files: Files, folder: Path, errors: int) -> dict[str, Any]:
    """How a mutant ended: `result`, `refused` with the sentence, or `failed` with what went wrong."""
    import traceback

    from scaleseg.errors import UserError

    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    os.chdir(folder)
    outcome, detail = "result", ""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            use(next(iter(files)))
        except UserError as error:
            outcome, detail = "refused", str(error)
            if not detail.strip() or len(detail.splitlines()) > 1:
                outcome, detail = "failed", f"the sentence is no single line: {detail[:3_000]!r}"
            if _of_memory(error) and kind_of(seed) not in FROM_IMAGES:
                outcome, detail = "failed", f"more than {MEMORY >> 30} GB were asked for: {detail[:300]}"
        except BaseException:
            outcome, detail = "failed", traceback.format_exc()[-3_000:]
    if warned:
        outcome, detail = "failed", f"{warned[0].category.__name__}: {warned[0].message} ({warned[0].filename})"
    printed = os.pread(errors, 3_000, 0).decode(errors="replace")
    os.ftruncate(errors, 0)
    if printed and not any(content.startswith((b"II*", b"MM\0*")) for content in files.values()):
        outcome, detail = "failed", f"on stderr: {printed}"  # libtiff alone speaks for itself, from C
    return {"seed": seed, "outcome": outcome, "detail": detail}


def _of_memory(error: BaseException | None) -> bool:
    """Whether memory ran out. An image may be as large as it truly is; settings and parameters that fit nobody may not."""
    while error:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            return True
        error = error.__cause__
    return False


def prepare() -> None:
    """Import what the mutants need and make what is whole."""
    import torch
    import torch._dynamo

    from scaleseg import cli, data_check, training  # noqa: F401

    torch.set_num_threads(1)
    checkpoint(), photographs(), masks(), _model()


def limit_memory() -> None:
    """MEMORY above what is mapped now. RLIMIT_AS binds on Linux only; elsewhere the time limit alone holds."""
    if sys.platform == "linux":
        import resource

        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, mapped + MEMORY))


def main(folder: Path, first: int, last: int, seconds: float = SECONDS) -> None:
    """Run the mutants from `first` to before `last`; the files of one that failed stay in FOLDER/seed-N."""
    say = os.fdopen(os.dup(1), "w", buffering=1)
    faulthandler.register(signal.SIGPROF, file=(folder / "stack").open("w"), chain=True)  # then it ends the process
    errors = os.open(folder / "stderr", os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    if last > 0:
        prepare()
    limit_memory()
    os.dup2(errors, 2)
    for seed in range(first, last):
        say.write(json.dumps({"begun": seed}) + "\n")
        place = folder / f"seed-{seed}"
        files = mutant(seed) if seed >= 0 else {list(PROBES)[seed]: b""}
        place.mkdir()
        signal.setitimer(signal.ITIMER_PROF, seconds)
        ended = run_one(seed, USES[kind_of(seed)], files, place, errors)
        signal.setitimer(signal.ITIMER_PROF, 0)
        os.chdir(folder)
        if ended["outcome"] != "failed":
            shutil.rmtree(place)
        say.write(json.dumps(ended) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
