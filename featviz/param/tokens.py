"""Soft tokens: texts as probabilities of words at each position."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from featviz.errors import FeatvizError
from featviz.param.base import Param, check_unit_range
from featviz.seeds import generator
from featviz.types import Self, State, Tensor

#: The logit of a word that is ruled out: its probability is exactly 0, and so is its gradient.
_RULED_OUT = -1e4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens(Param):
    """Texts (B, words, length): softmax(logits / ``temperature``) over the words, axis 1.

    The state is the logits; they start as noise of standard deviation ``sd``. With ``hard`` the
    image is the most probable word, one-hot, and has the gradient of the softmax (straight
    through), so that the network sees texts only. [Bengio2013]_, [Jang2017]_ without its Gumbel
    noise.

    For :class:`featviz.TextModel`, whose images are one-hot texts.

    Raises
    ------
    FeatvizError
        If ``temperature`` is not positive, or ``sd`` negative.
    """

    temperature: float = 1.0
    hard: bool = False
    sd: float = 0.1
    start: Tensor | None = dataclasses.field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise FeatvizError(f"temperature must be positive, not {self.temperature}")
        if not self.sd >= 0:
            raise FeatvizError(f"sd must not be negative, not {self.sd}")

    def init(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> State:
        if self.channels is None:
            raise FeatvizError("Tokens needs channels: the number of words")
        shape = (self.channels, *self.shape)
        noise = [torch.randn(shape, generator=generator(s, "param")) for s in seeds]
        logits = torch.stack(noise) * self.sd
        if self.start is not None:
            if len(self.start) not in (1, len(seeds)):
                raise FeatvizError(f"{len(self.start)} starting texts for {len(seeds)} samples")
            logits += (self.start.float().log() * self.temperature).clamp_min(_RULED_OUT)
        return {"logits": logits.to(device).requires_grad_()}

    def image(self, state: State) -> Tensor:
        soft = (state["logits"] / self.temperature).softmax(1)
        if not self.hard:
            return soft
        one_hot = torch.zeros_like(soft).scatter(1, soft.argmax(1, keepdim=True), 1.0)
        return one_hot + (soft - soft.detach())  # exactly one-hot

    def from_image(self, images: Tensor) -> Self:
        """Return this parameterization starting at probabilities (B or 1, words, *size).

        Words of probability 0 keep it. There is no noise, ``sd=0``.

        Raises
        ------
        FeatvizError
            If the images do not sum to 1 over the words, or have another size or number of words.
        """
        check_unit_range(images, "from_image: probabilities")
        if not torch.allclose(images.sum(1), torch.ones(())):
            raise FeatvizError("from_image: the probabilities of the words must sum to 1, axis 1")
        if self.channels not in (None, images.shape[1]):
            raise FeatvizError(f"texts have {images.shape[1]} words to choose, not {self.channels}")
        size = tuple(images.shape[2:])
        if self.size is not None and size != self.shape:
            raise FeatvizError(f"texts have length {size}, not {self.shape}")
        start = images.detach().cpu()
        return dataclasses.replace(self, size=size, channels=images.shape[1], start=start, sd=0.0)
