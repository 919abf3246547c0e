"""Focus: gradients of classes are concentrated where they are strong, those of others are as they were."""

import numpy as np
import pytest
import torch
from torch import nn

import featviz as fv
from featviz.optim.focus import LEAST, MOST, Focus, strength
from featviz.optim.gradient_evaluator import Gradients
from featviz.optim.pullback import pulled_back
from tests import nets


def gradient(seed: int = 0, size: tuple[int, int] = (32, 48)) -> torch.Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(seed))


def test_the_same_everywhere_is_left_alone():
    torch.testing.assert_close(strength(torch.ones(1, 3, 40, 40)), torch.ones(1, 1, 40, 40))


def test_the_strength_is_that_of_the_cells_at_their_centres():
    """Where all of a cell's neighbours are alike, interpolation has nothing to add."""
    small = torch.zeros(1, 1, 8, 8)
    small[..., :4, :] = 3.0
    small[..., 4:, :] = 1.0
    found = strength(small.repeat_interleave(8, 2).repeat_interleave(8, 3))[0, 0]
    assert found.shape == (64, 64)
    # Rows 0 to 7 are outside of the outermost centres: 3 and 1, of the mean.
    np.testing.assert_allclose(found[0] / found[-1], np.sqrt(9.0), rtol=0.03)
    np.testing.assert_allclose(found.mean(), 1, rtol=1e-5)


def test_it_does_not_depend_on_the_scale_and_is_bounded():
    g = gradient()
    torch.testing.assert_close(strength(1e-12 * g), strength(g), rtol=1e-3, atol=1e-3)
    g[:, :, :8, :8] *= 1e6
    assert strength(g).max() <= MOST
    assert strength(g).min() >= LEAST
    assert strength(torch.zeros(1, 3, 16, 16)).isfinite().all()


@pytest.mark.parametrize("flip", [2, 3])
def test_a_mirrored_gradient_has_the_mirrored_strength(flip):
    g = gradient()
    torch.testing.assert_close(strength(g.flip(flip)), strength(g).flip(flip), rtol=1e-4, atol=1e-4)


def test_each_sample_has_its_own():
    some = torch.tensor([True, False]).view(-1, 1, 1, 1)
    found = Focus(2.0, some)(gradient())
    torch.testing.assert_close(found[0], (gradient() * strength(gradient()) ** 2)[0])
    assert torch.equal(found[1], gradient()[1])
    assert torch.equal(Focus(1.0, None)(gradient()), gradient() * strength(gradient()))


def pulled(focus, by_images=False):
    """Parameters that double into images, which transforms triple; the gradients of both."""
    leaf = torch.zeros(2, 3, 32, 48, requires_grad=True)
    images = 2 * leaf
    upstream = Gradients(torch.zeros(2), gradient(1), gradient(2), torch.zeros(2), torch.zeros(2))
    return pulled_back(upstream, 3 * images, images, images, [leaf], focus, by_images, False)


def test_only_what_comes_through_the_transforms_is_concentrated():
    (plain,) = pulled(None)
    torch.testing.assert_close(plain, 2 * (gradient(1) + 3 * gradient(2)))
    found, by_images = pulled(Focus(1.0, None), by_images=True)
    through = 3 * gradient(2)
    torch.testing.assert_close(found, 2 * (gradient(1) + through * strength(through)))
    torch.testing.assert_close(by_images, gradient(1) + through)  # the importance is not


def test_which_objectives_are_focused():
    goals = [
        *(
            "class:1",
            "-class:2 + 3*l1",
            "mean(class:1, class:2)",
            "channel:first:1",
            "neuron:first:1",
        ),
        "probability:1",
    ]
    cpu = torch.device("cpu")
    found = Focus.of(1.5, fv.objective(goals), 6, cpu)
    assert found.power == 1.5
    assert found.samples.flatten().tolist() == [True, True, True, False, False, False]
    assert Focus.of(1.5, fv.objective(goals[:3]), 3, cpu).samples is None
    assert Focus.of(1.5, fv.objective(goals[3:]), 3, cpu) is None
    assert Focus.of(0, fv.objective(goals), 6, cpu) is None


def test_an_image_is_the_same_alone_and_among_others(lite0):
    goals = ["class:1", "channel:_blocks.2:3", "class:285"]
    options = {"steps": 6, "size": 64, "coarse": 0}
    together = fv.render(lite0, goals, seed=[0, 1, 2], batch_size=3, **options)
    for k, goal in enumerate(goals):
        alone = fv.render(lite0, goal, seed=k, **options)
        torch.testing.assert_close(together.images[k : k + 1], alone.images, rtol=0, atol=2e-3)


def test_channels_are_as_without(lite0):
    options = {"steps": 4, "size": 64, "seed": 3}
    with_focus = fv.render(lite0, "channel:_blocks.2:3", **options)
    without = fv.render(lite0, "channel:_blocks.2:3", focus=0, **options)
    assert torch.equal(with_focus.images, without.images)


def unevenness(images: torch.Tensor) -> float:
    """The standard deviation of the local contrast of detail, of its mean."""
    gray = images.mean(1, keepdim=True)
    detail = gray - nn.functional.avg_pool2d(gray, 5, 1, 2)
    local = nn.functional.avg_pool2d(detail.square(), 16).sqrt().flatten(1)
    return float((local.std(1) / local.mean(1)).mean())


def test_detail_is_concentrated(lite0):
    options = {"steps": 64, "quality": "fast", "seed": 0}
    goals = ["class:71", "class:340"]
    even = fv.render(lite0, goals, focus=0, **options)
    uneven = fv.render(lite0, goals, focus=2, **options)
    assert unevenness(uneven.images) > 1.1 * unevenness(even.images)
    assert (uneven.scores > 10).all()


def test_the_default_is_for_images_that_begin_at_noise(lite0, tmp_path):
    def recorded(**options):
        return fv.Settings(**options).resolve(lite0).record["focus"]

    assert recorded() == 1
    assert recorded(quality="best") == 1
    assert recorded(quality="lucid") == recorded(quality="fast") == 0
    assert recorded(param="pixel") == recorded(param="maco") == 0
    assert recorded(weight_decay=0) == recorded(optimizer=torch.optim.SGD) == 0  # nothing fades
    assert recorded(param="pixel", focus=0.5) == 0.5
    assert (
        recorded(param=fv.param.Fourier(size=64, channels=3).from_image(torch.rand(1, 3, 64, 64)))
        == 0
    )
    result = fv.optimize(lite0, "class:1", seeds=[0], steps=1, size=64)
    assert result.settings["focus"] == 0
    record = {
        k: v
        for k, v in fv.render(lite0, "class:1", steps=1, size=64).settings.items()
        if k != "focus"
    }
    assert fv.Settings.from_record(record).focus == 0


def test_signals_have_no_focus():
    signals = nets.tiny(spatial=1)
    assert fv.Settings().resolve(signals).record["focus"] == 0
    with pytest.raises(fv.FeatvizError, match=r"focus is for images \(H, W\)"):
        fv.render(signals, "class:1", focus=1, steps=1)
    with pytest.raises(fv.FeatvizError, match="focus"):
        fv.render(nets.rgb(), "class:1", focus=-1, steps=1)


def test_the_importance_is_that_of_the_score(lite0):
    """After one step on equal images, maps with focus and without are the same."""
    options = {"seeds": [0], "steps": 1, "size": 64, "importance": True, "transforms": ()}
    maps = [fv.optimize(lite0, "class:1", focus=f, **options).importance for f in (0, 1)]
    torch.testing.assert_close(maps[0], maps[1])
