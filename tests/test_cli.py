"""The verbs, as a user calls them: what they print, what they write, how they end."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import small_config, small_model
from scaleseg import checkpoint
from scaleseg.config import to_dict


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A checkpoint of the tiny model."""
    path = tmp_path / "model"
    checkpoint.save(path, small_model(), small_config())
    return path


@pytest.fixture
def recipe(folder: Path, tmp_path: Path) -> Path:
    """A recipe of the tiny model on the six photographs."""
    config = to_dict(small_config())
    config["data"] |= {"train": str(folder), "val": str(folder), "crop": 33, "workers": 0, "dev": 0.2}
    config["train"] |= {"steps": 2, "batch": 2, "log_every": 1}
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(config))
    return path


def ids_of(path: Path) -> np.ndarray:
    """A mask's ids, the file closed again."""
    with Image.open(path) as image:
        return np.array(image)


VERBS = [
    [], ["train"], ["evaluate"], ["predict"], ["ablate"], ["benchmark"], ["demo"], ["list"], ["doctor"], ["import-caffe"],
    ["data", "init"], ["data", "check"], ["data", "prepare"], ["refine-search"], ["export"], ["serve"], ["report"], ["compare"],
]  # fmt: skip


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_help_ends_with_a_line_to_copy(call, verb: list[str]) -> None:
    ended = call(*verb, "--help")
    assert ended.code == 0
    assert "Try: scaleseg" in ended.out.strip().splitlines()[-1]


def test_help_and_import_need_no_torch() -> None:
    program = "import sys, scaleseg, scaleseg.cli; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_an_unknown_verb_is_wrong_usage(call) -> None:
    assert call("trian").code == 2


def test_train_evaluate_and_predict_go_hand_in_hand(call, recipe: Path, folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    trained = call("train", recipe, "--out", run)
    assert trained.code == 0, trained.err
    assert "step 2/2  loss" in trained.out
    measured = call("evaluate", run / "best", "--json", tmp_path / "m.json")
    assert measured.code == 0, measured.err
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert 0 <= metrics["mIoU"] <= 1
    assert f"mIoU {100 * metrics['mIoU']:.2f} %" in measured.out
    assert set(metrics["per_scale"]) == {"1", "0.5"}
    predicted = call("predict", run / "last", folder / "images", "--out", tmp_path / "out")
    assert predicted.code == 0, predicted.err
    assert "6 of 6 images" in predicted.out


def test_evaluate_without_val_says_that_it_flatters(call, recipe: Path, tmp_path: Path) -> None:
    call("train", recipe, "--out", tmp_path / "run")
    assert "so figures flatter" in call("evaluate", tmp_path / "run" / "best", "data.val=null").out


def test_another_fusion_can_be_measured_on_the_same_scores(call, saved: Path, folder: Path) -> None:
    ended = call("evaluate", saved, f"data.val={folder}", "model.fusion=max")
    assert ended.code == 0, ended.err


def test_a_users_mistake_is_one_line_without_traceback(call, tmp_path: Path) -> None:
    ended = call("train", "shapes-atention", "--out", tmp_path / "run")
    assert ended.code == 1
    assert ended.err.startswith("scaleseg: recipe is 'shapes-atention'; did you mean 'shapes-attention'?")
    assert len(ended.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "wrong", ["train.stepz=3", "train.steps=many", "model.fusion=maxx", "steps", "model.scales=[]"]
)
def test_a_wrong_override_is_named(call, recipe: Path, tmp_path: Path, wrong: str) -> None:
    ended = call("train", recipe, wrong, "--out", tmp_path / "run")
    assert ended.code == 1
    assert wrong.partition("=")[0].rpartition(".")[2] in ended.err


def test_predict_writes_ids_overlays_and_lossless_weights(call, saved: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert call("predict", saved, folder / "images" / "p0.png", "--out", out, "--precision", "float32").code == 0
    rows, columns = ids_of(folder / "images" / "p0.png").shape[:2]
    with Image.open(out / "masks" / "p0.png") as mask:
        assert (mask.mode, mask.size) == ("P", (columns, rows))
    assert ids_of(out / "masks" / "p0.png").max() < 3
    assert ids_of(out / "overlays" / "p0.png").shape == (rows, columns, 3)
    assert ids_of(out / "weights" / "p0.png").shape == (rows, 2 * columns, 3)
    with np.load(out / "weights" / "p0.npz") as weights:
        assert weights["scale_weights"].dtype == np.float32
        assert np.allclose(weights["scale_weights"].sum(0), 1, atol=1e-5)
        assert weights["scales"].tolist() == [1.0, 0.5]


def test_predict_writes_only_what_is_asked(call, saved: Path, folder: Path, tmp_path: Path) -> None:
    call("predict", saved, folder / "images", "--out", tmp_path / "out", "--save", "masks")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["masks"]


def test_one_bad_file_is_reported_skipped_and_ends_with_1(call, saved: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "images" / "bad.jpg").write_text("no photograph")
    ended = call("predict", saved, folder / "images", "--out", tmp_path / "out")
    assert ended.code == 1
    assert "skipped: " in ended.err
    assert "bad.jpg" in ended.err
    assert "6 of 7 images" in ended.out


def test_output_names_never_collide(call, saved: Path, folder: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for name in ("a.png", "a.jpg", "sub/a.png", "other/a.PNG"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9)).save(photos / name)
    inputs = [photos, photos / "sub" / "a.png", photos / "other" / "*.PNG"]
    call("predict", saved, *inputs, "--out", tmp_path / "out", "--save", "masks")
    assert len(list((tmp_path / "out" / "masks").rglob("*.png"))) == 4


def test_what_predict_wrote_is_no_input_of_the_next(call, saved: Path, folder: Path) -> None:
    for _ in range(2):
        ended = call("predict", saved, folder / "images", "--out", folder / "images" / "out")
        assert "6 of 6 images" in ended.out


def test_predict_on_nothing_is_a_users_mistake(call, saved: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ended = call("predict", saved, tmp_path / "empty", "--out", tmp_path / "out")
    assert ended.code == 1
    assert "no images in" in ended.err


def test_photographs_that_cannot_be_decoded_are_not_left_out_in_silence(call, saved: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for name in ("a.HEIC", "sub/b.heic", "c.gif", ".hidden.gif", "notes.txt"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(b"")
    said = "left out, for they cannot be decoded here: 1 .gif, 2 .heic; convert them to JPEG or PNG"
    alone = call("predict", saved, photos, "--out", tmp_path / "out")
    assert (alone.code, said in alone.err) == (1, True)
    Image.new("RGB", (9, 9)).save(photos / "d.png")
    beside = call("predict", saved, photos, "--out", tmp_path / "out")
    assert (beside.code, said in beside.out, "1 of 1 images" in beside.out) == (0, True, True)


def test_data_init_describes_a_folder_that_trains(call, folder: Path, tmp_path: Path) -> None:
    ended = call("data", "init", folder, "--classes", "ground,disc,bar")
    assert ended.code == 0, ended.err
    assert call("data", "check", folder / "data.yaml").code == 0
    trained = call(
        "train", "shapes-attention", f"data={folder / 'data.yaml'}", "data.dev=0.2", "train.steps=1", "train.batch=2",
        "data.crop=33", "--out", tmp_path / "run",
    )  # fmt: skip
    assert trained.code == 0, trained.err


def test_data_init_does_not_overwrite(call, folder: Path) -> None:
    call("data", "init", folder)
    assert call("data", "init", folder).code == 1
    assert call("data", "init", folder, "--force").code == 0


def test_data_init_maps_ids_with_gaps(call, folder: Path) -> None:
    for mask in (folder / "masks").iterdir():
        ids = ids_of(mask)
        ids[ids == 2] = 17
        Image.fromarray(ids).save(mask)
    ended = call("data", "init", folder)
    assert "ids [0, 1, 17]" in ended.out
    assert call("data", "check", folder / "data.yaml").code == 0


def test_data_init_takes_255_as_foreground_where_there_is_nothing_else(call, folder: Path) -> None:
    make_binary(folder)
    assert "255 is taken as class 1" in call("data", "init", folder).out
    checked = call("data", "check", folder / "data.yaml")
    assert checked.code == 0, checked.out


def make_binary(folder: Path) -> None:
    for mask in (folder / "masks").iterdir():
        Image.fromarray(np.where(ids_of(mask) == 1, 255, 0).astype(np.uint8)).save(mask)


def test_data_init_reads_train_and_val_folders(call, folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "both"
    for split in ("train", "val"):
        shutil.copytree(folder, root / split)
    call("data", "init", root)
    ended = call("data", "check", root / "data.yaml")
    assert "val: 6 photographs" in ended.out
    assert "6 photographs are in train too" in ended.out


def spoil_size(folder: Path) -> str:
    Image.new("L", (5, 5)).save(folder / "masks" / "p1.png")
    return "must be of one size"


def spoil_id(folder: Path) -> str:
    Image.fromarray(np.full_like(ids_of(folder / "masks" / "p1.png"), 9)).save(folder / "masks" / "p1.png")
    return "has ids [9]"


def spoil_colour(folder: Path) -> str:
    Image.new("RGB", (5, 5), (1, 2, 3)).save(folder / "masks" / "p1.png")
    return "colour image"


def spoil_image(folder: Path) -> str:
    (folder / "images" / "p1.png").write_bytes(b"nothing")
    return "no image that can be read"


def spoil_mask(folder: Path) -> str:
    (folder / "masks" / "p1.png").unlink()
    return "p1.png has no mask"


def spoil_photograph(folder: Path) -> str:
    (folder / "images" / "p1.png").unlink()
    return "p1.png has no photograph"


def spoil_all(folder: Path) -> str:
    make_binary(folder)
    return "masks hold only 0 and 255"


SPOILS = [spoil_size, spoil_id, spoil_colour, spoil_image, spoil_mask, spoil_photograph, spoil_all]


@pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: spoil.__name__)
def test_data_check_names_what_would_spoil_a_run(call, folder: Path, spoil) -> None:
    call("data", "init", folder, "--classes", "ground,disc,bar")
    said = spoil(folder)
    ended = call("data", "check", folder / "data.yaml")
    assert ended.code == 1
    assert "problem: " in ended.out
    assert said in ended.out
    assert "would spoil a run" in ended.out


def test_data_check_warns_of_classes_never_seen(call, folder: Path) -> None:
    call("data", "init", folder, "--classes", "ground,disc,bar,unicorn")
    ended = call("data", "check", folder / "data.yaml")
    assert ended.code == 0
    assert "classes never seen: unicorn" in ended.out


def test_data_check_takes_a_bare_folder_a_zip_and_a_recipe(call, folder: Path, zipped: Path, recipe: Path) -> None:
    for what in (folder, zipped, recipe):
        ended = call("data", "check", what)
        assert ended.code == 0, ended.err
        assert "train: 6 photographs" in ended.out


def test_list_names_what_is_there(call) -> None:
    out = call("list").out
    assert "largefov, lite0, msc" in out
    assert "voc-attention" in out


def test_python_dash_m_works() -> None:
    ended = subprocess.run([sys.executable, "-m", "scaleseg", "list"], capture_output=True, text=True, check=True)
    assert "recipes" in ended.stdout


def test_a_device_that_is_not_there_is_a_users_mistake(call, saved: Path, folder: Path, tmp_path: Path) -> None:
    for name in ("cuda:99", "gpu", "cpu:x"):
        ended = call("predict", saved, folder / "images", "--out", tmp_path / "out", "--device", name)
        assert ended.code == 1
        assert repr(name) in ended.err


def test_doctor_ends_well_where_all_is_well(call) -> None:
    ended = call("doctor")
    assert ended.code == 0, ended.out
    assert ended.out.strip().splitlines()[-1] == "nothing found that would stop scaleseg"


def test_doctors_json_is_all_there_is_on_stdout_and_a_problem_ends_with_1(
    call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)  # an import of it fails
    ended = call("doctor", "--json")
    assert "safetensors" in json.loads(ended.out)["problems"][0]
    assert ended.code == 1


def test_doctor_says_each_problem_on_a_line(call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    ended = call("doctor")
    assert ended.code == 1
    assert ended.out.strip().splitlines()[-1].startswith("problem: safetensors")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--refine", "domain-learned"], "--refine is domain-learned, but this model learned no edges"),
        (["--refine", "sharp"], "--refine is 'sharp'"),
        (["--calibration", "photos", "--engine", "torch"], "--calibration is for --precision int8"),
        (["--out", "a-file"], "--out a-file cannot be written"),
    ],
)
def test_predict_refuses_before_an_engine_converts(
    call, saved: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a-file").touch()
    monkeypatch.setattr("scaleseg.engines.assemble", lambda *_, **__: pytest.fail("converted"))
    ended = call("predict", saved, folder, "--out", "out", "--engine", "onnx", *options)
    assert ended.code == 1
    assert ended.err.startswith(f"scaleseg: {said}")
    assert len(ended.err.splitlines()) == 1
