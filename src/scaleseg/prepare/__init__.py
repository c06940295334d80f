"""The paper's datasets from the official archives that a user already has. A name is a file: `voc-animals` is `voc_animals.py`.

Each file defines `build(job)`, which fills the folder and says what it made.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from scaleseg.errors import UserError, choose
from scaleseg.prepare.job import Bar, Job, Report
from scaleseg.prepare.sources import open_source

__all__ = ["Report", "list_preparations", "prepare"]

_SHARED = ("job", "mat", "pictures", "render", "sources")


@contextmanager
def _silent(title: str, total: int | None) -> Iterator[Callable[[], None]]:
    yield lambda: None


def list_preparations() -> tuple[str, ...]:
    """The names."""
    names = (module.name for module in iter_modules(__path__) if module.name not in _SHARED)
    return tuple(sorted(name.replace("_", "-") for name in names))


def prepare(
    name: str, sources: Sequence[Path], to: Path, *, allow_incomplete: bool = False, bar: Bar = _silent
) -> Report:
    """Fill `to` from the archives; called again, it goes on where it stopped. UserError says which file is missing where."""
    chosen = choose("NAME", name, list_preparations())
    if to.exists() and not to.is_dir():
        raise UserError(f"--to {to} is a file; give a new folder, or one that prepare began")
    given = {path.resolve(): path for path in sources}.values()
    for path in given:
        if to.resolve().is_relative_to(path.resolve()):
            raise UserError(f"--to {to} lies in --from {path}; give a folder outside of it")
    job = Job(chosen, [open_source(path) for path in given], to, allow_incomplete, bar)
    module = import_module(f"{__name__}.{chosen.replace('-', '_')}")
    with job.begun():
        report: Report = module.build(job)
    return report
