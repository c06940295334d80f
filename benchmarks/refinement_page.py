"""What refinement.py measured, in words and tables between two markers of a page; and the picture of a cat."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from PIL import Image, ImageDraw, ImageFont

from scaleseg import UserError, atomic
from scaleseg.images import draw_edges, draw_overlay, to_tensor
from scaleseg.model import ScaleAware
from scaleseg.refine import Refine
from scaleseg.segmentation import at_image, predict

__all__ = ["BEGIN", "END", "PLACEHOLDER", "draw", "figures", "most_different", "png", "rewrite", "table"]

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
PLACEHOLDER = "Nothing is measured yet."
"""What stands between the markers before the first figures."""

WIDTH, GAP, ENLARGED = 908, 4, 2
"""Of the picture, in pixels; details are drawn so many times larger."""


def rewrite(page: Path, report: Mapping[str, Any], source: Path | None = None) -> None:
    """Put the figures between the page's markers; `source` is the JSON that they are in."""
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"--markdown {page} cannot be read ({error.strerror}); give a page with markers") from error
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise UserError(f"--markdown {page} has no line {BEGIN} with {END} below it; add them where figures go")
    atomic.write(page, f"{before}{BEGIN}\n{figures(report, _link(page, source))}{END}{after}")


def figures(report: Mapping[str, Any], link: str = "") -> str:
    """Tables and sentences; `link` leads to the JSON."""
    kinds, classes = report["kinds"], report["classes"]
    curve = [[kind, *(_percent(value) for value in one["curve"].values())] for kind, one in kinds.items()]
    each = [[kind, *(_percent(one["IoU"].get(name)) for name in classes)] for kind, one in kinds.items()]
    return "\n".join(
        [
            table(report),
            "",
            f"In percent, with 95 % intervals: how far the figure would move with other photographs of the same kind. "
            f"Differences are to `none` on the same photographs, in points. Seconds are medians, from scores to labels; "
            f"the network itself takes {report['network_seconds']:.3f} s.",
            *_said(report),
            "",
            "mIoU in percent within so many pixels of a label border:",
            "",
            _rows(["within", *(f"{width} px" for width in next(iter(kinds.values()))["curve"])], curve),
            "",
            "IoU in percent of each class, all pixels:",
            "",
            _rows(["class", *classes], each),
            "",
            "The settings:",
            "",
            *(f"- `{kind}`: `{one['settings']}`" for kind, one in kinds.items() if one["settings"] != "none"),
            "",
            _made(report, link),
            "",
        ]
    )


def table(report: Mapping[str, Any]) -> str:
    """One row a kind."""
    near = f"within {report['trimap']} px of borders"
    return _rows(
        ["refinement", "mIoU", "difference", near, "difference", "seconds"],
        [
            [
                kind,
                _percent(one["mIoU"], one["interval"]),
                _points(one, "all"),
                _percent(one["trimap_mIoU"], one["trimap_interval"]),
                _points(one, "trimap"),
                f"{one['seconds']:.3f}",
            ]
            for kind, one in report["kinds"].items()
        ],
    )


def draw(model: ScaleAware, kinds: Mapping[str, Refine | None]) -> Image.Image:
    """scikit-image's cat, its edge map if the model has one, and the detail where the refinements differ most."""
    photo = to_tensor(Image.fromarray(skimage.data.chelsea()))
    prediction = predict(model, photo, precision="float32")
    labels = {kind: at_image(prediction, photo, refine).argmax(dim=0).cpu() for kind, refine in kinds.items()}
    side = (WIDTH - GAP * (len(kinds) - 1)) // len(kinds) // ENLARGED
    top, left = most_different(torch.stack(list(labels.values())).numpy(), side)
    box = (left - 1, top - 1, left + side, top + side)
    whole = {"photograph": Image.fromarray(skimage.data.chelsea())}
    if prediction.edges is None:
        whole["none"] = draw_overlay(photo, labels["none"].to(torch.uint8), len(model.classes))
    else:
        whole["learned edges"] = draw_edges(prediction.edges[0].cpu()).convert("RGB")
    where = slice(top, top + side), slice(left, left + side)
    details = {
        f"{kind}, detail": _detail(photo[:, *where], found[where], len(model.classes)) for kind, found in labels.items()
    }
    return _stacked([_row({name: _boxed(image, box) for name, image in whole.items()}), _row(details)])


def most_different(labels: np.ndarray, side: int) -> tuple[int, int]:
    """(top, left) of the square of this side in which most pixels have not the same label in all of the maps."""
    differ = (labels != labels[:1]).any(axis=0)
    summed = np.pad(differ, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    counts = summed[side:, side:] - summed[:-side, side:] - summed[side:, :-side] + summed[:-side, :-side]
    top, left = np.unravel_index(counts.argmax(), counts.shape)
    return int(top), int(left)


def png(image: Image.Image) -> bytes:
    """256 colours: a third of the bytes, and hardly to be seen in a photograph of few."""
    content = io.BytesIO()
    image.quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(content, "PNG", optimize=True)
    return content.getvalue()


def _percent(value: float | None, interval: Sequence[float] | None = None) -> str:
    if value is None:
        return "absent"
    between = f" ({100 * interval[0]:.2f} to {100 * interval[1]:.2f})" if interval else ""
    return f"{100 * value:.2f}{between}"


def _points(one: Mapping[str, Any], which: str) -> str:
    if "difference" not in one:
        return ""
    value, (low, high) = one["difference"][which]["mIoU"], one["difference"][which]["interval"]
    return f"{100 * value:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _said(report: Mapping[str, Any]) -> list[str]:
    """What a reader of the table must know besides."""
    said = [f"`{kind}` is {why}." for kind, why in report["left_out"].items()]
    if report["not_in_labels"]:
        said.append(
            f"No label is {' or '.join(report['not_in_labels'])}: such a class is in the mean, as 0, only where a pixel is "
            "called so, and differences can come from that alone."
        )
    return said


def _made(report: Mapping[str, Any], link: str) -> str:
    """Who can repeat this, and where the numbers are."""
    parts = [
        f"`{report['command']}`",
        f"{report['images']} photographs of {report['data']}",
        report["precision"],
        f"{report['resamples']:,} resamples, seed {report['seed']}",
        f"{report['processors']}-core {report['cpu']}, {report['threads']} thread{'s' * (report['threads'] != 1)}",
        *([] if report["device"].startswith("cpu") else [report["device"]]),
        f"torch {report['torch']}",
        report["date"][:10],
    ]
    return f"Made by {'; '.join(parts)}{f' ({link})' if link else ''}."


def _link(page: Path, source: Path | None) -> str:
    """To the JSON, where the page's folder holds it."""
    if source is None or not source.resolve().is_relative_to(page.resolve().parent):
        return ""
    return f"[{source.name}]({source.resolve().relative_to(page.resolve().parent).as_posix()})"


def _detail(photo: torch.Tensor, labels: torch.Tensor, classes: int) -> Image.Image:
    """A part of the photograph, enlarged smoothly; its labels pixel by pixel, so that lines stay thin and true."""
    size = labels.shape[1] * ENLARGED, labels.shape[0] * ENLARGED
    larger = Image.fromarray(photo.permute(1, 2, 0).numpy()).resize(size, Image.Resampling.BICUBIC)
    ids = labels.repeat_interleave(ENLARGED, 0).repeat_interleave(ENLARGED, 1).to(torch.uint8)
    return draw_overlay(to_tensor(larger), ids, classes, opacity=0.5)


def _boxed(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    drawn = image.copy()
    pen = ImageDraw.Draw(drawn)
    pen.rectangle(box, outline="black", width=3)
    pen.rectangle((box[0] + 1, box[1] + 1, box[2] - 1, box[3] - 1), outline="white")
    return drawn


def _row(panels: Mapping[str, Image.Image]) -> Image.Image:
    """Side by side, each with its name below."""
    font = ImageFont.load_default(15)
    height = max(panel.height for panel in panels.values())
    width = sum(panel.width for panel in panels.values()) + GAP * (len(panels) - 1)
    sheet = Image.new("RGB", (width, height + 24), "white")
    left = 0
    for name, panel in panels.items():
        sheet.paste(panel, (left, 0))
        ImageDraw.Draw(sheet).text((left + 2, height + 3), name, "black", font)
        left += panel.width + GAP
    return sheet


def _stacked(rows: Sequence[Image.Image]) -> Image.Image:
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet
