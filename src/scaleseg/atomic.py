"""Files and folders that are there whole or not at all: written under a temporary name, synced, renamed.

And the lock by which one process at a time writes to a folder.
"""

import fcntl
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from scaleseg.errors import UserError

__all__ = ["check_writable", "fresh_folder", "lock", "point", "remove_leftovers", "write"]

MARK = ".writing-"
"""Temporary names begin with it; `remove_leftovers` knows them by it."""


def write(path: Path, content: bytes | str) -> None:
    """Replace a file's content in one step."""
    temporary = _beside(path)
    temporary.unlink(missing_ok=True)  # and "x": in a shared folder somebody may have put a link there
    try:
        with temporary.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def check_writable(path: Path, option: str) -> None:
    """UserError where `write` would fail, before hours of work; `option` is what the user gave it by. Nothing is left there."""
    problem = ""
    if path.is_dir():
        problem = "is a folder"
    elif path.exists() and not path.is_file():
        problem = "is no plain file"
    elif not path.parent.is_dir():
        problem = "is in a folder that does not exist"
    else:
        try:
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            problem = f"cannot be written ({error.strerror})"
    if problem:
        raise UserError(f"{option} {path} {problem}; choose another path")


@contextmanager
def fresh_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that takes the place of `path` at the end; on an error `path` stays as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.iterdir():
            _sync(file)
        _sync_folder(temporary)
        _swap(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync_folder(path.parent)


def point(link: Path, target: str) -> None:
    """Make `link` a symbolic link to `target` (relative to it), replacing an older one in one step."""
    temporary = _beside(link)
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    try:
        temporary.replace(link)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(link.parent)


def lock(folder: Path, holder: str, option: str = "--out") -> IO[str]:
    """The folder's open `.lock`, this process's alone until it is closed or the process ends; makes the folder.

    UserError if the folder cannot be written, has no locks, or another process has it: `holder` says what that may be.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{option} {folder} cannot be written ({error.strerror}); choose another folder") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise UserError(f"{holder} is writing to {folder}; wait for it, or choose another {option}") from None
    except OSError as error:
        file.close()
        raise UserError(
            f"{folder} cannot be locked ({error.strerror}); choose an {option} on a file system that has locks"
        ) from error
    return file


def remove_leftovers(folder: Path) -> None:
    """Delete what a killed process had begun to write; only for whoever holds the folder's lock.

    A folder that had moved aside for its successor, which never came, moves back.
    """
    for item in folder.glob(f"{MARK}*"):
        name = item.name.partition("-old-")[2]
        if name and not (folder / name).exists():
            item.rename(folder / name)
            continue
        if item.is_dir() and not item.is_symlink():
            shutil.rmtree(item, ignore_errors=True)
        else:
            item.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    """A temporary name in the same folder, no longer than any name may be where `path` itself is none too long."""
    name = path.name if len(os.fsencode(path.name)) < 200 else f"{zlib.crc32(os.fsencode(path.name)):08x}"
    return path.with_name(f"{MARK}{os.getpid()}-{name}")


def _swap(temporary: Path, path: Path) -> None:
    """Folders cannot be replaced in one step: the old one moves aside first."""
    aside = path.with_name(f"{MARK}{os.getpid()}-old-{path.name}")
    existed = path.exists()
    if existed:
        path.rename(aside)
    try:
        temporary.rename(path)
    except BaseException:
        if existed:
            aside.rename(path)
        raise
    if existed:
        shutil.rmtree(aside, ignore_errors=True)


def _sync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
