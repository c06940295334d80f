"""A verb in a process of its own that ends, with everything saved, when the process that ordered it is gone.

    python -m scaleseg.ablate.child train voc-attention --out runs/a

Standard input is a pipe that nobody writes to: it ends when the other process does, in whatever way. Then this one gets
a SIGTERM, as if by hand: a run in training finishes its step and saves. That works on every system with pipes.
"""

import os
import runpy
import signal
import sys
from threading import Thread

__all__ = ["main"]


def main() -> None:
    """What `python -m scaleseg` does with the same arguments."""
    Thread(target=_watch, args=(os.dup(0),), daemon=True).start()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # for whatever else may want to read
    sys.argv[0] = "scaleseg"
    runpy.run_module("scaleseg", run_name="__main__", alter_sys=True)


def _watch(pipe: int) -> None:
    while os.read(pipe, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
