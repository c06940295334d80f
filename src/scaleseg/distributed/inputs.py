"""Which images are meant: files, folders and globs as everywhere, and lists of them and addresses that fsspec reads."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from scaleseg.batch import Item, expand, gather
from scaleseg.errors import UserError, reason
from scaleseg.images import IMAGE_SUFFIXES

__all__ = ["find_inputs"]

Pair = tuple[Path | str, Path]
"""A path or a URL, and the path that names what is made of it."""


def find_inputs(inputs: Sequence[str], out: Path) -> list[Item]:
    """Items of files, folders, globs, URLs (s3://bucket/photos/, s3://bucket/*.jpg) and lists: @list, or a .txt.

    A list holds a path or a URL a line, as it would stand on the command line, taken as it is. Names are those of
    `batch.find_images`. UserError if nothing is there.
    """
    return gather((pair for given in inputs for pair in _expand(given)), inputs, out)


def _expand(given: str) -> Iterator[Pair]:
    here = os.path.lexists(given)
    if given.startswith("@") and not here:
        yield from _listed(given[1:])
    elif given.lower().endswith(".txt") and (_is_url(given) or (here and not Path(given).is_dir())):
        yield from _listed(given)
    elif _is_url(given) and not here:
        yield from _remote(given)
    else:
        yield from expand(given)


def _listed(listing: str) -> Iterator[Pair]:
    """The lines of a list, each the address of one image; whether it is there shows when it is read."""
    try:
        with _opened(listing) as file:
            for line in file:
                entry = line.strip("\r\n")
                if "\0" in entry:
                    raise ValueError("it is no text")
                if entry.strip():
                    yield (entry if _is_url(entry) else Path(entry)), _last(entry)
    except Exception as error:  # of many stores
        why = getattr(error, "strerror", None) or reason(error)
        raise UserError(
            f"the list {listing} cannot be read ({why}); give a text file with one path or URL a line"
        ) from error


def _opened(name: str) -> Any:
    """A text file, as the system's file names are encoded: what is no UTF-8 stays what it was."""
    if not _is_url(name):
        return Path(name).open(encoding="utf-8", errors="surrogateescape")
    import fsspec  # type: ignore[import-untyped]

    return fsspec.open(name, "r", encoding="utf-8", errors="surrogateescape")


def _remote(given: str) -> Iterator[Pair]:
    """What lies below a URL, or matches it, or the URL itself; a name that would climb out of its folder loses its dots."""
    from fsspec.core import url_to_fs  # type: ignore[import-untyped]

    try:
        store, root = url_to_fs(given)
        whole = not given.startswith(("http://", "https://"))  # where ? and = are part of an address, and folders pages
        if whole and "*" in given:
            found = [(path, path.rpartition("/")[2]) for path in sorted(store.glob(root))]
        elif whole and store.isdir(root):
            below = root.rstrip("/")
            found = [(path, path[len(below) :]) for path in sorted(store.find(root))]
            found = [pair for pair in found if not pair[1].rpartition("/")[2].startswith(".")]
        else:
            yield given, _last(given)
            return
    except Exception as error:  # of many stores; ImportError names what to install
        raise UserError(
            f"{given} cannot be listed ({reason(error)}); look at the address and who may read it"
        ) from error
    for path, relative in found:
        if path.lower().endswith(IMAGE_SUFFIXES):
            yield store.unstrip_protocol(path), _safe(relative)


def _last(address: str) -> Path:
    """The file's own name, of a path or of a URL."""
    return _safe(PurePosixPath(address.partition("://")[2].partition("?")[0] if _is_url(address) else address).name)


def _safe(relative: str) -> Path:
    """Without steps upwards, which keys of a store may hold."""
    parts = [part for part in PurePosixPath(relative).parts if part not in ("..", "/")]
    return Path(*parts) if parts else Path("image")


def _is_url(name: str) -> bool:
    return "://" in name
