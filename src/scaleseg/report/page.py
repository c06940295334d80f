"""The page: one file that asks nobody for anything. Pictures are data URIs, its policy forbids requests, no script runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from scaleseg.errors import UserError
from scaleseg.images import draw_weights
from scaleseg.report.figures import Figure
from scaleseg.report.gallery import Section, Shown
from scaleseg.report.headlines import Headline
from scaleseg.report.pictures import SIDES, Pictures, draw
from scaleseg.report.words import percent, plain, rough

__all__ = ["PAGE_BYTES", "Group", "Page", "Render", "compose", "template"]

PAGE_BYTES = 4_900_000
"""A page is below it if its pictures can be: the first of `SIDES` that fits is taken, else the last."""

Render = Callable[..., str]


class Group(NamedTuple):
    """Charts under a heading."""

    key: str
    title: str
    figures: Sequence[Figure]


@dataclass(frozen=True)
class Page:
    """What a page shows, top to bottom."""

    title: str
    lede: str
    facts: str
    model: str
    scales: tuple[float, ...]
    num_classes: int
    shown: Mapping[int, Shown]
    """Photographs by the indices that sections name."""
    sections: Sequence[Section]
    headlines: Sequence[Headline] = ()
    groups: Sequence[Group] = ()
    notes: Sequence[str] = ()
    """What a reader must know before anything else, such as that figures flatter."""
    footer: Sequence[tuple[str, str]] = field(default=())
    """Terms and what stands to each."""


def template(extra: str) -> Render:
    """The page as a function of what it shows; UserError names the `extra` that brings what is missing.

    Escaping is on: names come from files and checkpoints.
    """
    try:
        jinja2: Any = import_module("jinja2")
    except ImportError:
        raise UserError(
            f"the {extra} needs jinja2, which is not installed; run: pip install 'scaleseg[{extra}]'"
        ) from None
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parents[1] / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "rough": rough}
    render: Render = environment.get_template("report.html.jinja").render
    return render


def compose(render: Render, page: Page, *, limit: int = PAGE_BYTES) -> str:
    """The page, with pictures as large as `limit` bytes allow."""
    text, maps = "", min(len(page.scales), MAPS)
    for side in _sides(page):
        pictures = _drawn(page, side, limit if side != SIDES[-1] else None)
        if pictures is None:
            continue
        text = render(
            page=page,
            pictures=pictures,
            scales=[f"{scale:g}" for scale in page.scales],
            ramp=_ramp(),
            maps=maps,
            columns=maps * (1 + maps % 2),
        )
        text = plain(text)
        if len(text.encode()) < limit:
            break
    return text


MAPS = 4
"""Weight maps side by side, without labels; columns of such a row are as many, or twice as many where they are odd."""


def _drawn(page: Page, side: int, limit: int | None) -> dict[int, Pictures] | None:
    """Every photograph's pictures; None once they are, or go far towards being, more than the page may be."""
    pictures, letters = {}, 0
    shown = {index: one.maps for index, one in page.shown.items() if one.maps is not None}
    for count, (index, maps) in enumerate(shown.items(), start=1):
        pictures[index] = draw(maps, page.num_classes, side)
        letters += pictures[index].letters
        awaited = letters * len(shown) / count / (1 + 2 / count) if count >= 4 else letters
        if limit is not None and max(letters, awaited) >= limit:
            return None
    return pictures


def _sides(page: Page) -> list[int]:
    """SIDES from the first that makes any picture smaller, and the one before."""
    largest = max((max(one.maps.predicted.shape) for one in page.shown.values() if one.maps), default=SIDES[0])
    return [side for side, smaller in zip(SIDES, [*SIDES[1:], 0], strict=True) if smaller < largest]


def _ramp() -> str:
    """The colours of weight maps, for a gradient."""
    colours = np.asarray(draw_weights(torch.linspace(0, 1, 9)[None, None]))[0]
    return ", ".join("rgb({} {} {})".format(*colour) for colour in colours.tolist())
