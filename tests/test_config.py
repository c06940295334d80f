"""Settings: the paper's defaults, recipes, overrides; every mistake is a sentence that names the setting."""

from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from scaleseg.config import Config, DataConfig, ModelConfig, TrainConfig, merge, to_dict
from scaleseg.errors import UserError, choose
from scaleseg.recipes import list_recipes, load_recipe, override

RECIPE = "voc-animals-lite0"


def written(folder: Path, text: str | bytes, name: str = "mine.yaml") -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_nothing_merged_is_the_defaults() -> None:
    assert merge() == Config()


def test_the_defaults_are_the_papers() -> None:
    """Section 4: three scales, 512 filters, crops of 321, batches of 30, momentum 0.9, weight decay 0.0005."""
    config = Config()
    assert config.model.scales == (1.0, 0.75, 0.5)
    assert (config.model.attention_width, config.model.attention_dropout) == (512, 0.5)
    assert (config.data.crop, config.train.batch) == (321, 30)
    assert (config.train.lr, config.train.momentum, config.train.weight_decay) == (0.001, 0.9, 0.0005)
    assert config.train.extra_supervision


@pytest.mark.parametrize("recipe", list_recipes())
def test_a_recipe_can_be_loaded_and_its_settings_repeat_it(recipe: str) -> None:
    config = load_recipe(recipe)
    assert merge(to_dict(config)) == config


def test_later_parts_win() -> None:
    assert merge({"train": {"lr": 1.0, "steps": 7}}, {"train": {"lr": 2.0}}).train == TrainConfig(lr=2.0, steps=7)


def test_settings_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Config().model.segmenter = "other"  # type: ignore[misc]


@pytest.mark.parametrize("section", [ModelConfig, DataConfig, TrainConfig])
def test_one_setting_in_two_sections_would_confuse(section: type) -> None:
    others = [other for other in (ModelConfig, DataConfig, TrainConfig) if other is not section]
    assert {field.name for field in fields(section)}.isdisjoint(f.name for other in others for f in fields(other))


WRONG = {
    "train.lr=high": "train.lr",
    "train.steps=1.5": "train.steps",
    "train.steps=0": "train.steps is 0",
    "train.batch=0": "train.batch is 0",
    "train.lr=0": "train.lr is 0",
    "train.lr=.nan": "train.lr is nan",
    "train.lr=.inf": "train.lr is inf",
    "train.accumulate=7": "must divide train.batch",
    "train.optimizer=adam": "did you mean 'adamw'",
    "train.schedule=cosine": "train.schedule is 'cosine'",
    "train.precision=fp16": "train.precision is 'fp16'",
    "train.stepz=3": "did you mean 'train.steps'",
    "trian.steps=3": "did you mean 'train'",
    "model.scales=[]": "model.scales",
    "model.scales=[1,1]": "each scale once",
    "model.scales=[0]": "above 0",
    "model.scales=[5]": "up to 4",
    "model.scales=[.nan]": "model.scales",
    "model.scales=abc": "model.scales",
    "model.scales=[x]": "model.scales",
    "model=5": "model",
    "data.crop=0": "data.crop is 0",
    "data.workers=-1": "workers -1",
    "data.random_scale=[1.4,0.6]": "data.random_scale",
    "data.random_scale=[1]": "data.random_scale",
    "data.classes=[a": "cannot be read",
    "train.steps": "write key=value",
    "=3": "write key=value",
    "data.root=${nothing}": "data.root",
    "data=gone.yaml": "gone.yaml does not exist",
}


@pytest.mark.parametrize("item", WRONG)
def test_a_wrong_override_is_a_sentence_about_that_setting(item: str) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe(RECIPE, [item])
    assert WRONG[item] in str(caught.value)


def test_an_override_of_the_segmenters_own_options_is_open() -> None:
    assert load_recipe(RECIPE, ["model.options.output_stride=8"]).model.options["output_stride"] == 8


def test_an_override_may_be_a_list() -> None:
    assert load_recipe(RECIPE, ["model.scales=[1,0.5,0.25]"]).model.scales == (1.0, 0.5, 0.25)


def test_an_override_may_be_null() -> None:
    assert load_recipe(RECIPE, ["data.val=x", "data.val=null"]).data.val is None


def test_settings_never_read_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint or a recipe may come from a stranger."""
    monkeypatch.setenv("SCALESEG_SECRET", "hush")
    try:
        config = merge({"data": {"classes": ["a", "${oc.env:SCALESEG_SECRET}"]}})
    except UserError:
        return
    assert "hush" not in config.data.classes


def test_a_dictionary_can_be_overridden_as_a_recipe_can() -> None:
    config = load_recipe(RECIPE, ["train.steps=9"])
    assert override(to_dict(config), ["train.steps=10"]) == load_recipe(RECIPE, ["train.steps=10"])


def test_an_unknown_recipe_names_those_there_are() -> None:
    with pytest.raises(UserError, match=f"did you mean '{RECIPE}'"):
        load_recipe("voc-animals-lite")


def test_a_recipe_may_be_any_yaml_file(tmp_path: Path) -> None:
    assert load_recipe(written(tmp_path, "train: {steps: 11}")).train.steps == 11


def test_an_empty_recipe_is_the_defaults(tmp_path: Path) -> None:
    assert load_recipe(written(tmp_path, "")) == Config()


@pytest.mark.parametrize("text", ["a: [1", "- 1", "5", b"\xff\xfe\x00a", "data: 5", "model: null", "train: [1]"])
def test_a_file_that_holds_no_settings_is_a_user_error(text: str | bytes, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        load_recipe(written(tmp_path, text))


def test_yaml_executes_nothing(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    with pytest.raises(UserError):
        load_recipe(written(tmp_path, f'model: !!python/object/apply:os.mkdir ["{trap}"]'))
    assert not trap.exists()


def test_a_recipe_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.yaml does not exist"):
        load_recipe(str(tmp_path / "gone.yaml"))


@pytest.mark.parametrize("text", ["{}", "data: {{}}"])
def test_a_data_files_paths_are_taken_from_where_it_lies(text: str, tmp_path: Path) -> None:
    content = "{train: [a.zip, sub/b], val: c.zip:night, root: /there, dev: ids.txt}"
    data = load_recipe(RECIPE, [f"data={written(tmp_path, text.format(content).replace('{}', content))}"]).data
    assert data.train == [f"{tmp_path}/a.zip", f"{tmp_path}/sub/b"]
    assert (data.val, data.root, data.dev) == (f"{tmp_path}/c.zip:night", "/there", f"{tmp_path}/ids.txt")


@pytest.mark.parametrize("dev", ["0.2", "0", "'0.2'"])
def test_a_data_files_share_for_dev_stays_a_number(dev: str, tmp_path: Path) -> None:
    data = load_recipe(RECIPE, [f"data={written(tmp_path, f'dev: {dev}')}"]).data
    assert float(data.dev) == float(dev.strip("'"))


def test_a_data_file_whose_data_is_no_mapping_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        load_recipe(RECIPE, [f"data={written(tmp_path, 'data: 5')}"])


def test_a_new_label_map_replaces_the_recipes(tmp_path: Path) -> None:
    """Ids of the recipe's data say nothing about other data."""
    path = written(tmp_path, "classes: [ground, tree]\nlabel_map: {0: 0, 7: 1}")
    assert load_recipe(RECIPE, [f"data={path}"]).data.label_map == {0: 0, 7: 1}


def test_choose_gives_back_what_is_accepted() -> None:
    assert choose("fusion", "max", ("average", "max")) == "max"


def test_choose_says_what_was_given_and_what_is_accepted() -> None:
    with pytest.raises(UserError, match=r"^fusion is 'maxx'; did you mean 'max'\? choose attention, average or max$"):
        choose("fusion", "maxx", ("max", "average", "attention"))


def test_choose_guesses_nothing_far_off() -> None:
    with pytest.raises(UserError, match=r"^fusion is 'zzz'; choose average or max$"):
        choose("fusion", "zzz", ("max", "average"))


def test_choose_lists_the_nearest_of_many_alone() -> None:
    names = [f"voc-{letter}" for letter in "abcdefghijklmnopqrst"]
    with pytest.raises(
        UserError, match=r"^recipe is 'vic-c'; did you mean 'voc-c'\? choose voc-c(, voc-\w){4} or one of 15 others$"
    ):
        choose("recipe", "vic-c", names)
    with pytest.raises(UserError, match=r"^recipe is '12345'; choose (voc-\w, ){4}voc-\w or one of 15 others$"):
        choose("recipe", "12345", names)


def test_choose_copes_with_nothing_to_choose() -> None:
    with pytest.raises(UserError, match="there are none"):
        choose("fusion", "max", ())


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("model", "scales", [[0.5], 1.0]),
        ("model", "scales", [{"a": 1}]),
        ("model", "scales", [10**400]),
        ("data", "random_scale", [[0.5], [1.0]]),
        ("data", "classes", [["a"], "b"]),
        ("data", "label_map", {0: {"a": 1}}),
        ("data", "label_map", {0: [1]}),
        ("data", "train", b"a"),
        ("train", "class_weights", [1, b"a"]),
    ],
)
def test_an_item_of_a_wrong_type_is_a_user_error(section: str, key: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"^{section}\.{key}"):
        merge({section: {key: value}})


def test_ids_of_a_label_map_may_be_written_as_text() -> None:
    """As YAML's quotes leave them; omegaconf's warning of it would be an error here."""
    assert merge({"data": {"label_map": {0: "0", 7: "1"}}}).data.label_map == {0: 0, 7: 1}


def test_settings_nested_without_end_are_refused_before_anything_recurses() -> None:
    value: object = 1
    for _ in range(900):
        value = [value]
    with pytest.raises(UserError, match=r"^data\.train.* is nested more than 20 deep"):
        merge({"data": {"train": value}})
