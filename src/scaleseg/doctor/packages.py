"""The libraries: which scaleseg needs, which its extras bring, and whether they work here."""

from importlib import import_module, metadata
from typing import TYPE_CHECKING

from scaleseg.doctor.report import Report, first_line, said

if TYPE_CHECKING:
    from packaging.requirements import Requirement

__all__ = ["USES", "extras", "import_errors", "required"]

USES = {
    "train": "TensorBoard curves of a training run",
    "lite0": "ImageNet parameters of the segmenter lite0, to train it on photographs",
    "demo": "photographs and page of `scaleseg demo`",
    "report": "`scaleseg evaluate --deep`, `report` and `compare`",
    "serve": "`scaleseg serve`: the viewer, and the server for programs",
    "docs": "building the documentation",
    "data": "COCO's annotations for `scaleseg data prepare coco`",
    "export": "`scaleseg export` to ONNX, and the engine onnx",
    "openvino": "`scaleseg export` to OpenVINO, and the engine openvino with its 8 bits",
    "ray": "`scaleseg predict --distributed`",
    "crf": "comparing our CRF with pydensecrf2 in tests and benchmarks/refine.py",
    "filters": "comparing with OpenCV in tests and benchmarks/refine.py",
    "dev": "working on scaleseg itself",
}
"""What an extra enables today. An extra that is not here is declared for a part that is not built yet."""


def required(report: Report) -> None:
    """What scaleseg always needs: whether it is there, in a version that is wanted, and can be imported."""
    facts = {}
    for requirement in _requirements(None):
        name, wanted = requirement.name, f"{requirement.name}{requirement.specifier}"
        version = facts[name] = _version(name)
        if version is None:
            report.problems.append(f"{name} is not installed; run: pip install '{wanted}'")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            report.warnings.append(f"{name} is {version}, which was never tried; run: pip install '{wanted}'")
        for error in import_errors(name):
            again = f"pip install --force-reinstall '{wanted}'"
            report.problems.append(f"{name} {version} does not import ({error}); run: {again}")
    report.add("packages", facts, ", ".join(f"{name} {version or 'missing'}" for name, version in facts.items()))
    if not facts:
        report.warnings.append(
            "scaleseg is not installed, so what it needs is not known; run: pip install . (in the checkout)"
        )
    if not report.problems:
        _combinations(report)


def extras(report: Report) -> None:
    """What of pyproject's optional dependencies is there, read off the installed package."""
    facts, lines = {}, []
    declared = _declared_extras()
    for extra in [name for name in USES if name in declared]:
        versions = {requirement.name: _version(requirement.name) for requirement in _requirements(extra)}
        broken = {} if extra == "dev" else {name: error for name in versions for error in import_errors(name)}
        missing = [name for name, version in versions.items() if version is None]
        facts[extra] = {"enables": USES[extra], "versions": versions, "missing": missing, "broken": broken}
        state = f"missing {', '.join(missing)}; run: pip install 'scaleseg[{extra}]'" if missing else "installed"
        lines.append(f"{extra}: {state if missing or not broken else 'broken'} ({USES[extra]})")
        found = [
            f"{name} does not import ({error}); run: pip install --force-reinstall {name}"
            for name, error in broken.items()
        ]
        report.warnings += [line for line in found if line not in report.warnings]  # two extras may bring the same
    unused = sorted(set(declared) - USES.keys())
    lines += [f"nothing uses these so far: {', '.join(unused)}"] if unused else []
    report.add("extras", {**facts, "not_used_yet": unused}, *(lines or ["not known: scaleseg is not installed"]))


def import_errors(project: str) -> list[str]:
    """Why an installed project cannot be imported: nothing, or one reason for each of its modules that fail."""
    try:
        files = metadata.files(project) or []
    except metadata.PackageNotFoundError:
        return []
    names = {file.parts[0] for file in files if len(file.parts) == 2 and file.name == "__init__.py"}
    own = project.lower().replace("-", "_")
    errors = []
    for name in sorted({own} & names or names):  # torch brings torchgen too, which is not for us
        try:
            import_module(name)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            errors.append(said(error))
    return errors


def _combinations(report: Report) -> None:
    """Libraries that each import and yet fail together."""
    import torch

    try:
        torch.zeros(1).numpy()
    except RuntimeError as error:
        report.problems.append(
            f"torch cannot use numpy ({first_line(str(error))}); run: pip install --upgrade --force-reinstall numpy"
        )
    # torchvision registers kernels of its own build of torch: beside another it does not import, nor do its users.
    for reason in import_errors("torchvision"):
        report.warnings.append(
            f"torchvision does not import beside torch {torch.__version__} ({reason}); scaleseg does without it, but "
            "libraries that find it stumble; run: pip uninstall torchvision"
        )


def _declared_extras() -> list[str]:
    try:
        return metadata.metadata("scaleseg").get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return []


def _requirements(extra: str | None) -> "list[Requirement]":
    """What the installed scaleseg says it needs: always (None), or for an extra."""
    from packaging.requirements import Requirement

    try:
        every = [Requirement(text) for text in metadata.requires("scaleseg") or []]
    except metadata.PackageNotFoundError:
        return []
    always = [item for item in every if item.marker is None or item.marker.evaluate({"extra": ""})]
    if extra is None:
        return always
    return [item for item in every if item not in always and item.marker and item.marker.evaluate({"extra": extra})]


def _version(project: str) -> str | None:
    try:
        return metadata.version(project)
    except metadata.PackageNotFoundError:
        return None
