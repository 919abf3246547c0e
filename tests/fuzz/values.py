"""Values of options as they are typed, each with whether it makes sense."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import strategies as st


class Value(NamedTuple):
    text: str
    sensible: bool | None


def either(good: str | list[str], bad: list[str], open_: tuple[str, ...] = ()) -> st.SearchStrategy:
    """Draw a sensible value in about half of the cases; ``open_`` ones may go either way."""
    good = good.split() if isinstance(good, str) else good
    strategies = [st.sampled_from([Value(g, True) for g in good])] if good else []
    strategies.append(st.sampled_from([Value(b, False) for b in bad]))
    if open_:
        strategies.append(st.sampled_from([Value(o, None) for o in open_]))
    return st.one_of(strategies)


def depends(good: str, bad: list[str]) -> st.SearchStrategy:
    """Draw like :func:`either`, where what is sensible depends on other options."""
    return either([], bad, tuple(good.split()))


HUGE = "9" * 20
WORDS = [
    "abc",
    "1.5.2",
    "--",
    "None",
    "[]",
    "é",
    "\0",
    "\ud800",
    "1 2",
    "%s",
    "${x}",
    "💥",
    "'",
    '"',
]
#: What is never a whole number.
NOT_WHOLE = ["", " ", "nan", "inf", "-inf", "1e3", "1.5", "0x10", *WORDS]
NOT_REAL = ["", " ", "nan", "inf", "-inf", "1e309", "1,5", "0x1p", *WORDS]

count = either("1 2 3", ["0", "-1", "-999", HUGE, "-" + HUGE, "1000001", *NOT_WHOLE], ("1_0", "٣"))
steps = count
redirect = either("0 1 3", ["-1", HUGE, "1000001", *NOT_WHOLE])
rate = either("0.05 1 1e-3", ["0", "-1", "1e300", "-0.0", *NOT_REAL])
size = either(
    "8 12 8x12 9x7",
    [
        "0",
        "-8",
        "3x",
        "x3",
        "8x",
        "8x8x8",
        "9999999",
        "99999x99999",
        "8.5",
        "8*8",
        "0x8",
        "8x0",
        *NOT_REAL,
    ],
)
longer = either("8 12 16", ["0", "-1", HUGE, "999999", *NOT_WHOLE])
transforms = either(
    ["none", "standard", "lucid", "jitter:2", "jitter:0.1,noise:0.1", "rotate:5,scale:0.9:1.1", "pad:2",
     "pad:2:gray", "crop:0.9", "roll:3", "channel_noise:0.1", "noise", "background"],
    ["", " ", ",", "nonsense", "jitter:", "jitter:nan", "jitter:inf", "jitter:-1", "rotate:1e308", "rotate:-5",
     "rotate:1:2:3", "scale:0", "scale:-1:1", "scale:2:1", "pad:999999", "pad:-3", "pad:2:nocolour", "noise:inf",
     "noise:-1", "crop:0", "crop:-1", "crop:99", "jitter:2,", "jitter:2;noise", "standard,none", "jitter=2",
     "jitter:1e308", "noise:1e300", "roll:1e99", "channel_noise:-1", "channel_noise:1e308", *WORDS],
)  # fmt: skip
param = either(
    ["fourier", "pixel", "laplacian", "maco", "cppn", "fourier:decay=1.2", "alpha", "alpha:laplacian"],
    ["", " ", "nonsense", "fourier:", "fourier:decay=", "fourier:decay=nan", "fourier:decay=1e400",
     "fourier:decay=x", "fourier:foo=1", "fourier:decay", "alpha:alpha", "alpha:", "gan", "gan:", "gan:nope",
     "fourier:stats=missing.safetensors", "fourier:stats=", "pixel:sd=-1", "pixel:sd=inf", "fourier,pixel",
     "fourier:size=8", *WORDS],
)  # fmt: skip
opaque = either(
    ["fourier", "pixel", "fourier:decay=1.2"], ["alpha", "nonsense", "fourier:decay=nan"]
)
quality = either("fast standard best lucid", ["draft", "", "FAST ", "fast,best", "0", *WORDS])
schedule = either("constant cosine", ["linear", "", "0", "cosine:3", *WORDS])
precision = either("fp32 bf16", ["fp8", "", "float", "32", *WORDS], ("fp16",))
device = either(
    "cpu auto", ["gpu", "", "meta", "cpu:x", "xla", "cuda:99", "cuda:-1", "mps:7", *WORDS], ("cuda", "mps", "cpu:1")
)  # fmt: skip
one_seed = either("0 5 -3", [HUGE, "-" + HUGE, *NOT_WHOLE])
seeds = either("0 7 -3 0,1", ["1,", ",", "0,,1", "0;1", HUGE, "0," + HUGE, *NOT_WHOLE])
seeds_of_one = either("0 7 -3", ["1,", ",", "0,1,2,3,4,5", "0;1", HUGE, *NOT_WHOLE])
goal = either(
    ["class:0", 'class:"sea bird"', "channel:first:1", "neuron:first:0", "layer:first", "-channel:first:1",
     "channel:first:1 - 0.5*channel:first:0", "class:0 - 0.1*l1", "mean(class:0, class:1)", "probability:2", "class:0*class:1",
     "direction:first:[1,0,2,1]", "neuron:first:0:1:1", "ramp(0,1)*class:1", "class:0 + total_variation", "margin:1",
     'direction:first:"vector.npy"', "log_probability:0", "angled_direction:first:[1,0,0,0]:[0,1,0,0]", "2*class:1/4"],
    ["class:3", "class:-1", "class:99999999999999999999", "class:walrus", "class:", "class", "channel:nope:1",
     "channel:first:99", "channel:first:-1", "channel:first", "channel:first:1.5", "channel:first:nan", "neuron:first:0:99:0", "", " ",
     "(", ")", "((class:1)", "class:1 +", "class:1 class:2", "1e999", "class:0/0", "class:0/class:1", "5", "1 - 1", "ramp(0,1)",
     "mean()", "ramp()", "direction:first:[]", "direction:first:[1,2]", "direction:first:[nan,0,0,0]",
     'direction:first:"missing.npy"', 'direction:first:"matrix.npy"', 'direction:first:"words.npy"', 'direction:first:"text.png"',
     "class:0:1:2:3", "nonsense:1", "class:0**2", "1/class:0", 'class:"bird', "channel:first:1:reduce=nonsense", "layer:first:where=3",
     "interpolate(class:0)", "text_match:cat", "class:0*1e999", "channel:first:1:foo=2", "array:000000000000000000000000",
     'caricature:first:"missing.png"', 'style_match:first:"text.png"', "l2:nan", "head:first:0:0", "head:first:9:2", *WORDS],
)  # fmt: skip
class_goal = either(
    ["class:0", "class:2"],
    ["class:3", "class:-1", "class:", "class", "nonsense", "", " ", "5", "channel:nope:1", *WORDS],
)
picture = either(
    ["rgb.png", "gray.png", "rgba.png", "palette.gif", "photo.jpg", "deep.png", "cmyk.jpg", "odd.png"],
    ["missing.png", "empty.png", "text.png", "cut.png", "bomb.png", "pipe.png", "folder", "", ".", "/dev/null", "/dev/zero",
     "vector.npy", "/proc/self/mem", "http://localhost/a.png", "x" * 300, "rgb.png\0", "net.pt2", *WORDS],
)  # fmt: skip
output = either(
    ["out.png", "out.jpg", "sub/out.png", "./out.PNG", "with space.png", "é.png", "out.webp"],
    ["", " ", "out", "nosuch/out.png", "out.xyz", "out.hdf", "out.wmf", "sub", "sub/", ".", "..", "/", "/dev/null", "/proc/out.png",
     "x" * 300 + ".png", "out.png/", "out\0.png", "rgb.png/out.png", "out.svg", "out.pdf.", "/sys/out.png", "~nobody/out.png"],
    (".png", "..png"),
)  # fmt: skip
log = either(["logs", "sub/logs"], ["", "rgb.png", "rgb.png/logs", "/proc/logs", "/dev/null", "\0"])
images = either(
    ["pictures", "rgb.png", "mixed"],
    [
        "missing",
        "",
        "empty",
        "text.png",
        "empty.png",
        "pipe.png",
        "/dev/zero",
        "vector.npy",
        "/proc/self/mem",
        *WORDS,
    ],
)
model = either(
    ["tests.fuzz.network:make"],
    ["", "efficientnet_lite9", "nonsense", "tests.fuzz.network", "tests.fuzz.network:", "tests.fuzz.network:nope",
     "tests.fuzz.network:broken", "tests.fuzz.network:leaves", "tests.fuzz.network:number", "nope:make", ":", "a:b:c", "sys:exit",
     "missing.pt2", "text.pt2", "empty.pt2", "hf:", "timm:", "torchvision:", "../x:make", "x" * 500, "tests.fuzz.network:make ",
     "tests.fuzz.network:raises", *WORDS],
    ("tests.fuzz.network:odd_output",),
)  # fmt: skip
