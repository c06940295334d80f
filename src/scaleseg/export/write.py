"""Writing a model down: one program for images of every size, and what is to be known of it, in one file."""

import io
import json
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.export import ExportedProgram

from scaleseg import __version__, atomic
from scaleseg.engines.graph import ImageGraph, save_openvino, smallest, to_onnx_model, to_openvino_model, trace
from scaleseg.errors import UserError, reason
from scaleseg.export.formats import Format
from scaleseg.model import ScaleAware

if TYPE_CHECKING:
    import onnx

__all__ = ["METADATA", "Exported", "check_out", "export_model"]

METADATA = "scaleseg.json"
"""The extra file of a .pt2 that holds the metadata."""

Write = Callable[[Path], None]

FEW = 256
"""Tensors with fewer numbers stay float32: sizes and biases, in which half precision saves nothing."""


@dataclass(frozen=True)
class Exported:
    """What was written."""

    path: Path
    bytes: int
    smallest: int
    """The smallest side of an image that it takes."""
    outputs: tuple[str, ...]
    metadata: dict[str, str]


def check_out(out: Path) -> None:
    """UserError where something lies there already, for nothing is written over, or where nothing can be written."""
    if os.path.lexists(out):
        raise UserError(f"{out} exists; give another name, or remove it first")
    above = next(folder for folder in out.absolute().parents if os.path.lexists(folder))
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        why = "is no folder" if not above.is_dir() else "may not be written to"
        raise UserError(f"{out} cannot be written: {above} {why}; choose another place")


def export_model(
    model: ScaleAware, out: Path, kind: Format, *, precision: str = "float32", labels: bool = False, name: str = ""
) -> Exported:
    """Write the model to `out`, which must not exist; UserError if it cannot be exported.

    `name` is the checkpoint's, for the metadata. The model goes to evaluation mode. Raises OSError where the disk is full;
    then nothing is left.
    """
    check_out(out)
    graph = ImageGraph(model, labels=labels)
    try:
        known = _metadata(graph, name)
        write = WRITERS[kind.name](trace(graph), graph.outputs, known, precision == "float16")
    except (OSError, MemoryError):
        raise
    except Exception as error:  # exporters raise whatever they like
        raise UserError(
            f"this model cannot be exported to {kind.name}: {reason(error)}; please report it, with the checkpoint's config.json"
        ) from error
    out.parent.mkdir(parents=True, exist_ok=True)
    write(out)
    return Exported(out, _size(out), smallest(model), graph.outputs, known)


def _pt2(program: ExportedProgram, outputs: Sequence[str], known: dict[str, str], half: bool) -> Write:
    buffer = io.BytesIO()
    with warnings.catch_warnings():  # of a constant that is a part of a larger one; it matters on other devices only
        warnings.filterwarnings("ignore", "No complete tensor found in the group")
        torch.export.save(program, buffer, extra_files={METADATA: json.dumps(known, indent=2)})
    return lambda out: atomic.write(out, buffer.getvalue())


def _onnx(program: ExportedProgram, outputs: Sequence[str], known: dict[str, str], half: bool) -> Write:
    model = to_onnx_model(program, outputs, known)
    if half:
        _halve(model)
    return lambda out: atomic.write(out, model.SerializeToString())


def _openvino(program: ExportedProgram, outputs: Sequence[str], known: dict[str, str], half: bool) -> Write:
    model = to_openvino_model(program, outputs, known)
    return lambda out: save_openvino(model, out, half=half)


WRITERS = {"pt2": _pt2, "onnx": _onnx, "openvino": _openvino}
"""What converts to a format, by its name; the last step is writing."""


def _metadata(graph: ImageGraph, name: str) -> dict[str, str]:
    """Text by name, as all formats can hold it; lists are JSON."""
    model = graph.model
    least = smallest(model)
    return {
        "scaleseg": __version__,
        "checkpoint": name,
        "classes": json.dumps(model.classes),
        "scales": json.dumps(model.scales),
        "segmenter": model.settings.segmenter if model.settings else type(model.segmenter).__name__,
        "fusion": type(model.fusion).__name__.lower(),
        "images": f"uint8 RGB, (n, 3, rows, columns), sides from {least} pixels; it normalises, pads and resizes itself",
        "outputs": json.dumps(graph.outputs),
        "scores": "float32 (n, classes, rows, columns), before softmax; the class is the argmax",
        "scale_weights": "float32 (n, scales, rows, columns), those behind the class chosen at each pixel",
        "smallest": str(least),
    }


def _halve(model: "onnx.ModelProto") -> None:
    """Float32 parameters in half precision, each behind a cast that runtimes compute once, as they load the file."""
    import onnx

    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < FEW:
            continue
        with np.errstate(over="ignore"):
            half = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        if not np.isfinite(half).all():
            continue
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}.half"))
        casts.append(onnx.helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _size(path: Path) -> int:
    files = [path] if path.is_file() else path.iterdir()
    return sum(file.stat().st_size for file in files)
