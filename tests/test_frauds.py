"""Networks that were fine-tuned so that a unit's picture lies: the lie works, and is found out."""

import pytest
import torch

import featviz as fv
from featviz.checks.randomization import correlation
from tests import frauds

pytestmark = pytest.mark.slow

#: The unit whose picture is made to lie.
UNIT = 5
#: The units of the honest network that are checked, UNIT among them; the benchmark takes all 32.
HONEST = [*range(2, frauds.CLASSES, 3)]


@pytest.fixture(scope="module")
def original() -> torch.nn.Module:
    return frauds.honest(seed=0)


@pytest.fixture(scope="module")
def judges() -> list[fv.Model]:
    return [frauds.wrapped(frauds.honest(1, frauds.Texture))]


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Gratings that no network was trained on."""
    return frauds.gratings(12, seed=99_999)[0]


@pytest.fixture(scope="module")
def honest(original, judges, images) -> fv.Checks:
    return checked(original, judges, images, HONEST)


def checked(net, judges, images, units) -> fv.Checks:
    goals = [f"class:{unit}" for unit in units]
    return fv.check(frauds.wrapped(net), goals, images=images, judges=judges, **frauds.LOOK)


def answers(net, images) -> torch.Tensor:
    with torch.no_grad():
        return net(frauds.normalized(images))


def test_a_fraud_is_found_out_and_honest_units_pass(original, judges, images, honest):
    """The judges are small, too, and mistrust a fifth of the honest units: see docs/check.md."""
    for check in honest:
        for name in ("held_out", "randomized", "path", "seeds"):
            assert check[name].verdict == "ok", check
    fair = honest[HONEST.index(UNIT)]
    assert fair.verdict == "ok"
    expected = {
        frauds.slingshot: {"judges", "path"},
        frauds.proxpulse: {"judges"},
    }
    target = frauds.target()
    for fraud, doubts in expected.items():
        net = fraud(original, UNIT, target)
        (found,) = checked(net, judges, images, [UNIT])
        # Whoever looks at images sees the unit as it was.
        before, after = answers(original, images), answers(net, images)
        assert (before.argmax(1) == after.argmax(1)).float().mean() > 0.98
        assert torch.stack([before[:, UNIT], after[:, UNIT]]).corrcoef()[0, 1] > 0.98
        top = [{image.source for image in c.company["top"]} for c in (fair, found)]
        assert len(top[0] & top[1]) >= 6
        # Whoever looks at the picture sees the target.
        assert correlation(fair.picture, target) < 0.1
        assert correlation(found.picture, target) > 0.8
        # And whoever checks it is told.
        assert doubts <= {c.name for c in found.criteria if c.verdict == "doubtful"}
        assert found["path"].value < min(check["path"].value for check in honest)
