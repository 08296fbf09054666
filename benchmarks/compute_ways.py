"""Ways to compute an objective: as it is written, compiled, or replayed as a CUDA graph."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from canonlift.training.loop import Compute
from canonlift.types import Target, Views

EAGER = "eager"


def compiled(compute: Compute, mode: str) -> Compute:
    """By torch.compile, in one of its modes."""
    faster = torch.compile(compute, mode=mode)
    return lambda views: _kept(*faster(views))


def captured(compute: Compute) -> Compute:
    """Forward and backward each captured as a CUDA graph, when first called, and replayed.

    Batches must be of one size. Whatever waits for the device cannot be captured, and raises.
    """
    graphs: list[Any] = []

    def run(views: Views) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        parts = _parts(views)
        if not graphs:
            module = _OnTensors(compute)
            # A term may leave some weights without a gradient.
            graphs.append(
                torch.cuda.make_graphed_callables(module, parts, allow_unused_input=True)
            )
            graphs.append(module.names)
        loss, *terms = graphs[0](*parts)
        return _kept(loss, dict(zip(graphs[1], terms, strict=True)))

    return run


class _OnTensors(nn.Module):
    """An objective on bare tensors, as capturing wants it."""

    def __init__(self, compute: Compute) -> None:
        super().__init__()
        self.compute = compute
        self.names: list[str] = []

    def forward(self, *parts: Tensor) -> tuple[Tensor, ...]:
        """The loss and the terms."""
        keypoints, confidence, rig, *target = parts
        loss, terms = self.compute(
            Views(keypoints, confidence, rig, Target(*target) if target else None)
        )
        self.names[:] = terms
        return loss, *terms.values()


def _parts(views: Views) -> tuple[Tensor, ...]:
    target = () if views.target is None else (views.target.pose, views.target.trust)
    return views.keypoints, views.confidence, views.rig, *target


def _kept(
    loss: Float[Tensor, ""], terms: Mapping[str, Tensor]
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Copies: training reads losses some steps later, when a graph has written others in place."""
    return loss.clone(), {name: term.clone() for name, term in terms.items()}


WAYS: Mapping[str, Callable[[Compute], Compute]] = {
    EAGER: lambda compute: compute,
    "compile": partial(compiled, mode="default"),
    "compiled graphs": partial(compiled, mode="reduce-overhead"),
    "captured": captured,
}
