"""The card of a published model: what its settings and recorded figures say, or its author's own words."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from scaleseg.config import ModelConfig
from scaleseg.model import ScaleAware

__all__ = ["headed", "write_card"]


def headed(card: str, settings: ModelConfig, license: str | None, base_model: str | None) -> str:
    """The card that an author wrote, with what the Hub reads at its head if it has none."""
    return card if card.startswith("---") else f"---\n{_front_matter(settings, license, base_model)}\n---\n\n{card}"


def write_card(
    model: ScaleAware,
    settings: ModelConfig,
    classes: Sequence[str],
    *,
    name: str,
    about: Mapping[str, Any],
    dtype: torch.dtype | None,
    license: str | None,
    base_model: str | None,
) -> str:
    """A card that says nothing but what settings and figures (`about`) say. `name` is what loads the model."""
    scales = ", ".join(f"{scale:g}" for scale in settings.scales)
    stored = dtype or next(model.parameters()).dtype
    count = sum(parameter.numel() for parameter in model.parameters())
    options = "".join(f", {_text(key)} {_text(value)}" for key, value in settings.options.items())
    listed = "\n".join(f"{index}. {_text(name)}" for index, name in enumerate(classes))
    return _CARD.format(
        head=_front_matter(settings, license, base_model),
        title=f"{settings.segmenter} at {_counted(len(settings.scales), 'scale')}: {_counted(len(classes), 'class')}",
        segmenter=f"{settings.segmenter}{options}",
        fusion=_FUSIONS.get(settings.fusion, settings.fusion),
        scales=scales,
        parameters=f"{count:,}, stored as {str(stored).removeprefix('torch.')}",
        classes=listed,
        figures=_figures_table(about),
        place="in this folder" if name == "." else "from the Hub",
        name=name,
    )


_FUSIONS = {
    "attention": "attention: weights over scales, learned for every pixel",
    "average": "average over scales",
    "max": "maximum over scales",
}

_CARD = """\
---
{head}
---

# {title}

Semantic segmentation with scaleseg, in the manner of
[Attention to Scale](https://arxiv.org/abs/1511.03339) (Chen et al., CVPR 2016): one network looks at an image at several
scales, and the score maps are merged.

| | |
| --- | --- |
| network for one scale | {segmenter} |
| scales | {scales} |
| merged by | {fusion} |
| parameters | {parameters} |

## Classes

By their ids in a label image:

{classes}

## Figures

{figures}

## Use

With scaleseg installed, {place}:

```python
import scaleseg

model = scaleseg.load("{name}")
result = scaleseg.segment(model, "photo.jpg")
result.overlay().save("overlay.png")
```

```sh
scaleseg predict {name} photo.jpg --out out/
```

For classes of your own, to be trained further (the trunk is kept, the head starts fresh):

```python
model = scaleseg.from_pretrained("{name}", classes=("ground", "thing"))
```

## Data and limits

What it was trained on, what it is meant for and where it fails is not recorded in its files; its author can say it here.
"""


def _front_matter(settings: ModelConfig, license: str | None, base_model: str | None) -> str:
    """YAML that the Hub reads; strings are quoted as JSON, which is YAML too."""
    lines = ["library_name: scaleseg", "pipeline_tag: image-segmentation"]
    lines += ["tags:", "- semantic-segmentation", "- multi-scale"]
    lines += ["- attention-to-scale"] if settings.fusion == "attention" else []
    lines += [f"license: {json.dumps(license)}"] if license else []
    lines += [f"base_model: {json.dumps(base_model)}"] if base_model else []
    return "\n".join(lines)


def _figures_table(about: Mapping[str, Any]) -> str:
    rows = [f"| {_text(name)} | {_text(value)} |" for name, value in _flat(about)]
    if not rows:
        return "None are recorded with this model."
    table = "\n".join(["| | |", "| --- | --- |", *rows])
    return f"As recorded in `config.json` (`about`); shares are fractions, not percent.\n\n{table}"


def _flat(about: Mapping[str, Any], path: str = "") -> list[tuple[str, Any]]:
    return [
        pair
        for name, value in about.items()
        for pair in (_flat(value, f"{path}{name}.") if isinstance(value, Mapping) else [(f"{path}{name}", value)])
    ]


def _text(value: Any) -> str:
    """One line of plain text: nothing in it is read as Markdown or HTML."""
    plain = " ".join((f"{value:.6g}" if isinstance(value, float) else str(value)).split())
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>()#+!|~&" else letter for letter in plain)


def _counted(count: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count} {noun if count == 1 else plural}"
