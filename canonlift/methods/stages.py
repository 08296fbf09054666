"""What one optimisation step computes before any loss: a Pass.

A later pass holds everything an earlier one does, so that a loss names the least it needs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from canonlift.methods.consistency import Alignment, align
from canonlift.methods.fusion import FusionConfig, fuse
from canonlift.methods.sequences import mend
from canonlift.models.mlp import Lifter
from canonlift.models.temporal import SequenceLifter
from canonlift.types import Lifted, Motion, Views, Windows


@dataclass(frozen=True, eq=False)
class Pass:
    """The detections."""

    views: Views


@dataclass(frozen=True, eq=False)
class LiftPass(Pass):
    """And lifted, one instant at a time."""

    lifted: Lifted


@dataclass(frozen=True, eq=False)
class FusePass(LiftPass):
    """And repaired."""

    fused: Views


@dataclass(frozen=True, eq=False)
class ReliftPass(FusePass):
    """And the repaired ones lifted again, to poses: no loss reads their rotations."""

    relifted: Float[Tensor, "B V J 3"]


@dataclass(frozen=True, eq=False)
class MotionPass(Pass):
    """Windows, lifted."""

    views: Windows
    motion: Motion
    joints: tuple[str, ...] = field(kw_only=True)


@dataclass(frozen=True, eq=False)
class AlignPass(MotionPass):
    """And their views aligned with each other."""

    aligned: Alignment


@dataclass(frozen=True, eq=False)
class MendPass(AlignPass):
    """And repaired, frame by frame."""

    mended: Windows


@dataclass(frozen=True, eq=False)
class RemendPass(MendPass):
    """And the repaired ones lifted and aligned again."""

    realigned: Alignment


@dataclass(frozen=True)
class Repair:
    """How a stage repairs detections, and over how many frames it aligns views."""

    config: FusionConfig
    joints: tuple[str, ...]
    segment: int = 0

    def __call__(self, views: Views, lifted: Lifted) -> Views:
        """Repair `views` by the rotations of `lifted`."""
        return fuse(views, lifted, self.config, self.joints)


class Stage(NamedTuple):
    """One row of STAGES."""

    run: Callable[[Any, Repair, Any], Pass]
    produces: type[Pass]


def lift(lifter: Lifter, repair: Repair, views: Views) -> LiftPass:  # noqa: ARG001
    """Lift only: the baseline, and CanonPose."""
    return LiftPass(views, lifter(views))


def lift_and_fuse(lifter: Lifter, repair: Repair, views: Views) -> FusePass:
    """Step 1 of CVSF."""
    lifted = lifter(views)
    return FusePass(views, lifted, repair(views, lifted))


def lift_fuse_relift(lifter: Lifter, repair: Repair, views: Views) -> ReliftPass:
    """Step 2 of CVSF: lift the repaired detections with the same weights."""
    first = lift_and_fuse(lifter, repair, views)
    return ReliftPass(first.views, first.lifted, first.fused, lifter.poses(first.fused))


def lift_windows(lifter: SequenceLifter, repair: Repair, windows: Windows) -> MotionPass:
    """Lift whole windows, every view by itself."""
    return MotionPass(windows, lifter(windows), joints=repair.joints)


def lift_and_align(lifter: SequenceLifter, repair: Repair, windows: Windows) -> AlignPass:
    """And find the similarities between their views."""
    motion = lifter(windows)
    aligned = align(motion, windows, repair.segment)
    return AlignPass(windows, motion, aligned, joints=repair.joints)


def lift_and_mend(lifter: SequenceLifter, repair: Repair, windows: Windows) -> MendPass:
    """And repair detections by the rotations of these similarities."""
    first = lift_and_align(lifter, repair, windows)
    return MendPass(**vars(first), mended=mend(windows, first.motion, first.aligned, repair))


def lift_mend_relift(lifter: SequenceLifter, repair: Repair, windows: Windows) -> RemendPass:
    """And lift the repaired detections with the same weights."""
    first = lift_and_mend(lifter, repair, windows)
    realigned = align(lifter(first.mended), first.mended, repair.segment)
    return RemendPass(**vars(first), realigned=realigned)


STAGES: Mapping[str, Stage] = {
    "lift": Stage(lift, LiftPass),
    "fuse": Stage(lift_and_fuse, FusePass),
    "relift": Stage(lift_fuse_relift, ReliftPass),
    "windows": Stage(lift_windows, MotionPass),
    "align": Stage(lift_and_align, AlignPass),
    "mend": Stage(lift_and_mend, MendPass),
    "remend": Stage(lift_mend_relift, RemendPass),
}


def least_stage(produces: type[Pass]) -> Stage:
    """The stage that produces no more than this pass."""
    return next(stage for stage in STAGES.values() if stage.produces is produces)
