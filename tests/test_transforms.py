"""Transforms: one warp equals the steps it stands for; draws belong to the sample."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

import featviz as fv
from featviz.transforms import Crop, Jitter, Noise, Pad, Rotate, Scale, lucid, prepare, standard
from featviz.transforms.geometric import warp

CPU = torch.device("cpu")


def smooth(*size, batch=1, channels=2):
    """Band-limited noise, which linear resampling hardly changes."""
    param = fv.param.Fourier(size=size, channels=channels, decay=2.5, color="none", sd=1)
    return param.image(param.init(range(batch))).detach()


def run(transforms, images, seeds=None, steps=1, step=0):
    seeds = range(len(images)) if seeds is None else seeds
    return prepare(transforms, seeds, steps, tuple(images.shape[2:]), CPU)(images, step)


class Fixed(Jitter):
    """A jitter whose draws are given: x first, in pixels."""

    def draw(self, generator, steps, size):
        return torch.tensor(SHIFT).float().expand(steps, -1)


SHIFT = [3.0, -2.0]


def test_jitter_moves_x_right_and_y_down_on_non_square_pictures():
    images = smooth(12, 20)
    moved = run([Fixed()], images)  # 3 to the right, 2 up
    torch.testing.assert_close(moved[..., :-2, 3:], images[..., 2:, :-3], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("degrees", "quarter"), [(90, 1), (-90, -1), (180, 2)])
def test_rotation_by_right_angles(degrees, quarter):
    class Turn(Rotate):
        def draw(self, generator, steps, size):
            return torch.full((steps, 1), math.radians(degrees))

    images = smooth(9, 9)
    expected = torch.rot90(images, quarter, (3, 2))
    torch.testing.assert_close(run([Turn()], images), expected, atol=1e-5, rtol=0)


def test_scale_enlarges_about_the_centre_on_non_square_pictures():
    images = smooth(21, 33)
    larger = run([Scale(2, 2)], images)
    torch.testing.assert_close(larger[..., 10, 16], images[..., 10, 16], atol=1e-5, rtol=0)
    torch.testing.assert_close(larger[..., 14, 22], images[..., 12, 19], atol=1e-5, rtol=0)


@given(
    height=st.integers(16, 40),
    width=st.integers(16, 40),
    seed=st.integers(0, 999),
    pad=st.integers(0, 5),
)
def test_one_warp_is_the_sequence_by_scipy(height, width, seed, pad):
    """The fused matrix against scipy's affine transform of the composed maps, in float64."""
    group = [Pad(pad), Jitter(3), Rotate(20), Scale(0.8, 1.3), Jitter(2)]
    images = smooth(height, width)
    ours = run(group, images, [seed])[0, 0]
    total = np.eye(3)
    size = (height, width)
    for place, transform in enumerate(group):
        tape = transform.draw(fv.seeds.generator(seed, f"transform {place}"), 1, size)
        total = transform.matrices(tape, size)[0].double().numpy() @ total
        size = transform.output_size(size)
    inverse = np.linalg.inv(total)[:2, :2][::-1, ::-1]  # scipy counts (y, x)
    shift = np.linalg.inv(total)[:2, 2][::-1]
    before, after = (np.array([height, width]) - 1) / 2, (np.array(size) - 1) / 2
    offset = before + shift - inverse @ after
    expected = ndimage.affine_transform(
        images[0, 0].double().numpy(), inverse, offset, size, order=1, mode="mirror"
    )
    assert ours.shape == size
    np.testing.assert_allclose(ours, expected, atol=2e-4)


def test_the_group_is_resampled_once(monkeypatch):
    from featviz.transforms import geometric

    calls = []
    original = geometric.kornia_transform.warp_affine
    monkeypatch.setattr(
        geometric.kornia_transform,
        "warp_affine",
        lambda *a, **k: calls.append(1) or original(*a, **k),
    )
    run([Pad(4), Jitter(2), Rotate(5), Scale(), Jitter(1), Noise(0.1)], smooth(16, 16))
    assert len(calls) == 1


def test_noise_is_normal_and_new_for_each_sample_and_step():
    images = torch.full((3, 3, 64, 64), 0.5)
    apply = prepare([Noise(0.2)], [1, 2, 3], 5, (64, 64), CPU)
    drawn = torch.stack([apply(images, t) - images for t in range(5)])
    assert drawn.std().item() == pytest.approx(0.2, rel=0.02)
    assert drawn.mean().item() == pytest.approx(0, abs=0.002)
    kurtosis = (drawn / drawn.std()).pow(4).mean().item()
    assert kurtosis == pytest.approx(3, rel=0.05)
    flat = drawn.flatten(0, 1).flatten(1)
    correlation = torch.corrcoef(flat) - torch.eye(len(flat))
    assert correlation.abs().max() < 0.05


@given(st.permutations([11, 22, 33, 44]))
def test_a_sample_has_its_own_draws_wherever_it_stands(seeds):
    images = smooth(16, 20).expand(4, -1, -1, -1)
    together = run(standard(), images, seeds, steps=3, step=2)
    for i, seed in enumerate(seeds):
        alone = run(standard(), images[:1], [seed], steps=3, step=2)
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-6, rtol=0)


def test_draws_stay_in_their_bounds_and_fill_them():
    generator = torch.Generator().manual_seed(0)
    shift = Jitter(0.25).draw(generator, 4000, (40, 80))
    assert shift[:, 0].abs().max() <= 20
    assert shift[:, 1].abs().max() <= 10
    assert shift[:, 0].max() > 19
    assert shift[:, 1].min() < -9.5
    assert Jitter(8).draw(generator, 4000, (40, 80)).abs().max().item() == pytest.approx(8, abs=0.1)
    turn = Rotate(30).draw(generator, 4000, (8, 8)) * 180 / math.pi
    assert (turn.min().item(), turn.max().item()) == pytest.approx((-30, 30), abs=0.2)
    scale = Scale(0.5, 1.5).draw(generator, 4000, (8, 8))
    assert (scale.min().item(), scale.max().item()) == pytest.approx((0.5, 1.5), abs=0.01)


def test_pad_grows_the_picture_and_fills():
    images = torch.ones(1, 3, 6, 10)
    padded = run([Pad(2, "gray")], images)
    assert padded.shape == (1, 3, 10, 14)
    assert padded[..., 0, 0].tolist() == [[0.5] * 3]
    assert padded[..., 5, 7].tolist() == [[1.0] * 3]
    assert run([Pad(0.5)], images).shape == (1, 3, 12, 20)
    assert run([Pad(2, "border"), Pad(2, "gray")], images).shape == (1, 3, 14, 18)


@pytest.mark.parametrize(("side", "size"), [(6, (6, 6)), (0.5, (6, 10))])
def test_crop_keeps_the_middle(side, size):
    images = smooth(12, 20)
    kept = run([Crop(side)], images)
    assert kept.shape[2:] == size
    top, left = ((a - b) // 2 for a, b in zip((12, 20), size, strict=True))
    middle = images[..., top : top + size[0], left : left + size[1]]
    torch.testing.assert_close(kept, middle, atol=1e-5, rtol=0)
    with pytest.raises(fv.FeatvizError, match="cannot crop 13 pixels of an image of size"):
        run([Crop(13)], images)


@pytest.mark.parametrize("size", [(30,), (10, 11, 12)])
def test_signals_and_volumes(size):
    images = smooth(*size)
    for transforms in ([Jitter(2), Scale(0.8, 1.2)], [Noise(0.1)]):
        assert run(transforms, images).shape == images.shape
    torch.testing.assert_close(run([Jitter(0)], images), images, atol=1e-5, rtol=0)
    with pytest.raises(fv.FeatvizError, match="rotate takes images"):
        run([Rotate(5)], images)


def test_jitter_of_a_signal_is_a_shift():
    class Right(Jitter):
        def draw(self, generator, steps, size):
            return torch.full((steps, 1), 4.0)

    images = smooth(40)
    moved = run([Right()], images)
    torch.testing.assert_close(moved[..., 4:], images[..., :-4], atol=1e-5, rtol=0)


def test_gradients_pass():
    images = smooth(12, 12).requires_grad_()
    (gradient,) = torch.autograd.grad(run(standard(), images).sum(), images)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize(
    "transforms",
    [
        standard(),
        lucid(),
        (),
        (Jitter(8), Noise(0.05)),
        (Pad(0.1, "gray"), Scale(0.5, 2), Rotate(3.5)),
    ],
)
def test_text_reads_back(transforms):
    assert fv.transforms.parse(fv.transforms.text(transforms)) == transforms


def test_the_callers_list_is_not_touched(tiny):
    transforms = [Noise(0.1)]
    fv.render(tiny, "channel:first:0", transforms=transforms, steps=2)
    assert transforms == [Noise(0.1)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Jitter(-1), "jitter must not be negative"),
        (lambda: Scale(0, 1), "0 < low <= high"),
        (lambda: Scale(2, 1), "0 < low <= high"),
        (lambda: Noise(float("nan")), "noise must be a number"),
        (lambda: Pad(3, "blue"), "no fill 'blue'"),
        (lambda: fv.transforms.parse("gitter:3"), "did you mean 'jitter'"),
        (lambda: fv.transforms.parse("jitter:x"), "amount must be a number"),
        (lambda: fv.transforms.parse("jitter:1:2"), "takes 1 values"),
        (lambda: fv.transforms.parse("scale:size=2"), "no setting 'size'"),
    ],
)
def test_bad_settings_are_refused_in_one_line(make, message):
    with pytest.raises(fv.FeatvizError, match=message) as caught:
        make()
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("side", [21, 22])
def test_a_crop_keeps_whole_pixels(side):
    images = torch.randn(2, 3, 32, 33, generator=torch.Generator().manual_seed(0))
    crop = fv.transforms.Crop(side)
    apply = warp([(crop, torch.zeros(1, 2, 0))], (32, 33), torch.device("cpu"))
    found = apply(images, 0)
    top, left = (32 - side) // 2, (33 - side) // 2
    expected = images[:, :, top : top + side, left : left + side]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
