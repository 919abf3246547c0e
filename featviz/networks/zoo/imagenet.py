"""Constants of the ImageNet-1k networks."""

from __future__ import annotations

import functools
from importlib import resources

#: The mean and standard deviation of ImageNet's training images, RGB in [0, 1].
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@functools.cache
def class_names() -> tuple[str, ...]:
    """Return the names of ImageNet's 1,000 classes: the first WordNet lemma of each synset.

    Two names each refer to two classes: crane (134 the bird, 517 the machine) and maillot
    (638, 639).
    """
    text = (
        resources.files("featviz.networks.zoo").joinpath("imagenet_classes.txt").read_text("utf-8")
    )
    return tuple(text.splitlines())
