"""What a model can be exported to: how the file is called, what writes and runs it, in which precisions."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from scaleseg.errors import UserError, choose

__all__ = ["FORMATS", "Format", "choose_format"]


@dataclass(frozen=True)
class Format:
    """One format."""

    name: str
    suffix: str
    """Of the file; none for a folder."""
    precisions: tuple[str, ...]
    """Of the parameters, as they lie in the file; all compute in float32, unless the user tells the runtime otherwise."""
    extra: str = ""
    """What to install of scaleseg; none where PyTorch does it all."""
    packages: tuple[str, ...] = ()
    """Which that brings."""
    usage: str = ""
    """A line of Python that runs it."""

    def require(self) -> None:
        """UserError if what writes and runs it is not installed."""
        absent = [package for package in self.packages if find_spec(package) is None]
        if absent:
            raise UserError(
                f"--format {self.name} needs {', '.join(absent)}, which is not here; pip install 'scaleseg[{self.extra}]'"
            )


FORMATS = {
    item.name: item
    for item in (
        Format(
            "pt2", ".pt2", ("float32",), usage='torch.export.load("{out}").module()(images)',
        ),
        Format(
            "onnx", ".onnx", ("float32", "float16"), "export", ("onnx", "onnxscript", "onnxruntime"),
            'onnxruntime.InferenceSession("{out}").run(None, {{"images": images}})',
        ),
        Format(
            "openvino", "", ("float32", "float16"), "openvino", ("openvino",),
            'openvino.compile_model("{out}/model.xml")(images)',
        ),
    )
}  # fmt: skip

FOREIGN = (".pt2", ".onnx", ".xml", ".bin", ".pt", ".pth", ".zip", ".safetensors")
"""A folder is not called so."""


def choose_format(name: str, precision: str, out: Path) -> Format:
    """The format, if it has that precision, its packages are here, and `out` is called as its files are; else UserError."""
    chosen = FORMATS[choose("--format", name, FORMATS)]
    if precision not in chosen.precisions:
        others = [other.name for other in FORMATS.values() if precision in other.precisions]
        instead = f"; --format {' or '.join(others)} has it" if others else ""
        raise UserError(f"--precision is {precision!r}; {name} is written in {' or '.join(chosen.precisions)}{instead}")
    if chosen.suffix and out.suffix != chosen.suffix:
        raise UserError(f"{out} is no name for --format {name}; its files end in {chosen.suffix}")
    if not chosen.suffix and out.suffix in FOREIGN:
        raise UserError(
            f"{out} is no name for --format {name}, which writes a folder with model.xml and model.bin; leave "
            f"{out.suffix} out"
        )
    chosen.require()
    return chosen
