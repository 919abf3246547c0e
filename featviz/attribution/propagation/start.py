"""Where propagation starts: at the activations that an objective reads."""

from __future__ import annotations

import torch
from torch import fx

from featviz.attribution.case import Case
from featviz.attribution.propagation.network_graph import NetworkGraph, Values
from featviz.errors import FeatvizError
from featviz.objectives.scene import Scene, Target
from featviz.types import Tensor


def traced(case: Case, *extra: str) -> NetworkGraph:
    """Return the operations up to the activations of the case's objective and of ``extra`` layers.

    Raises
    ------
    FeatvizError
        If the objective has no gradient, or the precision is not float32.
    """
    if case.evaluator.forward.half is not None:
        raise FeatvizError("propagation divides by small numbers: it needs precision fp32")
    with torch.enable_grad():
        case.evaluator(case.leaf())  # raises without a gradient
    key = "operations", tuple(case.image.shape), tuple(sorted(case.evaluator.needs)), extra
    network: NetworkGraph | None = case.shared.get(key)
    if network is None or not network.follows(case.evaluator, case.image):
        network = case.shared[key] = NetworkGraph(case.evaluator, case.image, extra)
    return network


def gradients(case: Case, network: NetworkGraph, values: Values) -> dict[fx.Node, Tensor]:
    """Return the objective's gradient by the activations that it reads, by their operation.

    The image's own is included if the objective reads the image.
    """
    evaluator = case.evaluator
    score = evaluator.objective.bind(Target(evaluator.model, evaluator.size, 1))
    leaves = {
        name: values[network.outputs[name]].detach().clone().requires_grad_()
        for name in evaluator.needs
    }
    image = values[network.image].detach().clone().requires_grad_()
    with torch.enable_grad():
        total = score(Scene(image, leaves)).sum()
        slopes = torch.autograd.grad(total, [image, *leaves.values()], allow_unused=True)
    nodes = [network.image, *(network.outputs[name] for name in leaves)]
    found: dict[fx.Node, Tensor] = {}
    for node, slope in zip(nodes, slopes, strict=True):
        if slope is not None:
            found[node] = found[node] + slope if node in found else slope
    return found
