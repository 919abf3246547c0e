"""The sections of ``gpu.py``: each yields the rows of its table, one as soon as it is measured."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import torch
from networks import load
from peers import Bare, Dreamlens, LucidStyle, MissingPeerError, now
from step_time import Featviz

import featviz as fv

LAYER = "_blocks.10"

Row = dict[str, object]


class Clock:
    """The time that a section has left."""

    def __init__(self, seconds: float) -> None:
        self.end = time.perf_counter() + seconds

    @property
    def left(self) -> float:
        return max(self.end - time.perf_counter(), 0.0)

    @property
    def over(self) -> bool:
        return self.left == 0


def set_precision(precision: str) -> str:
    """Switch tf32 on or off; return the precision that featviz is asked for."""
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    return "fp32" if precision == "tf32" else precision


class BareHalf(Bare):
    """The bare pass under autocast."""

    def __init__(self, *args, dtype: torch.dtype, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.dtype = dtype

    def step(self) -> None:
        with torch.autocast(self.device.type, self.dtype):
            super().step()


def loops(options, model, channels, precision: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the names of the contenders, and how each is built."""
    place = (model, LAYER, channels, options.size)
    settings = {"precision": set_precision(precision)}
    if settings["precision"] == "fp32":
        yield "bare", lambda: Bare(*place)
    else:
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        yield "bare", lambda: BareHalf(*place, dtype=dtype)
    yield "featviz", lambda: Featviz(*place, **settings)
    yield "featviz compiled", lambda: Featviz(*place, compile=True, **settings)
    if precision == "fp32":
        yield "featviz untraced", lambda: Featviz(*place, steps=31, **settings)
        yield "lucid-style", lambda: LucidStyle(*place)
        yield "dreamlens batched", lambda: Dreamlens(*place, batched=True)


def steps(options, clock: Clock) -> Iterator[Row]:
    """Time a step of every loop; the bare pass of the same batch and precision is 1."""
    model = load("lite0", options.device)
    units = model.layer(LAYER).units
    # What matters most comes first, for a device on which the time is short.
    cases = [(batch, p) for p in options.precisions for batch in options.batches]
    for batch, precision in cases:
        channels = [7 * i % units for i in range(batch)]
        bare = None
        for name, build in loops(options, model, channels, precision):
            if clock.over:
                return
            if name == "featviz compiled" and batch not in options.compiled:  # half a minute each
                continue
            if options.device != "cpu":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            try:
                loop = build()
                loop.times(1, 0)
                seconds = statistics.median(loop.times(options.steps, options.skip))
            except (MissingPeerError, torch.OutOfMemoryError) as reason:
                line = str(reason).splitlines()[0][:60]
                yield {"batch": batch, "precision": precision, "loop": name, "ms": line}
                continue
            bare = seconds if name == "bare" else bare
            yield {
                "batch": batch,
                "precision": precision,
                "loop": name,
                "ms": f"{1000 * seconds:.3f}",
                "x bare": f"{seconds / bare:.2f}" if bare else "",
                "MiB": "" if options.device == "cpu" else torch.cuda.max_memory_allocated() >> 20,
            }
    set_precision("fp32")


def syncs(options, clock: Clock) -> Iterator[Row]:
    """Run steps in which waiting for the device is an error, then count waits in a profile."""
    model = load("lite0", options.device)
    first, last = options.skip + 1, options.skip + options.steps
    cuda = options.device != "cpu"
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] if cuda else []
    profile = torch.profiler.profile(activities=activities)
    for kind in ("debug mode", "profiler"):

        def watch(step: fv.callbacks.Step, kind: str = kind) -> None:
            if step.index == first:
                torch.cuda.set_sync_debug_mode("error") if kind == "debug mode" and cuda else None
                profile.start() if kind == "profiler" else None
            if step.index == last:
                torch.cuda.set_sync_debug_mode("default") if cuda else None
                profile.stop() if kind == "profiler" else None

        outcome = "none"
        try:
            fv.render(
                model,
                [fv.channel(LAYER, c) for c in range(2)],
                size=options.size,
                steps=max(last + 3, 40),
                redirect=0,
                callbacks=[watch],
            )
        except RuntimeError as error:
            outcome = str(error).splitlines()[0][:80]
        finally:
            torch.cuda.set_sync_debug_mode("default") if cuda else None
        if kind == "profiler":
            found = [e for e in profile.key_averages() if "Synchronize" in e.key]
            outcome = ", ".join(f"{e.key} {e.count}" for e in found) or "none"
        yield {"by": kind, f"waits in {options.steps} steps": outcome}


def equality(options, clock: Clock) -> Iterator[Row]:
    """Compare images with those that the CPU makes from the same settings."""
    model = load("lite0")
    goals = [fv.channel("_blocks.4", 10), fv.channel(LAYER, 5), fv.class_logit(985)]
    for count in (1, 8, 32):
        pair = [
            fv.render(model, goals, size=96, steps=count, device=device)
            for device in ("cpu", options.device)
        ]
        distance = (pair[0].images - pair[1].images.cpu()).abs()
        scores = [r.scores.cpu() for r in pair]
        relative = ((scores[0] - scores[1]) / scores[0].abs()).abs().max()
        yield {
            "steps": count,
            "mean difference": f"{float(distance.mean()):.5f}",
            "largest": f"{float(distance.max()):.4f}",
            "largest relative difference of scores": f"{float(relative):.4f}",
        }


def layer(options, clock: Clock) -> Iterator[Row]:
    """Render every channel of a layer and count images a minute, compilation included."""
    model = load("lite0", options.device)
    count = 2 if options.dry_run else model.layer(LAYER).units
    goals = [fv.channel(LAYER, c) for c in range(count)]
    for compiled, precision in ((False, "fp32"), (False, "tf32"), (True, "tf32"), (True, "bf16")):
        if clock.over:
            return
        given = set_precision(precision)
        start = now(model.device)
        fv.render(
            model,
            goals,
            steps=options.layer_steps,
            size=options.size,
            compile=compiled and not options.dry_run,
            precision=given,
            batch_size=len(goals),
        )
        minutes = (now(model.device) - start) / 60
        yield {
            "images": count,
            "steps": options.layer_steps,
            "compiled": "yes" if compiled and not options.dry_run else "no",
            "precision": precision,
            "images a minute": f"{count / minutes:.0f}",
        }
    set_precision("fp32")


def others(options, clock: Clock) -> Iterator[Row]:
    """Time an attack, an attribution and a dream, and the first two of the other libraries."""
    model = load("lite0", options.device)
    batch = max(b for b in options.batches if b <= 32)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch, 3, *model.size, generator=generator).to(model.device)
    labels = model(images).argmax(1)
    goals = [fv.class_logit(int(k)) for k in labels]
    eps, count = 1 / 255, options.steps

    def timed(name: str, library: str, call: Callable[[], object]) -> Row:
        call()
        start = now(model.device)
        call()
        seconds = (now(model.device) - start) / batch
        return {"what": name, "library": library, "ms an image": f"{1000 * seconds:.2f}"}

    attack = {"eps": eps, "steps": count, "random_start": False}
    yield timed("PGD", "featviz", lambda: fv.attack(model, images, away=goals, **attack))
    if clock.over:
        return
    try:
        import foolbox

        wrapped = foolbox.PyTorchModel(model.as_module(), bounds=(0, 1), device=model.device)
        pgd = foolbox.attacks.LinfPGD(steps=count, random_start=False)
        yield timed("PGD", "foolbox", lambda: pgd(wrapped, images, labels, epsilons=[eps]))
    except ImportError:
        yield {"what": "PGD", "library": "foolbox", "ms an image": "not installed"}
    points = options.points
    yield timed(
        "integrated gradients",
        "featviz",
        lambda: fv.attribute(model, images, goals, method="integrated_gradients", steps=points),
    )
    try:
        from captum.attr import IntegratedGradients

        ig = IntegratedGradients(model.as_module())
        yield timed(
            "integrated gradients",
            "captum",
            lambda: ig.attribute(images, target=labels, n_steps=points, internal_batch_size=64),
        )
    except ImportError:
        yield {"what": "integrated gradients", "library": "captum", "ms an image": "not installed"}
    yield timed("DeepDream", "featviz", lambda: fv.dream(model, images, steps=count, octaves=2))


def tests(options, clock: Clock) -> Iterator[Row]:
    """Run the tests that are skipped without a CUDA device."""
    if options.dry_run:
        yield {"tests": "not in a dry run"}
        return
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-k", "cuda", "tests/test_engine.py"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=clock.left)
        yield {"tests": done.stdout.strip().splitlines()[-1] if done.stdout else done.stderr[-200:]}
    except subprocess.TimeoutExpired:
        yield {"tests": f"not finished within {clock.left:.0f} s"}


SECTIONS = {f.__name__: f for f in (steps, syncs, equality, layer, others, tests)}
