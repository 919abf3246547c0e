"""Command lines of every verb."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.fuzz import values
from tests.fuzz.cases import Case, command
from tests.fuzz.values import Value

FLAG = st.just(Value("", True))
#: Settings of every verb that renders.
RENDERED = {
    "--param": values.param,
    "--transforms": values.transforms,
    "--quality": values.quality,
    "--size": values.size,
    "--lr": values.rate,
    "--schedule": values.schedule,
    "--redirect": values.redirect,
    "--precision": values.precision,
}
SHARED = {"--batch-size": values.count, "--device": values.device, "-q": FLAG, "--json": FLAG}
PLACE = {"-o": values.output}
#: For each verb: positional arguments, options that are always given (with a value that keeps it
#: short), and options that may be given.
VERBS: dict[str, tuple[list, dict[str, tuple[str, object]], dict[str, object]]] = {
    "models": ([], {}, {"--json": FLAG}),
    "layers": ([values.model], {}, {"--json": FLAG}),
    "render": (
        [values.model, values.goal],
        {"--steps": ("2", values.steps)},
        {**RENDERED, **SHARED, **PLACE, "--seed": values.seeds, "--columns": values.count, "--alpha": FLAG,
         "--separate": FLAG, "--tensorboard": values.log},
    ),
    "dream": (
        [values.model, values.picture],
        {"--steps": ("1", values.steps), "--octaves": ("2", values.either("1 2", ["0", "-1", values.HUGE, *values.NOT_WHOLE]))},
        {**SHARED, **PLACE, "--objective": values.goal, "--guide": values.picture, "--mask": values.picture,
         "--octave-scale": values.either("1.4 1.2 2", ["1", "0", "-1", "0.5", "1e300", *values.NOT_REAL]),
         "--lr": values.rate, "--jitter": values.either("0 4 0.2", ["-1", "1e300", *values.NOT_REAL]),
         "--transforms": values.transforms, "--colors": values.either("free preserve", ["", "blue", *values.WORDS]),
         "--tile": values.either("16 32", ["0", "1", "-3", values.HUGE, *values.NOT_WHOLE]),
         "--precision": values.precision, "--size": values.longer, "--seed": values.one_seed},
    ),
    "dream --video": (
        [values.model, values.picture],
        {"--steps": ("1", values.steps), "--octaves": ("1", values.count), "--frames": ("2", values.count),
         "--video": ("out.gif", values.either("out.gif out.webp", ["", "out", "out.png", "nosuch/out.gif", "out.avi", "\0", "/proc/a.gif"]))},
        {"--fps": values.either("1 24", ["0", "-1", "1e300", *values.NOT_REAL], ("1000",)),
         "--zoom": values.either("1.02 0.9", ["0", "-1", "1e300", *values.NOT_REAL]),
         "--rotate": values.either("0 3 -5", ["1e300", "361", *values.NOT_REAL]), "--device": values.device, "-q": FLAG},
    ),
    "attack": (
        [values.model, values.picture],
        {"--steps": ("2", values.steps)},
        {**SHARED, **PLACE, "--away": values.class_goal, "--norm": values.either("linf l2 l1", ["", "l3", "linf,l2", *values.WORDS]),
         "--eps": values.either("4/255 0.1 min", ["0", "-1", "1/", "/255", "4/0", "inf", "nan", "1/2/3", "1e300", *values.WORDS, ""]),
         "--step-size": values.rate, "--method": values.either("pgd fgsm ifgsm mifgsm", ["", "cw", *values.WORDS], ("apgd",)),
         "--loss": values.either("ce margin dlr", ["", "mse", *values.WORDS]), "--restarts": values.count,
         "--transforms": values.transforms, "--eot": values.count, "--precision": values.precision, "--size": values.size,
         "--seed": values.seeds_of_one, "--separate": FLAG},
    ),
    "attack --patch": (
        [values.model, values.picture],
        {"--steps": ("2", values.steps), "--patch": ("4", values.either("3 4 4x3", ["0", "-1", "99", "4x", "9999999", *values.NOT_REAL])),
         "--to": ("class:1", values.class_goal)},
        {**SHARED, **PLACE, "--loss": values.either("ce margin dlr", ["", "mse"]), "--seed": values.seeds_of_one, "--separate": FLAG},
    ),
    "explain": (
        [values.model, values.picture],
        {"--method": ("saliency", values.either("saliency occlusion auto grad_cam integrated_gradients smooth_grad", ["", "lima", "Saliency", *values.WORDS]))},
        {**SHARED, **PLACE, "--objective": values.goal, "--baseline": values.either(["blur"], ["", "pink", "nan", "inf", *values.WORDS], ("black", "mean", "0.5")),
         "--steps": values.depends("3", ["0", "-1", values.HUGE, *values.NOT_WHOLE]),
         "--cells": values.depends("4", ["0", "-1", values.HUGE, *values.NOT_WHOLE]),
         "--layer": values.depends("act", ["nope", "", *values.WORDS]), "--sd": values.depends("0.1", ["-1", *values.NOT_REAL]),
         "--area": values.depends("0.2", ["-1", "0", "2", *values.NOT_REAL]), "--kind": values.depends("preserve", ["", "keep"]),
         "--precision": values.precision, "--check": FLAG, "--size": values.size, "--seed": values.seeds_of_one},
    ),
    "atlas": (
        [values.model, values.either(["first", "act", "fir*"], ["nope", "", "*nope*", "[", "\0", "first,act", *values.WORDS])],
        {"--steps": ("1", values.steps), "-o": ("atlas", values.either(["atlas", "sub/atlas", "é"], ["", "rgb.png", "rgb.png/x", "/proc/atlas", "\0", "nosuch://x", "x" * 300, "/dev/null"])),
         "--units": ("0:2", values.either(["0:2", "1", "0,2", "0:4:2"], ["", "x", "9", "-1", "0:", "2:0", "0:9", "0:2:0", "0:2:-1", "1.5", values.HUGE, "0:" + values.HUGE, "0:2:3:4", *values.WORDS], (":", ":2")))},
        {**RENDERED, "--images": values.images, "--signs": values.either("+- + -", ["", "*", "+x", "plus", *values.WORDS], ("++",)),
         "--seeds": values.either("0 0,1 3", ["", ",", "x", "1.5", values.HUGE, *values.WORDS]),
         "--objective": values.either(["channel:{layer}:{unit}", "neuron:{layer}:{unit}"], ["", "{", "{}", "{nope}", "class:0", "channel:{layer}", "{layer.__class__}", "{unit:999999999999d}", "{0}", "channel:{layer}:{unit!r:>9999999999}", *values.WORDS]),
         "--encoding": values.either("png webp", ["", "jpg", "PNG ", *values.WORDS]), "--beside": FLAG,
         "--tensorboard": values.log, "--batch-size": values.count, "--device": values.device, "-q": FLAG, "--json": FLAG},
    ),
    "examples": (
        [values.model, values.images],
        {"--objective": ("class:0", values.goal)},
        {**SHARED, **PLACE, "-k": values.count, "--precision": values.precision},
    ),
    "check": (
        [values.model, values.goal],
        {"--steps": ("1", values.steps), "--seeds": ("1", values.either("1 2", ["0", "-1", values.HUGE, "1001", *values.NOT_WHOLE])), "--no-randomize": ("", FLAG)},
        {**RENDERED, "--param": values.opaque, **SHARED, **PLACE, "--images": values.images, "-k": values.either("1 2", ["0", "-1", values.HUGE, *values.NOT_WHOLE]),
         "--seed": values.one_seed, "--judges": values.either(["tests.fuzz.network:make"], ["", "nope", "x:y", "sys:exit", *values.WORDS])},
    ),
    "view": ([values.either(["stored"], ["missing", "", "rgb.png", "empty", "/dev/null", "\0", "nosuch://x", *values.WORDS])], {"--no-open": ("", FLAG)}, {"-q": FLAG}),
    "calibrate": (
        [values.images],
        {"-o": ("s.safetensors", values.either(["s.safetensors", "sub/s.safetensors"], ["", "s", "s.npy", "nosuch/s.safetensors", "/proc/s.safetensors", "\0.safetensors", "x" * 300 + ".safetensors"])),
         "--size": ("8", values.size)},
        {"--gray": FLAG, "-q": FLAG},
    ),
}  # fmt: skip
#: Objectives that look at nothing a method could attribute, or at a whole batch.
_DEPENDS = (
    "ramp(",
    "total_variation",
    "l1",
    "bird",
    "layer:",
    "mean(",
    "*class",
    "direction",
    "neuron",
    "-channel",
)


@st.composite
def lines(draw) -> Case:
    """Draw a command line: usually sensible but for an option or two."""
    verb = draw(st.sampled_from(sorted(VERBS)))
    arguments, always, optional = VERBS[verb]
    count = draw(st.integers(0, 3))
    chosen = draw(st.permutations(sorted(optional)))[: min(count, len(optional))]
    strange = draw(st.sampled_from([*always, *chosen, *range(len(arguments)), None]))
    words, sensible = [verb.split()[0]], True

    def word(strategy, name) -> Value:
        # One value in a line may be anything; of the others, only sense is drawn.
        return draw(
            strategy if name == strange else strategy.filter(lambda v: v.sensible is not False)
        )

    for name in [*always, *chosen]:
        strategy = always[name][1] if name in always else optional[name]
        usual = name in always and name != strange
        value = Value(always[name][0], True) if usual else word(strategy, name)
        words += [name] if strategy is FLAG else [name, value.text]
        sensible = _and(sensible, value.sensible)
    positional = [word(strategy, i) for i, strategy in enumerate(arguments)]
    for value in positional:
        sensible = _and(sensible, value.sensible)
    texts = [v.text for v in positional]
    words += ["--"] * any(t.startswith("-") for t in texts) + texts
    if sensible and _combined(verb, words):
        sensible = None
    if any(w.startswith("--") and w not in {*always, *optional} for w in words[1:]):
        sensible = None  # a value that became an option
    return Case("command line", repr(words), sensible, lambda _: command(words))


def _and(one: bool | None, other: bool | None) -> bool | None:
    if one is False or other is False:
        return False
    return None if one is None or other is None else True


def _combined(verb: str, words: list[str]) -> bool:
    """Whether sensible values may not go together."""
    text = " ".join(words)
    if verb in ("explain", "attack", "attack --patch", "dream", "dream --video"):
        return True  # methods refuse options of others, tiles sizes, norms radii
    if verb in ("check", "atlas", "examples") and any(d in text for d in _DEPENDS):
        return True
    several = "--seed" in words and "," in words[words.index("--seed") + 1]
    return any(
        [several, "--transforms" in words, "--size" in words, "--param" in words, "--alpha" in words,
         "fp16" in words, "bf16" in words, "--judges" in words, "ramp(" in text, "--beside" in words]
    )  # fmt: skip
