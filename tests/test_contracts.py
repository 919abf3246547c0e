"""Every objective of the language through one suite; a new one is tested by being registered."""

import pytest
import torch
from torch import nn

import featviz as fv
from featviz.objectives.batchnorm import BatchnormMatch
from featviz.objectives.measured_prior import ActivationPrior
from featviz.objectives.relevant_match import Relevant
from featviz.objectives.unit import KINDS
from tests import nets, zoo

EVERY = zoo.ALL + zoo.COMBINED


class Normed(nets.Small):
    """The small network with a batch norm behind its first convolution."""

    def __init__(self):
        super().__init__(2)
        self.norm = nn.BatchNorm2d(4)
        self.norm.running_mean.uniform_(-0.5, 0.5)
        self.norm.running_var.uniform_(0.2, 2)
        nn.init.uniform_(self.norm.weight, 0.5, 2)

    def forward(self, x):
        x = self.second(self.act(self.norm(self.first(x))))
        return self.head(x.flatten(2).mean(2))


def encode(text: str) -> torch.Tensor:
    return torch.tensor([float(len(text)), 1.0, -2.0])


@pytest.fixture(scope="module")
def model() -> fv.Model:
    net = nets.seeded(Normed)
    return fv.Model(net, mean=0.5, std=0.25, size=8, channels=2, text=encode)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(11))


def test_every_kind_has_a_row():
    assert set(zoo.OBJECTIVES) == set(KINDS)
    for kind, rows in zoo.OBJECTIVES.items():
        assert all(str(o).split(":")[0] == kind for o in rows)


@pytest.mark.parametrize("objective", EVERY, ids=str)
def test_text_and_equality(objective):
    again = fv.objective(str(objective))
    assert again == objective
    assert hash(again) == hash(objective)
    assert eval(repr(objective), {"objective": fv.objective}) == objective
    assert (2 * objective - 1) / 2 == objective - 0.5


@pytest.mark.parametrize("objective", EVERY, ids=str)
def test_value_is_per_sample(model, images, objective):
    value = objective(model, images)
    assert value.shape == (3,)
    assert value.isfinite().all()
    assert torch.equal(value, objective(model, images))


@pytest.mark.parametrize("objective", EVERY, ids=str)
def test_samples_are_independent_unless_declared_relational(model, images, objective):
    value = objective(model, images)
    other = images.clone()
    other[[0, 1]] = torch.rand(2, 2, 8, 8, generator=torch.Generator().manual_seed(5))
    changed = objective(model, other)[2]
    if objective.relational:
        with pytest.raises(fv.FeatvizError, match="single samples"):
            fv.per_sample([objective])
    else:
        torch.testing.assert_close(changed, value[2])
        alone = objective.sliced(slice(2, 3))(model, images[2:])
        torch.testing.assert_close(alone, value[2:])


@pytest.mark.parametrize("objective", [o for o in EVERY if not isinstance(o, Relevant)], ids=str)
def test_gradients_agree_with_finite_differences(model, images, objective):
    """In float64; `blur` and relevance hold something constant, which finite differences cannot."""
    double = fv.Model(
        nets.seeded(Normed).double(), mean=0.5, std=0.25, size=8, channels=2, text=encode
    )
    start = images[:3].double().requires_grad_()
    if "blur" in str(objective):
        gradient = torch.autograd.grad(objective(double, start).sum(), start)[0]
        smooth = fv.objectives.penalties.smooth(start)
        torch.testing.assert_close(gradient, (start - smooth).detach())
        return
    direction = torch.randn(start.shape, generator=torch.Generator().manual_seed(1)).double()
    (gradient,) = torch.autograd.grad(objective(double, start).sum(), start)
    step = 1e-5
    ahead, behind = (objective(double, start + s * step * direction).sum() for s in (1, -1))
    expected = (ahead - behind) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), expected, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("objective", EVERY, ids=str)
def test_the_loop_raises_it(model, objective):
    result = fv.render(
        model,
        objective,
        steps=30,
        seed=[0, 1, 2],
        transforms=(),
        param="pixel:sd=0.3",
        lr=0.05,
        prior=0,
    )
    assert result.history[-1].sum() > result.history[0].sum()
    assert not result.failures


@pytest.mark.parametrize("objective", zoo.ALL, ids=str)
def test_layers_are_what_the_pass_needs(model, objective):
    from featviz.objectives.scene import Target

    needs = objective.needs(Target(model, (8, 8), 3))
    assert set(needs) <= {i.name for i in model.layers()}
    if not isinstance(objective, (BatchnormMatch, ActivationPrior)):
        assert needs == objective.layers


@pytest.mark.parametrize("spatial", [1, 3])
@pytest.mark.parametrize(
    "objective",
    [
        fv.channel("first", 1, where="2:4"),
        fv.total_variation(),
        fv.blur(),
        fv.spectrum(),
        fv.boundary_complexity(width=1),
        fv.style_match("first", torch.linspace(0, 1, 16).reshape(2, 8)),
        fv.diversity("first"),
    ],
    ids=str,
)
def test_signals_and_volumes(spatial, objective):
    if "array" in str(objective) and spatial == 3:
        objective = fv.style_match("first", torch.rand(2, 8, 8, 8))
    model = nets.tiny(spatial)
    images = torch.rand(2, 2, *(8,) * spatial)
    value = objective(model, images)
    assert value.shape == (2,)
    assert value.isfinite().all()
