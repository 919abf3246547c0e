"""A blind naming: images without labels, in random order, and the score of a list of guesses.

    python benchmarks/blind.py make blind/ --classes 50          # 01.png, 02.png, … and key.json
    python benchmarks/blind.py make blind/ --settings '{"quality": "lucid"}'
    python benchmarks/blind.py score blind/ guesses.txt    # one line an image: 01 tabby, tiger cat

Whoever guesses must not have seen key.json. A line may have several guesses, separated by commas,
and a last number from 1 to 5 for how natural the image looks. A guess is right if it is a name of
the class or, case aside, contains it or is contained in it.
"""

import argparse
import json
import random
import re
from pathlib import Path

from picture_measures import NETWORKS, clipped, high_frequencies, recognition
from quality import CLASSES

import featviz as fv
from featviz.io.sheets import to_pil


def make(options: argparse.Namespace) -> None:
    model = fv.load(options.model)
    classes = list(CLASSES[: options.classes])
    random.Random(options.shuffle).shuffle(classes)
    settings = json.loads(options.settings)
    result = fv.render(model, [fv.class_logit(c) for c in classes], progress=True, **settings)
    options.folder.mkdir(parents=True, exist_ok=True)
    key = {}
    for number, (index, image) in enumerate(zip(classes, result.images, strict=True), 1):
        to_pil(image).save(options.folder / f"{number:02}.png")
        key[f"{number:02}"] = [index, model.classes[index]]
    document = {"model": options.model, "settings": result.settings, "key": key}
    (options.folder / "key.json").write_text(json.dumps(document, indent=1))
    print(f"{len(key)} images in {options.folder}; the key is in key.json")
    for judge in (name for name in NETWORKS if name != options.model):
        top, probability = recognition(result.images, classes, judge)
        print(f"{judge}: {top} of {len(classes)}, mean probability {probability:.3f}")
    print(
        f"power above 0.15 cycles a pixel {high_frequencies(result.images):.3f}, "
        f"clipped {clipped(result.images):.4f}"
    )


def is_right(guess: str, name: str) -> bool:
    guess = guess.strip().casefold()
    names = [n.strip().casefold() for n in name.split(",")]
    return len(guess) > 2 and any(guess in n or n in guess for n in names)


def score(options: argparse.Namespace) -> None:
    key = json.loads((options.folder / "key.json").read_text())["key"]
    first = within = 0
    naturalness = []
    guessed = {}
    for line in options.guesses.read_text().splitlines():
        match = re.match(r"\s*(\d+)[\s:.]+(.*)", line)
        if match:
            guessed[f"{int(match[1]):02}"] = [part.strip() for part in match[2].split(",")]
    for number, (_, name) in key.items():
        guesses = guessed.get(number, [])
        if guesses and re.fullmatch(r"[1-5](\.\d+)?", guesses[-1]):
            naturalness.append(float(guesses.pop()))
        right = [is_right(g, name) for g in guesses]
        first += right[:1] == [True]
        within += any(right)
        if right[:1] != [True]:
            print(f"{number}: {name!r} was taken for {', '.join(guesses) or 'nothing'}")
    line = f"{first} of {len(key)} at the first guess, {within} among all guesses"
    if naturalness:
        line += f"; naturalness {sum(naturalness) / len(naturalness):.1f} of 5"
    print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(required=True)
    maker = verbs.add_parser("make")
    maker.add_argument("folder", type=Path)
    maker.add_argument("--model", default="efficientnet_lite0")
    maker.add_argument("--classes", type=int, default=50)
    maker.add_argument("--settings", default="{}", help="keywords of fv.render, as JSON")
    maker.add_argument("--shuffle", type=int, default=0, help="the seed of the order")
    maker.set_defaults(run=make)
    scorer = verbs.add_parser("score")
    scorer.add_argument("folder", type=Path)
    scorer.add_argument("guesses", type=Path)
    scorer.set_defaults(run=score)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
