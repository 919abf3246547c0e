"""The layers of a network by name: how they are addressed, and the table of them.

A layer is addressed by its dotted name in ``named_modules()``, by ``input`` (the images that are
passed to the model, in [0, 1]) or by ``output`` (what the network returns). A module that is itself
called ``input``, ``output`` or ``image`` is addressed as ``net.output`` and so on.

=================  ==========================================================================
``blocks.3``       what the module returned, on its last call if it runs more than once
``blocks.3.act#0`` what its first call returned (calls count from 0)
``lstm[0]``        the first item of the tuple that it returned; also ``out[logits]`` for a
                   key or an attribute, and ``out[a][1]`` for nested values
``attn.proj.in``   what the module was given; ``attn.in[1]``, ``attn.in[mask]`` of several
                   arguments (not in the table, but every layer's can be named)
``attn.pattern``   the attention probabilities that are computed while the module runs, (B, heads,
                   queries, keys); ``block.pattern[1]`` of several (not in the table either)
``attn.qkv.map``   what a module returned for the windows of an image, (B·windows, tokens, C), put
                   back to (B, C, H, W) (not in the table either)
=================  ==========================================================================
"""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

import torch
from torch import nn

from featviz.errors import LayerError, did_you_mean
from featviz.types import LayerInfo, Tensor

if TYPE_CHECKING:
    from featviz.networks.windows import Windows

INPUT, OUTPUT = "input", "output"
#: Ends the name of what a module was given.
GIVEN = ".in"
#: Ends the name of the attention probabilities that are computed while a module runs.
PATTERN = ".pattern"
#: Ends the name of what a module returned for windows, put back into the image.
MAP = ".map"
UNLISTED = (GIVEN, PATTERN, MAP)
_ADDRESS = re.compile(r"(?P<module>[^#\[\]]+)(?:#(?P<call>\d+))?(?P<path>(?:\[[^\[\]]+\])*)")


class LayerTable(list[LayerInfo]):
    """The layers of a network in the order in which they finish; prints as a table.

    Besides its position, ``table["blocks.3"]`` takes the name of a layer.
    """

    #: Why some layers are not listed, for error messages.
    remark = ""

    def __init__(self, layers: Iterable[LayerInfo] = ()) -> None:
        super().__init__(layers)
        #: What modules were given, and their attention patterns, by name; not listed.
        self.inputs: dict[str, LayerInfo] = {}
        #: Where the windows of modules are in the image, by module.
        self.windows: dict[str, Windows] = {}
        #: How many layers end before an attention pattern is computed, by its name.
        self.ended: dict[str, int] = {}

    @overload
    def __getitem__(self, key: SupportsIndex | str) -> LayerInfo: ...
    @overload
    def __getitem__(self, key: slice) -> LayerTable: ...
    def __getitem__(self, key: SupportsIndex | str | slice) -> LayerInfo | LayerTable:
        if isinstance(key, str):
            return self.find(key)
        if isinstance(key, slice):
            part = LayerTable(super().__getitem__(key))
            part.remark, part.inputs, part.ended = self.remark, self.inputs, self.ended
            part.windows = self.windows
            return part
        return super().__getitem__(key)

    def __repr__(self) -> str:
        rows = [("layer", "type", "shape", "units", "calls")]
        for i in self:
            rows.append((i.name, i.type, "x".join(map(str, i.shape)), str(i.units), str(i.calls)))
        widths = [max(len(row[k]) for row in rows) for k in range(5)]
        return "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )

    __str__ = __repr__

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(i.name)}<td>{html.escape(i.type)}"
            f"<td>{'x'.join(map(str, i.shape))}<td>{i.units}"
            for i in self
        )
        head = "<tr><th>layer<th>type<th>shape<th>units"
        return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"

    def find(self, name: str) -> LayerInfo:
        """Return the layer called ``name``; raise :class:`LayerError` with the nearest names."""
        for info in (*self, *self.inputs.values()):
            if info.name == name:
                if not info.batched:
                    raise LayerError(self._unbatched(info))
                return info
        module = name.split("#")[0].split("[")[0]
        names = [i.name for i in self]
        names += [n for n in self.inputs if any(end in n and end in name for end in UNLISTED)]
        parts = [n for n in names if n.startswith((f"{name}[", f"{module}["))]
        if parts and name == module:
            raise LayerError(
                f"layer {name!r} has several tensors: pick one of {listed(parts)}"
                f"{self._logits_hint() if name == OUTPUT else ''}"
            )
        calls = [i.calls for i in self if i.name == module]
        if calls and "#" in name:
            raise LayerError(
                f"no call {name!r}: {module!r} runs {calls[0]} time(s), counted from #0"
            )
        if name.endswith(MAP) and name.removesuffix(MAP) in {i.name for i in self}:
            raise LayerError(self._no_map(self[names.index(name.removesuffix(MAP))]))
        if module.endswith(PATTERN) and module.removesuffix(PATTERN) in {i.name for i in self}:
            raise LayerError(self._no_pattern(module.removesuffix(PATTERN)))
        remark = f": {self.remark}" if self.remark else ""
        raise LayerError(f"no layer {name!r}{did_you_mean(name, names)}{remark}")

    def position(self, name: str) -> int:
        """Return the index of a layer in the order of the table.

        What a module was given, and an attention pattern, have that of the last layer that ended
        before it, -1 if none did.
        """
        names = [i.name for i in self]
        if name.removesuffix(MAP) in names:
            return names.index(name.removesuffix(MAP))
        if name in self.ended:
            return self.ended[name] - 1
        module, call, _ = split_address(name)
        module = module.removesuffix(GIVEN)
        inside = (f"{module}." if call is None else f"{module}.\0", f"{module}[")
        base = module if call is None else f"{module}#{call}"
        found = (k for k, n in enumerate(names) if n == base or n.startswith(inside))
        return next(found, 0) - 1

    def _unbatched(self, info: LayerInfo) -> str:
        """Return why a layer whose first axis is not the batch cannot be used, and what can."""
        remedy = (
            f"{info.name + MAP!r} has its windows put back into the image"
            if info.name in self.windows
            else "name a layer before or after it"
        )
        return (
            f"layer {info.name!r} cannot be used: its first axis is not the batch (it has more "
            f"than one entry for one image); {remedy}"
        )

    def _no_map(self, info: LayerInfo) -> str:
        """Return why what a module returned is not put back into the image."""
        if info.batched:
            reason = f"{info.name!r} is not of windows: it is used as it is"
        elif info.guessed:
            reason = (
                f"which axis counts its units is a guess: declare it, axes={{{info.name!r}: …}}"
            )
        else:
            reason = "where its rows are in the image cannot be followed; name a layer around it"
        return f"no layer {info.name + MAP!r}: {reason}"

    def _no_pattern(self, module: str) -> str:
        """Return why a module has no attention pattern, and which have one."""
        attending = [n for n, i in self.inputs.items() if n.endswith(PATTERN) and i.batched]
        others = f"; name one that has: {listed(attending)}" if attending else ""
        return (
            f"no layer '{module}{PATTERN}': no softmax attention was seen in {module!r}"
            f"{others or ', nor anywhere in this network'}"
        )

    def _logits_hint(self) -> str:
        """Return how to say which of several outputs has the class logits."""
        parts = [i for i in self if i.name.startswith(f"{OUTPUT}[")]
        likely = [i.name for i in parts if not i.positions and i.units > 1]
        return f"; for class logits: fv.Model(net, logits={likely[0]!r})" if likely else ""


def listed(names: list[str], limit: int = 6) -> str:
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")


def tensors_in(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor in nested tuples, lists, mappings and dataclasses, with its path."""
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from tensors_in(item, f"{path}[{key}]")
    elif isinstance(value, (tuple, list)):
        for index, item in enumerate(value):
            yield from tensors_in(item, f"{path}[{index}]")
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from tensors_in(getattr(value, field.name), f"{path}[{field.name}]")


def split_address(name: str) -> tuple[str, int | None, str]:
    """Split ``"block#1[0]"`` into module name, call number and path ``("block", 1, "[0]")``."""
    match = _ADDRESS.fullmatch(name)
    if match is None:
        raise LayerError(f"cannot read layer name {name!r}: write module, module#call or module[0]")
    call = match["call"]
    return match["module"], None if call is None else int(call), match["path"]


def inputs_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return the only argument of a module that has tensors, or all by position and keyword."""
    given = {str(i): value for i, value in enumerate(args)} | dict(kwargs)
    with_tensors = [value for value in given.values() if next(tensors_in(value), None)]
    return with_tensors[0] if len(with_tensors) == 1 else given


def module_names(net: nn.Module) -> dict[str, nn.Module]:
    """Return every module below the root under each of its names (shared ones have several)."""
    return {_layer_name(n): m for n, m in net.named_modules(remove_duplicate=False) if n}


def _unwrapped(name: str) -> str:
    """Return the name of a module without the wrappers of ``torch.compile`` around its parents."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def _layer_name(module: str) -> str:
    """Return the layer name of a module: its own, or ``net.output`` if that is ambiguous."""
    module = _unwrapped(module)
    return f"net.{module}" if module in (INPUT, OUTPUT, "image") else module
