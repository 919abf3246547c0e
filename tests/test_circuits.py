"""Expanded weights against plain convolutions, and a planted circuit."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import featviz as fv
from tests import nets

FAST = {"steps": 2, "transforms": "none", "quality": "fast"}


class Chain(nn.Module):
    """Two convolutions behind one, all ReLUs of which are closed on a gray image."""

    def __init__(self):
        super().__init__()
        self.low = nn.Conv2d(3, 4, 3, padding=1)
        self.middle = nn.Conv2d(4, 5, 3, padding=1)
        self.high = nn.Conv2d(5, 3, 3, padding=1)
        self.middle.bias.data.fill_(-100)

    def forward(self, x):
        return self.high(F.relu(self.middle(self.low(x)))).flatten(2).mean(2)


@pytest.fixture
def chain():
    return fv.Model(nets.seeded(Chain), size=11)


def test_expanded_weights_are_the_composed_kernels(chain):
    found = fv.recipes.expanded_weights(chain, "low", "high", [0, 2])
    net = chain.net
    # Independently: the kernel of the composition, from an impulse through the transposed layers.
    for row, unit in enumerate((0, 2)):
        impulse = torch.zeros(1, 3, 11, 11)
        impulse[0, unit, 5, 5] = 1
        between = F.conv_transpose2d(impulse, net.high.weight, padding=1)
        expected = F.conv_transpose2d(between, net.middle.weight, padding=1)
        torch.testing.assert_close(found[row], expected[0].detach(), rtol=1e-4, atol=1e-6)
    assert found.abs().amax() > 0  # though no ReLU is open


def test_a_planted_circuit_is_found(chain, tmp_path):
    """High 1 is excited by low 3 from the left, and inhibited by low 0 from above."""
    net = chain.net
    with torch.no_grad():
        for layer in (net.middle, net.high):
            layer.weight *= 0.01
        net.middle.weight[2, 3, 1, 0] = 2  # one column to the left
        net.middle.weight[4, 0, 0, 1] = 1  # one row up
        net.high.weight[1, 2, 1, 1] = 1
        net.high.weight[1, 4, 1, 1] = -1
    made = fv.recipes.circuit(chain, "low", "high", [1], k=2, **FAST)
    assert made.channels == [3, 0]
    assert made.strengths[0, 0] == pytest.approx(2, rel=0.1)
    assert made.strengths[0, 1] == pytest.approx(-1, rel=0.1)
    whole = fv.recipes.expanded_weights(chain, "low", "high", [1])[0]
    assert divmod(int(whole[3].argmax()), 11) == (5, 4)
    assert divmod(int(whole[0].argmin()), 11) == (4, 5)
    assert made.rendered.objectives == ["channel:high:1", "channel:low:3", "channel:low:0"]
    made.save(tmp_path / "circuit.png")


def test_a_circuit_of_blocks_has_the_skip_connection(lite0):
    weights = fv.recipes.expanded_weights(lite0, "_blocks.9", "_blocks.10", [5])[0]
    own = weights[5, 7, 7]
    assert own == weights[5].max()  # block 10 adds to block 9
    assert own > 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("high", "low", [0]), "does not depend on layer 'high'"),
        (("low", "high", []), "name at least one unit"),
        (("low", "high", [3]), "no channel 3|no unit 3|has 3 units"),
    ],
)
def test_circuits_that_do_not_exist(chain, arguments, message):
    with pytest.raises(fv.FeatvizError, match=message):
        fv.recipes.circuit(chain, *arguments, **FAST)
