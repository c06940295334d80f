"""What computes a model's predictions: one file an engine, and wrappers that are engines themselves."""

from scaleseg.engines.contract import Engine
from scaleseg.engines.torch_engine import TorchEngine

__all__ = ["Engine", "TorchEngine"]
