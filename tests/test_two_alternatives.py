"""Machine interpretability on units that mean something, and on one that does not."""

import functools

import pytest
import torch
from torch import nn

import featviz as fv
from featviz.dataset_examples.forced_choice import embed


class Mean(nn.Module):
    """Sees the mean colours of the four quarters."""

    def __init__(self):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(2)

    def forward(self, x):
        return self.pool(x)


@pytest.fixture
def images():
    """Plain colours with a little noise."""
    random = torch.Generator().manual_seed(0)
    colours = torch.rand(120, 3, 1, 1, generator=random)
    noise = 0.1 * torch.randn(120, 3, 8, 8, generator=random)
    return list((colours + noise).clamp(0, 1))


@pytest.fixture
def model():
    return fv.Model(nn.Identity(), size=8)


@pytest.fixture
def judge():
    return fv.Model(Mean(), size=8)


def redness(images):
    return images[:, 0].mean((1, 2)) - images[:, 2].mean((1, 2))


def meaningless(images, pixel=0):
    """A number that looks random and depends on the last bits of one pixel only."""
    return (images[:, 0, 0, pixel].double() * 1e6).sin().float()


def test_a_meaningful_unit_is_told_and_a_meaningless_one_is_not(model, judge, images):
    units = [fv.function(redness, "image"), fv.function(meaningless, "image")]
    found = fv.recipes.machine_interpretability(model, images, units, judge=judge, k=9, tasks=20)
    assert found.accuracy[0] == 1
    assert found.scores[0] > 0.95
    assert abs(float(found.accuracy[1]) - 0.5) < 0.3
    assert abs(float(found.scores[1]) - 0.5) < 0.25
    assert found.errors[1] == pytest.approx(
        float((found.accuracy[1] * (1 - found.accuracy[1]) / 20) ** 0.5)
    )


def test_meaningless_units_are_at_chance_on_average(model, judge, images):
    pixels = [functools.partial(meaningless, pixel=pixel) for pixel in range(8)]
    units = [fv.function(unit, "image") for unit in pixels]
    found = fv.recipes.machine_interpretability(model, images, units, judge=judge, k=9, tasks=20)
    assert abs(float(found.scores.mean()) - 0.5) < 0.12


def test_pictures_explain_without_examples(model, judge, images):
    red = torch.zeros(1, 2, 3, 16, 16)
    red[:, :, 0] = 1
    blue = torch.zeros(1, 2, 3, 16, 16)
    blue[:, :, 2] = 1
    unit = fv.function(redness, "image")
    options = {"judge": judge, "tasks": 10}
    score = fv.recipes.machine_interpretability
    assert score(model, images, unit, pictures=red, negative=blue, **options).scores > 0.95
    assert score(model, images, unit, pictures=red, **options).accuracy == 1
    assert score(model, images, unit, pictures=blue, negative=red, **options).scores < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": 60}, "120 images: 60 tasks with 9 examples of each side need 138"),
        ({"pictures": torch.rand(2, 1, 3, 8, 8)}, r"pictures must have shape \(1, P, C, H, W\)"),
        ({"negative": torch.rand(1, 1, 3, 8, 8)}, "negative pictures need pictures="),
        ({"alpha": 0}, "alpha must be positive"),
    ],
)
def test_tasks_that_cannot_be_made(model, judge, images, options, message):
    with pytest.raises(fv.FeatvizError, match=message):
        fv.recipes.machine_interpretability(
            model, images, fv.function(redness, "image"), judge=judge, **options
        )


def test_a_score_does_not_depend_on_the_other_units(model, images, judge):
    units = [fv.function(redness, "image"), fv.channel("image", 1), fv.channel("image", 2)]
    options = {"judge": judge, "k": 3, "tasks": 4, "alpha": 1.0}
    alone = fv.recipes.machine_interpretability(model, images, units[:1], **options)
    among = fv.recipes.machine_interpretability(model, images, units, **options)
    assert float(among.scores[0]) == pytest.approx(float(alone.scores[0]), abs=1e-6)


def test_judges_without_maps_are_asked_for_their_logits(model, images):
    flat = fv.Model(nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), size=8)
    shown = torch.stack(images[:3])
    torch.testing.assert_close(embed(flat, shown), flat(shown).detach())
    found = fv.recipes.machine_interpretability(
        model, images, fv.function(redness, "image"), judge=flat, judge_layer="output"
    )
    assert found.scores.isfinite().all()


@pytest.mark.parametrize("kind", ["bytes", "x255", "axes"])
def test_pictures_of_another_kind_are_refused(model, images, judge, kind, tmp_path):
    pictures = torch.rand(1, 2, 3, 8, 8)
    given = {"bytes": (pictures * 255).byte(), "x255": pictures * 255, "axes": pictures[0]}[kind]
    for call in (
        lambda **p: fv.recipes.machine_interpretability(
            model, images, "channel:image:0", judge=judge, **p
        ),
        lambda **p: fv.recipes.questionnaire(model, images, "channel:image:0", tmp_path, **p),
    ):
        with pytest.raises(fv.FeatvizError, match="pictures must"):
            call(pictures=given, negative=pictures)
    fine = {"pictures": pictures.numpy(), "negative": pictures[:, :1].numpy()}
    fv.recipes.machine_interpretability(model, images, "channel:image:0", judge=judge, **fine)
