"""Weight decay of the default optimizer: what it does, where it acts, and what records say of it."""

import math

import pytest
import torch

import featviz as fv
from featviz.errors import FeatvizError
from featviz.optim.optimizers import SIGNAL_RATE, SIGNAL_SHRINKAGE, adam
from featviz.optim.quality import QUALITIES
from tests import nets

SIZE = 16
OPTIONS = {"size": SIZE, "steps": 4, "transforms": "none", "redirect": 0}
UNIT = "channel:second:1"
STANDARD = QUALITIES["standard"]
DECAY = STANDARD.fading.weight_decay


@pytest.fixture
def rgb() -> fv.Model:
    return nets.rgb()


def test_a_constant_gradient_approaches_the_bound():
    """x ← x (1 - lr w) + lr from zero: (1 - (1 - lr w)^n) / w after n steps."""
    lr, decay, steps = 0.2, 0.5, 30
    leaf = torch.zeros(3, requires_grad=True)
    optimizer = adam(lr, weight_decay=decay)([leaf])
    for _ in range(steps):
        leaf.grad = -torch.tensor([1.0, 5.0, 0.01])
        optimizer.step()
    expected = (1 - (1 - lr * decay) ** steps) / decay
    torch.testing.assert_close(leaf.detach(), torch.full((3,), expected), rtol=1e-4, atol=0)


def test_what_no_gradient_sustains_vanishes(rgb):
    """The network sees no more than half of the image; the other half fades to gray."""

    def left(images):
        half = images[..., : SIZE // 2]
        return torch.cat([half, torch.zeros_like(half)], -1)

    given = {**OPTIONS, "steps": 60, "transforms": left, "lr": 0.1}
    contrast = [
        fv.render(rgb, UNIT, weight_decay=decay, **given).images[..., -4:].std()
        for decay in (0.0, 1.0)
    ]
    assert contrast[1] < 0.5 * contrast[0]


def test_a_schedule_scales_it(rgb):
    """With a rate of zero nothing changes at all."""
    start = fv.param.Fourier(size=SIZE, channels=3)
    made = fv.render(rgb, UNIT, param=start, weight_decay=1.0, schedule=lambda p: 0.0, **OPTIONS)
    assert torch.equal(made.images, start.image(start.init([0])))


@pytest.mark.parametrize(
    ("param", "expected"),
    [
        (None, DECAY),
        ("fourier:decay=1", DECAY),
        (fv.param.Shared(), DECAY),
        (fv.param.Interpolated(other=fv.param.Fourier()), DECAY),
        (fv.param.Fourier().from_image(torch.full((1, 3, SIZE, SIZE), 0.4)), 0),
        ("pixel", 0),
        ("laplacian:levels=2", DECAY),
        ("maco", 0),
        ("cppn", 0),
        ("alpha", 0),
    ],
)
def test_the_default_is_for_images_that_begin_at_noise_and_fade(rgb, param, expected):
    made = fv.render(rgb, UNIT, param=param, **OPTIONS)
    assert made.settings["weight_decay"] == expected
    pace = STANDARD.fading if expected else STANDARD.steady
    assert made.settings["schedule"] == pace.schedule
    drawn = fv.param.parse(param or "fourier") if not isinstance(param, fv.param.Param) else param
    assert made.settings["lr"] == pytest.approx(pace.rate * drawn.rate)


def test_optimize_has_none_and_an_explicit_value_takes_precedence(rgb):
    assert fv.optimize(rgb, UNIT, seeds=[0], **OPTIONS).settings["weight_decay"] == 0
    for quality, preset in QUALITIES.items():
        for given, expected in ((None, preset.fading.weight_decay), (0.5, 0.5), (0.0, 0)):
            made = fv.render(rgb, UNIT, quality=quality, weight_decay=given, **OPTIONS).settings
            pace = preset.steady if given == 0 else preset.fading
            assert made["weight_decay"] == expected
            assert (made["lr"], made["schedule"]) == (pace.rate, pace.schedule)


def test_only_lucids_look_goes_without():
    without = [name for name, preset in QUALITIES.items() if not preset.fading.weight_decay]
    assert without == ["lucid"]
    assert QUALITIES["lucid"].fading == QUALITIES["lucid"].steady


def test_a_decay_that_takes_everything_is_refused(rgb):
    """At lr · weight_decay = 2 parameters would change their signs in each step."""
    with pytest.raises(FeatvizError, match=r"weight_decay 20.*below 1"):
        fv.render(rgb, UNIT, lr=0.1, weight_decay=20.0, **OPTIONS)


@pytest.mark.parametrize("rate", [10**400, math.nan, -1, "fast", None])
def test_a_damaged_rate_of_a_signal_is_refused_in_one_line(rate):
    made = fv.render(nets.tiny(spatial=1), UNIT, steps=1)
    record = {k: v for k, v in made.settings.items() if k != "weight_decay"}
    with pytest.raises(FeatvizError, match="lr"):
        fv.Settings.from_record({**record, "lr": rate})


def test_signals_lose_a_fixed_share():
    model = nets.tiny(spatial=1)
    for lr in (None, 0.05):
        made = fv.render(model, UNIT, steps=3, lr=lr)
        rate = lr or SIGNAL_RATE
        assert made.settings["weight_decay"] == pytest.approx(SIGNAL_SHRINKAGE / rate)
        # A record from before it was a setting repeats the same signal.
        record = {k: v for k, v in made.settings.items() if k != "weight_decay"}
        again = fv.render(model, UNIT, settings=fv.Settings.from_record(record))
        assert torch.equal(made.images, again.images)
    kept = fv.render(model, UNIT, steps=3, weight_decay=0.0)
    assert not torch.equal(kept.images, made.images)


def test_a_picture_is_repeated_with_its_own(rgb):
    made = fv.render(rgb, UNIT, weight_decay=0.3, **OPTIONS)
    settings = fv.Settings.from_record(made.settings)
    assert settings.weight_decay == 0.3
    assert torch.equal(made.images, fv.render(rgb, UNIT, settings=settings).images)
    record = {k: v for k, v in made.settings.items() if k != "weight_decay"}
    assert fv.Settings.from_record(record).weight_decay == 0


def test_a_resumed_run_is_the_same(rgb):
    given = {**OPTIONS, "steps": 8, "weight_decay": 0.5, "seeds": [3]}
    whole = fv.optimize(rgb, UNIT, **given)

    def stop(step):
        return step.index == 2

    first = fv.optimize(rgb, UNIT, callbacks=[stop], **given)
    rest = fv.optimize(rgb, UNIT, resume=first.checkpoint, **given)
    assert torch.equal(whole.images, rest.images)


def test_a_run_is_not_resumed_with_another_one(rgb):
    def stop(step):
        return step.index == 2

    given = {**OPTIONS, "steps": 8, "seeds": [3]}
    first = fv.optimize(rgb, UNIT, callbacks=[stop], weight_decay=0.5, **given)
    with pytest.raises(FeatvizError, match="has weight_decay 0"):
        fv.optimize(rgb, UNIT, resume=first.checkpoint, **given)


@pytest.mark.parametrize("param", ["pixel", "maco"])
def test_a_decay_that_is_asked_for_leaves_the_pace_of_what_does_not_fade(rgb, param):
    made = fv.render(rgb, UNIT, param=param, weight_decay=0.1, **OPTIONS).settings
    assert made["weight_decay"] == 0.1
    assert (made["lr"], made["schedule"]) == (STANDARD.steady.rate, STANDARD.steady.schedule)


def test_more_steps_have_a_lower_rate(rgb):
    made = fv.render(rgb, UNIT, **{**OPTIONS, "steps": 512}).settings
    assert made["lr"] == STANDARD.fading.rate / 2
    assert made["weight_decay"] == DECAY


def test_a_given_optimizer_has_its_own(rgb):
    with pytest.raises(FeatvizError, match="weight_decay is for the default optimizer"):
        fv.render(rgb, UNIT, optimizer=torch.optim.SGD, lr=1.0, weight_decay=0.1, **OPTIONS)
    for bad in (-1, math.nan):
        with pytest.raises(FeatvizError, match="weight_decay"):
            fv.render(rgb, UNIT, weight_decay=bad, **OPTIONS)
