"""Parameterizations: shapes, ranges, inverses, and numpy as the judge."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import featviz as fv
from featviz.errors import FeatvizError
from featviz.optim.upgrade import upgraded
from featviz.param import Fourier, Pixel, color, ranges
from featviz.param.fourier import envelope

sizes = st.one_of(
    st.tuples(st.integers(1, 40)),
    st.tuples(st.integers(1, 19), st.integers(1, 19)),
    st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 7)),
)
kinds = st.sampled_from([Fourier, Pixel])
shapes = {"kind": kinds, "size": sizes, "channels": st.integers(1, 5), "batch": st.integers(1, 3)}


@given(**shapes, range_=st.sampled_from(sorted(ranges.RANGES)))
def test_images_have_the_shape_and_range_asked_for(kind, size, channels, batch, range_):
    param = kind(size=size, channels=channels, range=range_, sd=0.1)
    state = param.init(range(batch))
    images = param.image(state)
    assert images.shape == (batch, channels, *size)
    assert images.dtype == torch.float32
    assert 0 <= images.min() <= images.max() <= 1
    loss = (images * torch.randn_like(images)).sum()
    for gradient in torch.autograd.grad(loss, list(state.values())):
        assert gradient.flatten(1).abs().sum(1).gt(0).all()


@given(**shapes)
def test_from_image_inverts(kind, size, channels, batch):
    images = torch.rand(batch, channels, *size, generator=torch.Generator().manual_seed(5))
    for range_ in ranges.RANGES:
        start = kind(range=range_).from_image(images)
        again = start.image(start.init(range(batch)))
        assert (again - images).abs().max() <= ranges.MARGIN + 1e-4


def test_from_image_is_exact_where_the_range_is_not_touched(photos):
    inner = photos * 0.9 + 0.05
    for kind in (Fourier, Pixel):
        start = kind().from_image(inner)
        torch.testing.assert_close(start.image(start.init(range(4))), inner, rtol=0, atol=2e-6)


def test_one_image_starts_a_whole_batch(photos):
    start = Fourier().from_image(photos[:1])
    images = start.image(start.init(range(3)))
    torch.testing.assert_close(images[2], images[0])


@given(size=sizes, decay=st.floats(0, 2))
def test_fourier_is_numpys_inverse_transform(size, decay):
    param = Fourier(size=size, channels=2, color="none", decay=decay, sd=1)
    state = param.init([7])
    half = torch.view_as_complex(state["spectrum"].detach()).numpy().astype(np.complex128)
    frequencies = [np.fft.fftfreq(n) for n in size[:-1]] + [np.fft.rfftfreq(size[-1])]
    f = np.sqrt(sum(g**2 for g in np.meshgrid(*frequencies, indexing="ij")))
    amplitude = np.maximum(f, 1 / max(size)) ** -decay
    axes = tuple(range(-len(size), 0))
    raw = np.fft.irfftn(half * amplitude, s=size, axes=axes, norm="ortho")
    ours = torch.logit(param.image(state).detach().double()).numpy()
    scale = envelope(size, decay).double().numpy().flat[0] / amplitude.flat[0]
    np.testing.assert_allclose(ours, raw * scale, atol=1e-3)


@pytest.mark.parametrize("size", [(224, 224), (97, 131), (64, 64, 64), (4096,)])
@pytest.mark.parametrize("decay", [0.0, 1.0, 1.5])
def test_noise_has_the_same_deviation_at_every_size(size, decay):
    param = Fourier(size=size, channels=4, color="none", range="clamp", decay=decay, sd=0.1)
    raw = torch.stack([param.synthesize(param.init([s]))[0] for s in range(4)])
    expected = 0.1
    assert raw.square().mean().sqrt().item() == pytest.approx(expected, rel=0.35 if decay else 0.05)


def test_spectrum_falls_as_one_over_f():
    param = Fourier(size=128, channels=1, color="none", sd=1, decay=1)
    raw = param.synthesize(param.init(range(64))).detach().squeeze(1)
    power = torch.fft.rfft2(raw).abs().square().mean(0)[0]  # along one axis
    assert (power[4:8].mean() / power[32:64].mean()).item() == pytest.approx(
        ((torch.arange(4, 8.0) ** -2).mean() / (torch.arange(32, 64.0) ** -2).mean()).item(),
        rel=0.4,
    )


@pytest.mark.parametrize("chroma", [0.0, 0.25, 1.0])
def test_chroma_falls_faster_than_luminance(chroma):
    param = Fourier(size=128, channels=3, sd=1, decay=1, chroma=chroma)
    raw = param.synthesize(param.init(range(48))).detach()
    assert raw.std((0, 2, 3)).tolist() == pytest.approx([1, 1, 1], rel=0.2)
    power = torch.fft.rfft2(raw).abs().square().mean(0)[:, 0]  # of each channel, along one axis
    falls = (power[:, 4:8].mean(1) / power[:, 32:64].mean(1)).tolist()
    for fall, decay in zip(falls, (1, 1 + chroma, 1 + chroma), strict=True):
        f = torch.arange(64.0) ** (-2 * decay)
        assert fall == pytest.approx((f[4:8].mean() / f[32:64].mean()).item(), rel=0.4)


def test_chroma_acts_on_decorrelated_colours_alone():
    for channels, colour in [(3, "none"), (1, "auto"), (4, "auto")]:
        plain = Fourier(size=16, channels=channels, color=colour, chroma=0)
        assert torch.equal(
            plain.image(plain.init([0])),
            dataclasses.replace(plain, chroma=1).image(plain.init([0])),
        )
    with pytest.raises(FeatvizError, match=r"decay \+ chroma must not be negative"):
        Fourier(chroma=-2)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("fourier", "fourier:decay=1:chroma=0"),
        ("fourier:decay=1.2", "fourier:decay=1.2:chroma=0"),
        ("alpha:fourier:range=clamp", "alpha:fourier:range=clamp:decay=1:chroma=0"),
        ("laplacian:levels=3", "laplacian:decay=0:levels=3"),
        ("alpha:laplacian", "alpha:laplacian:decay=0"),
        ("pixel:sd=0.1", "pixel:sd=0.1"),
    ],
)
def test_records_of_0_1_keep_their_spectrum(old, new):
    assert upgraded({"version": "0.1.0", "param": old})["param"] == new


def test_a_pyramid_from_before_weight_decay_has_levels_of_equal_weight():
    before = {"version": "0.2.0", "param": "laplacian:levels=3"}
    assert upgraded(before)["param"] == "laplacian:decay=0:levels=3"
    assert upgraded({**before, "weight_decay": 0.06})["param"] == "laplacian:levels=3"
    assert upgraded({"version": "0.2.0", "param": None})["param"] is None


def test_decorrelation_whitens_samples_with_imagenets_covariance():
    root = np.array(color.IMAGENET)
    samples = np.random.default_rng(0).normal(size=(200_000, 3)) @ root.T
    white = color.apply(
        color.matrix("imagenet", 3, inverse=True), torch.tensor(samples.T[None]).float()
    )
    covariance = np.cov(white[0].numpy())
    np.testing.assert_allclose(covariance / covariance[0, 0], np.eye(3), atol=0.02)


def test_colour_matrix_of_the_users_own_for_any_channel_count():
    matrix = ((2.0, 0.0), (1.0, 1.0))
    ours = color.apply(color.matrix(matrix, 2), torch.tensor([[[1.0], [2.0]]]))
    scaled = np.array(matrix) / np.sqrt(5)
    np.testing.assert_allclose(ours[0, :, 0], scaled @ [1, 2], rtol=1e-6)


def test_clamp_lets_values_return():
    values = torch.tensor([-0.2, 0.5, 1.2]) - 0.5
    for sign, expected in ((1.0, [1, 1, 0]), (-1.0, [0, -1, -1])):
        raw = values.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(ranges.get("clamp").forward(raw).sum() * sign, raw)
        assert gradient.tolist() == expected


@given(seed=st.integers(0, 2**40))
def test_a_sample_depends_on_its_own_seed(seed):
    param = Fourier(size=6, channels=3)
    together = param.init([seed, seed + 1, 3])["spectrum"]
    assert torch.equal(together[1], param.init([seed + 1])["spectrum"][0])
    assert not torch.equal(together[0], together[1])


@settings(max_examples=30)
@given(
    decay=st.sampled_from([0.0, 0.8, 1.0, 2.5]),
    range_=st.sampled_from(sorted(ranges.RANGES)),
    sd=st.sampled_from([0.01, 0.5]),
    colour=st.sampled_from(["auto", "none", "imagenet"]),
)
def test_text_reads_back(decay, range_, sd, colour):
    for param in (
        Fourier(decay=decay, range=range_, sd=sd, color=colour),
        Pixel(range=range_, sd=sd, color=colour),
    ):
        assert fv.param.parse(fv.param.text(param)) == param


def test_text_is_short_for_defaults():
    assert fv.param.text(Fourier(size=5)) == "fourier"
    assert fv.param.text(Pixel(range="clamp")) == "pixel:range=clamp"
    assert fv.param.text(Fourier(color=((1.0,),))) is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Fourier(size=0), "size must be positive"),
        (lambda: Fourier(size=(4, -1)), "size must be positive"),
        (lambda: Fourier(decay=-1), "decay must not be negative"),
        (lambda: Pixel(range="sigmod"), "did you mean 'sigmoid'"),
        (lambda: Pixel(channels=2, color=((1.0,),)), "1 rows, but the images 2"),
        (lambda: Pixel(channels=2, color="imagenet"), "3 rows, but the images 2"),
        (lambda: Pixel(channels=1, color="purple"), "no colour 'purple'"),
        (lambda: Pixel(sd=float("nan")), "sd must not be negative"),
        (lambda: Pixel(channels=1).init([0]), "needs a size"),
        (lambda: Pixel(size=2).init([0]), "needs a number of channels"),
        (lambda: Pixel(size=3).from_image(torch.zeros(1, 3, 4, 4)), "size"),
        (lambda: Pixel(channels=1).from_image(torch.zeros(1, 3, 4, 4)), "3 channels, not 1"),
        (lambda: Pixel().from_image(torch.zeros(2, 1, 4, 4)).init([0] * 3), "2 starting images"),
        (lambda: Pixel(channels=2, color=((1, 1), (1, 1))).from_image(torch.zeros(1, 2, 2, 2)).init([0]), "singular"),
        (lambda: fv.param.parse("furier"), "did you mean 'fourier'"),
        (lambda: fv.param.parse("fourier:decay=x"), "must be a number"),
        (lambda: fv.param.parse("fourier:depth=1"), "no setting 'depth'"),
    ],
)  # fmt: skip
def test_bad_settings_are_refused_in_one_line(make, message):
    with pytest.raises(fv.FeatvizError, match=message) as caught:
        make()
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("build", "channels"),
    [
        (fv.param.Alpha, 4),
        (fv.param.Shared, 3),
        (lambda **k: fv.param.Interpolated(other=fv.param.Pixel(), **k), 3),
        (
            lambda **k: fv.param.Masked(
                background=torch.rand(1, 3, 12, 20), mask=torch.ones(1, 1, 12, 20), **k
            ),
            3,
        ),
    ],
    ids=["alpha", "shared", "interpolated", "masked"],
)
def test_a_combination_has_the_size_it_is_given(build, channels):
    made = build(size=(12, 20), channels=3).sized(3, (224, 224))
    assert made.shape == made.inner.shape == (12, 20)
    assert made.image(made.init([0, 1])).shape == (2, channels, 12, 20)
    assert build(size=(12, 20)).sized(3, (8, 8)).shape == (12, 20)
    with pytest.raises(fv.FeatvizError, match=r"size \(12, 20\), but its inner Fourier \(8, 8\)"):
        build(size=(12, 20), inner=fv.param.Fourier(size=8))


def test_a_shared_component_needs_no_model():
    made = fv.param.Shared(size=16, channels=3)
    assert made.image(made.init([0, 1])).shape == (2, 3, 16, 16)


def test_a_picture_without_a_batch_is_not_taken_for_signals():
    with pytest.raises(FeatvizError, match=r"give image\[None\] for one picture"):
        fv.param.Fourier().from_image(torch.rand(3, 64, 64))
    assert fv.param.Fourier(channels=64).from_image(torch.rand(3, 64, 65)).size == (65,)
    assert fv.param.Pixel().from_image(torch.rand(3, 2, 64)).channels == 2
    with pytest.raises(FeatvizError, match="size"):
        fv.param.Fourier(size=64).from_image(torch.rand(3, 64, 64))
