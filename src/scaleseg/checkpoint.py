"""A model as a folder: `config.json` and `model.safetensors`, and `training_state.pt` if a run can go on from it.

Loading executes nothing: safetensors, JSON, and `weights_only=True`; names are looked up in our own folders only.
"""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from scaleseg import atomic, download
from scaleseg.config import Config, ModelConfig, merge, to_dict
from scaleseg.errors import UserError, reason
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
    """The model of a checkpoint folder, a bundled name or a Hub id, in evaluation mode, rebuilt from the files alone.

    `settings` replace the checkpoint's own, to fuse its scores in another way (average, max; with these, other scales).
    """
    folder = locate(name)
    config = read_config(folder)
    settings = settings or config.model
    same_attention = settings.fusion == config.model.fusion == "attention"
    if same_attention and _attends(settings) != _attends(config.model):
        (scales, features), (theirs, their_features) = _attends(settings), _attends(config.model)
        raise UserError(
            f"model.scales is {scales}{_of(features)}, but {folder} learned attention for {theirs}{_of(their_features)}; "
            "keep these, or choose model.fusion=average or max"
        )
    described = replace(config, model=replace(settings, pretrained="none"))
    tensors = read_tensors(folder)
    if settings.fusion != config.model.fusion:
        tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith("fusion.")}
    with torch.device("meta"):  # where size costs nothing: config.json may claim any, the file has what it has
        _check_fit(build(described), tensors, folder)
    model = build(described)
    model.load_state_dict(tensors)
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
        attention_kernel=settings.attention_kernel,
        attention_layers=settings.attention_layers,
        edge_net=settings.edge_net,
        refine=config.refine,
        options=settings.options,
    )


class Started(NamedTuple):
    """What `start_from` could not take over, by name."""

    fresh: tuple[str, ...]
    """Parameters of the model that keep their random values."""
    left: tuple[str, ...]
    """Parameters of the checkpoint that the model has no place for."""


def start_from(model: ScaleAware, name: str | Path) -> Started:
    """Take another checkpoint's parameters and normalisation.

    Fresh are the head where the classes differ, layers that the other network has not (FCN-16s started from FCN-32s,
    MSc from LargeFOV), an edge map to learn, and whatever has another shape (attention for other scales); a trunk that does
    not fit is a UserError.
    """
    folder = locate(name)
    tensors, own = read_tensors(folder), model.state_dict()
    heads = tuple(f"segmenter.{layer}." for layer in model.segmenter.fresh_layers)
    theirs = read_config(folder)
    renewed = heads if theirs.data.classes != model.classes else ()
    now = _attends(model.settings) if model.settings else (list(model.scales), _attends(theirs.model)[1])
    renewed += () if _attends(theirs.model) == now else ("fusion.",)
    taken = {
        key: tensor
        for key, tensor in tensors.items()
        if key in own
        and (tensor.shape, tensor.dtype) == (own[key].shape, own[key].dtype)
        and not key.startswith(renewed or ("\0",))
    }
    if any(key.startswith("fusion.") and key not in taken for key in own):  # half of a head is worth nothing
        taken = {key: tensor for key, tensor in taken.items() if not key.startswith("fusion.")}
    fresh = tuple(key for key in own if key not in taken)
    stuck = [key for key in fresh if not key.startswith((*heads, "fusion.", "edge_net."))]
    if stuck:
        raise UserError(
            f"train.init_from={name} is another network: {', '.join(stuck[:4])} are not in it or differ in shape or type"
        )
    model.load_state_dict(taken, strict=False)
    return Started(fresh, tuple(sorted(tensors.keys() - own.keys())))


def save(
    folder: Path,
    model: ScaleAware,
    config: Config,
    *,
    dtype: torch.dtype | None = None,
    training_state: dict[str, Any] | None = None,
    about: dict[str, Any] | None = None,
    readme: str | None = None,
    trained: bool = True,
) -> None:
    """Write a checkpoint folder, whole or not at all. `about` (step, metrics) is for readers; `dtype` may be float16.

    `trained`: whether `config.train` is how the parameters came about; else it is left out.
    """
    narrowed = dict(model.named_parameters()) if dtype else {}  # buffers (statistics, mean colour) stay exact
    tensors = {
        name: tensor.detach().cpu().to(dtype if name in narrowed else tensor.dtype).contiguous()
        for name, tensor in model.state_dict().items()
    }
    document = {"format": FORMAT, **to_dict(config), "about": about or {}}
    if not trained:
        del document["train"]
    with atomic.fresh_folder(folder) as temporary:
        (temporary / "config.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        (temporary / "model.safetensors").write_bytes(save_tensors(tensors, {"format": "pt"}))
        if training_state is not None:
            content = io.BytesIO()
            torch.save(training_state, content)
            (temporary / "training_state.pt").write_bytes(content.getvalue())
        if readme is not None:
            (temporary / "README.md").write_text(readme, encoding="utf-8")


def locate(
    name: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
) -> Path:
    """The folder that a path, a bundled name or a Hub id (`org/name`, `org/name@revision`) means, tried in this order.

    A model on the Hub is fetched into huggingface_hub's cache; a `Path` is never asked of the Hub. UserError says what
    was tried, what is there instead, and what to do.
    """
    folder = Path(name)
    try:
        here = folder if (folder / "config.json").is_file() else None
    except OSError as error:  # a name too long, a disk that does not answer
        raise UserError(f"{name} cannot be looked up ({error.strerror}); give a checkpoint folder") from error
    if here is None and str(name) in list_bundled():
        here = BUNDLED / str(name)
    if here is None:
        return _from_hub(name, revision, token, cache_dir)
    if revision is not None:
        raise UserError(f"revision is {revision!r}, but {name} is here, and only models on the Hub have revisions")
    return here


def list_bundled() -> tuple[str, ...]:
    """Models that come with the package."""
    return tuple(sorted(path.parent.name for path in BUNDLED.glob("*/config.json")))


def read_config(folder: Path) -> Config:
    """The settings that a checkpoint was made with."""
    document = _read_json(folder / "config.json")
    if document.get("format") != FORMAT:
        raise UserError(
            f"{folder}/config.json has format {document.get('format')!r}; this version reads {FORMAT}: update scaleseg"
        )
    parts: dict[str, Any] = {key: document[key] for key in ("model", "data", "train", "refine") if key in document}
    try:
        parts["data"]["label_map"] = {int(key): value for key, value in parts["data"].get("label_map", {}).items()}
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{folder}/config.json is no configuration of scaleseg ({error!r})") from error
    try:
        config = merge(parts)
    except UserError as error:
        raise UserError(f"{folder}/config.json: {error}") from error
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
    except (SafetensorError, OSError, ValueError, KeyError) as error:  # KeyError: a type that torch lacks
        raise UserError(f"{path} cannot be read ({error}); it is damaged or cut short: copy it again") from error
    tensors = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    bad = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]  # after float: not for 8 bits
    if bad:
        raise UserError(f"{path} holds NaN or infinity in {', '.join(bad[:3])}; use another checkpoint")
    return tensors


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
        raise UserError(f"{path} is no training state of scaleseg ({reason(error)})") from error
    if not isinstance(state, dict) or "step" not in state:
        raise UserError(f"{path} is no training state of scaleseg (it names no step)")
    return state


def _from_hub(name: str | Path, revision: str | None, token: str | bool | None, cache_dir: str | Path | None) -> Path:
    tried = _not_here(Path(name))
    # runs/cat beside a folder runs/ is a slip of the pen, and what a stranger calls so must not be taken for it
    is_path = isinstance(name, Path) or Path(name).exists() or (Path(name).parent.is_dir() and "/" in name)
    hub_id = None if is_path else download.parse(str(name))
    if hub_id is None:
        raise UserError(f"{tried}; give a folder, one of these, or a Hub id such as org/name")
    repo, inner = hub_id
    if revision is not None and inner not in (None, revision):
        raise UserError(f"revision is {revision!r}, but {name!r} names another; give one of them")
    try:
        found = download.find(repo, revision or inner, token, cache_dir)
    except UserError as error:
        raise UserError(f"{tried}; as a Hub id: {error}") from error
    try:
        read_config(found.folder)  # before the parameters, which may be large and no model of scaleseg at all
    except UserError as error:
        raise UserError(f"{repo} on the Hub is no model of scaleseg: {error}") from error
    found.fetch("model.safetensors")
    return found.folder


def _not_here(folder: Path) -> str:
    """Why a name is neither a checkpoint folder nor a bundled model; UserError if it is a run."""
    inside = [pointer for pointer in ("best", "last") if (folder / pointer / "config.json").is_file()]
    if inside:
        raise UserError(
            f"{folder} is a run, not a checkpoint; give {' or '.join(str(folder / item) for item in inside)}"
        )
    known = ", ".join(list_bundled()) or "none"
    return f"{str(folder)!r} is no checkpoint folder (with config.json) and no bundled model; those are: {known}"


def _check_fit(model: ScaleAware, tensors: dict[str, Tensor], folder: Path) -> None:
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
        if tensor.dtype != own[name].dtype:  # an integer for a weight, a complex number
            raise UserError(f"{folder}: {name} holds {tensor.dtype}; {own[name].dtype} is expected")


def _attends(settings: ModelConfig) -> tuple[list[float], str | None]:
    """What attention was learned for: it knows scales by their place, and other features may have the same shape."""
    features = settings.options.get("features")
    return [float(scale) for scale in settings.scales], None if features == "fc7" else features  # fc7 is the default


def _of(features: str | None) -> str:
    return f" with features {features}" if features else ""


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); copy the checkpoint again") from error
    if not isinstance(document, dict):
        raise UserError(f"{path} is no configuration of scaleseg; give the folder of a checkpoint")
    return document
