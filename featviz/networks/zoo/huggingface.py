"""Image classifiers on the Hugging Face hub, through transformers."""

from __future__ import annotations

from featviz.errors import ModelError
from featviz.networks.model import Model
from featviz.networks.zoo._need import have, need
from featviz.networks.zoo.processor import measured

DESCRIPTION = "image classifiers on the Hugging Face hub, through transformers"
INSTALL = "pip install transformers"


def installed() -> bool:
    """Return whether transformers is installed."""
    return have("transformers")


def load(name: str) -> Model:
    """Return the hub's image classifier ``name`` (``google/vit-base-patch16-224``, …).

    Its preprocessing is that of the processor, with every field (rescaling, offsets, normalization,
    BGR): it is measured, and checked on a random image.

    Raises
    ------
    ModelError
        If it cannot be loaded, or its preprocessing cannot be matched.
    """
    library = need("transformers", INSTALL, f"model 'hf:{name}'")
    try:
        net = library.AutoModelForImageClassification.from_pretrained(name).eval()
        processor = library.AutoImageProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"cannot load model 'hf:{name}': {reason}") from error
    labels = net.config.id2label
    return Model(
        net,
        classes=[labels[i] for i in sorted(labels)],
        logits="output[logits]",
        **measured(processor, f"hf:{name}"),
    )
