"""The model: any size, any scales, its own normalisation, one kind of answer."""

from dataclasses import asdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from scaleseg.errors import UserError
from scaleseg.fusion import FUSIONS, Average, create_fusion
from scaleseg.geometry import resize
from scaleseg.model import ScaleAware, create_model
from scaleseg.segmenters import Dense, Normalization, Segmenter
from scaleseg.segmenters.contract import CAFFE

quick = settings(max_examples=25, deadline=None)
THREE = (1.0, 0.75, 0.5)


def small(scales=THREE, fusion="attention", *, num_classes=3, seed=0):
    """A small model in evaluation, its attention head no longer at its uniform start."""
    torch.manual_seed(seed)
    options = {"width": 4, "num_features": 8}
    model = create_model(
        "small", num_classes=num_classes, fusion=fusion, scales=scales, pretrained="none", attention_width=8,
        options=options,
    )  # fmt: skip
    for parameter in model.fusion.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def photographs(size=(40, 50), batch=2, seed=0):
    return torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


class Echo(Segmenter):
    """Its scores are what it was shown, at output stride 1."""

    align_corners, output_stride, num_features = True, 1, 3

    def __init__(self, normalization: Normalization) -> None:
        super().__init__()
        self.normalization = normalization

    def forward(self, images):
        return Dense(images, images)

    def load_pretrained(self, source):
        raise NotImplementedError


# sizes and scales


@quick
@given(st.tuples(st.integers(1, 90), st.integers(1, 90)), st.sampled_from(["small", "lite0-like"]))
def test_scores_at_the_image_have_the_image_s_size(size, kind):
    model = MODELS[kind]
    with torch.no_grad():
        assert model(photographs(size, batch=1)).at().shape == (1, 3, *size)


@quick
@given(st.lists(st.floats(0.1, 2), min_size=1, max_size=4), st.sampled_from(sorted(FUSIONS)))
def test_any_list_of_scales_works_with_or_without_the_whole_image(scales, fusion):
    model = small(tuple(scales), fusion)
    with torch.no_grad():
        prediction = model(photographs((33, 20), batch=1))
    assert prediction.scale_weights.shape[1] == len(prediction.per_scale) == len(scales)
    assert prediction.at().isfinite().all()


@quick
@given(st.lists(st.sampled_from([2.0, 1.0, 0.75, 0.6, 0.5, 0.25]), min_size=1, max_size=4, unique=True))
def test_each_scale_s_scores_lie_on_its_own_grid(scales):
    with torch.no_grad():
        prediction = small(tuple(scales))(photographs(batch=1))
    sizes = [tuple(scores.shape[-2:]) for scores in prediction.per_scale]
    assert sizes == [prediction.grid.score_size(scale) for scale in scales]


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("scales", [(1.0,), (1.0, 0.5), (0.75, 0.5), (2.0, 1.0, 0.5, 0.25)])
def test_scale_weights_sum_to_one(fusion, scales):
    with torch.no_grad():
        total = small(scales, fusion)(photographs()).scale_weights.sum(dim=1)
    torch.testing.assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_one_scale_is_the_segmenter_alone(fusion):
    model, images = small((1.0,), fusion), photographs((65, 97))
    with torch.no_grad():
        alone = model.segmenter(model.normalize(images)).scores
        torch.testing.assert_close(model(images).scores, alone)


@pytest.mark.parametrize("fusion", ["average", "max"])
def test_the_order_of_scales_does_not_matter_without_a_head(fusion):
    model, images = small(THREE, fusion), photographs()
    reordered = ScaleAware(model.segmenter, model.fusion, THREE[::-1], model.classes)
    with torch.no_grad():
        torch.testing.assert_close(model(images).scores, reordered(images).scores)


def test_images_of_a_batch_do_not_see_each_other():
    model, images = small(), photographs()
    with torch.no_grad():
        one_by_one = torch.cat([model(image[None]).at() for image in images])
        torch.testing.assert_close(model(images).at(), one_by_one)


def test_training_and_evaluation_answer_in_the_same_form():
    model, images = small(), photographs()
    shapes = [
        (type(prediction), prediction.scores.shape, [scores.shape for scores in prediction.per_scale])
        for prediction in (model.train()(images), model.eval()(images))
    ]
    assert shapes[0] == shapes[1]


# at


@pytest.mark.parametrize("size", [(1, 1), (37, 90), (80, 100), (13, 200)])
def test_scores_at_another_size_are_those_of_the_whole_image(size):
    with torch.no_grad():
        prediction = small()(photographs((40, 50)))
    torch.testing.assert_close(prediction.at(size), resize(prediction.at(), size, align_corners=True))


def test_scores_at_the_image_s_own_size_need_no_size():
    with torch.no_grad():
        prediction = small()(photographs((41, 50)))
    assert torch.equal(prediction.at((41, 50)), prediction.at())


def test_a_cell_s_score_is_found_at_its_pixel():
    with torch.no_grad():
        prediction = small()(photographs((40, 50)))
    torch.testing.assert_close(prediction.at()[..., ::8, ::8], prediction.scores[..., :5, :7])


# normalisation


def test_caffe_normalisation_is_bgr_from_0_to_255_less_the_mean():
    images = photographs((33, 33))
    model = ScaleAware(Echo(CAFFE), Average(), (1.0,), ("b", "g", "r"))
    red, green, blue = (255 * images).unbind(dim=1)
    by_hand = torch.stack([blue - 104.008, green - 116.669, red - 122.675], dim=1)
    torch.testing.assert_close(model(images).scores, by_hand, atol=1e-3, rtol=0)


def test_imagenet_normalisation_is_rgb_less_the_mean_over_the_deviation():
    images = photographs((33, 33))
    model = ScaleAware(Echo(Normalization()), Average(), (1.0,), ("r", "g", "b"))
    channels = zip(images.unbind(dim=1), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)
    by_hand = torch.stack([(channel - mean) / std for channel, mean, std in channels], dim=1)
    torch.testing.assert_close(model(images).scores, by_hand)


def test_padding_has_the_mean_colour():
    model, images = small(), photographs((40, 50))
    padded = torch.tensor([0.485, 0.456, 0.406])[:, None, None].expand(2, 3, 65, 65).clone()
    padded[..., :40, :50] = images
    with torch.no_grad():
        torch.testing.assert_close(model(images).scores, model(padded).scores)


def test_the_normalisation_travels_with_the_parameters():
    source = ScaleAware(Echo(CAFFE), Average(), (1.0,), ("b", "g", "r"))
    target = ScaleAware(Echo(Normalization()), Average(), (1.0,), ("b", "g", "r"))
    target.load_state_dict(source.state_dict())
    images = photographs((33, 33))
    assert torch.equal(target(images).scores, source(images).scores)


# memory format, parameters


def test_channels_last_and_contiguous_agree():
    model, images = small(), photographs()
    with torch.no_grad():
        contiguous = model(images).at()
        model.to(memory_format=torch.channels_last)
        torch.testing.assert_close(model(images.contiguous(memory_format=torch.channels_last)).at(), contiguous)


def test_fresh_names_are_the_segmenter_s_head_and_all_of_the_fusion():
    assert sorted(small().fresh()) == [
        "fusion.hidden.bias", "fusion.hidden.weight", "fusion.logits.bias", "fusion.logits.weight",
        "segmenter.head.bias", "segmenter.head.weight",
    ]  # fmt: skip


def test_scales_share_one_set_of_parameters():
    one, three = (sum(p.numel() for p in small(scales, "average").parameters()) for scales in ((1.0,), THREE))
    assert one == three


def test_every_parameter_has_a_gradient():
    model = small().train()
    model(photographs()).scores.square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


# what a user may give


def test_classes_are_named_by_their_numbers_unless_given():
    assert small(num_classes=3).classes == ("0", "1", "2")


def test_given_classes_need_no_number():
    model = create_model("small", classes=["sky", "cat"], fusion="average", pretrained="none")
    assert model(photographs()).scores.shape[1] == 2


@pytest.mark.parametrize(
    "wish",
    [
        {},
        {"num_classes": 0},
        {"num_classes": -1},
        {"num_classes": 256},
        {"classes": ()},
        {"num_classes": 3, "classes": ("a",)},
    ],
)
def test_a_wrong_number_of_classes_is_the_users_error(wish):
    with pytest.raises(UserError, match="give from 1 to 255 classes"):
        create_model("small", pretrained="none", **wish)


def test_the_settings_build_the_same_model_again():
    settings = small((1.0, 0.5), "attention").settings
    again = create_model(num_classes=3, **asdict(settings))
    assert again.settings == settings
    shapes = [
        {name: tensor.shape for name, tensor in model.state_dict().items()} for model in (again, small((1.0, 0.5)))
    ]
    assert shapes[0] == shapes[1]


def test_the_settings_do_not_follow_the_dictionary_they_were_given_in():
    options = {"width": 4, "num_features": 8}
    model = create_model("small", num_classes=2, pretrained="none", options=options)
    options["width"] = 99
    assert model.settings.options == {"width": 4, "num_features": 8}


def test_the_settings_do_not_hold_where_the_parameters_came_from(tmp_path):
    path = tmp_path / "parameters.pt"
    parameters = small().segmenter.state_dict()
    torch.save({name: tensor for name, tensor in parameters.items() if not name.startswith("head.")}, path)
    options = {"width": 4, "num_features": 8}
    model = create_model("small", num_classes=3, pretrained=str(path), options=options)
    assert model.settings.pretrained == "none"


def test_a_model_put_together_by_hand_has_no_settings():
    assert ScaleAware(Echo(CAFFE), Average(), (1.0,), ("b", "g", "r")).settings is None


@pytest.mark.parametrize("scales", [(), (0.0,), (1.0, -0.5)])
def test_scales_that_are_no_scales_are_the_users_error(scales):
    segmenter = small().segmenter
    with pytest.raises(UserError, match="give one or more numbers above 0"):
        ScaleAware(segmenter, create_fusion("average", len(scales), 8), scales, ("a", "b", "c"))


def test_a_model_of_no_scales_is_the_users_error():
    with pytest.raises(UserError, match="give one or more numbers above 0"):
        create_model("small", num_classes=2, scales=(), pretrained="none")


def test_an_unknown_segmenter_is_the_users_error_and_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'largefov'"):
        create_model("largefow", num_classes=2, pretrained="none")


class HalfPixel(Segmenter):
    """One convolution on half-pixel grids, as modern encoders have them."""

    align_corners, output_stride, num_features = False, 16, 4

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 4, 16, stride=16)
        self.head = nn.Conv2d(4, 3, 1)

    def forward(self, images):
        features = self.features(images)
        return Dense(features, self.head(features))

    def load_pretrained(self, source):
        raise NotImplementedError


MODELS = {"small": small(), "lite0-like": ScaleAware(HalfPixel(), Average(), THREE, ("a", "b", "c"))}
