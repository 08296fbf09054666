"""The training objective: a table of terms, and a weighted sum of some of them."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from canonlift import losses, targets
from canonlift.names import unknown
from canonlift.stages import FusePass, LiftPass, ReliftPass


class Term(NamedTuple):
    """One row of the objective."""

    reads: type[LiftPass]  # the least a stage must produce
    compute: Callable[..., Float[Tensor, ""]]


# The whole objective on one screen. A config takes part in a row by giving it a weight.
TERMS: Mapping[str, Term] = {
    "reprojection": Term(LiftPass, lambda p: losses.reprojection(p.views, p.lifted)),
    "imitation": Term(LiftPass, lambda p: losses.imitation(p.views, p.views.target, p.lifted)),
    "camera_consistency": Term(LiftPass, lambda p: losses.camera_consistency(p.views, p.lifted)),
    "refinement": Term(FusePass, lambda p: losses.refinement(p.views, p.fused)),
    "fused_reprojection": Term(FusePass, lambda p: losses.reprojection(p.fused, p.lifted)),
    "consensus": Term(
        FusePass,
        lambda p: losses.imitation(p.views, targets.consensus(p.fused, p.lifted), p.lifted),
    ),
    "consistency_3d": Term(ReliftPass, lambda p: losses.consistency_3d(p.views, p.relifted)),
}


class Objective:
    """Weighted sum of terms over a pass.

    Raises:
        ValueError: for an unknown term, or one that the stage cannot feed.
    """

    def __init__(self, weights: Mapping[str, float], produces: type[LiftPass]) -> None:
        for name in weights:
            if name not in TERMS:
                raise unknown("a term", name, TERMS)
            reads = TERMS[name].reads
            if not issubclass(produces, reads):
                raise ValueError(
                    f"term {name!r} reads a {reads.__name__}, but this stage produces a "
                    f"{produces.__name__}"
                )
        if not any(weights.values()):
            raise ValueError("at least one term needs a weight other than 0")
        self.weights = dict(weights)

    @property
    def reads(self) -> type[LiftPass]:
        """The least pass that feeds every term; more need not be computed."""
        return max((TERMS[name].reads for name in self.weights), key=lambda kind: len(kind.mro()))

    def __call__(self, result: LiftPass) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the total and each term without its weight."""
        terms = {name: TERMS[name].compute(result) for name in self.weights}
        total = sum(self.weights[name] * value for name, value in terms.items())
        return total, {name: value.detach() for name, value in terms.items()}
