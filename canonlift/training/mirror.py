"""Which of the two mirrored worlds a lifter sits in, decided by a vote over recordings."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from canonlift.body.anatomy import handedness
from canonlift.data.samples import Samples, at_once
from canonlift.models.mlp import Lifter
from canonlift.models.temporal import SequenceLifter


@dataclass(frozen=True)
class Vote:
    """How recordings voted; a recording in which nobody folds a limb abstains."""

    mirrored: int
    upright: int

    @property
    def turn_round(self) -> bool:
        """Whether most recordings are in the mirrored world."""
        return self.mirrored > self.upright

    @property
    def certainty(self) -> float:
        """Share of the votes that the winner has; 0.5 if nobody voted."""
        return max(self.mirrored, self.upright) / max(self.mirrored + self.upright, 1) or 0.5

    def __str__(self) -> str:
        return (
            f"{self.upright} recordings fold knees and elbows like people, "
            f"{self.mirrored} like mirror images"
        )


@torch.no_grad()
def vote(
    lifter: Lifter | SequenceLifter,
    session: Samples,
    joints: Sequence[str],
    most_frames: int = 2000,
) -> Vote:
    """Let every recording vote by the fold of the limbs in its lifted poses.

    One frame can err, and one view; a recording's mean fold hardly can. Long recordings are
    sampled evenly, and the more sparsely the more of them there are: a million frames in all.
    """
    mirrored = upright = 0
    device = next(lifter.parameters()).device
    most_frames = max(1, min(most_frames, 1_000_000 // len(session.names)))
    most = max(1, most_frames // session.frames)
    for index in range(len(session.names)):
        samples = session.of(index)
        if len(samples) == 0:
            continue
        folds = []
        for some in samples[:: max(1, len(samples) // most)].split(at_once(session)):
            views = session[some].to(device)
            folds.append(handedness(lifter(views).pose, joints)[views.observed.any(-1)])
        fold = torch.cat(folds)
        mean = float(fold.mean()) if len(fold) else 0.0
        mirrored += mean < 0
        upright += mean > 0
    return Vote(mirrored, upright)
