"""Layer-wise relevance propagation: by hand, against zennit, and conserved."""

import importlib
import importlib.util
import sys
import types

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import featviz as fv
from featviz.attribution.case import Case
from featviz.attribution.propagation.composites import COMPOSITES
from featviz.attribution.propagation.lrp import lrp
from featviz.attribution.propagation.relevance_rules import RULES
from featviz.optim.evaluator import Evaluator
from tests import nets

CLASS = fv.class_logit(1)


def explained(net, x, rule, objective="channel:output:0", **given):
    """The relevance of x (1, C, *size) in float64, and the notes."""
    model = fv.Model(net.double(), size=tuple(x.shape[2:]), channels=x.shape[1], **given)
    with model.session():
        evaluator = Evaluator(model, fv.objective(objective), tuple(x.shape[2:]))
        case = Case(evaluator, x.double(), None, 0, {"rule": rule, "through": None})
        return lrp(case), case.notes


def linear(weight, bias):
    layer = nn.Linear(len(weight[0]), len(weight))
    layer.weight.data = torch.tensor(weight).double()
    layer.bias.data = torch.tensor(bias).double()
    return layer


#: x = (1, 1/2), h = relu(x1 - x2 + 1/2, 2 x1 + 2 x2 - 1) = (1, 2), o = h1 + 3 h2 + 1 = 8.
PAIR = torch.tensor([1.0, 0.5]).view(1, 1, 1, 2)


def one_relu():
    hidden = linear([[1.0, -1.0], [2.0, 2.0]], [0.5, -1.0])
    return nn.Sequential(nn.Flatten(), hidden, nn.ReLU(), linear([[1.0, 3.0]], [1.0]))


@pytest.mark.parametrize(
    ("rule", "pixels", "bias"),
    [
        # R(h) = (1, 6), the bias 1; h1 = 1 - 0.5 + 0.5 and h2 = 2 + 1 - 1.
        ("zero", (1 + 6, -0.5 + 3), 1 + 0.5 - 3),
        # o has 8 + 8, so that R(h) = (1/2, 3); h1 has 1 + 8 and h2 has 2 + 8.
        ("epsilon:8", (0.5 / 9 + 3 * 0.2, -0.25 / 9 + 3 * 0.1), 0.5 + 0.25 / 9 - 3 * 0.1),
        ("zplus", (1 / 1.5 + 6 * 2 / 3, 6 / 3), 1 + 0.5 / 1.5),
        # Negative: nothing of o, x2 of h1, the bias of h2.
        ("alpha_beta:2:1", (4 / 1.5 + 24 * 2 / 3, -2 + 24 / 3), 2 + 2 / 1.5 - 12),
        ("alpha_beta:1:0", (1 / 1.5 + 6 * 2 / 3, 6 / 3), 1 + 0.5 / 1.5),
        # o = 2 h1 + 6 h2 + 2 = 16, h1 = 2 - 0.5 + 1, h2 = 4 + 2 - 1.
        ("gamma:1", (2 / 2.5 + 6 * 4 / 5, -0.5 / 2.5 + 6 * 2 / 5), 1 + 1 / 2.5 - 6 / 5),
        ("flat", (4, 4), 0),
        ("w_square", (0.4 + 3.6, 0.4 + 3.6), 0),
        # Pixels in [0, 1]: x w - w⁻ is (1, 0.5) for h1 and (2, 1) for h2.
        ("first=box, zero", (1 / 1.5 + 6 * 2 / 3, 0.5 / 1.5 + 6 / 3), 1),
        ("first=flat, zero", (0.5 + 3, 0.5 + 3), 1),
        ("below:0.5=flat, w_square", (0.4 + 3.6, 0.4 + 3.6), 0),
    ],
)
def test_by_hand_on_a_network_with_one_relu(rule, pixels, bias):
    made, notes = explained(one_relu(), PAIR, rule)
    torch.testing.assert_close(made.flatten(), torch.tensor(pixels).double(), rtol=1e-5, atol=1e-6)
    assert notes["relevance"] == pytest.approx(8)
    assert notes["bias_relevance"] == pytest.approx(bias, rel=1e-5, abs=1e-5)


def shared_out(name, x, w, b, low, high, out):
    """R_j of one output, contribution by contribution."""
    z = sum(xi * wi for xi, wi in zip(x, w, strict=True)) + b
    pairs = [xi * wi for xi, wi in zip(x, w, strict=True)]
    if name in ("zero", "epsilon"):
        return [p / z * out for p in pairs]
    if name in ("zplus", "alpha_beta"):
        above = sum(p for p in (*pairs, b) if p > 0)
        below = sum(p for p in (*pairs, b) if p < 0)
        beta = 0.0 if name == "zplus" else 1.0
        return [
            (1 + beta) * max(p, 0) / above * out - (beta * min(p, 0) / below * out if beta else 0)
            for p in pairs
        ]
    if name == "gamma":
        scaled = [p + 0.25 * p * (p * z > 0) for p in (*pairs, b)]
        return [p / sum(scaled) * out for p in scaled[:-1]]
    if name == "box":
        rooted = [
            p - lo * max(wi, 0) - hi * min(wi, 0)
            for p, wi, lo, hi in zip(pairs, w, low, high, strict=True)
        ]
        return [p / sum(rooted) * out for p in rooted]
    parts = [1.0 if name == "flat" else wi * wi for wi in w]
    return [p / sum(parts) * out for p in parts]


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("seed", range(3))
def test_on_a_linear_network_with_inputs_of_both_signs(name, seed):
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand(6, generator=rng).double()
    w, b = torch.randn(3, 6, generator=rng).double(), torch.randn(3, generator=rng).double()
    net = nn.Sequential(nn.Flatten(), linear(w.tolist(), b.tolist()))
    goal = "channel:output:0 - 0.5*channel:output:2"
    # Two channels, normalized: the inputs and their bounds differ from the pixels.
    given = {"mean": (0.5, 0.25), "std": (0.5, 0.2)}
    mean, std = (torch.tensor(v).double().repeat_interleave(3) for v in given.values())
    seen, low, high = ((v - mean) / std for v in (x, torch.zeros(6), torch.ones(6)))
    outputs = w @ seen + b
    want = torch.zeros(6).double()
    for k, factor in ((0, 1.0), (2, -0.5)):
        numbers = (v.tolist() for v in (seen, w[k]))
        ends = (v.tolist() for v in (low, high))
        want += torch.tensor(
            shared_out(name, *numbers, b[k].item(), *ends, factor * outputs[k].item())
        )
    rule = f"first={name}" if name == "box" else name
    made, _ = explained(net, x.view(1, 2, 1, 3), rule, goal, **given)
    torch.testing.assert_close(made.flatten(), want, rtol=1e-4, atol=1e-4)


class VggLike(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(),
            nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.classifier = nn.Sequential(nn.Linear(32, 10), nn.ReLU(), nn.Linear(10, 4))

    def forward(self, x):
        return self.classifier(self.pool(self.features(x)).flatten(1))


class Block(nn.Module):
    def __init__(self, width, add):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.add, self.relu2 = add(), nn.ReLU()

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(self.add(y, x))


class ResNetLike(nn.Module):
    def __init__(self, add):
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU()
        self.blocks = nn.Sequential(Block(6, add), Block(6, add))
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(6, 4)
        for m in self.modules():
            if isinstance(m, nn.BatchNorm2d):
                for tensor, low in ((m.running_mean, -0.5), (m.running_var, 0.5), (m.weight, 0.5)):
                    nn.init.uniform_(tensor, low, low + 1)
                nn.init.uniform_(m.bias, -0.5, 0.5)

    def forward(self, x):
        x = self.blocks(self.relu(self.bn(self.conv(x))))
        return self.fc(self.pool(x).flatten(1))


class Plus(nn.Module):
    def forward(self, x, y):
        x += y
        return x


@pytest.fixture(scope="module")
def zennit():
    """Zennit, which imports torchvision for canonizers of its networks; they are not used."""
    if importlib.util.find_spec("zennit") is None:
        pytest.skip("needs zennit: pip install --no-deps zennit")
    names = {"vgg": ["VGG"], "resnet": ["ResNet", "BasicBlock", "Bottleneck"]}
    stub = {"torchvision": types.ModuleType("torchvision")}
    stub["torchvision.models"] = types.ModuleType("torchvision.models")
    for name, classes in names.items():
        module = types.ModuleType(f"torchvision.models.{name}")
        for kind in classes:
            setattr(module, kind, type(kind, (nn.Module,), {}))
        stub[module.__name__] = module
    stub["torchvision"].ops = types.SimpleNamespace(FrozenBatchNorm2d=nn.BatchNorm2d)
    missing = {n: m for n, m in stub.items() if n not in sys.modules}
    sys.modules.update(missing)
    try:
        parts = ("composites", "canonizers", "layer", "rules", "types")
        yield types.SimpleNamespace(**{p: importlib.import_module(f"zennit.{p}") for p in parts})
    finally:
        for name in missing:
            sys.modules.pop(name)


def composite(zennit, name, low, high):
    z, given = zennit.composites, {}
    merge = {"canonizers": [zennit.canonizers.SequentialMergeBatchNorm()]}
    kinds = {
        "epsilon_plus": z.EpsilonPlus, "epsilon_plus_flat": z.EpsilonPlusFlat,
        "epsilon_alpha2_beta1": z.EpsilonAlpha2Beta1,
        "epsilon_alpha2_beta1_flat": z.EpsilonAlpha2Beta1Flat,
        "epsilon_gamma_box": z.EpsilonGammaBox,
    }  # fmt: skip
    if name in kinds:
        given = {"low": low, "high": high} if name == "epsilon_gamma_box" else {}
        return kinds[name](**given, **merge)
    rules = {
        "zero": zennit.rules.Epsilon(epsilon=0), "epsilon:0.25": zennit.rules.Epsilon(epsilon=0.25),
        "gamma:0.5": zennit.rules.Gamma(gamma=0.5), "zplus": zennit.rules.ZPlus(),
        "alpha_beta:3:2": zennit.rules.AlphaBeta(alpha=3, beta=2), "flat": zennit.rules.Flat(),
        "w_square": zennit.rules.WSquare(zero_params=["bias"]),  # as in the paper
    }  # fmt: skip
    layers = [*z.layer_map_base(), (zennit.types.Linear, rules[name])]
    return z.LayerMapComposite(layers, **merge)


ORACLE = [
    "epsilon_plus", "epsilon_plus_flat", "epsilon_alpha2_beta1", "epsilon_alpha2_beta1_flat",
    "epsilon_gamma_box", "zero", "epsilon:0.25", "gamma:0.5", "zplus", "alpha_beta:3:2", "flat",
    "w_square",
]  # fmt: skip


@pytest.mark.parametrize("name", ORACLE)
@pytest.mark.parametrize("kind", ["vgg", "resnet"])
def test_equal_to_zennit(zennit, kind, name):
    ours = nets.seeded(VggLike if kind == "vgg" else lambda: ResNetLike(Plus)).double().eval()
    theirs = VggLike() if kind == "vgg" else ResNetLike(lambda: TheirSum(zennit))
    theirs.double().eval().load_state_dict(ours.state_dict())
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(3)).double()
    mean, std = torch.tensor([0.4, 0.5, 0.6]).double(), torch.tensor([0.2, 0.3, 0.25]).double()
    made, _ = explained(ours, x, name, CLASS, mean=mean.tolist(), std=std.tolist())
    # featviz declares the normalization in float32.
    mean, std = (v.view(1, 3, 1, 1).float().double() for v in (mean, std))
    seen = ((x - mean) / std).requires_grad_()
    low, high = -mean / std, (1 - mean) / std
    with composite(zennit, name, low, high).context(theirs) as network:
        output = network(seen)
        start = torch.zeros_like(output)
        start[:, 1] = output[:, 1].detach()
        (want,) = torch.autograd.grad(output, seen, start)
    assert want.abs().max() > 0
    assert (made - want).abs().max() < 1e-5 * want.abs().max()


class TheirSum(nn.Module):
    def __init__(self, zennit):
        super().__init__()
        self.sum = zennit.layer.Sum()

    def forward(self, x, y):
        return self.sum(torch.stack([x, y], dim=-1))


#: An output without negative contributions passes on alpha times its relevance.
NOT_CONSERVED = {"epsilon_alpha2_beta1", "epsilon_alpha2_beta1_flat"}


@pytest.mark.parametrize("rule", [name for name in COMPOSITES if name not in NOT_CONSERVED])
def test_conserved_on_photographs(lite0, photos, rule):
    made = fv.attribute(lite0, photos[:2], method="lrp", rule=rule)
    total = made.attributions.double().sum((1, 2, 3)) + torch.tensor(
        made.settings["bias_relevance"]
    )
    # An epsilon of 0.01 takes more than 1e-6.
    tolerance = 0.03 if "zero" in rule else 1e-3
    torch.testing.assert_close(total.float(), made.scores, rtol=tolerance, atol=0)


class Functional(nn.Module):
    """The operations of many networks, without modules: each of these is conserved."""

    def __init__(self, body):
        super().__init__()
        self.body, self.conv = body, nn.Conv2d(2, 4, 3)
        self.query, self.key = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = self.body(self, F.conv2d(F.pad(x, (0, 1, 0, 1)), self.conv.weight, self.conv.bias))
        return torch.stack([x.flatten(1)[:, i::3].mean(1) for i in range(3)], 1)


def attention(net, x):
    q, k, v = (t.flatten(2).transpose(1, 2) for t in (net.query(x), net.key(x), x))
    return torch.softmax(q @ k.transpose(1, 2) / 2, -1) @ v


def sdpa(net, x):
    q, k, v = (t.flatten(2).transpose(1, 2) for t in (net.query(x), net.key(x), x))
    return F.scaled_dot_product_attention(q, k, v)


def written(net, x):
    y = x.clone()
    y *= 2
    y.relu_()
    return y + x


CONSERVED = {
    "relu6": lambda net, x: F.relu6(x),
    "clipped in place": lambda net, x: F.hardtanh(x, 0, 6, inplace=True),
    "silu": lambda net, x: F.silu(x),
    "silu written out": lambda net, x: x * torch.sigmoid(x),
    "hardswish written out": lambda net, x: x * F.relu6(x + 3) / 6,
    "gelu, leaky": lambda net, x: F.gelu(x) + F.leaky_relu(x),
    "in place": written,
    "squeeze and excite": lambda net, x: x * torch.sigmoid(net.key(x.mean((2, 3), keepdim=True))),
    "two signals": lambda net, x: net.key(x) * x,
    "square": lambda net, x: x * x,
    "residual": lambda net, x: x + net.key(F.relu(x)) - 0.5 * x,
    "max pool": lambda net, x: F.max_pool2d(x, 2),
    "max": lambda net, x: x.max(1, keepdim=True)[0] + x.amax(1, keepdim=True),
    "average pool": lambda net, x: F.avg_pool2d(x, 2) + F.adaptive_avg_pool2d(x, 1),
    "mean": lambda net, x: x.mean((2, 3)),
    "branches": lambda net, x: torch.cat([x[:, 2:], *x.chunk(2, 1)], 1).permute(0, 2, 3, 1),
    "unbound": lambda net, x: torch.stack(x.unbind(1), 1).movedim(1, -1).roll(1, 1),
    "upsampled": lambda net, x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "nearest": lambda net, x: F.interpolate(x, scale_factor=2),
    "selected": lambda net, x: torch.where(x > 0, x, 0.1 * x),
    "layer norm": lambda net, x: F.layer_norm(x, x.shape[1:]),
    "group norm": lambda net, x: F.group_norm(x, 2),
    "instance norm": lambda net, x: F.instance_norm(x),
    "divided by a norm": lambda net, x: x / x.norm(dim=1, keepdim=True),
    "attention": attention,
    "fused attention": sdpa,
    "dropout": lambda net, x: F.dropout(x, training=net.training),
    "einsum": lambda net, x: torch.einsum("bchw,dc->bdhw", x, net.key.weight[:, :, 0, 0]),
}


@pytest.mark.parametrize("name", CONSERVED)
def test_operations_conserve_relevance(name):
    net = nets.seeded(lambda: Functional(CONSERVED[name]))
    x = torch.rand(1, 2, 6, 7, generator=torch.Generator().manual_seed(1))
    made, notes = explained(net, x, "epsilon:1e-12", "channel:output:0 - 2*channel:output:2")
    total = float(made.sum()) + notes["bias_relevance"]
    assert abs(notes["relevance"]) > 1e-4
    assert total == pytest.approx(notes["relevance"], rel=2e-3)


@pytest.mark.parametrize("name", ["layer norm", "group norm", "instance norm", "rms norm"])
def test_normalization_is_linear_with_its_deviation_held(name):
    rng = torch.Generator().manual_seed(2)
    x = torch.rand(1, 4, 3, 3, generator=rng).double()
    gain, shift = torch.rand(2, 4, generator=rng).double() + 0.5
    spread = gain.view(4, 1, 1)

    def run(x):
        if name == "layer norm":
            moved = F.layer_norm(x.movedim(1, -1), (4,), gain, shift)
            return moved.movedim(-1, 1)
        if name == "group norm":
            return F.group_norm(x, 2, gain, shift)
        if name == "instance norm":
            return F.instance_norm(x, weight=gain, bias=shift)
        return F.rms_norm(x.movedim(1, -1), (4,), gain, 1e-5).movedim(-1, 1)

    grouped = {"layer norm": x, "group norm": x.view(1, 2, 2, 3, 3), "instance norm": x}.get(
        name, x
    )
    axes = {"layer norm": 1, "group norm": (2, 3, 4), "instance norm": (2, 3)}.get(name, 1)
    mean = grouped.mean(axes, keepdim=True)
    deviation = (
        (grouped - (0 if name == "rms norm" else mean)).square().mean(axes, keepdim=True) + 1e-5
    ).sqrt()
    mean, deviation = (v.expand_as(grouped).reshape(x.shape) for v in (mean, deviation))
    leaf = x.clone().requires_grad_()
    inner = leaf.view_as(grouped)
    centre = (
        0
        if name == "rms norm"
        else inner.mean(axes, keepdim=True).expand_as(grouped).reshape(x.shape)
    )
    held = (leaf - centre) / deviation * spread
    output = run(x)
    (slopes,) = torch.autograd.grad(held, leaf, torch.ones_like(held))  # R = z, so that R / z = 1

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return run(x).flatten(1)

    goal = fv.direction("output", torch.ones(36).numpy())
    made, notes = explained(Net(), x, "epsilon", goal)
    assert notes["relevance"] == pytest.approx(float(output.sum()))
    torch.testing.assert_close(made, x * slopes, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("sort", lambda net, x: x.sort(1)[0], "no rule for the operation sort"),
        ("exp", lambda net, x: x.exp(), "no rule for the operation exp"),
        ("detached", lambda net, x: x + net.key(x).detach(), "no rule for the operation detach"),
        ("both", lambda net, x: x / (1 + x.abs()), None),
        ("over", lambda net, x: 1 / x, "no rule for the operation (reciprocal|div)"),
        ("dropout", lambda net, x: F.dropout(x, 0.5), "cannot follow the network"),
        ("batch", lambda net, x: F.batch_norm(x, None, None, training=True), "running statistics"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_what_has_no_rule_is_named(name, body, message):
    net = nets.seeded(lambda: Functional(body))
    model = fv.Model(net, size=(6, 7), channels=2)
    x = torch.rand(1, 2, 6, 7, generator=torch.Generator().manual_seed(1))
    if message is None:
        assert fv.attribute(model, x, "class:1", method="lrp").attributions.any()
        return
    with pytest.raises(fv.FeatvizError, match=message) as caught:
        fv.attribute(model, x, "class:1", method="lrp")
    assert "\n" not in str(caught.value)


class Views(nn.Module):
    """Changes a tensor of which there is another view: what it returns is not in the operations."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)

    def forward(self, x):
        y = self.conv(x)
        view = y.flatten(1)
        y *= 2
        return view


class Forked(nn.Module):
    """Its operations depend on the image."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(16, 2), nn.Linear(16, 2)

    def forward(self, x):
        return (self.one if x.mean() > 0.5 else self.two)(x.flatten(1))


def test_views_of_changed_tensors_are_refused():
    model = fv.Model(nets.seeded(Views), size=(4, 4), channels=1)
    with pytest.raises(fv.FeatvizError, match="cannot follow the network"):
        fv.attribute(model, torch.rand(1, 1, 4, 4), "channel:output:0", method="lrp")


def test_operations_that_depend_on_the_image_are_refused():
    model = fv.Model(nets.seeded(Forked), size=(4, 4), channels=1)
    with pytest.raises(fv.FeatvizError, match="which operations run depends on the image's values"):
        fv.attribute(model, torch.rand(1, 1, 4, 4), "class:1", method="lrp")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("epsilonn", "no rule 'epsilonn'; did you mean 'epsilon'"),
        ("epsilon_plus_flt", "did you mean 'epsilon_plus_flat'"),
        ("firs=flat", "no place 'firs' for a rule; did you mean 'first'"),
        ("below=flat", r"only below takes a fraction of the depth, below:0\.5=flat"),
        ("first:0.5=flat", "only below takes a fraction"),
        ("below:2=flat", "a fraction of the depth is between 0 and 1"),
        ("gamma:-1", "must not be negative"),
        ("gamma:x", "parameters must be numbers"),
        ("gamma:1:2", "takes 1 parameter"),
        ("alpha_beta:2:2", "alpha - beta must be 1"),
        ("box", "the rule box needs pixels as inputs: use it for the first layer"),
        ("", "no rule ''"),
        (3, "rule must be a text, not int"),
    ],
)
def test_bad_rules_are_one_line(rule, message):
    x = torch.rand(1, 2, 8, 8)
    with pytest.raises(fv.FeatvizError, match=message) as caught:
        fv.attribute(nets.tiny(), x, "class:1", method="lrp", rule=rule)
    assert "\n" not in str(caught.value)


def test_box_needs_pixels_and_half_precision_is_refused():
    net = nets.seeded(lambda: nn.Sequential(nn.Tanh(), nn.Conv2d(1, 2, 3), nn.Flatten()))
    model, x = fv.Model(net, size=(4, 4), channels=1), torch.rand(1, 1, 4, 4)
    with pytest.raises(fv.FeatvizError, match="but tanh runs before the first layer"):
        fv.attribute(model, x, "channel:output:0", method="lrp", rule="first=box")
    with pytest.raises(fv.FeatvizError, match="precision fp32"):
        fv.attribute(model, x, "channel:output:0", method="lrp", precision="bf16")


def test_objectives_that_read_the_image_and_inner_layers():
    model, x = nets.tiny(), torch.rand(1, 2, 8, 8, generator=torch.Generator().manual_seed(4))
    part = {
        text: fv.attribute(model, x, text, method="lrp").attributions
        for text in ("channel:first:1", "class:2", "channel:input:1", "-1*l1")
    }
    together = fv.attribute(
        model, x, "channel:first:1 - 0.5*class:2 + channel:input:1 - l1", method="lrp"
    ).attributions
    want = part["channel:first:1"] - 0.5 * part["class:2"] + part["channel:input:1"] + part["-1*l1"]
    torch.testing.assert_close(together, want, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(part["channel:input:1"][:, 1], x[:, 1] / 64)
    assert not part["channel:input:1"][:, 0].any()


def test_transformers_are_conserved():
    model = nets.tokens()
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    made = fv.attribute(model, x, "class:3", method="lrp", rule="epsilon")
    assert made.attributions.isfinite().all()
    assert (made.pixels.abs() > 0).all()


def test_deep_taylor_by_hand():
    # R(o) = 8 goes to h = (1, 2) by 1 and 3 * 2; then x w - w⁻ is (1, 0.5) and (2, 1) in [0, 1].
    model = fv.Model(one_relu().float(), size=(1, 2), channels=1)
    made = fv.attribute(model, PAIR, "channel:output:0", method="deep_taylor")
    want = torch.tensor([8 / 7 * (1 / 1.5 + 6 * 2 / 3), 8 / 7 * (0.5 / 1.5 + 6 / 3)])
    torch.testing.assert_close(made.attributions.flatten(), want, rtol=1e-4, atol=0)
    assert made.settings["relevance"] == pytest.approx(8)


class Signed(nn.Module):
    """Adds what is negative: x and y = x - 1, whose sum is that of the positive parts alone."""

    def __init__(self, subtracts):
        super().__init__()
        self.subtracts = subtracts
        self.first, self.second = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)
        for conv, bias in ((self.first, 0.0), (self.second, -1.0)):
            nn.init.ones_(conv.weight)
            nn.init.constant_(conv.bias, bias)

    def forward(self, x):
        x, y = self.first(x), self.second(x)
        return (x - y if self.subtracts else x + y).flatten(1)


@pytest.mark.parametrize("subtracts", [False, True])
def test_deep_taylor_shares_out_sums_by_positive_contributions(subtracts):
    model = fv.Model(Signed(subtracts), size=(1, 1), channels=1)
    x = torch.full((1, 1, 1, 1), 0.75)
    made = fv.attribute(model, x, "channel:output:0", method="deep_taylor")
    # All of x + y = 0.5 goes to x, and of x - y = 1 to x by 0.75 and to -y by 0.25.
    assert made.attributions.item() == pytest.approx(1.0 if subtracts else 0.5, rel=1e-4)


def test_deep_taylor_is_positive_and_says_what_it_leaves_out(lite0, photos):
    made = fv.attribute(lite0, photos[:1], method="deep_taylor")
    assert (made.attributions >= 0).all()
    assert 0 < made.attributions.sum() <= made.scores[0] * 1.001
    x = torch.rand(1, 2, 8, 8, generator=torch.Generator().manual_seed(4))
    model = nets.tiny()
    values = model(x)[0].tolist()
    best = values.index(max(values))
    low = f"-1*class:{best}" if values[best] > 0 else f"class:{best}"
    with pytest.raises(fv.FeatvizError, match=r"decomposes positive values.*use lrp"):
        fv.attribute(model, x, low, method="deep_taylor")
    with pytest.warns(fv.FeatvizWarning, match="leaves out the negative one"):
        fv.attribute(model, x, "channel:second:0 - channel:second:1", method="deep_taylor")
    with pytest.raises(fv.FeatvizError, match="no rule for the operation bmm"):
        fv.attribute(nets.tokens(), torch.rand(1, 3, 16, 16), "layer:output", method="deep_taylor")


@pytest.mark.parametrize("rule", ["zero", "epsilon_plus_flat", "epsilon_gamma_box"])
def test_what_flows_through_the_units_of_a_layer_adds_up(rule):
    model = fv.Model(nets.seeded(VggLike), size=(16, 16), channels=3)
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(6))
    given = {"method": "lrp", "rule": rule}
    whole = fv.attribute(model, x, "class:2", **given)
    parts = [
        fv.attribute(model, x, "class:2", through=f"channel:features.5:{i}", **given)
        for i in range(8)
    ]
    total = torch.stack([part.attributions for part in parts]).sum(0)
    torch.testing.assert_close(total, whole.attributions, rtol=1e-3, atol=1e-5)
    together = fv.channel("features.5", 1) + fv.channel("features.5", 4)
    both = fv.attribute(model, x, "class:2", through=together, **given)
    torch.testing.assert_close(
        both.attributions, parts[1].attributions + parts[4].attributions, rtol=1e-3, atol=1e-5
    )
    assert both.record["through"] == str(together)
    assert both.settings["through_relevance"] == pytest.approx(
        sum(parts[i].settings["through_relevance"] for i in (1, 4)), rel=1e-4, abs=1e-6
    )


def test_through_a_hidden_unit_by_hand():
    # R(h2) = 6 of o = 8, and h2 = 2 + 1 - 1 = 2: x has 6 and 3.
    model = fv.Model(one_relu().float(), size=(1, 2), channels=1)
    for through in ("channel:2:1", fv.neuron("2", 1)):
        made = fv.attribute(
            model, PAIR, "channel:output:0", method="lrp", rule="zero", through=through
        )
        want = torch.tensor([6.0, 3.0])
        torch.testing.assert_close(made.attributions.flatten(), want, rtol=1e-5, atol=1e-5)
        assert made.settings["through_relevance"] == pytest.approx(6)


class Shortcut(nn.Module):
    """Half of the value goes around the layer."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.constant_(self.conv.weight, 2.0)

    def forward(self, x):
        return (x + self.conv(x)).flatten(1)


def test_relevance_around_the_layer_is_left_out():
    model, x = fv.Model(Shortcut(), size=(1, 1), channels=1), torch.full((1, 1, 1, 1), 0.5)
    made = fv.attribute(
        model, x, "channel:output:0", method="lrp", rule="zero", through="channel:conv:0"
    )
    assert made.attributions.item() == pytest.approx(1, rel=1e-4)  # of 1.5


@pytest.mark.parametrize(
    ("through", "message"),
    [
        ("layer:first", "through takes channels and neurons of one layer, and sums of them, not"),
        ("channel:first:0 + channel:second:0", "of one layer"),
        ("2*channel:first:0", "of one layer"),
        ("channel:first:0 - channel:first:1", "of one layer"),
        (fv.channel("first", 0, reduce="max"), "of one layer"),
        ("channel:first:9", "no channel 9"),
        ("channel:frst:0", "no layer 'frst'"),
        ("channel:head:0", "it does not depend on that layer"),
        (3.5, "expected an Objective or its text, such as class:285, not float"),
    ],
)
def test_bad_units_are_one_line(through, message):
    x = torch.rand(1, 2, 8, 8)
    with pytest.raises(fv.FeatvizError, match=message) as caught:
        fv.attribute(nets.tiny(), x, "channel:second:1", method="lrp", through=through)
    assert "\n" not in str(caught.value)
