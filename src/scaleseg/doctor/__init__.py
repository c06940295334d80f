"""What this machine can do with scaleseg, partly measured, and what stands in its way.

Looking must not fail: what cannot be found out is a warning, and so is what costs speed or an extra; what stops
segmenting, training or the demo is a problem. torch is imported late, for a broken one is among what is looked for.
"""

import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout

from scaleseg.doctor import compute, machine, packages
from scaleseg.doctor.report import Report, first_line, said

__all__ = ["Report", "examine"]


def examine() -> Report:
    """Look at everything; takes a few seconds, for both precisions are timed on every device. Writes nothing."""
    report = Report()
    with redirect_stdout(sys.stderr), warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        _look(report, machine.system, packages.required)
        if not report.problems:  # the rest computes
            _look(report, machine.threads, compute.devices, machine.memory, compute.models)
        _look(report, machine.disk, packages.extras, machine.hub)
    told = {f"{item.category.__name__}: {first_line(str(item.message))}" for item in heard if _matters(item.category)}
    report.warnings += [f"a library warns: {line}" for line in sorted(told)]
    return report


def _look(report: Report, *probes: Callable[[Report], None]) -> None:
    for probe in probes:
        try:
            probe(report)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a broken library may raise anything, SystemExit too
            report.warnings.append(f"{probe.__name__} could not be looked at ({said(error)}); report this")


def _matters(category: type[Warning]) -> bool:
    """A DeprecationWarning and its kin are for a library's authors."""
    return issubclass(category, UserWarning | RuntimeWarning)
