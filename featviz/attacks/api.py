"""Adversarial examples: move given pictures within a ball until a network sees something else."""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from featviz._version import __version__
from featviz.attacks import criterion as aims
from featviz.attacks.algorithms import METHODS
from featviz.attacks.criterion import Wish
from featviz.attacks.radius_search import smallest
from featviz.attacks.restarts import Plan, distance, restarted
from featviz.attacks.result import AttackResult
from featviz.errors import FeatvizError, FeatvizWarning
from featviz.networks import devices
from featviz.networks.model import Model
from featviz.optim.callbacks import Callback, Progress, Step
from featviz.optim.evaluator import Traces
from featviz.optim.result import Result
from featviz.optim.tracing import PAYS
from featviz.param.balls import NORMS
from featviz.seeds import expand
from featviz.transforms import Transform
from featviz.transforms.presets import check as check_transforms
from featviz.types import Precision, Seed, Tensor

_FIRST = {"linf": 1 / 255, "l2": 0.5, "l1": 8.0}


def attack(
    model: Model,
    images: Tensor,
    *,
    away: Wish = None,
    to: Wish = None,
    norm: str = "linf",
    eps: float | str = 4 / 255,
    steps: int = 20,
    step_size: float | None = None,
    method: str = "pgd",
    loss: str = "ce",
    restarts: int = 1,
    random_start: bool = True,
    transforms: Sequence[Transform] | str = (),
    eot: int = 1,
    early_exit: bool = True,
    universal: bool = False,
    eight_bit: bool | None = None,
    batch_size: int = 16,
    seed: Seed = 0,
    device: str | torch.device | None = None,
    precision: Precision = "fp32",
    traced: bool | Traces | None = None,
    callbacks: Sequence[Callback | Callable[[Step], Any]] = (),
    progress: bool = False,
) -> AttackResult:
    """Return pictures no further than ``eps`` from ``images`` that the network takes otherwise.

    Parameters
    ----------
    model
        From :func:`featviz.load` or :class:`featviz.Model`.
    images
        Floats (B, C, *size) in [0, 1]; the network's normalization comes after them.
    away, to
        What the picture shall no longer be, and what instead: a class (an index or
        ``fv.class_logit(…)``) or any other objective, which is then simply lowered or raised;
        one for all, or a list. With neither, away from what the network predicts.
    norm, eps
        The ball: ``linf``, ``l2`` or ``l1`` and its radius, in image units, a number or a text such
        as ``"4/255"``; ``"min"`` searches, for each picture, the smallest that succeeds.
    steps, step_size, method
        How it moves; see :data:`featviz.attacks.algorithms.METHODS`: ``pgd`` with steps of
        2.5 eps / steps, ``fgsm``, ``ifgsm``, ``mifgsm``, ``apgd``.
    loss
        What is raised for classes: ``ce``, ``margin`` or ``dlr``.
    restarts
        Runs, the later ones for those pictures that the earlier ones did not succeed with; of a
        universal perturbation's, the one that succeeds with most pictures is returned.
    random_start
        Whether ``pgd`` and ``apgd`` start at a random point of the ball.
    transforms, eot
        What the picture has to survive, and how many draws of it each step takes the mean of:
        expectation over transformations. [Athalye2018]_
    early_exit
        Leave a picture alone as soon as it succeeds; on a GPU this waits for it at each step.
    universal
        One difference for all the pictures, ``result.state["delta"]``. [Moosavi2017]_
    eight_bit
        Let the network see, and return, what an 8-bit file holds, inside the ball in whole
        levels, ``images`` rounded too. By default from ``eps`` of 1/255 on.
    traced
        Trace the network once for the whole attack; by default from 32 steps a picture on. A
        ``featviz.optim.evaluator.Traces()`` keeps the trace for the next attack on the same model.

    batch_size, seed, device, precision, callbacks, progress
        As in :func:`featviz.render`. After Ctrl-C, which ``interrupted`` tells, pictures whose turn
        did not come are those given.

    Raises
    ------
    FeatvizError
        For input that cannot work, before the first step.
    """
    begun = time.perf_counter()
    if not isinstance(model, Model):
        raise FeatvizError("attack takes a featviz.Model: wrap the network, fv.Model(net, mean=…)")
    aims.check_images(model, images, "attack")
    count = len(images)
    least = eps == "min"
    radius = read_eps(_FIRST.get(norm, 1.0) if least else eps, norm, images[0].numel())
    if method not in METHODS:
        raise FeatvizError(f"no method {method!r}: it is {', '.join(METHODS)}")
    if method == "apgd" and (norm == "l1" or universal):
        raise FeatvizError("apgd takes the norms linf and l2, and no universal perturbation")
    if least and universal:
        raise FeatvizError('eps="min" is per picture: give a universal perturbation a number')
    for name, value in (("steps", steps), ("restarts", restarts), ("batch_size", batch_size)):
        if not isinstance(value, int) or value < 1:
            raise FeatvizError(f"{name} must be a positive whole number, not {value!r}")
    if step_size is not None and not step_size > 0:
        raise FeatvizError(f"step_size must be positive, not {step_size}")
    if eight_bit is None:
        eight_bit = radius * 255 >= 1 - 1e-6 and not least
    elif eight_bit and radius * 255 < 1 - 1e-6:
        raise FeatvizError(f"8 bits hold no difference within eps {eps}: it takes at least 1/255")
    steps = METHODS[method].steps or steps
    home = model.on(devices.resolve(device, model.device))
    images = images.detach().cpu().float()
    originals = (images * 255).round() / 255 if eight_bit else images
    if traced is None:
        traced = steps * eot * restarts >= PAYS or least
    traces: Traces | None = traced if isinstance(traced, Traces) else Traces() if traced else None
    aim = aims.aim(home, originals, away, to, loss, batch_size, traces)
    if least and not aim.until:
        raise FeatvizError('eps="min" searches for a class: give away or to a class')
    settings = {
        "version": __version__,
        "verb": "attack",
        "model": model.name,
        "classes": None if model.classes is None else list(model.classes),
        "norm": norm,
        "eps_given": str(eps),
        "steps": steps,
        "step_size": step_size,
        "method": method,
        "loss": loss,
        "restarts": restarts,
        "random_start": random_start,
        "precision": precision,
    }
    plan = Plan(
        model=home,
        norm=norm,
        method=method,
        steps=steps,
        step_size=step_size,
        random_start=random_start,
        eight_bit=eight_bit,
        universal=universal,
        until=early_exit and not universal,
        batch_size=count if universal else batch_size,
        loop={
            "transforms": check_transforms(transforms),
            "samples": eot,
            "precision": precision,
            "traces": traces,
            "callbacks": [*callbacks, Progress()] if progress else list(callbacks),
            "settings": settings,
        },
    )
    seeds = expand(seed, count)
    if least:
        found, radii = smallest(plan, originals, aim, radius, seeds, restarts)
    else:
        radii = torch.full((count,), radius, dtype=torch.float64)
        found = restarted(plan, originals, aim, radii.float(), seeds, restarts)
    result = Result.join(found.results)
    ran = (~result.history.isnan()).sum(0).expand(count)
    used = ran if result.reached is None else torch.where(result.reached < 0, ran, result.reached)
    failures = {i: why for i, why in result.failures.items() if not found.success[i]}
    if failures:
        warnings.warn("; ".join(dict.fromkeys(failures.values())), FeatvizWarning, stacklevel=2)
    whole = {f.name: getattr(result, f.name) for f in dataclasses.fields(Result)}
    whole |= {"failures": failures, "settings": settings | {"goal": str(aim.objective)}}
    return AttackResult(
        **whole,
        originals=originals,
        success=found.success,
        before=aim.before,
        after=found.after,
        norm=distance(result.images, originals, plan),
        eps=radii,
        steps_used=used,
        eight_bit=eight_bit,
        seconds=time.perf_counter() - begun,
    )


def read_eps(eps: float | str, norm: str, numel: int) -> float:
    """Return a radius that is given as a number or as text, ``0.01`` or ``4/255``.

    Raises
    ------
    FeatvizError
        If it is no number, not positive, or reaches beyond every picture.
    """
    if norm not in NORMS:
        raise FeatvizError(f"no norm {norm!r}: it is {', '.join(NORMS)}")
    try:
        above, _, below = str(eps).partition("/")
        value = float(above) / float(below or 1)
    except (ValueError, TypeError, ZeroDivisionError):
        raise FeatvizError(f"eps must be a number such as 4/255, or min, not {eps!r}") from None
    most = {"linf": 1.0, "l2": math.sqrt(numel), "l1": float(numel)}[norm]
    if not 0 < value <= most:
        raise FeatvizError(f"eps must be above 0 and at most {most:g} for {norm}, not {eps}")
    return value
