"""A process that measures what it is told to, until there is nobody to tell it.

    python -m scaleseg.refine_search.child CACHE

A line of JSON on standard input is a task, a line on standard output its tally. Standard input ends when the process that
gives the tasks does, in whatever way: then this one is gone at once, for nothing here needs saving.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import torch

from scaleseg.config import RefineConfig
from scaleseg.errors import UserError
from scaleseg.refine_search.measure import Task, measure

__all__ = ["main"]


def main() -> None:
    """Work off the lines; a UserError is an answer too."""
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else prints is no answer
    for line in _lines():
        answers.write(json.dumps(_answer(json.loads(line), Path(sys.argv[1]))) + "\n")
        answers.flush()


def _answer(asked: dict[str, Any], cache: Path) -> dict[str, Any]:
    task = Task(asked["image"], asked["refine"], RefineConfig(**asked["settings"]))
    try:
        return measure(task, cache)._asdict()
    except UserError as error:
        return {"problem": str(error)}


def _lines() -> Iterator[str]:
    waiting: SimpleQueue[str] = SimpleQueue()
    Thread(target=_listen, args=(waiting,), daemon=True).start()
    while True:
        yield waiting.get()


def _listen(waiting: "SimpleQueue[str]") -> None:
    for line in sys.stdin:
        waiting.put(line)
    os._exit(0)


if __name__ == "__main__":
    main()
