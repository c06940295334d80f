"""Networks for one scale. A name is a file: `create_segmenter("largefov", 21)` is `segmenters/largefov.py`.

A file here defines one subclass of `Segmenter`; its constructor's keyword arguments are the settings `model.options`.
"""

import inspect
from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from scaleseg.errors import UserError, choose, reason
from scaleseg.segmenters.contract import Dense, Normalization, Segmenter

__all__ = ["Dense", "Normalization", "Segmenter", "create_segmenter", "list_options", "list_segmenters"]

SHARED = ("contract", "sources", "vgg")


def list_segmenters() -> tuple[str, ...]:
    """The names: this folder's files, less what serves several of them."""
    return tuple(sorted(module.name for module in iter_modules(__path__) if module.name not in SHARED))


def list_options(name: str) -> tuple[str, ...]:
    """The settings that `create_segmenter(name)` takes: its constructor's keyword arguments."""
    return tuple(parameter for parameter in inspect.signature(_kind(name)).parameters if parameter != "num_classes")


def create_segmenter(name: str, num_classes: int, options: dict[str, Any] | None = None) -> Segmenter:
    """A segmenter with random parameters; `load_pretrained` gives it better ones."""
    accepted = list_options(name)
    for option in options or {}:
        choose(f"option of {name}", option, accepted)
    try:
        return _kind(name)(num_classes, **(options or {}))
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"model.options of {name} are {options}: {reason(error)}") from error


def _kind(name: str) -> Callable[..., Segmenter]:
    """The one subclass of `Segmenter` that the file defines; what it imports, another segmenter perhaps, is not its own."""
    module = import_module(f"{__name__}.{choose('model.segmenter', name, list_segmenters())}")
    return next(
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Segmenter) and value.__module__ == module.__name__
    )
