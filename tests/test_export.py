"""Exported programs say what the model says, at every size, in the runtimes that they are for."""

import errno
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import scaleseg
from conftest import Ended, small_config, small_model
from scaleseg import atomic, checkpoint, export
from scaleseg.engines.graph import (
    GridGraph,
    ImageGraph,
    smallest,
    to_onnx_model,
    to_openvino_model,
    trace,
)
from scaleseg.errors import UserError
from scaleseg.export import FORMATS, choose_format, export_model, verify_export
from scaleseg.export.verify import _batches
from scaleseg.fusion import create_fusion
from scaleseg.model import Prediction, ScaleAware, create_model, list_models
from scaleseg.segmentation import segment
from scaleseg.segmenters import Dense, Segmenter, lite0, resnet101
from scaleseg.segmenters.vgg import CONVOLUTIONS

EXAMPLES = Path(__file__).parent.parent / "examples"
SIZES = [(1, 33, 65), (2, 75, 107), (1, 64, 64), (3, 40, 130)]
"""Batch, rows, columns: what fits a grid as it is, what is padded, on either axis."""


def needs(name: str) -> None:
    """Skip where what writes and runs the format is not installed."""
    for package in FORMATS[name].packages:
        pytest.importorskip(package)


def random_parameters(model: ScaleAware) -> ScaleAware:
    """All parameters drawn, so that none is zero by its initial value; the edges' are large enough to be seen."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def images_of(batch: int, rows: int, columns: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rows)
    return torch.randint(0, 256, (batch, 3, rows, columns), generator=generator, dtype=torch.uint8)


def assert_close(found: Sequence[object], expected: Sequence[torch.Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.as_tensor(one), other, atol=1e-4, rtol=1e-4)


# graphs


@pytest.fixture(scope="module")
def tapped() -> ScaleAware:
    """Two scales, one of them no simple fraction; attention; an edge map."""
    model = create_model(
        "small", num_classes=3, scales=(1.0, 0.3), pretrained="none", attention_width=8, edge_net=True,
        options={"width": 4, "num_features": 8},
    )  # fmt: skip
    return random_parameters(model)


@pytest.fixture(scope="module")
def program(tapped: ScaleAware) -> torch.export.ExportedProgram:
    return trace(GridGraph(tapped))


@torch.no_grad()
def test_a_grid_graph_gives_a_prediction_s_own_maps(tapped: ScaleAware) -> None:
    images, graph = images_of(2, 75, 107), GridGraph(tapped)
    maps = dict(zip(graph.outputs, graph(images), strict=True))
    expected: Prediction = tapped(images / 255)
    rebuilt = Prediction(
        maps["scores"], maps["scale_weights"], (maps["per_scale_0"], maps["per_scale_1"]), tapped.grid((75, 107)),
        maps["edges"],
    )  # fmt: skip
    assert torch.equal(rebuilt.at(), expected.at())
    assert torch.equal(rebuilt.edges, expected.edges)
    assert_close((rebuilt.scale_weights, *rebuilt.per_scale), (expected.scale_weights, *expected.per_scale))


@torch.no_grad()
@pytest.mark.parametrize("fusion", ["average", "max", "attention"])
def test_an_image_graph_gives_what_segment_gives(fusion: str) -> None:
    model, images = small_model(fusion), images_of(1, 75, 107)
    scores, weights, labels = ImageGraph(model, labels=True)(images)
    expected = segment(model, images[0], precision="float32")
    assert torch.equal(labels[0], expected.labels)
    torch.testing.assert_close(weights[0], expected.scale_weights)
    assert scores.shape == (1, 3, 75, 107)


@torch.no_grad()
@pytest.mark.parametrize("size", [*SIZES, (1, 2, 2), (1, 513, 3)])
def test_a_program_serves_every_batch_and_size(tapped: ScaleAware, program, size: tuple[int, int, int]) -> None:
    images = images_of(*size)
    for found, expected in zip(program.module()(images), GridGraph(tapped)(images), strict=True):
        assert torch.equal(found, expected)


@torch.no_grad()
@pytest.mark.parametrize("size", [*SIZES, (1, 2, 2)])
def test_onnx_says_the_same_at_every_size(onnx_run, tapped: ScaleAware, size: tuple[int, int, int]) -> None:
    images = images_of(*size)
    assert_close(onnx_run(images.numpy()), GridGraph(tapped)(images))


@torch.no_grad()
@pytest.mark.parametrize("size", [*SIZES, (1, 2, 2)])
def test_openvino_says_the_same_at_every_size(openvino_run, tapped: ScaleAware, size: tuple[int, int, int]) -> None:
    images = images_of(*size)
    assert_close(openvino_run(images.numpy()), GridGraph(tapped)(images))


@pytest.fixture(scope="module")
def onnx_run(tapped: ScaleAware, program):
    needs("onnx")
    import onnxruntime

    content = to_onnx_model(program, GridGraph(tapped).outputs).SerializeToString()
    session = onnxruntime.InferenceSession(content)
    return lambda images: session.run(None, {"images": images})


@pytest.fixture(scope="module")
def openvino_run(tapped: ScaleAware, program):
    needs("openvino")
    import openvino

    model = to_openvino_model(program, GridGraph(tapped).outputs)
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: list(compiled(images).values())


def test_onnx_names_the_sides_that_are_open(tapped: ScaleAware, program) -> None:
    needs("onnx")
    graph = to_onnx_model(program, GridGraph(tapped).outputs).graph
    sides = [side.dim_param or side.dim_value for side in graph.input[0].type.tensor_type.shape.dim]
    assert sides == ["batch", 3, "height", "width"]
    assert {output.name for output in graph.output} >= {"scores", "scale_weights", "per_scale_1", "edges"}


# every segmenter, every fusion


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """FCN of four channels a layer; ResNet-101 and lite0 of two blocks a stage at most."""
    monkeypatch.setattr("scaleseg.segmenters.fcn.WIDTH", 4)
    monkeypatch.setattr("scaleseg.segmenters.fcn.CONVOLUTIONS", dict.fromkeys(CONVOLUTIONS, (2, 4)))
    monkeypatch.setattr(lite0, "STAGES", [stage._replace(blocks=min(2, stage.blocks)) for stage in lite0.STAGES])
    monkeypatch.setattr(
        resnet101, "BLOCKS", {name: (min(2, count), *rest) for name, (count, *rest) in resnet101.BLOCKS.items()}
    )


@pytest.mark.parametrize("name", list_models())
def test_every_segmenter_is_traced_with_attention_at_two_scales(name: str, narrow: None) -> None:
    with torch.device("meta"):  # shapes alone
        model = create_model(name, num_classes=3, scales=(1.0, 0.5), pretrained="none", attention_width=4)
    program = trace(ImageGraph(model))
    scores, weights = (value.meta["val"].shape for value in program.graph.output_node().args[0])
    assert (scores[1], weights[1]) == (3, 2)
    assert scores[2:] == weights[2:] == program.graph.find_nodes(op="placeholder")[-1].meta["val"].shape[2:]


@torch.no_grad()
@pytest.mark.parametrize("fusion", ["average", "max", "attention"])
@pytest.mark.parametrize("kind", ["pt2", "onnx", "openvino"])
def test_every_fusion_is_exported_to_every_format(kind: str, fusion: str, tmp_path: Path) -> None:
    needs(kind)
    model, out = small_model(fusion), tmp_path / f"model{FORMATS[kind].suffix}"
    export_model(model, out, FORMATS[kind])
    verified = verify_export(model, out, FORMATS[kind], images=drawn_photographs(tmp_path))
    assert verified.passed
    assert verified.agreement > 0.999


@torch.no_grad()
@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_lite0_is_exported_too(kind: str, narrow: None, tmp_path: Path) -> None:
    needs(kind)
    model = create_model("lite0", num_classes=3, fusion="max", scales=(1.0, 0.5), pretrained="none")
    out = tmp_path / f"model{FORMATS[kind].suffix}"
    done = export_model(random_parameters(model), out, FORMATS[kind])
    assert done.smallest == 34
    assert verify_export(model, out, FORMATS[kind], images=drawn_photographs(tmp_path)).passed


@torch.no_grad()
def test_fcn_s_poolings_and_crops_say_the_same_in_a_program(narrow: None) -> None:
    model = create_model("fcn", num_classes=3, scales=(1.0, 0.5), fusion="max", pretrained="none")
    graph = GridGraph(random_parameters(model))
    run, least = trace(graph).module(), smallest(model)
    for batch, rows, columns in ((1, least, least), (2, 75, 106), (1, 64, 91)):
        images = images_of(batch, rows, columns)
        assert_close(run(images), graph(images))


class Cells(Segmenter):
    """The largest value of each cell, or the pixel that an aligned cell looks at."""

    num_features, output_stride = 3, 8

    def __init__(self, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners

    def forward(self, images: torch.Tensor) -> Dense:
        cells = torch.nn.functional.max_pool2d(images, 1 if self.align_corners else 8, 8)
        return Dense(cells, cells)

    def load_pretrained(self, source: str) -> None:
        """It has no parameters."""


@pytest.mark.parametrize("scales", [(1.0, 0.75, 0.3, 1 / 3), (1.5, 0.125, 0.5)])
@pytest.mark.parametrize("align_corners", [True, False])
def test_open_sizes_are_counted_like_known_ones(scales: tuple[float, ...], align_corners: bool) -> None:
    model = ScaleAware(Cells(align_corners), create_fusion("average", len(scales), 3), scales, ("a", "b", "c"))
    graph = GridGraph(model)
    run, least = trace(graph).module(), smallest(model)
    for side in range(least, least + 90, 7):
        images = images_of(1, side, 2 * side)
        for found, expected in zip(run(images), graph(images), strict=True):
            assert found.shape == expected.shape
            torch.testing.assert_close(found, expected)


# files


def drawn_photographs(folder: Path) -> list[Path]:
    """Two, of different sizes."""
    paths = []
    for rows, columns in ((75, 107), (64, 65)):
        pixels = images_of(1, rows, columns)[0].permute(1, 2, 0).numpy()
        paths.append(folder / f"{rows}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A checkpoint of the tiny model."""
    checkpoint.save(tmp_path / "checkpoint", small_model(), small_config())
    return tmp_path / "checkpoint"


@pytest.fixture
def exported(call: Callable[..., Ended]) -> Callable[..., tuple[int, str]]:
    """Run `scaleseg export` with arguments in this process: exit code and all that was said."""

    def run(*arguments: object) -> tuple[int, str]:
        ended = call("export", *arguments)
        return ended.code, ended.out + ended.err

    return run


@pytest.mark.parametrize("kind", ["pt2", "onnx", "openvino"])
def test_the_verb_writes_and_verifies_and_the_example_runs_it_without_scaleseg(
    exported, saved: Path, tmp_path: Path, kind: str
) -> None:
    needs(kind)
    out, (photo, _) = tmp_path / f"model{FORMATS[kind].suffix}", drawn_photographs(tmp_path)
    code, said = exported(saved, out, "--format", kind, "--labels", "--verify", "--images", photo)
    assert code == 0, said
    assert "100.0000 % equal labels" in said
    assert f"use it: {FORMATS[kind].usage.format(out=out)}" in said
    ran = run_example(kind, out, photo, tmp_path / "mask.png")
    assert "disc: " in ran and "scale 0.5: weight" in ran
    with Image.open(tmp_path / "mask.png") as mask:
        expected = segment(small_model(), photo, precision="float32").labels.numpy()
        assert (np.array(mask) == expected).mean() > 0.99  # OpenVINO may choose bf16


def run_example(kind: str, *arguments: Path) -> str:
    """What examples/run_KIND.py says, in a process that cannot import scaleseg."""
    code = (
        "import runpy, sys; sys.modules['scaleseg'] = None; sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(EXAMPLES / f"run_{kind}.py"), *map(str, arguments)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_a_file_tells_what_it_is(saved: Path, exported, tmp_path: Path) -> None:
    out = tmp_path / "model.pt2"
    code, said = exported(saved, out, "--format", "pt2")
    assert (code, "not verified" in said) == (0, True)
    extra = {"scaleseg.json": ""}
    torch.export.load(out, extra_files=extra)
    known = json.loads(extra["scaleseg.json"])
    assert json.loads(known["classes"]) == ["ground", "disc", "bar"]
    assert json.loads(known["scales"]) == [1.0, 0.5]
    assert known["scaleseg"] == scaleseg.__version__
    assert str(tmp_path.parent) not in json.dumps(known)


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_half_precision_parameters_take_half_the_room_and_nearly_say_the_same(kind: str, tmp_path: Path) -> None:
    needs(kind)
    model = create_model("small", num_classes=3, pretrained="none", attention_width=512)
    random_parameters(model)
    out = tmp_path / f"model{FORMATS[kind].suffix}"
    export_model(model, out, FORMATS[kind], precision="float16")
    size = sum(file.stat().st_size for file in (out.glob("*.bin") if out.is_dir() else [out]))
    assert size < 0.7 * sum(4 * parameter.numel() for parameter in model.parameters())
    verified = verify_export(model, out, FORMATS[kind], images=drawn_photographs(tmp_path), tolerance=0.02)
    assert verified.passed
    assert verified.error > 1e-5  # it is not the same


def test_verifying_finds_a_file_of_another_model(saved: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.pt2"
    export_model(small_model(seed=1), out, FORMATS["pt2"])
    verified = verify_export(small_model(), out, FORMATS["pt2"], images=drawn_photographs(tmp_path))
    assert not verified.passed


def test_the_verb_ends_with_1_above_the_tolerance(exported, saved: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("scaleseg.checkpoint.load", lambda name: small_model())
    written = export.verify_export
    monkeypatch.setattr(
        export, "verify_export", lambda model, *rest, **named: written(small_model(seed=1), *rest, **named)
    )
    photo = drawn_photographs(tmp_path)[0]
    code, said = exported(saved, tmp_path / "model.pt2", "--format", "pt2", "--verify", "--images", photo)
    assert code == 1
    assert "does not say what the model says" in said


def test_drawn_images_are_at_least_as_large_as_the_program_takes() -> None:
    batches = list(_batches((), 60))
    assert {len(batch) for _, batch in batches} == {1, 2}
    assert min(min(batch.shape[2:]) for _, batch in batches) == 60
    assert len({tuple(batch.shape[2:]) for _, batch in batches}) >= 5


# mistakes


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["m.onnx", "--format", "onxx"], "did you mean 'onnx'?"),
        (["m.bin", "--format", "onnx"], "its files end in .onnx"),
        (["m.onnx", "--format", "pt2"], "its files end in .pt2"),
        (["m.xml", "--format", "openvino"], "leave .xml out"),
        (["m.pt2", "--format", "pt2", "--precision", "float16"], "--format onnx or openvino has it"),
        (["m.pt2", "--format", "pt2", "--precision", "int3"], "pt2 is written in float32"),
        (["m.pt2", "--format", "pt2", "--images", "a.png"], "which only --verify uses"),
        (["m.pt2", "--format", "pt2", "--verify", "--tolerance", "nan"], "give 0 or more"),
        (["m.pt2", "--format", "pt2", "--verify", "--images", "nowhere"], "matches nothing"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(
    exported, saved: Path, tmp_path: Path, arguments, sentence
) -> None:
    name, *rest = arguments
    code, said = exported(saved, tmp_path / "out" / name, *rest)
    assert code == 1
    assert sentence in said
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over(exported, saved: Path, tmp_path: Path) -> None:
    (tmp_path / "m.pt2").write_text("mine")
    code, said = exported(saved, tmp_path / "m.pt2", "--format", "pt2")
    assert (code, "exists; give another name" in said) == (1, True)
    assert (tmp_path / "m.pt2").read_text() == "mine"


def test_a_folder_without_images_is_a_user_s_mistake(exported, saved: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, said = exported(saved, tmp_path / "m.pt2", "--format", "pt2", "--verify", "--images", tmp_path / "empty")
    assert (code, "no images in" in said) == (1, True)


@pytest.mark.parametrize(("kind", "extra"), [("onnx", "export"), ("openvino", "openvino")])
def test_a_format_without_its_package_says_what_to_install(kind: str, extra: str, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("scaleseg.export.formats.find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"pip install 'scaleseg\[{extra}\]'"):
        choose_format(kind, "float32", tmp_path / f"m{FORMATS[kind].suffix}")


def test_a_full_disk_leaves_nothing(saved: Path, exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    code, said = exported(saved, tmp_path / "out" / "m.pt2", "--format", "pt2")
    assert (code, "free some space" in said) == (1, True)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_model_that_cannot_be_traced_is_a_user_s_mistake(tmp_path: Path) -> None:
    class Deciding(Cells):
        def forward(self, images: torch.Tensor) -> Dense:
            return super().forward(images if images.mean() > 0 else -images)

    model = ScaleAware(Deciding(True), create_fusion("average", 1, 3), (1.0,), ("a", "b", "c"))
    with pytest.raises(UserError, match="cannot be exported to pt2: "):
        export_model(model, tmp_path / "m.pt2", FORMATS["pt2"])
    assert list(tmp_path.iterdir()) == []


def test_an_image_that_cannot_be_read_is_told_before_anything_is_written(exported, saved: Path, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("hello")
    out = tmp_path / "a.pt2"
    code, said = exported(saved, out, "--format", "pt2", "--verify", "--images", tmp_path / "text.jpg")
    assert (code, out.exists()) == (1, False)
    assert "text.jpg is no image" in said


def test_a_place_that_is_no_folder_is_told_before_converting(tmp_path: Path) -> None:
    (tmp_path / "a-file").touch()
    with pytest.raises(UserError, match=r"cannot be written: .*a-file is no folder; choose another place"):
        export.check_out(tmp_path / "a-file" / "a.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["a-file"]
