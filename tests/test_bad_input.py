"""Hostile input through the front door: one line that says what to do, exit code 1, and nothing lost or half written."""

import contextlib
import errno
import json
import os
import pickle
import pwd
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from conftest import small_config, small_model
from scaleseg import checkpoint
from scaleseg.cli import main
from scaleseg.config import to_dict


class Ended(tuple[int, str, str]):
    """Exit code, stdout and stderr of a call."""

    code = property(lambda self: self[0])
    out = property(lambda self: self[1])
    err = property(lambda self: self[2])


class World:
    """A checkpoint, a recipe and photographs under one folder, and the command line in this process."""

    def __init__(self, root: Path, photographs: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self.photographs, self.capsys = root, photographs, capsys
        self.out, self.saved, self.recipe = root / "out", root / "model", root / "recipe.yaml"
        write_recipe(self.recipe, photographs)

    def __call__(self, *arguments: object) -> Ended:
        before, sys.argv = sys.argv, ["scaleseg", *map(str, arguments)]
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            sys.argv = before
        return Ended((code, *self.capsys.readouterr()))

    def words(self, line: str) -> list[str]:
        """A command line, its {names} filled in."""
        places = {"saved": self.saved, "recipe": self.recipe, "photographs": self.photographs, "root": self.root}
        return [word.format(**places) for word in line.split()]


def write_recipe(path: Path, photographs: Path, **training: object) -> None:
    """Three steps of the tiny model on the six photographs, a checkpoint after each."""
    config = to_dict(small_config(options={"width": 4, "num_features": 8, "dropout": 0.3}))
    config["data"] |= {"train": str(photographs), "val": str(photographs), "crop": 33, "workers": 0, "dev": 0.2}
    config["train"] |= {"steps": 3, "batch": 2, "log_every": 1, "save_every": 1, "validate_every": 2, **training}
    path.write_text(json.dumps(config))


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "model"
    checkpoint.save(path, small_model(), small_config(), training_state={"step": 1})
    return path


@pytest.fixture
def world(tmp_path: Path, folder: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]) -> World:
    shutil.copytree(model_folder, tmp_path / "model")
    return World(tmp_path, folder, capsys)


def refused(ended: Ended, *said: str) -> None:
    """Exit code 1 and one line on stderr, which says all this."""
    line = ended.err.rstrip("\n")
    print(line)
    assert ended.code == 1, ended
    assert line.startswith("scaleseg: ")
    assert "\n" not in line
    assert "Traceback" not in ended.out + line
    for part in said:
        assert part in line


NUMBERS = "give one or more numbers above 0 and up to 4"
SETTINGS = [
    ("voc-atention", "recipe is 'voc-atention'; did you mean 'voc-attention'? choose voc-attention, "),
    ("nowhere.yaml", "nowhere.yaml does not exist; give the name of a recipe or the path of a YAML file"),
    ("{recipe} train.stepz=3", "setting is 'train.stepz'; did you mean 'train.steps'? choose train.steps, "),
    ("{recipe} trian.steps=3", "setting is 'trian'; did you mean 'train'? choose data, model, refine or train"),
    ("{recipe} model.fusion=atention", "fusion is 'atention'; did you mean 'attention'? choose attention, average or"),
    (
        "{recipe} model.segmenter=largefow",
        "'largefow'; did you mean 'largefov'? choose fcn, largefov, lite0, msc, parsenet, resnet101 or small",
    ),
    ("{recipe} data.dataset=foldr", "data.dataset is 'foldr'; did you mean 'folder'? choose ade20k, camvid, "),
    ("{recipe} train.optimizer=sdg", "train.optimizer is 'sdg'; did you mean 'sgd'? choose adamw or sgd"),
    ("{recipe} model.scales=[0]", f"model.scales is [0.0]; {NUMBERS}"),
    ("{recipe} model.scales=[-1]", f"model.scales is [-1.0]; {NUMBERS}"),
    ("{recipe} model.scales=[1,.nan]", f"model.scales is [1.0, nan]; {NUMBERS}"),
    ("{recipe} model.scales=[.inf]", f"model.scales is [inf]; {NUMBERS}"),
    ("{recipe} model.scales=[1e9]", f"model.scales is [1000000000.0]; {NUMBERS}"),
    ("{recipe} model.scales=[]", f"model.scales is []; {NUMBERS}"),
    ("{recipe} model.scales=[1,1]", "model.scales is [1.0, 1.0]; give each scale once"),
    ("{recipe} model.scales=half", "model.scales: a value of a wrong type; the default is [1.0, 0.75, 0.5]"),
    ("{recipe} model.attention_width=1000000000", "model.attention_width is 1000000000"),
    ("{recipe} model.options.widht=4", "option of small is 'widht'; did you mean 'width'?"),
    ("{recipe} model.pretrained=nowhere.pth", "model.pretrained is 'nowhere.pth', which is not a file; give a path,"),
    ("{recipe} data.crop=1000000000", "data.crop is 1000000000"),
    ("{recipe} data.crop=0", "data.crop is 0"),
    ("{recipe} data.workers=1000000", "data.workers"),
    (
        "{recipe} train.batch=1000000000000",
        "train.batch is 1000000000000; give a number of at least 1 and below 1048576",
    ),
    ("{recipe} train.lr=.nan", "train.lr is nan; give a number above 0"),
    ("{recipe} train.save_minutes=.nan", "train.save_minutes is nan"),
    ("{recipe} train.warmup_steps=-5", "train.warmup_steps is -5"),
    ("{recipe} train.steps=0", "train.steps is 0; give a whole number of 1 or more"),
    ("{recipe} train.init_from=nowhere", "'nowhere' is no checkpoint folder (with config.json) and no bundled model"),
    ("{recipe} train.seed=999999999999999999999999", "train.seed"),
    ("{recipe} train", "'train' is no override; write key=value, such as train.steps=100"),
    ("{recipe} =3", "'=3' is no override"),
    ("{recipe} train.steps=", "train.steps: Incompatible value 'None' for field of type 'int'; the default is 6000"),
    ("{recipe} train=3", "train is 3; it holds settings: give train.NAME=VALUE"),
    ("{recipe} data=nowhere.yaml", "nowhere.yaml does not exist"),
    ("{recipe} data.train=nowhere", "nowhere does not exist; give a folder or a zip with images/ and masks/"),
    ("{recipe} data.classes=[]", "data.classes is empty; list the class names"),
    ("{recipe} data.dev=1.5", "data.dev is 1.5; give a share from 0 to below 1"),
    ("{recipe} --device abacus", "--device is 'abacus'; choose auto, cpu, cuda, cuda:N or mps"),
]


@pytest.mark.parametrize(("line", "said"), SETTINGS, ids=[line for line, _ in SETTINGS])
def test_a_setting_that_cannot_be_is_refused_before_anything_is_written(world: World, line: str, said: str) -> None:
    refused(world("train", *world.words(line), "--out", world.out), said)
    assert not list(world.out.rglob("*.json*"))
    assert not list(world.out.rglob("*.yaml"))


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def edit(saved: Path, **changes: Any) -> None:
    """Change keys of a checkpoint's config.json; `data__classes` is `classes` in `data`."""
    path = saved / "config.json"
    document = json.loads(path.read_text())
    for key, value in changes.items():
        *parents, last = key.split("__")
        inner = document
        for parent in parents:
            inner = inner[parent]
        inner[last] = value
    path.write_text(json.dumps(document))


def spoil_tensor(saved: Path, value: float) -> None:
    tensors = load_file(saved / "model.safetensors")
    tensors["segmenter.head.weight"].view(-1)[0] = value
    save_file(tensors, saved / "model.safetensors")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def lie_about_the_header(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 2**62) + path.read_bytes()[8:])


CHECKPOINTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "is no checkpoint folder (with config.json) and no bundled model"),
    "no config": (lambda s: (s / "config.json").unlink(), "is no checkpoint folder (with config.json)"),
    "no parameters": (lambda s: (s / "model.safetensors").unlink(), "model.safetensors is missing; a checkpoint is"),
    "parameters cut short": (lambda s: cut(s / "model.safetensors"), "damaged or cut short: copy it again"),
    "parameters empty": (lambda s: (s / "model.safetensors").write_bytes(b""), "cut short: copy it again"),
    "parameters a folder": (lambda s: [(s / "model.safetensors").unlink(), (s / "model.safetensors").mkdir()], "Is a"),
    "header that lies": (lambda s: lie_about_the_header(s / "model.safetensors"), "damaged or cut short: copy it"),
    "NaN": (lambda s: spoil_tensor(s, float("nan")), "holds NaN or infinity in segmenter.head.weight; use another"),
    "infinity": (lambda s: spoil_tensor(s, float("inf")), "holds NaN or infinity in segmenter.head.weight"),
    "fewer classes": (lambda s: edit(s, data__classes=["ground", "disc"]), "(2"),
    "no classes": (lambda s: edit(s, data__classes=[]), "names no classes (data.classes)"),
    "300 classes": (
        lambda s: edit(s, data__classes=[f"c{i}" for i in range(300)]),
        "data.classes names 300 classes; give at most 255",
    ),
    "not JSON": (lambda s: (s / "config.json").write_text("model: small"), "config.json cannot be read"),
    "not text": (lambda s: (s / "config.json").write_bytes(b"\xff\xfe\x00"), "config.json cannot be read"),
    "empty config": (lambda s: (s / "config.json").write_text(""), "config.json cannot be read"),
    "a list": (lambda s: (s / "config.json").write_text("[]"), "config.json is no configuration of scaleseg"),
    "deep nesting": (lambda s: (s / "config.json").write_text("[" * 100_000), "config.json cannot be read"),
    "a future format": (lambda s: edit(s, format=2), "config.json has format 2; this version reads 1"),
    "an unknown setting": (lambda s: edit(s, model__wings=2), "setting is 'model.wings'; "),
    "an unknown segmenter": (lambda s: edit(s, model__segmenter="os"), "model.segmenter is 'os'; "),
    "scales beyond reason": (lambda s: edit(s, model__scales=[1e9]), "model.scales is [1000000000.0]; "),
    "another width": (lambda s: edit(s, model__attention_width=16), "config.json means ("),
    "another fusion": (lambda s: edit(s, model__fusion="max"), "does not fit config.json: missing none, surplus"),
}


@pytest.mark.parametrize(
    ("verb", "case"), [*(("predict", case) for case in CHECKPOINTS), ("evaluate", "NaN"), ("evaluate", "not JSON")]
)
def test_a_damaged_checkpoint_is_named_and_nothing_is_written(world: World, verb: str, case: str) -> None:
    spoil, said = CHECKPOINTS[case]
    spoil(world.saved)
    lines = {
        "predict": f"{world.photographs}/images --out {world.out}",
        "evaluate": f"data.val={world.photographs} --json {world.out}",
    }
    refused(world(verb, world.saved, *lines[verb].split()), said)
    assert not world.out.exists()


def test_a_pickle_named_safetensors_is_refused_and_does_not_run(world: World) -> None:
    (world.saved / "model.safetensors").write_bytes(pickle.dumps(Trap(world.root / "trap")))
    refused(world("predict", world.saved, world.photographs, "--out", world.out), "damaged or cut short: copy it again")
    assert not (world.root / "trap").exists()


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("name", ["vgg.pth", "vgg.safetensors", "vgg"])
def test_a_pickle_as_pretrained_parameters_is_refused_and_does_not_run(world: World, name: str, wrapped: bool) -> None:
    path, trap = world.root / name, Trap(world.root / "trap")
    torch.save({"state_dict": trap}, path) if wrapped else path.write_bytes(pickle.dumps(trap))
    refused(world("train", world.recipe, f"model.pretrained={path}", "--out", world.out), str(path))
    assert not (world.root / "trap").exists()


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_pickle_in_place_of_a_training_state_is_refused_and_does_not_run(world: World, wrapped: bool) -> None:
    assert world("train", world.recipe, "train.steps=1", "--out", world.out).code == 0
    state, trap = world.out / "last" / "training_state.pt", Trap(world.root / "trap")
    torch.save({"step": trap}, state) if wrapped else state.write_bytes(pickle.dumps(trap))
    refused(world("train", world.recipe, "--resume", "--out", world.out), "is no training state of scaleseg")
    assert not (world.root / "trap").exists()


def test_the_trap_would_have_sprung(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Trap(tmp_path / "trap")))
    assert (tmp_path / "trap").exists()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes whose header says how large it is."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in (
            (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(bytes(1000))),
            (b"IEND", b""),
        )
    )


def truncated_jpeg(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)).save(path, "JPEG")
    cut(path)


def loop(path: Path) -> None:
    path.symlink_to(path.with_name("other.jpg"))
    path.with_name("other.jpg").symlink_to(path)


PHOTOGRAPHS: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda p: p.write_text("no photograph"), "is no image that can be read; give JPEG, PNG, WebP"),
    "nothing": (lambda p: p.write_bytes(b""), "is no image that can be read; give JPEG, PNG, WebP"),
    "a JPEG cut short": (truncated_jpeg, "it is damaged or cut short"),
    "a bomb": (lambda p: p.write_bytes(bomb(60_000, 60_000)), "(3600000000 pixels)"),
    "a lesser bomb": (lambda p: p.write_bytes(bomb(16_000, 16_000)), "(256000000 pixels)"),
    "more pixels than bytes": (lambda p: p.write_bytes(bomb(400, 400)), "it is damaged or cut short"),
    "a link to nowhere": (lambda p: p.symlink_to("nowhere"), "does not exist"),
    "a device without end": (lambda p: p.symlink_to("/dev/zero"), "has more than 1,000,000 bytes; it is refused"),
}


@pytest.mark.parametrize("case", PHOTOGRAPHS)
@pytest.mark.timeout(20)
def test_a_file_that_is_no_photograph_is_named_and_the_others_are_done(
    world: World, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scaleseg.images.MAX_BYTES", 1_000_000)
    make, said = PHOTOGRAPHS[case]
    photo = world.root / "photo.jpg"
    make(photo)
    ended = world("predict", world.saved, photo, world.photographs / "images" / "p0.png", "--out", world.out)
    assert ended.code == 1
    assert said in ended.err
    assert len(ended.err.splitlines()) == 1
    assert sorted(path.name for path in world.out.rglob("*.png")) == ["p0.png"] * 3


def test_a_link_that_goes_round_is_named(world: World) -> None:
    loop(world.root / "photo.jpg")
    ended = world("predict", world.saved, world.root / "photo.jpg", "--out", world.out)
    assert ended.code == 1
    assert "photo.jpg" in ended.err


def test_a_folder_named_like_a_photograph_is_a_folder(world: World) -> None:
    named = world.root / "photo.jpg"
    named.mkdir()
    refused(
        world("predict", world.saved, named, "--out", world.out), "no images in", "photo.jpg; give files, folders or"
    )
    (named / "inner.png").mkdir()
    shutil.copy(world.photographs / "images" / "p0.png", named / "p0.png")
    ended = world("predict", world.saved, named, "--out", world.out)
    assert ended.code == 0, ended
    assert "1 of 1 images" in ended.out


SIZES = [(1, 1), (6000, 30), (30, 6000), (2, 257)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_photograph_of_an_odd_size_is_segmented_at_that_size(world: World, size: tuple[int, int]) -> None:
    Image.new("RGB", size, (9, 99, 199)).save(world.root / "odd.png")
    assert world("predict", world.saved, world.root / "odd.png", "--out", world.out).code == 0
    with Image.open(world.out / "masks" / "odd.png") as mask:
        assert mask.size == size


NAMES = ["with space.png", "two\nlines.png", "naïve-日本-🐈.png", "-dash.png", "--out.png", "[a]*?.png", "'\"$(id).png",
         "\x1b[31mred.png", os.fsdecode(b"\xff\xfe.png"), "x" * 240 + ".png"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_photograph_of_an_odd_name_is_segmented_under_that_name(world: World, name: str) -> None:
    (world.root / "in").mkdir()
    shutil.copy(world.photographs / "images" / "p0.png", world.root / "in" / name)
    ended = world("predict", world.saved, world.root / "in", "--out", world.out, "--save", "masks")
    assert ended.code == 0, ended
    assert [path.name for path in (world.out / "masks").iterdir()] == [name]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_broken_photograph_of_an_odd_name_is_told_in_one_line(world: World, name: str) -> None:
    (world.root / "in").mkdir()
    (world.root / "in" / name).write_text("broken")
    ended = world("predict", world.saved, world.root / "in", "--out", world.out)
    assert ended.code == 1
    assert len(ended.err.splitlines()) == 1
    assert "\x1b" not in ended.err


def test_a_name_that_looks_like_an_option_is_taken_after_two_dashes(world: World, monkeypatch) -> None:
    shutil.copy(world.photographs / "images" / "p0.png", world.root / "--device.png")
    monkeypatch.chdir(world.root)
    assert world("predict", world.saved, "--out", world.out, "--", "--device.png").code == 0


def zipped_with(path: Path, world: World, *extra: tuple[str, bytes]) -> Path:
    """The six pairs in a zip, and more."""
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")  # of a name that is there twice
        for file in sorted(world.photographs.rglob("*.png")):
            archive.write(file, file.relative_to(world.photographs).as_posix())
        for name, content in extra:
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    "name",
    ["../escaped.png", "../../images/p9.png", "/etc/escaped.png", "images/../../escaped.png", "images\\..\\p9.png",
     "C:\\escaped.png", "images/../masks/p9.png"],
)  # fmt: skip
def test_names_in_a_zip_that_point_elsewhere_are_neither_followed_nor_written(world: World, name: str) -> None:
    content = (world.photographs / "images" / "p0.png").read_bytes()
    path = zipped_with(world.root / "sly.zip", world, (name, content))
    before = sorted(world.root.rglob("*"))
    ended = world("data", "check", path)
    assert ended.code == 0, ended
    assert "train: 6 photographs" in ended.out
    assert sorted(world.root.rglob("*")) == before


def patched(path: Path, signature: bytes, offset: int, value: bytes) -> None:
    """Overwrite bytes of every record of a zip that begins with `signature`."""
    content = bytearray(path.read_bytes())
    place = content.find(signature)
    while place >= 0:
        content[place + offset : place + offset + len(value)] = value
        place = content.find(signature, place + 4)
    path.write_bytes(content)


LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
ZIPS: dict[str, Callable[[Path], object]] = {
    "cut short": cut,
    "no zip": lambda p: p.write_bytes(b"PK, it says"),
    "empty file": lambda p: p.write_bytes(b""),
    "no members": lambda p: zipfile.ZipFile(p, "w").close(),
    "encrypted": lambda p: [patched(p, LOCAL, 6, b"\1"), patched(p, CENTRAL, 8, b"\1")],
    "unknown compression": lambda p: [patched(p, LOCAL, 8, b"\x63"), patched(p, CENTRAL, 10, b"\x63")],
    "sizes too large": lambda p: patched(p, CENTRAL, 24, b"\xf0\xff\xff\xff"),
    "sizes too small": lambda p: patched(p, CENTRAL, 24, b"\1\0\0\0"),
    "packed size too large": lambda p: patched(p, CENTRAL, 20, b"\xf0\xff\xff\xff"),
    "packed size zero": lambda p: patched(p, CENTRAL, 20, b"\0\0\0\0"),
    "wrong checksums": lambda p: patched(p, CENTRAL, 16, b"\1\2\3\4"),
    "members beyond the end": lambda p: patched(p, CENTRAL, 42, b"\xf0\xff\xff\x7f"),
    "members in one another": lambda p: patched(p, CENTRAL, 42, b"\0\0\0\0"),
    "other names inside": lambda p: patched(p, LOCAL, 30, b"IMAGES"),
    "directory elsewhere": lambda p: patched(p, END, 16, b"\xf0\xff\xff\x7f"),
    "directory too large": lambda p: patched(p, END, 12, b"\xf0\xff\xff\x7f"),
    "too new": lambda p: patched(p, CENTRAL, 6, b"\xff"),
    "date of no calendar": lambda p: patched(p, CENTRAL, 12, b"\xff\xff\xff\xff"),
}
HARMLESS = ("sizes too large", "packed size too large", "date of no calendar")
"""What is packed says itself where it ends, and has its checksum."""


@pytest.mark.parametrize(
    ("verb", "case"),
    [*(("data check", case) for case in ZIPS), ("train", "encrypted"), ("evaluate", "wrong checksums")],
)
def test_a_zip_that_lies_is_told_in_one_line(world: World, case: str, verb: str) -> None:
    path = zipped_with(world.root / "photographs.zip", world)
    ZIPS[case](path)
    lines = {
        "data check": f"{world.recipe} data.train={path} data.val=null",
        "train": f"{world.recipe} data.train={path} train.steps=1 --out {world.out}",
        "evaluate": f"{world.saved} data.val={path} --json {world.out}",
    }
    ended = world(*verb.split(), *lines[verb].split())
    print(ended)
    overlap = case == "packed size too large" and ended.code  # some Pythons see that entries overlap, and refuse them
    if case in HARMLESS and not overlap:
        assert ended.code == 0, ended
    elif "problem" in ended.out:  # of one member, not of the whole
        assert (ended.code, ended.err) == (1, "")
        assert "photographs.zip:" in ended.out
    else:
        refused(ended, "photographs.zip")
        assert not world.out.is_file()


def test_a_member_that_unpacks_to_gigabytes_is_refused(world: World) -> None:
    path = world.root / "bomb.zip"
    shutil.copytree(world.photographs, world.root / "again")
    zipped_with(path, world)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("images/q.png", "w") as member:
        for _ in range(32):  # 512 MiB of zeros
            member.write(bytes(2**24))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("masks/q.png", b"")
    assert path.stat().st_size < 2**20
    ended = world("data", "check", path)
    assert ended.code == 1
    assert "q.png" in ended.out + ended.err


def serve() -> None:
    """In a process of its own: run each order of stdin in a fork, so that torch is imported once for all of them."""
    import torch._dynamo

    for module in ("batch", "cli.app", "data_check", "demo", "training"):
        import_module(f"scaleseg.{module}")
    with contextlib.suppress(ImportError):
        import torch.utils.tensorboard

    torch.set_num_threads(1)
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            answer = os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1])
        else:
            answer = os.fork()
            if not answer:
                _child(order)
        print(answer, flush=True)


def _child(order: dict[str, Any]) -> None:
    """What `scaleseg` would do in a process of its own, with what the order says put in its way."""
    for stream, path in ((0, os.devnull), (1, order["stdout"]), (2, order["stderr"])):
        os.dup2(os.open(path, os.O_RDWR | (0 if path.startswith("/dev/") else os.O_CREAT | os.O_TRUNC)), stream)
    if order.get("unread"):
        read, write = os.pipe()
        os.close(read)
        os.dup2(write, 1)
    for name, value in order.get("environment", {}).items():
        os.environ.pop(name, None) if value is None else os.environ.update({name: value})
    os.chdir(order.get("folder", "/"))
    if order.get("folder_vanishes"):
        Path(order["folder"]).rmdir()
    if order.get("largest_file"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["largest_file"], order["largest_file"]))
    if order.get("nameless"):
        pwd.getpwuid = pwd.getpwnam = {}.__getitem__  # type: ignore[assignment]
    sys.stdout.reconfigure(encoding=order.get("encoding", "utf-8"))  # type: ignore[union-attr]
    sys.argv = ["scaleseg", *order["arguments"]]
    counted = [0]
    _interrupt_at(order.get("interrupt_at", -1), counted)
    if "full_at" in order:
        _fill_disk_at(order["full_at"], counted, getattr(errno, order.get("fault", "ENOSPC")))
    code: Any = 0
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 70
    sys.setprofile(None)
    try:
        sys.stdout.flush()
    except OSError:
        code = 120  # as Python itself would
    if "count" in order:
        Path(order["count"]).write_text(str(counted[0]))
    os._exit(code)


def _interrupt_at(moment: int, counted: list[int]) -> None:
    """A real SIGINT to this process at its n-th call of a Python function; 0 counts them only."""

    def profile(frame: object, event: str, argument: object) -> None:
        if event == "call":
            counted[0] += 1
            if counted[0] == moment:
                os.kill(os.getpid(), signal.SIGINT)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    if moment >= 0:
        sys.setprofile(profile)


def _fill_disk_at(moment: int, counted: list[int], fault: int) -> None:
    """From the n-th time on that something is opened to write, made, renamed or synced, the disk is full."""
    synced = os.fsync

    def count(path: object) -> None:
        counted[0] += 1
        if 0 < moment <= counted[0]:
            raise OSError(fault, os.strerror(fault), str(path))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes and not str(arguments[0]).startswith("/dev/")) or event in ("os.mkdir", "os.symlink"):
            count(arguments[0])

    def fsync(descriptor: int) -> None:
        count(descriptor)
        synced(descriptor)

    sys.addaudithook(hook)
    os.fsync = fsync


class Server:
    """Runs command lines in forks of one process."""

    def __init__(self, process: "subprocess.Popen[str]", root: Path) -> None:
        self.process, self.root, self.number = process, root, 0

    def start(self, *arguments: object, **order: Any) -> int:
        """The id of a process that has begun."""
        self.number += 1
        streams = {name: str(self.root / f"{self.number}.{name}") for name in ("stdout", "stderr")}
        self.order = {**streams, "arguments": [str(argument) for argument in arguments], **order}
        return self._ask(self.order)

    def end(self, process: int, order: dict[str, Any] | None = None) -> Ended:
        """How it ended, and what it said."""
        code, order = self._ask({"wait": process}), order or self.order
        read = [Path(order[name]).read_text() if order[name][:5] != "/dev/" else "" for name in ("stdout", "stderr")]
        return Ended((code, *read))

    def __call__(self, *arguments: object, **order: Any) -> Ended:
        return self.end(self.start(*arguments, **order))

    def count(self, *arguments: object, **order: Any) -> int:
        """How often what the order counts happens."""
        path = self.root / "count"
        ended = self(*arguments, **order, count=str(path))
        assert ended.code == 0, ended
        return int(path.read_text())

    def _ask(self, order: dict[str, Any]) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(order), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", "import test_bad_input; test_bad_input.serve()"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen(command, **pipes) as process:  # type: ignore[call-overload]
        yield Server(process, tmp_path_factory.mktemp("server"))
        process.stdin.close()


VERBS = {
    "train": "train {recipe} --out {root}/out",
    "predict": "predict {saved} {photographs}/images/p0.png {photographs}/images/p1.png --out {root}/out",
    "evaluate": "evaluate {saved} data.val={photographs} --json {root}/out/metrics.json",
    "demo": "demo {photographs}/images/p0.png {photographs}/images/p1.png --model {saved} --out {root}/out",
    "report": "report {saved} --images {photographs}/images --out {root}/out/index.html",
    "data init": "data init {photographs}",
    "data check": "data check {recipe}",
    "list": "list",
}
THOROUGH = os.environ.get("SCALESEG_TORTURE") == "long"
"""Minutes instead of a minute: every write and many more moments."""
MOMENTS = 100 if THOROUGH else 4
STOPPED = (
    r"scaleseg: interrupted\n|stopping after this step; once more stops at once, unsaved\n"
    r"(scaleseg: stopped at step \d and saved; the same command with --resume goes on\n)?"
)
"""What Ctrl-C leaves on stderr; in a run's last step there is nothing left to stop."""
STRIDE = 1 if THOROUGH else 7


def whole(world: World) -> None:
    """Everything that is there is complete, and nothing is there that was only begun."""
    for path in (path for path in [*world.out.rglob("*"), *world.photographs.rglob("*")] if path.is_file()):
        assert not path.name.startswith(".writing-"), path
        if path.suffix == ".png":
            with Image.open(path) as image:
                image.load()
        elif path.suffix == ".npz":
            np.load(path)["scale_weights"]
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.name in ("index.html", "data.yaml"):
            assert path.read_text().endswith(("</html>\n", "</html>", "bar\n", "2\n", "class-2\n")), path.read_text()[
                -80:
            ]
        elif path.name == "model.safetensors":
            checkpoint.load(path.parent)
            checkpoint.load_training_state(path.parent)


@pytest.mark.parametrize("verb", VERBS)
def test_ctrl_c_at_any_moment_ends_in_one_line_and_nothing_half_written(
    world: World, server: Server, verb: str
) -> None:
    world.out.mkdir()
    words = world.words(VERBS[verb])
    calls = server.count(*words, interrupt_at=0)
    late = calls - 20  # calls differ by a few from run to run, so that this one may not come
    for moment in [3, *(calls * part // MOMENTS for part in range(1, MOMENTS)), late]:
        shutil.rmtree(world.out)
        world.out.mkdir()
        (world.photographs / "data.yaml").unlink(missing_ok=True)
        ended = server(*words, interrupt_at=moment)
        print(moment, calls, ended)
        assert (
            ended.code == 130 or (ended.code == 0 and moment == late) or "done: " in ended.out
        )  # in a run's last step there is nothing left to stop
        assert "Traceback" not in ended.err + ended.out
        assert re.fullmatch(STOPPED, ended.err)
        if verb != "train":
            whole(world)


def bits(run: Path) -> tuple[bytes, str]:
    """The parameters of a finished run, and where its best are."""
    return (run / "last" / "model.safetensors").read_bytes(), (run / "best").resolve().name


@pytest.mark.parametrize("part", [0.55, 0.8])
def test_a_run_that_was_interrupted_goes_on_to_the_same_bits(world: World, server: Server, part: float) -> None:
    words = world.words(VERBS["train"])
    calls = server.count(*words, interrupt_at=0)
    expected = bits(world.out)
    shutil.rmtree(world.out)
    assert server(*words, interrupt_at=int(part * calls)).code == 130
    assert server(*words, "--resume").code == 0
    assert bits(world.out) == expected
    assert not list(world.out.rglob(".writing-*"))


def test_a_disk_that_fills_up_at_any_write_of_a_run_loses_nothing(world: World, server: Server) -> None:
    words = world.words(VERBS["train"])
    writes = server.count(*words, full_at=0)
    expected = bits(world.out)
    shutil.rmtree(world.out)
    for write in range(1, writes + 1, STRIDE):
        ended = server(*words, "--resume", full_at=write)
        if ended.code:  # some faults harm nothing: what is deleted later is deleted later
            refused(ended, "No space left on device")
        assert server(*words, "--resume").code == 0
        assert bits(world.out) == expected
        shutil.rmtree(world.out)


@pytest.mark.parametrize("verb", ["predict", "demo", "evaluate", "data init"])
def test_a_disk_that_fills_up_at_any_write_leaves_whole_files_and_says_so(
    world: World, server: Server, verb: str
) -> None:
    words = world.words(VERBS[verb])
    world.out.mkdir()
    writes = server.count(*words, full_at=0)
    for write in range(1, writes + 1, STRIDE if writes > 12 else 1):
        shutil.rmtree(world.out)
        world.out.mkdir()
        (world.photographs / "data.yaml").unlink(missing_ok=True)
        ended = server(*words, full_at=write)
        print(write, ended.err)
        assert ended.code == 1
        assert "No space left on device" in ended.err
        assert "Traceback" not in ended.err
        assert all(line.startswith("scaleseg: ") for line in ended.err.splitlines())
        whole(world)


@pytest.mark.parametrize("size", [100, 5000])
@pytest.mark.parametrize("verb", ["train", "predict", "demo", "evaluate", "data init"])
def test_a_write_that_is_cut_short_leaves_the_old_file_or_none(
    world: World, server: Server, verb: str, size: int
) -> None:
    world.out.mkdir()
    ended = server(*world.words(VERBS[verb]), largest_file=size, stdout=os.devnull, stderr=os.devnull)
    whole(world)
    if ended.code == 0:
        assert max(path.stat().st_size for path in world.root.rglob("*") if path.is_file()) <= 100_000
    else:
        assert ended.code == 1


def test_two_runs_in_one_folder_are_one_run_and_one_line(world: World, server: Server) -> None:
    words = world.words(VERBS["train"])
    first = server.start(*words, "train.steps=100000", "train.log_every=100000", "train.validate_every=100000")
    order = server.order
    while not (world.out / "config.yaml").exists():
        time.sleep(0.01)
    refused(server(*words), f"another run is writing to {world.out}; wait for it, or choose another --out")
    os.kill(first, signal.SIGINT)
    assert server.end(first, order).code == 130
    whole(world)


def test_two_runs_that_begin_at_once_are_one_run_and_one_line(world: World, server: Server) -> None:
    begun = [(server.start(*world.words(VERBS["train"])), server.order) for _ in range(4)]
    ended = [server.end(process, order) for process, order in begun]
    assert sorted(one.code for one in ended) == [0, 1, 1, 1]
    for one in ended:
        if one.code:
            assert "another run is writing to" in one.err or "holds a run already" in one.err
    whole(world)


@pytest.mark.parametrize("verb", VERBS)
def test_a_stdout_that_is_full_is_said_in_one_line(world: World, server: Server, verb: str) -> None:
    world.out.mkdir()
    ended = server(*world.words(VERBS[verb]), stdout="/dev/full")
    assert ended.code == 1
    assert ended.err.startswith("scaleseg: ")
    assert ended.err.count("\n") == 1
    assert "No space left on device" in ended.err
    whole(world)


@pytest.mark.parametrize("verb", VERBS)
def test_a_reader_that_goes_away_is_no_fault_to_speak_of(world: World, server: Server, verb: str) -> None:
    world.out.mkdir()
    ended = server(*world.words(VERBS[verb]), unread=True)
    assert (ended.code, ended.err) == (141, "")
    whole(world)


@pytest.mark.parametrize("verb", VERBS)
def test_streams_that_were_closed_from_the_start_stop_nothing(world: World, verb: str, monkeypatch) -> None:
    world.out.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        patch.setattr(sys, "stderr", None)
        assert world(*world.words(VERBS[verb])).code == 0
    assert world.out.exists()


@pytest.mark.parametrize("verb", VERBS)
def test_an_ascii_terminal_without_colour_home_or_user_name_is_enough(world: World, server: Server, verb: str) -> None:
    world.out.mkdir()
    photographs = world.root / "naïve 日本"
    world.photographs.rename(photographs)
    world.photographs = photographs
    write_recipe(world.recipe, photographs) if verb in ("train", "data check") else None
    words = [word.replace(str(world.root / "photographs"), str(photographs)) for word in world.words(VERBS[verb])]
    bare = {"TERM": "dumb", "NO_COLOR": "1", "LANG": "C", "HOME": None, "USER": None, "LOGNAME": None}
    ended = server(*words, encoding="ascii", environment=bare, nameless=True)
    assert ended.code == 0, ended
    assert (ended.out + ended.err).isascii()
    assert "\x1b" not in ended.out + ended.err


WRITERS = [verb for verb in VERBS if "{root}/out" in VERBS[verb] or verb == "data init"]


@pytest.mark.parametrize("fault", ["EACCES", "EROFS"])
@pytest.mark.parametrize("verb", WRITERS)
def test_a_place_where_nothing_may_be_written_is_named(world: World, server: Server, verb: str, fault: str) -> None:
    if verb in ("evaluate", "report"):  # they write one file into a folder that is there
        world.out.mkdir()
    ended = server(*world.words(VERBS[verb]), full_at=1, fault=fault)
    assert ended.code == 1
    assert all(line.startswith("scaleseg: ") for line in ended.err.splitlines())
    assert os.strerror(getattr(errno, fault)) in ended.err
    assert str(world.photographs if verb == "data init" else world.out) in ended.err
    assert not [path for path in world.out.rglob("*") if path.is_file()]


@pytest.mark.parametrize("verb", VERBS)
def test_a_place_below_a_file_is_no_place_to_write_to(world: World, verb: str) -> None:
    world.out.write_text("mine")
    line = VERBS[verb].replace("{root}/out", "{root}/out/below")
    if verb == "data init":
        line = "data init {root}/out"
    ended = world(*world.words(line))
    if "out" in line:
        refused(ended, str(world.out))
    assert world.out.read_text() == "mine"


@pytest.mark.parametrize("verb", VERBS)
def test_a_working_folder_that_is_gone_stops_no_verb(world: World, server: Server, verb: str) -> None:
    world.out.mkdir()
    gone = world.root / "gone"
    gone.mkdir()
    ended = server(*world.words(VERBS[verb]), folder=str(gone), folder_vanishes=True)
    assert ended.code == 0, ended


INTERRUPTED_IMPORT = """
import os, runpy, signal, sys
class Press:
    def find_spec(self, name, path=None, target=None):
        if name == wanted:
            os.kill(os.getpid(), signal.SIGINT)
wanted = sys.argv.pop(1)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Press())
runpy.run_module("scaleseg", run_name="__main__")
"""


@pytest.mark.parametrize("module", ["typer", "scaleseg.cli.run", "numpy", "torch.nn"])
def test_ctrl_c_while_a_module_loads_ends_in_one_line(module: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IMPORT, module, "list"], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "scaleseg: interrupted\n")


class Clock:
    """One that stands still, runs backwards, or leaps."""

    def __init__(self, pace: float) -> None:
        self.now, self.pace = 1e9, pace

    def __call__(self) -> float:
        self.now += self.pace
        return self.now


@pytest.mark.parametrize("pace", [0.0, -1.0, -1e7, 1e7])
def test_a_clock_that_stands_still_or_runs_backwards_changes_no_bit(
    world: World, monkeypatch: pytest.MonkeyPatch, pace: float
) -> None:
    assert world("train", world.recipe, "--out", world.root / "whole").code == 0
    for name in ("monotonic", "time", "perf_counter"):
        monkeypatch.setattr(time, name, Clock(pace))
    ended = world("train", world.recipe, "train.save_minutes=0.001", "train.save_every=1000", "--out", world.out)
    monkeypatch.undo()
    assert ended.code == 0, ended
    assert bits(world.out) == bits(world.root / "whole")
    assert "nan" not in ended.out


def void(photographs: Path) -> None:
    for mask in (photographs / "masks").iterdir():
        with Image.open(mask) as image:
            size = image.size
        Image.new("L", size, 255).save(mask)


def test_photographs_that_are_void_all_over_give_a_loss_of_0_and_spoil_nothing(world: World) -> None:
    void(world.photographs)
    ended = world("train", world.recipe, "train.weight_decay=0", "--out", world.out)
    assert ended.code == 0, ended
    lines = [json.loads(line) for line in (world.out / "metrics.jsonl").read_text().splitlines()]
    assert {line["loss"] for line in lines if "loss" in line} == {0.0}
    assert all(tensor.isfinite().all() for tensor in load_file(world.out / "last" / "model.safetensors").values())


def test_an_evaluation_without_a_labelled_pixel_says_so(world: World) -> None:
    void(world.photographs)
    ended = world("evaluate", world.saved, f"data.val={world.photographs}", "--json", world.out)
    refused(ended, "the 6 photographs have no labelled pixel (all void, 255)", "scaleseg data check")
    assert not world.out.exists()


@pytest.mark.parametrize("verb", ["data init", "data check", "train", "evaluate", "predict"])
def test_photographs_that_are_none_are_a_users_mistake(world: World, verb: str) -> None:
    for image in (world.photographs / "images").iterdir():
        image.unlink()
    if verb == "evaluate":  # it writes one file into a folder that is there
        world.out.mkdir()
    ended = world(*world.words(VERBS[verb]))
    assert ended.code == 1
    assert "Traceback" not in ended.err
    assert str(world.photographs) in ended.err + ended.out
    assert not list(world.out.rglob("config.yaml"))


def test_class_names_that_look_like_markup_are_shown_as_they_are(world: World) -> None:
    ended = world("data", "check", world.recipe, "data.classes=['[/]','[red]x',bar]")
    assert ended.code == 0, ended
    assert "[/]" in ended.out
    assert "[red]x" in ended.out
