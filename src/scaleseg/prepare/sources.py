"""What `--from` names: a folder, a zip, a tar or a tar.gz, read member by member, each no larger than memory bears.

Nothing is unpacked under a member's own name, links are never followed, and a tar.gz is read from front to back, once a
pass: so an archive of many gigabytes needs neither the disk nor the memory to unpack it.
"""

import gzip
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from io import BufferedIOBase
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from scaleseg.datasets.archive import Archive
from scaleseg.errors import UserError

__all__ = ["Member", "Source", "open_source"]

GZIP = b"\x1f\x8b"
MAX_BYTES = 500_000_000
"""A member that has more is refused; the largest that is read is COCO's instances_train2014.json, 333 MB."""


class Member(NamedTuple):
    """A file in a source."""

    path: PurePosixPath
    label: str
    """How messages call it."""
    read: Callable[[], bytes]
    """Its content; only before the next member is asked for."""


class Source:
    """One folder or archive."""

    def __init__(self, path: Path, kind: str) -> None:
        self.path = path
        self.kind = kind
        self.name = path.resolve().name
        self.links = 0
        """How many the last pass left out."""

    def members(self) -> Iterator[Member]:
        """Every regular file; UserError if the source is damaged."""
        return {"folder": self._folder, "file": self._file, "zip": self._zip, "tar": self._tar}[self.kind]()

    def _file(self) -> Iterator[Member]:
        path = self.path.resolve()
        yield Member(PurePosixPath(path.parent.name, path.name), _label(f"{path}"), partial(_read_file, path))

    def _folder(self) -> Iterator[Member]:
        """Their paths begin with the folder's own name: `dataset/train.txt` may be a `train.txt` given as `dataset`."""
        self.links = 0
        for where, folders, files in os.walk(self.path):
            folders.sort()
            self.links += sum(Path(where, name).is_symlink() for name in (*folders, *files))
            here = PurePosixPath(self.name, *Path(where).relative_to(self.path).parts)
            for file in sorted(files):
                path = Path(where, file)
                if path.is_file() and not path.is_symlink():
                    yield Member(here / file, _label(f"{path}"), partial(_read_file, path))

    def _zip(self) -> Iterator[Member]:
        archive = Archive(self.path)
        for name in archive.names():
            yield Member(PurePosixPath(name), archive.label(name), partial(archive.read, name))

    def _tar(self) -> Iterator[Member]:
        with _told(self.path), _open_tar(self.path) as archive:
            while (found := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # or it would keep a record of every member it passed
                if found.isreg():
                    label = _label(f"{self.path}:{found.name}")
                    yield Member(PurePosixPath(found.name), label, partial(self._read_tar, archive, found, label))

    def _read_tar(self, archive: tarfile.TarFile, found: tarfile.TarInfo, label: str) -> bytes:
        if found.size > MAX_BYTES:
            raise UserError(f"{label} has more than {MAX_BYTES:,} bytes; it is refused: no official archive has that")
        with _told(self.path):
            opened = archive.extractfile(found)
            assert opened
            content = opened.read()
        if len(content) < found.size:
            raise UserError(f"{self.path} is cut short in {found.name!r:.200}; download it again")
        return content


def open_source(path: Path) -> Source:
    """By what it is, not by its name; UserError if it is neither a folder, a zip, a tar nor a list."""
    if path.is_dir():
        return Source(path, "folder")
    if not path.is_file():
        raise UserError(f"--from {path} does not exist; give an official archive, or the folder it was unpacked to")
    if path.suffix == ".txt":
        return Source(path, "file")
    with path.open("rb") as file:
        is_gzip = file.read(2) == GZIP
    if not is_gzip and not tarfile.is_tarfile(path) and zipfile.is_zipfile(path):
        return Source(path, "zip")
    with _told(path), _open_tar(path):
        return Source(path, "tar")


class _Bounded:
    """A file that hands out no more at once than a member may have: a tar's header can ask for any size."""

    def __init__(self, file: BufferedIOBase) -> None:
        self.file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_BYTES:
            raise tarfile.ReadError("a header that asks for too much")
        return self.file.read(size)

    def seek(self, place: int) -> int:
        return self.file.seek(place)

    def tell(self) -> int:
        return self.file.tell()


@contextmanager
def _open_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """Read forward only: going back would unpack a tar.gz again from its beginning."""
    with path.open("rb") as raw:
        plain: BufferedIOBase = raw
        if raw.read(2) == GZIP:
            plain = gzip.GzipFile(fileobj=raw)
        raw.seek(0)
        with tarfile.open(fileobj=_Bounded(plain), mode="r:") as archive:  # type: ignore[call-overload]
            yield archive


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What a damaged archive leads to, as a UserError."""
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError) as error:
        raise UserError(
            f"{path} is neither a folder, a zip nor a readable tar ({error}); download it again, or unpack it yourself "
            "and give the folder"
        ) from error


def _label(text: str) -> str:
    return text if text.isprintable() else repr(text)[1:-1]


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise UserError(f"{path} has more than {MAX_BYTES:,} bytes; it is refused: no official archive has that")
    return content
