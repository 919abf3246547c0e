"""Image classifiers on the Hugging Face hub, through transformers."""

from __future__ import annotations

from featviz.errors import ModelError
from featviz.networks.model import Model
from featviz.networks.zoo import imagenet
from featviz.networks.zoo._need import have, need

DESCRIPTION = "image classifiers on the Hugging Face hub, through transformers"
INSTALL = "pip install transformers"


def installed() -> bool:
    """Return whether transformers is installed."""
    return have("transformers")


def load(name: str) -> Model:
    """Return the hub's image classifier ``name`` (``google/vit-base-patch16-224``, …)."""
    library = need("transformers", INSTALL, f"model 'hf:{name}'")
    try:
        net = library.AutoModelForImageClassification.from_pretrained(name).eval()
        processor = library.AutoImageProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"cannot load model 'hf:{name}': {reason}") from error
    size = getattr(processor, "crop_size", None) or processor.size
    height = size.get("height") or size.get("shortest_edge") or 224
    labels = net.config.id2label
    return Model(
        net,
        mean=getattr(processor, "image_mean", imagenet.MEAN),
        std=getattr(processor, "image_std", imagenet.STD),
        size=(height, size.get("width", height)),
        classes=[labels[i] for i in sorted(labels)],
        logits="output[logits]",
    )
