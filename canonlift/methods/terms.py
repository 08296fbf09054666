"""The training objective: a table of terms, and a weighted sum of some of them."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from canonlift.methods import consistency, frame_losses, sequence_losses
from canonlift.methods.stages import (
    AlignPass,
    FusePass,
    LiftPass,
    MendPass,
    MotionPass,
    Pass,
    ReliftPass,
    RemendPass,
)
from canonlift.solve import closed_form
from canonlift.suggestions import unknown


class Term(NamedTuple):
    """One row of the objective."""

    reads: type[Pass]  # the least a stage must produce
    compute: Callable[..., Float[Tensor, ""]]


# The whole objective on one screen. A config takes part in a row by giving it a weight.
TERMS: Mapping[str, Term] = {
    "reprojection": Term(LiftPass, lambda p: frame_losses.reprojection(p.views, p.lifted)),
    "imitation": Term(
        LiftPass, lambda p: frame_losses.imitation(p.views, p.views.target, p.lifted)
    ),
    "camera_consistency": Term(
        LiftPass, lambda p: frame_losses.camera_consistency(p.views, p.lifted)
    ),
    "refinement": Term(FusePass, lambda p: frame_losses.refinement(p.views, p.fused)),
    "fused_reprojection": Term(FusePass, lambda p: frame_losses.reprojection(p.fused, p.lifted)),
    "consensus": Term(
        FusePass,
        lambda p: frame_losses.imitation(
            p.views, closed_form.consensus(p.fused, p.lifted), p.lifted
        ),
    ),
    "consistency_3d": Term(ReliftPass, lambda p: frame_losses.consistency_3d(p.views, p.relifted)),
    # Of sequence models.
    "image": Term(MotionPass, lambda p: sequence_losses.reprojection(p.views, p.motion)),
    "position": Term(MotionPass, lambda p: sequence_losses.position(p.views, p.motion)),
    "velocity": Term(MotionPass, lambda p: sequence_losses.velocity(p.views, p.motion)),
    "scale_free": Term(MotionPass, lambda p: sequence_losses.scale_free(p.views, p.motion)),
    "fold": Term(MotionPass, lambda p: sequence_losses.fold(p.views, p.motion, p.joints)),
    "consistency": Term(AlignPass, lambda p: consistency.consistency(p.aligned)),
    "consistency_as_printed": Term(
        AlignPass, lambda p: consistency.consistency_as_printed(p.aligned)
    ),
    "cross_image": Term(AlignPass, lambda p: consistency.cross_image(p.views, p.aligned)),
    "mended_image": Term(MendPass, lambda p: sequence_losses.reprojection(p.mended, p.motion)),
    "mended_consistency": Term(RemendPass, lambda p: consistency.consistency(p.realigned)),
}
SUPERVISED = ("imitation", "position", "velocity", "scale_free")  # terms that need a target

# What is logged beside the terms, and never minimised.
MEASURES: Mapping[str, Term] = {
    "spread": Term(MotionPass, lambda p: sequence_losses.spread(p.views, p.motion)),
    "depth": Term(MotionPass, lambda p: sequence_losses.depth(p.views, p.motion)),
    "movement": Term(MotionPass, lambda p: sequence_losses.movement(p.views, p.motion)),
    "degenerate": Term(AlignPass, lambda p: consistency.degenerate(p.aligned)),
}


class Objective:
    """Weighted sum of terms over a pass.

    Raises:
        ValueError: for an unknown term, or one that the stage cannot feed.
    """

    def __init__(self, weights: Mapping[str, float], produces: type[Pass]) -> None:
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
    def reads(self) -> type[Pass]:
        """The least pass that feeds every term; more need not be computed."""
        return max((TERMS[name].reads for name in self.weights), key=lambda kind: len(kind.mro()))

    @property
    def measures(self) -> list[str]:
        """The measures that can be taken of that pass."""
        return [name for name, row in MEASURES.items() if issubclass(self.reads, row.reads)]

    def __call__(self, result: Pass) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the total, and each term without its weight and each measure."""
        terms = {name: TERMS[name].compute(result) for name in self.weights}
        total = sum(self.weights[name] * value for name, value in terms.items())
        terms |= {name: MEASURES[name].compute(result) for name in self.measures}
        return total, {name: value.detach() for name, value in terms.items()}
