"""A model as one program for images of any size: what other engines run, and what users take away.

`trace` records it once, with batch, height and width left open; `to_onnx` and `to_openvino` write the program down. Shapes
are exact for every size, because `geometry.Grid` counts in whole numbers and never asks which size it is.
"""

import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import jaxtyping
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from scaleseg import atomic
from scaleseg.engines.converted import unreported
from scaleseg.model import ScaleAware

if TYPE_CHECKING:
    import onnx
    import openvino

__all__ = [
    "Graph",
    "GridGraph",
    "ImageGraph",
    "save_openvino",
    "smallest",
    "to_onnx",
    "to_onnx_model",
    "to_openvino",
    "to_openvino_model",
    "trace",
]


class Graph(nn.Module):
    """A model in evaluation behind its preprocessing: RGB bytes in, named maps out."""

    outputs: tuple[str, ...]
    """What the maps are called, in their order."""

    def __init__(self, model: ScaleAware) -> None:
        super().__init__()
        self.model = model.eval()


class GridGraph(Graph):
    """For engines: a `Prediction`'s own maps on their grids; its grid is `model.grid(size)`."""

    def __init__(self, model: ScaleAware) -> None:
        super().__init__(model)
        each = (f"per_scale_{index}" for index in range(len(model.scales)))
        self.outputs = ("scores", "scale_weights", *each, *(["edges"] if model.edge_net else []))

    def forward(self, images: UInt8[Tensor, "n 3 H W"]) -> tuple[Tensor, ...]:
        prediction = self.model(images.float() / 255)
        edges = () if prediction.edges is None else (prediction.edges,)
        return prediction.scores, prediction.scale_weights, *prediction.per_scale, *edges


class ImageGraph(Graph):
    """For users: everything at the image's size, as `segmentation.segment` gives it.

    `scores` (n, classes, H, W) before softmax; `scale_weights` (n, scales, H, W), those behind the class chosen at each
    pixel; with `labels` also `labels` (n, H, W), bytes.
    """

    def __init__(self, model: ScaleAware, *, labels: bool = False) -> None:
        super().__init__(model)
        self.outputs = ("scores", "scale_weights", *(["labels"] if labels else []))

    def forward(self, images: UInt8[Tensor, "n 3 H W"]) -> tuple[Tensor, ...]:
        prediction = self.model(images.float() / 255)
        scores = prediction.at()
        labels = scores.argmax(dim=1, keepdim=True)
        each = (_chosen(prediction.grid.to_image(maps), labels) for maps in prediction.scale_weights.unbind(dim=1))
        answer = scores, torch.cat(list(each), dim=1)
        return (*answer, labels[:, 0].to(torch.uint8)) if "labels" in self.outputs else answer


def trace(graph: Graph) -> ExportedProgram:
    """The graph as one program for any batch, and for heights and widths from `smallest(graph.model)` pixels on."""
    least = smallest(graph.model)
    images = torch.zeros(2, 3, least + 70, least + 101, dtype=torch.uint8, device=graph.model.mean.device)
    sides = {0: Dim("batch", min=1), 2: Dim("height", min=least), 3: Dim("width", min=least)}
    with torch.no_grad(), _sizes_unchecked():
        return torch.export.export(graph, (images,), dynamic_shapes=(sides,), strict=False)


def smallest(model: ScaleAware) -> int:
    """The side from which an exported program takes images: 2 where sides are aligned and no scale is below 1/8."""
    side = model.grid((1, 1)).smallest
    while min(model.grid((side, side)).input_size(min(model.scales))) < model.segmenter.smallest:
        side += 1
    return side


def to_onnx(
    program: ExportedProgram, outputs: Sequence[str], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write one .onnx file, parameters inside; it takes the place of an older one in one step."""
    atomic.write(path, to_onnx_model(program, outputs, metadata).SerializeToString())


def to_onnx_model(
    program: ExportedProgram, outputs: Sequence[str], metadata: Mapping[str, str] | None = None
) -> "onnx.ModelProto":
    """The program as ONNX; its `metadata_props` are `metadata`."""
    with _quiet():
        written = torch.onnx.export(
            program, (), dynamo=True, external_data=False, input_names=["images"], output_names=list(outputs),
            verbose=False,
        )  # fmt: skip
    assert written is not None
    model: onnx.ModelProto = written.model_proto
    _name_sides(model)
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=value)
    return model


def to_openvino(
    program: ExportedProgram,
    outputs: Sequence[str],
    folder: Path,
    metadata: Mapping[str, str] | None = None,
    *,
    half: bool = False,
) -> None:
    """Write a folder with model.xml and model.bin, parameters in float16 if `half`; it replaces an older one in one step."""
    save_openvino(to_openvino_model(program, outputs, metadata), folder, half=half)


def save_openvino(model: "openvino.Model", folder: Path, *, half: bool = False) -> None:
    """`to_openvino`'s second half."""
    import openvino

    with atomic.fresh_folder(folder) as unfinished:
        openvino.save_model(model, unfinished / "model.xml", compress_to_fp16=half)


def to_openvino_model(
    program: ExportedProgram, outputs: Sequence[str], metadata: Mapping[str, str] | None = None
) -> "openvino.Model":
    """The program as an OpenVINO model; its `rt_info` has `metadata` below `scaleseg`."""
    import openvino

    with unreported(), _quiet():
        model = openvino.convert_model(program)
    for port, name in zip(model.outputs, outputs, strict=True):
        port.get_tensor().set_names({name})
    model.reshape({"images": [-1, 3, -1, -1]})
    for key, value in (metadata or {}).items():
        model.set_rt_info(value, ["scaleseg", key])
    return model


def _chosen(maps: Float[Tensor, "n _ H W"], labels: Int64[Tensor, "n 1 H W"]) -> Float[Tensor, "n 1 H W"]:
    """At each pixel the map of the class chosen there; a fusion without class axis has only one map."""
    return maps if maps.shape[1] == 1 else maps.gather(1, labels)


def _name_sides(model: "onnx.ModelProto") -> None:
    """The sides left open under names, instead of the exporter's numbers."""
    shape = model.graph.input[0].type.tensor_type.shape.dim
    names = {shape[axis].dim_param: name for axis, name in ((0, "batch"), (2, "height"), (3, "width"))}
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for side in value.type.tensor_type.shape.dim:
            if side.dim_param:
                side.dim_param = re.sub(r"\w+", lambda found: names.get(found[0], found[0]), side.dim_param)


@contextmanager
def _sizes_unchecked() -> Iterator[None]:
    """The run-time checks of annotations, where they are on, compare numbers; a size left open is none yet."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporters say of their own insides: that torchvision is absent, and that PyTorch's trees grow old."""
    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            yield
    finally:
        log.setLevel(level)
