"""Every parameterization through one suite, and each against what defines it."""

import importlib.metadata
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import featviz as fv
from featviz import param as P
from featviz.errors import FeatvizError
from featviz.optim.checkpoint import Checkpoint
from featviz.optim.loop import optimize
from featviz.optim.optimizers import adam
from featviz.param import generators
from featviz.param.balls import project
from tests import nets

PICTURE = torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(0))


class Decoder(nn.Module):
    """A generator of the shape of a conditional GAN: (z, one-hot) to 6 px in [-1, 1]."""

    def __init__(self, classes: int = 0) -> None:
        super().__init__()
        self.linear = nn.Linear(5 + classes, 3 * 36)
        self.drop = nn.Dropout(0.5)

    def forward(self, z, label=None):
        z = z if label is None else torch.cat([z, label], 1)
        return self.drop(self.linear(z)).tanh().view(-1, 3, 6, 6)


PLAIN = P.Latent(generator=nets.seeded(Decoder), latent=(5,))
EVERY = {
    "fourier": P.Fourier(),
    "pixel": P.Pixel(),
    "laplacian": P.Laplacian(),
    "maco": P.Maco(),
    "cppn": P.Cppn(),
    "latent": PLAIN,
    "masked": P.Masked(background=PICTURE, mask=torch.ones(12, 16)),
    "shared": P.Shared(inner=P.Pixel()),
    "interpolated": P.Interpolated(other=P.Pixel(), share=0.25),
    "bounded": P.Bounded(images=PICTURE, eps=0.1),
    "alpha": P.Alpha(),
}


def goal() -> fv.Model:
    """Its output 0 is highest for one picture."""
    wanted = 0.2 + 0.6 * PICTURE
    return fv.Model(
        lambda x: -(x - wanted).square().mean((1, 2, 3))[:, None], size=(12, 16), channels=3
    )


@pytest.mark.parametrize("name", EVERY)
def test_shape_range_gradients_and_seeds(name):
    param = EVERY[name].sized(3, (12, 16))
    state = param.init([3, 4])
    images = param.image(state)
    assert images.shape == (2, 3 + param.transparent, 12, 16)
    assert param.flatten(images).shape == (2, 3, 12, 16)
    assert 0 <= images.min() <= images.max() <= 1
    for key, gradient in zip(
        state,
        torch.autograd.grad(images.sin().sum(), list(state.values()), allow_unused=True),
        strict=True,
    ):
        assert gradient is not None, key
        assert gradient.isfinite().all()
    again = param.init([4] if not param.relational else [3, 4])
    rows = -1
    torch.testing.assert_close(param.image(again)[rows], images[1], atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", EVERY)
def test_the_loop_raises_the_score(name):
    result = fv.render(goal(), "class:0", param=EVERY[name], steps=60, transforms=())
    assert result.scores[0] > result.history[0, 0]
    assert result.images.shape == (1, 3 + EVERY[name].transparent, 12, 16)
    torch.testing.assert_close(
        EVERY[name].sized(3, (12, 16)).image(result.state).detach(), result.images
    )


@pytest.mark.parametrize("name", EVERY)
def test_a_checkpoint_goes_on_to_the_same_bits(name, tmp_path):
    param = EVERY[name].sized(3, (12, 16))
    given = {"param": param, "seeds": [3, 4], "optimizer": adam(0.05), "steps": 12}
    given["transforms"] = fv.transforms.parse("jitter:1,noise:0.05")
    objective = fv.objective("class:0 - ramp(0, 1e-3)*l2")
    whole = optimize(goal(), objective, **given)
    part = optimize(goal(), objective, callbacks=[lambda s: s.index == 4], **given)
    part.checkpoint.save(tmp_path / "run.pt")
    resumed = optimize(goal(), objective, resume=Checkpoint.load(tmp_path / "run.pt"), **given)
    assert torch.equal(resumed.images, whole.images)
    assert torch.equal(resumed.history, whole.history[5:])


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    given = {"seeds": [3], "optimizer": adam(0.05), "steps": 2}
    one = optimize(
        goal(), fv.objective("class:0"), param=EVERY["pixel"].sized(3, (12, 16)), **given
    )
    for param, message in [
        (EVERY["fourier"].sized(3, (12, 16)), r"holds \['pixels'\]"),
        (P.Pixel(size=(12, 15), channels=3), "has shape"),
    ]:
        with pytest.raises(FeatvizError, match=message):
            optimize(
                fv.Model(lambda x: x.mean((2, 3)), size=param.shape),
                fv.objective("class:0"),
                param=param,
                resume=one.checkpoint,
                **given,
            )
    torch.save({"state": nn.Linear(1, 1)}, tmp_path / "bad.pt")
    with pytest.raises(FeatvizError, match="more than plain tensors"):
        Checkpoint.load(tmp_path / "bad.pt")


@given(
    size=st.one_of(
        st.tuples(st.integers(1, 30)),
        st.tuples(st.integers(1, 17), st.integers(1, 17)),
        st.tuples(*[st.integers(1, 6)] * 3),
    ),
    channels=st.integers(1, 4),
    levels=st.integers(1, 6),
    decay=st.sampled_from([0, 0.5, 1, 3]),
)
def test_a_laplacian_pyramid_rebuilds_any_image(size, channels, levels, decay):
    images = 0.1 + 0.8 * torch.rand(2, channels, *size)
    start = P.Laplacian(levels=levels, decay=decay).from_image(images)
    torch.testing.assert_close(start.image(start.init([0, 1])), images, atol=1e-5, rtol=0)


def test_a_level_of_a_pyramid_counts_a_fraction_of_the_next_coarser_one():
    param = P.Laplacian(size=16, channels=1, color="none", levels=3, decay=2.0)
    state = param.init([0])
    for level, amplitude in enumerate((1 / 16, 1 / 4, 1)):
        one = {name: torch.full_like(v, name == f"level{level}") for name, v in state.items()}
        torch.testing.assert_close(
            param.synthesize(one), torch.full((1, 1, 16, 16), float(amplitude))
        )


def test_levels_that_a_smaller_image_does_not_have_are_held():
    param = P.Laplacian(size=16, channels=1, levels=3)
    gradients = {name: torch.ones_like(value) for name, value in param.init([0]).items()}
    param.hold_(gradients, 0.25)
    assert [float(gradients[f"level{k}"].mean()) for k in range(3)] == [0, 1, 1]
    only = {"level0": torch.ones(1, 1, 16, 16)}
    P.Laplacian(size=16, channels=1, levels=1).hold_(only, 0.25)
    assert only["level0"].all()


@pytest.mark.parametrize("decay", [0, 1, 2.5])
def test_a_pyramid_starts_with_the_noise_that_it_is_given(decay):
    param = P.Laplacian(size=192, channels=1, color="none", range="none", sd=1.0, decay=decay)
    drawn = param.synthesize(param.init(range(8))).detach()
    assert 0.5 < float(drawn.std()) < 1.05


@given(size=st.integers(2, 40), contrast=st.sampled_from([0.5, 1.5]))
def test_maco_keeps_its_magnitudes_whatever_the_phases(size, contrast):
    param = P.Maco(size=(size, size + 3), channels=1, color="none", contrast=contrast)
    state = param.init([1])
    raw = param.synthesize(state)
    phase = state["phase"] + torch.randn(state["phase"].shape)
    other = param.synthesize({"phase": phase.detach()})
    # The columns that stand for two frequencies; of the others only the real part is drawn.
    wanted, found = (torch.fft.rfft2(r, norm="ortho").abs()[..., 1:-1] for r in (raw, other))
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-3)
    assert raw.mean().abs() < 1e-4


def test_maco_has_the_contrast_that_it_is_given():
    param = P.Maco(size=96, channels=4, color="none", contrast=1.3)
    raw = param.synthesize(param.init(range(3)))
    assert raw.std().item() == pytest.approx(1.3, rel=0.02)


def test_a_cppn_has_no_resolution_of_its_own():
    param = P.Cppn(size=32, channels=3)
    state = param.init([1])
    with torch.no_grad():
        state["weight6"].normal_(generator=torch.Generator().manual_seed(0))
        small, large = param.image(state), param.image(state, (96, 96))
    torch.testing.assert_close(large[..., 1::3, 1::3], small, atol=1e-5, rtol=0)
    with pytest.raises(FeatvizError, match="cannot start from an image"):
        param.from_image(torch.rand(1, 3, 32, 32))


@given(
    norm=st.sampled_from(["linf", "l2", "l1"]),
    eps=st.floats(0.01, 3),
    seed=st.integers(0, 99),
    scale=st.floats(0.01, 3),
)
def test_projection_is_the_nearest_point_of_the_ball(norm, eps, seed, scale):
    """Inside, unmoved if it was, and no random point of the ball is nearer."""
    random = np.random.default_rng(seed)
    delta = random.normal(size=(2, 3, 4)) * scale
    found = project(torch.tensor(delta), norm, eps).numpy()
    sizes = {
        "linf": lambda v: np.abs(v).max((1, 2)),
        "l2": lambda v: np.sqrt((v**2).sum((1, 2))),
        "l1": lambda v: np.abs(v).sum((1, 2)),
    }
    assert (sizes[norm](found) <= eps * (1 + 1e-6)).all()
    inside = sizes[norm](delta) <= eps
    np.testing.assert_allclose(found[inside], delta[inside])
    best = ((found - delta) ** 2).sum((1, 2))
    for _ in range(20):
        other = random.normal(size=delta.shape) * scale
        other *= np.minimum(1, eps / sizes[norm](other))[:, None, None]
        mixed = 0.9 * found + 0.1 * other
        assert (((mixed - delta) ** 2).sum((1, 2)) >= best - 1e-9).all()


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("l2", 0.5), ("l1", 2.0)])
def test_bounded_pictures_stay_in_the_ball_and_in_range(norm, eps):
    param = P.Bounded(images=PICTURE, eps=eps, norm=norm)
    result = fv.render(goal(), "class:0", param=param, steps=30, transforms=(), seed=[0, 1])
    delta = (result.images - PICTURE).flatten(1)
    order = {"linf": float("inf"), "l2": 2, "l1": 1}[norm]
    assert torch.linalg.vector_norm(delta, order, dim=1).max() <= eps * (1 + 1e-5)
    assert 0 <= result.images.min() <= result.images.max() <= 1
    assert result.scores[0] > fv.class_logit(0)(goal(), PICTURE)[0]


def test_masked_pictures_keep_their_background():
    mask = torch.zeros(12, 16)
    mask[3:9, 4:12] = 1
    param = P.Masked(inner=P.Pixel(), background=PICTURE, mask=mask)
    result = fv.render(goal(), "class:0", param=param, steps=10, transforms=())
    outside = mask.expand_as(result.images) == 0
    assert torch.equal(result.images[outside], PICTURE[outside])
    assert not torch.allclose(result.images[~outside], PICTURE[~outside])


def test_importance_is_where_the_score_comes_from():
    model = fv.Model(lambda x: x[:, :, 2:5, 8:12].mean((1, 2, 3))[:, None], size=(12, 16))
    result = fv.render(model, "class:0", steps=5, transforms=(), param="pixel:color=none")
    inside = torch.zeros(12, 16, dtype=torch.bool)
    inside[2:5, 8:12] = True
    assert result.importance.shape == (1, 12, 16)
    assert result.importance[0][inside].min() > 0.9
    assert result.importance[0][~inside].max() == 0


def test_transparency_from_importance(tmp_path):
    model = fv.Model(lambda x: x[:, :, :32].mean((1, 2, 3))[:, None], size=64)
    result = fv.render(model, "class:0", steps=3, transforms=())
    result.save(tmp_path / "a.png", alpha=True)
    picture = np.asarray(nets.opened(tmp_path / "a.png"))
    assert picture.shape == (64, 64, 4)
    assert picture[:24, :, 3].min() == 255
    assert picture[40:, :, 3].max() == 0


@pytest.mark.parametrize(
    ("range_", "low", "high"), [("tanh", 0, 1), ("none", -9, 9), (((-2, 3), (0, 5)), -2, 5)]
)
def test_ranges_invert(range_, low, high):
    param = P.Pixel(range=range_, channels=2)
    images = 0.2 + 0.6 * torch.rand(1, 2, 4, 4)
    start = param.from_image(images)
    made = start.image(start.init([0]))
    torch.testing.assert_close(made, images, atol=2e-3, rtol=0)
    assert low <= made.min() <= made.max() <= high


def test_a_generator_keeps_its_state_and_its_prior():
    net = nets.seeded(Decoder).train()
    param = P.Latent(generator=net, latent=(5,), prior="sphere").sized(3, (6, 6))
    assert net.training
    state = param.init([0, 1])
    torch.testing.assert_close(state["z"].norm(dim=1), torch.full((2,), math.sqrt(5)))
    assert torch.equal(param.image(state), param.image(state))  # no dropout
    result = fv.render(
        fv.Model(lambda x: x.mean((2, 3)), size=6), "class:0", param=param, steps=20, transforms=()
    )
    assert result.state["z"].norm().item() == pytest.approx(math.sqrt(5), rel=1e-5)
    cut = P.Latent(generator=net, latent=(5,), prior="truncate", truncation=0.5)
    assert cut.sized(3, (6, 6)).init([0])["z"].abs().max() <= 0.5
    assert all(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize(
    "call",
    [
        lambda net, z, label: net(z, label * 1.0),  # BigGAN: (noise, class vector, truncation)
        lambda net, z, label: net(z / z.norm(dim=1, keepdim=True), label),  # a mapping network
        lambda net, z, label: {"sample": net(z, label)}["sample"],  # a diffusers decoder's record
    ],
)
def test_generators_of_other_call_shapes(call):
    param = P.Latent(
        generator=nets.seeded(lambda: Decoder(2)), latent=(5,), classes=("a", "b"), label="b", call=call
    ).sized(3, (12, 12))  # fmt: skip
    images = param.image(param.init([0, 1]))
    assert images.shape == (2, 3, 12, 12)


def test_inversion_finds_the_latent_of_a_picture():
    with torch.no_grad():
        wanted = PLAIN.sized(3, (6, 6)).image(PLAIN.sized(3, (6, 6)).init([42]))
    found = fv.invert(PLAIN, wanted, steps=200)
    made = found.sized(3, (6, 6))
    with torch.no_grad():
        again = made.image(made.init([0]))
    assert (again - wanted).abs().mean() < 0.01


@pytest.mark.parametrize("spatial", [1, 2])
def test_calibration_equals_numpy(spatial):
    """A synthetic two-channel dataset with a known covariance and spectrum."""
    size = (64,) if spatial == 1 else (24, 30)
    mix = torch.tensor([[0.10, 0.04], [-0.02, 0.05]])
    noise = torch.randn(300, 2, *size, generator=torch.Generator().manual_seed(0))
    data = torch.einsum("cd,bd...->bc...", mix, noise) + 0.5
    stats = fv.calibrate([(image, 0) for image in data], size=size, channels=2)
    rows = data.double().numpy().swapaxes(0, 1).reshape(2, -1)
    np.testing.assert_allclose(stats.mean, rows.mean(1), rtol=1e-4)
    np.testing.assert_allclose(stats.covariance, np.cov(rows), rtol=0.01)
    np.testing.assert_allclose(stats.root @ stats.root, np.cov(rows), rtol=0.01, atol=1e-6)
    assert stats.count == 300
    flat = stats.magnitude.flatten(1)[:, 3:]  # white noise has a flat spectrum, and unit colours
    np.testing.assert_allclose(flat.mean(1), 1, rtol=0.03)


def test_stats_shape_pictures_and_survive_a_file(tmp_path):
    source = P.Fourier(size=64, channels=3, decay=1.5, color="none", range="none", sd=0.1)
    data = source.image(source.init(range(200))).detach()
    stats = fv.calibrate(data, size=64)
    stats.save(tmp_path / "s.safetensors")
    again = fv.Stats.load(tmp_path / "s.safetensors")
    assert torch.equal(again.magnitude, stats.magnitude)
    for kind in (P.Fourier, P.Maco):
        param = kind(stats=str(tmp_path / "s.safetensors"), size=(64, 64), channels=3, sd=1)
        assert P.parse(P.text(param)).stats == param.stats
        images = param.image(param.init([0, 1]))
        assert images.shape == (2, 3, 64, 64)
    measured = P.Fourier(stats=stats, size=(64, 64), channels=3).amplitude()[0, 0, 2:20]
    slope = np.polyfit(np.log(np.arange(2, 20)), np.log(measured.numpy()), 1)[0]
    assert slope == pytest.approx(-1.5, abs=0.25)
    exact = P.Fourier(stats=stats).from_image(data[:2] * 0.5 + 0.3)
    torch.testing.assert_close(
        exact.image(exact.init([0, 1])),
        (data[:2] * 0.5 + 0.3).clamp(0.001, 0.999),
        atol=2e-3,
        rtol=0,
    )
    with pytest.raises(FeatvizError, match="stats have 3 channels, but the images have 2"):
        P.Fourier(stats=stats, channels=2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: P.parse("gan:fases"), "did you mean 'faces'"),
        (lambda: P.parse("gan:eyes:label=purple"), "no class 'purple'|not installed"),
        (lambda: P.parse("gan:faces:size=3"), "label, prior, truncation"),
        (lambda: P.Latent(generator=nn.Identity(), latent=(5,), prior="cube"), "no prior 'cube'"),
        (lambda: P.Latent(generator=Decoder(), latent=(7,)).sized(3, (6, 6)).init([0]), r"does not accept latents of shape \(1, 7\)"),
        (lambda: P.Latent(generator=nn.Identity(), latent=(7,)).sized(3, (6, 6)).init([0]), "not images"),
        (lambda: PLAIN.sized(1, (6, 6)).init([0]), "returns 3 channels, not 1"),
        (lambda: P.Bounded(images=PICTURE, eps=0), "eps must be positive"),
        (lambda: P.Bounded(images=PICTURE, eps=1, norm="l7"), "no norm 'l7'"),
        (lambda: P.Bounded(images=PICTURE, eps=1).init([0, 1, 2]) and P.Bounded(images=PICTURE.expand(2, -1, -1, -1), eps=1).init([0, 1, 2]), "2 images for 3"),
        (lambda: P.Laplacian(levels=0), "levels must be"),
        (lambda: P.Laplacian(decay=float("nan")), "decay must be a number"),
        (lambda: P.Laplacian(decay=90), "decay must be at most 8"),
        (lambda: P.Laplacian(decay=-1), "decay must not be negative"),
        (lambda: P.Cppn(width=2.5), "width must be"),
        (lambda: P.Interpolated(other=P.Pixel(), share=2), "share must be"),
        (lambda: P.Pixel(range=((0, 1),), channels=2), "bounds for 1 channels, not 2"),
        (lambda: P.Pixel(range=((1, 0),)), "low < high"),
        (lambda: fv.Stats.load("nowhere.safetensors"), "cannot read stats"),
        (lambda: fv.calibrate([]), "no images"),
        (lambda: fv.calibrate("nowhere"), "no folder"),
        (lambda: fv.calibrate([torch.zeros(2, 8, 8)]), "expected"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(make, message):
    with pytest.raises(FeatvizError, match=message) as caught:
        make()
    assert len(str(caught.value).splitlines()) == 1


def test_weights_that_are_more_than_tensors_are_not_read(tmp_path):
    torch.save({"net": nn.Linear(1, 1)}, tmp_path / "pickle.pt")
    with pytest.raises(FeatvizError, match="more than plain weights"):
        generators.read_weights(tmp_path / "pickle.pt")
    with pytest.raises(FeatvizError, match="cannot read weights"):
        generators.read_weights(tmp_path / "none.pt")


def test_a_missing_generator_gives_the_pip_command(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(generators.metadata, "distribution", missing)
    with pytest.raises(FeatvizError, match="pip install --no-deps gan-face-generate"):
        P.parse("gan:faces")


@pytest.mark.parametrize(("text", "side"), [("gan:faces", 64), ("gan:eyes:label=blue", 128)])
def test_the_named_generators_draw_pictures(text, side):
    """Smooth images with structure, unlike noise; different for different seeds."""
    param = P.parse(text)
    with torch.no_grad():
        images = param.draw(torch.randn(6, 100, 1, 1, generator=torch.Generator().manual_seed(0)))
    assert images.shape == (6, 3, side, side)
    assert images.std() > 0.1
    neighbours = images.diff(dim=3).abs().mean() / images.std()
    assert neighbours < 0.25
    assert images.std(0).mean() > 0.05
    assert P.text(param) == text


def test_a_transparent_picture_lies_on_gray_when_done_and_on_colours_before():
    start = torch.rand(2, 4, 12, 16, generator=torch.Generator().manual_seed(5)) * 0.9 + 0.05
    param = P.Alpha().from_image(start)
    images = param.image(param.init([0, 1]))
    torch.testing.assert_close(images, start, atol=1e-5, rtol=0)
    colours, opacity = start[:, :3].numpy(), start[:, 3:].numpy()
    flat = colours * opacity + 0.5 * (1 - opacity)
    np.testing.assert_allclose(param.flatten(start), flat, atol=1e-6)

    tape = fv.transforms.Background(sd=0.3).draw(torch.Generator().manual_seed(0), 5, (12, 16))
    ground = fv.transforms.Background(sd=0.3).prepare(tape[:, None].expand(-1, 2, -1))
    clear, full = start.clone(), start.clone()
    clear[:, 3], full[:, 3] = 0, 1
    behind = ground(clear, 1)
    assert behind.shape == (2, 3, 12, 16)
    assert torch.equal(ground(full, 1), start[:, :3])
    mixed = colours * opacity + behind.numpy() * (1 - opacity)
    np.testing.assert_allclose(ground(start, 1), mixed, atol=1e-6)
    assert not torch.equal(ground(clear, 2), behind)  # another step, another background
    assert 0 <= behind.min() <= behind.max() <= 1
    assert behind.std() > 0.1
    with pytest.raises(FeatvizError, match=r"opacity \(B, C \+ 1"):
        P.Alpha().from_image(torch.rand(1, 1, 8, 8))
    with pytest.raises(FeatvizError, match="cells must be at least 1"):
        fv.transforms.Background(cells=0)


def test_what_a_unit_does_not_need_becomes_transparent(tmp_path):
    class Left(nn.Module):  # sees the left half only
        def forward(self, x):
            return x[..., :8].mean((1, 2, 3))[:, None]

    model = fv.Model(Left(), size=(12, 16), channels=3)
    sparing = fv.objective("class:0*(1 - channel:image:3)")
    result = fv.render(model, [sparing, "class:0"], param="alpha", steps=80, seed=[0, 0])
    sparse, plain = result.images[:, 3]
    assert sparse[:, 9:].mean() < 0.2 < sparse[:, :7].mean()
    assert plain.mean() > sparse.mean()
    result.save(tmp_path / "alpha.png")
    with Image.open(tmp_path / "alpha.png") as page:
        assert page.mode == "RGBA"
    assert P.parse(result.settings["param"]).sized(3, (12, 16)) == P.Alpha().sized(3, (12, 16))
    text = P.text(P.parse("alpha:laplacian:levels=3").sized(3, (12, 16)))
    assert text == "alpha:laplacian:levels=3"
