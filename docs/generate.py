"""Write the four pages that are read off the code: cli.md, api.md, settings.md and recipes.md.

python docs/generate.py

`tests/test_docs.py` holds them against what this makes, so that they cannot fall behind.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from inspect import cleandoc
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

import scaleseg
from scaleseg.recipes import FOLDER, describe_recipe, list_recipes

DOCS = Path(__file__).parent
PACKAGE = Path(scaleseg.__file__).parent

NOTE = "<!-- Written by docs/generate.py from the code: do not edit. -->\n"

MENTIONED = {
    "datasets": ("Splits", "open_evaluation", "open_training", "open_whole"), "datasets.contract": ("Dataset",),
    "loss": ("Predicted", "Losses"), "geometry": ("Grid",), "fusion": ("Fusion",), "segmenters.contract": ("Segmenter", "Dense"),
    "interruption": ("Interrupted",),
}  # fmt: skip
"""What the public names take, return or raise, and what opens a dataset."""

MEANINGS = {
    "model.segmenter": "the network for one scale; `scaleseg list` names them",
    "model.fusion": "how scales are merged: average, max or attention",
    "model.scales": "sizes at which the network sees the image; 1.0 is the image's own",
    "model.attention_width": "filters of the attention head",
    "model.attention_dropout": "share of the attention head's filters that are silent in a training step",
    "data.dataset": "folder, voc or shapes",
    "data.val": "the reported split: as `data.train`",
    "data.classes": "names; a class id is a place in this list",
    "data.crop": "side of the square that training cuts out, in pixels",
    "data.mirror": "every second photograph is mirrored left to right",
    "data.workers": "processes that read photographs ahead; 0 = none",
    "train.steps": "steps of the optimiser",
    "train.batch": "photographs a step",
    "train.lr": "learning rate of pretrained weights",
    "train.momentum": "of SGD; AdamW's first beta",
    "train.weight_decay": "of weights, not of biases and norms",
    "train.step_every": "step: steps between two falls of the rate",
    "train.step_factor": "step: what the rate is multiplied by then",
    "train.poly_power": "poly: the exponent",
    "train.warmup_steps": "steps over which the rate rises to its full value",
    "train.extra_supervision": "a loss on every scale's own scores beside the merged one's",
    "train.seed": "of everything that is drawn",
    "train.log_every": "steps between two lines of progress",
    "train.validate_every": "steps between two measurements of the development split",
    "train.save_every": "steps between two checkpoints",
}
"""What config.py leaves to the name, in words; a comment there comes first."""


def main() -> None:
    """Write the pages into this folder."""
    for name, text in pages().items():
        (DOCS / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """File name and text of each page."""
    return {"cli.md": cli_page(), "api.md": api_page(), "settings.md": settings_page(), "recipes.md": recipes_page()}


# ----- the command line -----


def cli_page() -> str:
    """Every verb with its arguments and options, from the Typer app."""
    from typer.main import get_command

    from scaleseg.cli.app import app

    root: Any = get_command(app)
    parts = [
        NOTE, "# Command line\n", f"{root.help}\n",
        "`scaleseg VERB --help` says the same in a terminal. `python -m scaleseg` is the same program.\n",
        "Exit codes: 0 done, 1 something given cannot be used, 2 wrong usage, 130 interrupted, 141 nobody reads the output.\n",
    ]  # fmt: skip
    for name, command in _verbs(root, "scaleseg"):
        parts += [f"## {name}\n", f"{cleandoc(command.help or '')}\n", *_usage(name, command)]
    return "\n".join(parts)


def _verbs(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """(full name, command) of everything that does something."""
    for key, inner in command.commands.items():
        if hasattr(inner, "commands"):
            yield from _verbs(inner, f"{name} {key}")
        elif not inner.hidden:
            yield f"{name} {key}", inner


def _usage(name: str, command: Any) -> list[str]:
    shown = [param for param in command.params if param.name != "help" and not getattr(param, "hidden", False)]
    words = [name, *(_placeholder(param) for param in shown if param.param_type_name == "argument")]
    if any(param.param_type_name == "option" for param in shown):
        words.append("[OPTIONS]")
    lines = [f"```text\n{' '.join(words)}\n```\n"]
    if shown:
        rows = [f"| {_called(param)} | {_default(param)} | {_cell(param.help or '')} |" for param in shown]
        lines.append("\n".join(["| name | default | meaning |", "| --- | --- | --- |", *rows]) + "\n")
    if command.epilog:
        lines.append(f"```bash\n{command.epilog.removeprefix('Try: ')}\n```\n")
    return lines


def _placeholder(param: Any) -> str:
    word = param.name.upper() + ("..." if param.nargs == -1 else "")
    return word if param.required else f"[{word}]"


def _called(param: Any) -> str:
    if param.param_type_name == "argument":
        return f"`{param.name.upper()}`"
    return ", ".join(f"`{word}`" for word in [*param.opts, *param.secondary_opts])


def _default(param: Any) -> str:
    if param.required:
        return "required"
    default = param.default
    if default is None or default == () or default == [] or "UNSET" in repr(default).upper():
        return ""
    if isinstance(default, bool):
        return "on" if default else "off"
    return f"`{default}`"


# ----- the Python names -----


@dataclass(frozen=True)
class _Source:
    """A definition and the text that it stands in."""

    text: str
    node: ast.ClassDef | ast.FunctionDef

    def piece(self, node: ast.AST) -> str:
        """The text of a part, as it was written, on one line."""
        return " ".join((ast.get_source_segment(self.text, node) or "").split())


def api_page() -> str:
    """Every public name with its signature, docstring, fields and methods, grouped by the module that it lives in."""
    parts = [
        NOTE, "# Python\n",
        "Everything here is `scaleseg.NAME`. Shapes are in the annotations: `n` images, `h w` a score grid, `H W` the "
        "image's own, sizes as (rows, columns). A mistake in what was given is a `UserError`, whose message says what is "
        "accepted.\n",
    ]  # fmt: skip
    homes: dict[str, list[str]] = {}
    for name in scaleseg.__all__:
        if name in scaleseg._HOME:
            homes.setdefault(scaleseg._HOME[name], []).append(name)
    for home in sorted(homes):
        parts += [f"## {home.capitalize()}\n", f"{_first_line(f'scaleseg.{home}')}\n"]
        for name in homes[home]:
            parts.append(_entry(getattr(scaleseg, name), f"scaleseg.{name}"))
    parts += ["## What these mention\n", "Not in the package's face; import them from the module that is named.\n"]
    for home, names in MENTIONED.items():
        for name in names:
            parts.append(_entry(getattr(import_module(f"scaleseg.{home}"), name), f"scaleseg.{home}.{name}"))
    return "\n".join(parts)


def _first_line(module: str) -> str:
    """A module's opening paragraph."""
    return (cleandoc(import_module(module).__doc__ or "")).split("\n\n")[0]


def _entry(thing: Any, title: str) -> str:
    source = _find(thing)
    signature = _class_signature(source, title) if isinstance(source.node, ast.ClassDef) else _signature(source, title)
    parts = [f"### {title}\n", f"```python\n{signature}\n```\n", _described(source.node)]
    if isinstance(source.node, ast.ClassDef):
        parts += [*_fields(source), *_methods(source)]
    return "\n".join(part for part in parts if part)


def _find(thing: Any) -> _Source:
    """The definition of a class or function, in the file that it stands in."""
    module = import_module(thing.__module__)
    text = Path(str(module.__file__)).read_text(encoding="utf-8")
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == thing.__name__:
            return _Source(text, node)
    raise ValueError(f"{thing.__module__} defines no {thing.__name__} at its top level")


def _described(node: ast.ClassDef | ast.FunctionDef) -> str:
    more = "\n\nEvery key: [settings](settings.md).\n" if node.name == "Config" else "\n"
    return (ast.get_docstring(node) or "") + more


def _class_signature(source: _Source, title: str) -> str:
    assert isinstance(source.node, ast.ClassDef)
    bases = ", ".join(source.piece(base) for base in source.node.bases)
    made = next(
        (item for item in source.node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"), None
    )
    first = f"class {title}({bases})" if bases else f"class {title}"
    return first if made is None else f"{first}\n\n{_signature(_Source(source.text, made), title.rpartition('.')[2])}"


def _signature(source: _Source, title: str) -> str:
    """Name, arguments with types and defaults, one a line where they do not fit on one, and what is returned."""
    assert isinstance(source.node, ast.FunctionDef)
    arguments = _arguments(source)
    returns = source.node.returns
    arrow = f" -> {source.piece(returns)}" if returns and source.node.name != "__init__" else ""
    line = f"{title}({', '.join(arguments)}){arrow}"
    return line if len(line) <= 88 else "\n".join([f"{title}(", *(f"    {item}," for item in arguments), f"){arrow}"])


def _arguments(source: _Source) -> list[str]:
    assert isinstance(source.node, ast.FunctionDef)
    given = source.node.args
    positional = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(positional) - len(given.defaults)) + list(given.defaults)
    pairs = [pair for pair in zip(positional, defaults, strict=True) if pair[0].arg not in ("self", "cls")]
    words = [_argument(source, argument, default) for argument, default in pairs]
    if given.vararg:
        words.append("*" + _argument(source, given.vararg, None))
    elif given.kwonlyargs:
        words.append("*")
    words += [_argument(source, *pair) for pair in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    if given.kwarg:
        words.append("**" + _argument(source, given.kwarg, None))
    return words


def _argument(source: _Source, argument: ast.arg, default: ast.expr | None) -> str:
    word = f"{argument.arg}: {source.piece(argument.annotation)}" if argument.annotation else argument.arg
    return word if default is None else f"{word} = {source.piece(default)}"


def _fields(source: _Source) -> list[str]:
    """A table of the annotated fields, each with the string or the comment behind it."""
    body = source.node.body
    comments = _comments(source.text)
    rows = []
    for item, after in zip(body, [*body[1:], None], strict=True):
        if not isinstance(item, ast.AnnAssign) or source.piece(item.target).startswith("_"):
            continue
        told = comments.get(item.end_lineno or 0, "")
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            told = " ".join(str(after.value.value).split())
        rows.append((f"`{source.piece(item.target)}`", f"`{_cell(_kind(source, item))}`", _cell(told)))
    if not rows:
        return []
    told_at_all = any(told for _, _, told in rows)
    titles = ("field", "type", "meaning") if told_at_all else ("field", "type")
    lines = [titles, ("---",) * len(titles), *(row[: len(titles)] for row in rows)]
    return ["\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"]


def _kind(source: _Source, item: ast.AnnAssign) -> str:
    """A field's type and default."""
    if item.value is None:
        return source.piece(item.annotation)
    default = re.sub(r"^field\(default_factory=(\w+)\)$", r"\1()", source.piece(item.value))
    return f"{source.piece(item.annotation)} = {default}"


def _methods(source: _Source) -> list[str]:
    """Each public method and property under a small heading of its own."""
    parts = []
    name = source.node.name
    for item in source.node.body:
        if not isinstance(item, ast.FunctionDef) or item.name.startswith("_"):
            continue
        marks = [source.piece(mark) for mark in item.decorator_list]
        inner = _Source(source.text, item)
        line = _signature(inner, f"{name}.{item.name}")
        if "property" in marks:
            line = f"{name}.{item.name}: {source.piece(item.returns) if item.returns else 'Any'}"
        parts += [f"#### {name}.{item.name}\n", f"```python\n{line}\n```\n", _described(item)]
    return parts


def _comments(text: str) -> dict[int, str]:
    """The comment at the end of each line that has one."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}


# ----- settings and recipes -----


def settings_page() -> str:
    """Every key with its default and meaning, from config.py."""
    parts = [NOTE, SETTINGS_INTRO]
    for section, title in (
        ("model", "ModelConfig"),
        ("data", "DataConfig"),
        ("train", "TrainConfig"),
        ("refine", "RefineConfig"),
    ):
        parts.append(_section(section, title))
    return "\n".join(parts)


def recipes_page() -> str:
    """The recipes as they stand in their files, and what each promises."""
    rows = [f"| [{name}](#{name}) | {_cell(describe_recipe(name).expect)} |" for name in list_recipes()]
    table = ["| recipe | expect |", "| --- | --- |", *rows, ""]
    return "\n".join([NOTE, RECIPES_INTRO, *table, *map(_recipe, list_recipes())])


RECIPES_INTRO = """# Recipes

These come with the package; `scaleseg list recipes --json` has the same for programs. A recipe lists what differs from the
[defaults](settings.md). Figures are those of whoever is named with them; what needs archives or other runs first is in
[the paper's systems, datasets and tables](reproducing.md).
"""


SETTINGS_INTRO = """# Settings

A run is described by a [recipe](recipes.md), a short YAML file, and by settings behind it as `key=value`:

```bash
scaleseg train shapes-attention train.steps=60 model.fusion=max 'model.scales=[1.0, 0.5]' --out runs/max
```

- Lists are written as in YAML, `'model.scales=[1.0, 0.5]'`, in quotes so that the shell leaves them alone. `null` is "none".
- `data=FILE.yaml` takes the whole data section from a file, such as the `data.yaml` that `scaleseg data init` writes. Paths in
  that file are relative to it.
- A key that does not exist or a value of a wrong type is refused, with the nearest name that does exist.
- `recipe` may be the path of your own YAML file. It lists what differs from the defaults below.
- The settings of a run are saved beside it, in `config.yaml`; that file is itself a recipe and repeats the run.
- `scaleseg evaluate` takes the same `key=value`, on top of what the checkpoint was trained with.

The defaults are the paper's (section 4 there, and the released solver) where the meaning does not say otherwise. So they suit
VGG-16 on PASCAL VOC; to train on your own photographs, begin with the recipe `folder-lite0`.
"""


def _section(section: str, title: str) -> str:
    text = (PACKAGE / "config.py").read_text(encoding="utf-8")
    node = next(item for item in ast.parse(text).body if isinstance(item, ast.ClassDef) and item.name == title)
    source, comments = _Source(text, node), _comments(text)
    rows = []
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and item.value is not None:
            key = f"{section}.{source.piece(item.target)}"
            told = comments.get(item.end_lineno or 0) or MEANINGS.get(key, "")
            rows.append(f"| `{key}` | `{_plain(section, source.piece(item.target))}` | {_cell(told)} |")
    head = [f"## {section}\n", f"{ast.get_docstring(node)}\n", "| key | default | meaning |", "| --- | --- | --- |"]
    return "\n".join([*head, *rows]) + "\n"


def _plain(section: str, name: str) -> str:
    """A default as a YAML file would hold it."""
    value = getattr(getattr(scaleseg.Config(), section), name)
    if isinstance(value, tuple | dict):
        return str(list(value)) if isinstance(value, tuple) else str(value)
    return OmegaConf.to_yaml(OmegaConf.create({"x": value})).removeprefix("x:").strip()


def _recipe(name: str) -> str:
    """A recipe's own words, and its file."""
    recipe = describe_recipe(name)
    lines = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    told = [
        f"- {key}: {text}"
        for key, text in (("Expect", recipe.expect), ("Cost", recipe.cost), ("Note", recipe.note))
        if text
    ]
    settings = [line for line in lines if not line.startswith("#")]
    run = ["```bash", recipe.command, "```", ""]
    return "\n".join([f"## {name}\n", f"{recipe.about}\n", *told, "", *run, "```yaml", *settings, "```", ""])


def _cell(text: str) -> str:
    """Text for a table: no line breaks, no bars."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    main()
