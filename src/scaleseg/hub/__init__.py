"""Models as others have them on the Hugging Face Hub: load them, for other classes too, save and push them, with a card.

What is published holds no path of this machine: where data and parameters lay is left out, whatever loads is left in.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import safe_open

from scaleseg import atomic, checkpoint, download
from scaleseg.config import Config, DataConfig, merge, to_dict
from scaleseg.errors import UserError
from scaleseg.hub.card import headed, write_card
from scaleseg.model import ScaleAware

__all__ = ["from_pretrained", "push_to_hub", "save_pretrained"]

FILES = ("model.safetensors", "README.md", "config.json")
"""In the order in which they take their places: without config.json a folder is no checkpoint yet."""


def from_pretrained(
    name: str | Path,
    *,
    revision: str | None = None,
    classes: Sequence[str] | None = None,
    num_classes: int | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    say: Callable[[str], None] = print,
) -> ScaleAware:
    """The model of a folder, a bundled name or a Hub id (`org/name@revision`), in evaluation mode.

    Other `classes` (or another number of them) keep the trunk and the attention and renew the head: its parameters are
    then drawn with torch's generator (`torch.manual_seed` repeats them), and `say` is told their names.
    """
    if isinstance(classes, str):
        raise UserError(f"classes is {classes!r}, one text; give a list of names, such as [{classes!r}]")
    if num_classes is not None and not 0 < num_classes <= 255:
        raise UserError(f"num_classes is {num_classes}; give from 1 to 255")
    if classes is not None and num_classes not in (None, len(classes)):
        raise UserError(f"num_classes is {num_classes}, but {len(classes)} classes are given; give one of them")
    folder = checkpoint.locate(name, revision=revision, token=token, cache_dir=cache_dir)
    config = checkpoint.read_config(folder)
    if classes is None and num_classes in (None, len(config.data.classes)):
        return checkpoint.load(folder)
    names = tuple(classes) if classes is not None else tuple(map(str, range(num_classes or 0)))
    model = checkpoint.build(_published(replace(config, data=replace(config.data, classes=names))))
    fresh = checkpoint.start_from(model, folder).fresh
    count = len(config.data.classes)
    if fresh:
        say(
            f"{name}: {len(names)} {'other ' if count == len(names) else ''}classes instead of {count}; "
            f"fresh, to be trained: {', '.join(fresh)}"
        )
    return model.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload,no-any-return]


def save_pretrained(
    model: ScaleAware | str | Path,
    folder: str | Path,
    *,
    about: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    license: str | None = None,
    base_model: str | None = None,
) -> Path:
    """Write `config.json`, `model.safetensors` and a card, ready for the Hub; the folder is returned.

    `model` is one in memory, or the name of a checkpoint, whose label map, training settings and figures are then
    kept. `about` are measured figures by name, such as `{"val_mIoU": 0.76}`: the card has no others. Other files of
    the folder stay, and so does a README.md that is there already. `dtype` may be torch.float16.
    """
    source, target = _source(model, about, dtype), Path(folder)
    card = _card(source, ".", license, base_model)
    try:
        target.mkdir(parents=True, exist_ok=True)
        _write(source, target, None if (target / "README.md").exists() else card)
    except OSError as error:
        raise UserError(f"{target} cannot be written ({error.strerror or error}); choose another folder") from error
    return target


def push_to_hub(
    model: ScaleAware | str | Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    commit_message: str = "Upload a model of scaleseg",
    token: str | bool | None = None,
    about: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    license: str | None = None,
    base_model: str | None = None,
) -> str:
    """Put a model on the Hub as one commit, and return the commit's address; the repository is made if there is none.

    `revision` is a branch, made if there is none. A README.md that is there already stays as it is. The rest is
    `save_pretrained`'s.
    """
    repo, branch = _destination(repo_id, revision)
    source = _source(model, about, dtype)
    card = _card(source, f"{repo}@{branch}" if branch else repo, license, base_model)
    with TemporaryDirectory() as scratch:
        _write(source, Path(scratch), card)
        with download.explained(repo, revision=branch):
            return _push(Path(scratch), repo, branch, private, commit_message, token)


@dataclass(frozen=True)
class _Source:
    """What is to be published.

    `about` are figures, `dtype` is how parameters are stored, `trained` whether as `config` says; `card` is one that
    lay beside the checkpoint.
    """

    model: ScaleAware
    config: Config
    about: dict[str, Any]
    dtype: torch.dtype | None
    trained: bool
    card: str | None = None


def _source(model: ScaleAware | str | Path, about: Mapping[str, Any] | None, dtype: torch.dtype | None) -> _Source:
    if isinstance(model, ScaleAware):
        return _Source(model, _config_of(model), dict(about or {}), dtype, trained=False)
    folder = checkpoint.locate(model)
    config = _published(checkpoint.read_config(folder))
    document = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    recorded = _figures(document.get("about"))
    return _Source(
        checkpoint.load(folder), config, {**recorded, **(about or {})}, dtype or _stored(folder), True, _beside(folder)
    )


def _beside(folder: Path) -> str | None:
    """The card of a checkpoint: what its author wrote of data, licence and limits goes along."""
    path = folder / "README.md"
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); mend it or move it away") from error


def _config_of(model: ScaleAware) -> Config:
    """The settings that rebuild a model from its parameters; UserError if it is not what `create_model` builds."""
    if model.settings is None:
        raise UserError("the model was not built by create_model, so no settings can rebuild it; build it that way")
    settings = replace(model.settings, scales=tuple(model.scales))
    config = _published(Config(model=settings, data=DataConfig(classes=model.classes)))
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in checkpoint.build(config).state_dict().items()}
    own = {name: tensor.shape for name, tensor in model.state_dict().items()}
    changed = sorted(name for name in own.keys() | expected.keys() if own.get(name) != expected.get(name))
    if changed:
        raise UserError(
            f"the model is no longer what its settings build ({', '.join(changed[:4])} differ), so nobody could load it; "
            "change classes with from_pretrained and layers with create_model's options"
        )
    bad = [name for name, tensor in model.state_dict().items() if not torch.isfinite(tensor).all()]
    if bad:
        raise UserError(
            f"the model holds NaN or infinity in {', '.join(bad[:3])}; it cannot be used, so it is not saved"
        )
    return config


def _published(config: Config) -> Config:
    """The settings without what only this machine has: paths of data and of parameters."""
    dev = config.data.dev if isinstance(config.data.dev, int | float) else DataConfig().dev
    published = replace(
        config,
        model=replace(config.model, pretrained="none"),
        data=replace(config.data, root=None, train=None, val=None, dev=dev),
        train=replace(config.train, init_from=None),
    )
    return merge(to_dict(published))  # refuses what nobody could read again, such as a class named twice


def _figures(about: Any) -> dict[str, Any]:
    """The numbers that a checkpoint records of itself; strings may be paths and are left out."""
    if not isinstance(about, Mapping):
        return {}
    kept = {str(name): _figures(value) if isinstance(value, Mapping) else value for name, value in about.items()}
    return {name: value for name, value in kept.items() if value != {} and isinstance(value, int | float | dict)}


def _stored(folder: Path) -> torch.dtype | None:
    """float16 if a checkpoint keeps its floating parameters in half precision: it is not blown up by a copy."""
    with safe_open(folder / "model.safetensors", "pt") as tensors:
        kinds = {tensors.get_slice(name).get_dtype() for name in tensors.keys() if name.endswith("weight")}  # noqa: SIM118
    return torch.float16 if "F16" in kinds else None


def _write(source: _Source, folder: Path, card: str | None) -> None:
    """Everything is on the disk before the first file takes its place, and config.json comes last."""
    scratch = folder / f"{atomic.MARK}model"
    try:
        checkpoint.save(
            scratch, source.model, source.config, dtype=source.dtype, about=source.about, readme=card,
            trained=source.trained,
        )  # fmt: skip
        (folder / "config.json").unlink(missing_ok=True)
        for name in FILES:
            if (scratch / name).exists():
                (scratch / name).replace(folder / name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _destination(repo_id: str, revision: str | None) -> tuple[str, str | None]:
    parts = download.parse(repo_id)
    if parts is None:
        raise UserError(f"repo_id is {repo_id!r}; give the account or organisation and a name, such as org/name")
    if revision is not None and parts[1] not in (None, revision):
        raise UserError(f"revision is {revision!r}, but {repo_id!r} names another; give one of them")
    branch = revision or parts[1]
    return parts[0], None if branch == "main" else branch


def _push(folder: Path, repo: str, branch: str | None, private: bool, message: str, token: str | bool | None) -> str:
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(token=token, library_name="scaleseg")
    api.create_repo(repo, private=private, exist_ok=True)
    if private and not api.model_info(repo).private:
        raise UserError(
            f"private is True, but {repo} exists and is public; make it private there, or give another name"
        )
    if branch is not None and not branch.startswith("refs/"):
        api.create_branch(repo, branch=branch, exist_ok=True)
    keep = {"README.md"} if api.file_exists(repo, "README.md", revision=branch) else set()
    files = [CommitOperationAdd(name, folder / name) for name in FILES if name not in keep]
    return str(api.create_commit(repo, files, commit_message=message, revision=branch).commit_url)


def _card(source: _Source, name: str, license: str | None, base_model: str | None) -> str:
    """Its author's, if there is one. `name` is what loads the model."""
    settings = source.config.model
    if source.card is not None:
        return headed(source.card, settings, license, base_model)
    return write_card(
        source.model, settings, source.config.data.classes, name=name, about=source.about, dtype=source.dtype,
        license=license, base_model=base_model,
    )  # fmt: skip
