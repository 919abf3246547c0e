"""Dictionaries: codes by hand, foreign files, attached layers, and features that are planted."""

import copy
import json

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

import featviz as fv
from featviz.networks.dictionaries.api import gather
from featviz.networks.dictionaries.training import train
from tests import nets


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


ENCODER = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 1.0]])


@pytest.mark.parametrize(
    ("given", "codes"),
    [
        ({}, [3, 4, 0]),
        ({"bias": torch.tensor([-4.0, 0.0, 1.5])}, [0, 4, 0.5]),
        ({"center": torch.tensor([1.0, 3.0])}, [2, 0, 0]),
        ({"nonlinearity": "identity"}, [3, 4, -1]),
        ({"nonlinearity": "topk:1"}, [0, 4, 0]),
        ({"nonlinearity": "jumprelu", "threshold": torch.tensor([3.5, 0.0, -2.0])}, [0, 4, -1]),
    ],
)
def test_codes_by_hand(given, codes):
    made = fv.Dictionary(ENCODER, **given)
    assert made(torch.tensor([3.0, 2.0])).tolist() == codes


def test_sums_by_hand():
    made = fv.Dictionary(ENCODER, ENCODER, offset=torch.tensor([0.5, 0.0]))
    assert made.decode(torch.tensor([1.0, 1.0, 2.0])).tolist() == [-0.5, 4.0]
    with pytest.raises(fv.FeatvizError, match="has no decoder"):
        fv.Dictionary(ENCODER).decode(torch.zeros(3))


class Net(nn.Module):
    """A convolution that is called twice by name, a Sequential, tokens, features."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = nn.Sequential(nn.Conv2d(4, 6, 1), nn.ReLU())
        self.tokens = nn.Linear(6, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        x = self.blocks(self.conv(x).relu_())
        return self.head(self.tokens(x.flatten(2).transpose(1, 2)).mean(1))


@pytest.fixture
def net():
    return nets.seeded(Net).eval()


@pytest.mark.parametrize(
    ("layer", "units"), [("conv", 4), ("blocks", 6), ("blocks.0", 6), ("tokens", 5), ("head", 3)]
)
def test_an_attached_layer_is_the_codes_of_the_layer(net, layer, units):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    classes = {name: type(module) for name, module in net.named_modules()}
    model = fv.Model(net, size=8)
    made = fv.Dictionary(drawn(7, units), bias=drawn(7, seed=1), layer=layer)
    attached = made.attach(model)
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    name = f"{layer}.dictionary"
    plain = model.activations(images, layer)[layer]
    axis = model.layer(layer).axis
    expected = F.linear(plain.movedim(axis, -1), made.encoder, made.bias).relu().movedim(-1, axis)
    torch.testing.assert_close(attached.activations(images, name)[name], expected)
    assert attached.layer(name).units == 7
    assert attached.layer(name).axis == axis
    # All else is as it was, in the new model and in the old one.
    assert torch.equal(attached(images), model(images))
    old = {i.name for i in model.layers()}
    assert old <= {i.name for i in attached.layers()}
    assert not any("dictionary" in name for name in old)
    inside = [m for m in attached.net.modules() if isinstance(m, fv.Dictionary)]
    assert inside  # a copy: the caller's stays on its device and in its mode
    assert made not in inside
    assert made.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert {name: type(module) for name, module in net.named_modules()} == classes
    assert not any(module._forward_hooks for module in net.modules())


def test_features_are_rendered_and_have_the_gradient_of_the_formula(net):
    model = fv.Model(net, size=8)
    made = fv.Dictionary(drawn(7, 6), layer="blocks")
    attached = made.attach(model, name="sae")
    images = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(2)).requires_grad_()
    plain = model.activations(images, "blocks")["blocks"]
    every = F.linear(plain.movedim(1, -1), made.encoder).relu().mean((1, 2))
    unit = int(every[0].argmax())
    score, expected = fv.channel("blocks.sae", unit)(attached, images), every[:, unit]
    torch.testing.assert_close(score, expected)
    pair = [torch.autograd.grad(value.sum(), images)[0] for value in (score, expected)]
    torch.testing.assert_close(*pair)
    result = fv.render(attached, fv.channel("blocks.sae", unit), steps=40)  # traced
    assert result.scores.item() > score.item()
    # A direction of the decoder is a different objective, of the layer itself.
    assert fv.render(attached, "channel:conv:0", steps=2).scores.isfinite().all()


def test_a_feature_that_others_keep_off_is_rendered(net):
    model = fv.Model(net, size=8)
    encoder = drawn(2, 6)
    gray = torch.full((1, 3, 8, 8), 0.5)
    means = F.linear(model.activations(gray, "blocks")["blocks"].movedim(1, -1), encoder)
    bias = torch.tensor([0.05, -0.02]) - means.amax((0, 1, 2))
    asleep = fv.Dictionary(encoder, bias=bias, nonlinearity="topk:1").attach(model, "blocks")
    codes = asleep.activations(gray, "blocks.dictionary")["blocks.dictionary"].mean((0, 2, 3))
    assert codes[1] == 0 < codes[0]
    result = fv.render(asleep, fv.channel("blocks.dictionary", 1), steps=64)
    assert result.redirected.tolist() == [True]
    assert result.scores.item() > 0


def test_a_copy_encodes_with_its_own_dictionary(net):
    attached = fv.Dictionary(drawn(7, 6), layer="blocks").attach(fv.Model(net, size=8))
    duplicate = attached.copy()
    images = torch.rand(1, 3, 8, 8)
    before = attached.activations(images, "blocks.dictionary")["blocks.dictionary"]
    with torch.no_grad():
        duplicate.net.blocks.dictionary.dictionary.encoder.zero_()
    after = attached.activations(images, "blocks.dictionary")["blocks.dictionary"]
    assert torch.equal(before, after)
    assert not duplicate.activations(images, "blocks.dictionary")["blocks.dictionary"].any()


def test_two_dictionaries_and_a_module_in_two_places(net):
    net.again = net.conv
    model = fv.Model(net, size=8)
    first = fv.Dictionary(drawn(7, 4), layer="conv").attach(model)
    both = fv.Dictionary(drawn(5, 4), layer="conv").attach(first, name="other")
    names = {i.name for i in both.layers()}
    assert {"conv.dictionary", "conv.other"} <= names
    assert both.net.again is both.net.conv
    with pytest.raises(fv.FeatvizError, match="has a 'other' already"):
        fv.Dictionary(drawn(5, 4)).attach(both, "conv", name="other")


def test_what_cannot_be_attached_is_refused(net):
    model = fv.Model(net, size=8)
    made = fv.Dictionary(drawn(7, 6))
    with pytest.raises(fv.FeatvizError, match="does not say which layer"):
        made.attach(model)
    with pytest.raises(fv.FeatvizError, match="layer 'conv' has 4 units, the dictionary 6"):
        made.attach(model, "conv")
    with pytest.raises(fv.FeatvizError, match="no layer 'block'; did you mean 'blocks'"):
        made.attach(model, "block")
    with pytest.raises(fv.FeatvizError, match="what one module returns, not 'input'"):
        fv.Dictionary(drawn(7, 3)).attach(model, "input")
    function = fv.Model(lambda x: net(x), size=8)
    with pytest.raises(fv.FeatvizError):
        fv.Dictionary(drawn(7, 3)).attach(function, "output")


@pytest.mark.parametrize("swapped", [False, True])
def test_foreign_files_in_either_layout(swapped, tmp_path):
    encoder, decoder, bias = drawn(7, 4), drawn(7, 4, seed=1), drawn(7, seed=2)
    tensors = {
        "W_enc": encoder if swapped else encoder.T.contiguous(),
        "W_dec": decoder.T.contiguous() if swapped else decoder,
        "b_enc": bias,
        "b_dec": torch.zeros(4),
    }
    save_file(tensors, tmp_path / "sae.safetensors")
    made = fv.Dictionary.load(tmp_path / "sae.safetensors")
    assert torch.equal(made.encoder, encoder)
    assert torch.equal(made.decoder, decoder)
    assert made.nonlinearity == "relu"
    linear = {"encoder.weight": encoder, "decoder.weight": decoder.T.contiguous()}
    save_file(linear, tmp_path / "linear.safetensors")
    made = fv.Dictionary.load(tmp_path / "linear.safetensors")
    assert torch.equal(made.encoder, encoder)
    assert torch.equal(made.decoder, decoder)


def test_what_a_foreign_file_does_not_say_is_asked_for(tmp_path):
    shift = drawn(4, seed=3)
    path = tmp_path / "sae.safetensors"
    save_file({"W_enc": drawn(4, 7), "b_enc": torch.zeros(7), "b_dec": shift}, path)
    with pytest.raises(fv.FeatvizError, match="does not say whether b_dec is subtracted"):
        fv.Dictionary.load(path)
    x = drawn(4, seed=4)
    encoder = drawn(4, 7).T
    for centered, expected in ((True, (x - shift) @ encoder.T), (False, x @ encoder.T)):
        made = fv.Dictionary.load(path, centered=centered)
        torch.testing.assert_close(made(x), expected.relu())
    save_file({"weight": drawn(4, 7)}, path)
    with pytest.raises(fv.FeatvizError, match=r"no W_enc or encoder.weight among its tensors"):
        fv.Dictionary.load(path)
    path.write_bytes(b"no tensors")
    with pytest.raises(fv.FeatvizError, match="cannot read dictionary"):
        fv.Dictionary.load(path)
    with pytest.raises(fv.FeatvizError, match="no file"):
        fv.Dictionary.load(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("extra", "names", "centered"),
    [
        ({}, ("encoder.weight", "encoder.bias", "decoder.weight", "bias"), True),
        ({}, ("encoder.weight", "latent_bias", "decoder.weight", "pre_bias"), True),
        (
            {"k": torch.tensor(3)},
            ("encoder.weight", "encoder.bias", "decoder.weight", "b_dec"),
            None,
        ),
        ({"stats_last_nonzero": torch.zeros(7)}, ("W_enc", "b_enc", "W_dec", "b_dec"), None),
    ],
)
def test_files_of_other_libraries_encode_as_they_do(extra, names, centered, tmp_path):
    """The formulas of dictionary_learning's and OpenAI's autoencoders, and of SAELens."""
    encoder, decoder, bias, shift = drawn(7, 4), drawn(7, 4, seed=1), drawn(7, seed=2), drawn(4)
    linear = names[0] == "encoder.weight"
    tensors = {
        names[0]: encoder if linear else encoder.T.contiguous(),
        names[1]: bias,
        names[2]: decoder.T.contiguous() if linear else decoder,
        names[3]: shift,
        **extra,
    }
    save_file(tensors, tmp_path / "sae.safetensors")
    given = {} if centered else {"centered": True}
    if not centered:
        with pytest.raises(fv.FeatvizError, match="whether b_dec is subtracted"):
            fv.Dictionary.load(tmp_path / "sae.safetensors")
    made = fv.Dictionary.load(tmp_path / "sae.safetensors", **given)
    x = drawn(5, 4, seed=4)
    codes = ((x - shift) @ encoder.T + bias).relu()
    if "k" in extra:
        assert made.nonlinearity == "topk:3"
        codes = torch.where(codes >= codes.topk(3).values[:, -1:], codes, 0)
    torch.testing.assert_close(made(x), codes)


def test_tensors_that_nobody_knows_are_refused(tmp_path):
    path = tmp_path / "gated.safetensors"
    save_file({"W_enc": drawn(4, 7), "b_mag": drawn(7), "r_mag": drawn(7)}, path)
    with pytest.raises(fv.FeatvizError, match="not known what its tensors b_mag, r_mag do"):
        fv.Dictionary.load(path)
    save_file({"W_enc": drawn(4, 7), "b_dec": drawn(4), "bias": drawn(4)}, path)
    with pytest.raises(fv.FeatvizError, match="b_dec and bias are both the offset"):
        fv.Dictionary.load(path)


class RunsAll(nn.ModuleDict):
    """Runs whatever modules are in it, like torchvision's dense blocks."""

    def forward(self, x):
        for module in self.values():
            x = module(x)
        return x


@pytest.mark.parametrize("features", [4, 7])
def test_a_module_that_runs_all_of_its_own_is_refused(features):
    net = nets.seeded(
        lambda: nn.Sequential(
            RunsAll({"a": nn.Conv2d(3, 4, 1), "b": nn.Conv2d(4, 4, 1)}), nn.ReLU()
        )
    )
    made = fv.Dictionary(drawn(features, 4), layer="0")
    with pytest.raises(fv.FeatvizError, match="attach it to a module before or after"):
        made.attach(fv.Model(net, size=8))


def test_files_that_cannot_be_read_are_skipped(net, tmp_path):
    for i in range(6):
        Image.new("RGB", (8, 8), (40 * i, 90, 10)).save(tmp_path / f"{i}.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.warns(fv.FeatvizWarning, match="1 of 7 images cannot be read: broken.png"):
        fv.dictionary(fv.Model(net, size=8), "conv", tmp_path, features=5, k=2, steps=2)


def test_a_file_of_our_own_comes_back_whole(tmp_path):
    made = fv.Dictionary(
        drawn(7, 4), drawn(7, 4, seed=1), bias=drawn(7), center=drawn(4), offset=drawn(4, seed=5),
        nonlinearity="topk:2", layer="conv", notes={"explained": 0.5},
    )  # fmt: skip
    again = fv.Dictionary.load(made.save(tmp_path / "d.safetensors"))
    assert (again.nonlinearity, again.layer, again.notes) == ("topk:2", "conv", {"explained": 0.5})
    x = drawn(9, 4, seed=6)
    assert torch.equal(again(x), made(x))
    assert torch.equal(again.decode(made(x)), made.decode(made(x)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"encoder": torch.zeros(3)}, "encoder must be a matrix"),
        ({"bias": torch.zeros(2)}, r"bias must have shape \(3,\), not \(2,\)"),
        ({"decoder": torch.full((3, 2), torch.nan)}, "decoder must be finite"),
        ({"nonlinearity": "topk:4"}, "there are 3 features"),
        ({"nonlinearity": "gelu"}, "no nonlinearity 'gelu': use relu, identity"),
        ({"nonlinearity": "jumprelu"}, "needs a threshold"),
        ({"threshold": torch.zeros(3)}, "has no use for a threshold"),
    ],
)
def test_nonsense_is_refused(given, message):
    with pytest.raises(fv.FeatvizError, match=message):
        fv.Dictionary(**{"encoder": torch.zeros(3, 2), **given})


def test_planted_features_are_found():
    """Activations are sums of two of 24 directions in 16 dimensions: more than units."""
    generator = torch.Generator().manual_seed(0)
    planted = F.normalize(torch.randn(24, 16, generator=generator), dim=1)
    which = torch.rand(6000, 24, generator=generator).argsort(1)[:, :2]
    weights = 1 + torch.rand(6000, 2, generator=generator)
    rows = (planted[which] * weights[..., None]).sum(1) + 3
    made = train(rows, 32, 2, 1000, seed=0)
    assert made.notes["explained"] > 0.9
    best = (planted @ F.normalize(made.decoder, dim=1).T).amax(1)
    assert (best > 0.97).all()
    # Principal components cannot: directions that share a space are not orthogonal.
    components = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)[2]
    assert ((planted @ components.T).abs().amax(1) > 0.97).sum() <= 3


def test_activations_are_gathered_by_position(net):
    model = fv.Model(net, size=8)
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    every = model.activations(images, "conv")["conv"].movedim(1, -1).flatten(1, 2)
    rows = gather(model, "conv", images, 10, 2, seed=0)
    assert rows.shape == (30, 4)
    for k, part in enumerate(rows.split(10)):
        distances = (part[:, None] - every[k]).abs().amax(2)
        assert (distances.amin(1) < 1e-6).all()
        assert len(set(distances.argmin(1).tolist())) == 10
    assert gather(model, "head", images, 10, 2, seed=0).shape == (3, 3)


def test_by_name_in_every_verb(lite0, photos, tmp_path):
    made = fv.dictionary(lite0, "_blocks.2", photos, features=32, k=4, steps=20, positions=200)
    assert made.layer == "_blocks.2"
    assert made.notes["model"] == "efficientnet_lite0"
    path = made.save(tmp_path / "d.safetensors")
    name = f"efficientnet_lite0+{path}"
    result = fv.render(name, "channel:_blocks.2.dictionary:3", size=32, steps=2)
    assert result.settings["model"] == name
    assert fv.load(f"efficientnet_lite0+_blocks.2:{path}").layer("_blocks.2.dictionary").units == 32
    with pytest.raises(fv.FeatvizError, match="may run code or download"):
        fv.load(name, trust=False)
    with pytest.raises(fv.FeatvizError, match="no file"):
        fv.load("efficientnet_lite0+nothing.safetensors")
    with pytest.raises(fv.FeatvizError, match="are fewer than the 448 features"):
        fv.dictionary(lite0, "_blocks.10", photos[:1], steps=1, positions=10)
    json.dumps(made.notes)
    copy.deepcopy(made)
