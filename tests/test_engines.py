"""Every engine says what PyTorch says in float32; bf16 and 8 bits within a stated distance; `auto` chooses by its table."""

import builtins
import errno
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from conftest import small_model
from scaleseg import checkpoint
from scaleseg.benchmark import photographs
from scaleseg.devices import has_bf16
from scaleseg.engines import Engine, OnnxEngine, TorchEngine, create_engine, openvino_engine
from scaleseg.engines.converted import cache_folder, convert, fingerprint, unreported
from scaleseg.engines.table import Row, read_table, write_table
from scaleseg.errors import UserError
from scaleseg.model import Prediction, ScaleAware

SIZES = ((33, 65), (47, 31), (70, 101))
PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino")}


def needs(name: str) -> None:
    for package in PACKAGES.get(name, ()):
        pytest.importorskip(package)


def image(size: tuple[int, int], seed: int = 0) -> Tensor:
    """Smooth noise: like a photograph, it has large parts and small ones."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 6, 7, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic")[0].clamp(0, 1)
    return (255 * (0.9 * smooth + 0.1 * torch.rand(3, *size, generator=generator))).to(torch.uint8)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Converted models, for all tests of this file."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def animals() -> ScaleAware:
    """The bundled model's own parameters, at one scale: a third of the time to convert it."""
    folder = checkpoint.locate("voc-animals-lite")
    settings = checkpoint.read_config(folder).model
    return checkpoint.load(folder, replace(settings, fusion="average", scales=(1.0,)))


def agreement(one: Prediction, other: Prediction) -> float:
    """The share of pixels that both give the same label."""
    return float((one.at().argmax(dim=1) == other.at().argmax(dim=1)).double().mean())


def assert_same(said: Prediction, expected: Prediction) -> None:
    assert said.grid == expected.grid
    for one, other in zip((*said[:2], *said.per_scale), (*expected[:2], *expected.per_scale), strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)
    assert (said.edges is None) == (expected.edges is None)
    if said.edges is not None:
        torch.testing.assert_close(said.edges, expected.edges, atol=1e-3, rtol=1e-3)
    assert agreement(said, expected) >= 0.999


@pytest.mark.parametrize("name", ["onnx", "openvino"])
@pytest.mark.parametrize("fusion", ["average", "max", "attention"])
def test_an_engine_predicts_what_pytorch_predicts_at_any_size(name: str, fusion: str, cache: Path) -> None:
    needs(name)
    model = small_model(fusion)
    engine = create_engine(name, model, precision="float32", cache=cache)
    for size in SIZES:
        assert_same(engine(image(size)), TorchEngine(model, "float32")(image(size)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_an_engine_predicts_what_lite0_predicts(name: str, animals: ScaleAware, cache: Path) -> None:
    needs(name)
    engine = create_engine(name, animals, precision="float32", cache=cache)
    shown = image((117, 203))
    assert_same(engine(shown), TorchEngine(animals, "float32")(shown))


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_an_image_of_one_row_is_no_exception(name: str, cache: Path) -> None:
    needs(name)
    model = small_model()
    shown = image((1, 40))
    engine = create_engine(name, model, precision="float32", cache=cache)
    assert_same(engine(shown), TorchEngine(model, "float32")(shown))


@pytest.mark.slow
def test_eight_bits_give_93_percent_of_a_photograph_the_same_label(animals: ScaleAware, cache: Path) -> None:
    """The hard case: a model that has learned, calibrated on three photographs of other things than the cat looked at."""
    needs("openvino")
    pytest.importorskip("nncf")
    pytest.importorskip("skimage")
    *calibration, shown = photographs(257)[::-1]
    engine = create_engine("openvino", animals, precision="int8", calibration=calibration, cache=cache)
    assert engine.precision == "int8"
    assert agreement(engine(shown), TorchEngine(animals, "float32")(shown)) > 0.93


@pytest.mark.slow
def test_eight_bits_are_not_float32_by_another_name(animals: ScaleAware, cache: Path) -> None:
    needs("openvino")
    pytest.importorskip("nncf")
    *calibration, shown = photographs(257)[::-1]
    engine = create_engine("openvino", animals, precision="int8", calibration=calibration, cache=cache)
    exact = TorchEngine(animals, "float32")(shown)
    assert (engine(shown).scores - exact.scores).abs().max() > 1e-2


@pytest.mark.slow
@pytest.mark.skipif(not has_bf16(torch.device("cpu")), reason="this CPU does not multiply bf16")
def test_bf16_of_openvino_gives_almost_all_pixels_the_same_label(animals: ScaleAware, cache: Path) -> None:
    needs("openvino")
    engine = create_engine("openvino", animals, precision="bf16", cache=cache)
    shown = photographs(257)[0]
    assert agreement(engine(shown), TorchEngine(animals, "float32")(shown)) > 0.98


def test_a_converted_model_is_read_from_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("onnx")
    model = small_model()
    OnnxEngine(model, cache)
    monkeypatch.setattr("scaleseg.engines.converted._converted", lambda model: pytest.fail("converted again"))
    assert_same(OnnxEngine(model, cache)(image((40, 50))), TorchEngine(model, "float32")(image((40, 50))))


def test_a_damaged_file_in_the_cache_is_made_anew(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("onnx")
    model = small_model()
    sound = convert(model, cache)
    damaged = tmp_path / f"{fingerprint(model)}.onnx"
    damaged.write_bytes(b"\xff" * 100)
    monkeypatch.setattr("scaleseg.engines.converted._converted", lambda model: sound)
    convert(model, tmp_path)
    assert damaged.read_bytes() == sound.SerializeToString()


def test_one_changed_parameter_changes_the_fingerprint() -> None:
    model = small_model()
    before = fingerprint(model)
    assert before == fingerprint(small_model())
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-3
    assert fingerprint(model) != before


def test_converting_leaves_a_model_in_training_mode_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    needs("onnx")
    modes: list[bool] = []
    monkeypatch.setattr("scaleseg.engines.graph.trace", lambda graph: modes.append(graph.model.training))
    monkeypatch.setattr("scaleseg.engines.graph.to_onnx_model", lambda *arguments: None)
    model = small_model().train()
    convert(model, None)
    assert modes == [False]
    assert model.training


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("onnx", "onnxruntime", "export"),
        ("onnx", "onnxscript", "export"),
        ("openvino", "openvino", "openvino"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    name: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if package == "onnxscript":
        needs("onnx")
    monkeypatch.setattr(builtins, "__import__", _without(package))
    with pytest.raises(UserError, match=rf"pip install 'scaleseg\[{extra}\]'") as raised:
        create_engine(name, small_model(), precision="float32")
    assert package in str(raised.value)


@pytest.mark.parametrize(
    ("name", "precision", "said"),
    [
        ("tensorrt", "auto", "--engine is 'tensorrt'; choose auto, onnx, openvino or torch"),
        ("torch", "half", "--precision is 'half'; choose auto, bf16, float32 or int8"),
        ("torch", "int8", "--engine torch has auto, float32 or bf16; --engine openvino has all"),
        ("onnx", "bf16", "--engine onnx has auto or float32; --engine openvino has all"),
    ],
)
def test_what_cannot_be_had_is_said_with_what_can(name: str, precision: str, said: str) -> None:
    with pytest.raises(UserError) as raised:
        create_engine(name, small_model(), precision=precision)
    assert said in str(raised.value)


@pytest.mark.parametrize("calibration", [None, []])
def test_eight_bits_without_photographs_ask_for_calibration(calibration: list[Tensor] | None) -> None:
    needs("openvino")
    with pytest.raises(UserError, match="--calibration"):
        create_engine("openvino", small_model(), precision="int8", calibration=calibration)


def heard(model: ScaleAware, cache: Path, precision: str = "auto") -> tuple[Engine, str]:
    """What `auto` makes, and what it says."""
    said: list[str] = []
    engine = create_engine("auto", model, precision=precision, cache=cache, say=said.append)
    return engine, " ".join(said)


def test_auto_without_a_table_takes_torch_and_says_why(tmp_path: Path) -> None:
    engine, said = heard(small_model(), tmp_path)
    assert isinstance(engine, TorchEngine)
    assert said == ("--engine auto takes torch: nothing was measured of this model here (scaleseg benchmark does)")


def test_auto_takes_the_fastest_of_the_table_and_says_so(cache: Path) -> None:
    needs("onnx")
    model = small_model()
    rows = [Row("torch", "float32", 2.0), Row("onnx", "float32", 3.0), Row("openvino", "int8", 9.0)]
    write_table(model, rows, cache)
    engine, said = heard(model, cache)
    assert isinstance(engine, OnnxEngine)
    assert said == (
        "--engine auto takes onnx, float32: it was measured as the fastest here (3.00 images/s, torch 2.00)"
    )


def test_auto_keeps_to_the_precision_that_is_asked_for(tmp_path: Path) -> None:
    model = small_model()
    write_table(model, [Row("torch", "float32", 2.0), Row("torch", "bf16", 3.0)], tmp_path)
    engine, _ = heard(model, tmp_path, "float32")
    assert engine.precision == "float32"


def test_the_table_of_another_model_does_not_count(tmp_path: Path) -> None:
    write_table(small_model(seed=1), [Row("torch", "bf16", 3.0)], tmp_path)
    assert read_table(small_model(), tmp_path) == []


def test_the_table_of_another_number_of_threads_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(small_model(), [Row("torch", "bf16", 3.0)], tmp_path)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert read_table(small_model(), tmp_path) == []


@pytest.mark.parametrize("content", ["", "{", "[1]", '[{"engine": "torch"}]', '{"a": 1}'])
def test_a_table_that_cannot_be_read_is_none(content: str, tmp_path: Path) -> None:
    write_table(small_model(), [], tmp_path).write_text(content)
    assert read_table(small_model(), tmp_path) == []


def test_auto_speaks_to_stderr_if_nobody_listens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    create_engine("auto", small_model(), cache=tmp_path)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("--engine auto takes torch")


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "scaleseg"


@pytest.mark.parametrize("name", ["torch", *PACKAGES])
def test_every_engine_keeps_the_contract(name: str, cache: Path) -> None:
    needs(name)
    engine = create_engine(name, small_model(), precision="float32", cache=cache)
    assert isinstance(engine, Engine)
    assert (engine.name, engine.precision) == (name, "float32")


def _without(package: str) -> Callable[..., object]:
    """`import` as if a package were not installed."""
    real = builtins.__import__

    def imported(name: str, *arguments: object, **named: object) -> object:
        if name.partition(".")[0] == package:
            raise ImportError(f"No module named {package!r}")
        return real(name, *arguments, **named)

    return imported


def test_nothing_is_reported_and_no_id_made(tmp_path: Path) -> None:
    """Onnxruntime, openvino and nncf would make an id of the machine and speak to their makers; seen from another home."""
    needs("openvino")
    needs("onnx")
    pytest.importorskip("nncf")
    code = """
import torch
from scaleseg.engines.graph import to_openvino_model
from scaleseg.engines.onnx_engine import OnnxEngine
from scaleseg.engines.openvino_engine import _nncf
try:
    OnnxEngine(None)
except AttributeError:
    pass
_nncf()
program = torch.export.export(torch.nn.ReLU(), (torch.zeros(2, 3, 4, 5),))
try:
    to_openvino_model(program, ["a"])
except RuntimeError:  # its input has another name
    pass
"""
    here = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "USERPROFILE": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **here}, check=True)
    found = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert not {"deviceid", "onnxruntime.db", "stats", "openvino_ga_cid"} & set(found)


def test_silencing_reports_leaves_the_environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "maybe")
    monkeypatch.delenv("NNCF_CI", raising=False)
    before, modules = dict(os.environ), sys.modules.get("openvino_telemetry")
    with unreported():
        assert os.environ["CI"] == "true"
    assert dict(os.environ) == before
    assert sys.modules.get("openvino_telemetry") is modules


def test_photographs_too_small_to_calibrate_are_told_before_converting(monkeypatch: pytest.MonkeyPatch) -> None:
    needs("openvino")
    pytest.importorskip("nncf")
    monkeypatch.setattr("scaleseg.engines.openvino_engine.convert", lambda *_: pytest.fail("converted"))
    with pytest.raises(UserError, match="no photograph for --calibration has sides of"):
        create_engine(
            "openvino", small_model(), precision="int8", calibration=[torch.zeros(3, 1, 1, dtype=torch.uint8)]
        )


def test_a_damaged_model_of_eight_bits_in_the_cache_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("openvino")
    pytest.importorskip("nncf")
    model, photographs = small_model(), [image((40, 50))]
    digest = hashlib.sha256(f"{tuple(photographs[0].shape)}".encode() + photographs[0].numpy().tobytes()).hexdigest()
    folder = tmp_path / f"{fingerprint(model)}-int8-{digest[:16]}"
    folder.mkdir()
    (folder / "model.xml").write_bytes(b"<net")
    made: list[int] = []
    monkeypatch.setattr("scaleseg.engines.openvino_engine.convert", lambda *_: None)
    monkeypatch.setattr("scaleseg.engines.openvino_engine._quantize", lambda *_: made.append(1) or flat())
    openvino_engine._quantized(model, photographs, tmp_path)
    assert made == [1]
    openvino_engine._quantized(model, photographs, tmp_path)
    assert made == [1]


def flat() -> object:
    """Some small model of OpenVINO's."""
    import openvino

    given = openvino.opset13.parameter([1, 3])
    return openvino.Model([openvino.opset13.relu(given)], [given])


def test_a_full_disk_under_the_cache_is_a_sentence_about_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("onnx")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("scaleseg.engines.converted._converted", lambda model: pytest.importorskip("onnx").ModelProto())
    monkeypatch.setattr("scaleseg.atomic.os.fsync", full)
    with pytest.raises(
        UserError, match=r"cannot be kept in .*cache.* \(No space left on device\); make room there, or"
    ):
        convert(small_model(), tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
