"""Each unit's value against plain hooks and numpy, on Lite0 and on a small transformer."""

import numpy as np
import pytest
import torch

import featviz as fv
from featviz.errors import UnitError
from tests import nets

VECTOR = np.random.default_rng(0).normal(size=112)


def hooked(model: fv.Model, name: str, images: torch.Tensor) -> np.ndarray:
    """The activation of a module as float64, by a hook of our own."""
    kept = []
    module = dict(model.net.named_modules())[name]
    handle = module.register_forward_hook(lambda m, i, o: kept.append(o.detach().clone()))
    model(images)
    handle.remove()
    return kept[-1].double().numpy()


def cosine_direction(a: np.ndarray, v: np.ndarray, n: float) -> np.ndarray:
    dot = np.tensordot(a, v, (1, 0))
    cosine = dot / (np.linalg.norm(a, axis=1) * np.linalg.norm(v))
    return (dot * np.maximum(cosine, 0.1) ** n).mean((1, 2))


@pytest.mark.parametrize(
    ("objective", "layer", "reference"),
    [
        (fv.channel("_blocks.10", 5), "_blocks.10", lambda a: a[:, 5].mean((1, 2))),
        (fv.neuron("_blocks.10", 5), "_blocks.10", lambda a: a[:, 5, 7, 7]),
        (fv.neuron("_blocks.10", 5, 2, 11), "_blocks.10", lambda a: a[:, 5, 2, 11]),
        (fv.layer("_blocks.10"), "_blocks.10", lambda a: (a**2).mean((1, 2, 3))),
        (
            fv.direction("_blocks.10", VECTOR),
            "_blocks.10",
            lambda a: np.tensordot(a, VECTOR, (1, 0)).mean((1, 2)),
        ),
        (
            fv.direction("_blocks.10", VECTOR, cosine_power=2),
            "_blocks.10",
            lambda a: cosine_direction(a, VECTOR, 2),
        ),
        (fv.class_logit(285), "_fc", lambda a: a[:, 285]),
        (fv.class_logit("Egyptian cat"), "_fc", lambda a: a[:, 285]),
        (-fv.class_logit("bee"), "_fc", lambda a: -a[:, 309]),
    ],
)
def test_values_on_lite0(lite0, photos, objective, layer, reference):
    expected = reference(hooked(lite0, layer, photos))
    np.testing.assert_allclose(objective(lite0, photos).detach(), expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("objective", "layer", "reference"),
    [
        (fv.channel("blocks.0", 3), "blocks.0", lambda a: a[:, :, 3].mean(1)),
        (fv.neuron("blocks.1", 3), "blocks.1", lambda a: a[:, 1 + 2 * 4 + 2, 3]),
        (fv.neuron("blocks.1", 3, 0), "blocks.1", lambda a: a[:, 0, 3]),
        (fv.layer("blocks.0.norm"), "blocks.0.norm", lambda a: (a**2).mean((1, 2))),
        (
            fv.direction("blocks.0", np.arange(12.0)),
            "blocks.0",
            lambda a: (a @ np.arange(12.0)).mean(1),
        ),
        (fv.class_logit(6), "head", lambda a: a[:, 6]),
    ],
)
def test_values_on_a_transformer(tokens, objective, layer, reference):
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    expected = reference(hooked(tokens, layer, images))
    np.testing.assert_allclose(objective(tokens, images).detach(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("spatial", [1, 3])
def test_signals_and_volumes(spatial):
    model = nets.tiny(spatial)
    images = torch.rand(2, 2, *(8,) * spatial)
    activation = model.activations(images, ["second"])["second"]
    expected = activation[:, 4].flatten(1).mean(1)
    torch.testing.assert_close(fv.channel("second", 4)(model, images), expected)
    centre = activation[(slice(None), 4, *(2,) * spatial)]
    torch.testing.assert_close(fv.neuron("second", 4)(model, images), centre)


def test_direction_files_read_like_arrays(lite0, photos, tmp_path):
    path = tmp_path / "vec.npy"
    np.save(path, VECTOR)
    from_file = fv.objective(f'direction:_blocks.10:"{path}"')
    from_array = fv.direction("_blocks.10", VECTOR)
    torch.testing.assert_close(from_file(lite0, photos[:1]), from_array(lite0, photos[:1]))


def test_direction_refuses_what_is_no_plain_vector(lite0, tmp_path):
    images = torch.zeros(1, 3, 224, 224)
    (tmp_path / "junk.npy").write_bytes(b"not numpy")
    np.save(tmp_path / "pickle.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "square.npy", np.zeros((112, 112)))
    for name, message in [
        ("missing.npy", "No such file"),
        ("junk.npy", "cannot read"),
        ("pickle.npy", "cannot read"),
        ("square.npy", "112x112 numbers"),
    ]:
        with pytest.raises(UnitError, match=message):
            fv.direction("_blocks.10", tmp_path / name)(lite0, images)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("channel:_blocks.10:112", "no channel 112 in layer '_blocks.10': it has 0 to 111"),
        ("channel:_blocks.10:-1", "no channel -1"),
        ("neuron:_blocks.10:0:14:0", "no position 14:0 in layer '_blocks.10': its map is 14x14"),
        ("neuron:_blocks.10:0:3", "its map is 14x14"),
        ("neuron:_fc:0:3", "it has no positions"),
        ("class:1000", "no class 1000"),
        ('class:"egyptian kat"', "did you mean 'Egyptian cat'"),
        ('class:"crane"', r"ambiguous: give one of the indices \[134, 517\]"),
        ("direction:_blocks.10:[1,2]", "2 numbers, but layer '_blocks.10' has 112 units"),
        ("channel:_block.10:3", "did you mean '_blocks.10'"),
        ("class:3:layer=nowhere", "no layer 'nowhere'"),
    ],
)
def test_what_the_network_lacks_is_named(lite0, text, message):
    with pytest.raises(fv.FeatvizError, match=message) as caught:
        fv.objective(text)(lite0, torch.zeros(1, 3, 224, 224))
    assert len(str(caught.value).splitlines()) == 1


def test_class_names_ignore_case_and_need_names(lite0, tiny):
    assert lite0.class_index("EGYPTIAN CAT") == 285
    assert len(lite0.classes) == 1000
    with pytest.raises(UnitError, match="no class names"):
        fv.class_logit("cat")(tiny, torch.zeros(1, 2, 8, 8))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 3, 8, 8), r"\(B, 2, 8, 8\)"),
        (torch.zeros(2, 8, 8), r"\(B, 2, 8, 8\)"),
        (torch.zeros(1, 2, 8, 8, dtype=torch.uint8), "float tensor"),
        ([[1.0]], "not list"),
    ],
)
def test_images_of_another_kind_are_refused(tiny, images, message):
    with pytest.raises(fv.FeatvizError, match=message):
        fv.channel("first", 0)(tiny, images)


def test_functions_of_the_users_own(tiny):
    images = torch.rand(2, 2, 8, 8)
    with pytest.raises(UnitError, match=r"returned \(2, 4\): it must return one value per sample"):
        fv.function(lambda a: a.mean((2, 3)), "first")(tiny, images)
    with pytest.raises(UnitError, match="name the layers"):
        fv.function(len)
    with pytest.raises(UnitError, match="not int"):
        fv.function(3, "first")
    with pytest.raises(fv.FeatvizError, match="no layer 'frist'; did you mean 'first'"):
        fv.function(lambda a: a.mean((1, 2, 3)), "frist")(tiny, images)
    with pytest.raises(UnitError, match="another process"):
        fv.objective('function:"somewhere.else":first')(tiny, images)
    one = fv.function(lambda a: a.mean((1, 2, 3)), "first")
    two = fv.function(lambda a: a.amax((1, 2, 3)), "first")
    assert one != two
    assert (one - two)(tiny, images).lt(0).all()
