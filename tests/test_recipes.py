"""Recipes on networks whose channels, groups and directions are known, and on Lite0."""

import pytest
import skimage.data
import torch
from PIL import Image
from torch import nn

import featviz as fv
from featviz.recipes import drawing

FAST = {"steps": 2, "transforms": "none", "quality": "fast"}


class Planted(nn.Module):
    """Channels that are the image's colours and the negative of red, and a head that weighs them.

    ``logit 0 = Σ_positions (2 red - 3 (-green) + 0 blue)``, with -green below zero everywhere.
    """

    def __init__(self):
        super().__init__()
        self.colours = nn.Conv2d(3, 3, 1, bias=False)
        self.colours.weight = nn.Parameter(torch.diag(torch.tensor([1.0, -1, 1]))[..., None, None])
        self.register_buffer("weights", torch.tensor([[2.0, -3, 0], [0, 0, 1]]))

    def forward(self, x):
        return self.colours(x).flatten(2).sum(2) @ self.weights.T


@pytest.fixture
def planted():
    return fv.Model(Planted(), size=(6, 8))


@pytest.fixture
def scene():
    """Red in one corner, green in the opposite one, blue everywhere."""
    image = torch.zeros(1, 3, 6, 8)
    image[:, 0, :2, :3] = 0.5
    image[:, 1, 4:, 5:] = 1.0
    image[:, 2] = 0.75
    return image


def test_contributions_of_a_linear_head_are_known(planted, scene):
    found = fv.recipes.layer_attribution(planted, scene, "class:0", "colours")
    expected = torch.stack([2 * scene[0, 0], 3 * scene[0, 1], 0 * scene[0, 2]])
    torch.testing.assert_close(found.maps, expected)
    torch.testing.assert_close(found.channels, expected.flatten(1).sum(1))
    torch.testing.assert_close(found.positions, expected.sum(0))
    assert found.value == pytest.approx(float(expected.sum()))  # complete, since linear
    red, green = 2 * 0.5 * 6, 3 * 1.0 * 6
    first, second = found.strongest(5)  # blue has no weight
    assert (first.channel, first.sign, second.channel, second.sign) == (1, -1, 0, 1)
    assert first.share == pytest.approx(green / (red + green))
    assert str(first.objective) == "-channel:colours:1"  # it speaks for the class by being low
    assert str(second.objective) == "channel:colours:0"
    torch.testing.assert_close(second.map, expected[0])


def test_contributions_are_relative_to_the_baseline(planted, scene):
    base = torch.full_like(scene, 0.25)
    found = fv.recipes.layer_attribution(planted, scene, "class:0", "colours", baseline=base)
    values = [float(fv.objective("class:0")(planted, images)) for images in (scene, base)]
    assert float(found.maps.sum()) == pytest.approx(values[0] - values[1])


def test_contributions_agree_with_hooks_on_a_real_network(lite0, photos):
    """Independently: the block's output scaled by 1 + h at one channel, for a small h."""
    photo, layer, h = photos[:1], "_blocks.14", 1e-2
    found = fv.recipes.layer_attribution(lite0, photo, "class:281", layer, points=1)
    block = dict(lite0.net.named_modules())[layer]

    def logit(channel, factor):
        def hook(module, inputs, output):
            output = output.clone()
            output[:, channel] *= factor
            return output

        handle = block.register_forward_hook(hook)
        try:
            return float(lite0(photo)[0, 281])
        finally:
            handle.remove()

    for channel in found.channels.abs().topk(3).indices.tolist():
        measured = (logit(channel, 1 + h) - logit(channel, 1 - h)) / (2 * h)
        assert float(found.channels[channel]) == pytest.approx(measured, rel=0.02, abs=1e-3)


@pytest.mark.parametrize("layer", ["_blocks.10", "_blocks.15"])
def test_contributions_sum_to_what_the_layer_adds(lite0, layer):
    photo = Image.fromarray(skimage.data.chelsea())
    found = fv.recipes.layer_attribution(lite0, photo, 'class:"Egyptian cat"', layer, points=32)
    linear = fv.recipes.layer_attribution(lite0, photo, 'class:"Egyptian cat"', layer, points=1)
    assert abs(found.delta) < 0.1 * (found.value - found.baseline_value)
    assert abs(linear.delta) > 5 * abs(found.delta)
    block = dict(lite0.net.named_modules())[layer]
    handle = block.register_forward_hook(lambda module, inputs, output: output * 0)
    try:  # independently: the network without the layer
        assert found.baseline_value == pytest.approx(
            float(lite0(found.image[None])[0, 285]), abs=1e-4
        )
    finally:
        handle.remove()
    assert not block._forward_hooks


@pytest.mark.parametrize(
    ("objective", "layer", "message"),
    [
        ("channel:colours:0", "output", "layer 'output' is not what a module returns"),
        ("class:0", "colors", "no layer 'colors'; did you mean 'colours'"),
    ],
)
def test_layers_that_have_no_contributions(planted, scene, objective, layer, message):
    with pytest.raises(fv.FeatvizError, match=message):
        fv.recipes.layer_attribution(planted, scene, objective, layer)


def test_nothing_speaks_for_it(planted, scene):
    found = fv.recipes.layer_attribution(planted, scene, "-class:1", "colours")
    with pytest.raises(fv.FeatvizError, match="nothing in layer 'colours' speaks for"):
        found.strongest(3)


def test_building_blocks_show_the_planted_channels_where_they_act(planted, scene, tmp_path):
    made = fv.recipes.building_blocks(planted, scene, "class:0", "colours", **FAST)
    assert [part.channel for part in made.parts] == [1, 0]
    assert made.rendered.objectives == ["-channel:colours:1", "channel:colours:0"]
    x, y = drawing.peak(made.parts[0].map)
    assert x > 0.6
    assert y > 0.6
    x, y = drawing.peak(made.parts[1].map)
    assert x < 0.4
    assert y < 0.4
    (path,) = made.save(tmp_path / "blocks.png")
    with Image.open(path) as page:
        assert page.size == made.sheet().size
    sides = made._sides(100)  # areas are shares
    assert (sides[1] / sides[0]) ** 2 == pytest.approx(
        made.parts[1].share / made.parts[0].share, abs=0.02
    )


def test_a_unit_is_attributed_to_an_earlier_layer(lite0):
    photo = Image.fromarray(skimage.data.chelsea())
    unit = fv.neuron("_blocks.10", 5)
    made = fv.recipes.building_blocks(lite0, photo, unit, "_blocks.9", k=3, size=64, **FAST)
    assert len(made.parts) == 3
    assert made.rendered.images.shape == (3, 3, 64, 64)
    shares = [part.share for part in made.parts]
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) < 1


def test_pictures_do_not_overlap():
    anchors, sides = [(50, 50)] * 4 + [(55, 48), (300, 10)], [80, 60, 60, 40, 40, 40]
    places = drawing.apart(anchors, sides, (400, 400), gap=4)
    for i in range(6):
        for j in range(i):
            gap = (sides[i] + sides[j]) / 2
            distance = max(abs(a - b) for a, b in zip(places[i], places[j], strict=True))
            assert distance > gap, (i, j)
        assert all(sides[i] / 2 <= c <= 400 - sides[i] / 2 for c in places[i])


def planted_parts(rows=60, seed=1):
    """Three disjoint non-negative components; many rows lack some, or the factors were ambiguous."""
    random = torch.Generator().manual_seed(seed)
    parts = torch.zeros(3, 12, dtype=torch.float64)
    for k in range(3):
        parts[k, 4 * k : 4 * k + 4] = torch.rand(4, generator=random, dtype=torch.float64) + 0.2
    amounts = torch.rand(rows, 3, generator=random, dtype=torch.float64)
    amounts *= (amounts > 0.5) * torch.tensor([1.0, 3, 2])
    return amounts, parts / parts.norm(dim=1, keepdim=True)


def test_nmf_finds_planted_parts():
    amounts, parts = planted_parts()
    left, right = fv.recipes.nmf(amounts @ parts, 3)
    order = [1, 2, 0]  # by their share of the total
    torch.testing.assert_close(right, parts[order], atol=0.01, rtol=0)
    torch.testing.assert_close(left, amounts[:, order], atol=0.03, rtol=0)
    assert (left >= 0).all()
    assert (right >= 0).all()


@pytest.mark.parametrize(
    ("matrix", "components", "message"),
    [
        (-torch.ones(3, 3), 2, "not negative"),
        (torch.full((3, 3), torch.nan), 2, "finite"),
        (torch.ones(3, 2), 3, "a 3x2 matrix has no 3 components"),
        (torch.zeros(3, 3), 2, "the matrix is zero"),
    ],
)
def test_matrices_that_have_no_factors(matrix, components, message):
    with pytest.raises(fv.FeatvizError, match=message):
        fv.recipes.nmf(matrix, components)


def test_pca_finds_the_planted_axes():
    random = torch.Generator().manual_seed(0)
    scores = torch.randn(500, 2, generator=random, dtype=torch.float64) * torch.tensor([5.0, 1])
    axes = torch.tensor([[0.6, 0.8, 0], [0, 0, 1.0]], dtype=torch.float64)
    found, directions, mean = fv.recipes.pca(scores @ axes + 7, 2)
    torch.testing.assert_close(directions, axes, atol=0.05, rtol=0)
    torch.testing.assert_close(found @ directions + mean, scores @ axes + 7)
    white, _, _ = fv.recipes.pca(scores @ axes, 2, whiten=True)
    torch.testing.assert_close(white.T @ white / 500, torch.eye(2, dtype=torch.float64))


def test_neuron_groups_are_the_planted_colours(planted, scene, tmp_path):
    """Red and green do not overlap and blue is constant: each is a group of its own."""
    made = fv.recipes.neuron_groups(planted, scene, "colours", k=3, objective="class:0", **FAST)
    expected = torch.tensor([[0, 0, 1.0], [0, -1, 0], [1.0, 0, 0]])  # the signs of the channels
    for vector in expected:
        k = int((made.directions @ vector).argmax())
        assert float(made.directions[k] @ vector) > 0.9
    assert made.explained > 0.99
    effects = {
        int(d.abs().argmax()): float(e) for d, e in zip(made.directions, made.effects, strict=True)
    }
    assert effects[1] == pytest.approx(18, rel=0.2)
    assert effects[0] == pytest.approx(6, rel=0.2)
    value = float(fv.objective("class:0")(planted, scene))
    assert float(made.effects.sum()) == pytest.approx(value, rel=0.05)
    made.save(tmp_path / "groups.png")


def test_groups_of_several_photographs_share_their_directions(lite0, photos):
    made = fv.recipes.neuron_groups(lite0, photos[:2], "_blocks.8", k=4, size=64, **FAST)
    assert made.maps.shape == (2, 4, 14, 14)
    assert made.directions.shape == (4, 112)
    torch.testing.assert_close(made.directions.norm(dim=1), torch.ones(4))
    assert 0.2 < made.explained < 1
    assert made.effects is None
    assert made.sheet().mode == "RGB"


def test_too_many_groups(planted, scene):
    with pytest.raises(fv.FeatvizError, match="48 positions of 3 units: too few for 7 groups"):
        fv.recipes.neuron_groups(planted, scene, "colours", k=7, **FAST)
