"""Is it the method or the network that counts a cat's eyes against it?

Hides parts of a photograph and prints the logit of "Egyptian cat" of three networks, for three
baselines (a minute on one core):

    python benchmarks/hidden_eyes.py
"""

import skimage.data
import torch
from PIL import Image

import featviz as fv
from featviz.attribution.baselines import baseline
from featviz.io import decode

#: Top, left, bottom, right of parts of the photograph, 224 x 336 pixels.
LEFT, RIGHT = (62, 98, 114, 156), (76, 215, 124, 262)
PARTS = {
    "nothing": (),
    "one eye": (LEFT,),
    "the other eye": (RIGHT,),
    "both eyes": (LEFT, RIGHT),
    "the face": ((0, 20, 224, 275),),
}
NETWORKS = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
BASELINES = ("mean", "blur", "black")


def hidden(photograph: torch.Tensor, boxes: tuple[tuple[int, ...], ...], name: str) -> torch.Tensor:
    """Return the photograph with boxes replaced by a baseline."""
    replaced, infill = photograph.clone(), baseline(name, photograph)
    for top, left, bottom, right in boxes:
        box = (..., slice(top, bottom), slice(left, right))
        replaced[box] = infill[box]
    return replaced


def main() -> None:
    photograph = decode.from_pil(Image.fromarray(skimage.data.chelsea()), 3, (224, 336))
    networks = [fv.load(name) for name in NETWORKS]
    goal = fv.class_logit("Egyptian cat")
    print(f"| hidden | {' | '.join(NETWORKS)} |\n|---|---|---|---|")
    for part, boxes in PARTS.items():
        cells = []
        for network in networks:
            with torch.no_grad():
                scores = [goal(network, hidden(photograph, boxes, b)).item() for b in BASELINES]
            cells.append(" / ".join(f"{s:.1f}" for s in (scores if boxes else scores[:1])))
        print(f"| {part} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
