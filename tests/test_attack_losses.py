"""The losses that attacks climb, against numpy in float64 on logits that are the image itself."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import featviz as fv
from featviz.errors import UnitError
from tests import nets, test_contracts
from tests.test_units import hooked

#: Shuffled levels, so that no two logits tie, with a scale and a shift.
LOGITS = st.builds(
    lambda order, jitter, scale, shift: scale * (np.array(order) + np.array(jitter)) + shift,
    st.permutations(range(6)),
    st.lists(st.floats(-0.4, 0.4), min_size=6, max_size=6),
    st.floats(0.1, 20),
    st.floats(-30, 30),
)
LABEL = st.integers(0, 5)
TARGETED = [fv.dlr(3, towards=1), fv.dlr(0, towards=4, layer="logits")]
NAMES = ("ant", "bee", "cat", "dog", "Owl", "owl")


class Direct(nn.Module):
    """Logits that are the image, a signal of one position, in float64."""

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, x):
        return x.flatten(1) * self.one


def direct(classes: int = 6) -> fv.Model:
    return fv.Model(Direct(), mean=0, std=1, size=(1,), channels=classes, classes=NAMES[:classes])


def valued(objective: fv.Objective, *logits: np.ndarray) -> np.ndarray:
    return (
        objective(direct(len(logits[0])), torch.tensor(np.array(logits))[..., None])
        .detach()
        .numpy()
    )


def others(z: np.ndarray, y: int) -> float:
    return np.sort(np.delete(z, y))[-1]


def margin(z: np.ndarray, y: int) -> float:
    return z[y] - others(z, y)


def dlr(z: np.ndarray, y: int, t: int | None = None) -> float:
    down = np.sort(z)[::-1]
    if t is None:
        return -(z[y] - others(z, y)) / (down[0] - down[2] + 1e-12)
    return -(z[y] - z[t]) / (down[0] - 0.5 * (down[2] + down[3]) + 1e-12)


def autoattack_dlr(z: np.ndarray, y: int) -> float:
    """The way AutoAttack writes it: by the sorted logits, and whether y is the highest."""
    order = np.argsort(z)
    up, right = z[order], float(order[-1] == y)
    return -(z[y] - up[-2] * right - up[-1] * (1 - right)) / (up[-1] - up[-3] + 1e-12)


@given(LOGITS, LOGITS, LABEL, LABEL)
def test_values_are_those_of_numpy(one, two, y, t):
    for z, value in zip((one, two), valued(fv.margin(y), one, two), strict=True):
        np.testing.assert_allclose(value, margin(z, y), rtol=1e-9, atol=1e-9)
    for z, value in zip((one, two), valued(fv.dlr(y), one, two), strict=True):
        np.testing.assert_allclose(value, dlr(z, y), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(value, autoattack_dlr(z, y), rtol=1e-9, atol=1e-9)
    if t != y:
        for z, value in zip((one, two), valued(fv.dlr(y, towards=t), one, two), strict=True):
            np.testing.assert_allclose(value, dlr(z, y, t), rtol=1e-9, atol=1e-9)
    log = one - one.max() - np.log(np.exp(one - one.max()).sum())
    np.testing.assert_allclose(valued(-fv.log_probability(y), one), -log[y], rtol=1e-9, atol=1e-9)


@given(LOGITS, LABEL, LABEL)
def test_signs_and_ranges_say_what_is_predicted(z, y, t):
    (value,), (ratio,) = valued(fv.margin(y), z), valued(fv.dlr(y), z)
    rank = int((z > z[y]).sum())
    assert (value > 0) == (np.argmax(z) == y) == (ratio < 0)
    low, high = [(-1, 0), (0, 1), (1, np.inf)][min(rank, 2)]
    assert low - 1e-9 <= ratio <= high + 1e-9
    if t != y:
        (targeted,) = valued(fv.dlr(y, towards=t), z)
        assert (targeted > 0) == (z[t] > z[y])


@given(LOGITS, LABEL, LABEL, st.floats(0.5, 4), st.floats(-5, 5))
def test_the_ratios_ignore_scale_and_shift(z, y, t, scale, shift):
    expected = scale * margin(z, y)
    np.testing.assert_allclose(valued(fv.margin(y), scale * z + shift), expected, atol=1e-9)
    for objective in [fv.dlr(y), *[fv.dlr(y, towards=t)] * (t != y)]:
        np.testing.assert_allclose(
            valued(objective, scale * z + shift), valued(objective, z), rtol=1e-7, atol=1e-9
        )


@given(LOGITS, LABEL, LABEL)
def test_gradients_are_those_of_finite_differences(z, y, t):
    cases = [(fv.margin(y), lambda v: margin(v, y)), (fv.dlr(y), lambda v: dlr(v, y))]
    if t != y:
        cases.append((fv.dlr(y, towards=t), lambda v: dlr(v, y, t)))
    step = 1e-6 * np.ptp(z)
    for objective, reference in cases:
        start = torch.tensor(z)[None, :, None].requires_grad_()
        (gradient,) = torch.autograd.grad(objective(direct(), start).sum(), start)
        ahead, behind = (
            np.array([reference(z + s * step * unit) for unit in np.eye(6)]) for s in (1, -1)
        )
        expected = (ahead - behind) / (2 * step)
        np.testing.assert_allclose(gradient[0, :, 0], expected, rtol=1e-4, atol=1e-5)


def test_the_ratio_is_flat_where_the_class_is_third():
    start = torch.tensor([[0.5, 4.0, 1.5, 3.0, -1.0]])[..., None].requires_grad_()
    value = fv.dlr(2)(direct(5), start)
    assert value.item() == pytest.approx(1)
    (gradient,) = torch.autograd.grad(value.sum(), start)
    assert gradient.abs().max() < 1e-6


def test_ties_are_finite():
    ties = [np.zeros(6), np.array([2.0, 2, 2, 2, 0, 0]), np.array([3.0, 3, 1, 1, 1, 0])]
    for objective in (fv.margin(1), fv.dlr(1), fv.dlr(1, towards=0)):
        start = torch.tensor(np.array(ties), dtype=torch.float32)[..., None].requires_grad_()
        value = objective(direct(), start)
        assert value.tolist() == [0, 0, 0]
        assert torch.autograd.grad(value.sum(), start)[0].isfinite().all()
    start = torch.tensor([[3.0, 3, 1]])[..., None].requires_grad_()
    for y, expected in [(0, [1, -1, 0]), (1, [-1, 1, 0]), (2, [-1, 0, 1])]:  # one of the tied
        (gradient,) = torch.autograd.grad(fv.margin(y)(direct(3), start).sum(), start)
        assert sorted(gradient.flatten().tolist()) == sorted(expected)
        assert gradient[0, y] == 1


def test_on_a_real_network(lite0, photos):
    logits = hooked(lite0, "_fc", photos)
    for y in {285, *map(int, logits.argmax(1))}:
        for objective, reference in [
            (fv.margin(y), [margin(z, y) for z in logits]),
            (fv.dlr(y), [dlr(z, y) for z in logits]),
            (fv.dlr(y, towards=0), [dlr(z, y, 0) for z in logits]),
        ]:
            value = objective(lite0, photos).detach()
            np.testing.assert_allclose(value, reference, rtol=3e-4, atol=1e-4)
    named = fv.dlr("Egyptian cat", towards="tiger cat")
    assert torch.equal(named(lite0, photos), fv.dlr(285, towards=282)(lite0, photos))
    assert torch.equal(fv.margin("egyptian CAT")(lite0, photos), fv.margin(285)(lite0, photos))


def test_different_classes_for_the_samples_of_a_batch():
    z = np.random.default_rng(5).normal(size=(4, 6))
    pairs = [(3, 1), (0, 4), (5, 0), (1, 2)]
    cases = [
        ([fv.margin(y) for y, _ in pairs], [margin(z[i], y) for i, (y, _) in enumerate(pairs)]),
        ([fv.dlr(y) for y, _ in pairs], [dlr(z[i], y) for i, (y, _) in enumerate(pairs)]),
        (
            [fv.dlr(y, towards=t) for y, t in pairs],
            [dlr(z[i], y, t) for i, (y, t) in enumerate(pairs)],
        ),
        (
            [fv.dlr(3), fv.dlr(0, towards=4), -fv.dlr(5), fv.margin(1)],
            [dlr(z[0], 3), dlr(z[1], 0, 4), -dlr(z[2], 5), margin(z[3], 1)],
        ),
    ]
    for members, expected in cases:
        np.testing.assert_allclose(valued(fv.per_sample(members), *z), expected, rtol=1e-9)


CLASSES = st.one_of(st.integers(0, 2000), st.text(max_size=8), st.sampled_from(["3", "a-b", '"']))


@given(CLASSES, st.one_of(st.none(), CLASSES), st.sampled_from(["", "head", "a/b"]))
def test_texts_parse_back(y, t, layer):
    for objective in (fv.margin(y, layer=layer), fv.dlr(y, towards=t, layer=layer)):
        assert fv.objective(str(objective)) == objective
        assert hash(fv.objective(str(objective))) == hash(objective)


@pytest.mark.parametrize(
    ("objective", "text"),
    [
        (fv.margin(285), "margin:285"),
        (fv.margin("Egyptian cat", layer="head"), 'margin:"Egyptian cat":layer=head'),
        (fv.dlr(285), "dlr:285"),
        (fv.dlr(285, towards=281), "dlr:285:towards=281"),
        (fv.dlr(1, towards="tabby", layer="head"), 'dlr:1:layer=head:towards="tabby"'),
        (fv.dlr(1, towards=""), 'dlr:1:towards=""'),
        (fv.dlr(np.int64(1), towards=torch.tensor(2)), "dlr:1:towards=2"),
    ],
)
def test_canonical_texts(objective, text):
    assert str(objective) == text
    assert fv.objective(text) == objective


@pytest.mark.parametrize(
    ("classes", "text", "message"),
    [
        (1, "margin:0", "margin:0 needs at least 2 classes: layer '.*' has 1"),
        (2, "dlr:0", "dlr:0 needs at least 3 classes: layer '.*' has 2"),
        (3, "dlr:0:towards=1", "dlr:0:towards=1 needs at least 4 classes: layer '.*' has 3"),
        (4, "dlr:4", "no class 4 in layer '.*': it has 0 to 3"),
        (4, "dlr:0:towards=4", "no class 4 in layer '.*': it has 0 to 3"),
        (4, "margin:-1", "no class -1"),
        (4, 'margin:"kat"', "no class 'kat'; did you mean 'cat'"),
        (4, 'dlr:"ant":towards="bea"', "no class 'bea'; did you mean 'bee'"),
        (6, 'dlr:0:towards="owl"', r"ambiguous: give one of the indices \[4, 5\]"),
        (4, "dlr:1:towards=1", "leads away from and towards the same class"),
        (4, 'dlr:1:towards="bee"', "leads away from and towards the same class"),
        (4, "dlr:1:layer=image", "holds a map, not logits"),
    ],
)
def test_what_cannot_be_is_named(classes, text, message):
    with pytest.raises(UnitError, match=message) as caught:
        valued(fv.objective(text), np.zeros(classes))
    assert len(str(caught.value).splitlines()) == 1


def test_names_need_a_model_with_names_and_layers_that_exist(tiny):
    images = torch.zeros(1, 2, 8, 8)
    with pytest.raises(UnitError, match="no class names"):
        fv.margin("cat")(tiny, images)
    with pytest.raises(fv.FeatvizError, match="no layer 'haed'; did you mean 'head'"):
        fv.dlr(0, layer="haed")(tiny, images)
    with pytest.raises(fv.FeatvizError, match="whole number"):
        fv.dlr(0, towards=1.5)
    with pytest.raises(fv.FeatvizError, match="dlr has no option 'toward'; did you mean 'towards'"):
        fv.objective("dlr:0:toward=1")


class Five(nn.Module):
    """The contracts' network has three classes, of which a targeted ratio needs four."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 6, 3, padding=1)
        self.logits = nn.Linear(6, 5)

    def forward(self, x):
        return self.logits(self.first(x).relu().flatten(2).mean(2))


@pytest.mark.parametrize("objective", TARGETED, ids=str)
def test_targeted_ratios_keep_the_contracts(objective, monkeypatch):
    monkeypatch.setattr(test_contracts, "Normed", Five)
    model = fv.Model(nets.seeded(Five), mean=0.5, std=0.25, size=8, channels=2)
    images = torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(11))
    test_contracts.test_text_and_equality(objective)
    test_contracts.test_value_is_per_sample(model, images, objective)
    test_contracts.test_samples_are_independent_unless_declared_relational(model, images, objective)
    test_contracts.test_gradients_agree_with_finite_differences(model, images, objective)
    test_contracts.test_the_loop_raises_it(model, objective)
    test_contracts.test_layers_are_what_the_pass_needs(model, objective)


@pytest.mark.parametrize(
    ("objective", "wrong"),
    [
        (-fv.log_probability(2), True),
        (-fv.margin(2), True),
        (fv.dlr(2), True),
        (fv.log_probability(4), False),
        (fv.margin(4), False),
        (fv.dlr(2, towards=4), False),
    ],
    ids=str,
)
def test_climbing_goes_where_the_table_says(objective, wrong):
    """From logits for class 2, climbing leads away from it, or to class 4."""
    z = torch.tensor([[0.3, -0.2, 1.0, 0.1, 0.0, 0.2]])[..., None]
    for _ in range(30):
        z.requires_grad_()
        (gradient,) = torch.autograd.grad(objective(direct(), z).sum(), z)
        z = (z + 0.1 * gradient / gradient.norm()).detach()
    assert (z.argmax() != 2) if wrong else (z.argmax() == 4)
