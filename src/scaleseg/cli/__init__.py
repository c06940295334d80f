"""The command line: `main` is what `scaleseg` and `python -m scaleseg` call.

Next to nothing is imported before `main` runs, so that Ctrl-C during the imports ends in one line too.
"""

import atexit
import contextlib
import os
import signal
import sys
from types import FrameType

__all__ = ["main"]


def main() -> None:
    """Run a verb. Exit codes: 0 done, 1 something given cannot be used, 2 wrong usage, 130 interrupted, 141 unread."""
    try:
        try:
            _run()
        except KeyboardInterrupt:  # in the midst of leaving
            _leave(130)
    except SystemExit as end:
        if os.environ.get("WORLD_SIZE", "1") not in ("", "0", "1"):
            _end_at_once(end.code)
        raise


def _end_at_once(code: object) -> None:
    """Of many processes: threads of torch.distributed were seen to abort one at its very end, all done (torch 2.13)."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError):
            stream.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _run() -> None:
    before: object = None
    try:
        before = signal.getsignal(signal.SIGINT)
        _prepare(before)
        from scaleseg.cli.app import run_verb

        _refuse(run_verb())
    except KeyboardInterrupt:
        _leave(130)
    except BrokenPipeError:
        _leave(141)
    except SystemExit as end:
        if end.code == 130 and _came_of(end, KeyboardInterrupt):  # Typer makes a silent exit of it
            _leave(130)
        if end.code == 1 and _came_of(end, BrokenPipeError):
            _leave(141)
        _flush()
        raise
    except Exception:
        if _pressed:
            _leave(130)
        raise
    finally:
        _pressed.clear()
        if signal.getsignal(signal.SIGINT) in (_interrupt, signal.SIG_IGN) and before is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.default_int_handler)


_pressed: list[int] = []
"""Ctrl-C, since `main` began: libraries may make another exception of it."""


def _refuse(reason: str) -> None:
    """A mistake or a fault in one line, exit code 1."""
    if _pressed:
        _leave(130)
    from scaleseg.cli.output import say

    say(f"scaleseg: {reason}", error=True)
    sys.exit(1)


def _prepare(before: object) -> None:
    """Streams that can say the name of every file, and a Ctrl-C that cannot get lost."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a file's name may be no text in the terminal's encoding, or in any
            stream.reconfigure(errors="backslashreplace")
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_DFL)  # no traceback while the process ends


def _interrupt(number: int, frame: FrameType | None) -> None:
    """While a module loads an exception may get lost in C code, and nothing is half done: leave at once."""
    _pressed.append(number)
    while frame:
        if "importlib._bootstrap" in frame.f_code.co_filename:
            os.write(2, b"scaleseg: interrupted\n")
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt


def _leave(code: int) -> None:
    """End in one line, deaf to a second Ctrl-C in the middle of it."""
    if signal.getsignal(signal.SIGINT) is _interrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if code == 130 and sys.stderr:
        sys.stderr.write("scaleseg: interrupted\n")
    _flush()
    sys.exit(code)


def _flush() -> None:
    """What stdout still holds; where nobody takes it, it is dropped, or Python would complain of it at the very end."""
    try:
        sys.stdout.flush()
    except AttributeError:  # closed from the start
        pass
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _came_of(error: BaseException, kind: type[BaseException]) -> bool:
    """Whether an exception of this kind stands behind it."""
    behind: BaseException | None = error
    while behind and not isinstance(behind, kind):
        behind = behind.__cause__ or behind.__context__
    return behind is not None
