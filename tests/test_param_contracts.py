"""Every parameterization through one suite; a new one without its row fails."""

import dataclasses
import inspect

import pytest
import torch
from torch import nn

import featviz as fv
from featviz import param as P
from featviz.optim.loop import optimize
from featviz.optim.optimizers import adam
from tests import nets

SIDE, CHANNELS = (8, 10), 2
RNG = torch.Generator().manual_seed(4)
ONE = torch.rand(1, CHANNELS, *SIDE, generator=RNG)
THREE = torch.rand(3, CHANNELS, *SIDE, generator=RNG)


class Net(nn.Module):
    """A linear generator of images of SIDE."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(5, CHANNELS * SIDE[0] * SIDE[1])

    def forward(self, z):
        return self.out(z).view(-1, CHANNELS, *SIDE).tanh()


SIZED = {"size": SIDE, "channels": CHANNELS}
#: Each class with arguments of its own, for images of SIDE and three samples.
ROWS: dict[type[P.Param], list[P.Param]] = {
    P.Fourier: [P.Fourier(**SIZED, sd=0.3), P.Fourier(**SIZED, decay=1.5, range="clamp")],
    P.Pixel: [P.Pixel(**SIZED, sd=0.3)],
    P.Laplacian: [P.Laplacian(**SIZED, sd=0.3, levels=3)],
    P.Cppn: [P.Cppn(**SIZED, layers=2, width=6)],
    P.Maco: [P.Maco(**SIZED)],
    P.Latent: [P.Latent(**SIZED, generator=nets.seeded(Net), latent=(5,))],
    P.Bounded: [
        P.Bounded(images=THREE, eps=0.1, start="uniform"),
        P.Bounded(images=THREE, eps=(0.5, 1.0, 2.0), norm="l2"),
        P.Bounded(images=0.2 + 0.6 * THREE, eps=0.1, shared=True, start="uniform"),
    ],
    P.Canvas: [P.Canvas(images=THREE)],
    P.Mask: [P.Mask(images=THREE, background=ONE, cells=4, spread=1.0)],
    P.Masked: [
        P.Masked(
            inner=P.Pixel(**SIZED), background=ONE, mask=(torch.rand(1, 1, *SIDE) > 0.5).float()
        )
    ],
    P.Shared: [P.Shared(inner=P.Fourier(**SIZED), factor=4)],
    P.Interpolated: [P.Interpolated(inner=P.Fourier(**SIZED), other=P.Pixel(**SIZED), share=0.3)],
    P.Alpha: [P.Alpha(inner=P.Pixel(**SIZED)).sized(CHANNELS, SIDE)],
    P.Tokens: [P.Tokens(**SIZED, sd=0.3, temperature=0.7)],
    P.Patch: [P.Patch(images=THREE, size=(3, 4))],
}
ALL = [param for rows in ROWS.values() for param in rows]


def label(param):
    return type(param).__name__ + ("-shared" if getattr(param, "shared", False) else "")


def concrete():
    """Every parameterization that featviz.param exports."""
    kinds = (getattr(P, name) for name in P.__all__)
    return {
        k for k in kinds
        if inspect.isclass(k) and issubclass(k, P.Param) and not inspect.isabstract(k)
    }  # fmt: skip


def test_every_parameterization_has_a_row():
    assert concrete() == set(ROWS)
    for kind, rows in ROWS.items():
        assert all(type(row) is kind for row in rows)


def extra(param):
    """How many channels more than the network's the images have."""
    return int(param.transparent)


@pytest.mark.parametrize("param", ALL, ids=label)
def test_images_have_the_shape_and_range(param):
    state = param.init([0, 1, 2])
    images = param.image(state)
    assert images.shape == (3, CHANNELS + extra(param), *param.shape)
    assert images.dtype == torch.float32
    assert 0 <= images.min() <= images.max() <= 1
    flat = param.flatten(images)
    assert flat.shape == (3, CHANNELS, *param.seen)
    assert 0 <= flat.min() <= flat.max() <= 1


@pytest.mark.parametrize("param", ALL, ids=label)
def test_every_free_parameter_moves_the_image(param):
    """At a state a little away from the start, where some have no gradient by design."""
    state = {n: t.detach() + 0.05 * torch.rand_like(t) for n, t in param.init([0, 1, 2]).items()}
    param.project_(state)
    leaves = [t.requires_grad_() for t in state.values()]
    images = param.image(state)
    waves = torch.arange(images.numel()).sin().view_as(images)
    gradients = torch.autograd.grad((images * waves).sum(), leaves)
    for name, gradient in zip(state, gradients, strict=True):
        assert gradient.isfinite().all(), name
        assert gradient.abs().sum() > 0, name


@pytest.mark.parametrize("param", ALL, ids=label)
def test_gradients_agree_with_finite_differences(param):
    state = {n: t.detach() + 0.02 * torch.rand_like(t) for n, t in param.init([0, 1, 2]).items()}
    param.project_(state)
    state = {n: t.requires_grad_() for n, t in state.items()}
    waves = torch.arange(param.image(state).numel()).sin().view_as(param.image(state))

    def value(moved):
        return float((param.image(moved).double() * waves).sum())

    total = (param.image(state).double() * waves).sum()
    gradients = torch.autograd.grad(total, list(state.values()))
    steps = {n: torch.randn(t.shape, generator=RNG) for n, t in state.items()}
    expected = sum(float((g * d).sum()) for g, d in zip(gradients, steps.values(), strict=True))
    h = 2e-3
    with torch.no_grad():
        ahead = value({n: t + h * steps[n] for n, t in state.items()})
        behind = value({n: t - h * steps[n] for n, t in state.items()})
    assert (ahead - behind) / (2 * h) == pytest.approx(expected, rel=0.05, abs=0.05)


@pytest.mark.parametrize("param", ALL, ids=label)
def test_a_sample_depends_on_its_own_seed_unless_it_is_relational(param):
    both = param.init([3, 4, 5])
    again = param.init([3, 4, 5])
    assert all(torch.equal(both[n], again[n]) for n in both)
    if param.relational:
        assert any(len(t) == 1 for t in both.values())
        return
    other = param.init([9, 4, 8])
    assert all(torch.equal(both[n][1], other[n][1]) for n in both)


@pytest.mark.parametrize("param", ALL, ids=label)
def test_projection_is_idempotent_and_keeps_a_start(param):
    state = {n: t.detach().clone() for n, t in param.init([0, 1, 2]).items()}
    with torch.no_grad():
        param.project_(state)
        for name, start in param.init([0, 1, 2]).items():
            torch.testing.assert_close(state[name], start.detach(), atol=1e-6, rtol=1e-5)
        far = {n: t + torch.randn(t.shape, generator=RNG) for n, t in state.items()}
        param.project_(far)
        once = {n: t.clone() for n, t in far.items()}
        param.project_(far)
    for name in far:
        torch.testing.assert_close(far[name], once[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("param", ALL, ids=label)
def test_it_is_immutable_and_not_changed_by_use(param):
    before = repr(param)
    state = param.init([0, 1, 2])
    param.image(state)
    assert repr(param) == before
    with pytest.raises(dataclasses.FrozenInstanceError):
        param.size = (1, 1)


@pytest.mark.parametrize("param", ALL, ids=label)
def test_the_loop_climbs_with_it(param):
    """Every parameterization can be brought nearer to what is asked: bright in the middle."""
    model = fv.Model(nn.Identity(), size=param.seen, channels=CHANNELS)
    goal = fv.channel("output", 0) + 0.5 * fv.channel("output", 1)
    sign = -1 if getattr(param, "norm", "") else 1
    result = optimize(
        model,
        sign * goal,
        param=param,
        steps=25,
        seeds=[0, 1, 2],
        optimizer=adam(0.05),
        redirect=0,
        transforms=(fv.transforms.Paste(THREE, degrees=0),) if isinstance(param, P.Patch) else (),
    )
    first, last = result.history[0].mean(), result.history[-1].mean()
    assert last > first + 1e-4, (float(first), float(last))
    assert 0 <= result.images.min() <= result.images.max() <= 1


@pytest.mark.parametrize(
    "param", [p for p in ALL if not isinstance(p, (P.Patch, P.Mask, P.Latent))], ids=label
)
def test_text_reads_back_or_there_is_none(param):
    text = P.text(param)
    if text is not None:
        again = P.parse(text).sized(CHANNELS, SIDE)
        assert again == param.sized(CHANNELS, SIDE)
