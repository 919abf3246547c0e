"""Make the README's first image: docs/images/first.png.

python scripts/readme_picture.py
"""

from pathlib import Path

import featviz as fv

CLASSES = (
    *("volcano", "daisy", "flamingo", "goldfish", "Egyptian cat", "pizza"),
    *("racer", "bee", "castle"),
)
CHANNELS = ("channel:_blocks.4:10", "channel:_blocks.10:5", "channel:_blocks.13:40")


def main() -> None:
    model = fv.load("efficientnet_lite0")
    goals = [*map(fv.class_logit, CLASSES), *map(fv.objective, CHANNELS)]
    result = fv.render(model, goals, device="auto", progress=True)
    folder = Path(__file__).parent.parent / "docs" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    result.save(folder / "first.png", columns=6)


if __name__ == "__main__":
    main()
