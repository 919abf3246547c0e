"""Make the README's first image: docs/images/first.png.

python scripts/readme_picture.py
"""

from pathlib import Path

import featviz as fv

CHANNELS = ("channel:_blocks.4:10", "channel:_blocks.10:5", "channel:_blocks.13:40")
CLASSES = ("Egyptian cat", "daisy", "bee", "golden retriever", "flamingo", "zebra")


def main() -> None:
    model = fv.load("efficientnet_lite0")
    units = [fv.objective(text) for text in CHANNELS]
    natural = 20 * fv.batchnorm_match()  # keeps activations as they are on photographs
    classes = [fv.class_logit(name) + natural for name in CLASSES]
    goals = [*units, *classes[:3], *(-unit for unit in units), *classes[3:]]
    result = fv.render(model, goals, steps=384, device="auto", progress=True)
    folder = Path(__file__).parent.parent / "docs" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    result.save(folder / "first.png", columns=6)


if __name__ == "__main__":
    main()
