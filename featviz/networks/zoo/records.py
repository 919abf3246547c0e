"""What networks say of their own preprocessing: timm's, torchvision's, open_clip's, processors."""

from __future__ import annotations

from typing import Any

from torch import nn

from featviz.errors import ModelError
from featviz.networks.zoo import imagenet
from featviz.networks.zoo.processor import measured


def declared(net: nn.Module, source: Any = None) -> dict[str, Any]:
    """Return the arguments of :class:`featviz.Model` that follow from a network and ``source``.

    ``source`` is a weights entry of torchvision (``ResNet50_Weights.DEFAULT``), a Hugging Face
    processor, or None if the network itself carries the record, as those of timm
    (``pretrained_cfg``) and open_clip (``preprocess_cfg``) do.

    Raises
    ------
    ModelError
        If there is no such record.
    """
    name = type(net).__name__
    spec = _of_config(net)
    if source is not None and callable(getattr(source, "transforms", None)):
        return spec | of_weights(source)
    if source is not None and callable(source):
        return spec | measured(source, name)
    if source is not None:
        raise ModelError(
            f"cannot read preprocessing from {type(source).__name__}: give weights of torchvision "
            "or a processor of transformers"
        )
    if isinstance(getattr(net, "pretrained_cfg", None), dict):
        return of_timm(net)
    visual: Any = getattr(net, "visual", net)
    if isinstance(getattr(visual, "preprocess_cfg", None), dict):
        return of_open_clip(visual.preprocess_cfg)
    if hasattr(net, "config"):
        raise ModelError(f"{name} says nothing of its images: fv.Model.of(net, processor)")
    raise ModelError(
        f"{name} says nothing of its images: fv.Model.of(net, weights) with torchvision's, or "
        "fv.Model(net, mean=…, std=…, size=…)"
    )


def of_weights(weights: Any) -> dict[str, Any]:
    """Return what a weights entry of torchvision declares."""
    recipe = weights.transforms()
    cropped = _sides(getattr(recipe, "crop_size", 224))
    resized = getattr(recipe, "resize_size", None)
    return {
        "mean": tuple(getattr(recipe, "mean", imagenet.MEAN)),
        "std": tuple(getattr(recipe, "std", imagenet.STD)),
        "size": cropped,
        "classes": weights.meta.get("categories"),
        "crop": min(1.0, min(cropped) / min(_sides(resized))) if resized else 1.0,
    }


def of_timm(net: nn.Module) -> dict[str, Any]:
    """Return what ``pretrained_cfg`` of a timm network declares."""
    config: Any = net.pretrained_cfg
    channels, *size = config.get("input_size") or (3, 224, 224)
    patches = getattr(getattr(net, "patch_embed", None), "img_size", None)
    if isinstance(patches, tuple):  # made for another size than its weights
        size = list(patches)
    # Made for fewer channels: the numbers are those of RGB.
    first = next((m for m in net.modules() if isinstance(m, nn.Conv2d)), None)
    taken = channels if first is None else first.in_channels
    known = getattr(net, "num_classes", 0) == 1000 and config.get("num_classes", 1000) == 1000
    mean, std = config.get("mean", imagenet.MEAN), config.get("std", imagenet.STD)
    return {
        "mean": mean if taken == len(mean) else sum(mean) / len(mean),
        "std": std if taken == len(std) else sum(std) / len(std),
        "size": tuple(size),
        "channels": taken,
        "classes": imagenet.class_names() if known else None,
        "crop": config.get("crop_pct") or 1.0,
    }


def of_open_clip(config: dict[str, Any]) -> dict[str, Any]:
    """Return what ``preprocess_cfg`` of an open_clip image tower declares."""
    return {
        "mean": config.get("mean", imagenet.MEAN),
        "std": config.get("std", imagenet.STD),
        "size": _sides(config.get("size", 224)),
    }


def _of_config(net: nn.Module) -> dict[str, Any]:
    """Return the class names and the logits of a Hugging Face classifier."""
    labels = getattr(getattr(net, "config", None), "id2label", None)
    if not isinstance(labels, dict) or not type(net).__name__.endswith("Classification"):
        return {}
    return {"classes": [labels[i] for i in sorted(labels)], "logits": "output[logits]"}


def _sides(size: Any) -> tuple[int, int]:
    if isinstance(size, int):
        return (size, size)
    sides = tuple(int(side) for side in size)
    return (sides[0], sides[-1])
