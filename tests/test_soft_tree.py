"""A soft decision tree that imitates a network whose decisions are known."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import featviz as fv
from featviz.attribution.soft_tree import SoftTree, _loss, fit_soft_tree
from featviz.errors import FeatvizError
from tests import nets


class TwoQuestions(nn.Module):
    """Four classes: is the top left corner bright, and is the bottom right one?"""

    def forward(self, x):
        a, b = (10 * (part.mean((1, 2, 3)) - 0.5) for part in (x[..., :3, :3], x[..., -3:, -3:]))
        return torch.stack([-a - b, -a + b, a - b, a + b], 1) * 3


def images(count, seed):
    """Patches of 3 px, each of one brightness, on 6 px by 9."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 2, 3, generator=rng)
    return F.interpolate(coarse, scale_factor=3)


@pytest.fixture(scope="module")
def fitted():
    model = fv.Model(TwoQuestions(), size=(6, 9), channels=1, mean=0.0, std=1.0)
    return fit_soft_tree(model, images(600, 0), depth=2, steps=300)


def test_the_tree_asks_the_two_questions(fitted):
    assert fitted.agreement > 0.9
    tree = fitted.tree
    share = tree.filters.abs().sum(1)
    corners = share[:, :3, :3].sum((1, 2)) + share[:, -3:, -3:].sum((1, 2))
    assert (corners / share.sum((1, 2)) > 0.6).all()  # a third of the image
    leaves = tree.leaves.argmax(1).tolist()
    assert sorted(leaves) == [0, 1, 2, 3]
    # The two nodes below the root ask the other question.
    first = share[:, :3, :3].sum((1, 2)) > share[:, -3:, -3:].sum((1, 2))
    assert first[1] == first[2] != first[0]


def test_the_path_of_an_image_leads_to_its_leaf(fitted):
    tree = fitted.tree
    for image in images(5, 3):
        (root, right), (node, further) = tree.path(image)
        assert (root, node) == (0, 2 if right > 0.5 else 1)
        leaf = 2 * node + (2 if further > 0.5 else 1) - 3
        assert torch.equal(tree(image[None])[0], tree.leaves[leaf].softmax(0))


def test_arrivals_and_loss_by_hand():
    tree = SoftTree((1, 2), 3, 2)
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in tree.parameters():
            p.copy_(torch.randn(p.shape, generator=rng))
    x = torch.rand(4, 1, 2, generator=rng)
    y = torch.rand(4, 3, generator=rng).softmax(1)
    loss = 0.0
    arrived = torch.zeros(4, 7)
    for i in range(4):
        go = [
            torch.sigmoid(((x[i] - 0.5) * tree.filters[n]).sum() + tree.offsets[n])
            for n in range(3)
        ]
        arrived[i] = torch.stack([
            torch.tensor(1.0), 1 - go[0], go[0], (1 - go[0]) * (1 - go[1]), (1 - go[0]) * go[1],
            go[0] * (1 - go[2]), go[0] * go[2],
        ]).detach()  # fmt: skip
        for leaf in range(4):
            q = tree.leaves[leaf].log_softmax(0)
            loss = loss - arrived[i, 3 + leaf] * (y[i] * q).sum() / 4
    torch.testing.assert_close(tree.arrivals(x), arrived)
    right = torch.stack([arrived[:, 2], arrived[:, 4], arrived[:, 6]], 1).sum(0)
    share = right / arrived[:, :3].sum(0)
    weight = torch.tensor([1.0, 0.5, 0.5])
    loss = loss - (0.1 * weight * 0.5 * (share.log() + (1 - share).log())).sum()
    torch.testing.assert_close(_loss(tree, x, y), loss)


def test_the_seed_repeats_and_the_model_is_left_alone():
    model = fv.Model(nets.seeded(lambda: nets.Small(1)), size=8, channels=1, mean=0.5, std=0.25)
    x = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    state = torch.get_rng_state()
    first, again = (fit_soft_tree(model, x, depth=2, steps=3, seed=1) for _ in "ab")
    assert torch.equal(first.tree.filters, again.tree.filters)
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.requires_grad for p in model.net.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.rand(4, 1, 8, 8)}, "at least 10 images"),
        ({"depth": 11}, "2047 filters: at most 10"),
        ({"steps": 0}, "steps must be"),
    ],
)
def test_bad_arguments_are_one_line(change, message):
    given = {"images": torch.rand(12, 1, 8, 8), "steps": 1, **change}
    with pytest.raises(FeatvizError, match=message):
        fit_soft_tree(nets.tiny(channels=1), **given)
