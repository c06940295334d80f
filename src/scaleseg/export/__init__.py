"""A model as one file for programs without scaleseg: written by `export_model`, compared with PyTorch by `verify_export`."""

from scaleseg.export.formats import FORMATS, Format, choose_format
from scaleseg.export.verify import TOLERANCE, Difference, Verified, verify_export
from scaleseg.export.write import Exported, check_out, export_model

__all__ = [
    "FORMATS",
    "TOLERANCE",
    "Difference",
    "Exported",
    "Format",
    "Verified",
    "check_out",
    "choose_format",
    "export_model",
    "verify_export",
]
