"""The sheet of a check: a class in the company of other seeds, its negative and real images.

Writes docs/images/check.png (a minute on one core); the folder is one of natural images:

    python scripts/check_picture.py stamps/
"""

import sys
from pathlib import Path

import featviz as fv

UNIT = "class:130"


def main() -> None:
    model = fv.load("efficientnet_lite0")
    found = fv.check(model, UNIT, images=sys.argv[1], steps=256, progress=True)
    print(found)
    found.save(Path(__file__).parent.parent / "docs" / "images" / "check.png")


if __name__ == "__main__":
    main()
