"""OpenVINO on the CPU: in float32, in bf16, or in 8 bits after a look at a few photographs.

8 bits are post-training quantisation (nncf): each convolution of the segmenter, and the attention's hidden one, gets ranges
measured on the calibration photographs. What decides stays exact: the heads that make scores, the logits of the attention and
its softmax, the weighted sum, edge maps, and all that comes before the first convolution.
"""

import ast
import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from scaleseg import atomic
from scaleseg.devices import has_bf16
from scaleseg.engines.converted import convert, fingerprint, on_cpu, rebuild, smallest_side, unreported
from scaleseg.engines.torch_engine import TorchEngine
from scaleseg.errors import UserError
from scaleseg.fusion import Attention
from scaleseg.model import Prediction, ScaleAware
from scaleseg.segmenters.contract import Head

if TYPE_CHECKING:
    import onnx
    import openvino

__all__ = ["OpenVinoEngine"]

SCOPES = "pkg.torch.onnx.name_scopes"
"""Where PyTorch's exporter notes which modules an operation belongs to."""


class OpenVinoEngine:
    """Runs a model that is converted once, which takes seconds to minutes; `cache` is a folder to keep that in.

    `precision` is `auto` (bf16 where the CPU multiplies it), `float32`, `bf16` or `int8`, which wants `calibration`: some
    photographs like those to come, 12 to 300. It computes with as many threads as PyTorch had when it was made. UserError
    where packages, photographs or the hardware are missing.
    """

    name = "openvino"

    def __init__(
        self,
        model: ScaleAware,
        precision: str = "auto",
        calibration: Sequence[UInt8[Tensor, "3 _ _"]] | None = None,
        cache: Path | None = None,
    ) -> None:
        openvino = _openvino()
        self.model = model
        self.smallest = smallest_side(model)
        self.precision = _choose(precision, calibration)
        native = has_bf16(torch.device("cpu"))
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if self.precision != "float32" and native else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        if self.precision == "int8":
            program = _quantized(model, calibration or (), cache)
        else:
            program = openvino.Core().read_model(convert(model, cache).SerializeToString())
        self.compiled = openvino.Core().compile_model(program, "CPU", settings)

    def __call__(self, image: UInt8[Tensor, "3 H W"]) -> Prediction:
        size = image.shape[1], image.shape[2]
        if min(size) < self.smallest:
            return TorchEngine(on_cpu(self.model), "float32")(image.cpu())
        maps = self.compiled([image[None].cpu().numpy()])
        return rebuild(self.model, {port.get_any_name(): values for port, values in maps.items()}, size)


def _openvino() -> Any:
    try:
        import openvino
    except ImportError:
        raise UserError("--engine is openvino, which is not installed; pip install 'scaleseg[openvino]'") from None
    return openvino


def _choose(precision: str, calibration: Sequence[Tensor] | None) -> str:
    """The precision that is meant; UserError if it cannot be had."""
    native = has_bf16(torch.device("cpu"))
    if precision not in ("auto", "float32", "bf16", "int8"):
        raise UserError(f"precision is {precision!r}; choose auto, float32, bf16 or int8")
    if precision == "bf16" and not native:
        raise UserError("precision is 'bf16', which this processor does not multiply; choose auto, float32 or int8")
    if precision == "int8" and not calibration:
        raise UserError(
            "precision is 'int8', which is made to measure on photographs; give a folder of some dozen with --calibration"
        )
    return ("bf16" if native else "float32") if precision == "auto" else precision


def _quantized(model: ScaleAware, photographs: Sequence[Tensor], cache: Path | None) -> "openvino.Model":
    """The model in 8 bits, out of the cache if it was made of these photographs before."""
    openvino = _openvino()
    seen = hashlib.sha256()
    for photograph in photographs:
        seen.update(f"{tuple(photograph.shape)}".encode() + photograph.cpu().contiguous().numpy().tobytes())
    folder = cache / f"{fingerprint(model)}-int8-{seen.hexdigest()[:16]}" if cache else None
    if folder and (folder / "model.xml").is_file():
        try:
            return openvino.Core().read_model(folder / "model.xml")
        except RuntimeError:  # damaged: made anew
            pass
    nncf, fit = _nncf(), _large_enough(photographs, smallest_side(model))  # before minutes of converting
    made = _quantize(nncf, model, convert(model, cache), fit)
    if folder:
        with atomic.fresh_folder(folder) as unfinished:
            openvino.save_model(made, unfinished / "model.xml", compress_to_fp16=False)
    return made


def _large_enough(photographs: Sequence[Tensor], side: int) -> list[Tensor]:
    fit = [photograph for photograph in photographs if min(photograph.shape[1:]) >= side]
    if not fit:
        raise UserError(f"no photograph for --calibration has sides of {side} pixels or more; give others")
    return fit


def _quantize(nncf: Any, model: ScaleAware, program: "onnx.ModelProto", fit: Sequence[Tensor]) -> "openvino.Model":
    openvino = _openvino()
    from openvino.passes import ConstantFolding, Manager

    whole = openvino.Core().read_model(program.SerializeToString())
    folding = Manager()
    folding.register_pass(ConstantFolding())  # BatchNorm is folded into weights by operations: nncf wants constants
    folding.run_passes(whole)
    names = "|".join(re.escape(name) for name in _exact(model, program))
    with unreported(), _quiet():
        return nncf.quantize(
            whole,
            nncf.Dataset(fit, lambda photograph: photograph[None].cpu().numpy()),
            subset_size=len(fit),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(patterns=[f"({names})(/.*)?"], validate=False),
        )  # fmt: skip


def _exact(model: ScaleAware, program: "onnx.ModelProto") -> Iterator[str]:
    """Names of the operations that keep their precision."""
    heads = {f"model.{name}" for name, module in model.named_modules() if isinstance(module, Head)}
    hidden = isinstance(model.fusion, Attention) and model.fusion.logits is not None
    for node in program.graph.node:
        written = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "[]")
        scopes = ast.literal_eval(written)
        inside = "model.segmenter" in scopes and not heads & set(scopes)
        embeds = hidden and node.op_type == "Conv" and not any(scope.startswith("model.") for scope in scopes)
        if not inside and not embeds:
            yield from (node.name, *node.output)


def _nncf() -> Any:
    try:
        with unreported(), _quiet():
            import nncf
    except ImportError:
        raise UserError("precision is 'int8', and nncf is not installed; pip install 'scaleseg[openvino]'") from None
    return nncf


@contextmanager
def _quiet() -> Iterator[None]:
    """Without nncf's progress bars and its list of every operation that it leaves alone."""
    import logging
    import warnings

    log = logging.getLogger("nncf")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        log.setLevel(level)
