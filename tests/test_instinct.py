"""Calls that a newcomer tries: each works, or is answered with the call that does."""

import re

import numpy as np
import pytest
import torch

import featviz as fv
from featviz.objectives.shorthand import suggestion
from featviz.transforms.foreign import Foreign, adapted
from tests import instinct, nets

FAST = {"steps": 2, "size": 32}
A, B = fv.channel("a", 1), fv.channel("a", 2)


def images(size=64):
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda m: fv.objective(285), fv.class_logit(285)),
        (lambda m: fv.objective([285, "class:1"]), fv.objective(["class:285", "class:1"])),
        (lambda m: m["_blocks.10"], lambda m: m.layer("_blocks.10")),
        (lambda m: A**2, A * A),
        (lambda m: A**1, A),
        (lambda m: fv.mean(A, B), fv.mean([A, B])),
        (lambda m: fv.neuron("a", 1, x=5, y=3), fv.neuron("a", 1, 3, 5)),
    ],
)  # fmt: skip
def test_works(lite0, call, expected):
    reference = expected(lite0) if not isinstance(expected, fv.Objective) else expected
    assert call(lite0) == reference


def test_a_name_is_a_model(lite0):
    by_name = fv.render("efficientnet_lite0", 285, **FAST)
    assert torch.equal(by_name.images, fv.render(lite0, fv.class_logit(285), **FAST).images)


def test_one_layer_name_is_not_a_list_of_letters(lite0):
    x = images()
    one = lite0.activations(x, "_blocks.0")
    assert torch.equal(one["_blocks.0"], lite0.activations(x, ["_blocks.0"])["_blocks.0"])
    assert list(one) == ["_blocks.0"]


def test_attribute_explains_the_predicted_class(lite0):
    x = images()
    given = fv.attribute(lite0, x, f"class:{int(lite0(x).argmax())}", method="saliency")
    chosen = fv.attribute(lite0, x, method="saliency")
    assert chosen.objectives == given.objectives
    assert torch.equal(chosen.attributions, given.attributions)


def test_attack_takes_a_path(lite0, tmp_path):
    fv.render(lite0, 1, steps=1, size=224).save(tmp_path / "a.png")
    assert fv.attack("efficientnet_lite0", str(tmp_path / "a.png"), steps=1).norm.shape == (1,)


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the calls of the table refer to, in a folder with photographs."""
    defaults = list(instinct.few_steps().values())
    stored = [keywords["steps"] for keywords in defaults]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("instinct"))
        for keywords in defaults:
            patch.setitem(keywords, "steps", 2)
        yield instinct.namespace()
    assert [keywords["steps"] for keywords in defaults] == stored


CALLS = [call for calls in instinct.TABLE.values() for call in calls]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.code)
def test_calls_that_one_tries(names, call):
    came = instinct.outcome(call, names)
    assert instinct.sound(call, came), repr(came)


def test_the_page_has_the_table():
    """After a change of the table: python -m tests.instinct."""
    page = instinct.PAGE.read_text()
    rows = re.findall(r"^\| `(.*)` \| (.*) \|$", page, re.MULTILINE)
    shown = {code.replace("\\|", "|"): outcome for code, outcome in rows}
    assert list(shown) == [call.code for call in CALLS]
    for call in CALLS:
        assert (shown[call.code] == "works") == (call.answer is None)


@pytest.mark.parametrize(
    ("owner", "name", "answer"),
    [
        (fv, "render_vis", r"fv\.render\("),
        (fv, "explain", r"fv\.attribute\("),
        (fv, "chanel", r"did you mean 'channel'"),
        (fv.param, "image", r"fv\.param\.Fourier\("),
        (fv.param, "nonsense", r"has no 'nonsense'$"),
    ],
)
def test_unknown_names_are_answered(owner, name, answer):
    with pytest.raises(AttributeError, match=answer):
        getattr(owner, name)
    assert not hasattr(owner, name)


@pytest.mark.parametrize(
    "text", ["channel:a:5", "class:285", "total_variation", "channel:a", "a b:3"]
)
def test_no_suggestion_for_what_is_well_formed_or_unclear(text):
    assert suggestion(text) is None


class Flip(torch.nn.Module):
    def forward(self, x):
        return x.flip(-1)


class Compose:
    def __init__(self, transforms):
        self.transforms = transforms


def noise(x):
    return x + 0.1 * torch.randn_like(x)


def test_foreign_transforms_are_listed_in_order():
    flip, jitter = Flip(), fv.transforms.Jitter(2)
    assert adapted(Compose([flip, Compose([noise])])) == [Foreign(flip), Foreign(noise)]
    assert adapted([jitter, flip]) == [jitter, Foreign(flip)]
    assert adapted("none") == "none"
    assert adapted(None) is None


def test_a_foreign_transform_changes_what_is_optimized(lite0):
    plain = fv.render(lite0, 1, transforms="none", **FAST)
    same = fv.render(lite0, 1, transforms=lambda x: x, **FAST)
    flipped = fv.render(lite0, 1, transforms=[Flip()], **FAST)
    torch.testing.assert_close(plain.images, same.images, rtol=0, atol=1e-5)
    assert (plain.images - flipped.images).abs().max() > 1e-3
    assert same.record["transforms"] is None


def test_random_foreign_transforms_are_drawn_from_each_seed_and_leave_the_generator_alone():
    model = fv.Model(nets.Cnn(), size=16) if hasattr(nets, "Cnn") else fv.load("efficientnet_lite0")
    torch.manual_seed(7)
    state = torch.get_rng_state()
    both = fv.render(model, [1, 1], transforms=[noise], seed=[3, 4], **FAST)
    assert torch.equal(torch.get_rng_state(), state)
    alone = fv.render(model, 1, transforms=[noise], seed=4, **FAST)
    torch.testing.assert_close(both.images[1], alone.images[0], rtol=0, atol=1e-6)
    assert not torch.equal(both.images[0], both.images[1])


def test_kornia_augmentations():
    kornia = pytest.importorskip("kornia.augmentation")
    module = kornia.RandomHorizontalFlip(p=1.0)
    apply = Foreign(module).prepare(torch.zeros(1, 2, 1))
    x = torch.rand(2, 3, 4, 4)
    assert np.allclose(apply(x, 0), x.flip(-1))


def test_a_transform_that_changes_the_shape_is_refused():
    apply = Foreign(lambda x: x[..., :3]).prepare(torch.zeros(1, 1, 1))
    with pytest.raises(fv.FeatvizError, match=r"\(1, 3, 4, 4\), not \(1, 3, 4, 3\)"):
        apply(torch.rand(1, 3, 4, 4), 0)
