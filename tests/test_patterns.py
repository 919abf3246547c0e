"""PatternAttribution: patterns by hand, against a plain computation, and what has none."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import featviz as fv
from tests import nets
from tests.test_relevance import VggLike


def images(count, channels=1, size=(1, 2), seed=0):
    return torch.rand(count, channels, *size, generator=torch.Generator().manual_seed(seed))


class Linear(nn.Module):
    """w = (1, -1) cancels what distracts, which both pixels see alike."""

    def __init__(self, rectified=False):
        super().__init__()
        self.linear, self.rectified = nn.Linear(2, 1), rectified
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor([[1.0, -1.0]]))
            self.linear.bias.fill_(0.25)

    def forward(self, x):
        y = self.linear(x.flatten(1))
        return y.relu() if self.rectified else y


def distracted():
    """x = (y + e, e): the signal y is in the first pixel only, e is noise in both."""
    pairs = [(y + e, e) for y in (0.0, 0.25, 0.5) for e in (0.0, 0.25, 0.5)]
    return torch.tensor(pairs).view(-1, 1, 1, 2)


def test_the_signal_and_not_what_distracts():
    model = fv.Model(Linear(), size=(1, 2), channels=1)
    x = torch.tensor([0.75, 0.25]).view(1, 1, 1, 2)
    made = fv.attribute(
        model, x, "channel:output:0", method="pattern_attribution", data=distracted()
    )
    # o = 0.75, w a = (1, 0): gradient times input would be (0.75, -0.25).
    torch.testing.assert_close(
        made.attributions.flatten(), torch.tensor([0.75, 0.0]), rtol=1e-4, atol=1e-5
    )
    assert made.record["data"] == "given"


def pattern(x, y, weight, rectified):
    """The formula on matrices: x (n, inputs), y (n, outputs), weight (outputs, inputs)."""
    rows = []
    for k in range(y.shape[1]):
        of = y[:, k] > 0 if rectified else torch.ones(len(y), dtype=torch.bool)
        xy = (x[of] * y[of, k, None]).mean(0) - x[of].mean(0) * y[:, k].mean()
        rows.append(xy / (weight[k] * xy).sum())
    return torch.stack(rows)


@pytest.mark.parametrize("rectified", [False, True])
def test_convolutions_by_their_patches(rectified):
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 3, 3, stride=2, padding=1)
    head = nn.Linear(3 * 9, 2)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = conv, head

        def forward(self, x):
            y = self.conv(x)
            return self.head((y.relu() if rectified else y).flatten(1))

    data, x = images(12, 2, (5, 6), 1), images(1, 2, (5, 6), 2)
    made = fv.attribute(
        fv.Model(Net(), size=(5, 6), channels=2), x, "channel:output:1",
        method="pattern_attribution", data=data,
    )  # fmt: skip
    with torch.no_grad():
        patches = F.unfold(data.double(), 3, stride=2, padding=1)
        weight = conv.weight.double().flatten(1)
        hidden = weight @ patches + conv.bias.double()[:, None]
        first = pattern(
            patches.transpose(1, 2).flatten(0, 1), hidden.transpose(1, 2).flatten(0, 1),
            weight, rectified,
        )  # fmt: skip
        seen = (hidden.relu() if rectified else hidden).flatten(1)
        output = seen @ head.weight.double().T + head.bias.double()
        second = pattern(seen, output, head.weight.double(), False)
        mine = weight @ F.unfold(x.double(), 3, stride=2, padding=1)[0]
        mine = mine + conv.bias.double()[:, None]
        after = mine.relu() if rectified else mine
        o = (head.weight[1].double() * after.flatten()).sum() + head.bias[1].double()
        relevance = (o * head.weight[1].double() * second[1]).view(3, -1)
        relevance = relevance * (mine > 0) if rectified else relevance
        columns = (weight * first).T @ relevance
        want = F.fold(columns[None], (5, 6), 3, stride=2, padding=1)
    torch.testing.assert_close(made.attributions.double(), want, rtol=1e-3, atol=1e-4)


def test_a_whole_network_and_lite0(lite0, photos):
    model = fv.Model(nets.seeded(VggLike), size=(16, 16), channels=3)
    made = fv.attribute(
        model, images(2, 3, (16, 16)), "class:1", method="pattern_attribution",
        data=images(24, 3, (16, 16), 1),
    )  # fmt: skip
    assert made.attributions.isfinite().all()
    assert (made.attributions != 0).any((1, 2, 3)).all()
    deep = fv.attribute(
        lite0, photos[:1], "layer:_blocks.3", method="pattern_attribution", data=photos
    )
    assert deep.attributions.isfinite().all()
    assert deep.attributions.any()


@pytest.mark.slow
def test_the_logits_of_lite0_lie_behind_a_dropout(lite0, photos):
    made = fv.attribute(
        lite0, photos[:1], "class:285", method="pattern_attribution", data=photos[:2]
    )
    assert made.attributions.isfinite().all()
    assert made.attributions.any()


class Squashed(Linear):
    def forward(self, x):
        return self.linear(torch.sigmoid(x.flatten(1)))


class Transposed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.ConvTranspose2d(1, 2, 2)

    def forward(self, x):
        return self.conv(x).mean((2, 3))


@pytest.mark.parametrize(
    ("net", "data", "message"),
    [
        (Linear, None, "fits patterns to images: give data"),
        (Linear, 3, "data must be a folder or images"),
        (Linear, "nowhere/", "nowhere"),
        (Linear, distracted()[:1], "patterns need images that differ"),
        (Squashed, distracted(), "there are no patterns for the operation sigmoid: use lrp"),
        (Transposed, distracted(), "there are no patterns for the operation conv_transpose2d"),
    ],
)
def test_what_has_no_pattern_is_one_line(net, data, message):
    model = fv.Model(nets.seeded(net), size=(1, 2), channels=1)
    with pytest.raises(fv.FeatvizError, match=message) as caught:
        fv.attribute(model, images(1), "channel:output:0", method="pattern_attribution", data=data)
    assert "\n" not in str(caught.value)
