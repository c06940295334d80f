"""Checkpoints: bit-equal round trips, damage told in a sentence, nothing executed, and writes that are whole or not at all."""

import errno
import json
import os
import pickle
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import CLASSES, small_config, small_model
from scaleseg import atomic
from scaleseg.checkpoint import list_bundled, load, load_training_state, locate, read_config, save, start_from
from scaleseg.errors import UserError
from scaleseg.model import ScaleAware, create_model


@pytest.fixture
def saved(tmp_path: Path, model: ScaleAware) -> Path:
    """A checkpoint of the tiny model, with a training state."""
    folder = tmp_path / "step-7"
    save(folder, model, small_config(), training_state={"step": 7, "lr": 0.1}, about={"step": 7})
    return folder


def names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def edit_config(folder: Path, section: str, key: str, value: object) -> None:
    path = folder / "config.json"
    document = json.loads(path.read_text())
    if section:
        document[section][key] = value
    else:
        document[key] = value
    path.write_text(json.dumps(document))


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def same(one: ScaleAware, other: ScaleAware) -> bool:
    own, others = one.state_dict(), other.state_dict()
    return own.keys() == others.keys() and all(torch.equal(own[name], others[name]) for name in own)


@pytest.mark.parametrize("fusion", ["average", "max", "attention"])
def test_a_model_comes_back_bit_for_bit(fusion: str, tmp_path: Path) -> None:
    model = small_model(fusion)
    save(tmp_path / "saved", model, small_config(fusion=fusion))
    assert same(load(tmp_path / "saved"), model)


def test_a_loaded_model_is_in_evaluation_mode(saved: Path) -> None:
    assert not load(saved).training


def test_a_loaded_model_knows_its_classes_and_scales(saved: Path) -> None:
    model = load(saved)
    assert (model.classes, model.scales) == (CLASSES, (1.0, 0.5))


def test_half_precision_is_close_and_half_as_large(saved: Path, model: ScaleAware, tmp_path: Path) -> None:
    save(tmp_path / "half", model, small_config(), dtype=torch.float16)
    whole, half = model.state_dict(), load(tmp_path / "half").state_dict()
    for name in whole:
        torch.testing.assert_close(half[name], whole[name], rtol=2**-10, atol=1e-7)
    sizes = [sum(t.nbytes for t in load_file(f / "model.safetensors").values()) for f in (tmp_path / "half", saved)]
    assert sizes[0] < 0.51 * sizes[1]


def test_saving_leaves_the_model_as_it_was(model: ScaleAware, tmp_path: Path) -> None:
    model.train()
    save(tmp_path / "saved", model, small_config(), dtype=torch.float16)
    assert model.training
    assert same(model, small_model())


def test_the_settings_come_back(saved: Path) -> None:
    assert read_config(saved) == small_config()


def test_a_label_map_comes_back_with_numbers_for_keys(tmp_path: Path, model: ScaleAware) -> None:
    config = small_config()
    config.data.label_map.update({7: 1, 255: 255})
    save(tmp_path / "saved", model, config)
    assert read_config(tmp_path / "saved").data.label_map == {7: 1, 255: 255}


def test_the_training_state_comes_back(saved: Path) -> None:
    assert load_training_state(saved) == {"step": 7, "lr": 0.1}


def test_saving_again_replaces_everything(saved: Path) -> None:
    save(saved, small_model(seed=5), small_config())
    assert same(load(saved), small_model(seed=5))
    assert names(saved) == ["config.json", "model.safetensors"]


def test_a_file_that_is_missing_is_named(saved: Path) -> None:
    (saved / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model\.safetensors is missing"):
        load(saved)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_parameters_cut_short_are_a_user_error(share: float, saved: Path) -> None:
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read"):
        load(saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_parameters_that_are_no_numbers_are_named(value: float, saved: Path) -> None:
    edit_tensors(saved, lambda tensors: tensors["segmenter.head.bias"].fill_(value))
    with pytest.raises(UserError, match=r"NaN or infinity in segmenter\.head\.bias"):
        load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update(stranger=torch.ones(1)), "surplus .'stranger'."),
        (lambda t: t.pop("mean"), "missing .'mean'."),
        (lambda t: t.update(mean=torch.ones(4)), r"mean is \(4,\); config\.json means \(3, 1, 1\)"),
        (lambda t: t.update({"segmenter.head.bias": torch.ones(1)}), r"head\.bias is \(1,\)"),
    ],
)
def test_parameters_that_do_not_fit_are_named(
    change: Callable[[dict[str, torch.Tensor]], object], message: str, saved: Path
) -> None:
    edit_tensors(saved, change)
    with pytest.raises(UserError, match=message):
        load(saved)


@pytest.mark.parametrize("text", [b"no json", b"", b"[]", b"5", b"\xff\xfe", b'{"format": 1}', b"[" * 100_000])
def test_a_config_that_is_none_is_a_user_error(text: bytes, saved: Path) -> None:
    (saved / "config.json").write_bytes(text)
    with pytest.raises(UserError, match=r"config\.json"):
        load(saved)


@pytest.mark.parametrize("number", [2, 0, "1", None])
def test_another_format_is_refused(number: object, saved: Path) -> None:
    edit_config(saved, "", "format", number)
    with pytest.raises(UserError, match="format"):
        load(saved)


@pytest.mark.parametrize("name", ["os.system", "scaleseg.atomic", "..atomic", "contract", "sources", "/etc/passwd", ""])
def test_a_segmenter_is_looked_up_among_our_own_only(name: str, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported = []
    monkeypatch.setattr("scaleseg.segmenters.import_module", imported.append)
    edit_config(saved, "model", "segmenter", name)
    with pytest.raises(UserError, match=r"model\.segmenter"):
        load(saved)
    assert imported == []


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("model", "fusion", "maxx"),
        ("model", "scales", []),
        ("model", "scales", [0]),
        ("model", "attention_width", -1),
        ("model", "attention_width", "wide"),
        ("model", "attention_dropout", 7),
        ("model", "options", {"width": -4}),
        ("model", "options", {"width": "x"}),
        ("model", "options", {"depth": 3}),
        ("data", "classes", []),
        ("data", "classes", [str(index) for index in range(256)]),
        ("data", "label_map", {"a": 1}),
        ("data", "label_map", 5),
        ("data", "stranger", 1),
        ("", "model", 5),
        ("", "data", None),
        ("", "data", [1]),
    ],
)
def test_a_damaged_config_is_a_user_error(section: str, key: str, value: object, saved: Path) -> None:
    edit_config(saved, section, key, value)
    with pytest.raises(UserError):
        load(saved)


def test_a_config_reads_nothing_of_the_environment(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALESEG_SECRET", "hush")
    edit_config(saved, "data", "classes", ["a", "b", "${oc.env:SCALESEG_SECRET}"])
    try:
        classes = load(saved).classes
    except UserError:
        return
    assert "hush" not in classes


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_in_place_of_a_training_state_is_not_executed(saved: Path, tmp_path: Path) -> None:
    (saved / "training_state.pt").write_bytes(pickle.dumps(Trap(tmp_path / "trap")))
    with pytest.raises(UserError, match=r"training_state\.pt is no training state"):
        load_training_state(saved)
    assert not (tmp_path / "trap").exists()


def test_a_pickle_inside_a_training_state_is_not_executed(saved: Path, tmp_path: Path) -> None:
    torch.save({"step": 1, "trap": Trap(tmp_path / "trap")}, saved / "training_state.pt")
    with pytest.raises(UserError, match=r"training_state\.pt is no training state"):
        load_training_state(saved)
    assert not (tmp_path / "trap").exists()


def test_a_pickle_in_place_of_the_parameters_is_not_executed(saved: Path, tmp_path: Path) -> None:
    (saved / "model.safetensors").write_bytes(pickle.dumps(Trap(tmp_path / "trap")))
    with pytest.raises(UserError, match="cannot be read"):
        load(saved)
    assert not (tmp_path / "trap").exists()


def test_a_missing_training_state_says_what_else_can_be_done(saved: Path) -> None:
    (saved / "training_state.pt").unlink()
    with pytest.raises(UserError, match=r"train\.init_from"):
        load_training_state(saved)


@pytest.mark.parametrize("state", [[1], {"lr": 1}])
def test_a_training_state_without_a_step_is_refused(state: object, saved: Path) -> None:
    torch.save(state, saved / "training_state.pt")
    with pytest.raises(UserError, match="names no step"):
        load_training_state(saved)


def test_a_training_state_cut_short_is_refused(saved: Path) -> None:
    path = saved / "training_state.pt"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"training_state\.pt"):
        load_training_state(saved)


def test_a_run_names_the_checkpoints_in_it(saved: Path, tmp_path: Path) -> None:
    for pointer in ("best", "last"):
        atomic.point(tmp_path / pointer, saved.name)
    with pytest.raises(UserError, match=rf"is a run, not a checkpoint; give {tmp_path}/best or {tmp_path}/last"):
        locate(tmp_path)


def test_a_pointer_is_a_checkpoint(saved: Path, tmp_path: Path) -> None:
    atomic.point(tmp_path / "best", saved.name)
    assert same(load(tmp_path / "best"), load(saved))


def test_a_name_that_means_nothing_lists_the_bundled_models() -> None:
    with pytest.raises(UserError, match="no checkpoint folder .* those are: " + (", ".join(list_bundled()) or "none")):
        load("nowhere")


def test_a_name_longer_than_names_can_be_is_a_user_error() -> None:
    with pytest.raises(UserError, match="cannot be looked up"):
        locate("x" * 5000)


def other_model(classes: tuple[str, ...] = CLASSES, **options: object) -> ScaleAware:
    settings = {"fusion": "attention", "scales": (1.0, 0.5), "attention_width": 8, "pretrained": "none", **options}
    inner = settings.pop("options", {"width": 4, "num_features": 8})
    torch.manual_seed(9)
    return create_model("small", classes=classes, options=inner, **settings)


def test_starting_from_a_checkpoint_of_the_same_classes_takes_everything(saved: Path) -> None:
    model = other_model()
    assert start_from(model, saved) == ((), ())
    assert same(model, load(saved))


@pytest.mark.parametrize("classes", [("x", "y", "z"), ("x", "y"), ("disc", "ground", "bar")])
def test_other_classes_renew_the_head_alone(classes: tuple[str, ...], saved: Path) -> None:
    model, before, source = other_model(classes), other_model(classes).state_dict(), load(saved).state_dict()
    renewed = start_from(model, saved).fresh
    assert set(renewed) == {"segmenter.head.weight", "segmenter.head.bias"}
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, (before if name in renewed else source)[name])


def test_other_scales_renew_the_attention_alone(saved: Path) -> None:
    renewed = start_from(other_model(scales=(1.0, 0.75, 0.5)), saved).fresh
    assert renewed
    assert all(name.startswith("fusion.") for name in renewed)


def test_the_same_scales_in_another_order_renew_the_attention(saved: Path) -> None:
    """The attention head knows scales by their place."""
    assert any(name.startswith("fusion.") for name in start_from(other_model(scales=(0.5, 1.0)), saved).fresh)


def test_another_fusion_takes_the_trunk_and_the_head(saved: Path) -> None:
    assert start_from(other_model(fusion="max"), saved).fresh == ()


def test_what_a_checkpoint_has_too_much_is_named(saved: Path) -> None:
    left = start_from(other_model(fusion="max"), saved).left
    assert left == tuple(f"fusion.{layer}.{kind}" for layer in ("hidden", "logits") for kind in ("bias", "weight"))


@pytest.mark.parametrize("setting", [{"attention_kernel": 1}, {"attention_layers": 1}, {"attention_width": 9}])
def test_another_attention_head_is_renewed_as_a_whole(setting: dict[str, int], saved: Path) -> None:
    model = other_model(**setting)
    fresh = start_from(model, saved).fresh
    assert set(fresh) == {name for name in model.state_dict() if name.startswith("fusion.")}


def test_attention_learned_on_other_features_is_renewed(saved: Path) -> None:
    model = other_model()
    model.settings = replace(model.settings, options={**model.settings.options, "features": "fc6"})
    assert any(name.startswith("fusion.") for name in start_from(model, saved).fresh)


def test_attention_on_fc7_is_the_default_also_where_it_is_named(saved: Path) -> None:
    model = other_model()
    model.settings = replace(model.settings, options={**model.settings.options, "features": "fc7"})
    assert start_from(model, saved).fresh == ()


def test_another_trunk_is_refused(saved: Path) -> None:
    with pytest.raises(UserError, match=r"is another network: segmenter\.trunk"):
        start_from(other_model(options={"width": 6, "num_features": 8}), saved)


class Stop(BaseException):
    """What a test throws in the middle."""


def test_an_error_while_a_folder_is_filled_leaves_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    (folder / "old").write_text("old")
    with pytest.raises(Stop), atomic.fresh_folder(folder) as temporary:
        (temporary / "new").write_text("new")
        raise Stop
    assert (names(tmp_path), names(folder)) == (["kept"], ["old"])


def test_an_error_while_a_new_folder_is_filled_leaves_none(tmp_path: Path) -> None:
    with pytest.raises(Stop), atomic.fresh_folder(tmp_path / "new"):
        raise Stop
    assert names(tmp_path) == []


def test_a_folder_is_not_there_before_it_is_whole(tmp_path: Path) -> None:
    with atomic.fresh_folder(tmp_path / "new") as temporary:
        (temporary / "file").write_text("x")
        assert not (tmp_path / "new").exists()
    assert (names(tmp_path), names(tmp_path / "new")) == (["new"], ["file"])


def fail_at(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, call: int) -> None:
    """Let call number `call` (from 0) of a function fail as a full disk does."""
    original, calls = getattr(owner, name), []

    def failing(*arguments: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == call + 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, failing)


@pytest.mark.parametrize("call", [0, 1, 2, 3])
def test_a_full_disk_at_any_sync_leaves_the_old_checkpoint(
    call: int, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three files and their folder are synced before the new checkpoint takes the old one's place."""
    fail_at(monkeypatch, os, "fsync", call)
    with pytest.raises(OSError, match="No space left"):
        save(saved, small_model(seed=5), small_config(), training_state={"step": 8})
    assert same(load(saved), small_model())
    assert (load_training_state(saved)["step"], names(tmp_path)) == (7, ["step-7"])


@pytest.mark.parametrize("method", ["write_text", "write_bytes"])
def test_a_full_disk_at_a_write_leaves_the_old_checkpoint(
    method: str, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at(monkeypatch, Path, method, 0)
    with pytest.raises(OSError, match="No space left"):
        save(saved, small_model(seed=5), small_config(), training_state={"step": 8})
    assert (same(load(saved), small_model()), names(tmp_path)) == (True, ["step-7"])


@pytest.mark.parametrize("call", [0, 1])
def test_a_rename_that_fails_leaves_the_old_checkpoint(
    call: int, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at(monkeypatch, Path, "rename", call)
    with pytest.raises(OSError, match="No space left"):
        save(saved, small_model(seed=5), small_config())
    assert names(tmp_path) == ["step-7"]
    assert same(load(saved), small_model())


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    for content, expected in (("one", b"one"), (b"two\x00", b"two\x00")):
        atomic.write(tmp_path / "file", content)
        assert ((tmp_path / "file").read_bytes(), names(tmp_path)) == (expected, ["file"])


def test_a_full_disk_at_the_sync_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atomic.write(tmp_path / "file", "old")
    fail_at(monkeypatch, os, "fsync", 0)
    with pytest.raises(OSError, match="No space left"):
        atomic.write(tmp_path / "file", "new")
    assert ((tmp_path / "file").read_text(), names(tmp_path)) == ("old", ["file"])


def test_a_write_that_the_system_cuts_short_leaves_the_old_file(tmp_path: Path) -> None:
    """The real thing: a file may not grow beyond 4 kB."""
    atomic.write(tmp_path / "file", "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            atomic.write(tmp_path / "file", b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert ((tmp_path / "file").read_text(), names(tmp_path)) == ("old", ["file"])


def test_a_pointer_moves(tmp_path: Path) -> None:
    for target in ("one", "two"):
        (tmp_path / target).mkdir()
        atomic.point(tmp_path / "last", target)
        assert (tmp_path / "last").resolve() == (tmp_path / target).resolve()
    assert names(tmp_path) == ["last", "one", "two"]


def test_a_pointer_that_cannot_move_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atomic.point(tmp_path / "last", "one")
    fail_at(monkeypatch, Path, "replace", 0)
    with pytest.raises(OSError, match="No space left"):
        atomic.point(tmp_path / "last", "two")
    assert ((tmp_path / "last").readlink(), names(tmp_path)) == (Path("one"), ["last"])


def test_leftovers_of_a_killed_process_are_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / f"{atomic.MARK}1-step-5").mkdir()
    (tmp_path / f"{atomic.MARK}1-step-5" / "config.json").write_text("{")
    (tmp_path / f"{atomic.MARK}1-config.yaml").write_text("x")
    (tmp_path / "step-4").mkdir()
    (tmp_path / f"{atomic.MARK}1-last").symlink_to("step-4")
    atomic.remove_leftovers(tmp_path)
    assert names(tmp_path) == ["step-4"]


def test_a_folder_that_had_moved_aside_moves_back(tmp_path: Path) -> None:
    aside = tmp_path / f"{atomic.MARK}77-old-step-3"
    aside.mkdir()
    (aside / "config.json").write_text("{}")
    atomic.remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-3"]
    assert (tmp_path / "step-3" / "config.json").read_text() == "{}"
