"""Scale-aware semantic segmentation: one network at several scales, merged by learned weights (Chen et al., CVPR 2016).

    model = scaleseg.load("voc-animals-lite")
    result = scaleseg.segment(model, "photo.jpg")
    result.labels, result.scale_weights, result.overlay()

Names are resolved on first use, so that `import scaleseg` takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scaleseg.analysis import Analysis, analyze
    from scaleseg.checkpoint import list_bundled, load, save
    from scaleseg.config import Config
    from scaleseg.errors import UserError
    from scaleseg.evaluation import evaluate
    from scaleseg.hub import from_pretrained, push_to_hub, save_pretrained
    from scaleseg.loss import scale_aware_loss, scale_aware_losses
    from scaleseg.metrics import Metrics
    from scaleseg.model import Prediction, ScaleAware, create_model, list_models
    from scaleseg.recipes import list_recipes, load_recipe
    from scaleseg.segmentation import Segmentation, segment
    from scaleseg.training import train

__version__ = "0.1.0"

_HOME = {
    "Analysis": "analysis", "analyze": "analysis",
    "list_bundled": "checkpoint", "load": "checkpoint", "save": "checkpoint",
    "Config": "config", "UserError": "errors", "evaluate": "evaluation",
    "from_pretrained": "hub", "push_to_hub": "hub", "save_pretrained": "hub",
    "scale_aware_loss": "loss", "scale_aware_losses": "loss", "Metrics": "metrics",
    "Prediction": "model", "ScaleAware": "model", "create_model": "model", "list_models": "model",
    "list_recipes": "recipes", "load_recipe": "recipes",
    "Segmentation": "segmentation", "segment": "segmentation", "train": "training",
}  # fmt: skip

__all__ = [
    "Analysis", "Config", "Metrics", "Prediction", "ScaleAware", "Segmentation", "UserError", "__version__", "analyze",
    "create_model", "evaluate", "from_pretrained", "list_bundled", "list_models", "list_recipes", "load", "load_recipe",
    "push_to_hub", "save", "save_pretrained", "scale_aware_loss", "scale_aware_losses", "segment", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'scaleseg' has no attribute {name!r}")
    value = getattr(import_module(f"scaleseg.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
