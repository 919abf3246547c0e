"""Attacks against closed forms, other libraries and what 8 bits hold."""

import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import featviz as fv
from featviz.attacks.restarts import SEED_STRIDE, AttackRun
from featviz.attacks.update_rules import Apgd, Steepest, steepest
from featviz.cli.main import main
from featviz.errors import FeatvizError, UnitError
from featviz.io.images import read_settings
from featviz.optim import tracing
from featviz.optim.loop import optimize
from featviz.param import Bounded
from featviz.param.balls import length, project, quantize, sample
from tests import nets

EIGHT = (torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 255).round() / 255
PLAIN = {"random_start": False, "early_exit": False, "eight_bit": False}


@pytest.fixture
def model() -> fv.Model:
    return nets.tiny(channels=3)


def loss_of(model, images, classes, of=fv.log_probability):
    rows = zip(images, classes.tolist(), strict=True)
    return torch.stack([-of(c)(model, image[None]).detach()[0] for image, c in rows])


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("eps", [1 / 255, 4 / 255, 0.3, 2.0])
def test_the_ball_holds_before_and_after_rounding(norm, eps):
    generator = torch.Generator().manual_seed(1)
    delta = torch.randn(5, 3, 6, 7, generator=generator) * torch.logspace(-4, 1, 5).view(
        -1, 1, 1, 1
    )
    inside = project(delta, norm, eps)
    assert (length(inside.double(), norm) <= eps * (1 + 1e-5)).all()
    again = project(inside, norm, eps)
    torch.testing.assert_close(again, inside, atol=1e-6, rtol=1e-5)
    levels = quantize(inside, norm, eps)
    assert torch.equal(levels, levels.round())
    assert (length(levels, norm) <= eps * 255 + 1e-4).all()
    assert ((levels * inside) >= 0).all()  # never to the other side
    assert levels[-1].abs().sum() > 0  # what fills the ball does not vanish
    radii = torch.tensor([eps, eps / 2, eps / 4, eps, eps])
    each = torch.cat([project(d[None], norm, float(r)) for d, r in zip(delta, radii, strict=True)])
    torch.testing.assert_close(project(delta, norm, radii), each)


@pytest.mark.parametrize(("norm", "share"), [("linf", 1), ("l2", 1), ("l1", 1)])
def test_random_starts_fill_the_ball_and_no_more(norm, share):
    points = torch.stack(
        [sample(torch.Generator().manual_seed(i), norm, (2, 3)) for i in range(4000)]
    )
    size = length(points, norm)
    assert (size <= share).all()
    # Uniform in a ball of n dimensions: P(norm < r) = r^n.
    np.testing.assert_allclose((size < 0.9).float().mean(), 0.9**6, atol=0.03)
    assert points.mean(0).abs().max() < 0.05


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("eps", [1 / 255, 4 / 255, 0.4])
def test_results_are_within_eps_as_files(model, norm, eps, tmp_path):
    result = fv.attack(model, EIGHT, norm=norm, eps=eps, steps=5, early_exit=False)
    assert result.eight_bit
    assert (result.norm <= result.eps + 1e-12).all()
    assert torch.equal(result.originals, EIGHT)
    result.save(tmp_path / "out.png", separate=True)
    for i, image in enumerate(result.images):
        with Image.open(tmp_path / f"out.{i}.png") as file:
            read = torch.from_numpy(np.array(file)).movedim(-1, 0).float() / 255
        assert torch.equal(read, image)
        predicted = int(model(read[None]).argmax())
        assert bool(result.success[i]) == (predicted != int(result.before[i]))
        assert predicted == int(result.after[i])
    record = read_settings(tmp_path / "out.png")
    assert record["verb"] == "attack"
    assert record["success"] == result.success.tolist()


def test_originals_are_rounded_only_where_results_are(model):
    images = EIGHT + 0.3 / 255 * (EIGHT < 0.5)
    eight, exact = (fv.attack(model, images, steps=2, eight_bit=e) for e in (True, False))
    assert torch.equal(eight.originals, EIGHT)
    assert torch.equal(exact.originals, images)
    for result in (eight, exact):  # from the images that were given, not from rounded ones
        change = (result.images.double() - images.double()).abs().flatten(1).amax(1)
        torch.testing.assert_close(result.norm, change, rtol=0, atol=1e-9)
    assert (eight.norm * 255 - (eight.norm * 255).round()).abs().max() > 0.2
    small = fv.attack(model, images, eps="0.5/255", steps=2)
    assert not small.eight_bit
    with pytest.raises(FeatvizError, match="8 bits cannot represent"):
        small.save("never.png")
    with pytest.raises(FeatvizError, match="at least 1/255"):
        fv.attack(model, images, eps=0.5 / 255, eight_bit=True)


@pytest.mark.parametrize(("size", "channels"), [((12,), 1), ((4, 4, 4), 2), ((6, 6), 5)])
def test_what_no_image_file_holds_is_not_rounded(size, channels):
    net = lambda x: x.flatten(2).mean(2) @ torch.eye(channels, 2)  # noqa: E731
    model = fv.Model(net, size=size, channels=channels)
    images = torch.rand(2, channels, *size, generator=torch.Generator().manual_seed(0))
    result = fv.attack(model, images, to=0, steps=2, eps=4 / 255)
    assert not result.eight_bit
    assert torch.equal(result.originals, images)
    assert fv.attack(model, images, to=0, steps=1, eight_bit=True).eight_bit


def test_fgsm_is_its_closed_form(model):
    labels = model(EIGHT).argmax(1)
    shown = EIGHT.clone().requires_grad_()
    loss = nn.functional.cross_entropy(model(shown), labels, reduction="sum")
    (slope,) = torch.autograd.grad(loss, shown)
    for eps in (4 / 255, 0.1):
        result = fv.attack(model, EIGHT, method="fgsm", eps=eps, **PLAIN)
        wanted = (EIGHT + eps * slope.sign()).clamp(0, 1)
        torch.testing.assert_close(result.images, wanted, atol=1e-6, rtol=0)
    rounded = fv.attack(model, EIGHT, method="fgsm", eps=4 / 255, early_exit=False)
    wanted = (EIGHT + 4 / 255 * slope.sign()).clamp(0, 1)
    torch.testing.assert_close(rounded.images, wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("norm", "order"), [("linf", np.inf), ("l2", 2), ("l1", 1)])
def test_steps_have_the_length_they_should(norm, order):
    gradient = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    gradient[3] = 0
    step = steepest(gradient, norm)
    sizes = np.linalg.norm(step.flatten(1).numpy(), order, axis=1)
    np.testing.assert_allclose(sizes, [1, 1, 1, 0], atol=1e-5)
    assert (step * gradient >= 0).all()
    leaf = torch.zeros(4, 3, 8, 8, requires_grad=True)
    rule = Steepest([leaf], torch.tensor([0.1, 0.2, 0.3, 0.4]), norm)

    def closure():
        leaf.grad = -gradient

    rule.step(closure)
    np.testing.assert_allclose(
        np.linalg.norm(leaf.detach().flatten(1).numpy(), order, axis=1),
        [0.1, 0.2, 0.3, 0],
        atol=1e-5,
    )


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_success_rises_with_eps(model, norm):
    scale = {"linf": 1, "l2": 8, "l1": 100}[norm]
    fooled = [
        int(fv.attack(model, EIGHT, norm=norm, eps=e * scale, steps=10).success.sum())
        for e in (1 / 255, 0.03, 0.1, 0.3)
    ]
    assert fooled == sorted(fooled)
    assert fooled[0] < fooled[-1]


@pytest.mark.parametrize("loss", ["ce", "margin", "dlr"])
def test_away_and_to(loss):
    model = fv.Model(nets.seeded(nets.Tokens), mean=0.5, std=0.5, size=16, channels=3)
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    given = {"eps": 0.3, "steps": 20, "loss": loss}
    result = fv.attack(model, images, **given)
    assert result.success.all()
    assert (result.before != result.after).all()
    to = int(result.after[0])
    towards = fv.attack(model, images, to=to, **given)
    assert (towards.after[towards.success] == to).all()
    assert towards.success.any()
    both = fv.attack(model, images[:1], away=int(result.before[0]), to=fv.class_logit(to), **given)
    assert both.after[0] == to
    each = fv.attack(model, images, away=result.before.tolist(), **given)
    assert torch.equal(each.images, result.images)


def test_any_objective_is_raised_or_lowered(model):
    unit = fv.channel("second", 2)
    raised = fv.attack(model, EIGHT, to=unit, eps=0.05, steps=5)
    lowered = fv.attack(model, EIGHT, away=str(unit), eps=0.05, steps=5)
    start = unit(model, EIGHT).detach()
    assert raised.success.all()
    assert lowered.success.all()
    assert (unit(model, raised.images) > start).all()
    assert (unit(model, lowered.images) < start).all()
    assert raised.objectives[0] == str(unit)
    assert lowered.objectives[0] == f"-{unit}"


def test_early_exit_freezes_a_picture_and_spares_its_passes(model):
    given = {"eps": 0.1, "steps": 12, "random_start": False, "eight_bit": False}
    result = fv.attack(model, EIGHT, **given)
    assert result.success.any()
    for i, used in enumerate(result.steps_used.tolist()):
        if not used:
            continue
        rate = 2.5 * 0.1 / 12
        there = {"random_start": False, "eight_bit": False, "eps": 0.1, "early_exit": False}
        alone = fv.attack(model, EIGHT[i : i + 1], steps=used, step_size=rate, **there)
        assert torch.equal(alone.images[0], result.images[i])
        before = fv.attack(model, EIGHT[i : i + 1], steps=max(used - 1, 1), step_size=rate, **there)
        assert used == 1 or not (result.success[i] and before.success[0])
    calls = []
    model.net.register_forward_hook(lambda *_: calls.append(1))
    fv.attack(model, EIGHT, **given)
    early = len(calls)
    calls.clear()
    fv.attack(model, EIGHT, early_exit=False, **given)
    assert early < len(calls)


def test_what_is_wrong_already_stays_as_it_is(model):
    wrong = (model(EIGHT).argmax(1) + 1) % 3
    result = fv.attack(model, EIGHT, away=wrong.tolist(), steps=3)
    assert result.success.all()
    assert torch.equal(result.images, EIGHT)
    assert (result.steps_used == 0).all()
    assert (result.norm == 0).all()


def test_restarts_only_help(model):
    given = {"eps": 0.03, "steps": 3, "early_exit": False}
    one, three = (fv.attack(model, EIGHT, restarts=n, **given) for n in (1, 3))
    assert (three.success >= one.success).all()
    assert (three.scores >= one.scores - 1e-6)[~three.success].all()
    assert three.seeds == one.seeds


@pytest.mark.parametrize("method", ["pgd", "apgd", "mifgsm"])
def test_a_picture_depends_on_its_own_seed_only(model, method):
    given = {"method": method, "eps": 0.05, "steps": 6, "transforms": "noise:0.02", "eot": 2}
    several = fv.attack(model, EIGHT, seed=7, **given)
    again = fv.attack(model, EIGHT, seed=7, batch_size=2, **given)
    alone = fv.attack(model, EIGHT[2:3], seed=9, **given)
    other = fv.attack(model, EIGHT[2:3], seed=10, **given)
    assert torch.equal(several.images, again.images)
    assert torch.equal(several.images[2], alone.images[0])
    assert method == "mifgsm" or not torch.equal(alone.images, other.images)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_apgd_reaches_at_least_the_loss_of_pgd(model, norm, loss):
    given = {"norm": norm, "eps": 0.03 if norm == "linf" else 0.4, "steps": 40, "loss": loss}
    given |= {"early_exit": False, "eight_bit": False}
    pgd, apgd = (fv.attack(model, EIGHT, method=m, **given) for m in ("pgd", "apgd"))
    assert (apgd.scores >= pgd.scores - 1e-4).all()
    assert (apgd.scores >= apgd.history.amax(0) - 1e-5).all()  # the best, not the last


def test_apgd_halves_its_step_where_it_oscillates():
    leaf = torch.full((2, 1), 0.3, requires_grad=True)
    rule = Apgd([leaf], 0.5, "linf", steps=50, project=lambda x: x.clamp(-5, 5))

    def closure():  # one sample has a peak at 0, the other climbs without end
        rule.scores = torch.stack([-(leaf[0, 0].detach() ** 2), leaf[1, 0].detach()])
        leaf.grad = torch.stack([2 * leaf[0].detach(), -torch.ones(1)])

    for _ in range(50):
        rule.step(closure)
    assert rule.rate[0] < 0.02
    assert abs(float(rule.best_state[0, 0].detach())) < 0.02
    assert float(rule.best_state[1, 0].detach()) == 5


def test_the_smallest_radius_succeeds_and_a_smaller_one_does_not(model):
    for norm in ("linf", "l2"):
        found = fv.attack(model, EIGHT, eps="min", norm=norm, steps=10)
        assert found.success.all()
        assert (found.norm <= found.eps + 1e-6).all()
        given = {"norm": norm, "steps": 10}
        for i, eps in enumerate(found.eps.tolist()):
            below = fv.attack(
                model, EIGHT[i : i + 1], eps=eps * 0.93, seed=i, eight_bit=False, **given
            )
            assert not below.success[0]
    levels = fv.attack(model, EIGHT, eps="min", steps=10, eight_bit=True)
    np.testing.assert_allclose(levels.eps * 255, (levels.eps * 255).round(), atol=1e-6)
    assert levels.success.all()


def test_one_difference_for_all(model):
    result = fv.attack(model, EIGHT, universal=True, to=2, eps=16 / 255, steps=15)
    delta = result.state["delta"]
    assert delta.shape == (1, 3, 8, 8)
    assert delta.abs().max() <= 16 / 255 + 1e-6
    levels = (delta * 255).round() / 255
    wanted = (EIGHT + levels).clamp(0, 1)
    torch.testing.assert_close(result.images, wanted, atol=1e-6, rtol=0)
    assert result.success.float().mean() > (result.before == 2).float().mean()


def test_the_best_of_several_differences_for_all(model):
    given = {"universal": True, "to": 0, "eps": 8 / 255, "steps": 1}
    seeds = [restart * SEED_STRIDE for restart in range(4)]
    runs = [fv.attack(model, EIGHT, seed=s, **given) for s in seeds]
    worth = [(int(r.success.sum()), float(r.scores.mean())) for r in runs]
    best = max(range(4), key=worth.__getitem__)
    assert best != 0  # or restarts that are ignored would pass
    found = fv.attack(model, EIGHT, restarts=4, seed=0, **given)
    assert found.seeds == runs[0].seeds
    assert torch.equal(found.images, runs[best].images)


@pytest.mark.parametrize("given", [{"restarts": 3}, {"eps": "min"}, {"away": [0, 1, 2, 0, 1, 2]}])
def test_ctrl_c_ends_the_whole_attack_and_keeps_what_there_is(model, given):
    seen = []

    def stop(step):
        seen.append(step.index)
        if len(seen) == 3:
            raise KeyboardInterrupt

    given = {"eps": 4 / 255, "steps": 10, **given}
    made = fv.attack(model, EIGHT, batch_size=2, early_exit=False, callbacks=[stop], **given)
    assert made.interrupted
    assert len(seen) == 3
    assert len(made) == len(EIGHT)
    moved = (made.images != made.originals).flatten(1).any(1)
    assert moved.sum() == 2
    assert (made.steps_used[~moved] == 0).all()
    assert (made.steps_used[moved] == 3).all()
    after = model(made.images).argmax(1)
    assert (made.after == after).all()


@pytest.mark.parametrize("universal", [False, True])
def test_ctrl_c_between_the_runs_loses_nothing(model, universal, monkeypatch):
    given = {"to": 1, "eps": 4 / 255, "steps": 3, "universal": universal}
    wanted = fv.attack(model, EIGHT, **given)
    judge, calls = AttackRun.judge, []

    def stop(self, *args):
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return judge(self, *args)

    monkeypatch.setattr(AttackRun, "judge", stop)
    made = fv.attack(model, EIGHT, restarts=5, **given)
    assert made.interrupted
    assert len(calls) == 2
    assert torch.equal(made.images, wanted.images)


def test_a_patch_stays_in_its_place(model):
    given = {"to": 2, "steps": 60, "degrees": 0, "scale": (1, 1)}
    result = fv.patch_attack(model, EIGHT, size=(4, 3), **given)
    assert result.patch.shape == (3, 4, 3)
    assert 0 <= result.patch.min() <= result.patch.max() <= 1
    changed = (result.images != result.originals).any(1)
    for rows in changed:
        high, wide = rows.any(1).nonzero().flatten(), rows.any(0).nonzero().flatten()
        assert high[-1] - high[0] <= 4  # four pixels, five where they lie between two
        assert wide[-1] - wide[0] <= 3
    assert len({tuple(rows.nonzero()[0].tolist()) for rows in changed}) > 1
    assert result.history[-1].mean() > result.history[0].mean()
    assert result.success.float().mean() > (result.before == 2).float().mean()
    with pytest.raises(FeatvizError, match="does not fit images"):
        fv.patch_attack(model, EIGHT, to=2, size=9)


def test_a_patch_is_made_on_some_pictures_at_a_time(model):
    given = {"to": 2, "size": (4, 4), "steps": 60}
    result = fv.patch_attack(model, EIGHT, batch_size=2, **given)
    assert result.history.shape == (60, 6)  # NaN for images that a step left out
    assert set(result.history.isfinite().sum(1).tolist()) <= {1, 2}
    assert result[5].history.shape == (60, 1)
    assert len(result.success) == len(result.scores) == len(EIGHT)
    assert result.success.float().mean() > (result.before == 2).float().mean()
    goal = fv.objective(result.objectives[0])
    assert goal(model, result.images[:1]).item() == pytest.approx(result.scores[0].item(), abs=1e-5)
    ground = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 5, 5) / 4
    paste = fv.transforms.Paste(ground, choose=True)
    tape = paste.draw(torch.Generator().manual_seed(0), 50, (2, 2))[:, None]
    put = paste.prepare(tape)
    seen = {put(torch.zeros(1, 1, 2, 2), step).amax().item() for step in range(50)}
    assert seen == {0.0, 0.25, 0.5, 0.75}
    with pytest.raises(FeatvizError, match="batch_size needs one class for all"):
        fv.patch_attack(model, EIGHT, away=[0, 1, 2, 0, 1, 2][: len(EIGHT)], size=3, batch_size=2)


def test_a_pasted_patch_is_where_the_tape_says():
    ground = torch.zeros(1, 1, 9, 11)
    paste = fv.transforms.Paste(ground, degrees=0, low=1, high=1)
    tape = torch.tensor([[[0.0, 0.0, 0.5, 0.5, 3, 2]], [[1.0, 1.0, 0.5, 0.5, 3, 2]]])
    put = paste.prepare(tape)
    patch = torch.arange(1.0, 7).view(1, 1, 3, 2)
    torch.testing.assert_close(put(patch, 0)[0, 0, :3, :2], patch[0, 0])
    torch.testing.assert_close(put(patch, 1)[0, 0, -3:, -2:], patch[0, 0])
    assert put(patch, 0).sum() == pytest.approx(21, abs=1e-4)
    turned = fv.transforms.Paste(ground, degrees=90, low=1, high=1)
    put = turned.prepare(torch.tensor([[[0.0, 0.0, 1.0, 0.5, 3, 2]]]))(patch, 0)
    torch.testing.assert_close(put[0, 0, :2, :3], patch[0, 0].rot90(-1), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("norm", "name"), [("linf", "LinfPGD"), ("l2", "L2PGD")])
def test_foolbox_finds_the_same_pictures(model, norm, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        foolbox = pytest.importorskip("foolbox")
    module = model.as_module()
    theirs = foolbox.PyTorchModel(module, bounds=(0, 1), device="cpu")
    labels = model(EIGHT).argmax(1)
    for eps in (0.02, 0.05, 0.1):
        radius = eps * (1 if norm == "linf" else 10)
        attack = getattr(foolbox.attacks, name)(
            abs_stepsize=radius / 8, steps=10, random_start=False
        )
        wanted = foolbox.criteria.Misclassification(labels)
        _, images, fooled = attack(theirs, EIGHT, wanted, epsilons=radius)
        ours = fv.attack(
            model, EIGHT, norm=norm, eps=radius, step_size=radius / 8, steps=10, **PLAIN
        )
        torch.testing.assert_close(ours.images, images, atol=1e-5, rtol=0)
        assert torch.equal(ours.success, fooled)


def test_the_module_gives_logits_and_leaves_the_modes_alone(model):
    model.net.train()
    module = model.as_module()
    torch.testing.assert_close(module(EIGHT), model(EIGHT))
    assert not module.training
    module.train()
    module.eval()
    assert model.net.training
    shown = EIGHT.clone().requires_grad_()
    assert torch.autograd.grad(module(shown).sum(), shown)[0].abs().sum() > 0
    assert all(p.requires_grad for p in module.parameters())


def test_the_model_comes_back_untouched(model):
    model.net.train()
    kept = {name: t.clone() for name, t in model.net.state_dict().items()}
    fv.attack(model, EIGHT, steps=3, traced=True)
    fv.patch_attack(model, EIGHT, to=1, size=3, steps=2)
    assert model.net.training
    assert all(p.requires_grad for p in model.net.parameters())
    assert not any(m._forward_hooks for m in model.net.modules())
    assert all(torch.equal(t, kept[name]) for name, t in model.net.state_dict().items())


def test_a_trace_is_shared_by_batches_and_changes_nothing_but_rounding(model, monkeypatch):
    made = []
    trace = tracing.trace
    monkeypatch.setattr(tracing, "trace", lambda *a, **k: made.append(1) or trace(*a, **k))
    given = {"eps": 0.05, "steps": 5, "batch_size": 2, **PLAIN}
    traced = fv.attack(model, EIGHT, traced=True, **given)
    assert len(made) == 2  # of one image for the steps, of four for predictions
    plain = fv.attack(model, EIGHT, traced=False, **given)
    torch.testing.assert_close(traced.images, plain.images, atol=1e-4, rtol=0)


def test_the_loop_keeps_the_best_and_stops_where_it_is_told(model):
    param = Bounded(images=EIGHT[:3], eps=0.2)
    given = {"param": param, "steps": 10, "seeds": [0, 1, 2], "redirect": 0}
    goal = fv.channel("second", 1)

    def wild(leaves):
        return Steepest(leaves, 0.4, "linf")

    last = optimize(model, goal, optimizer=wild, **given)
    best = optimize(model, goal, optimizer=wild, keep="best", **given)
    assert (best.scores >= last.scores).all()
    assert (best.scores >= best.history.amax(0) - 1e-5).all()
    first = best.history[0]
    until = goal - (float(first.max()) + 0.05)
    stopped = optimize(model, goal, optimizer=wild, until=until, **given)
    for i, reached in enumerate(stopped.reached.tolist()):
        if 0 <= reached < len(stopped.history):
            assert stopped.scores[i] == pytest.approx(stopped.history[reached, i].item(), abs=1e-5)
            assert (stopped.history[reached:, i] == stopped.history[reached, i]).all()
    with pytest.raises(FeatvizError, match="share no parameter"):
        optimize(
            model,
            goal,
            optimizer=wild,
            keep="best",
            **given | {"param": Bounded(images=EIGHT[:3], eps=0.1, shared=True)},
        )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"eps": 0}, "eps must be above 0"),
        ({"eps": 1.5}, "at most 1 for linf"),
        ({"eps": "4/0"}, "a number such as 4/255"),
        ({"norm": "l7"}, "no norm 'l7'"),
        ({"method": "cw"}, "no method 'cw': use pgd"),
        ({"loss": "hinge"}, "no loss 'hinge': use ce"),
        ({"to": 7}, "no class 7"),
        ({"away": [0, 1]}, "away has 2 objectives for 6 images"),
        ({"away": 1, "to": 1}, "class 1 is both"),
        ({"steps": 0}, "steps must be positive"),
        ({"step_size": -1}, "step_size must be positive"),
        ({"precision": "fp8"}, "no precision 'fp8'"),
        ({"method": "apgd", "norm": "l1"}, "apgd supports the norms"),
        ({"eps": "min", "to": fv.channel("second", 0)}, "needs a class"),
        ({"eps": "min", "universal": True}, "per image"),
    ],
)
def test_bad_input(model, given, message):
    with pytest.raises((FeatvizError, UnitError), match=message):
        fv.attack(model, EIGHT, **given)


def test_bad_images(model):
    for images, message in [(EIGHT + 1, r"in \[0, 1\]"), (EIGHT[:0], "must have shape")]:
        with pytest.raises(FeatvizError, match=message):
            fv.attack(model, images)


def factory() -> fv.Model:
    return nets.tiny(channels=3)


@pytest.fixture
def picture(tmp_path):
    pixels = (EIGHT[0] * 255).round().to(torch.uint8).movedim(0, -1).numpy()
    Image.fromarray(pixels).save(tmp_path / "in.png")
    return str(tmp_path / "in.png")


def test_the_command(picture, tmp_path, capsys):
    start = ["attack", "tests.test_attack:factory", picture, "-o", str(tmp_path / "out.png")]
    before = int(factory()(EIGHT[:1]).argmax())
    assert main([*start, "--away", f"class:{before}", "--eps", "16/255", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["success"] == [True]
    assert document["norm_reached"][0] <= 16 / 255 + 1e-9
    assert document["images"] == [picture]
    assert main([*start, "--eps", "min"]) == 0  # away from the prediction
    assert "1 of 1 fooled" in capsys.readouterr().out
    assert main([*start, "--to", f"class:{(before + 1) % 3}", "--patch", "4", "--steps", "5"]) == 0
    with Image.open(tmp_path / "out.patch.png") as patch:
        assert patch.size == (4, 4)
    record = read_settings(tmp_path / "out.png")
    assert (record["norm_reached"], record["eps"]) == ([None], [None])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--away", "class:0", "--eps", "0"], "eps must be above 0"),
        (["--away", "class:0", "--eps", "1.5"], "eps must be above 0 and at most 1"),
        (["--away", "class:0", "--eps", "1/1000"], "at least 1/255"),
        (["--away", "class:0", "--norm", "l3"], "no norm 'l3'"),
        (["--away", "class:9"], "no class 9"),
        (["--away", "class:0", "--size", "0"], "is not a size"),
        (["--to", "class:0", "--patch", "9"], "does not fit"),
    ],
)
def test_bad_input_on_the_command_line(picture, tmp_path, capsys, words, message):
    start = ["attack", "tests.test_attack:factory", picture, "-o", str(tmp_path / "out.png")]
    assert main([*start, *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out.png").exists()


def test_a_patch_on_seven_bands_is_not_rounded():
    net = nets.seeded(
        lambda: torch.nn.Sequential(
            torch.nn.Conv2d(7, 3, 3), torch.nn.AdaptiveMaxPool2d(1), torch.nn.Flatten()
        )
    )
    bands = fv.Model(net, channels=7, size=12)
    images = torch.rand(2, 7, 12, 12, generator=torch.Generator().manual_seed(0))
    result = fv.patch_attack(bands, images, to=2, size=4, steps=2, degrees=0, scale=(1, 1))
    assert not result.eight_bit
    assert torch.equal(result.originals, images)
    kept = (result.images == images).all(1).flatten(1).float().mean()
    assert kept >= 1 - 25 / 144  # outside the patch nothing changes


def test_the_norm_of_a_patch_counts_rounding(model):
    images = (EIGHT[:2] * 255).round().clamp(1, 254) / 255 + 0.4 / 255
    result = fv.patch_attack(model, images, to=2, size=3, steps=2)
    assert result.eight_bit
    true = (result.images - images).flatten(1).abs().amax(1).double()
    torch.testing.assert_close(result.norm, true)
