"""A network as a list of operations, for methods with a rule for each of them.

The pass from the image to the activations that an objective reads is traced on the image itself.
Functional layers, additions, padding and in-place operations are operations like any others;
batch-norm is folded into the convolution before it. What the trace computes is compared with what
the network returns, for every image.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Any, TypeAlias

import torch
from torch import fx

from featviz.errors import FeatvizError
from featviz.networks.layers import INPUT
from featviz.optim.evaluator import Evaluator
from featviz.optim.folding import fold_batchnorm
from featviz.optim.torch_internals import flat_graph
from featviz.types import Tensor

#: Tolerance for the trace's activations, relative to the largest one of the network.
TOLERANCE = 1e-4

#: What each operation returned: a tensor, or several.
Values: TypeAlias = dict[fx.Node, Any]


def operation(node: fx.Node) -> str:
    """Return the name of an operation without namespace and overload: ``conv2d``, ``add``."""
    target = node.target
    packet = getattr(target, "overloadpacket", None)
    name = getattr(packet, "__name__", None) or getattr(target, "__name__", None) or str(target)
    return str(name)


def arguments(node: fx.Node) -> list[Any]:
    """Return the positional arguments of an operation."""
    return list(node.args)


class NetworkGraph:
    """The operations between images (B, C, *size) and the activations of some layers.

    Attributes
    ----------
    nodes
        The operations that depend on the image and lead to the activations, in execution order.
    image
        The node of the image.
    outputs
        The node whose value is the activation of a layer, by layer name.
    shapes
        The shape of each operation's value, if it is a single tensor.
    """

    def __init__(self, evaluator: Evaluator, image: Tensor, extra: Sequence[str] = ()) -> None:
        model, table = evaluator.model, evaluator.forward.table
        names = tuple(dict.fromkeys((*evaluator.needs, *extra)))
        self.inner = tuple(name for name in names if name != INPUT)

        def run(images: Tensor) -> list[Tensor]:
            activations = model.capture(images, self.inner, table)
            return [activations[name] for name in self.inner]

        with torch.no_grad():
            try:
                module = flat_graph(run, image.detach())
            except Exception as error:
                reason = " ".join(str(error).split())[:120] or type(error).__name__
                if "data-dependent" in str(error) or "aten.item" in str(error):
                    reason = "which operations run depends on the image's values"
                raise FeatvizError(
                    f"the network cannot be traced, which propagation needs ({reason}): use a "
                    "gradient method or occlusion"
                ) from error
            expected = run(image.detach())
        _without_in_place(module.graph)
        fold_batchnorm(module)
        module.graph.eliminate_dead_code()
        self.module = module
        self.image = next(node for node in module.graph.nodes if node.op == "placeholder")
        results = next(node for node in module.graph.nodes if node.op == "output").args[0]
        self.outputs = {
            name: _uncloned(node) for name, node in zip(self.inner, results, strict=True)
        }
        if INPUT in names:
            self.outputs[INPUT] = self.image
        depends = {self.image}
        for node in module.graph.nodes:
            if depends.intersection(node.all_input_nodes) and node.op != "output":
                depends.add(node)
        self.nodes = [node for node in module.graph.nodes if node in depends]
        self._depends = depends
        self._constants: Values = {}
        values = self.run(image)
        self.shapes = {
            node: tuple(v.shape) for node, v in values.items() if isinstance(v, torch.Tensor)
        }
        self._compare(values, expected)

    def follows(self, evaluator: Evaluator, image: Tensor) -> bool:
        """Return whether the network runs the same operations for another image."""
        with torch.no_grad():
            expected = evaluator.model.capture(image, self.inner, evaluator.forward.table)
        try:
            self._compare(self.run(image), [expected[name] for name in self.inner])
        except FeatvizError:
            return False
        return True

    def _compare(self, values: Values, expected: Sequence[Tensor]) -> None:
        for name, reference in zip(self.inner, expected, strict=True):
            traced = values[self.outputs[name]]
            error = torch.tensor(torch.inf)
            if traced.shape == reference.shape:
                error = (traced - reference).abs().max()
            if not error <= TOLERANCE * reference.abs().max():  # also for NaN
                raise FeatvizError(
                    f"propagation cannot follow the network: layer {name!r} differs when its "
                    "operations run one by one (views of a tensor that is changed later, or random "
                    "numbers); use a gradient method or occlusion"
                )

    def depends(self, node: Any) -> bool:
        """Return whether an argument is an operation that depends on the image."""
        return isinstance(node, fx.Node) and node in self._depends

    def sources(self, node: fx.Node) -> list[fx.Node]:
        """Return the operations that depend on the image and whose values ``node`` takes."""
        return [source for source in node.all_input_nodes if source in self._depends]

    @torch.no_grad()
    def run(self, images: Tensor, only: Container[fx.Node] | None = None) -> Values:
        """Return what each operation returns for images of the traced shape.

        ``only`` leaves out other operations that depend on the image.
        """
        values: Values = dict(self._constants)
        values[self.image] = images.detach()
        for node in self.module.graph.nodes:
            if node.op == "output" or node in values:
                continue
            if only is not None and node in self._depends and node not in only:
                continue
            if node.op == "get_attr":
                values[node] = getattr(self.module, str(node.target)).detach()
            else:
                values[node] = call(node, values)
            if node not in self._depends:
                self._constants[node] = values[node]
        return values

    def constant(self, argument: Any) -> Any:
        """Return an argument that does not depend on the image: a tensor, a number or None."""
        return self._constants[argument] if isinstance(argument, fx.Node) else argument

    def ancestors(self, node: fx.Node) -> set[fx.Node]:
        """Return ``node`` and all operations that its value depends on."""
        found, queue = {node}, [node]
        while queue:
            new = [s for s in self.sources(queue.pop()) if s not in found]
            found.update(new)
            queue.extend(new)
        return found


def call(node: fx.Node, values: Values, replaced: Values | None = None) -> Any:
    """Return what an operation returns, with the values of some arguments replaced."""
    replaced = replaced or {}

    def value(argument: fx.Node) -> Any:
        return replaced[argument] if argument in replaced else values[argument]

    args: Any = fx.node.map_arg(node.args, value)
    kwargs: Any = fx.node.map_arg(node.kwargs, value)
    assert callable(node.target)
    return node.target(*args, **kwargs)


def transpose(function: Callable[..., Any], *inputs: Tensor) -> Callable[[Any], tuple[Tensor, ...]]:
    """Return the transpose of a function's derivative at ``inputs``: cotangents to gradients."""
    result: Any = torch.func.vjp(function, *inputs)
    return result[1]


def _without_in_place(graph: fx.Graph) -> None:
    """Replace in-place operations by those that return a new tensor, which later ones then take."""
    order = {node: i for i, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        name = operation(node)
        if node.op != "call_function" or not name.endswith("_") or name.endswith("__"):
            continue
        packet = getattr(torch.ops.aten, name[:-1], None)
        overload = str(node.target).rpartition(".")[2]
        if packet is None or overload not in packet.overloads() or not node.args:
            raise FeatvizError(
                f"the network changes a tensor by {name}, which propagation cannot follow: use a "
                "gradient method or occlusion"
            )
        node.target = getattr(packet, overload)
        node.kwargs = {key: v for key, v in node.kwargs.items() if key != "inplace"}
        changed = node.args[0]
        assert isinstance(changed, fx.Node)
        later = {user for user in changed.users if order[user] > order[node]}
        changed.replace_all_uses_with(node, delete_user_cb=later.__contains__)


def _uncloned(node: fx.Node) -> fx.Node:
    """Return the operation whose output was copied when it was captured."""
    return node.args[0] if operation(node) == "clone" else node  # type: ignore[return-value]
