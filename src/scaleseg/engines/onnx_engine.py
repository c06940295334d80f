"""onnxruntime on the CPU, in float32: what PyTorch says, with less between the layers."""

from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from scaleseg.engines.converted import convert, on_cpu, rebuild, smallest_side, unreported
from scaleseg.engines.torch_engine import TorchEngine
from scaleseg.errors import UserError
from scaleseg.model import Prediction, ScaleAware

__all__ = ["OnnxEngine"]


class OnnxEngine:
    """Runs a model that is converted to ONNX once, which takes seconds to minutes; `cache` is a folder to keep that in.

    It computes with as many threads as PyTorch had when it was made. UserError where packages are missing.
    """

    name = "onnx"
    precision = "float32"

    def __init__(self, model: ScaleAware, cache: Path | None = None) -> None:
        try:
            with unreported():
                import onnxruntime
        except ImportError:
            raise UserError(
                "--engine is onnx, and onnxruntime is not installed; pip install 'scaleseg[export]'"
            ) from None
        self.model = model
        self.smallest = smallest_side(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        program = convert(model, cache).SerializeToString()
        self.session = onnxruntime.InferenceSession(program, options, providers=["CPUExecutionProvider"])
        self.outputs = [output.name for output in self.session.get_outputs()]

    def __call__(self, image: UInt8[Tensor, "3 H W"]) -> Prediction:
        size = image.shape[1], image.shape[2]
        if min(size) < self.smallest:
            return TorchEngine(on_cpu(self.model), "float32")(image.cpu())
        try:
            maps = self.session.run(None, {"images": image[None].cpu().numpy()})
        except Exception as error:  # onnxruntime's errors have no base class of their own
            if "allocat" in str(error):
                raise MemoryError(str(error)) from error
            raise
        return rebuild(self.model, dict(zip(self.outputs, maps, strict=True)), size)
