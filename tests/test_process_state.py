"""The state of the process: no influence on a result, and as before after each verb."""

from __future__ import annotations

import contextlib
import copy
import io
import multiprocessing
import os
import random
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import featviz as fv
from featviz import process_state
from featviz.cli.main import main
from featviz.optim import tracing
from tests import nets


def picture(count: int = 1, side: int = 8) -> torch.Tensor:
    return PICTURES[:count, :, :side, :side]


class Restless(nn.Module):
    """Draws from all three global generators whenever it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nets.Small(3)

    def forward(self, x):
        noise = torch.randn(()) + random.random() + np.random.random()  # noqa: NPY002
        return self.body(x + 0.01 * float(noise))


#: Made before any state is changed: what the user makes is made as the user says.
NET = nets.seeded(lambda: nets.Small(3))
GENERATOR = nets.seeded(lambda: nn.Sequential(nn.Linear(4, 192), nn.Unflatten(1, (3, 8, 8))))
PICTURES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def rgb() -> fv.Model:
    return fv.Model(NET, mean=0.5, std=0.25, size=8)


def latent() -> fv.param.Latent:
    return fv.param.Latent(generator=GENERATOR, latent=(4,))


def atlas(path):
    made = fv.atlas(rgb(), "first", out=path / "atlas", units="0:2", steps=2)
    return [np.asarray(made["first", unit].image).copy() for unit in (0, 1)]


def export(path):
    fv.zoo.export(rgb(), path / "net.pt2")
    return list(fv.load(str(path / "net.pt2")).net.state_dict().values())


def command(path):
    words = ["render", "tests.nets:rgb", "class:0", "--steps", "2", "-q", "-o", str(path / "a.png")]
    assert main(words) == 0
    return np.asarray(nets.opened(path / "a.png"))


FAST = {"steps": 3, "seed": 1}
#: Every public verb: a path to write to -> what it returns, as tensors or arrays.
VERBS = {
    "load": lambda _: list(fv.load("efficientnet_lite0").net.state_dict().values())[:5],
    "load a factory": lambda _: list(fv.load("tests.nets:rgb").net.state_dict().values()),
    "layers": lambda _: torch.tensor([i.units for i in rgb().layers()], device="cpu"),
    "model": lambda _: rgb()(picture()),
    "activations": lambda _: rgb().activations(picture(), "first")["first"],
    "objective": lambda _: fv.objective("class:1 - 0.1*l1")(rgb(), picture()),
    "render": lambda _: fv.render(rgb(), "class:0", **FAST).images,
    "render maco": lambda _: fv.render(rgb(), "class:0", param="maco", **FAST).images,
    "render cppn": lambda _: fv.render(rgb(), "class:0", param="cppn", **FAST).images,
    "render laplacian": lambda _: fv.render(rgb(), "class:0", param="laplacian", **FAST).images,
    "render alpha": lambda _: fv.render(rgb(), "class:0", param="alpha", **FAST).images,
    "render traced": lambda _: fv.render(rgb(), "class:0", steps=33).images,
    "optimize": lambda _: fv.optimize(rgb(), fv.class_logit(0), seeds=[1], steps=3).images,
    "invert": lambda _: fv.invert(latent(), picture(), steps=3).start,
    "dream": lambda _: fv.dream(rgb(), picture(1, 32), "layer:first", octaves=2, steps=2).images,
    "dream guide": lambda _: fv.dream(rgb(), picture(1, 32), "layer:first", guide=picture()[0], octaves=1, steps=2).images,
    "dream_video": lambda _: list(fv.dream_video(rgb(), picture(1, 32), "layer:first", frames=2, octaves=1, steps=1, rotate=3)),
    "attack": lambda _: fv.attack(rgb(), picture(), steps=3).images,
    "attack l2 apgd": lambda _: fv.attack(rgb(), picture(), method="apgd", norm="l2", eps=0.5, steps=3, restarts=2).images,
    "patch_attack": lambda _: fv.patch_attack(rgb(), picture(), to=1, size=4, steps=2).patch,
    "attribute": lambda _: fv.attribute(rgb(), picture(), "class:0", method="integrated_gradients").attributions,
    "attribute smooth": lambda _: fv.attribute(rgb(), picture(), "class:0", method="smooth_grad").attributions,
    "attribute shap": lambda _: fv.attribute(rgb(), picture(), "class:0", method="kernel_shap", cells=2, steps=20).attributions,
    "attribute cam": lambda _: fv.attribute(rgb(), picture(), "class:0", method="grad_cam", layer="first").attributions,
    "examples": lambda _: fv.examples(rgb(), list(picture(4)), "channel:first:0", k=2).top.values,
    "check": lambda _: [torch.tensor(c.score, dtype=torch.float64, device="cpu") for c in fv.check(rgb(), "class:0", steps=2, seeds=1).checks],
    "calibrate": lambda _: fv.calibrate(list(picture(4)), size=8).magnitude,
    "atlas": atlas,
    "export": export,
    "command": command,
}  # fmt: skip
#: What the user's own call of the network is: gradients and autocast are then the user's.
DIRECT = {"model", "activations", "objective"}


@contextlib.contextmanager
def float64():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def low_precision():
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


STATES = {
    "float64": float64,
    "meta device": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "low precision": low_precision,
    "deterministic": deterministic,
}


def values(result) -> list[np.ndarray]:
    results = result if isinstance(result, list) else [result]
    return [r.detach().cpu().numpy() if isinstance(r, torch.Tensor) else r for r in results]


def state() -> dict:
    """Return what a verb must leave alone."""
    return {
        "torch": torch.get_rng_state().tolist(),
        "python": random.getstate(),
        "numpy": [str(part) for part in np.random.get_state()],  # noqa: NPY002
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        "grad": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "filters": list(warnings.filters),
        "umask": umask(),
        "folder": Path.cwd(),
    }


def umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current


@pytest.mark.parametrize("verb", VERBS)
def test_the_state_has_no_influence_and_is_restored(verb, tmp_path):
    run = VERBS[verb]

    def computed(name):
        (tmp_path / name).mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", fv.FeatvizWarning)
            return values(run(tmp_path / name))

    fv.load("tests.nets:rgb")  # what is imported once is imported now
    expected = computed("plain")
    for name, context in STATES.items():
        if verb in DIRECT and name in ("autocast", "low precision"):
            continue
        with context():
            before = state()
            found = computed(name)
            after = state()
        assert before == after, name
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert one.dtype == other.dtype, name
            assert np.array_equal(one, other), name
    assert state()["dtype"] == torch.float32


def test_a_precision_that_was_set_for_one_backend_has_no_influence_either():
    """Torch's older call for the precision raises once one backend has a precision of its own."""
    matmul = torch.backends.mkldnn.matmul
    expected = fv.render(rgb(), "class:0", **FAST).images
    before, matmul.fp32_precision = matmul.fp32_precision, "bf16"
    try:
        with pytest.raises(RuntimeError, match="precision"):
            torch.get_float32_matmul_precision()
        assert torch.equal(fv.render(rgb(), "class:0", **FAST).images, expected)
        assert matmul.fp32_precision == "bf16"
    finally:
        matmul.fp32_precision = before
    assert torch.get_float32_matmul_precision() == "highest"


FAILING = {
    "load": lambda: fv.load("tests.nets:nothing"),
    "render": lambda: fv.render(rgb(), "class:99"),
    "render later": lambda: fv.render(rgb(), "class:0", steps=2, callbacks=[lambda step: 1 / 0]),
    "optimize": lambda: fv.optimize(rgb(), fv.class_logit(0), seeds=[1], samples=0),
    "dream": lambda: fv.dream(rgb(), picture(1, 32), "layer:nope"),
    "attack": lambda: fv.attack(rgb(), picture(), steps=2, callbacks=[lambda step: 1 / 0]),
    "attribute": lambda: fv.attribute(rgb(), picture(), "class:0", method="nope"),
    "examples": lambda: fv.examples(rgb(), [3], "class:0"),
    "check": lambda: fv.check(rgb()),
    "calibrate": lambda: fv.calibrate([]),
    "atlas": lambda: fv.atlas(rgb(), "nope", out="/nowhere/at/all"),
    "export": lambda: fv.zoo.export(fv.Model(lambda x: x.numpy()), "a.pt2"),
    "invert": lambda: fv.invert(latent(), picture()[0, 0]),
    "command": lambda: main(["render", "tests.nets:rgb", "class:99", "-o", "a.png"]) / 0,
}


@pytest.mark.parametrize("verb", FAILING)
def test_the_state_is_restored_after_an_exception(verb, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with float64(), torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        before = state()
        with pytest.raises((fv.FeatvizError, ZeroDivisionError)):
            FAILING[verb]()
        assert state() == before


def test_a_network_that_draws_from_the_global_generators_gives_one_image():
    model = fv.Model(nets.seeded(Restless), size=8)

    def image():
        return fv.render(model, "class:0", steps=3, seed=1).images

    before = state()
    first = image()
    assert state() == before
    torch.rand(3), random.random(), np.random.random()  # noqa: NPY002
    assert torch.equal(first, image())


def test_images_made_in_inference_mode_are_taken():
    with torch.inference_mode():
        image = picture() * 1
        inside = fv.attack(rgb(), image, steps=2).images
    assert image.is_inference()
    assert torch.equal(inside, fv.attack(rgb(), image, steps=2).images)
    assert torch.equal(inside, fv.attack(rgb(), picture(), steps=2).images)


def test_weights_made_in_inference_mode_are_refused_with_the_remedy():
    with torch.inference_mode():
        net = nets.Small(3)
    with pytest.raises(fv.FeatvizError, match="deepcopy"):
        fv.Model(net)
    assert (
        fv.render(fv.Model(copy.deepcopy(net), size=8), "class:0", steps=1).images.isfinite().all()
    )


def test_two_threads_each_with_a_copy_of_one_model_agree_with_one_thread():
    model = rgb()
    expected = [fv.render(model, f"class:{i}", steps=33, seed=i).images for i in range(2)]
    found, failures = {}, []

    def work(number):
        try:
            own = model.copy()
            for _ in range(5):
                found[number] = fv.render(own, f"class:{number}", steps=33, seed=number).images
                assert torch.equal(found[number], expected[number])
        except BaseException as error:
            failures.append(error)

    with float64():
        threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert torch.get_default_dtype() == torch.float64


def test_two_threads_with_one_model_are_told_or_right():
    """Each call works with the right image, or says at once that the model is in use."""
    model = rgb()
    model.layers()
    expected = fv.render(model, "class:0", steps=5, seed=1).images
    outcomes = []

    def work():
        for _ in range(10):
            try:
                image = fv.render(model, "class:0", steps=5, seed=1).images
                outcomes.append("right" if torch.equal(image, expected) else "wrong")
            except fv.FeatvizError as error:
                outcomes.append("told" if "another thread" in str(error) else str(error))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(outcomes) <= {"right", "told"}
    assert "right" in outcomes
    assert torch.equal(fv.render(model, "class:0", steps=5, seed=1).images, expected)


def test_the_last_verb_of_overlapping_threads_restores_the_state():
    """A verb that ends must not restore what another one still needs reset."""
    inside, leave = threading.Event(), threading.Event()
    seen = []

    def long():
        with process_state.reset():
            inside.set()
            leave.wait(10)
            seen.append(torch.get_default_dtype())

    with float64():
        before = state()
        thread = threading.Thread(target=long)
        thread.start()
        inside.wait(10)
        with process_state.reset():
            pass
        assert torch.get_default_dtype() == torch.float32  # the thread needs it
        leave.set()
        thread.join()
        assert seen == [torch.float32]
        assert state() == before


def _render_in_child(pipe) -> None:
    torch.set_num_threads(1)
    buffer = io.BytesIO()
    torch.save(fv.render(rgb(), "class:0", steps=33, seed=1).images, buffer)
    pipe.send_bytes(buffer.getvalue())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_renders_the_same_image():
    expected = fv.render(rgb(), "class:0", steps=33, seed=1).images
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_render_in_child, args=(theirs,))
    held, forked = threading.Event(), threading.Event()

    def hold():  # another thread is entering a verb, and tracing
        with process_state._torch.lock, tracing._TRACING:
            held.set()
            forked.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    child.start()
    forked.set()
    thread.join()
    try:
        assert ours.poll(60)
        found = torch.load(io.BytesIO(ours.recv_bytes()))
    finally:
        child.join(10)
        child.kill()
    assert torch.equal(found, expected)
