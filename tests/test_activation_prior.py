"""The prior of the quality presets, and the surroundings of warped images."""

import pytest
import torch

import featviz as fv
from featviz.errors import FeatvizError
from featviz.objectives import Objective
from featviz.objectives.scene import Target
from featviz.optim import prior as priors
from featviz.optim.prior import logit_weight
from featviz.optim.settings import Settings
from featviz.transforms.surroundings import onto_background
from tests import nets

OPTIONS = {"size": 64, "steps": 3, "transforms": "none", "redirect": 0}


@pytest.mark.parametrize(
    ("text", "weight"),
    [
        ("class:3", 1),
        ("0.5*class:3 - 2*class:4", 2.5),
        ("mean(class:3, channel:_blocks.4:1)", 0.5),
        ("probability:3", 0),
        ("channel:_blocks.4:1", 0),
        ("class:3*class:4", 0),
        ("class:3 + 20*batchnorm_match", 0),
    ],
)
def test_the_prior_is_weighted_by_the_class_logits(text, weight):
    assert logit_weight(fv.objective(text)) == weight


def test_the_prior_changes_the_images_of_classes_only(lite0):
    goals = ["class:3", "channel:_blocks.4:1"]
    plain, priced = (fv.render(lite0, goals, prior=w, **OPTIONS) for w in (0, 10))
    assert not torch.equal(plain.images[0], priced.images[0])
    assert torch.equal(plain.images[1], priced.images[1])
    # The scores are those of the objective, before the first update they cannot differ.
    assert torch.equal(plain.history[0], priced.history[0])


def test_the_prior_is_the_gradient_of_its_objective(lite0):
    by_setting = fv.render(lite0, "class:3", prior=10, **OPTIONS)
    whole: Objective = fv.class_logit(3) + 10 * priors.prior(Target(lite0, (64, 64), 1))
    by_objective = fv.render(lite0, whole, prior=0, **OPTIONS)
    torch.testing.assert_close(by_setting.images, by_objective.images, atol=2e-3, rtol=0)


def test_the_default_has_it_and_an_image_is_the_same_alone_and_in_a_batch(lite0):
    options = {"size": 64, "steps": 34}
    goals = [f"class:{k}" for k in (1, 2, 3, 4, 5)]
    together = fv.render(lite0, goals, **options)
    assert together.settings["prior"] == 10
    alone = fv.render(lite0, goals[2], seed=together.seeds[2], **options)
    assert torch.equal(together.images[2], alone.images[0])


def test_networks_without_batchnorm_get_none_or_on_request_the_variation_alone():
    model = nets.tiny()
    assert Settings().resolve(model).prior == 0
    assert Settings(prior=2).resolve(model).prior == 2
    goal = priors.prior(Target(model, model.size, 1))
    assert str(goal) == "-3*multiscale_variation:scales=2"
    images = torch.rand(2, 2, *model.size, generator=torch.Generator().manual_seed(0))
    expected = -3 * fv.multiscale_variation(scales=2)(model, images)
    torch.testing.assert_close(goal(model, images), expected)


def test_a_prior_with_nothing_to_act_on_is_refused():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 4))
    model = fv.Model(net, size=(1,), channels=6)
    assert Settings().resolve(model).prior == 0
    with pytest.raises(FeatvizError, match=r"prior=5 has nothing to act on: .*use 0"):
        Settings(prior=5).resolve(model)


def test_the_prior_does_not_hide_an_objective_without_a_gradient():
    class Hidden(torch.nn.Module):
        def forward(self, x):
            return torch.rand(len(x), 10) + 0 * x.detach().mean((1, 2, 3))[:, None]

    model = fv.Model(Hidden(), size=32)
    with pytest.raises(FeatvizError, match="does not depend on the image"):
        fv.render(model, "class:3", steps=2)


def test_the_presets_and_earlier_records(lite0):
    assert Settings(quality="lucid").resolve(lite0).prior == 0
    record = Settings(prior=3).resolve(lite0).record
    assert Settings.from_record({**record, "version": "0.3"}).prior == 3
    del record["prior"]  # an earlier version had no such setting
    assert Settings.from_record(record).prior == 0


@pytest.mark.parametrize("share", [0.05, 0.5, 1])
def test_share_keeps_the_smallest_layers(lite0, share):

    target = Target(lite0, (224, 224), 1)
    count = {
        i.name: i.shape[0] * i.shape[1] * i.shape[2] for i in lite0.layers() if "_bn" in i.name
    }
    every = set(fv.batchnorm_match().needs(target))
    kept = set(fv.batchnorm_match(share=share).needs(target))
    left = every - kept
    total = sum(count[n] for n in every)
    assert kept <= every
    assert sum(count[n] for n in kept) <= share * total
    if left:
        smallest = min(count[n] for n in left)
        assert max(count[n] for n in kept) <= smallest
        assert sum(count[n] for n in kept) + smallest > share * total
    else:
        assert share == 1


@pytest.mark.parametrize("share", [0, -1, 1.5])
def test_a_share_outside_of_0_to_1_is_refused(lite0, share):
    with pytest.raises(FeatvizError, match="share must be above 0"):
        fv.batchnorm_match(share=share)(lite0, torch.rand(1, 3, 64, 64))


def test_blur_continues_the_colours_and_keeps_the_inside():
    image = torch.zeros(1, 3, 32, 32)
    image[:, 0] = 1  # red
    half = torch.tensor([[[0.5, 0, 8], [0, 0.5, 8]]])
    starts = torch.tensor([0.3], dtype=torch.float64)
    out = onto_background(image.requires_grad_(), half, (32, 32), starts, "blur")
    assert torch.equal(out[:, :, 10:22, 10:22], image.detach()[:, :, :12, :12])
    around = torch.cat([out[:, :, :6].flatten(2), out[:, :, -6:].flatten(2)], 2).detach()
    assert around[:, 0].mean() > 0.8 > 0.2 > around[:, 1].mean()
    assert around.std(2).min() > 0.01  # not a wall of one colour
    # Only the inside is rewarded.
    (gradient,) = torch.autograd.grad(out[:, :, :6].sum(), image)
    assert gradient.abs().max() == 0
