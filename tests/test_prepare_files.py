"""What `data prepare` reads: MATLAB files as scipy writes and reads them, archives of every kind, hostile ones of each."""

import gzip
import io
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from official import drawn, gtcls_mat, mat, write
from scaleseg.errors import UserError
from scaleseg.prepare.mat import as_records, as_text, read_mat
from scaleseg.prepare.sources import open_source


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
def test_numbers_are_those_that_scipy_reads(kind: str, compressed: bool) -> None:
    values = np.arange(12).reshape(3, 4).astype(kind)
    content = mat({"x": values}, compressed)
    assert np.array_equal(read_mat(content, "a.mat")["x"], scipy.io.loadmat(io.BytesIO(content))["x"])


@pytest.mark.parametrize("compressed", [False, True])
def test_structs_cells_and_text_are_what_was_saved(compressed: bool) -> None:
    cell = np.empty((1, 2), object)
    cell[0, 0], cell[0, 1] = np.ones((2, 2), np.uint8), "word"
    found = read_mat(
        mat({"top": {"name": "2008_000001", "cell": cell, "flag": np.array([[True]])}}, compressed), "a.mat"
    )
    record = as_records(found["top"])[0]
    assert as_text(record["name"]) == "2008_000001"
    assert as_text(record["cell"][1]) == "word"
    assert record["flag"].item()


def test_what_is_no_struct_has_no_records() -> None:
    assert as_records(np.zeros((0, 0))) == as_records(None) == []
    assert as_text(np.zeros((0, 0))) == ""


def test_an_array_of_structs_keeps_matlabs_order() -> None:
    array = np.empty((2, 2), [("n", object)])
    for place in range(4):
        array[np.unravel_index(place, (2, 2), order="F")] = (float(place),)
    records = as_records(read_mat(mat({"a": array}), "a.mat")["a"])
    assert [record["n"].item() for record in records] == [0, 1, 2, 3]


def test_a_file_of_another_byte_order_is_read() -> None:
    body = element(6, struct.pack(">II", 9, 0)) + element(5, struct.pack(">ii", 1, 2)) + element(1, b"x")
    content = header(b"MI") + element(14, body + element(4, struct.pack(">HH", 258, 3)))
    assert read_mat(content, "a.mat")["x"].tolist() == [[258, 3]]


def header(order: bytes) -> bytes:
    return b"MATLAB 5.0 MAT-file".ljust(124) + (b"\0\1" if order == b"IM" else b"\1\0") + order


def element(kind: int, content: bytes, order: str = ">") -> bytes:
    return struct.pack(order + "II", kind, len(content)) + content + bytes(-len(content) % 8)


def nested(depth: int) -> bytes:
    """Cells in cells."""
    inner = b""
    for _ in range(depth):
        head = (
            element(6, struct.pack("<II", 1, 0), "<") + element(5, struct.pack("<ii", 1, 1), "<") + element(1, b"", "<")
        )
        inner = element(14, head + (inner or element(14, b"", "<")), "<")
    return header(b"IM") + inner


def test_cells_in_cells_are_refused_before_they_fill_the_stack() -> None:
    """scipy 1.17 ends the whole process on the 5,000: they fill the stack of its C code."""
    read_mat(nested(10), "a.mat")
    with pytest.raises(UserError, match=r"deep\.mat cannot be read \(it is nested more than 12 deep\)"):
        read_mat(nested(5000), "deep.mat")


def test_a_mat_that_unpacks_to_too_much_is_refused_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scaleseg.prepare.mat.MAX_BYTES", 1_000_000)
    bomb = zlib.compress(bytes(100_000_000))
    content = header(b"IM") + struct.pack("<II", 15, len(bomb)) + bomb
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="unpacks to too much"):
            read_mat(content, "a.mat")
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_a_mat_of_countless_elements_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scaleseg.prepare.mat.MOST", 100)
    with pytest.raises(UserError, match="more than 100 elements"):
        read_mat(header(b"IM") + element(14, b"", "<") * 101, "a.mat")


def test_text_that_is_stored_as_fractions_is_refused() -> None:
    body = element(6, struct.pack("<II", 4, 0), "<") + element(5, struct.pack("<ii", 1, 1), "<") + element(1, b"", "<")
    content = header(b"IM") + element(14, body + element(9, struct.pack("<d", 65.0), "<"), "<")
    with pytest.raises(UserError, match=r"a\.mat cannot be read"):
        read_mat(content, "a.mat")


def test_a_mat_of_version_7_3_is_told_apart() -> None:
    with pytest.raises(UserError, match=r"of version 7\.3; the official archive holds version 5"):
        read_mat(b"MATLAB 7.3 MAT-file".ljust(200), "a.mat")


WHOLE = {compressed: gtcls_mat(drawn(1), compressed) for compressed in (False, True)}


@settings(max_examples=300, deadline=None)
@given(st.booleans(), st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=6), st.integers(0, 6000))
def test_a_damaged_mat_is_a_user_error_or_still_readable(
    compressed: bool, changes: list[tuple[int, int]], length: int
) -> None:
    content = bytearray(WHOLE[compressed][:length])
    for place, value in changes:
        if place < len(content):
            content[place] = value
    try:
        assert isinstance(read_mat(bytes(content), "a.mat"), dict)
    except UserError as error:
        assert "a.mat" in str(error)


FILES = {"top/a.txt": b"one", "top/inner/b.txt": b"two", "top/inner/c.bin": bytes(range(256)) * 50}


@pytest.mark.parametrize("name", ["folder", "a.zip", "a.tar", "a.tgz", "a.tar.gz"])
def test_every_kind_of_source_has_the_same_members(name: str, tmp_path: Path) -> None:
    source = open_source(write(tmp_path / name, FILES))
    found = {"/".join(member.path.parts[-2:]): member.read() for member in source.members()}
    assert found == {"/".join(key.split("/")[-2:]): content for key, content in FILES.items()}


def test_an_archive_is_known_by_its_content_not_by_its_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", FILES).rename(tmp_path / "a.tar")
    assert {member.path.name for member in open_source(path).members()} == {"a.txt", "b.txt", "c.bin"}


def test_a_list_may_be_given_by_itself(tmp_path: Path) -> None:
    write(tmp_path / "lists", {"train.txt": b"a\n"})
    (member,) = open_source(tmp_path / "lists/train.txt").members()
    assert (member.path.as_posix(), member.read()) == ("lists/train.txt", b"a\n")


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive at all", b"\x1f\x8b cut", b"PK\x03\x04", gzip.compress(b"no tar", mtime=0)],
    ids=["empty", "text", "half a gzip header", "half a zip header", "gzip of no tar"],
)
def test_what_is_no_archive_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.tgz").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.tgz is neither a folder, a zip nor a readable tar"):
        list(open_source(tmp_path / "x.tgz").members())


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.tar does not exist"):
        open_source(tmp_path / "nowhere.tar")


@pytest.mark.parametrize("ending", [".tar", ".tgz"])
def test_a_tar_cut_short_anywhere_is_a_user_error_or_ends_early(ending: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a{ending}", FILES)
    whole = path.read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 40)):
        path.write_bytes(whole[:length])
        try:
            for member in open_source(path).members():
                assert member.read() == FILES[member.path.as_posix()]
        except UserError as error:
            assert path.name in str(error)


def test_links_and_devices_of_a_tar_are_no_members(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            member = tarfile.TarInfo(f"odd{ord(kind)}")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    assert list(open_source(tmp_path / "a.tar").members()) == []


@pytest.mark.parametrize("name", ["folder", "a.zip", "a.tar", "a.tgz"])
def test_a_member_that_is_too_large_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / name, {"top/a.bin": bytes(5000)})
    monkeypatch.setattr("scaleseg.prepare.sources.MAX_BYTES", 1000)
    monkeypatch.setattr("scaleseg.datasets.archive.MAX_BYTES", 1000)
    with pytest.raises(UserError, match=r"a\.bin.* more than 1,000 bytes"):
        [member.read() for member in open_source(path).members()]


def test_a_header_that_asks_for_too_much_is_refused_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name of 200 MB, packed to 200 kB: tarfile itself would read it in one go."""
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 200_000_000
    path = tmp_path / "a.tgz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(member.tobuf(tarfile.GNU_FORMAT))
        for _ in range(200):
            file.write(b"x" * 1_000_000)
    monkeypatch.setattr("scaleseg.prepare.sources.MAX_BYTES", 1_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=r"a\.tgz is neither .* a header that asks for too much|a\.tgz is neither"):
            list(open_source(path).members())
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_a_newline_in_a_members_name_does_not_tear_a_message(tmp_path: Path) -> None:
    for name in ("a.zip", "a.tar"):
        (member,) = open_source(write(tmp_path / name, {"x\ny.txt": b""})).members()
        assert member.label.endswith(rf"{name}:x\ny.txt")


def test_an_encrypted_zip_is_a_user_error(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", b"x")
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.zip:a\.txt cannot be read"):
        [member.read() for member in open_source(path).members()]
