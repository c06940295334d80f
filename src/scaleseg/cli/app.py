"""The verbs of the command line, one file per group; heavy imports inside each verb, so that --help is instant."""

import errno
import threading

import typer

from scaleseg.cli import ablate, benchmark, compare, convert, data, export, look, predict, refine, report, run, serve
from scaleseg.errors import UserError

__all__ = ["app", "run_verb"]

app = typer.Typer(
    help="Scale-aware semantic segmentation: train, measure, predict, and see which scale was believed where.",
    epilog="Try: scaleseg demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
run.add_to(app)
predict.add_to(app)
look.add_to(app)
ablate.add_to(app)
benchmark.add_to(app)
refine.add_to(app)
compare.add_to(app)
convert.add_to(app)
export.add_to(app)
report.add_to(app)
serve.add_to(app)
app.add_typer(data.app, name="data")

ADVICE = {
    errno.ENOSPC: "free some space, then give the same command again",
    errno.EDQUOT: "free some space, then give the same command again",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f), then give the same command again",
    errno.EMFILE: "raise the limit on open files (ulimit -n), then give the same command again",
    errno.EACCES: "ask for permission, or choose another place",
    errno.EPERM: "ask for permission, or choose another place",
    errno.EROFS: "choose a place that can be written to",
    errno.ELOOP: "a link there leads to itself; give the file or folder itself",
    errno.ENAMETOOLONG: "choose a shorter name",
}
"""What to do about the faults that a file system has of its own accord."""


def run_verb() -> str:
    """Do what the command line says, and leave; what comes back is the line on why it could not be done.

    That is a user's mistake, or a fault of the file system.
    """
    threads, threading.excepthook = threading.excepthook, _of_a_thread
    try:
        app()
    except UserError as error:
        return str(error)
    except BrokenPipeError:
        raise
    except OSError as error:
        return _fault(error)
    except MemoryError:
        return "there is not enough memory; give smaller images, a smaller train.batch or data.crop"
    finally:
        threading.excepthook = threads
    raise AssertionError("Typer leaves by itself")


def _of_a_thread(fault: threading.ExceptHookArgs) -> None:
    """TensorBoard writes from a thread of its own: what fails there fails again, and is told, in the next call to it."""
    if not isinstance(fault.exc_value, OSError):
        threading.__excepthook__(fault)


def _fault(error: OSError) -> str:
    """A full disk, a folder that may not be read: where, what, and what to do."""
    where = f"{error.filename}: " if error.filename is not None else "reading or writing a file: "
    advice = ADVICE.get(error.errno or 0, "look at that path, then give the same command again")
    return f"{where}{error.strerror or error}; {advice}"
