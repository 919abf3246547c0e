"""Three units as transparent images, without and with a price on opacity.

Writes docs/images/alpha.png:

    python scripts/transparent_pictures.py
"""

from pathlib import Path

import featviz as fv

UNITS = ("channel:_blocks.10:5", 'class:"daisy"', 'class:"goldfish"')


def main() -> None:
    model = fv.load("efficientnet_lite0")
    plain = [fv.objective(text) for text in UNITS]
    sparing = [goal * (1 - fv.channel("image", 3)) for goal in plain]
    made = fv.render(
        model, plain + sparing, param="alpha", size=192, steps=256, seed=[0] * 6, progress=True
    )
    for text, cover in zip(made.objectives, made.images[:, 3].mean((1, 2)).tolist(), strict=True):
        print(f"{text}  opaque {cover:.0%}")
    made.save(Path(__file__).parent.parent / "docs" / "images" / "alpha.png", columns=len(UNITS))


if __name__ == "__main__":
    main()
