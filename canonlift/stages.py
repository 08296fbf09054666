"""What one optimisation step computes before any loss: a Pass.

A later pass holds everything an earlier one does, so that a loss names the least it needs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from canonlift.fusion import FusionConfig, fuse
from canonlift.lifter import Lifter
from canonlift.types import Lifted, Views


@dataclass(frozen=True, eq=False)
class LiftPass:
    """The detections, lifted."""

    views: Views
    lifted: Lifted


@dataclass(frozen=True, eq=False)
class FusePass(LiftPass):
    """And repaired."""

    fused: Views


@dataclass(frozen=True, eq=False)
class ReliftPass(FusePass):
    """And the repaired ones lifted again, to poses: no loss reads their rotations."""

    relifted: Float[Tensor, "B V J 3"]


@dataclass(frozen=True)
class Repair:
    """How a stage repairs detections."""

    config: FusionConfig
    joints: tuple[str, ...]

    def __call__(self, views: Views, lifted: Lifted) -> Views:
        """Repair `views` by the rotations of `lifted`."""
        return fuse(views, lifted, self.config, self.joints)


class Stage(NamedTuple):
    """One row of STAGES."""

    run: Callable[[Lifter, Repair, Views], LiftPass]
    produces: type[LiftPass]


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


STAGES: Mapping[str, Stage] = {
    "lift": Stage(lift, LiftPass),
    "fuse": Stage(lift_and_fuse, FusePass),
    "relift": Stage(lift_fuse_relift, ReliftPass),
}


def least_stage(produces: type[LiftPass]) -> Stage:
    """The stage that produces no more than this pass."""
    return next(stage for stage in STAGES.values() if stage.produces is produces)
