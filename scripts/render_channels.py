"""Render the first channels of a layer to one sheet: featviz's Python API, as you would use it.

python scripts/render_channels.py --layer _blocks.10 --count 16 -o channels.png
"""

import argparse

import featviz as fv


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--layer", default="_blocks.10")
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--steps", type=int, default=256)
    parser.add_argument("-o", "--output", default="channels.png")
    options = parser.parse_args()

    model = fv.load(options.model)
    units = model.layer(options.layer).units
    channels = [fv.channel(options.layer, c) for c in range(min(options.count, units))]
    result = fv.render(model, channels, steps=options.steps, device="auto", progress=True)
    result.save(options.output)
    print(
        f"{options.output}: mean activations {result.scores.min():.2f} to {result.scores.max():.2f}"
    )


if __name__ == "__main__":
    main()
