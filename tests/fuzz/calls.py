"""Calls of the Python API: usually sensible but for one argument."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image

import featviz as fv
from tests.fuzz import network
from tests.fuzz.cases import BrokenPromiseError, Case

PICTURES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
SMALL = PICTURES[:1, :, :8, :8]


class Argument(NamedTuple):
    """A value, in words, and whether it makes sense."""

    text: str
    value: Any
    sensible: bool | None


class Unfriendly:
    """An object that nothing can be done with."""

    def __repr__(self) -> str:
        return "an unfriendly\nobject"

    def __bool__(self):
        raise RuntimeError("no truth")


class Rows:
    """A dataset that can be read any number of times."""

    def __iter__(self):
        return ((picture, 1) for picture in PICTURES)


def pool(good: list, bad: list, open_: tuple = ()) -> st.SearchStrategy:
    marked = [(good, True), (bad, False), (list(open_), None)]
    parts = [[Argument(_text(v), v, mark) for v in values] for values, mark in marked]
    return st.one_of([st.sampled_from(part) for part in parts if part])


def _text(value: Any) -> str:
    if isinstance(value, (torch.Tensor, np.ndarray)):
        dense = value.to_dense() if isinstance(value, torch.Tensor) else value
        first = dense.reshape(-1)[:1].tolist()
        sparse = "sparse " if isinstance(value, torch.Tensor) and value.is_sparse else ""
        return f"{sparse}{type(value).__name__}{tuple(value.shape)} {value.dtype} {first}"
    return " ".join(re.sub(r" at 0x\w+", "", repr(value)).split())[:80]


JUNK = [Unfriendly(), object(), {}, set(), lambda: 3, 1j, b"bytes", ..., NotImplemented, int]
NOT_COUNTS = [
    0,
    -1,
    1.5,
    "2",
    "",
    True,
    [],
    [1],
    float("nan"),
    float("inf"),
    10**20,
    None,
    torch.tensor([1, 2]),
    np.nan,
    *JUNK,
]
NOT_REALS = [
    "1",
    "",
    True,
    [],
    [0.1],
    float("nan"),
    float("inf"),
    -float("inf"),
    10**400,
    torch.tensor([1.0, 2.0]),
    *JUNK,
]


def counts(*, none: bool = False) -> st.SearchStrategy:
    bad = [v for v in NOT_COUNTS if not (none and v is None)]
    return pool([1, 2, np.int64(2), *([None] if none else [])], bad, (torch.tensor(2),))


def reals(good: list, bad: list) -> st.SearchStrategy:
    return pool([*good, np.float32(good[0])], [*bad, *NOT_REALS], (torch.tensor(good[0]),))


SEED = pool(
    [0, 5, -3, np.int64(4), [1]],
    ["0", 1.5, None, [], [1, 2], [0.5], True, 10**20, float("nan"), *JUNK],
    (torch.tensor(1),),
)
GOAL = pool(
    ["class:0", "channel:first:1", fv.class_logit(1), 2, fv.neuron("act", 1), fv.layer("first"), -fv.channel("first", 0), fv.class_logit("bird")],
    ["", "class:9", "channel:nope:1", -1, 99, 1.5, None, [], [None], float("nan"), "first", torch.tensor([1.0]), *JUNK,
     fv.channel("first", 99), fv.diversity("nope"), 10**30, "x" * 10_000],
    ([1, 2], "bird", True),
)  # fmt: skip
IMAGE = pool(
    [SMALL, SMALL[0], SMALL.numpy(), (SMALL[0].numpy().transpose(1, 2, 0) * 255).astype(np.uint8), Image.fromarray(np.zeros((8, 8, 3), np.uint8))],
    [SMALL * 255, SMALL - 1, SMALL * float("nan"), (SMALL * 255).byte(), SMALL[:, :2], SMALL[0, 0], SMALL[:0], torch.zeros(()), "missing.png", "", None, 3,
     [], [None], np.array("x"), np.array([object()]), SMALL.to(torch.complex64), "\0", np.zeros((0, 3, 8, 8)), SMALL.int(), *JUNK],
    (SMALL.double(), SMALL.half(), SMALL.to_sparse(), SMALL.transpose(2, 3)),
)  # fmt: skip
MODEL = pool(
    ["tests.fuzz.network:make"],
    [
        "",
        "nope",
        None,
        3,
        torch.nn.Linear(2, 2),
        "sys:exit",
        [],
        "tests.fuzz.network:raises",
        *JUNK,
        fv.Model,
    ],
)
DEVICE = pool(
    [None, "cpu", "auto", torch.device("cpu")],
    ["gpu", "", 3.5, "meta", torch.device("meta"), "cuda:99", [], *JUNK],
    ("cuda", "mps", 0, True),
)
PRECISION = pool(["fp32", "bf16"], ["fp8", "", None, 32, torch.float16, [], *JUNK], ("fp16",))
TRANSFORMS = pool(
    ["none", [], (), "jitter:2", fv.transforms.Jitter(2), [fv.transforms.Noise(0.1)], "standard", lambda x: x * 0.9],
    ["nope", "", [3], [None], 3, "jitter:nan", fv.transforms.Jitter, {}, Unfriendly(), lambda x: None, lambda x: x[:, :1], lambda x: "a"],
    (None, torch.nn.Identity()),
)  # fmt: skip
PARAM = pool(
    [None, "fourier", "pixel", fv.param.Fourier(), fv.param.Pixel(size=8)],
    [
        "nope",
        "",
        3,
        [],
        fv.param.Fourier,
        "fft",
        ["pixel"],
        "alpha:alpha",
        fv.param.Fourier(channels=5),
        *JUNK,
    ],
)
SIZE = pool(
    [None, 8, (8, 8), [8, 9]],
    [
        0,
        -1,
        (0, 8),
        (8,),
        (8, 8, 8),
        "8",
        8.5,
        (8.0, 8.0),
        10**9,
        10**20,
        (8, "8"),
        [],
        True,
        float("nan"),
        *JUNK,
    ],
    (np.int64(8),),
)
LR = reals([0.05, 1], [0, -1, 1e300, -1e-9])
LR_NONE = st.one_of(LR, st.just(Argument("None", None, True)))
BATCH = counts(none=True)
CALLBACKS = pool(
    [(), [], [lambda step: None]], [3, [3], "x", [None], lambda step: None, *JUNK[:2]], (None,)
)
DATASET = pool(
    [list(PICTURES), [PICTURES[0]], PICTURES, [PICTURES[0].numpy()], Rows()],
    [[], "", "missing", None, 3, [3], [None], [PICTURES[0] * 255], [PICTURES[0] * float("nan")], {}, [object()], ["missing.png"], [PICTURES[0][:2]], [torch.zeros(3)]],
)  # fmt: skip

#: Where images are optional.
IMAGES = DATASET.filter(lambda a: a.value is not None)

#: verb: function of the keywords, and a pool for each of them; the first value of a pool is usual.
VERBS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "render": (
        fv.render, {"model": network.make, "objective": "class:0", "steps": 1},
        {"model": MODEL, "objective": GOAL, "steps": counts(none=True), "seed": SEED, "batch_size": BATCH, "device": DEVICE, "callbacks": CALLBACKS,
         "param": PARAM, "transforms": TRANSFORMS, "size": SIZE, "lr": LR_NONE, "precision": PRECISION,
         "quality": pool(["fast", "best"], ["", "nope", None, 3, *JUNK]), "schedule": pool([None, "cosine", lambda p: 1.0], ["", "nope", 3, []]),
         "redirect": pool([0, 1], [-1, 1.5, "1", None, True, 10**20, *JUNK]), "settings": pool([None, fv.Settings()], [3, {}, fv.DreamSettings(), "x", *JUNK[:3]]),
         "optimizer": pool([None, torch.optim.SGD], [3, "adam", [], {}]), "nonsense": pool([], [1, None])},
    ),
    "optimize": (
        fv.optimize, {"model": network.make, "objective": fv.class_logit(0), "seeds": [1], "steps": 1},
        {"objective": pool([fv.class_logit(1)], [None, 3, [], fv.channel("no", 1), *JUNK], ("class:0",)),
         "seeds": pool([[0], (3,), [1, 2]], [[], None, ["a"], [1.5], [True], [10**20], "12", {}, *JUNK], (3, range(2))),
         "samples": counts(), "tile": pool([None, 8], [0, -1, 1.5, "8", True, 10**20, *JUNK], (1, 2)), "micro": pool([None, 1, 2], [0, -1, 1.5, "8", True, *JUNK]),
         "keep": pool(["last", "best"], ["", None, "first", 3, *JUNK]), "until": pool([None, fv.class_logit(1)], [3, [], "x y", *JUNK], ("class:0",)),
         "resume": pool([None], [3, "x", {}, *JUNK[:3]]), "steps": counts(none=True), "callbacks": CALLBACKS, "param": PARAM, "transforms": TRANSFORMS,
         "model": pool([network.make()], [None, 3, torch.nn.Identity(), *JUNK], ("tests.fuzz.network:make",))},
    ),
    "dream": (
        fv.dream, {"model": network.make, "image": PICTURES[:1], "objective": "layer:first", "octaves": 1, "steps": 1},
        {"model": MODEL, "image": IMAGE, "objective": GOAL, "octaves": counts(), "steps": counts(), "guide": pool([None, PICTURES[0]], [3, "missing.png", PICTURES * 255, [], *JUNK]),
         "mask": pool([None, torch.ones(16, 16)], [3, "missing.png", torch.ones(16, 16) * 2, torch.ones(5, 3, 16, 16), [], *JUNK]), "lr": LR, "octave_scale": reals([1.4, 2], [1, 0, -1, 0.5, 1e300]),
         "jitter": pool([None, 0, 2, 0.5], [-1, "1", [], True, float("nan"), float("inf"), *JUNK]), "colors": pool(["free", "preserve"], ["", None, 3, *JUNK]),
         "tile": pool([None, 16], [0, 1, -1, 1.5, "8", True, 10**20, *JUNK]), "seed": SEED, "batch_size": BATCH, "device": DEVICE, "precision": PRECISION, "transforms": TRANSFORMS},
    ),
    "attack": (
        fv.attack, {"model": network.make, "images": SMALL, "steps": 1},
        {"model": MODEL, "images": IMAGE, "away": pool([None, 0, "class:1", fv.class_logit(2), [1]], ["", 9, -1, 1.5, "nope:1", [], [1, 2], {}, *JUNK]),
         "norm": pool(["linf", "l2"], ["", None, "l3", 2, *JUNK]), "eps": pool([0.1, "4/255", "min", 1], [0, -1, 2, "", "1/", None, [], [0.1], float("nan"), float("inf"), "1/0", *JUNK], (True,)),
         "steps": counts(), "step_size": LR_NONE, "method": pool(["pgd", "fgsm"], ["", None, "cw", 3, *JUNK], ("apgd",)), "loss": pool(["ce", "dlr"], ["", None, "mse", 3, *JUNK]),
         "restarts": counts(), "eot": counts(), "transforms": TRANSFORMS, "seed": SEED, "batch_size": counts(), "device": DEVICE, "precision": PRECISION,
         "eight_bit": pool([None, True, False], ["x", 3, []]), "random_start": pool([True, False], ["x", None, []]), "early_exit": pool([True, False], ["x", None, []]),
         "universal": pool([True, False], ["x", None, []])},
    ),
    "patch_attack": (
        fv.patch_attack, {"model": network.make, "images": SMALL, "to": 1, "size": 4, "steps": 1},
        {"images": IMAGE, "to": pool([1, "class:1"], ["", 9, -1, "nope", [], {}, *JUNK]), "size": pool([4, (3, 4)], [0, -1, 99, "4", 1.5, (4,), None, [], True, *JUNK]),
         "steps": counts(), "lr": LR, "degrees": reals([20, 0], [-1, 1e300, 361]), "scale": pool([(0.9, 1.1)], [3, (2, 1), (0, 1), (-1, 1), None, "x", (1,), (float("nan"), 1), (1, float("inf")), *JUNK]),
         "loss": pool(["ce"], ["", None, "mse", *JUNK]), "transforms": TRANSFORMS, "batch_size": BATCH, "seed": SEED},
    ),
    "attribute": (
        fv.attribute, {"model": network.make, "image": SMALL, "objective": "class:0", "method": "saliency"},
        {"model": MODEL, "image": IMAGE, "method": pool(["saliency", "auto"], ["", None, "lima", 3, *JUNK]), "objective": GOAL,
         "steps": pool([], NOT_COUNTS[:10]), "sd": pool([], [-1, "x", float("nan"), []]), "cells": pool([], NOT_COUNTS[:10]), "layer": pool([], ["nope", 3, []]), "area": pool([], [-1, 2, "x", float("nan")]),
         "baseline": pool([], ["pink", float("nan"), [], {}, torch.zeros(3)]), "seed": SEED, "batch_size": BATCH, "device": DEVICE, "precision": PRECISION, "size": SIZE},
    ),
    "occlusion": (
        fv.attribute, {"model": network.make, "image": SMALL, "objective": "class:0", "method": "occlusion", "cells": 2},
        {"cells": pool([2, 4], [0, -1, 1.5, "2", [], True, 10**20, float("nan"), *JUNK]), "baseline": pool(["blur", "black", 0.5, SMALL], ["", "pink", [], 7.0, -1, float("nan"), torch.zeros(3), SMALL * 255, *JUNK]), "seed": SEED},
    ),
    "examples": (
        fv.examples, {"model": network.make, "images": list(PICTURES), "objective": "class:0"},
        {"model": MODEL, "images": DATASET, "objective": GOAL, "k": counts(), "seed": pool([0, 3], ["0", 1.5, None, [], True, 10**20, *JUNK]), "batch_size": BATCH, "device": DEVICE, "precision": PRECISION,
         "fraction": reals([0.5], [-1, 2]), "sample": pool([0, 2], [-1, 1.5, "x", None, True, 10**20, *JUNK])},
    ),
    "check": (
        fv.check, {"model": network.make, "objective": "class:0", "steps": 1, "seeds": 1, "randomize": False},
        {"objective": GOAL, "seeds": counts(), "k": counts(), "judges": pool([None, [network.make()]], [3, "x", ["nope"], [3], {}, *JUNK[:3]], ([],)), "images": IMAGES, "seed": pool([0], ["0", None, 1.5, [1, 2], *JUNK]),
         "result": pool([None], [3, "x", {}, []]), "steps": counts(none=True), "batch_size": BATCH, "transforms": TRANSFORMS},
    ),
    "calibrate": (
        fv.calibrate, {"dataset": list(PICTURES), "size": 8},
        {"dataset": DATASET, "size": pool([8, (8, 9)], [0, -1, "8", None, 1.5, (0, 8), (), 10**9, True, *JUNK]), "channels": pool([3], [0, -1, 1.5, "3", None, 10**9, True, *JUNK], (1,))},
    ),
    "Model": (
        fv.Model, {"net": network.Tiny, "size": 8},
        {"net": pool([torch.nn.Identity()], [None, 3, "x", [], {}]), "mean": pool([None, 0.5, (0.1, 0.2, 0.3)], ["x", float("nan"), (1, 2), [], "0.5", *JUNK]), "std": pool([None, 0.5, (1, 1, 1)], ["x", 0, -1, float("nan"), (1, 2), [], float("inf"), *JUNK]),
         "range": pool([(0, 1), (-1, 1), (0, 255)], [(1, 0), 3, None, "ab", (0,), (0, float("inf")), *JUNK]), "size": pool([8, (8, 9)], [0, -1, "8", None, 1.5, (), (0, 8), ("a",), True, 10**20, *JUNK]),
         "channels": pool([None, 3], [0, -1, 1.5, "3", [], True, 10**20, *JUNK]), "classes": pool([None, ["a", "b", "c"]], [3, [3], *JUNK[:2]], ("abc",)), "logits": pool(["output", "head"], ["nope", 3, None, "", [], *JUNK]),
         "axes": pool([None, {}, {"head": 1}], [3, "x", {"head": "a"}, {3: 1}, [1], *JUNK[:2]], ({"nope": 1},)), "order": pool([None, (2, 1, 0)], [(0, 0, 1), (0,), 3, "abc", *JUNK]), "name": pool([None, "x"], [3, [], {}])},
    ),
    "load": (fv.load, {"name": "tests.fuzz.network:make"}, {"name": pool(["tests.fuzz.network:make"], ["", None, 3, "a" * 1000, "\0", ":", "x.pt2", [], *JUNK])}),
    "invert": (
        fv.invert, {"steps": 1},
        {"images": IMAGE, "param": pool([], [None, 3, fv.param.Fourier(), "gan:faces", *JUNK]), "steps": counts(none=True), "seed": pool([0], ["0", None, 1.5, *JUNK]), "lr": LR},
    ),
    "atlas": (
        fv.atlas, {"model": network.make, "layers": "first", "out": "atlas", "units": "0:1", "signs": "+", "steps": 1},
        {"model": MODEL, "layers": pool(["first", ["act"], "fir*"], ["nope", [], None, 3, [3], "", *JUNK]), "out": pool(["atlas", Path("b")], ["", None, 3, [], *JUNK]),
         "units": pool(["0:2", [0, 1], range(2)], ["x", [99], [-1], [1.5], 1.5, [], "", ["a"], *JUNK], (None, 1)), "signs": pool(["+-", ["-"]], ["", "x", [], 3, None, [3]]), "seeds": pool([0, [0, 1]], ["0", 1.5, [], None, [10**20], *JUNK]),
         "encoding": pool(["png", "webp"], ["", None, "jpg", 3, *JUNK]), "workers": pool([0], [-1, 1.5, "2", None, True, 10**20, *JUNK]), "objective": pool([None, "neuron:{layer}:{unit}"], [3, "", "{", "x", "{0}", [], Unfriendly()]),
         "images": IMAGES, "batch_size": BATCH, "device": DEVICE, "on_stored": pool([(), [lambda rows: None]], [3, [3]]), "callbacks": CALLBACKS},
    ),
}  # fmt: skip


@st.composite
def calls(draw) -> Case:
    """Draw a call of which one argument may be anything."""
    verb = draw(st.sampled_from(sorted(VERBS)))
    function, usual, pools = VERBS[verb]
    chosen = draw(st.permutations(sorted(pools)))[: draw(st.integers(1, 3))]
    strange, arguments, sensible = chosen[0], {}, True
    for name in chosen:
        strategy = pools[name]
        if name != strange:
            if name in usual:
                continue
            strategy = strategy.filter(lambda a: a.sensible is not False)
            if verb in ("attribute", "invert") and name in (
                "steps",
                "sd",
                "cells",
                "layer",
                "area",
                "baseline",
                "param",
            ):
                continue
            if name == "nonsense":
                continue
        argument = draw(strategy)
        arguments[name] = argument
        sensible = (
            False
            if False in (sensible, argument.sensible)
            else (None if None in (sensible, argument.sensible) else True)
        )
    if sensible and (len(arguments) > 1 or verb in ("invert", "Model")):
        sensible = None  # together they may not fit

    def run(folder: Path) -> None:
        keywords = {
            k: v() if callable(v) and k in ("model", "net") else v for k, v in usual.items()
        }
        if verb == "invert":
            keywords |= {
                "param": fv.param.Latent(
                    generator=torch.nn.Sequential(
                        torch.nn.Linear(4, 192), torch.nn.Unflatten(1, (3, 8, 8))
                    ),
                    latent=(4,),
                ),
                "images": SMALL,
            }
        keywords |= {name: a.value for name, a in arguments.items()}
        result = function(**keywords)
        _check(result)

    text = ", ".join(f"{name}={a.text}" for name, a in arguments.items())
    return Case("call", f"{verb}({text})", sensible, run)


def _check(result: Any) -> None:
    """Images are finite and in [0, 1], scores are numbers, or the result says what failed."""
    images = getattr(result, "images", None)
    drawn = isinstance(images, torch.Tensor) and not getattr(result, "failures", None)
    if drawn and not (images.isfinite().all() and images.min() >= 0 and images.max() <= 1):
        raise BrokenPromiseError(f"images from {images.min()} to {images.max()}")
    if isinstance(result, fv.Model):
        result.layers()
