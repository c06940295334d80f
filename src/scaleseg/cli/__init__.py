"""The command line: one file per group of verbs; heavy imports inside each verb, so that --help is instant."""

import sys

import typer

from scaleseg.cli import data, look, run
from scaleseg.cli.output import say
from scaleseg.errors import UserError

__all__ = ["app", "main"]

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
look.add_to(app)
app.add_typer(data.app, name="data")


def main() -> None:
    """Run a verb. Exit codes: 0 done, 1 something given cannot be used, 2 wrong usage, 130 interrupted."""
    try:
        app()
    except UserError as error:
        say(f"scaleseg: {error}", error=True)
        sys.exit(1)
    except KeyboardInterrupt:
        say("scaleseg: interrupted", error=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:  # a full disk, a folder that may not be read
        say(f"scaleseg: {error.filename or 'reading or writing a file'}: {error.strerror or error}", error=True)
        sys.exit(1)
