"""The settings of a run as typed, frozen dataclasses: the defaults are the paper's, a recipe lists what differs.

Numbers without a comment are from the paper, section 4 ("Training"), or from the released DeepLab-LargeFOV solver.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from omegaconf import OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException

from scaleseg.errors import UserError, choose

__all__ = ["Config", "DataConfig", "ModelConfig", "RefineConfig", "TrainConfig", "merge", "to_dict"]


@dataclass(frozen=True)
class ModelConfig:
    """Which network, which scales, how they are merged."""

    segmenter: str = "largefov"
    fusion: str = "attention"
    scales: tuple[float, ...] = (1.0, 0.75, 0.5)
    pretrained: str = "imagenet"  # a path, imagenet or none
    attention_width: int = 512
    attention_dropout: float = 0.5
    attention_kernel: int = 3  # side of the head's first convolution: 3 or 1
    attention_layers: int = 2  # 2, or 1: one convolution straight to the logits
    edge_net: bool = False  # learn an edge map beside the scores, for --refine domain-learned
    options: dict[str, Any] = field(
        default_factory=dict
    )  # the segmenter's own, such as pool5a, features or output_stride


@dataclass(frozen=True)
class DataConfig:
    """Which photographs and labels, and how they are cut and varied for training."""

    dataset: str = "folder"
    root: str | None = None  # where the dataset lies; voc: the folder VOCdevkit
    train: Any = None  # folder: path or list of paths; shapes: how many; others: name of a split or list
    val: Any = None
    dev: Any = 0.1  # share of train, path of a list of ids, or split:NAME: chooses `best`; 0 = none, `best` is `last`
    classes: tuple[str, ...] = ()
    label_map: dict[int, int] = field(default_factory=dict)  # file id -> class id; empty = as in the file
    crop: int = 321
    mirror: bool = True
    random_scale: tuple[float, ...] = ()  # (lowest, highest); the paper's "+" is (0.6, 1.4)
    colour_jitter: float = 0.0  # brightness, contrast and saturation vary by this share
    workers: int = 1


@dataclass(frozen=True)
class TrainConfig:
    """The optimiser, its schedule, and when to look and to save."""

    steps: int = 6000
    batch: int = 30
    accumulate: int = 1  # parts that a batch is worked through in, to save memory
    checkpointing: bool = False  # compute each scale again in the backward pass: less memory, more time
    optimizer: str = "sgd"  # sgd or adamw
    lr: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 0.0005
    fresh_lr: float = 10.0  # times lr, for the head and the fusion
    fusion_lr: float = 1.0  # times fresh_lr, for a fusion that starts fresh: 0.2 where AdamW gives one scale all weight
    bias_lr: float = 2.0  # times lr, without weight decay
    schedule: str = "step"  # step, poly or constant
    schedule_steps: int | None = None  # poly: when the rate reaches zero; none = `steps` of the first start
    step_every: int = 2000
    step_factor: float = 0.1
    poly_power: float = 0.9
    warmup_steps: int = 0
    extra_supervision: bool = True
    ema: float = 0.0  # decay of a moving average of the parameters, such as 0.998: that is measured and saved; 0 = none
    class_weights: Any = None  # null, auto (from the data's frequencies) or one number a class
    freeze_bn: bool = True  # of a pretrained trunk
    init_from: str | None = None  # start from this checkpoint; what it lacks or has other classes for starts fresh
    freeze: tuple[str, ...] = ()  # layers that stay as they are, such as trunk or fc6; segmenter: all; fusion
    seed: int = 0
    precision: str = "auto"  # float32, bf16 or auto (bf16 where it was measured to help)
    log_every: int = 10
    validate_every: int = 500
    save_every: int = 500
    save_minutes: float = 5.0  # at most this long without a checkpoint
    keep: int = 2  # checkpoints, beside the best


@dataclass(frozen=True)
class RefineConfig:
    """What `--refine crf`, `domain` and `domain-learned` do; refine-search finds what suits a model."""

    bi_w: float = 4.0  # crf: weight of the appearance kernel; this and the next four are DeepLab-LargeFOV's
    bi_xy_std: float = 121.0  # crf: its reach, in pixels
    bi_rgb_std: float = 5.0  # crf: its tolerance, in grey levels
    pos_w: float = 3.0  # crf: weight of the smoothness kernel
    pos_xy_std: float = 3.0  # crf: its reach, in pixels
    crf_iterations: int = 10  # crf: rounds of mean field
    crf_max_pixels: int = 2_000_000  # crf: a larger image is refined at this many pixels, and the change enlarged
    sigma_s: float = 50.0  # domain: reach, in pixels
    sigma_r: float = 0.5  # domain: an edge of this much counts; grey levels from 0 to 1, summed over R, G and B
    learned_sigma_s: float = 100.0  # domain-learned, in training too: reach, in pixels
    learned_sigma_r: float = 1.0  # domain-learned, in training too: an edge of this much counts
    iterations: int = 3  # domain, domain-learned: rounds of four sweeps
    min_weight: float = 0.0  # domain, domain-learned: what passes even the strongest edge


@dataclass(frozen=True)
class Config:
    """Everything that repeats a run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)


def merge(*parts: Mapping[str, Any]) -> Config:
    """The defaults, overlaid by each part in turn; UserError names a key that does not exist or a value of a wrong type."""
    merged = OmegaConf.structured(Config)
    for part in parts:
        _check_keys(part, to_dict(Config()), "")
        try:
            if "label_map" in part.get("data", {}):  # replaced, not merged: ids of other data say nothing of these
                with read_write(merged.data):
                    merged.data.label_map = {}
            merged = OmegaConf.merge(merged, OmegaConf.create(dict(part)))
        except (OmegaConfBaseException, TypeError, OverflowError) as error:
            where = getattr(error, "full_key", None) or ", ".join(_leaves(part))
            raise UserError(f"{where}: {_reason(error)}{_example(where)}") from None
    _check_items(OmegaConf.to_container(merged, resolve=False))
    try:
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise UserError(str(error).splitlines()[0]) from None
    assert isinstance(config, Config)
    _check_values(config)
    return config


def to_dict(config: Config) -> dict[str, Any]:
    """The settings as plain lists, dicts and numbers, as YAML and JSON hold them."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    plain["data"]["label_map"] = {int(key): value for key, value in config.data.label_map.items()}
    return plain


def _check_keys(part: Mapping[str, Any], accepted: Mapping[str, Any], path: str) -> None:
    for key, value in part.items():
        _check_plain(value, f"{path}{key}")
        choose("setting", f"{path}{key}", [f"{path}{name}" for name in accepted])
        inner = accepted[key]
        if isinstance(inner, dict) and not isinstance(value, Mapping):
            raise UserError(f"{path}{key} is {value!r}; it holds settings: give {path}{key}.NAME=VALUE")
        if isinstance(inner, dict) and f"{path}{key}" not in _OPEN:
            _check_keys(value, inner, f"{path}{key}.")


def _check_plain(value: Any, path: str, depth: int = 0) -> None:
    """Refuses what JSON cannot hold, and `${oc.env:NAME}`: a stranger's settings would read the environment."""
    if not isinstance(value, str | int | float | list | tuple | Mapping | None):
        raise UserError(f"{path} is {value!r:.80}; settings are text, numbers, lists and mappings")
    if depth > 20:
        raise UserError(f"{path[:60]}... is nested more than 20 deep; no setting is")
    if isinstance(value, str) and "${" in value:
        raise UserError(f"{path} is {value!r}; settings are plain values, without ${{...}}")
    if isinstance(value, list | tuple):
        for item in value:
            _check_plain(item, path, depth + 1)
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_plain(item, f"{path}.{key}", depth + 1)


def _leaves(part: Mapping[str, Any], path: str = "") -> list[str]:
    """The settings that a part gives, by their dotted names."""
    return [
        name
        for key, value in part.items()
        for name in (_leaves(value, f"{path}{key}.") if isinstance(value, Mapping) and value else [f"{path}{key}"])
    ]


def _check_items(merged: Any) -> None:
    """omegaconf lets a list or a mapping through as an item of a tuple or of a mapping."""
    listed = {
        "model.scales": merged["model"]["scales"],
        "data.random_scale": merged["data"]["random_scale"],
        "train.freeze": merged["train"]["freeze"],
        "data.classes": merged["data"]["classes"],
        "data.label_map": merged["data"]["label_map"].values(),
    }
    for name, items in listed.items():
        wrong = [item for item in items if not isinstance(item, str | int | float)]
        if wrong:
            raise UserError(f"{name} holds {wrong[0]!r:.80}; give plain values, without lists or settings in them")


def _reason(error: Exception) -> str:
    """What omegaconf says, where that is a sentence for people."""
    reason = str(error).splitlines()[0]
    return "a value of a wrong type" if "$VALUE" in reason or "TupleConfig" in reason else reason


def _example(where: str) -> str:
    """A value that the setting takes: its default."""
    value: Any = to_dict(Config())
    for key in where.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return "" if value is None else f"; the default is {value}"


_OPEN = ("model.options", "data.label_map")


_RANGES = (
    ("momentum", 0, 1), ("weight_decay", 0, float("inf")), ("fresh_lr", 0, float("inf")),
    ("fusion_lr", 0, float("inf")), ("bias_lr", 0, float("inf")), ("ema", 0, 1),
    ("step_factor", 0, float("inf")), ("poly_power", 0, float("inf")),
    ("seed", 0, 2**40), ("warmup_steps", 0, float("inf")), ("batch", 1, 2**20),
)  # fmt: skip


def _check_values(config: Config) -> None:
    """What a type cannot say."""
    model, data, train = config.model, config.data, config.train
    if not model.scales or not all(0 < scale <= 4 for scale in model.scales):
        raise UserError(f"model.scales is {list(model.scales)}; give one or more numbers above 0 and up to 4")
    if len(set(model.scales)) < len(model.scales):
        raise UserError(f"model.scales is {list(model.scales)}; give each scale once")
    for name in ("steps", "batch", "accumulate", "log_every", "validate_every", "save_every", "keep", "step_every"):
        if getattr(train, name) < 1:
            raise UserError(f"train.{name} is {getattr(train, name)}; give a whole number of 1 or more")
    if not 1 <= model.attention_width <= 2**16 or not 0 <= model.attention_dropout < 1:
        raise UserError(
            f"model.attention_width is {model.attention_width}, model.attention_dropout {model.attention_dropout}; "
            f"give from 1 to {2**16}, and from 0 to below 1"
        )
    if model.attention_kernel not in (1, 3) or model.attention_layers not in (1, 2):
        raise UserError(
            f"model.attention_kernel is {model.attention_kernel}, model.attention_layers {model.attention_layers}; "
            "give 3 or 1, and 2 or 1"
        )
    if train.batch % train.accumulate:
        raise UserError(f"train.accumulate is {train.accumulate}; it must divide train.batch, {train.batch}")
    choose("train.optimizer", train.optimizer, ("sgd", "adamw"))
    choose("train.schedule", train.schedule, ("step", "poly", "constant"))
    choose("train.precision", train.precision, ("auto", "float32", "bf16"))
    if not 0 < train.lr < float("inf"):
        raise UserError(f"train.lr is {train.lr}; give a number above 0")
    for name, lowest, below in _RANGES:
        if not lowest <= getattr(train, name) < below:
            limit = "" if below == float("inf") else f" and below {below}"
            raise UserError(f"train.{name} is {getattr(train, name)}; give a number of at least {lowest}{limit}")
    if train.schedule_steps is not None and train.schedule_steps < 1:
        raise UserError(f"train.schedule_steps is {train.schedule_steps}; give a whole number of 1 or more, or null")
    if len(set(data.classes)) < len(data.classes):
        raise UserError(f"data.classes is {list(data.classes)}; give each name once")
    if len(data.classes) > 255:
        raise UserError(f"data.classes names {len(data.classes)} classes; give at most 255: a mask's id 255 is void")
    if not 0 <= data.colour_jitter < float("inf"):
        raise UserError(f"data.colour_jitter is {data.colour_jitter}; give a share of 0 or more, such as 0.3")
    if not train.save_minutes >= 0:  # so that NaN is refused too
        raise UserError(f"train.save_minutes is {train.save_minutes}; give 0 or more, such as 5, or .inf")
    if not 1 <= data.crop <= 10_000 or not 0 <= data.workers <= 256:  # far beyond, they take the machine down
        raise UserError(
            f"data.crop is {data.crop}, data.workers {data.workers}; give from 1 to 10000 pixels, from 0 to 256 workers"
        )
    if data.random_scale and not (
        len(data.random_scale) == 2 and 0 < data.random_scale[0] <= data.random_scale[1] <= 16
    ):
        raise UserError(f"data.random_scale is {list(data.random_scale)}; give [lowest, highest], such as [0.6, 1.4]")
