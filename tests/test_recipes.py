"""Recipes: each loads, names what exists, and says in its first comment what to expect and how to run it."""

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from scaleseg.ablate.paper import PERSON, find
from scaleseg.cli import main
from scaleseg.datasets import list_datasets
from scaleseg.model import list_models
from scaleseg.recipes import describe_recipe, list_recipes, load_recipe

NAMED = {
    "voc-baseline", "voc-msc", "voc-fcn8s", "voc-parsenet", "voc-average", "voc-max", "voc-attention",
    "voc-attention-plus", "voc-resnet101", "coco-pretrain", "person-part-attention", "coco-attention",
    "camvid-attention", "voc-animals-attention", "voc-animals-lite0", "shapes-attention", "folder-lite0",
}  # fmt: skip


def test_every_named_system_of_the_paper_is_a_recipe() -> None:
    assert set(list_recipes()) >= NAMED


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_names_a_segmenter_and_a_dataset_that_exist(name: str) -> None:
    config = load_recipe(name)
    assert config.model.segmenter in list_models()
    assert config.data.dataset in list_datasets()


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_says_what_it_is_what_to_expect_and_what_it_costs(name: str) -> None:
    recipe = describe_recipe(name)
    assert recipe.about.endswith(".")
    assert recipe.expect
    assert recipe.cost


@pytest.mark.parametrize("dataset", ["voc", "person-part", "coco"])
@pytest.mark.parametrize("system", ["baseline", "msc", "average", "max", "attention"])
def test_a_recipe_expects_the_papers_own_figure_of_its_cell(dataset: str, system: str) -> None:
    table = find(dataset, "imagenet")
    assert table
    cell = system if system in table.figures else f"{system}-3-es"
    expect = describe_recipe(f"{dataset}-{system}").expect
    assert expect.startswith(f"{table.figures[cell]:.2f} % mIoU on val (paper, Table {table.number}")
    if dataset == "coco" and cell in PERSON.figures:
        assert f"person {PERSON.figures[cell]:.2f} (Table {PERSON.number})" in expect


@pytest.mark.parametrize(("name", "cell"), [("voc-attention-coco", "attention-3-es"), ("coco-pretrain", "baseline")])
def test_recipes_of_the_start_from_coco_expect_the_figures_of_its_table(name: str, cell: str) -> None:
    table = find("voc", "coco")
    assert table
    assert f"{table.figures[cell]:.2f} % mIoU on val (paper, Table {table.number})" in describe_recipe(name).expect


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_s_command_trains_that_recipe(name: str) -> None:
    words = shlex.split(describe_recipe(name).command)
    assert words[:3] == ["scaleseg", "train", name]
    assert words[-2] == "--out"
    load_recipe(name, [word for word in words[3:-2] if not word.startswith("data=")])


@pytest.mark.parametrize("name", [name for name in list_recipes() if name.endswith("-msc")])
def test_the_second_stage_starts_from_the_baseline_and_freezes_it(name: str) -> None:
    config = load_recipe(name)
    assert config.train.init_from == f"runs/{name.removesuffix('-msc')}-baseline/last"
    assert config.train.freeze == ("trunk", "fc6", "fc7", "fc8")
    assert config.train.init_from in describe_recipe(name).command


@pytest.mark.parametrize("dataset", ["voc", "person-part", "coco", "voc-animals"])
def test_the_cells_of_a_dataset_differ_in_the_merging_alone(dataset: str) -> None:
    average, highest, attention = (load_recipe(f"{dataset}-{fusion}") for fusion in ("average", "max", "attention"))
    assert replace(average, model=attention.model) == replace(highest, model=attention.model) == attention
    assert replace(average.model, fusion="attention") == replace(highest.model, fusion="attention") == attention.model


@pytest.mark.parametrize(
    ("dataset", "dev", "read"),
    [
        ("folder", "split:held", "split:{}/held"),
        ("folder", "ids.txt", "{}/ids.txt"),
        ("camvid", "split:val", "split:val"),
        ("folder", "0.2", "0.2"),
    ],
)
def test_a_data_file_s_development_split_is_relative_to_it_where_it_is_a_path(
    tmp_path: Path, dataset: str, dev: str, read: str
) -> None:
    (tmp_path / "data.yaml").write_text(json.dumps({"dataset": dataset, "train": "a", "dev": dev}))
    assert load_recipe("folder-lite0", [f"data={tmp_path}/data.yaml"]).data.dev == read.format(tmp_path)


@pytest.fixture
def listed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """What `scaleseg list ...` prints."""

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["scaleseg", "list", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return captured.out if not end.value.code else captured.err

    return run


def test_list_recipes_says_what_each_promises(listed) -> None:
    out = listed("recipes")
    assert "expect: 69.08 % mIoU on val (paper, Table 3)" in out
    assert "run: scaleseg train voc-attention data.root=VOCdevkit --out runs/voc-attention" in out


def test_list_recipes_as_json_holds_every_recipe(listed) -> None:
    recipes = json.loads(listed("recipes", "--json"))["recipes"]
    assert [recipe["name"] for recipe in recipes] == list(list_recipes())
    assert recipes[0].keys() == {"name", "about", "expect", "command", "cost", "note"}


def test_list_as_json_holds_every_kind(listed) -> None:
    assert json.loads(listed("--json")).keys() == {"recipes", "segmenters", "fusions", "datasets", "models"}


def test_list_names_one_kind_alone(listed) -> None:
    assert listed("fusions").split() == ["fusions", "average,", "max,", "attention"]


def test_an_unknown_kind_is_the_users_error(listed) -> None:
    assert "what to list is 'recipe'; did you mean 'recipes'" in listed("recipe")


def test_the_home_folder_may_stand_in_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data.yaml").write_text("dataset: folder\ntrain: photographs\n")
    words = ["data=~/data.yaml", "data.val=[~/a.zip, b~/c.zip]", "model.pretrained=~/vgg16.safetensors"]
    config = load_recipe("voc-baseline", words)
    assert config.data.val == [str(tmp_path / "a.zip"), "b~/c.zip"]
    assert config.model.pretrained == str(tmp_path / "vgg16.safetensors")
    assert config.data.train == str(tmp_path / "photographs")
