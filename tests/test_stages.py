"""The first steps at half the size: who gets them, and what they leave as it was."""

import pytest
import torch
from torch import nn

import featviz as fv
from featviz.errors import FeatvizError
from featviz.networks.model import Model
from featviz.optim import stages
from tests import nets

SIZE = 128
OPTIONS = {"size": SIZE, "steps": 6, "transforms": "none", "redirect": 0, "seed": 3}


class Strided(nn.Module):
    """An early layer (stride 2), a late one (stride 16) and logits; records the sizes it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.early = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.late = nn.Conv2d(4, 5, 8, stride=8)
        self.head = nn.Linear(5, 3)
        self.sizes: list[int] = []

    def forward(self, x):
        if x.requires_grad:
            self.sizes.append(x.shape[-1])
        x = torch.relu(self.late(torch.relu(self.early(x))))
        return self.head(x.mean((2, 3)))


@pytest.fixture
def strided() -> Model:
    return fv.Model(nets.seeded(Strided).eval(), size=SIZE)


def test_the_network_sees_half_the_size_first(strided):
    strided.net.sizes.clear()
    made = fv.render(strided, "class:1", **OPTIONS)
    assert strided.net.sizes == [SIZE // 2] * 2 + [SIZE] * 4
    assert made.settings["coarse"] == 0.4
    assert made.images.shape[-1] == SIZE


@pytest.mark.parametrize(
    ("text", "small"),
    [
        ("class:1", True),
        ("class:1 - 0.1*multiscale_variation + 2", True),
        ("probability:1", True),
        ("mean(class:1, channel:late:2)", True),
        ("channel:late:2", True),
        ("layer:late", True),
        ("direction:late:[1,0,0,0,1]", True),
        ("channel:early:2", False),
        ('channel:late:2:where="1:3,2:4"', False),
        ("neuron:late:2", False),
        ("class:1 - total_variation", False),
        ("class:1 + neuron:late:2", False),
    ],
)
def test_objectives_about_shapes_that_name_no_positions_begin_small(strided, text, small):
    objective = fv.objective(text)
    assert stages.gains(objective, strided, (SIZE, SIZE)) is small
    strided.net.sizes.clear()
    fv.render(strided, objective, **OPTIONS)
    assert strided.net.sizes == ([SIZE // 2] * 2 if small else [SIZE] * 2) + [SIZE] * 4


def test_pixels_do_not_begin_small(strided):
    assert not stages.gains(fv.objective("channel:image:0"), strided, (SIZE, SIZE))


def test_an_image_does_not_depend_on_whether_others_begin_small(strided):
    goals = ["class:1", "channel:early:2", "class:2", "neuron:late:1"]
    together = fv.render(strided, goals, **OPTIONS)
    for i, goal in enumerate(goals):
        alone = fv.render(strided, goal, **{**OPTIONS, "seed": together.seeds[i]})
        assert torch.equal(together.images[i], alone.images[0]), goal


def test_frequencies_that_are_not_seen_do_not_move_but_fade(strided):
    param = fv.param.Fourier(size=SIZE, channels=3)
    given = {"param": param, "coarse": 1, "lr": 0.1, "schedule": "constant", **OPTIONS}
    before = param.init([3])["spectrum"][0]
    rows, columns = torch.fft.fftfreq(SIZE)[:, None], torch.fft.rfftfreq(SIZE)
    seen = (rows**2 + columns**2).sqrt() <= 0.25
    for decay in (0.0, 0.5):
        made = fv.render(strided, "class:1", weight_decay=decay, **given)
        after = made.state["spectrum"][0]
        kept = (1 - 0.1 * decay) ** OPTIONS["steps"]
        torch.testing.assert_close(after[:, ~seen], kept * before[:, ~seen], rtol=1e-5, atol=0)
        moved = (after - kept * before)[:, seen].abs().amax(-1)
        assert (moved > 1e-3).float().mean() > 0.9


@pytest.mark.parametrize("at", [2, 3, 4])
def test_a_run_continues_exactly_before_at_and_after_the_change(strided, at):
    options = {**OPTIONS, "seeds": [3], "coarse": 0.5}
    del options["seed"]
    whole = fv.optimize(strided, "class:1", **options)

    def stop(step: fv.callbacks.Step) -> bool:
        return step.index + 1 == at

    first = fv.optimize(strided, "class:1", callbacks=[stop], **options)
    rest = fv.optimize(strided, "class:1", resume=first.checkpoint, **options)
    assert torch.equal(whole.images, rest.images)


@pytest.mark.parametrize("param", ["pixel", "laplacian", "maco", "cppn"])
def test_every_parameterization_takes_it(strided, param):
    made = fv.render(strided, "class:1", param=param, **OPTIONS)
    assert made.images.isfinite().all()
    assert made.settings["coarse"] == 0.4


def test_a_shared_part_and_an_interpolation_hold_their_frequencies(strided):
    inner = fv.param.Fourier(size=SIZE, channels=3)
    param = fv.param.Interpolated(inner=inner, other=inner)
    made = fv.render(strided, "class:1", param=param, coarse=1, weight_decay=0, **OPTIONS)
    for name in ("inner", "other"):
        (key,) = (k for k in made.state if k.startswith(name))
        nyquist = made.state[key][0, :, SIZE // 2]
        assert torch.equal(nyquist, inner.init([3])["spectrum"][0, :, SIZE // 2])


def test_where_half_the_size_is_not_possible_the_default_does_without_and_a_wish_is_refused():
    fixed = fv.Model(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 2)), size=SIZE)
    options = {**OPTIONS, "prior": 0}
    assert fv.render(fixed, "class:1", **options).settings["coarse"] == 0
    with pytest.raises(FeatvizError, match=r"coarse=0.5 is not possible: the network.*; use 0"):
        fv.render(fixed, "class:1", coarse=0.5, **options)


def test_small_images_crops_and_starts_do_without(strided):
    small = fv.render(strided, "class:1", **{**OPTIONS, "size": SIZE - 2})
    cropped = fv.render(strided, "class:1", **{**OPTIONS, "transforms": "crop:96"})
    start = fv.param.Fourier().from_image(torch.full((1, 3, SIZE, SIZE), 0.4))
    started = fv.render(strided, "class:1", param=start, **OPTIONS)
    blend = fv.param.Interpolated(inner=start, other=fv.param.Fourier(size=SIZE, channels=3))
    inside = fv.render(strided, "class:1", param=blend, **OPTIONS)
    assert [r.settings["coarse"] for r in (small, cropped, started, inside)] == [0, 0, 0, 0]


@pytest.mark.parametrize("other", [{"until": "class:1"}, {"keep": "best"}, {"tile": 64}])
def test_scores_of_two_sizes_are_not_compared(strided, other):
    with pytest.raises(FeatvizError, match="coarse cannot be combined"):
        fv.optimize(strided, "class:1", seeds=[0], size=SIZE, steps=4, coarse=0.5, **other)


def test_the_default_gives_way_to_a_stopping_criterion(strided):
    until = fv.class_logit(1) - 1e9
    options = {"size": SIZE, "steps": 4, "redirect": 0}
    made = fv.optimize(strided, "class:1", seeds=[0], settings=fv.Settings(**options), until=until)
    assert made.settings["coarse"] == 0


def test_a_picture_of_an_earlier_version_is_repeated_without():
    record = {"version": "0.1.0", "model": "x", "param": "fourier", "transforms": "none"}
    record |= {"steps": 4, "size": [SIZE, SIZE], "optimizer": "adam", "lr": 0.05}
    record |= {"redirect": 0, "precision": "fp32", "schedule": "constant"}
    assert fv.Settings.from_record(record).coarse == 0
