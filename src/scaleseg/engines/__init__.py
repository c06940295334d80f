"""What computes a model's predictions: one file an engine, and wrappers that are engines themselves."""

from scaleseg.engines.assemble import Plan, assemble
from scaleseg.engines.contract import Engine
from scaleseg.engines.create import ENGINES, PRECISIONS, create_engine
from scaleseg.engines.flipped import Flipped
from scaleseg.engines.memory import check_whole, choose_side, parse_bytes
from scaleseg.engines.onnx_engine import OnnxEngine
from scaleseg.engines.openvino_engine import OpenVinoEngine
from scaleseg.engines.skipping import Skipping
from scaleseg.engines.tiled import Tiled
from scaleseg.engines.torch_engine import TorchEngine

__all__ = [
    "ENGINES", "PRECISIONS", "Engine", "Flipped", "OnnxEngine", "OpenVinoEngine", "Plan", "Skipping", "Tiled",
    "TorchEngine", "assemble", "check_whole", "choose_side", "create_engine", "parse_bytes",
]  # fmt: skip
