"""Parameters from elsewhere: read without executing anything, matched by name, never silently incomplete."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from scaleseg.errors import UserError, reason

__all__ = ["assign", "fetch", "read_parameters"]


def read_parameters(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of a PyTorch state dict (read with `weights_only=True`), as float32."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"model.pretrained is {str(path)!r}, which is not a file; give a path, 'imagenet' or 'none'")
    try:
        is_safe = path.suffix == ".safetensors"
        content: object = load_file(path) if is_safe else torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, AttributeError) as error:
        raise UserError(f"{path} cannot be read as parameters: {reason(error)}") from error
    except Exception as error:
        raise UserError(f"{path} is no plain state dict: {reason(error)}") from error
    if isinstance(content, Mapping) and "state_dict" in content:
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise UserError(f"{path} is no state dict (names and tensors); save model.state_dict() alone")
    wrong = [name for name, tensor in content.items() if not isinstance(tensor, Tensor)]
    if wrong:
        raise UserError(f"{path} holds more than tensors ({', '.join(wrong[:3])}); save model.state_dict() alone")
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in content.items()}


def fetch(url: str, digits: str) -> Path:
    """A published file in PyTorch's cache; the `digits` that its SHA-256 begins with are checked at each use."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=digits, progress=False)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"{url} could not be fetched ({error}); fetch it elsewhere and give its path as model.pretrained"
            ) from error
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(digits):
        raise UserError(f"{path} is damaged: its hash does not begin with {digits}; delete it and start again")
    return path


def assign(module: nn.Module, tensors: Mapping[str, Tensor], source: str, fresh: tuple[str, ...]) -> None:
    """Copy `tensors` into `module` by name; only the layers `fresh` may be left out; UserError names what does not fit."""
    own = {name: tensor for name, tensor in module.state_dict().items() if not name.endswith("num_batches_tracked")}
    expected = {name for name in own if not name.startswith(tuple(f"{layer}." for layer in fresh))}
    missing, surplus = sorted(expected - tensors.keys()), sorted(tensors.keys() - expected)
    if missing or surplus:
        raise UserError(f"{source} does not fit: missing {_few(missing)}; surplus {_few(surplus)}")
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise UserError(f"{source}: {name} is {tuple(tensor.shape)}; {tuple(own[name].shape)} is expected")
        if not tensor.is_floating_point():
            raise UserError(
                f"{source}: {name} holds {str(tensor.dtype).removeprefix('torch.')}; real numbers are expected"
            )
        if not torch.isfinite(tensor).all():
            raise UserError(f"{source}: {name} holds NaN or infinity; fetch the file again")
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def _few(names: list[str]) -> str:
    names = [name if name.isprintable() else repr(name) for name in names]  # a newline would tear the sentence
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "") if names else "none"
