"""What engines other than PyTorch share: a model converted once, kept under the fingerprint of what it was made of."""

import hashlib
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from scaleseg import __version__, atomic
from scaleseg.errors import UserError
from scaleseg.geometry import Size
from scaleseg.model import Prediction, ScaleAware

if TYPE_CHECKING:
    import onnx

__all__ = ["cache_folder", "convert", "fingerprint", "on_cpu", "rebuild", "smallest_side", "unreported"]


UNREPORTED = {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime, as it is imported
    "NNCF_CI": "1",  # nncf, as it is imported
    "CI": "true",  # openvino.convert_model; it has no switch of its own but a file in the user's home
}
"""By which environment variables these packages send no word about their use to anybody, and make no id of this machine."""

REPORTER = "openvino_telemetry"
"""What nncf and openvino report by where it is installed; nncf makes an id as it loads, whatever its variable says."""


def cache_folder() -> Path:
    """Where this user keeps what can be made anew: $XDG_CACHE_HOME/scaleseg, ~/.cache/scaleseg, or macOS's own place."""
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "scaleseg"
    try:
        home = Path.home()
    except RuntimeError:
        raise UserError(
            "there is no home folder to keep converted models in; set HOME, or XDG_CACHE_HOME to a folder, or give --engine torch"
        ) from None
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "scaleseg"


def fingerprint(model: ScaleAware) -> str:
    """16 hexadecimal digits of everything that the model computes with: structure, settings, parameters, and versions."""
    digest = hashlib.sha256(f"{__version__} {torch.__version__} {platform.machine()}".encode())
    digest.update(f"{model!r} {model.scales} {model.settings} {len(model.classes)}".encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def convert(model: ScaleAware, cache: Path | None) -> "onnx.ModelProto":
    """The model's `GridGraph` in ONNX, out of `cache` if it has been converted before; it stays in memory without one.

    UserError if the packages that convert are not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 - what torch.onnx converts with
    except ImportError:
        raise UserError(
            "this engine needs onnx and onnxscript, which are not installed; pip install 'scaleseg[export]'"
        ) from None
    path = cache / f"{fingerprint(model)}.onnx" if cache else None
    if path and path.is_file():
        try:
            return onnx.load(str(path))
        except Exception:  # protobuf's own error; what is damaged is made anew
            path.unlink(missing_ok=True)
    with _kept(cache):
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)  # before what takes long
        made = _converted(model)
        if path:
            atomic.write(path, made.SerializeToString())
    return made


def rebuild(model: ScaleAware, maps: Mapping[str, np.ndarray], size: Size) -> Prediction:
    """The `Prediction` whose parts a converted model gave by name."""
    found: dict[str, Tensor] = {name: torch.from_numpy(np.array(values)) for name, values in maps.items()}
    per_scale = tuple(found[f"per_scale_{index}"] for index in range(len(model.scales)))
    return Prediction(found["scores"], found["scale_weights"], per_scale, model.grid(size), found.get("edges"))


def smallest_side(model: ScaleAware) -> int:
    """Images with a smaller side are no matter for a converted model: PyTorch does them."""
    return model.grid((1, 1)).smallest


def on_cpu(model: ScaleAware) -> ScaleAware:
    """The model itself if it is there, else a copy."""
    return model if model.mean.device.type == "cpu" else deepcopy(model).to("cpu")


@contextmanager
def unreported() -> Iterator[None]:
    """Packages that are imported, or convert, in here report nothing to their makers."""
    before = {name: os.environ.get(name) for name in UNREPORTED}
    reporter = sys.modules.get(REPORTER)
    os.environ.update(UNREPORTED)
    sys.modules[REPORTER] = None  # type: ignore[assignment]  # as if it were not installed
    try:
        yield
    finally:
        del sys.modules[REPORTER]
        if reporter:
            sys.modules[REPORTER] = reporter
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _kept(cache: Path | None) -> Iterator[None]:
    """A fault of the file system as a sentence about the cache, which the user has not named."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"the converted model cannot be kept in {cache} ({error.strerror or error}); make room there, or set "
            "XDG_CACHE_HOME to another folder"
        ) from error


def _converted(model: ScaleAware) -> "onnx.ModelProto":
    from scaleseg.engines.graph import GridGraph, to_onnx_model, trace  # torch.export takes seconds

    was_training = model.training
    try:
        graph = GridGraph(on_cpu(model))
        return to_onnx_model(trace(graph), graph.outputs)
    finally:
        model.train(was_training)
