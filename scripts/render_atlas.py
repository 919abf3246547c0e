"""Render the units of some layers into an atlas: featviz's Python API, as you would use it.

python scripts/render_atlas.py -o atlas --layers _blocks.4 _blocks.10 --units 0:32 --steps 128

Run again, it goes on where it ended. ``featviz view atlas`` makes the pages to look at it.
"""

import argparse

import featviz as fv


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--layers", nargs="+", default=["_blocks.4", "_blocks.10"])
    parser.add_argument("--units", default=None, help="all, or 0:32")
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--examples", default=None, help="a folder of images")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("-o", "--output", default="atlas")
    options = parser.parse_args()

    model = fv.load(options.model)
    atlas = fv.atlas(
        model,
        options.layers,
        out=options.output,
        units=options.units,
        steps=options.steps,
        images=options.examples,
        workers=options.workers,
        device="auto",
        progress=True,
    )
    print(atlas)
    for layer in atlas.layers:
        first = atlas.units(layer)[0]
        entry = atlas[layer, first]
        print(
            f"{layer}: {len(atlas.units(layer))} units; unit {first}: {entry.record['score']:.2f}"
        )


if __name__ == "__main__":
    main()
