"""The photographs that the attacks are measured on: those that Lite0 is sure of.

scikit-image's colour photographs, and of the stamps of Tux Paint those with many colours, which
are photographs and not drawings, on a plain ground. The names of those that the network gives a
probability above 0.5 are written to ``attack_images.txt``, which later runs read.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from featviz.io.images import read

LIST = Path(__file__).with_name("attack_images.txt")
STAMPS = Path("/usr/share/tuxpaint/stamps")
#: Distinct colours from which on a stamp is taken for a photograph.
COLOURS = 2000
SURE = 0.5


def _folders() -> dict[str, Path]:
    import skimage.data

    return {"skimage": Path(skimage.data.__file__).parent, "stamps": STAMPS}


def _candidates() -> list[str]:
    names = [f"skimage/{n}" for n in ("chelsea.png", "coffee.png", "rocket.jpg", "astronaut.png")]
    for path in sorted(STAMPS.rglob("*.png")):
        with Image.open(path) as picture:
            small = picture.convert("RGB").resize((96, 96))
        if len(np.unique(np.array(small).reshape(-1, 3), axis=0)) >= COLOURS:
            names.append(f"stamps/{path.relative_to(STAMPS)}")
    return names


def load(model, count: int) -> tuple[list[str], torch.Tensor]:
    """Return the names and images (B, 3, H, W) of ``count`` photographs, in a fixed order."""
    folders = _folders()

    def picture(name: str) -> torch.Tensor:
        folder, _, rest = name.partition("/")
        return read(folders[folder] / rest, 3, model.size)

    if LIST.exists():
        names = LIST.read_text("utf-8").split()
    else:
        names = []
        for name in _candidates():
            if model(picture(name)).softmax(1).max() > SURE:
                names.append(name)
        LIST.write_text("\n".join(names) + "\n", "utf-8")
    names = names[:count]
    return names, torch.cat([picture(name) for name in names])
