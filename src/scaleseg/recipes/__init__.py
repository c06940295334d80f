"""Recipes: settings under a name, DATASET-SYSTEM. A recipe is one YAML file here or anywhere; it lists what differs.

Its first comment says what it is, then `Expect:` (the figure, and whose), `Run:` (the command), `Cost:` and, where there
is more to know, `Note:`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from scaleseg.config import Config, merge
from scaleseg.errors import UserError, choose

__all__ = ["Recipe", "describe_recipe", "list_recipes", "load_recipe", "override", "read_yaml"]

FOLDER = Path(__file__).parent


def list_recipes() -> tuple[str, ...]:
    """The names: this folder's YAML files."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


class Recipe(NamedTuple):
    """What a recipe's first comment says, each part on one line."""

    name: str
    about: str
    expect: str
    command: str
    cost: str
    note: str


def describe_recipe(name: str) -> Recipe:
    """The words of one of our own recipes."""
    parts = {"": "", "Expect": "", "Run": "", "Cost": "", "Note": ""}
    key = ""
    for line in _path(name).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        text = line.removeprefix("#").strip()
        before, colon, after = text.partition(": ")
        if colon and before in parts:
            key, text = before, after
        parts[key] = f"{parts[key]} {text}".strip()
    return Recipe(name, *parts.values())


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Config:
    """A recipe by name or path, with `key=value` overrides; `data=FILE` takes the data section from a YAML file."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else _path(name)
    return merge(read_yaml(path), *(_part(item) for item in overrides))


def override(config: dict[str, Any], overrides: Sequence[str]) -> Config:
    """Settings as a dictionary, such as a checkpoint's, with `key=value` overrides."""
    return merge(config, *(_part(item) for item in overrides))


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file's top level; UserError if it cannot be read or is no mapping."""
    if not path.is_file():
        raise UserError(f"{path} does not exist; give the name of a recipe or the path of a YAML file")
    try:
        content = OmegaConf.to_container(OmegaConf.load(path))
    except Exception as error:
        raise UserError(f"{path} is no valid YAML: {_reason(error)}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no settings; it should begin with model:, data: or train:")
    return {str(key): value for key, value in content.items()}


def _path(name: str) -> Path:
    return FOLDER / f"{choose('recipe', name, list_recipes())}.yaml"


def _part(item: str) -> dict[str, Any]:
    """One `key=value` as a nested dictionary."""
    key, equals, value = item.partition("=")
    if not equals or not key:
        raise UserError(f"{item!r} is no override; write key=value, such as train.steps=100")
    if key == "data":
        return {"data": _data_file(Path(_at_home(value)))}
    try:
        part = OmegaConf.to_container(OmegaConf.from_dotlist([item]))
    except Exception as error:
        raise UserError(
            f"{item!r} cannot be read: {_reason(error)}; write key=value, such as train.steps=100"
        ) from error
    assert isinstance(part, dict)
    return {str(name): _at_home(inner) for name, inner in part.items()}


def _at_home(value: Any) -> Any:
    """With `~/` as the home folder in every text of it: behind `key=` a shell leaves it as it stands."""
    if isinstance(value, str) and value.startswith("~/"):
        return str(Path(value).expanduser())
    if isinstance(value, list):
        return [_at_home(item) for item in value]
    return {key: _at_home(item) for key, item in value.items()} if isinstance(value, dict) else value


def _reason(error: Exception) -> str:
    """What the parser says, and in which line of the file."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark and problem:
        return f"{problem} in line {mark.line + 1}"
    return (str(error).splitlines() or [type(error).__name__])[0]


def _data_file(path: Path) -> dict[str, Any]:
    """A data.yaml, its relative paths taken from where it lies."""
    content = read_yaml(path)
    content = content.get("data", content)
    if not isinstance(content, dict):
        raise UserError(f"{path} has data: {content!r}; it holds settings such as train, val and classes")
    if "classes" in content:  # ids of other data say nothing of these
        content.setdefault("label_map", {})
    are_paths = content.get("dataset", "folder") == "folder"  # voc has names of lists there
    for key in ("root", "dev", *(("train", "val") if are_paths else ())):
        if key in content:
            content[key] = _beside(path.parent, content[key], key, are_paths)
    return dict(content)


def _beside(folder: Path, value: Any, key: str, are_paths: bool) -> Any:
    if isinstance(value, list):
        return [_beside(folder, item, key, are_paths) for item in value]
    if not isinstance(value, str) or (key == "dev" and value.replace(".", "", 1).isdigit()):
        return value
    if key == "dev" and value.startswith("split:"):
        return f"split:{folder / value.removeprefix('split:')}" if are_paths else value
    return str(folder / value)
