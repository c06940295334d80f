"""The house's rules, read off the source: floors of imports, a docstring and `__all__` everywhere, one place for resizing."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import scaleseg

ROOT = Path(scaleseg.__file__).parent

FLOORS = (
    {"errors"},  # the ground: UserError may be raised from everywhere
    {"geometry", "config", "atomic", "devices", "interruption"},
    {"segmenters", "fusion", "loss", "metrics", "transforms", "images", "refine", "caffe", "download", "samples"},
    {"model", "datasets", "recipes"},
    {"engines"},
    {"segmentation", "checkpoint", "data_check", "prepare"},
    {"evaluation", "hub", "caffe_import"},
    {"training", "export", "batch", "refine_search", "analysis"},
    {"ablate", "report", "server", "benchmark", "distributed", "doctor", "voc_server"},
    {"demo"},
    {"cli"},
    {"__main__"},
)
FIRST = -1
"""An import goes to a strictly lower floor, or inside its own folder."""

FACE = "__init__"
"""The package itself: it names everything, resolved on first use; of it, modules may only take `__version__`."""


def modules() -> dict[str, str]:
    """Source of every module, by its dotted path below scaleseg (`datasets.folder`, `datasets`, `__init__`)."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        inner = parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts
        found[".".join(inner)] = path.read_text(encoding="utf-8")
    return found


MODULES = modules()


def unit(module: str) -> str:
    """The file or folder right below scaleseg that a module belongs to."""
    return module.partition(".")[0]


def floor(module: str) -> int | None:
    """The floor of a module; None if it has no place in the house."""
    return next((number for number, units in enumerate(FLOORS, FIRST) if unit(module) in units), None)


def imports(source: str, module: str = "", *, package: bool = False) -> Iterator[str]:
    """What a module imports of scaleseg, wherever in it, as dotted paths below scaleseg; the face is `__init__`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == "scaleseg":
                    yield alias.name.partition(".")[2] or FACE
        elif isinstance(node, ast.ImportFrom):
            yield from _imported_from(node, module, package)


def _imported_from(node: ast.ImportFrom, module: str, package: bool) -> Iterator[str]:
    path = (node.module or "").split(".") if node.module else []
    if node.level:
        here = ["scaleseg", *module.split(".")]
        path = here[: len(here) - node.level + package] + path
    if path[:1] != ["scaleseg"]:
        return
    if path[1:]:
        yield ".".join(path[1:])
        return
    for alias in node.names:
        if alias.name != "__version__":
            yield alias.name if floor(alias.name) is not None or alias.name in MODULES else FACE


def violations(module: str, source: str, *, package: bool = False) -> list[str]:
    """Imports of a module that go sideways or up, as sentences."""
    own = floor(module)
    if own is None:
        return [f"{module} is on no floor"]
    wrong = []
    for target in imports(source, module, package=package):
        there = floor(target)
        if there is None or (there >= own and unit(target) != unit(module)):
            wrong.append(f"{module} (floor {own}) imports {target} (floor {there})")
    return wrong


def is_package(module: str) -> bool:
    return (ROOT / module.replace(".", "/")).is_dir()


def names_used(source: str) -> set[str]:
    """Every name that a source reads, takes of something, or imports."""
    used: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            used.add(node.id)
        elif isinstance(node, ast.Attribute):
            used.add(node.attr)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            used.update(alias.name for alias in node.names)
    return used


def public_and_defined(source: str) -> tuple[set[str] | None, set[str]]:
    """The names in `__all__`, None without one, and the names that the module's top level defines or imports."""
    public, defined = None, set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            defined.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            defined.update(part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name))
            if "__all__" in defined and public is None and node.value is not None:
                public = set(ast.literal_eval(node.value))
    return public, defined - {"__all__"}


@pytest.mark.parametrize("module", [name for name in MODULES if name != FACE])
def test_an_import_goes_to_a_lower_floor_or_inside_its_own_folder(module: str) -> None:
    assert violations(module, MODULES[module], package=is_package(module)) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("geometry", "from scaleseg.model import ScaleAware"),  # up
        ("loss", "from scaleseg.fusion import Max"),  # sideways, between parts of floor 1
        ("loss", "def late():\n    import scaleseg.fusion"),  # inside a function
        ("fusion", "from scaleseg import checkpoint"),  # a module taken from the package
        ("images", "from scaleseg import segment"),  # a public name, which lives above
        ("datasets.folder", "from ..model import ScaleAware"),  # relative, sideways
        ("datasets.folder", "import scaleseg"),  # the face
        ("newcomer", "import torch"),  # on no floor
        ("evaluation", "from scaleseg.newcomer import value"),  # from no floor
    ],
)
def test_the_check_catches_a_planted_violation(module: str, source: str) -> None:
    assert len(violations(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("model", "from scaleseg.fusion import Fusion"),
        ("checkpoint", "from scaleseg import atomic"),
        ("datasets.folder", "from scaleseg.datasets.archive import Archive"),
        ("datasets.folder", "from .archive import Archive"),
        ("demo", "from scaleseg import __version__"),
        ("geometry", "import torch"),
    ],
)
def test_the_check_lets_good_imports_pass(module: str, source: str) -> None:
    assert violations(module, source) == []


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_a_docstring(module: str) -> None:
    assert ast.get_docstring(ast.parse(MODULES[module]))


@pytest.mark.parametrize("module", [name for name in MODULES if name not in ("__main__", FACE)])
def test_a_module_says_what_is_public_and_defines_it(module: str) -> None:
    public, defined = public_and_defined(MODULES[module])
    assert public is not None
    assert public <= defined


def test_the_check_catches_a_missing_and_a_wrong_list_of_public_names() -> None:
    assert public_and_defined("def f(): ...") == (None, {"f"})
    assert public_and_defined("__all__ = ['g']\ndef f(): ...")[0] == {"g"}


@pytest.mark.parametrize("name", scaleseg.__all__)
def test_a_public_name_of_the_package_resolves(name: str) -> None:
    assert getattr(scaleseg, name) is not None


@pytest.mark.parametrize("module", [name for name in MODULES if name != "geometry"])
def test_only_geometry_resizes(module: str) -> None:
    assert not names_used(MODULES[module]) & {"interpolate", "upsample", "Upsample", "grid_sample"}


@pytest.mark.parametrize("source", ["import torch.nn.functional as F\nF.interpolate(x)", "from a import interpolate"])
def test_the_check_catches_a_planted_resize(source: str) -> None:
    assert "interpolate" in names_used(source)


def test_no_module_is_a_drawer_for_everything() -> None:
    drawers = {"utils", "util", "common", "helpers", "helper", "misc"}
    assert [module for module in MODULES if drawers & set(module.split("."))] == []


@pytest.mark.parametrize("module", MODULES)
def test_nobody_imports_pickle(module: str) -> None:
    assert not names_used(MODULES[module]) & {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal"}


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, scaleseg; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT.parent)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False, timeout=60).returncode == 0


def test_the_face_refuses_a_name_it_does_not_have() -> None:
    with pytest.raises(AttributeError, match="no attribute 'segmentt'"):
        _ = scaleseg.segmentt
