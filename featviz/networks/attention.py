"""Attention patterns: softmax(q k^T / sqrt(d)) of each head, wherever a network computes it.

Networks compute them inside ``F.scaled_dot_product_attention``, inside ``nn.MultiheadAttention``,
or by a softmax of their own. The modes here see all three. Where a pattern is captured, the network
goes on with it: fused attention is computed in its two steps then, which changes the output by
rounding only. [Vaswani2017]_
"""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from featviz.types import Tensor

_PRODUCTS = ("matmul", "__matmul__", "bmm", "baddbmm", "einsum")


class PatternMode(TorchFunctionMode):
    """See the attention patterns of a network within the context; subclasses say what is done.

    A softmax over the last axis makes a pattern if what it takes comes, by scaling, masking and the
    like, from a product of two activations.
    """

    def __init__(self) -> None:
        super().__init__()
        self._scores: Any = WeakTensorKeyDictionary()

    def watching(self) -> bool:
        """Return whether patterns are of interest now."""
        return True

    def seen(self, pattern: Tensor) -> Tensor:
        """Take a pattern that a softmax made; return what the network goes on with."""
        raise NotImplementedError

    def fused(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Return what ``F.scaled_dot_product_attention`` is to return."""
        raise NotImplementedError

    def multi_head(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Return what ``F.multi_head_attention_forward`` is to return."""
        raise NotImplementedError

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if not self.watching():
            return function(*args, **kwargs)
        name = str(getattr(function, "__name__", "")).partition(".")[0]  # exported: "softmax.int"
        if name == "scaled_dot_product_attention":
            return self.fused(function, args, kwargs)
        if name == "multi_head_attention_forward":
            return self.multi_head(function, args, kwargs)
        output = function(*args, **kwargs)
        if not isinstance(output, torch.Tensor) or output.ndim < 3:
            return output
        inputs = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
        if name in ("softmax", "_softmax"):
            dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
            last = dim in (-1, output.ndim - 1)
            return self.seen(output) if last and inputs[0] in self._scores else output
        if name in _PRODUCTS:
            operands = inputs[-2:]
            if len(operands) == 2 and not any(isinstance(t, nn.Parameter) for t in operands):
                self._scores[output] = True
        elif any(t in self._scores and t.numel() == output.numel() for t in inputs):
            self._scores[output] = True
        return output


class PatternRecorder(PatternMode):
    """Call ``found`` with the shape of each pattern, and change nothing.

    ``returned`` is called with what ``nn.MultiheadAttention`` returns of one.
    """

    def __init__(
        self, found: Callable[[tuple[int, ...]], None], returned: Callable[[Tensor], None]
    ) -> None:
        super().__init__()
        self.found, self.returned = found, returned

    def seen(self, pattern: Tensor) -> Tensor:
        self.found(tuple(pattern.shape))
        return pattern

    def fused(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        query, key = _fused_arguments(args, kwargs)[:2]
        self.found((*_leading(query, key), query.shape[-2], key.shape[-2]))
        return function(*args, **kwargs)

    def multi_head(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        given = _arguments(args, kwargs)
        queries, keys = len(given["query"]), len(given["key"])
        if given.get("static_k") is not None:
            keys = given["static_k"].shape[1]
        keys += (given["bias_k"] is not None) + bool(given["add_zero_attn"])
        batch = given["query"].shape[1] if given["query"].ndim == 3 else 1
        self.found((batch, given["num_heads"], queries, keys))
        output = function(*args, **kwargs)
        if output[1] is not None:
            self.returned(output[1])
        return output


class PatternTaker(PatternMode):
    """Hand each pattern to ``take``, which returns what the network goes on with.

    ``open`` counts the modules of interest that are running; without one, nothing is done.
    """

    def __init__(self, take: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.take = take
        self.open = 0

    def watching(self) -> bool:
        return self.open > 0

    def seen(self, pattern: Tensor) -> Tensor:
        return self.take(pattern)

    def fused(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        query, key, value, mask, dropout, causal, scale, grouped = _fused_arguments(args, kwargs)
        # Other modes count the network's own operations, and these are not.
        with torch._C.DisableTorchFunction():
            if grouped:
                key, value = (
                    t.repeat_interleave(query.shape[-3] // t.shape[-3], -3) for t in (key, value)
                )
            pattern = self.take(attention_pattern(query, key, mask, causal=causal, scale=scale))
            return F.dropout(pattern, dropout) @ value if dropout else pattern @ value

    def multi_head(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        given = _arguments(args, kwargs)
        wanted, given["need_weights"] = given.get("need_weights", True), False
        if wanted and given.get("attn_mask") is not None:
            given["is_causal"] = False  # torch reads the mask itself where weights are wanted
        patterns: list[Tensor] = []

        def fused(*args: Any, **kwargs: Any) -> Tensor:
            def taken(pattern: Tensor) -> Tensor:
                patterns.append(self.take(pattern))
                return patterns[-1]

            return PatternTaker(taken).fused(F.scaled_dot_product_attention, args, kwargs)

        with torch._C.DisableTorchFunction():
            output, _ = _multi_head_with(fused)(**given)
            if not wanted:
                return output, None
            weights = patterns[-1]
            weights = weights.mean(1) if given.get("average_attn_weights", True) else weights
            return output, weights if given["query"].ndim == 3 else weights[0]


def attention_pattern(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Return softmax(q k^T scale + mask), [Vaswani2017]_, eq. 1, as torch's fused function has it.

    Parameters
    ----------
    query, key
        (…, queries, d) and (…, keys, d).
    mask
        True where a query may look, or numbers that are added; it broadcasts to the pattern.
    causal
        Whether query i sees keys 0 to i only.
    scale
        By default 1 / sqrt(d).

    Returns
    -------
    (…, queries, keys). Rows sum to 1; those that may look nowhere are 0.
    """
    scores = (
        query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    )
    if mask is not None and mask.dtype != torch.bool:
        scores = scores + mask.to(scores.dtype)
    elif mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    if causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~seen, -math.inf)
    if mask is None:
        return scores.softmax(-1)
    nowhere = (scores == -math.inf).all(-1, keepdim=True)
    return scores.masked_fill(nowhere, 0).softmax(-1).masked_fill(nowhere, 0)


def by_head(shape: tuple[int, ...], batch: int) -> tuple[int, ...]:
    """Return a pattern's shape with an axis for its heads, also if it has only one."""
    single = len(shape) == 3 and shape[0] == batch
    return (shape[0], 1, *shape[1:]) if single else shape


def _leading(query: Tensor, key: Tensor) -> tuple[int, ...]:
    if query.ndim == key.ndim > 3 and query.shape[-3] != key.shape[-3]:
        return tuple(query.shape[:-2])  # groups of queries share their keys
    return tuple(torch.broadcast_shapes(query.shape[:-2], key.shape[:-2]))


def _fused_arguments(args: Any, kwargs: Any) -> tuple[Any, ...]:
    """Return the arguments of ``F.scaled_dot_product_attention`` in its order."""

    def ordered(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
        dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
        enable_gqa: bool = False,
    ) -> tuple[Any, ...]:  # fmt: skip
        return query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa

    return ordered(*args, **kwargs)


def _arguments(args: Any, kwargs: Any) -> dict[str, Any]:
    """Return the arguments of ``F.multi_head_attention_forward`` by name."""
    return inspect.signature(F.multi_head_attention_forward).bind(*args, **kwargs).arguments


def _multi_head_with(fused: Callable[..., Tensor]) -> Callable[..., Any]:
    """Return a copy of ``F.multi_head_attention_forward`` with another fused attention."""
    original = F.multi_head_attention_forward
    names = {**vars(F), "scaled_dot_product_attention": fused}
    return types.FunctionType(
        original.__code__, names, original.__name__, original.__defaults__, original.__closure__
    )


__all__ = ["PatternRecorder", "PatternTaker", "attention_pattern", "by_head"]
