"""How far does optimizing a latent raise an objective above what random latents give?

    python benchmarks/latents.py --save latents.png

Two class logits for gan:faces and a channel for gan:eyes, on EfficientNet-Lite0 at 112 px: the
mean and deviation over 1,000 random latents, and the optimized image's distance in deviations.
"""

import argparse

import torch

import featviz as fv

CASES = (
    ("gan:faces", "class:457"),  # bow tie
    ("gan:faces", "class:837"),  # sunglasses
    ("gan:eyes:label=blue", "channel:_blocks.10:5"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--random", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--save", help="write the optimized images")
    options = parser.parse_args()
    model = fv.load("efficientnet_lite0")
    made = []
    for name, text in CASES:
        objective = fv.objective(text)
        param = fv.param.parse(name).sized(3, (112, 112))
        values = []
        for start in range(0, options.random, 20):
            with torch.no_grad():
                images = param.image(param.init(range(10_000 + start, 10_020 + start)))
                values.append(objective(model, images))
        random = torch.cat(values)
        result = fv.render(
            model, objective, param=param, steps=options.steps, transforms="noise:0.03"
        )
        score = result.scores.item()
        distance = (score - random.mean().item()) / random.std().item()
        print(
            f"{name:20} {text:22} random {random.mean():.2f} +- {random.std():.2f} "
            f"(best {random.max():.2f}), optimized {score:.2f}: {distance:.1f} deviations"
        )
        made.append(result)
    if options.save:
        fv.Result.join(made).save(options.save)


if __name__ == "__main__":
    main()
