"""Make the README's first picture: docs/images/first.png.

python scripts/readme_picture.py
"""

from pathlib import Path

import featviz as fv

OBJECTIVES = [
    "channel:_blocks.4:10",
    "channel:_blocks.10:5",
    "channel:_blocks.13:40",
    'class:"Egyptian cat"',
    'class:"daisy"',
    'class:"bee"',
    "-channel:_blocks.4:10",
    "-channel:_blocks.10:5",
    "-channel:_blocks.13:40",
    'class:"flamingo"',
    'class:"golden retriever"',
    'class:"zebra"',
]


def main() -> None:
    model = fv.load("efficientnet_lite0")
    result = fv.render(model, fv.objective(OBJECTIVES), steps=512, device="auto", progress=True)
    folder = Path(__file__).parent.parent / "docs" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    result.save(folder / "first.png", columns=6)


if __name__ == "__main__":
    main()
