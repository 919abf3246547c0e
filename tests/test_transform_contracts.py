"""Every transform through one suite; a new one without its row fails."""

import dataclasses
import inspect

import pytest
import torch

import featviz as fv
from featviz import transforms as T
from featviz.transforms import presets

SIDE = (12, 15)
RNG = torch.Generator().manual_seed(3)
PICTURES = torch.rand(4, 2, *SIDE, generator=RNG)
SMALL = torch.rand(4, 2, 4, 5, generator=RNG)
CLEAR = torch.cat([PICTURES, torch.rand(4, 1, *SIDE, generator=RNG)], 1)
CPU = torch.device("cpu")

#: Each class with arguments of its own, what it takes, and the identity among its settings.
ROWS = {
    T.Jitter: (T.Jitter(3), PICTURES, T.Jitter(0)),
    T.Rotate: (T.Rotate(20), PICTURES, T.Rotate(0)),
    T.Scale: (T.Scale(0.7, 1.3), PICTURES, T.Scale(1, 1)),
    T.Pad: (T.Pad(2), PICTURES, T.Pad(0)),
    T.Crop: (T.Crop(8), PICTURES, T.Crop(1.0)),
    T.Noise: (T.Noise(0.2), PICTURES, T.Noise(0)),
    T.Roll: (T.Roll(4), PICTURES, T.Roll(0)),
    T.Background: (T.Background(0.5, 3), CLEAR, None),
    T.Backdrop: (T.Backdrop(PICTURES.flip(0)), CLEAR, None),
    T.Paste: (T.Paste(PICTURES), SMALL, None),
}
#: Those that draw nothing.
FIXED = {T.Pad, T.Crop, T.Backdrop}
ALL = [(transform, images) for transform, images, _ in ROWS.values()]
IDS = [kind.__name__ for kind in ROWS]


def apply(transforms, images, seeds, steps=3, step=1):
    return T.prepare(transforms, seeds, steps, tuple(images.shape[2:]), CPU)(images, step)


def test_every_transform_has_a_row():
    kinds = (getattr(T, name) for name in T.__all__)
    concrete = {
        k for k in kinds
        if inspect.isclass(k) and issubclass(k, T.Transform) and not inspect.isabstract(k)
    }  # fmt: skip
    # Those of the network have a suite of their own: tests/test_network_noise.py.
    concrete = {k for k in concrete if not issubclass(k, T.NetworkTransform)}
    assert concrete == set(ROWS)
    for kind, (row, _, identity) in ROWS.items():
        assert type(row) is kind
        assert identity is None or type(identity) is kind


@pytest.mark.parametrize(("transform", "images"), ALL, ids=IDS)
def test_shape_and_a_gradient_for_every_pixel_that_is_seen(transform, images):
    size = tuple(images.shape[2:])
    leaf = images.clone().requires_grad_()
    seen = apply([transform], leaf, range(4))
    assert tuple(seen.shape[2:]) == transform.output_size(size)
    assert seen.shape[:2] == (4, 2)
    (gradient,) = torch.autograd.grad(seen.sum(), leaf)
    assert gradient.isfinite().all()
    assert gradient.abs().flatten(1).sum(1).gt(0).all()


@pytest.mark.parametrize(("transform", "images"), ALL, ids=IDS)
def test_draws_belong_to_the_sample_and_step(transform, images):
    seeds = [7, 8, 9, 10]
    whole = apply([transform], images, seeds)
    again = apply([transform], images, seeds)
    assert torch.equal(whole, again)
    if not isinstance(transform, (T.Paste, T.Backdrop)):  # these belong to images of their own
        alone = apply([transform], images[2:3], [9])
        torch.testing.assert_close(alone, whole[2:3], atol=1e-6, rtol=0)
    other = apply([transform], images, seeds, step=2)
    more = apply([transform], images, seeds, steps=1, step=0)
    first = apply([transform], images, seeds, steps=3, step=0)
    if type(transform) in FIXED:
        assert torch.equal(whole, other)
    else:
        assert not torch.allclose(whole, other)
    assert more.shape == first.shape


@pytest.mark.parametrize(
    ("identity", "images"), [(i, x) for _, x, i in ROWS.values() if i is not None],
    ids=[k.__name__ for k, (_, _, i) in ROWS.items() if i is not None],
)  # fmt: skip
def test_the_identity_among_its_settings_changes_nothing(identity, images):
    torch.testing.assert_close(apply([identity], images, range(4)), images, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("transform", "images"), ALL, ids=IDS)
def test_it_is_linear_in_the_image_apart_from_what_it_adds(transform, images):
    """Each is an affine map of the image: one that is not needs a row of its own here."""
    seeds = range(4)
    # Opacity times colour is linear in the colour alone.
    recoloured = torch.cat([PICTURES.flip(1), CLEAR[:, -1:]], 1)
    other = recoloured if images is CLEAR else images.flip(0)
    middle = apply([transform], (images + other) / 2, seeds)
    ends = (apply([transform], images, seeds) + apply([transform], other, seeds)) / 2
    torch.testing.assert_close(middle, ends, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("transform", "images"), ALL, ids=IDS)
def test_text_reads_back_or_there_is_none(transform, images):
    text = T.text([transform])
    named = type(transform) in presets.NAMES.values()
    assert (text is not None) == named
    if named:
        assert T.parse(text) == (transform,)


@pytest.mark.parametrize(("transform", "images"), ALL, ids=IDS)
def test_it_is_immutable(transform, images):
    with pytest.raises(dataclasses.FrozenInstanceError):
        transform.something = 1
    assert fv.transforms.Transform in type(transform).__mro__
