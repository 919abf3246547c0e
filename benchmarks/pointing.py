"""The pointing game: a stamp at a random place on cluttered ground; does the map point at it?

    python benchmarks/pointing.py --images 16 --methods grad_cam saliency
    python benchmarks/pointing.py --methods lime --json pointing.json  # adds a row

The stamps are those of ``attack_images.txt`` that have transparent surroundings, at half the side
of the image, on the shuffled tiles of scikit-image's photographs; the class is the one that Lite0
sees in the stamp alone, and images in which it is not among the first 50 classes any more are left
out. Hit rates count hottest pixels within 15 pixels of the stamp; by chance, as many as the stamp
with this margin covers. Patterns are fitted to the images themselves.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import attack_images
import numpy as np
import torch
from measures import NAMES
from PIL import Image
from report import machine, markdown

import featviz as fv
from featviz.attribution.measures.heat_statistics import localization, pointing
from featviz.attribution.methods import METHODS
from featviz.io.images import read

SIDE, TILE, MARGIN, RANK = 224, 28, 15, 50
FAST = ("grad_cam", "cam", "layer_cam", "saliency", "smooth_grad_squared", "guided_backprop")


def clutter(photo: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Return an image (3, SIDE, SIDE) of the photograph's tiles in random order."""
    tiles = photo.unfold(1, TILE, TILE).unfold(2, TILE, TILE).flatten(1, 2)
    tiles = tiles[:, torch.randperm(tiles.shape[1], generator=rng)]
    grid = tiles.view(3, SIDE // TILE, SIDE // TILE, TILE, TILE)
    return grid.permute(0, 1, 3, 2, 4).reshape(3, SIDE, SIDE)


def composites(model: fv.Model, most: int) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Return images (B, 3, H, W), masks of the stamps (B, H, W), and their classes."""
    import skimage.data

    folder = Path(skimage.data.__file__).parent
    photos = torch.cat([read(folder / name, 3, model.size) for name in NAMES])
    images, masks, classes = [], [], []
    for name in attack_images.LIST.read_text("utf-8").split():
        if len(images) == most:
            break
        if not name.startswith("stamps/"):
            continue
        with Image.open(attack_images.STAMPS / name.removeprefix("stamps/")) as picture:
            stamp = picture.convert("RGBA")
        stamp.thumbnail((SIDE // 2, SIDE // 2))
        pixels = torch.from_numpy(np.array(stamp)).float().permute(2, 0, 1) / 255
        if pixels[3].mean() > 0.95:
            continue
        rng = torch.Generator().manual_seed(len(images))
        top, left = (
            int(torch.randint(0, SIDE - side + 1, (), generator=rng)) for side in pixels.shape[1:]
        )
        alpha = torch.zeros(1, SIDE, SIDE)
        colour = torch.zeros(3, SIDE, SIDE)
        area = slice(top, top + pixels.shape[1]), slice(left, left + pixels.shape[2])
        alpha[0][area], colour[(slice(None), *area)] = pixels[3], pixels[:3]
        ground = clutter(photos[len(images) % len(photos)], rng)
        image = ground.lerp(colour, alpha)
        whole = read(attack_images.STAMPS / name.removeprefix("stamps/"), 3, model.size)
        with torch.no_grad():
            klass = int(model(whole).argmax())
            rank = int((model(image[None])[0] > model(image[None])[0, klass]).sum())
        if rank < RANK:
            images.append(image)
            masks.append(alpha[0] > 0.5)
            classes.append(klass)
    return torch.stack(images), torch.stack(masks), classes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--methods", nargs="*", default=list(FAST))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    warnings.filterwarnings("ignore", ".*has no evidence")
    model = fv.load("efficientnet_lite0")
    images, masks, classes = composites(model, given.images)
    near = torch.nn.functional.max_pool2d(masks[:, None].float(), 2 * MARGIN + 1, 1, MARGIN)
    rows = {}
    if given.json and given.json.exists():
        rows = json.loads(given.json.read_text("utf-8"))["pointing"]
    chance = {"hits": near.mean().item(), "precision": masks.float().mean().item()}
    rows |= {"by chance": chance}
    for name in given.methods:
        begun = time.perf_counter()
        options = {"data": images} if name == "pattern_attribution" else {}
        goals = [fv.class_logit(c) for c in classes]
        heat = fv.attribute(model, images, goals, method=name, **options).pixels
        rows[name] = {
            "hits": pointing(heat, masks, tolerance=MARGIN).mean().item(),
            "precision": localization(heat, masks).mean().item(),
            "seconds": (time.perf_counter() - begun) / len(images),
        }
        print(name, rows[name], flush=True)
        if given.json:
            content = {"machine": machine(), "pointing": rows}
            given.json.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    order = ["by chance", *(name for name in METHODS if name in rows)]
    table = [
        [f"`{n}`" if n in METHODS else n, f"{rows[n]['hits']:.2f}", f"{rows[n]['precision']:.2f}",
         f"{rows[n]['seconds']:.1f}" if "seconds" in rows[n] else ""]
        for n in order
    ]  # fmt: skip
    print(f"{len(images)} images")
    print(markdown(["method", "hit rate", "average precision", "s an image"], table))


if __name__ == "__main__":
    main()
