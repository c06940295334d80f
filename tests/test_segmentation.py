"""One image in, one segmentation out, and a dataset measured: every kind of input, every size, scikit-learn as the judge."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import jaccard_score
from torch import Tensor

from conftest import CLASSES, small_model
from scaleseg.datasets.folder import Folder
from scaleseg.errors import UserError
from scaleseg.evaluation import evaluate
from scaleseg.geometry import IGNORE
from scaleseg.images import read_labels
from scaleseg.model import ScaleAware
from scaleseg.segmentation import Segmentation, predict, segment

FUSIONS = ("average", "max", "attention")
PHOTO = np.random.default_rng(0).integers(0, 256, (45, 70, 3), dtype=np.uint8)


def segmented(model: ScaleAware, image: object) -> Segmentation:
    return segment(model, image, precision="float32")


def as_tensor(photo: np.ndarray) -> Tensor:
    return torch.from_numpy(photo).permute(2, 0, 1)


@pytest.mark.parametrize("kind", ["path", "string", "pil", "array", "rgba", "reversed", "tensor"])
def test_every_kind_of_input_gives_the_same_labels(kind: str, model: ScaleAware, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(PHOTO).save(path)
    image = {
        "path": path,
        "string": str(path),
        "pil": Image.fromarray(PHOTO),
        "array": PHOTO,
        "rgba": np.dstack([PHOTO, np.full(PHOTO.shape[:2], 255, np.uint8)]),
        "reversed": np.ascontiguousarray(PHOTO[..., ::-1])[..., ::-1],  # OpenCV's BGR as RGB, a view
        "tensor": as_tensor(PHOTO),
    }[kind]
    result, expected = segmented(model, image), segmented(model, as_tensor(PHOTO).contiguous())
    assert torch.equal(result.labels, expected.labels)
    assert torch.equal(result.image, as_tensor(PHOTO))


@pytest.mark.parametrize("kind", ["two axes", "one channel", "pil"])
def test_grey_is_rgb_with_equal_channels(kind: str, model: ScaleAware) -> None:
    grey = PHOTO[..., 0]
    image = {"two axes": grey, "one channel": grey[..., None], "pil": Image.fromarray(grey)}[kind]
    assert torch.equal(segmented(model, image).labels, segmented(model, np.dstack([grey] * 3)).labels)


@pytest.mark.parametrize(
    "image",
    [
        PHOTO / 255,
        PHOTO.astype(np.int64),
        PHOTO[..., :2],
        PHOTO[None],
        PHOTO[0, 0],
        as_tensor(PHOTO) / 255,
        torch.from_numpy(PHOTO),
        as_tensor(PHOTO)[:1],
        as_tensor(PHOTO)[None],
    ],
    ids=[
        "float",
        "int64",
        "two channels",
        "batch",
        "one axis",
        "float tensor",
        "HWC tensor",
        "grey tensor",
        "batch tensor",
    ],
)
def test_an_array_that_is_no_image_is_a_value_error(image: np.ndarray | Tensor, model: ScaleAware) -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        segment(model, image)


@pytest.mark.parametrize(
    "image",
    [np.zeros((0, 4, 3), np.uint8), torch.zeros(3, 5, 0, dtype=torch.uint8)],
    ids=["array", "tensor"],
)
def test_an_image_without_pixels_is_a_value_error(image: np.ndarray | Tensor, model: ScaleAware) -> None:
    with pytest.raises(ValueError, match="expected"):
        segment(model, image)


def test_a_file_that_cannot_be_read_is_a_user_error(model: ScaleAware, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.jpg"):
        segment(model, tmp_path / "gone.jpg")


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("size", [(1, 1), (900, 7), (7, 900), (33, 33), (34, 32)])
def test_any_size_gives_labels_and_weights_of_that_size(size: tuple[int, int], fusion: str) -> None:
    result = segmented(small_model(fusion), np.full((*size, 3), 90, np.uint8))
    assert (tuple(result.labels.shape), tuple(result.scale_weights.shape)) == (size, (2, *size))
    assert result.labels.max() < len(CLASSES)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_scale_weights_sum_to_one_at_the_images_size(fusion: str) -> None:
    weights = segmented(small_model(fusion), PHOTO).scale_weights
    torch.testing.assert_close(weights.sum(dim=0), torch.ones(45, 70))
    assert weights.min() >= 0


def test_labels_are_the_argmax_of_the_scores_at_the_images_size(model: ScaleAware) -> None:
    prediction = predict(model, as_tensor(PHOTO), precision="float32")
    assert torch.equal(segmented(model, PHOTO).labels.long(), prediction.at()[0].argmax(dim=0))


def test_the_test_models_tell_classes_apart(model: ScaleAware) -> None:
    """Else the tests above compare one constant with another."""
    assert len(segmented(model, PHOTO).labels.unique()) > 1


def test_average_weighs_every_scale_the_same_everywhere() -> None:
    torch.testing.assert_close(segmented(small_model("average"), PHOTO).scale_weights, torch.full((2, 45, 70), 0.5))


def test_maxs_weights_are_one_for_the_scale_that_won_the_chosen_class() -> None:
    """On the score grid's own pixels, every 8th of a 65 x 97 image: no interpolation, so a weight is 0 or 1."""
    photo = np.random.default_rng(1).integers(0, 256, (65, 97, 3), dtype=np.uint8)
    model = small_model("max")
    prediction, result = predict(model, as_tensor(photo), precision="float32"), segmented(model, photo)
    finest = prediction.grid.fused
    merged = torch.stack(
        [
            torch.nn.functional.interpolate(scores, size=finest, mode="bilinear", align_corners=True)[0]
            for scores in prediction.per_scale
        ]
    )
    chosen = merged.amax(dim=0).argmax(dim=0)
    winner = merged.argmax(dim=0).gather(0, chosen[None])[0]
    expected = torch.nn.functional.one_hot(winner, 2).permute(2, 0, 1).float()
    torch.testing.assert_close(result.scale_weights[:, ::8, ::8], expected, rtol=0, atol=1e-4)
    assert 0 < winner.float().mean() < 1


@pytest.mark.parametrize("training", [True, False])
def test_the_models_training_flag_is_given_back(training: bool, model: ScaleAware) -> None:
    model.train(training)
    segmented(model, PHOTO)
    assert model.training is training


def test_the_models_training_flag_is_given_back_after_an_error(
    model: ScaleAware, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    model.train()
    monkeypatch.setattr(model.segmenter, "forward", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        predict(model, as_tensor(PHOTO))
    assert model.training


def test_dropout_is_off_even_in_a_model_that_trains(model: ScaleAware) -> None:
    model.train()
    first, second = (predict(model, as_tensor(PHOTO), precision="float32").scores for _ in range(2))
    assert torch.equal(first, second)


def test_a_prediction_is_float32_even_when_computed_in_bf16(model: ScaleAware) -> None:
    prediction = predict(model, as_tensor(PHOTO), precision="bf16")
    maps = (prediction.scores, prediction.scale_weights, *prediction.per_scale)
    assert {item.dtype for item in maps} == {torch.float32}


def test_shares_are_the_frequencies_of_the_labels_largest_first(model: ScaleAware) -> None:
    result = segmented(model, PHOTO)
    ids, counts = np.unique(result.labels.numpy(), return_counts=True)
    expected = {CLASSES[index]: count / counts.sum() for index, count in zip(ids, counts, strict=True)}
    assert result.shares() == pytest.approx(expected)
    assert list(result.shares().values()) == sorted(expected.values(), reverse=True)


def test_a_segmentation_can_be_drawn(model: ScaleAware) -> None:
    result = segmented(model, PHOTO)
    assert (result.overlay().size, result.weights_image().size) == ((70, 45), (140, 45))


def test_the_label_image_gives_the_labels_back(model: ScaleAware, tmp_path: Path) -> None:
    result = segmented(model, PHOTO)
    result.label_image().save(tmp_path / "labels.png")
    assert np.array_equal(read_labels(tmp_path / "labels.png"), result.labels.numpy())


def by_hand(model: ScaleAware, dataset: Folder, scale: int | None = None) -> np.ndarray:
    """The IoU of each class by scikit-learn, of the merged scores or of one scale's own."""
    truth, guess = [], []
    for image, labels in (dataset[index] for index in range(len(dataset))):
        with torch.no_grad():
            prediction = model(image[None].float() / 255)
        scores = prediction.at() if scale is None else prediction.grid.to_image(prediction.per_scale[scale])
        truth.append(labels.flatten().numpy())
        guess.append(scores[0].argmax(dim=0).flatten().numpy())
    labels, predicted = np.concatenate(truth), np.concatenate(guess)
    valid = labels != IGNORE
    return jaccard_score(labels[valid], predicted[valid], labels=range(len(CLASSES)), average=None, zero_division=0)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_evaluating_is_a_loop_and_scikit_learn(fusion: str, folder: Path) -> None:
    model, dataset = small_model(fusion), Folder([str(folder)], CLASSES, {})
    metrics = evaluate(model, dataset)
    assert list(metrics.IoU.values()) == pytest.approx(by_hand(model, dataset).tolist())
    assert metrics.mIoU == pytest.approx(by_hand(model, dataset).mean())
    assert metrics.images == len(dataset)


def test_each_scales_own_figure_stands_beside(folder: Path, model: ScaleAware) -> None:
    dataset = Folder([str(folder)], CLASSES, {})
    expected = {"1": by_hand(model, dataset, 0).mean(), "0.5": by_hand(model, dataset, 1).mean()}
    assert evaluate(model, dataset).per_scale == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker")  # on a machine of one core
def test_workers_change_nothing(folder: Path, model: ScaleAware) -> None:
    dataset = Folder([str(folder)], CLASSES, {})
    assert evaluate(model, dataset, workers=2) == evaluate(model, dataset)


def test_progress_is_told_after_each_image(folder: Path, model: ScaleAware) -> None:
    told: list[Sequence[int]] = []
    evaluate(model, Folder([str(folder)], CLASSES, {}), progress=lambda *counts: told.append(counts))
    assert told == [(done, 6) for done in range(1, 7)]


def test_evaluating_gives_the_training_flag_back(folder: Path, model: ScaleAware) -> None:
    model.train()
    evaluate(model, Folder([str(folder)], CLASSES, {}))
    assert model.training


def test_other_class_counts_are_refused_with_both_lists(folder: Path, model: ScaleAware) -> None:
    with pytest.raises(UserError, match=r"model has 3 classes \(ground, disc, bar\), the data 2 \(a, b\)"):
        evaluate(model, Folder([str(folder)], ("a", "b"), {2: 0}))
