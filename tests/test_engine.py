"""The loop: it climbs, repeats, keeps samples apart, and says what went wrong."""

import pytest
import torch

import featviz as fv
from featviz.optim.callbacks import Callback
from featviz.optim.loop import optimize
from featviz.optim.optimizers import adam
from featviz.param import Pixel
from tests import nets


def quadratic() -> fv.Model:
    """Its output 0 is highest where every pixel is 0.7."""
    return fv.Model(lambda x: -(x - 0.7).square().sum((1, 2, 3))[:, None], size=4)


def climb(model=None, objective="class:0", **given):
    given = {"steps": 150, "seeds": [0, 1], "optimizer": adam(0.1), **given}
    model = model or quadratic()
    param = given.pop("param", Pixel(size=model.size, channels=model.channels, color="none"))
    return optimize(model, fv.objective(objective), param=param, **given)


@pytest.mark.parametrize(
    "optimizer",
    [
        adam(0.1),
        lambda leaves: torch.optim.SGD(leaves, lr=2.0, momentum=0.5),
        lambda leaves: torch.optim.RMSprop(leaves, lr=0.02),
        lambda leaves: torch.optim.LBFGS(leaves, lr=0.5),
    ],
)
def test_reaches_a_known_maximum_with_any_optimizer(optimizer):
    result = climb(optimizer=optimizer)
    assert (result.images - 0.7).abs().max() < 0.01
    assert -0.01 < result.scores.min() <= result.scores.max() <= 0
    assert result.history.shape == (150, 2)


def test_descends_with_a_minus():
    result = climb(objective="-class:0")
    assert (result.images - 0.7).abs().min() > 0.6


@pytest.mark.parametrize("range_", ["sigmoid", "clamp"])
@pytest.mark.parametrize("kind", [fv.param.Pixel, fv.param.Fourier])
def test_every_parameterization_can_fit_a_given_image(kind, range_, photos):
    """A capability: the image that the loop finds is the image that was wanted."""
    wanted = torch.nn.functional.interpolate(photos[:1], 24) * 0.8 + 0.1
    model = fv.Model(lambda x: -(x - wanted).square().sum((1, 2, 3))[:, None], size=24)
    param = kind(size=24, channels=3, range=range_)
    result = climb(model, param=param, steps=400, seeds=[0], schedule=fv.Cosine())
    assert (result.images - wanted).abs().mean() < 0.01


def test_the_schedule_scales_the_learning_rate():
    seen = []

    def make(leaves):
        made = torch.optim.SGD(leaves, lr=2.0)
        made.register_step_pre_hook(lambda o, *_: seen.append(o.param_groups[0]["lr"]))
        return made

    climb(optimizer=make, steps=5, schedule=fv.Cosine(end=0.5))
    assert seen == pytest.approx([2, 1.853553, 1.5, 1.146447, 1])


def test_the_same_call_twice_is_bit_identical(lite0):
    first, second = (
        fv.render(lite0, "channel:_blocks.4:10", steps=4, size=96, seed=3) for _ in range(2)
    )
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.history, second.history)


def test_a_sample_does_not_depend_on_its_neighbours(lite0):
    """On the CPU not even in rounding: one sample at a time goes through the network."""
    units = [fv.channel("_blocks.4", c) for c in (1, 10, 20)]
    together = fv.render(lite0, units, steps=32, size=112, seed=5)
    alone = fv.render(lite0, units[1], steps=32, size=112, seed=6)
    assert torch.equal(together.images[1], alone.images[0])
    other = fv.render(lite0, units[1], steps=32, size=112, seed=7)
    assert (other.images[0] - alone.images[0]).abs().mean() > 20 / 255


def test_the_gradient_is_the_same_however_many_go_through_at_once(tiny):
    """Several at once round differently, and after one step that is all."""
    given = {"param": Pixel(size=8, channels=2), "steps": 1, "seeds": [0, 1, 2, 3]}
    objective = "per_sample(channel:second:1, -class:2, layer:first, neuron:second:3) - 0.1*l2"
    runs = [climb(tiny, objective, micro=m, **given) for m in (1, 2, 3, 4)]
    for run in runs[1:]:
        torch.testing.assert_close(run.images, runs[0].images, atol=1e-5, rtol=0)
        torch.testing.assert_close(run.scores, runs[0].scores)


def test_batches_join_to_the_same_pictures(tiny):
    units = [fv.channel("second", c) for c in range(5)]
    whole = fv.render(tiny, units, steps=8)
    parts = fv.render(tiny, units, steps=8, batch_size=2)
    assert torch.equal(whole.images, parts.images)
    assert whole.objectives == parts.objectives
    assert whole.history.shape == parts.history.shape == (8, 5)


def test_several_seeds_of_one_objective(tiny):
    result = fv.render(tiny, "channel:second:1", seed=[4, 9], steps=4)
    assert result.seeds == [4, 9]
    assert not torch.equal(result.images[0], result.images[1])
    assert torch.equal(result[1].images[0], result.images[1])


def test_scores_are_those_of_the_finished_pictures(tiny):
    result = fv.render(tiny, "channel:second:1", seed=[4, 9], steps=4)
    torch.testing.assert_close(result.scores, fv.channel("second", 1)(tiny, result.images))


def test_callbacks_see_every_step_and_can_end_the_run():
    class Log(Callback):
        def __init__(self):
            self.calls = []

        def on_start(self, run):
            self.calls.append(("start", run.objectives, run.seeds))

        def on_step(self, step):
            assert step.images.shape == (2, 3, 4, 4)
            assert step.scores.shape == step.gradient_norms.shape == (2,)
            self.calls.append(step.index)

        def on_end(self, result):
            self.calls.append(("end", len(result.history)))

    log = Log()
    result = climb(callbacks=[lambda step: step.index == 2, log], steps=9)
    assert log.calls == [("start", ["class:0"] * 2, [0, 1]), 0, 1, 2, ("end", 3)]
    assert not result.interrupted


def test_gradient_norms_are_those_of_the_parameters():
    norms = []
    climb(callbacks=[lambda step: norms.append(step.gradient_norms.clone())], steps=1)
    param = Pixel(size=4, channels=3, color="none")
    state = param.init([0, 1])
    value = fv.class_logit(0)(quadratic(), param.image(state)).sum()
    (gradient,) = torch.autograd.grad(value, state["pixels"])
    torch.testing.assert_close(norms[0], gradient.flatten(1).norm(dim=1))


def test_ctrl_c_gives_what_there_is():
    def stop(step):
        if step.index == 4:
            raise KeyboardInterrupt

    result = climb(callbacks=[stop])
    assert result.interrupted
    assert len(result.history) in (4, 5)
    assert result.images.isfinite().all()


def test_a_dead_unit_is_an_error_that_keeps_the_picture():
    model = fv.Model(nets.Dead(), size=8)
    with pytest.raises(fv.OptimizationError, match=r"channel:act:1 has no gradient") as caught:
        fv.render(model, "channel:act:1", steps=40)
    assert caught.value.result.images.shape == (1, 3, 8, 8)
    assert len(caught.value.result.history) == 32  # given up early, after the redirected steps
    assert caught.value.result.redirected.tolist() == [True]


def test_a_dead_unit_does_not_take_its_neighbours_along():
    model = fv.Model(nets.Dead(), size=8)
    with pytest.warns(fv.FeatvizWarning, match="channel:act:1 has no gradient"):
        result = fv.render(model, ["channel:act:0", "channel:act:1"], steps=20)
    assert list(result.failures) == [1]
    assert result.history[-1, 0] > result.history[0, 0]


def test_an_objective_without_any_gradient_is_refused():
    class Detached(torch.nn.Module):
        def forward(self, x):
            return torch.ones(len(x), 3) + 0 * x.detach().mean()

    model = fv.Model(Detached(), size=8)
    with pytest.raises(fv.FeatvizError, match="class:1 does not depend on the image"):
        fv.render(model, "class:1", steps=5)


def test_nan_keeps_the_picture_and_says_so():
    model = fv.Model(nets.Explodes(0.6), size=8)
    with pytest.raises(fv.OptimizationError, match=r"became NaN or infinite at step \d+") as caught:
        fv.render(model, "channel:body:0", steps=400, lr=0.5, transforms=())
    images = caught.value.result.images
    assert images.isfinite().all()
    assert 0 <= images.min() <= images.max() <= 1


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_makes_nearly_the_same_picture(lite0, precision):
    given = {"steps": 6, "size": 64, "transforms": (), "lr": 0.02}
    full = fv.render(lite0, "channel:_blocks.2:3", **given)
    low = fv.render(lite0, "channel:_blocks.2:3", precision=precision, **given)
    assert low.images.dtype == torch.float32
    assert (full.images - low.images).abs().mean() < 0.02
    assert not torch.equal(full.images, low.images)
    torch.testing.assert_close(full.scores, low.scores, rtol=0.1, atol=0.05)


@pytest.mark.parametrize("channels", [1, 2, 7])
@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_any_channel_count_and_number_of_axes(channels, spatial):
    model = nets.tiny(spatial, channels)
    result = fv.render(model, ["channel:second:1", "class:2"], steps=12, transforms=())
    assert result.images.shape == (2, channels, *(8,) * spatial)
    assert (result.history[-1] > result.history[0]).all()
    fv.render(model, "channel:second:1", steps=2)  # under the default transforms


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": 0}, "steps must be positive"),
        ({"batch_size": 0}, "batch_size must be positive"),
        ({"lr": -1}, "lr must be positive"),
        ({"precision": "fp8"}, "no precision 'fp8'"),
        ({"device": "tpu9"}, "no device 'tpu9'"),
        ({"device": "cuda:99"}, "no device 'cuda:99'"),
        ({"seed": []}, "no seeds"),
        ({"seed": 1.5}, "a seed must be a whole number"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"optimizer": 3}, "optimizer must be"),
        ({"optimizer": adam(0.1), "lr": 1.0}, "an optimizer function sets its own"),
        ({"param": Pixel(size=4), "size": 5}, "does not fit"),
        ({"seed": [1, 2, 3], "objective": ["class:0", "class:1"]}, "3 seeds for 2 images"),
        ({"transforms": "swirl"}, "no transform 'swirl'"),
        ({"transforms": 3}, "transforms must be"),
        ({"param": "furier"}, "did you mean 'fourier'"),
        ({"callbacks": [3]}, "a callback is"),
        ({"objective": ["class:0", "class:99"]}, "no class 99"),
    ],
)
def test_bad_arguments_are_refused_before_the_first_step(tiny, given, message):
    given = {"objective": "class:0", "steps": 3, **given}
    with pytest.raises(fv.FeatvizError, match=message) as caught:
        fv.render(tiny, given.pop("objective"), **given)
    assert len(str(caught.value).splitlines()) == 1


def test_a_bare_network_is_refused(tiny):
    with pytest.raises(fv.FeatvizError, match="wrap the network"):
        fv.render(tiny.net, "class:0")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_makes_nearly_the_same_picture(lite0):
    on_cpu = fv.render(lite0, "channel:_blocks.4:10", steps=16, size=96)
    on_gpu = fv.render(lite0, "channel:_blocks.4:10", steps=16, size=96, device="cuda")
    assert (on_cpu.images - on_gpu.images).abs().mean() < 4 / 255
    assert lite0.device.type == "cpu"


def test_ctrl_c_before_the_first_step_gives_the_start():
    class Stop(Callback):
        def on_start(self, run):
            raise KeyboardInterrupt

    result = climb(callbacks=[Stop()], steps=5)
    assert result.interrupted
    assert len(result.history) == 0
    assert result.images.shape == (2, 3, 4, 4)


class Greedy(torch.nn.Module):
    """Runs out of memory with more than ``most`` images."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.ran = most, []

    def forward(self, x):
        self.ran.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("tried to allocate 1 GiB")
        return -(x - 0.7).square().mean((1, 2, 3))[:, None]


def test_out_of_memory_splits_the_batch_and_says_so_once():
    net = Greedy(2)
    given = {"seeds": list(range(5)), "steps": 8}
    model = fv.Model(net, size=4)
    model.layers()
    with pytest.warns(fv.FeatvizWarning) as said:
        split = climb(model, micro=5, **given)
    assert [str(w.message) for w in said] == [
        "out of memory with 5 images of 4x4 at a time: continuing with 2"
    ]
    whole = climb(fv.Model(Greedy(9), size=4), micro=5, **given)
    torch.testing.assert_close(split.images, whole.images)
    with pytest.raises(fv.FeatvizError, match="out of memory with one image of 4x4: use a"):
        climb(
            fv.Model(Greedy(1), size=4),
            micro=1,
            steps=2,
            objective=fv.function(lambda a: net(a.repeat(3, 1, 1, 1))[:1, 0], "input"),
        )
    with pytest.raises(fv.FeatvizError, match="3 images that depend on each other"):
        climb(fv.Model(Greedy(1), size=4), "class:0 + diversity:output", seeds=[0, 1, 2], steps=2)
