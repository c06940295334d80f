"""Devices: which is taken, in which precision, and the one line that says why one is not enough."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from scaleseg import devices
from scaleseg.batch import find_images, segment_files
from scaleseg.devices import (
    Limits,
    autocast,
    choose_device,
    choose_precision,
    container_limits,
    cores,
    describe,
    explained,
    memory,
    memory_format,
    no_tf32,
    place,
)
from scaleseg.errors import UserError
from scaleseg.model import ScaleAware
from scaleseg.segmentation import predict, segment

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda", 1), torch.device("mps")

CPU_ALLOCATOR = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "400000000000000 bytes. Error code 12 (Cannot allocate memory)"
)
MPS_MEMORY = RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GB, max allowed: 18.1 GB). Tried to allocate")
MPS_OPERATOR = NotImplementedError(
    "The operator 'aten::_linalg_svd' is not currently implemented for the MPS device. If you want this op to be "
    "considered for addition please comment on the issue."
)
MPS_KERNEL = NotImplementedError("Could not run 'aten::grid' with arguments from the 'MPS' backend. This could be")
OUT_OF_MEMORY = [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."), "cuda:1"),
    (RuntimeError("CUDA error: out of memory"), "cuda:1"),
    (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "cuda:1"),
    (MPS_MEMORY, "cuda:1"),
    (MemoryError(), "cpu"),
    (CPU_ALLOCATOR, "cpu"),
    (RuntimeError("std::bad_alloc"), "cpu"),
]


def raising(error: BaseException) -> Callable[..., None]:
    """A function that raises."""

    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def sentence(error: BaseException, device: torch.device = CUDA, remedy: str = "lower train.batch") -> str:
    """What `explained` makes of an error."""
    with pytest.raises(UserError) as told, explained(device, remedy):
        raise error
    return str(told.value)


@pytest.mark.parametrize(("error", "where"), OUT_OF_MEMORY, ids=lambda value: str(value)[:30])
def test_out_of_memory_is_one_line_with_the_place_and_the_remedy(error: Exception, where: str) -> None:
    said = sentence(error)
    assert said.startswith(f"out of memory on {where}")
    assert said.endswith(": lower train.batch")
    assert len(said.splitlines()) == 1


def test_out_of_memory_says_how_much_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "memory", lambda device: 3 * 2**29)
    assert sentence(MemoryError()) == "out of memory on cpu (1.5 GiB): lower train.batch"


def test_the_allocators_own_error_is_known() -> None:
    with pytest.raises(UserError, match="out of memory on cpu"), explained(CPU, "shrink it"):
        torch.empty(10**14)


@pytest.mark.parametrize(
    ("error", "operator"), [(MPS_OPERATOR, "aten::_linalg_svd"), (MPS_KERNEL, "aten::grid")], ids=["named", "no kernel"]
)
def test_an_operator_that_mps_lacks_is_named_with_the_way_around(error: Exception, operator: str) -> None:
    assert sentence(error, MPS) == (
        f"mps lacks the operator {operator}; set PYTORCH_ENABLE_MPS_FALLBACK=1, or use --device cpu"
    )


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("size mismatch"),
        NotImplementedError("a method"),
        ValueError("no"),
        KeyboardInterrupt(),
        UserError("known"),
    ],
    ids=repr,
)
def test_any_other_error_passes_unchanged(error: BaseException) -> None:
    with pytest.raises(type(error)) as passed, explained(CPU, "lower train.batch"):
        raise error
    assert passed.value is error


def test_the_inner_remedy_wins() -> None:
    with pytest.raises(UserError, match=r"inner$"), explained(CPU, "outer"), explained(CPU, "inner"):
        raise MemoryError


@pytest.mark.parametrize("call", [segment, predict], ids=["segment", "predict"])
def test_an_image_too_large_for_the_device_is_a_users_error(
    call: Callable[..., object], model: ScaleAware, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.segmenter, "forward", raising(CPU_ALLOCATOR))
    with pytest.raises(UserError, match=r"out of memory on cpu.*shrink the image, or choose another --device"):
        call(model, torch.zeros(3, 9, 9, dtype=torch.uint8))


def test_a_file_too_large_for_the_device_is_named(
    model: ScaleAware, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.segmenter, "forward", raising(MemoryError()))
    with pytest.raises(UserError, match=r"shrink .*p0\.png, or"):
        segment(model, folder / "images" / "p0.png")


def test_among_many_files_those_too_large_are_skipped(
    model: ScaleAware, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last photograph has 35 rows, the others fewer."""
    forward = model.forward

    def limited(images: torch.Tensor) -> object:
        return forward(images) if images.shape[-2] < 35 else raising(CPU_ALLOCATOR)()

    monkeypatch.setattr(model, "forward", limited)
    items = find_images([str(folder / "images")], tmp_path / "out")
    outcome = segment_files(model, items, tmp_path / "out", save=["masks"])
    assert [item.name for item, _ in outcome.failed] == ["p5"]
    assert "shrink" in outcome.failed[0][1]
    assert "p5.png" in outcome.failed[0][1]
    assert len(outcome.done) == 5


def test_a_programming_error_among_many_files_is_not_swallowed(
    model: ScaleAware, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.segmenter, "forward", raising(RuntimeError("size mismatch")))
    items = find_images([str(folder / "images")], tmp_path / "out")
    with pytest.raises(RuntimeError, match="size mismatch"):
        segment_files(model, items, tmp_path / "out")


def machine(monkeypatch: pytest.MonkeyPatch, *, cuda: int = 0, mps: bool = False, built: bool = True) -> None:
    """Pretend to have these devices."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.version, "cuda", "12.8" if built else None)
    monkeypatch.setattr(torch.version, "hip", None)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(0, False, "cpu"), (0, True, "mps"), (2, False, "cuda"), (2, True, "cuda")]
)
def test_auto_takes_the_fastest_there_is(cuda: int, mps: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, cuda=cuda, mps=mps)
    assert choose_device("auto").type == expected


@pytest.mark.parametrize("name", ["cpu", "cpu:0", "cuda", "cuda:0", "cuda:1", "mps"])
def test_a_device_that_is_there_is_taken_as_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, cuda=2, mps=True)
    assert str(choose_device(name)) == name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cuda:2", "this machine has 2 cuda devices"),
        ("cpu:1", "this machine has 1 cpu device;"),
        ("mps", "this machine has 0 mps devices"),
        ("gpu", "choose auto, cpu, cuda, cuda:N or mps"),
        ("cuda:", "choose auto, cpu, cuda, cuda:N or mps"),
        ("cuda:-1", "choose auto, cpu, cuda, cuda:N or mps"),
        ("meta", "choose auto, cpu, cuda, cuda:N or mps"),
        ("", "choose auto, cpu, cuda, cuda:N or mps"),
    ],
)
def test_a_device_that_is_not_there_is_refused_with_what_is(
    name: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, cuda=2)
    with pytest.raises(UserError) as told:
        choose_device(name)
    assert repr(name) in str(told.value)
    assert said in str(told.value)


def test_cuda_on_a_torch_built_without_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, built=False)
    with pytest.raises(UserError, match=r"built without CUDA.*pip uninstall -y torch && pip install torch"):
        choose_device("cuda")


def test_cuda_without_a_gpu_is_not_blamed_on_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch)
    with pytest.raises(UserError, match="sees no CUDA device"):
        choose_device("cuda:0")


@pytest.mark.parametrize(
    ("helps", "hardware", "expected"), [(True, True, "bf16"), (True, False, "float32"), (False, True, "float32")]
)
def test_auto_precision_takes_bf16_only_where_it_helps_on_hardware_for_it(
    helps: bool, hardware: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "has_bf16", lambda device: hardware)
    assert choose_precision("auto", CPU, helps=helps) == expected


@pytest.mark.parametrize("asked", ["float32", "bf16"])
def test_a_precision_that_is_asked_for_is_taken(asked: str) -> None:
    assert choose_precision(asked, CPU, helps=False) == asked


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UserError, match="precision is 'fp16'; choose auto, float32 or bf16"):
        choose_precision("fp16", CPU, helps=True)


@pytest.mark.parametrize(("recent", "refused"), [(True, False), (False, True)])
def test_bf16_on_mps_needs_macos_14(recent: bool, refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: recent)
    if refused:
        with pytest.raises(UserError, match="needs macOS 14"):
            choose_precision("bf16", MPS, helps=True)
    else:
        assert choose_precision("bf16", MPS, helps=True) == "bf16"


def test_on_mps_auto_is_float32() -> None:
    assert choose_precision("auto", MPS, helps=True) == "float32"


@pytest.mark.parametrize("kind", ["cpu", "mps"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_autocast_is_on_for_bf16_alone(kind: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: True)
    with autocast(torch.device(kind), precision):
        assert torch.is_autocast_enabled(kind) is (precision == "bf16")
        if precision == "bf16":
            assert torch.get_autocast_dtype(kind) == torch.bfloat16


def test_float32_holds_inside_somebody_elses_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16), autocast(CPU, "float32"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


@pytest.mark.parametrize("before", [True, False])
def test_on_cuda_convolutions_keep_float32_and_the_setting_is_given_back(
    before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", before)
    with pytest.raises(ValueError, match=r"^inside$"), no_tf32(CUDA):
        assert not torch.backends.cudnn.allow_tf32
        raise ValueError("inside")
    assert torch.backends.cudnn.allow_tf32 is before


def test_elsewhere_the_setting_of_cuda_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    with no_tf32(CPU):
        assert torch.backends.cudnn.allow_tf32


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="this torch has only the older setting")
def test_settings_made_by_the_newer_name_are_left_alone() -> None:
    convolution = torch.backends.cudnn.conv
    before = convolution.fp32_precision
    convolution.fp32_precision = "ieee"  # reading the older name now raises
    try:
        with no_tf32(CUDA):
            assert convolution.fp32_precision == "ieee"
    finally:
        convolution.fp32_precision = before


def test_images_lie_channels_last_but_not_on_mps() -> None:
    formats = {device.type: memory_format(device) for device in (CPU, CUDA, MPS)}
    assert formats == {
        "cpu": torch.channels_last, "cuda": torch.channels_last, "mps": torch.contiguous_format
    }  # fmt: skip


def test_placing_a_model_lays_it_out_and_gives_it_back(model: ScaleAware) -> None:
    weight = model.fusion.hidden.weight
    assert weight.is_contiguous()
    assert place(model, CPU) is model
    assert model.fusion.hidden.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_model_that_does_not_fit_is_a_users_error(model: ScaleAware, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "to", raising(torch.OutOfMemoryError("CUDA out of memory.")))
    with pytest.raises(UserError, match=r"out of memory on cuda:1.*: choose another --device"):
        place(model, CUDA)


def test_every_device_can_be_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    assert describe(CUDA) == "cuda:1 (GPU 1)"
    assert describe(MPS) == "mps (Apple GPU)"
    assert describe(CPU) == f"cpu ({torch.get_num_threads()} of {os.cpu_count()} threads)"


@pytest.mark.parametrize("device", [CUDA, MPS], ids=str)
@pytest.mark.skipif(torch.cuda.device_count() > 1 or torch.backends.mps.is_available(), reason="they are there")
def test_memory_of_a_device_that_is_not_there_is_unknown(device: torch.device) -> None:
    assert memory(device) is None


def control_groups(root: Path, monkeypatch: pytest.MonkeyPatch, own: str, files: dict[str, str]) -> None:
    """Pretend that the kernel shows these files below /sys/fs/cgroup."""
    (root / "own").write_text(own)
    for name, content in files.items():
        path = root / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    monkeypatch.setattr(devices, "OWN_CGROUP", root / "own")
    monkeypatch.setattr(devices, "CGROUPS", root / "cgroup")


VERSION_1 = "4:memory:/box\n3:cpu,cpuacct:/box\n1:name=systemd:/\n"


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n", "memory.max": "1073741824\n"}, Limits(1.5, 2**30)),
        ("0::/\n", {"cpu.max": "max 100000\n", "memory.max": "max\n"}, Limits(None, None)),
        (
            "0::/user/session\n",
            {"user/cpu.max": "300000 100000", "user/session/cpu.max": "max 100000", "user/memory.max": "4096"},
            Limits(3.0, 4096),
        ),
        (
            "0::/a/b\n",
            {
                "a/memory.max": "100",
                "a/b/memory.max": "200",
                "a/cpu.max": "400000 100000",
                "a/b/cpu.max": "50000 100000",
            },
            Limits(0.5, 100),
        ),
        (
            VERSION_1,
            {
                "memory/memory.limit_in_bytes": "2147483648\n",
                "cpu/cpu.cfs_quota_us": "200000\n",
                "cpu/cpu.cfs_period_us": "100000\n",
            },
            Limits(2.0, 2**31),
        ),
        (
            VERSION_1,
            {
                "memory/box/memory.limit_in_bytes": "9223372036854771712\n",
                "cpu/box/cpu.cfs_quota_us": "-1\n",
                "cpu/box/cpu.cfs_period_us": "100000\n",
            },
            Limits(None, None),
        ),
        ("", {}, Limits(None, None)),
    ],
    ids=["v2", "v2 unlimited", "of a parent", "the tightest", "v1 in a container", "v1 unlimited", "nothing"],
)
def test_the_containers_limits_are_found(
    own: str, files: dict[str, str], expected: Limits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control_groups(tmp_path, monkeypatch, own, files)
    assert container_limits() == expected


def test_a_machine_without_control_groups_has_no_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "OWN_CGROUP", tmp_path / "none")
    assert container_limits() == Limits(None, None)


@pytest.mark.parametrize(("limit", "expected"), [(None, 8), (1.5, 2), (0.5, 1), (64.0, 8)])
def test_cores_are_bounded_by_affinity_and_container(
    limit: float | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(8), raising=False)
    monkeypatch.setattr(devices, "container_limits", lambda: Limits(limit, None))
    assert cores() == expected


def test_memory_is_bounded_by_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "container_limits", lambda: Limits(None, 12345))
    assert memory(CPU) == 12345


def faults(prepare: str) -> int:
    """Pages that a process takes from the system for blocks that it took and freed before."""
    code = (
        f"import resource, torch; from scaleseg.devices import keep_memory; torch.set_num_threads(1); {prepare};"
        "work = lambda: [torch.ones(10_000_000) for _ in range(4)] and None; [work() for _ in range(3)];"
        "before = resource.getrusage(0).ru_minflt; [work() for _ in range(5)];"
        "print(resource.getrusage(0).ru_minflt - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_kept_memory_is_not_asked_for_again() -> None:
    assert faults("keep_memory()") < 0.5 * faults("pass")  # of 5 x 4 x 9,766 pages
