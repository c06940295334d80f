"""A model as a folder: `config.json` and `model.safetensors`, and `training_state.pt` if a run can go on from it.

Loading executes nothing: safetensors, JSON, and `weights_only=True`; names are looked up in our own folders only.
"""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from scaleseg import atomic
from scaleseg.config import Config, ModelConfig, merge, to_dict
from scaleseg.errors import UserError
from scaleseg.model import ScaleAware, create_model

__all__ = [
    "build",
    "list_bundled",
    "load",
    "load_training_state",
    "locate",
    "read_config",
    "read_tensors",
    "save",
    "start_from",
]

BUNDLED = Path(__file__).parent / "bundled"
FORMAT = 1


def load(name: str | Path, settings: ModelConfig | None = None) -> ScaleAware:
    """The model of a checkpoint folder or of a bundled name, in evaluation mode, rebuilt from the files alone.

    `settings` replace the checkpoint's own, to fuse its scores in another way (average, max; with these, other scales).
    """
    folder = locate(name)
    config = read_config(folder)
    settings = settings or config.model
    same_attention = settings.fusion == config.model.fusion == "attention"
    if same_attention and tuple(settings.scales) != tuple(config.model.scales):
        raise UserError(  # attention knows scales by their place: other scales would load and mean nothing
            f"model.scales is {list(settings.scales)}, but {folder} learned attention for {list(config.model.scales)}; "
            "keep these, or choose model.fusion=average or max"
        )
    model = build(replace(config, model=replace(settings, pretrained="none")))
    tensors = read_tensors(folder)
    if settings.fusion != config.model.fusion:
        tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith("fusion.")}
    _fill(model, tensors, folder)
    return model.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload,no-any-return]


def build(config: Config) -> ScaleAware:
    """The model that the settings describe; its classes are `data.classes`."""
    settings = config.model
    return create_model(
        settings.segmenter,
        classes=config.data.classes,
        fusion=settings.fusion,
        scales=settings.scales,
        pretrained=settings.pretrained,
        attention_width=settings.attention_width,
        attention_dropout=settings.attention_dropout,
        options=settings.options,
    )


def start_from(model: ScaleAware, name: str | Path) -> tuple[str, ...]:
    """Take another checkpoint's parameters and normalisation; the names of those that start fresh are returned.

    Fresh are the head where the classes differ and whatever has another shape (attention for other scales); a trunk
    that does not fit is a UserError.
    """
    folder = locate(name)
    tensors, own = read_tensors(folder), model.state_dict()
    heads = tuple(f"segmenter.{layer}." for layer in model.segmenter.fresh_layers)
    theirs = read_config(folder)
    renewed = heads if theirs.data.classes != model.classes else ()
    # The attention head knows scales by their place, so another order fits in shape and not in meaning.
    renewed += () if theirs.model.scales == model.scales else ("fusion.",)
    taken = {
        key: tensor
        for key, tensor in tensors.items()
        if key in own and tensor.shape == own[key].shape and not key.startswith(renewed or ("\0",))
    }
    fresh = tuple(key for key in own if key not in taken)
    stuck = [key for key in fresh if not key.startswith((*heads, "fusion."))]
    if stuck:
        raise UserError(
            f"train.init_from={name} is another network: {', '.join(stuck[:4])} are not in it or differ in shape"
        )
    model.load_state_dict(taken, strict=False)
    return fresh


def save(
    folder: Path,
    model: ScaleAware,
    config: Config,
    *,
    dtype: torch.dtype | None = None,
    training_state: dict[str, Any] | None = None,
    about: dict[str, Any] | None = None,
) -> None:
    """Write a checkpoint folder, whole or not at all. `about` (step, metrics) is for readers; `dtype` may be float16."""
    narrowed = dict(model.named_parameters()) if dtype else {}  # buffers (statistics, mean colour) stay exact
    tensors = {
        name: tensor.detach().cpu().to(dtype if name in narrowed else tensor.dtype).contiguous()
        for name, tensor in model.state_dict().items()
    }
    document = {"format": FORMAT, **to_dict(config), "about": about or {}}
    with atomic.fresh_folder(folder) as temporary:
        (temporary / "config.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        (temporary / "model.safetensors").write_bytes(save_tensors(tensors, {"format": "pt"}))
        if training_state is not None:
            content = io.BytesIO()
            torch.save(training_state, content)
            (temporary / "training_state.pt").write_bytes(content.getvalue())


def locate(name: str | Path) -> Path:
    """The folder that a path or a bundled name means; UserError says what is there instead."""
    folder = Path(name)
    if (folder / "config.json").is_file():
        return folder
    if str(name) in list_bundled():
        return BUNDLED / str(name)
    inside = [pointer for pointer in ("best", "last") if (folder / pointer / "config.json").is_file()]
    if inside:
        raise UserError(
            f"{folder} is a run, not a checkpoint; give {' or '.join(str(folder / item) for item in inside)}"
        )
    known = ", ".join(list_bundled()) or "none"
    raise UserError(
        f"{str(name)!r} is no checkpoint folder (with config.json) and no bundled model; those are: {known}"
    )


def list_bundled() -> tuple[str, ...]:
    """Models that come with the package."""
    return tuple(sorted(path.parent.name for path in BUNDLED.glob("*/config.json")))


def read_config(folder: Path) -> Config:
    """The settings that a checkpoint was made with."""
    document = _read_json(folder / "config.json")
    if document.get("format") != FORMAT:
        raise UserError(f"{folder}/config.json has format {document.get('format')!r}; this version reads {FORMAT}")
    parts: dict[str, Any] = {key: document[key] for key in ("model", "data", "train") if key in document}
    try:
        parts["data"]["label_map"] = {int(key): value for key, value in parts["data"].get("label_map", {}).items()}
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{folder}/config.json is no configuration of scaleseg ({error!r})") from error
    config = merge(parts)
    if not config.data.classes:
        raise UserError(f"{folder}/config.json names no classes (data.classes)")
    return config


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """The parameters as float32; UserError if the file is missing, cut short, or holds NaN."""
    path = folder / "model.safetensors"
    try:
        tensors = load_tensors(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} is missing; a checkpoint is config.json and model.safetensors") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); it is damaged or cut short: copy it again") from error
    bad = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not torch.isfinite(tensor).all()]
    if bad:
        raise UserError(f"{path} holds NaN or infinity in {', '.join(bad[:3])}; use another checkpoint")
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def load_training_state(folder: Path) -> dict[str, Any]:
    """What a run needs beside the parameters; UserError if this checkpoint has none or it is damaged."""
    path = folder / "training_state.pt"
    if not path.is_file():
        raise UserError(
            f"{folder} has no training_state.pt; a run cannot go on from it (train.init_from can start from it)"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} is no training state of scaleseg ({reason})") from error
    if not isinstance(state, dict) or "step" not in state:
        raise UserError(f"{path} is no training state of scaleseg (it names no step)")
    return state


def _fill(model: ScaleAware, tensors: dict[str, Tensor], folder: Path) -> None:
    own = model.state_dict()
    missing, surplus = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or surplus:
        raise UserError(
            f"{folder}: model.safetensors does not fit config.json: missing {missing[:4] or 'none'}, "
            f"surplus {surplus[:4] or 'none'}"
        )
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise UserError(f"{folder}: {name} is {tuple(tensor.shape)}; config.json means {tuple(own[name].shape)}")
    model.load_state_dict(tensors)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error})") from error
    if not isinstance(document, dict):
        raise UserError(f"{path} is no configuration of scaleseg")
    return document
