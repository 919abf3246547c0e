"""The same four units under every parameterization: docs/images/parameterizations.png.

    python scripts/parameterization_sheet.py

Same seed, steps and size; prints score and seconds an image.
"""

import time
from pathlib import Path

import featviz as fv

UNITS = ("channel:_blocks.4:10", "channel:_blocks.10:5", 'class:"daisy"', 'class:"bee"')
PARAMS = ("fourier", "pixel", "laplacian", "maco", "cppn", "gan:eyes")


def main() -> None:
    model = fv.load("efficientnet_lite0")
    goals = [fv.objective(text) for text in UNITS]
    parts = []
    print("parameterization   seconds  " + "  ".join(UNITS))
    for name in PARAMS:
        begun = time.perf_counter()
        made = fv.render(model, goals, param=name, size=160, steps=128, seed=[0] * 4, progress=True)
        seconds = (time.perf_counter() - begun) / len(UNITS)
        made.objectives = [
            f"{name}  {text}  score {score:.1f}"
            for text, score in zip(UNITS, made.scores.tolist(), strict=True)
        ]
        parts.append(fv.Result(made.images, made.scores, made.history, made.objectives, made.seeds))
        print(f"{name:18} {seconds:7.1f}  " + "  ".join(f"{s:8.2f}" for s in made.scores.tolist()))
    sheet = fv.Result.join(parts)
    sheet.settings = {"version": fv.__version__}
    folder = Path(__file__).parent.parent / "docs" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    sheet.save(folder / "parameterizations.png", columns=len(UNITS))


if __name__ == "__main__":
    main()
