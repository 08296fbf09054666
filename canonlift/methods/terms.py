"""The table of terms: each loss of the papers, and ours. A new loss is a row here and a function.

A config gives a term a weight in a phase of its schedule; the objective is their weighted sum.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from canonlift.methods import consistency, frame_losses, sequence_losses
from canonlift.methods.passes import Pass
from canonlift.methods.targets import consensus

# What a term may need, in the words of the error where a config does not provide it.
NEEDS: Mapping[str, str] = {
    "target": "a 3D target; set data.target to solved (or pose3d), or data.supervised",
    "canonical": "a network that predicts poses in a canonical frame",
    "image_scale": "a network that predicts poses in the scale of the image",
    "motion": "windows of two frames or more; set windows.length",
    "single_frames": "single frames; set windows.length to 1",
}


class Term(NamedTuple):
    """One row."""

    compute: Callable[[Pass], Float[Tensor, ""]]
    needs: tuple[str, ...] = ()  # rows of NEEDS
    one_view: bool = False  # has something to learn from in a recording of a single view


TERMS: Mapping[str, Term] = {
    # Cross-View Self-Fusion and CanonPose
    "reprojection": Term(lambda p: frame_losses.reprojection(p.frame_views, p.frame_related)),
    "refinement": Term(lambda p: frame_losses.refinement(p.frame_views, p.frame_repaired)),
    "repaired_reprojection": Term(
        lambda p: frame_losses.reprojection(p.frame_repaired, p.frame_related)
    ),
    "consistency_3d": Term(
        lambda p: frame_losses.consistency_3d(p.frame_views, p.frame_reposed), ("canonical",)
    ),
    "camera_consistency": Term(
        lambda p: frame_losses.camera_consistency(p.frame_views, p.frame_related),
        ("single_frames",),
    ),
    # Two Views Are Better than One
    "own_view": Term(
        lambda p: sequence_losses.own_view(p.views, p.lifted), ("image_scale",), one_view=True
    ),
    "consistency": Term(lambda p: consistency.consistency(p.aligned), ("image_scale",)),
    "consistency_as_printed": Term(
        lambda p: consistency.consistency_as_printed(p.aligned), ("image_scale",)
    ),
    "target_position": Term(
        lambda p: sequence_losses.target_position(p.views, p.lifted),
        ("target", "image_scale"),
        one_view=True,
    ),
    "target_velocity": Term(
        lambda p: sequence_losses.target_velocity(p.views, p.lifted),
        ("target", "image_scale", "motion"),
        one_view=True,
    ),
    "target_scale_free": Term(
        lambda p: sequence_losses.target_scale_free(p.views, p.lifted),
        ("target", "image_scale"),
        one_view=True,
    ),
    # Ours
    "target_pose": Term(
        lambda p: frame_losses.target_pose(p.frame_views, p.frame_views.target, p.frame_related),
        ("target",),
    ),
    "consensus": Term(
        lambda p: frame_losses.target_pose(
            p.frame_views, consensus(p.frame_repaired, p.frame_related), p.frame_related
        )
    ),
    "other_views": Term(lambda p: consistency.other_views(p.views, p.aligned), ("image_scale",)),
    "flexion": Term(lambda p: sequence_losses.flexion(p.views, p.lifted, p.method.joints)),
    "repaired_own_view": Term(
        lambda p: sequence_losses.own_view(p.repaired, p.lifted), ("image_scale",)
    ),
    "repaired_consistency": Term(lambda p: consistency.consistency(p.realigned), ("image_scale",)),
}


class Measure(NamedTuple):
    """What is logged beside the terms, and never minimised."""

    compute: Callable[[Pass], Float[Tensor, ""]]
    needs: tuple[str, ...] = ()  # rows of NEEDS
    part: str = "lifted"  # of a Pass; measured only where some term has read it


MEASURES: Mapping[str, Measure] = {
    "spread": Measure(lambda p: sequence_losses.spread(p.views, p.lifted), ("image_scale",)),
    "depth": Measure(lambda p: sequence_losses.depth(p.views, p.lifted), ("image_scale",)),
    "movement": Measure(
        lambda p: sequence_losses.movement(p.views, p.lifted), ("image_scale", "motion")
    ),
    "degenerate": Measure(
        lambda p: consistency.degenerate(p.aligned), ("image_scale",), "aligned"
    ),
}
