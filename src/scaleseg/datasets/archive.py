"""Files of a folder or of a zip, by name: read in place, safe to use from many processes."""

import lzma
import os
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from scaleseg.errors import UserError

__all__ = ["Archive"]

MAX_BYTES = 500_000_000
"""A member of a zip that claims or unpacks to more than this is refused."""


class Archive:
    """A read-only set of files."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._opened: tuple[int, zipfile.ZipFile] | None = None
        if self.path.is_dir():
            self.is_zip = False
        elif self.path.is_file():
            self.is_zip = True
            self._zip()
        else:
            raise UserError(f"{self.path} does not exist; give a folder or a zip with images/ and masks/")

    def files(self, folder: str) -> dict[str, str]:
        """The files directly in `folder`: name in the archive, by file name."""
        if self.is_zip:
            names = [PurePosixPath(name) for name in self._zip().namelist() if not name.endswith("/")]
            return {name.name: str(name) for name in names if str(name.parent) == folder}
        inside = self.path / folder
        if not inside.is_dir():
            return {}
        return {item.name: f"{folder}/{item.name}" for item in sorted(inside.iterdir()) if item.is_file()}

    def names(self) -> list[str]:
        """Every file of a zip."""
        return [name for name in self._zip().namelist() if not name.endswith("/")]

    def folders(self, folder: str) -> list[str]:
        """The folders directly in `folder`, by name."""
        if self.is_zip:
            inside = {
                name.removeprefix(f"{folder}/") for name in self._zip().namelist() if name.startswith(f"{folder}/")
            }
            return sorted({name.partition("/")[0] for name in inside if "/" in name})
        path = self.path / folder
        return sorted(item.name for item in path.iterdir() if item.is_dir()) if path.is_dir() else []

    def read(self, name: str) -> bytes:
        """A file's content; UserError if it cannot be read."""
        try:
            if not self.is_zip:
                return (self.path / name).read_bytes()
            content = _unpacked(self._zip(), name)
        except (
            OSError,
            KeyError,
            zipfile.BadZipFile,
            zlib.error,
            lzma.LZMAError,
            EOFError,
            ValueError,
            RuntimeError,
            NotImplementedError,
        ) as error:
            raise UserError(f"{self.label(name)} cannot be read ({error})") from error
        if len(content) > MAX_BYTES:
            raise UserError(f"{self.label(name)} unpacks to more than {MAX_BYTES:,} bytes; it is refused")
        return content

    def label(self, name: str) -> str:
        """How messages call a file: folder/name or archive.zip:name."""
        label = f"{self.path}:{name}" if self.is_zip else str(self.path / name)
        return label if label.isprintable() else repr(label)[1:-1]  # a name may hold a newline; a message may not

    def _zip(self) -> zipfile.ZipFile:
        """This process's own handle: a file position shared across a fork would mix two readers."""
        if self._opened is None or self._opened[0] != os.getpid():
            try:
                self._opened = (os.getpid(), zipfile.ZipFile(self.path))
            except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
                raise UserError(f"{self.path} is neither a folder nor a readable zip ({error})") from error
        return self._opened[1]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_opened": None}


def _unpacked(archive: zipfile.ZipFile, name: str) -> bytes:
    """In small bites, up to a little more than MAX_BYTES: bzip2 and LZMA unpack a whole bite, however large it grows."""
    bites, size = [], 0
    with archive.open(name) as member:
        while size <= MAX_BYTES and (bite := member.read(4096)):
            bites.append(bite)
            size += len(bite)
    return b"".join(bites)
