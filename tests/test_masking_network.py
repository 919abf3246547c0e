"""A masking network on a classifier of coloured squares, which are at known places."""

import pytest
import torch
from torch import nn

import featviz as fv
from featviz.attribution.masking_network import fit_masking_network
from featviz.errors import FeatvizError


class Colours(nn.Module):
    """Logits of a red, a green and a blue square on gray; 6 px of 24."""

    def forward(self, x):
        away = x - x.mean(1, keepdim=True)
        return 1.5 * (nn.functional.avg_pool2d(away.clamp_min(0), 6, 1) * 10).amax(
            (2, 3)
        ).clamp_max(4)


def scenes(count, seed, squares=1):
    """Images (B, 3, 24, 24), the classes (B, squares), and their masks (B, squares, 24, 24)."""
    rng = torch.Generator().manual_seed(seed)
    images = 0.4 + 0.2 * torch.rand(count, 1, 24, 24, generator=rng).expand(-1, 3, -1, -1).clone()
    classes = torch.stack([torch.randperm(3, generator=rng)[:squares] for _ in range(count)])
    masks = torch.zeros(count, squares, 24, 24, dtype=torch.bool)
    for i in range(count):
        for k in range(squares):
            left = 12 * k if squares > 1 else 0
            y = int(torch.randint(0, 19, (), generator=rng))
            x = left + int(torch.randint(0, 24 // squares - 5, (), generator=rng))
            masks[i, k, y : y + 6, x : x + 6] = True
            images[i, :, masks[i, k]] = 0.2
            images[i, int(classes[i, k]), masks[i, k]] = 0.9
    return images, classes, masks


@pytest.fixture(scope="module")
def trained():
    model = fv.Model(Colours(), size=24, mean=0.0, std=1.0)
    images, classes, _ = scenes(128, 0)
    assert (model(images).argmax(1) == classes[:, 0]).all()
    return model, fit_masking_network(model, images, steps=300, batch_size=16, width=8, levels=2)


@pytest.mark.slow
def test_masks_of_new_images_are_on_the_square(trained):
    model, fitted = trained
    images, classes, squares = scenes(20, 1)
    masks = fitted(images, classes[:, 0])
    assert masks.shape == (20, 1, 24, 24)
    assert 0 <= masks.min() <= masks.max() <= 1
    inside = (masks[:, 0] * squares[:, 0]).sum((1, 2)) / masks[:, 0].sum((1, 2))
    assert inside.mean() > 0.6  # the square takes a sixteenth
    assert fitted.losses[-20:].mean() < 0.85 * fitted.losses[:20].mean()
    blurry = torch.full_like(images, 0.5)
    kept = model(blurry.lerp(images, masks)).softmax(1).gather(1, classes)
    hidden = model(blurry.lerp(images, 1 - masks)).softmax(1).gather(1, classes)
    assert kept.mean() > 0.8
    assert hidden.mean() < 0.5


@pytest.mark.slow
def test_of_two_squares_the_class_chooses(trained):
    """It was trained on single squares only."""
    images, classes, squares = scenes(20, 2, squares=2)
    for k in range(2):
        masks = trained[1](images, classes[:, k])[:, 0]
        on, off = (masks[squares[:, j]].mean() for j in (k, 1 - k))
        assert on > 1.7 * off


def test_the_model_is_left_alone_and_seeds_repeat():
    model = fv.Model(Colours(), size=24, mean=0.0, std=1.0)
    images, _, _ = scenes(6, 3)
    state = torch.get_rng_state()
    first, again = (
        fit_masking_network(model, images, steps=2, batch_size=2, width=4, seed=4) for _ in "ab"
    )
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first.losses, again.losses)
    other = fit_masking_network(model, images, steps=2, batch_size=2, width=4, seed=5)
    assert not torch.equal(first.losses, other.losses)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 5}, "a width of 4, 8, 12"),
        ({"classes": torch.zeros(2).long()}, "6 images need one label each"),
        ({"steps": 0}, "steps must be"),
    ],
)
def test_bad_arguments_are_one_line(change, message):
    model = fv.Model(Colours(), size=24, mean=0.0, std=1.0)
    with pytest.raises(FeatvizError, match=message):
        fit_masking_network(model, scenes(6, 3)[0], **{"steps": 1, **change})
