"""The doctor: what it tells of this machine is so, and nothing that is broken breaks it."""

import json
import os
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
import torch

from scaleseg import __version__, checkpoint, devices, doctor
from scaleseg.doctor import Report, compute, examine, machine, packages
from scaleseg.errors import UserError


@pytest.fixture(scope="module")
def found() -> Report:
    """What the doctor finds here, timed once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compute, "ROUNDS", 1)
        return examine()


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Install a project called `evil` whose module does this when it is imported."""

    def install(code: str) -> None:
        for name, content in (
            ("evil/__init__.py", code),
            ("evil-1.5.dist-info/METADATA", "Metadata-Version: 2.1\nName: evil\nVersion: 1.5\n"),
            ("evil-1.5.dist-info/RECORD", "evil/__init__.py,,\n"),
        ):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(content)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "evil", raising=False)

    return install


def declare(monkeypatch: pytest.MonkeyPatch, *requires: str, extras: tuple[str, ...] = ()) -> None:
    """Pretend that scaleseg was installed with these requirements."""
    about = metadata.metadata("scaleseg")
    del about["Provides-Extra"]
    for extra in extras:
        about["Provides-Extra"] = extra
    monkeypatch.setattr(packages.metadata, "requires", lambda project: list(requires))
    monkeypatch.setattr(packages.metadata, "metadata", lambda project: about)


def seen(probe: Callable[[Report], None]) -> Report:
    """What one look tells."""
    report = Report()
    probe(report)
    return report


def test_it_finds_nothing_that_stops_the_work_here(found: Report) -> None:
    assert found.problems == []


def test_versions_are_those_of_this_process(found: Report) -> None:
    assert found.facts["scaleseg"]["scaleseg"] == __version__
    assert found.facts["packages"]["torch"] == torch.__version__
    assert found.facts["scaleseg"]["executable"] == sys.executable


def test_everything_it_found_can_be_written_as_json(found: Report) -> None:
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()
    assert {"devices", "extras", "hub", "disk", "memory", "models", "warnings", "problems"} <= found.to_dict().keys()


def test_every_section_has_a_line(found: Report) -> None:
    text = "\n".join(found.lines)
    for section in ("scaleseg", "packages", "processor", "devices", "memory", "models", "disk", "extras", "hub"):
        assert f"\n{section}  " in f"\n{text}"


def test_both_precisions_are_timed_and_the_gain_is_their_ratio(found: Report) -> None:
    cpu = found.facts["devices"]["all"][0]
    assert cpu["device"] == "cpu"
    assert cpu["float32_s"] > 0
    assert cpu["bf16_gain"] == pytest.approx(cpu["float32_s"] / cpu["bf16_s"])
    assert cpu["timed"] in checkpoint.list_bundled()


def test_what_auto_takes_is_what_the_other_verbs_take(found: Report) -> None:
    device = devices.choose_device("auto")
    assert found.facts["devices"]["auto"].startswith(str(device))
    taken = next(fact for fact in found.facts["devices"]["all"] if fact["device"] == found.facts["devices"]["auto"])
    helps = checkpoint.load(taken["timed"]).segmenter.bf16_helps
    assert taken["auto_precision"] == devices.choose_precision("auto", device, helps=helps)


def test_extras_come_from_the_installed_package(found: Report) -> None:
    declared = set(metadata.metadata("scaleseg").get_all("Provides-Extra") or [])
    extras = found.facts["extras"]
    assert (extras.keys() - {"not_used_yet"}) | set(extras["not_used_yet"]) == declared


def test_what_our_table_enables_is_declared() -> None:
    assert packages.USES.keys() <= set(metadata.metadata("scaleseg").get_all("Provides-Extra") or [])


def test_a_missing_extra_gets_its_line_of_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, "no-such-thing>=1; extra == 'demo'", "torch", extras=("demo",))
    report = seen(packages.extras)
    assert "demo: missing no-such-thing; run: pip install 'scaleseg[demo]'" in report.lines[0]
    assert report.facts["extras"]["demo"]["missing"] == ["no-such-thing"]
    assert report.problems == report.warnings == []


def test_an_extra_for_a_part_that_is_not_built_is_not_advertised(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, "no-such-thing; extra == 'teleport'", extras=("teleport",))
    report = seen(packages.extras)
    assert "nothing uses these so far: teleport" in report.lines[0]
    assert "pip install" not in "".join(report.lines)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise ImportError('no libGL.so.1')", "ImportError: no libGL.so.1"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("class Odd(BaseException): ...\nraise Odd", "Odd"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import", "SyntaxError"),
    ],
)
def test_a_broken_extra_is_reported_whatever_it_raises(
    code: str, said: str, evil: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    evil(code)
    declare(monkeypatch, "evil>=1; extra == 'demo'", "evil>=1; extra == 'train'", extras=("demo", "train"))
    report = seen(packages.extras)
    assert ["broken" in line for line in report.lines] == [True, True]
    assert len(report.warnings) == 1
    assert f"evil does not import ({said}" in report.warnings[0]


def test_ctrl_c_is_not_taken_for_a_broken_library(evil: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    evil("raise KeyboardInterrupt")
    declare(monkeypatch, "evil>=1")
    with pytest.raises(KeyboardInterrupt):
        examine()


def test_a_broken_requirement_is_a_problem_and_nothing_is_computed(
    evil: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    evil("raise OSError('libcudart.so.12: cannot open shared object file')")
    declare(monkeypatch, "evil>=1,<2")
    report = examine()
    assert len(report.problems) == 1
    assert "evil 1.5 does not import (OSError: libcudart.so.12" in report.problems[0]
    assert "pip install --force-reinstall 'evil<2,>=1'" in report.problems[0]
    assert "devices" not in report.facts
    assert "disk" in report.facts


def test_a_missing_requirement_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, "no-such-thing>=1")
    assert seen(packages.required).problems == ["no-such-thing is not installed; run: pip install 'no-such-thing>=1'"]


def test_a_requirement_of_another_system_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, "no-such-thing; sys_platform == 'amiga'")
    assert seen(packages.required).problems == []


def test_an_untried_version_is_a_warning(evil: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    evil("")
    declare(monkeypatch, "evil>=2")
    report = seen(packages.required)
    assert report.warnings == ["evil is 1.5, which was never tried; run: pip install 'evil>=2'"]
    assert report.problems == []


def test_scaleseg_in_a_folder_without_installation_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(project: str) -> list[str]:
        raise metadata.PackageNotFoundError(project)

    monkeypatch.setattr(packages.metadata, "requires", unknown)
    assert "scaleseg is not installed" in seen(packages.required).warnings[0]


def test_without_torch_it_still_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    report = examine()
    assert any(line.startswith(f"torch {torch.__version__} does not import") for line in report.problems)


def test_a_look_that_fails_is_a_warning_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def weather(report: Report) -> None:
        raise RuntimeError("rain\nand more")

    report = Report()
    doctor._look(report, weather, machine.hub)
    assert report.warnings == ["weather could not be looked at (RuntimeError: rain); report this"]
    assert "hub" in report.facts


def test_a_library_that_prints_does_not_reach_stdout(
    evil: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evil("print('welcome')\nraise ImportError")
    declare(monkeypatch, "evil")
    examine()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "welcome" in captured.err


def test_a_library_that_warns_is_heard(evil: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    evil("import warnings\nwarnings.warn('your driver is too old')\nraise ImportError")
    declare(monkeypatch, "evil")
    assert "a library warns: UserWarning: your driver is too old" in examine().warnings


def test_torchvision_of_another_build_is_a_warning(
    evil: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    evil("raise RuntimeError('operator torchvision::nms does not exist')")
    errors = packages.import_errors
    monkeypatch.setattr(packages, "import_errors", lambda name: errors("evil") if name == "torchvision" else [])
    report = seen(packages._combinations)
    assert "RuntimeError: operator torchvision::nms does not exist" in report.warnings[0]
    assert report.problems == []


@pytest.mark.parametrize(
    ("threads", "usable", "said"),
    [
        (64, 4, "64 threads on 4 cores, which slows it down; run: export OMP_NUM_THREADS=4"),
        (1, 16, "1 thread of 16 cores"),
        (4, 4, None),
        (1, 2, None),
    ],
)
def test_threads_that_do_not_fit_the_cores_are_a_warning(
    threads: int, usable: int, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(devices, "cores", lambda: usable)
    warned = seen(machine.threads).warnings
    assert len(warned) == (said is not None)
    assert said is None or said in warned[0]


def test_the_cause_of_one_thread_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(devices, "cores", lambda: 16)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert "OMP_NUM_THREADS=1" in seen(machine.threads).warnings[0]


@pytest.mark.parametrize(
    ("built", "visible", "said"),
    [
        (None, None, "is built without CUDA; run: pip uninstall -y torch && pip install torch"),
        ("12.8", "", "CUDA_VISIBLE_DEVICES hides every GPU"),
        ("12.8", None, "update the driver"),
    ],
    ids=["CPU build", "hidden", "too old"],
)
def test_an_nvidia_driver_that_torch_does_not_use_is_a_warning(
    built: str | None, visible: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compute, "_nvidia_driver", lambda: "550.54.14")
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    report = Report()
    compute._driver(report, has_cuda=False)
    assert said in report.warnings[0]


def test_a_driver_that_torch_uses_is_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "_nvidia_driver", lambda: "550.54.14")
    report = Report()
    compute._driver(report, has_cuda=True)
    assert report.warnings == []
    assert report.facts["nvidia_driver"] == "550.54.14"


@pytest.mark.parametrize(("is_chosen", "problems"), [(True, 1), (False, 0)])
def test_a_device_that_fails_is_a_problem_only_if_it_is_taken(is_chosen: bool, problems: int) -> None:
    report = Report()
    compute._judge(report, {"device": "cuda:0", "error": "no kernel image"}, is_chosen=is_chosen)
    assert (len(report.problems), len(report.warnings)) == (problems, 1 - problems)
    assert not problems or "use --device cpu" in report.problems[0]


@pytest.mark.parametrize(("gain", "precision", "warned"), [(0.4, "bf16", 1), (0.4, "float32", 0), (1.4, "bf16", 0)])
def test_bf16_that_slows_down_and_is_taken_is_a_warning(gain: float, precision: str, warned: int) -> None:
    report = Report()
    compute._judge(report, {"device": "cpu", "auto_precision": precision, "bf16_gain": gain}, is_chosen=True)
    assert len(report.warnings) == warned


def test_a_device_that_cannot_compute_is_told_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(place: torch.device) -> dict[str, object]:
        raise RuntimeError("CUDA error: no kernel image is available\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr(compute, "_timed", fail)
    report = seen(compute.devices)
    taken = report.facts["devices"]["auto"]
    assert len(report.problems) == 1
    assert report.problems[0].startswith(f"{taken} fails to compute (RuntimeError: CUDA error: no kernel image is av")


def test_without_bundled_models_another_network_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "list_bundled", tuple)
    assert compute._model_to_time()[1] == "lite0 with random parameters"


def test_a_damaged_bundled_model_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(name: str) -> None:
        raise UserError("model.safetensors is cut short")

    monkeypatch.setattr(checkpoint, "load", damaged)
    assert "model.safetensors is cut short" in seen(compute.models).problems[0]


def test_missing_bundled_models_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "list_bundled", tuple)
    assert "bundled models are gone" in seen(compute.models).problems[0]


@pytest.mark.parametrize(("free", "warned"), [(64 * 2**20, 1), (2**31, 0)])
def test_a_small_shared_memory_is_a_warning(free: int, warned: int, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = machine.shutil.disk_usage

    def fake(path: object) -> object:
        return usage("/")._replace(free=free if path == "/dev/shm" else 2**40)

    monkeypatch.setattr(machine.shutil, "disk_usage", fake)
    monkeypatch.setattr(Path, "is_dir", lambda path: True)
    warnings = seen(machine.disk).warnings
    assert len(warnings) == warned
    assert not warned or "--shm-size=1g" in warnings[0]


def test_a_full_disk_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    full = machine.shutil.disk_usage("/")._replace(free=2**20)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: full)
    assert "less than 1 GiB is free" in seen(machine.disk).warnings[0]


def test_little_free_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_available", lambda: 2**29)
    assert "less than 2 GiB of memory" in seen(machine.memory).warnings[0]


def test_the_hubs_settings_are_shown_and_its_secrets_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in machine.SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "https://user:password@mirror.example/hf")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    report = seen(machine.hub)
    assert report.facts["hub"] == {"HF_ENDPOINT": "https://mirror.example/hf", "HF_TOKEN": "set"}
    assert "secret" not in str(report) + "".join(report.lines)
    assert "password" not in str(report)


def test_a_program_that_is_missing_or_fails_says_nothing() -> None:
    assert machine.output("no-such-program-at-all") == ""
    assert machine.output(sys.executable, "-c", "print('half'); raise SystemExit(1)") == ""
    assert machine.output(sys.executable, "-c", "print(' whole ')") == "whole"


def test_the_processor_has_a_name(found: Report) -> None:
    assert found.facts["processor"]["processor"].strip()
    assert found.facts["processor"]["cores"] == os.cpu_count()


def test_a_cuda_device_is_told_with_its_memory_capability_and_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda place: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda place: (7, 5))
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(compute, "_nvidia_driver", lambda: "550.54.14")
    monkeypatch.setattr(devices, "has_bf16", lambda place: False)
    monkeypatch.setattr(devices, "memory", lambda place: 15 * 2**30)
    times = {"timed": "m", "rounds": 5, "float32_s": 0.02, "bf16_s": 0.01, "bf16_gain": 2.0}
    monkeypatch.setattr(compute, "_timed", lambda place: times)
    first, second = compute._device(torch.device("cuda", 1))["lines"]
    assert first == (
        "cuda:1 (Tesla T4): 15.0 GiB, capability 7.5, CUDA 12.8, driver 550.54.14, no bf16 in hardware, or not known"
    )
    assert "float32 20 ms, bf16 10 ms, 2.0 times as fast" in second


def test_the_drivers_version_is_nvidia_smis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "output", lambda *command: "550.54.14\n550.54.14")
    assert compute._nvidia_driver() == "550.54.14"


def test_a_hosts_driver_without_a_gpu_of_ones_own_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "output", lambda *command: "")
    monkeypatch.setattr(compute, "_has_gpu_nodes", lambda: False)
    assert compute._nvidia_driver() is None


@pytest.mark.parametrize(
    "told",
    [
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\nGCC version: 12.3.0",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.183.01  Release Build",
    ],
)
def test_without_nvidia_smi_the_drivers_version_is_the_kernels(told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "output", lambda *command: "")
    monkeypatch.setattr(compute, "_has_gpu_nodes", lambda: True)
    monkeypatch.setattr(Path, "read_text", lambda path, encoding: told)
    assert compute._nvidia_driver() == "535.183.01"
