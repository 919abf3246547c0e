"""The algebra of objectives: laws, in values on a network and in structure."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import featviz as fv
from tests import nets

MODEL = nets.tiny()
IMAGES = torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(1))

units = st.one_of(
    st.builds(fv.channel, st.just("first"), st.integers(0, 3)),
    st.builds(fv.neuron, st.just("second"), st.integers(0, 4)),
    st.builds(fv.class_logit, st.integers(0, 2)),
    st.just(fv.layer("act")),
)
objectives = st.recursive(
    units,
    lambda o: st.one_of(
        st.builds(lambda a, b: a + b, o, o),
        st.builds(lambda a, b: a * b, o, o),
        st.builds(lambda a, b: a - b, o, o),
        st.builds(lambda a: fv.mean([a, a * 2]), o),
    ),
    max_leaves=4,
)
numbers = st.floats(-4, 4).map(lambda v: round(v * 16) / 16)  # exact in binary


def value(objective):
    return objective(MODEL, IMAGES)


def same(a, b):
    torch.testing.assert_close(value(a), value(b), rtol=1e-4, atol=1e-5)


@given(objectives, objectives)
def test_commutativity(a, b):
    assert a + b == b + a
    assert a * b == b * a
    assert hash(a + b) == hash(b + a)
    same(a + b, b + a)
    same(a * b, b * a)


@given(objectives, objectives, objectives)
def test_associativity(a, b, c):
    same((a + b) + c, a + (b + c))
    same((a * b) * c, a * (b * c))


@given(objectives, objectives, numbers)
def test_distributivity(a, b, x):
    assert x * (a + b) == x * a + x * b
    same(x * (a + b), x * a + x * b)
    same(a * (b + x), a * b + a * x)


@given(objectives, objectives)
def test_subtraction_is_addition_of_the_negative(a, b):
    assert a - b == a + -b
    assert -(-a) == a
    torch.testing.assert_close(value(a - b), value(a) - value(b), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(value(-a), -value(a))


@given(objectives, numbers)
def test_numbers(a, x):
    torch.testing.assert_close(value(x * a), x * value(a), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(value(a + x), value(a) + x, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(value(x - a), x - value(a), rtol=1e-4, atol=1e-5)
    if x:
        same(a / x, a * (1 / x))
    assert 1 * a == a
    assert a + 0 == a


@given(st.lists(objectives, min_size=1, max_size=4))
def test_mean_is_the_mean(members):
    expected = torch.stack([value(m) for m in members]).mean(0)
    torch.testing.assert_close(value(fv.mean(members)), expected, rtol=1e-4, atol=1e-5)


@given(st.lists(objectives, min_size=3, max_size=3))
def test_per_sample_scores_each_sample_by_its_own(members):
    expected = torch.stack([value(m)[i] for i, m in enumerate(members)])
    torch.testing.assert_close(value(fv.per_sample(members)), expected, rtol=1e-4, atol=1e-5)


@given(objectives)
def test_value_is_per_sample_and_independent_of_neighbours(objective):
    together = value(objective)
    assert together.shape == (3,)
    for i in range(3):
        alone = objective(MODEL, IMAGES[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)


def test_operators_leave_their_operands_alone():
    a, b = fv.channel("first", 1), fv.channel("first", 2) + 1
    texts = str(a), str(b)
    _ = a + b, a - b, a * b, -a, a / 2, 2 * b, sum([a, b])
    assert (str(a), str(b)) == texts


def test_stacked_units_of_one_layer_take_few_operations():
    """Sixty-four channels in a batch are one gather, not sixty-four graphs."""
    members = [(-1) ** c * fv.channel("first", c % 4) for c in range(64)]
    images = torch.rand(64, 2, 8, 8)
    objective = fv.per_sample(members)
    with torch.profiler.profile() as many:
        objective(MODEL, images)
    with torch.profiler.profile() as few:
        fv.per_sample(members[:2])(MODEL, images[:2])
    assert len(many.events()) < 1.3 * len(few.events())


def test_gradients_agree_with_finite_differences():
    model = nets.tiny()
    model.net.double()
    images = IMAGES[:2].double().requires_grad_()
    objective = fv.objective(
        "channel:second:1 - 0.5*neuron:second:2:1:3*class:1 + mean(layer:first, class:2)"
        " + direction:second:[1,-2,0.5,0,1]:cosine_power=2"
    )
    assert torch.autograd.gradcheck(lambda x: objective(model, x), images)


def test_per_sample_wants_a_batch_of_its_length():
    with pytest.raises(fv.FeatvizError, match=r"2 objectives for 3 image"):
        value(fv.objective(["channel:first:0", "channel:first:1"]))
