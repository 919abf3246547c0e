"""Which axis counts the units: on networks of many layouts, against plain forward hooks."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import featviz as fv
from featviz.errors import FeatvizWarning, LayerError
from featviz.networks.axes import AxisTracker, reshaped
from tests import nets


class Lstm(nn.Module):
    """The rows of an image as a sequence."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(9, 5, batch_first=True, bidirectional=True)
        self.head = nn.Linear(10, 4)

    def forward(self, x):
        sequence, _ = self.lstm(x.squeeze(1))
        return self.head(sequence)


class LastBatchLstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(9, 5)
        self.head = nn.Linear(5, 4)

    def forward(self, x):
        sequence, _ = self.lstm(x.squeeze(1).transpose(0, 1))
        return self.head(sequence[-1])


class Cell(nn.Module):
    """An LSTM written by hand, step by step."""

    def __init__(self):
        super().__init__()
        self.gates = nn.Linear(9 + 5, 20)
        self.out = nn.Identity()

    def forward(self, x):
        rows = x.squeeze(1)
        hidden = cell = rows.new_zeros(len(rows), 5)
        states = []
        for step in range(rows.shape[1]):
            gates = self.gates(torch.cat([rows[:, step], hidden], 1))
            i, f, g, o = gates.chunk(4, 1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
            states.append(hidden)
        return self.out(torch.stack(states, 1))


class FlatConv(nn.Module):
    """A 1-D convolution over the flattened positions of a map."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.flat = nn.Flatten(2)
        self.conv = nn.Conv1d(6, 7, 3, padding=1)
        self.norm = nn.BatchNorm1d(7)

    def forward(self, x):
        return self.norm(self.conv(self.flat(self.stem(x)))).relu()


class Pitch(nn.Module):
    """Convolutions over a signal that is a tall image of one pixel, as in pitch trackers."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, (9, 1), stride=(4, 1))
        self.norm = nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d((2, 1))
        self.head = nn.Linear(8 * 7, 5)

    def forward(self, x):
        x = self.pool(self.norm(self.conv(x[:, :, :, None]).relu()))
        x = x.permute(0, 2, 1, 3).reshape(len(x), -1)
        return self.head(x).sigmoid()


class Detector(nn.Module):
    """A head that concatenates the cells of two maps: (B, 4 + classes, cells)."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.fine, self.coarse = nn.Conv2d(8, 10, 1), nn.Conv2d(8, 10, 1)
        self.head = nn.Identity()

    def forward(self, x):
        x = self.stem(x)
        maps = self.fine(x), self.coarse(F.avg_pool2d(x, 2))
        return self.head(torch.cat([m.view(len(x), 10, -1) for m in maps], 2))


class Attention(nn.Module):
    """Self-attention with normalized queries and keys, and a class token."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 12, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 12))
        self.qkv = nn.Linear(12, 36)
        self.q_norm, self.k_norm = nn.LayerNorm(4), nn.LayerNorm(4)
        self.attended = nn.Identity()
        self.weights = nn.Softmax(-1)
        self.proj = nn.Linear(12, 12)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, 3, 4).permute(2, 0, 3, 1, 4).unbind(0)
        weights = self.weights(self.q_norm(q) @ self.k_norm(k).transpose(-2, -1) / 2)
        x = x + self.proj(self.attended((weights @ v).transpose(1, 2).reshape(b, n, c)))
        return x[:, 0]


class Windows(nn.Module):
    """Swin's windows: layers inside them have windows, not images, on their first axis."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 6, 4, 4)
        self.norm = nn.LayerNorm(6)
        self.mlp = nn.Linear(6, 6)
        self.block = nn.Identity()

    def forward(self, x):
        x = self.norm(self.patch(x).permute(0, 2, 3, 1))
        b, h, w, c = x.shape
        windows = x.view(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        windows = self.mlp(windows).view(b, h // 2, w // 2, 2, 2, c)
        return self.block(x + windows.permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c))


class Shuffle(nn.Module):
    """Channel shuffle, and the mean of a group."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.shuffled = nn.Identity()

    def forward(self, x):
        x = self.conv(x)
        b, c, h, w = x.shape
        x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        return self.shuffled(x)


class Video(nn.Module):
    """Frames go through a 2-D convolution on the batch axis, and back."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.frames = nn.Identity()
        self.pooled = nn.Identity()

    def forward(self, x):
        b, c, t, h, w = x.shape
        x = self.conv(x.transpose(1, 2).reshape(b * t, c, h, w))
        x = self.frames(x.view(b, t, *x.shape[1:]))
        return self.pooled(x.mean((3, 4)))


class Weighted(nn.Module):
    """A convolution that is written as a product, weights times activations."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 2))
        self.out = nn.Identity()

    def forward(self, x):
        return self.out(self.weight @ x)


class Square(nn.Module):
    """A LayerNorm over a map whose sides equal its features: shapes do not tell."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)
        self.norm = nn.LayerNorm(8)

    def forward(self, x):
        return self.norm(self.conv(x).permute(0, 2, 3, 1))


#: Network, model arguments, and for each layer its unit axis.
CASES = [
    (Lstm, {"size": (7, 9), "channels": 1}, {"lstm[0]": 2, "head": 2, "output": 2}),
    (Cell, {"size": (7, 9), "channels": 1}, {"gates": 1, "out": 2}),
    (FlatConv, {"size": (6, 8)}, {"stem": 1, "flat": 1, "conv": 1, "norm": 1, "output": 1}),
    (Pitch, {"size": (65,), "channels": 1}, {"conv": 1, "norm": 1, "pool": 1, "head": 1}),
    (Detector, {"size": (8, 12)}, {"stem": 1, "coarse": 1, "head": 1, "output": 1}),
    (
        Attention,
        {"size": 16},
        {"patch": 1, "qkv": 2, "q_norm": 3, "k_norm": 3, "attended": 2, "proj": 2, "output": 1},
    ),
    (Windows, {"size": (16, 24)}, {"patch": 1, "norm": 3, "block": 3}),
    (Shuffle, {"size": (8, 12)}, {"conv": 1, "shuffled": 1}),
    (Video, {"size": (5, 8, 9), "channels": 3}, {"frames": 2, "pooled": 2}),
    (Weighted, {"size": (11,), "channels": 2}, {"out": 1, "output": 1}),
    (Square, {"size": 8}, {"conv": 1, "norm": 3}),
    (nets.ChannelsLast, {"size": (12, 16)}, {"norm": 3}),
]


def hooked(net, images, name):
    """Return what a plain forward hook sees."""
    seen = []
    module = dict(net.named_modules()).get(name.split("[")[0], net)
    handle = module.register_forward_hook(lambda *a: seen.append(a[2]))
    with torch.no_grad():
        net.eval()(images)
    handle.remove()
    return seen[-1][0] if isinstance(seen[-1], tuple) else seen[-1]


@pytest.mark.parametrize(
    ("build", "arguments", "axes"), CASES, ids=lambda c: getattr(c, "__name__", "")
)
def test_channels_and_neurons_equal_plain_hooks(build, arguments, axes):
    net = nets.seeded(build)
    model = fv.Model(net, **arguments)
    images = torch.rand(2, model.channels, *model.size)
    for name, axis in axes.items():
        expected = hooked(net, images, name)
        info = model.layer(name)
        assert (info.axis, info.units) == (axis, expected.shape[axis]), name
        assert not info.guessed, name
        unit = info.units - 1
        map_ = expected.select(axis, unit).reshape(2, -1)
        torch.testing.assert_close(fv.channel(name, unit)(model, images), map_.mean(1))
        corner = fv.neuron(name, unit, *(0 for _ in info.positions))(model, images)
        torch.testing.assert_close(corner, map_[:, 0])


def test_layers_of_windows_or_of_time_first_are_known_when_probed():
    model = fv.Model(nets.seeded(Windows), size=(16, 24))
    assert not next(i for i in model.layers() if i.name == "mlp").batched
    with pytest.raises(LayerError, match="'mlp' cannot be used: its first axis is not the batch"):
        fv.render(model, fv.channel("mlp", 0), steps=1)
    model = fv.Model(nets.seeded(LastBatchLstm), size=(7, 9), channels=1)
    with pytest.raises(LayerError, match="not the batch"):
        model.layer("lstm[0]")
    assert model.layer("head").units == 4


def test_a_guess_warns_and_can_be_declared():
    net = nets.seeded(Attention)
    model = fv.Model(net, size=16)
    images = torch.rand(1, 3, 16, 16)
    with pytest.warns(FeatvizWarning, match=r"'weights' \(B, 3, 17, 17\).*axes=\{'weights': 1\}"):
        fv.channel("weights", 0)(model, images)
    declared = fv.Model(net, size=16, axes={"weights": -1, "proj": 1})
    assert declared.layer("weights").axis == 3
    assert declared.layer("proj").units == 17
    assert declared.layer("proj", 16).axis == 1
    expected = hooked(net, images, "weights")[..., 5].flatten(1).mean(1)
    torch.testing.assert_close(fv.channel("weights", 5)(declared, images), expected)


@pytest.mark.parametrize(
    ("axes", "message"),
    [({"prok": 1}, "no layer 'prok'; did you mean 'proj'"), ({"proj": 3}, "1 to 2, not 3"),
     ({"proj": 0}, "1 to 2, not 0")],
)  # fmt: skip
def test_wrong_declarations_are_refused(axes, message):
    with pytest.raises(LayerError, match=message):
        fv.Model(nets.seeded(Attention), size=16, axes=axes).layers()


def test_maps_and_tokens_are_told_apart():
    model = fv.Model(nets.seeded(Attention), size=16)
    kinds = {i.name: (i.is_map(2), i.is_tokens(2)) for i in model.layers()}
    assert kinds["patch"] == (True, False)
    assert kinds["proj"] == kinds["attended"] == (False, True)
    assert kinds["k_norm"] == kinds["weights"] == kinds["output"] == (False, False)


@pytest.mark.parametrize(
    ("shape", "labels", "target", "expected"),
    [
        ((1, 6, 4, 5), ("?", "unit", "0", "1"), (1, 6, 20), ("?", "unit", "01")),
        ((1, 6, 4, 5), ("?", "unit", "0", "1"), (1, 120), ("?", "unit")),
        ((1, 6, 1, 1), ("?", "unit", "0", "1"), (1, 6), ("?", "unit")),
        ((1, 20, 6), ("?", "01", "unit"), (20, 6), ("01", "unit")),
        ((20, 6), ("01", "unit"), (1, 20, 6), ("?", "01", "unit")),
        ((1, 20, 6), ("?", "01", "unit"), (1, 20, 2, 3), ("?", "01", "?", "unit")),
        ((1, 20, 2, 3), ("?", "01", "?", "unit"), (1, 20, 6), ("?", "01", "unit")),
        ((20, 1), ("01", "unit"), (1, 20, 1), ("?", "01", "unit")),
        ((1, 1, 4, 5), ("?", "unit", "0", "1"), (1, 4, 5), ("?", "0", "1")),
    ],
)
def test_reshapes_carry_labels(shape, labels, target, expected):
    assert reshaped(shape, labels, target) == expected


def test_tensors_that_no_image_reaches_have_no_labels():
    images = torch.rand(1, 3, 4, 4)
    with AxisTracker(images) as tracker:
        constant, image = torch.ones(1, 3, 4, 4).relu(), images.relu()
    assert tracker.labels(constant) == ()
    assert tracker.labels(image) == ("?", "unit", "0", "1")


class Folded(nn.Module):
    """MobileViT's patches: an unfold that mixes axes, so that the operations lose track."""

    def __init__(self):
        super().__init__()
        self.mix, self.act, self.conv = nn.Identity(), nn.ReLU(), nn.Conv2d(6, 7, 1)
        self.places = nn.Embedding(4, 7)

    def forward(self, x):
        b, c, h, w = x.shape
        x = x.reshape(b, c * h // 2, 2, w).transpose(1, 2).reshape(b, 2 * c, h // 2, w)
        x = self.act(self.conv(self.mix(x)))
        return x.flatten(2).mean(2) + self.places(torch.arange(4).expand(b, -1)).mean(1)


def test_where_operations_do_not_tell_the_type_of_the_module_does():
    model = fv.Model(nets.seeded(Folded), size=(8, 5))
    images = torch.rand(2, 3, 8, 5)
    with torch.no_grad():
        net = model.net
        mixed = images.reshape(2, 12, 2, 5).transpose(1, 2).reshape(2, 6, 4, 5)
        conv = net.conv(mixed)
    for name, units in (("conv", 7), ("act", 7), ("places", 7)):
        info = model.layer(name)
        assert (info.units, info.guessed) == (units, False)
    torch.testing.assert_close(fv.channel("conv", 3)(model, images), conv[:, 3].mean((1, 2)))
    torch.testing.assert_close(fv.channel("act", 3)(model, images), conv.relu()[:, 3].mean((1, 2)))
