"""One preparation: the folder it fills, the archives it reads, and what it has to say at the end.

A kill at any moment leaves whole files only; the same command goes on with those that are missing. `prepared.json` says
`finished` only at the end, and readers refuse a folder where it does not.
"""

import json
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from scaleseg import atomic
from scaleseg.datasets.contract import check_sizes
from scaleseg.datasets.prepared import MARK, read_mark
from scaleseg.errors import UserError
from scaleseg.prepare.pictures import header_size, without_rotation
from scaleseg.prepare.sources import Source

__all__ = ["Bar", "Errand", "Job", "Report", "check_id", "of_another_year", "parse_ids"]

Bar = Callable[[str, int | None], AbstractContextManager[Callable[[], None]]]
"""Title and total to a function that counts one more as done, as in `cli.output.bar`."""

Convert = Callable[[bytes, str], bytes | None]
"""A member's content and label to what is written; None to write nothing."""


class Errand(NamedTuple):
    """What becomes of one member."""

    outputs: Sequence[str]
    """Relative to the prepared folder."""
    convert: Convert


class Report(NamedTuple):
    """What was made."""

    folder: Path
    counts: dict[str, int]
    notes: list[str]
    next: str
    """What to give to `scaleseg`."""


class Job:
    """A folder being prepared, held by a lock that dies with its process."""

    def __init__(self, name: str, sources: Sequence[Source], folder: Path, allow_incomplete: bool, bar: Bar) -> None:
        self.name = name
        self.sources = list(sources)
        self.folder = folder
        self.allow_incomplete = allow_incomplete
        self.bar = bar
        self.notes: list[str] = []
        self.incomplete = self.grown = False
        self.unmarked = 0

    @contextmanager
    def begun(self) -> Iterator["Job"]:
        """Hold the folder; UserError if it holds something else, or if another process is at it."""
        self._check()  # first without the lock, which would leave a file in a folder that is none of ours
        with atomic.lock(self.folder, "another prepare", "--to"):
            begun = self._check()
            for inner in [self.folder, *(item for item in self.folder.rglob("*") if item.is_dir())]:
                atomic.remove_leftovers(inner)
            if not begun or self.grown:
                self._mark(finished=False, grown=self.grown)
            yield self

    def _check(self) -> bool:
        """Whether there are outputs; more archives than before may be given, to add one that was forgotten, but not others."""
        names = [item.name for item in self.folder.iterdir()] if self.folder.exists() else []
        if all(name in (".lock", MARK) or name.startswith(atomic.MARK) for name in names):
            return False
        mark = read_mark(self.folder)
        if mark is None:
            raise UserError(f"--to {self.folder} is not empty; give a new folder, or one that prepare began")
        listed = mark.get("sources")
        before = Counter(str(name) for name in listed) if isinstance(listed, list) else Counter()
        now = Counter(source.name for source in self.sources)
        if mark.get("name") != self.name or not before <= now:
            raise UserError(
                f"--to {self.folder} was begun as {mark.get('name')} from {', '.join(sorted(before))}; "
                "give those again (and others, if need be), or a new folder"
            )
        self.grown = now != before or mark.get("grown") is True  # said by a run that grew, and was interrupted
        return True

    def texts(self, find: Callable[[PurePosixPath], str | None], enough: int = -1) -> dict[str, tuple[str, str]]:
        """Small files, as `find` names their paths: label and text; the first of a name counts, `enough` names end it."""
        found: dict[str, tuple[str, str]] = {}
        with self.bar("looking for lists", None) as advance:
            for source in self.sources:
                for member in source.members():
                    key = find(member.path)
                    if key is not None and key not in found:
                        found[key] = (member.label, _text(member.read(), member.label))
                    advance()
                    if len(found) == enough:
                        return found
        return found

    def fetch(self, title: str, errands: Mapping[str, Errand], devkit: str | None = None) -> None:
        """Run the errands by the last two parts of a member's path, or by its last, in one pass; what is there is done.

        `devkit`, such as VOC2012, leaves out what lies in another year's.
        """
        todo = {key: errand for key, errand in errands.items() if not self._is_done(errand)}
        with self.bar(title, len(errands)) as advance:
            for _ in range(len(errands) - len(todo)):
                advance()
            for source in self.sources if todo else ():
                for member in source.members():
                    if devkit and of_another_year(member.path, devkit):
                        continue
                    errand = todo.pop("/".join(member.path.parts[-2:]), None) or todo.pop(member.path.name, None)
                    if errand is None:
                        continue
                    content = errand.convert(member.read(), member.label)
                    for output in errand.outputs if content is not None else ():
                        self.write(output, content or b"")
                    advance()
                    if not todo:
                        return

    def photograph(self, content: bytes, label: str) -> bytes:
        """The file as it is, unless it carries a rotation mark: masks lie on the pixels as stored, so the mark goes."""
        upright = without_rotation(content, label)
        self.unmarked += upright is not content
        return upright

    def write(self, output: str, content: bytes | str) -> None:
        """A file below the folder, whole or not at all."""
        path = self.folder / output
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(path, content)

    def write_lists(self, dataset: str, classes: Sequence[str], lists: Mapping[str, Sequence[str]]) -> None:
        """lists/, classes.txt and data.yaml, as the readers of prepared folders take them."""
        for name, ids in lists.items():
            self.write(f"lists/{name}.txt", "".join(f"{key}\n" for key in ids))
        self.write("classes.txt", "".join(f"{name}\n" for name in classes))
        splits = "".join(f"{name}: {name}\n" for name, ids in lists.items() if ids)
        self.write("data.yaml", f"dataset: {dataset}\nroot: .\n{splits}")

    def whole(self, pairs: Mapping[str, tuple[str, str]]) -> set[str]:
        """Of photograph and mask by id, the ids that have both; UserError for two of different sizes, or if none has both."""
        there = {key: pair for key, pair in pairs.items() if all((self.folder / path).is_file() for path in pair)}
        with self.bar("comparing sizes", len(there)) as advance:
            for image, mask in there.values():
                _compare(self.folder / image, self.folder / mask)
                advance()
        missing = sorted(pairs.keys() - there.keys())
        if not there:
            raise UserError(
                f"of {len(pairs)} listed photographs none is there with its mask; given: {self.given}. Give the archives of "
                "`scaleseg data prepare --help`"
            )
        if missing:
            self.lack(
                f"{len(missing)} of {len(pairs)} listed photographs or their masks are in no archive: {_few(missing)}"
            )
        return set(there)

    def lack(self, what: str) -> None:
        """Something of the official dataset is not there: a UserError, or a note if that was allowed."""
        if not self.allow_incomplete:
            raise UserError(
                f"{what}; given: {self.given}. Give the archives of `scaleseg data prepare --help`, or --allow-incomplete"
            )
        self.incomplete = True
        self.notes.append(f"incomplete: {what}")

    @property
    def given(self) -> str:
        """The archives, as messages list them."""
        links = sum(source.links for source in self.sources)
        passed = f" (links in there, which are not followed: {links}; give what they lead to)" if links else ""
        return ", ".join(str(source.path) for source in self.sources) + passed

    def expect(self, expected: Mapping[str, int], found: Mapping[str, int]) -> None:
        """`lack` unless the counts are the official ones."""
        if any(found[key] != count for key, count in expected.items()):
            wanted = ", ".join(f"{key} {count:,}" for key, count in expected.items())
            self.lack(
                f"found {', '.join(f'{key} {found[key]:,}' for key in expected)}; the official counts are {wanted}"
            )

    def finish(self, counts: dict[str, int], recipe: str) -> Report:
        """The last thing written: from here on readers take the folder."""
        self._mark(finished=True, incomplete=self.incomplete, counts=counts, notes=self.notes)
        if self.unmarked:
            marked = f"rotation marks that masks do not follow were removed from photographs: {self.unmarked}"
            self.notes.append(marked)
        settings = shlex.quote(f"data={self.folder / 'data.yaml'}")
        return Report(self.folder, counts, self.notes, f"data check {recipe} {settings}")

    def _mark(self, **content: Any) -> None:
        given = sorted(source.name for source in self.sources)
        atomic.write(self.folder / MARK, json.dumps({"name": self.name, "sources": given, **content}, indent=2) + "\n")

    def _is_done(self, errand: Errand) -> bool:
        return all((self.folder / output).is_file() for output in errand.outputs)


def parse_ids(text: str, label: str) -> list[str]:
    """A list's ids: of each line the first word, of a path its stem; UserError for what cannot name a file."""
    ids = [PurePosixPath(line.split()[0]).stem for line in text.splitlines() if line.strip()]
    return list(dict.fromkeys(check_id(key, label) for key in ids))


def check_id(key: str, label: str) -> str:
    """The id, which names files; UserError if it could lead anywhere else."""
    if not _ID.fullmatch(key):
        raise UserError(f"{label} holds {key!r:.80}, which is no id; give the official list, one id a line")
    return key


def of_another_year(path: PurePosixPath, devkit: str) -> bool:
    """Whether a file lies in another devkit: VOC2007, VOC2010 and VOC2012 often share the folder VOCdevkit."""
    years = [part for part in path.parts if re.fullmatch("VOC20[0-9]{2}", part)]
    return bool(years) and years[-1] != devkit


_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", re.ASCII)


def _compare(image: Path, mask: Path) -> None:
    """UserError unless the sizes are equal; both files go, so that they come anew from a better archive."""
    try:
        check_sizes(str(mask), header_size(mask), header_size(image))
    except UserError as error:
        for path in (image, mask):
            path.unlink(missing_ok=True)
        raise UserError(
            f"{error}. Both were removed; put the wrong archive right, then give the same command again"
        ) from error


def _text(content: bytes, label: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except ValueError as error:
        raise UserError(f"{label} cannot be read as text ({error}); download the archive again") from error


def _few(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
