"""Networks of words: one-hot texts are their images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from featviz.errors import FeatvizError, ModelError, did_you_mean, shorten
from featviz.networks.model import Model
from featviz.types import Tensor
from featviz.validation import positive_int


class _WithWords:
    """Calls a network of integer tokens with texts (B, words, length) of one-hot or soft words.

    The embedding returns the mean of the words' vectors by their probabilities; elsewhere, such as
    in masks of padding, the network sees the most probable words.
    """

    def __init__(self, embedding: str, call: Callable[[Any, Tensor], Any] | None) -> None:
        self.embedding, self.call = embedding, call

    def __call__(self, net: Any, texts: Tensor) -> Any:
        tokens = texts.argmax(1)
        table = net.get_submodule(self.embedding)

        def look_up(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            if output.shape[:-1] != tokens.shape:
                raise ModelError(
                    f"embedding {self.embedding!r} was given tokens of shape "
                    f"{tuple(output.shape[:-1])}, not (B, length) = {tuple(tokens.shape)}: name "
                    f"the one that takes the words, or say call=lambda net, tokens: …"
                )
            return texts.transpose(1, 2) @ table.weight

        # First of all hooks: what others see of this layer is what the network goes on with.
        handle = table.register_forward_hook(look_up, prepend=True)
        try:
            return net(tokens) if self.call is None else self.call(net, tokens)
        finally:
            handle.remove()


class TextModel(Model):
    """A network of integer tokens as a :class:`featviz.Model`: its images are one-hot texts.

    An image is (B, words, length), the probability of each word at each position, and the network's
    embedding returns the mean of the words' vectors by it: objectives, attribution and gradients
    are by word and position. The network is called with integers as ever, and never changed.

    Parameters
    ----------
    net
        A module that takes tokens (B, length), int64.
    embedding
        The name of its ``nn.Embedding`` of words.
    words
        The words, in the order of their tokens; characters count as words.
    length
        The number of words of a text.
    call
        How the network is called, ``call(net, tokens)``, if ``net(tokens)`` does not do.
    **options
        ``classes``, ``logits``, ``axes``, ``name`` of :class:`featviz.Model`.

    Raises
    ------
    ModelError
        If there is no such embedding, or ``words`` are not as many as its rows, or repeat.
    """

    def __init__(
        self,
        net: nn.Module,
        embedding: str,
        words: Sequence[str],
        length: int,
        *,
        call: Callable[[Any, Tensor], Any] | None = None,
        **options: Any,
    ) -> None:
        self.words = _checked_words(net, embedding, words)
        self.embedding = embedding
        length = positive_int("length", length)
        wrapped = _WithWords(embedding, call)
        super().__init__(net, call=wrapped, size=(length,), channels=len(self.words), **options)
        self._index = {word: i for i, word in enumerate(self.words)}

    @property
    def length(self) -> int:
        """The number of words of a text."""
        return self.size[0]

    @property
    def separator(self) -> str:
        """What stands between the words of a text: nothing between characters, else a space."""
        return "" if all(len(word) == 1 for word in self.words) else " "

    def encode(self, *texts: str | Sequence[str]) -> Tensor:
        """Return texts as images (B, words, length), one-hot, on the network's device.

        A text is a string, split at spaces unless all words are characters, or a list of words.

        Raises
        ------
        FeatvizError
            For a word that the network does not know, with similar ones, or another length.
        """
        rows = [self._tokens(text) for text in texts]
        if not rows:
            raise FeatvizError("encode: give at least one text")
        return one_hot(torch.tensor(rows, device=self.device), len(self.words))

    def decode(self, texts: Tensor) -> list[str]:
        """Return the most probable words of texts (B, words, length)."""
        self.check_images(texts)
        return [self.separator.join(self.words[i] for i in row) for row in texts.argmax(1).tolist()]

    def _tokens(self, text: str | Sequence[str]) -> list[int]:
        if isinstance(text, str):
            words = text.split() if self.separator else list(text)
        else:
            words = list(text)
        unknown = next((word for word in words if word not in self._index), None)
        if unknown is not None:
            raise FeatvizError(
                f"the network knows no word {unknown!r}{did_you_mean(str(unknown), self.words)}"
            )
        if len(words) != self.length:
            raise FeatvizError(
                f"a text has {self.length} words, and {shorten(str(text))!r} has {len(words)}: pad "
                f"it, or give fv.TextModel another length"
            )
        return [self._index[word] for word in words]


def one_hot(tokens: Tensor, words: int) -> Tensor:
    """Return texts (B, words, length) of tokens (B, length)."""
    rows: Tensor = nn.functional.one_hot(tokens, words)
    return rows.transpose(1, 2).float()


def _checked_words(net: nn.Module, embedding: str, words: Sequence[str]) -> tuple[str, ...]:
    if not isinstance(net, nn.Module):
        raise ModelError(f"a text model takes an nn.Module, not {type(net).__name__}")
    modules = dict(net.named_modules())
    tables = [name for name, m in modules.items() if isinstance(m, nn.Embedding)]
    if embedding not in tables:
        raise ModelError(
            f"no nn.Embedding {embedding!r} in the network: it has {', '.join(tables) or 'none'}"
        )
    words = tuple(words)
    if not all(isinstance(word, str) and word for word in words) or len(set(words)) < len(words):
        raise ModelError("words must be different texts, in the order of their tokens")
    rows = modules[embedding].num_embeddings
    if len(words) != rows:
        raise ModelError(f"{len(words)} words, and embedding {embedding!r} has {rows} rows")
    return words


__all__ = ["TextModel"]
