"""Which of the two mirrored worlds a network is in, decided by a vote over recordings."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from tqdm import tqdm

from canonlift import distributed
from canonlift.body.anatomy import handedness
from canonlift.data.windows import Samples
from canonlift.models.network import Network
from canonlift.training.runs import Run

MOST_FRAMES = 1_000_000  # of all recordings together


@dataclass(frozen=True)
class Vote:
    """Votes of the recordings; one in which nobody bends a limb abstains."""

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
        return f"{self.upright} of {self.mirrored + self.upright} recordings upright"


@torch.no_grad()
def vote(
    network: Network, samples: Samples, joints: Sequence[str], most_frames: int = 2000
) -> Vote:
    """Let every recording vote by how knees and elbows bend in its lifted poses.

    One frame can err, and one view; a recording's mean bend hardly can. Long recordings are
    sampled evenly, and the more sparsely the more of them there are: a million frames in all.
    """
    mirrored = upright = 0
    device = next(network.parameters()).device
    most_frames = max(1, min(most_frames, MOST_FRAMES // len(samples.names)))
    most = max(1, most_frames // samples.length)
    for index in range(len(samples.names)):
        own = samples.of(index)
        if len(own) == 0:
            continue
        bends = []
        for some in own[:: max(1, len(own) // most)].split(samples.at_once):
            views = samples[some].to(device)
            bends.append(handedness(network(views).pose, joints)[views.observed.any(-1)])
        bend = torch.cat(bends)
        mean = float(bend.mean()) if len(bend) else 0.0
        mirrored += mean < 0
        upright += mean > 0
    return Vote(mirrored, upright)


def check_mirror(run: Run, samples: Samples) -> None:
    """At the end of a phase: mirror the network if most recordings are in the mirrored world.

    The vote is kept under `run.notes["mirror"]`, with those of earlier phases.
    """
    votes = distributed.from_first(lambda: vote(run.network, samples, run.config.joints))
    if votes.turn_round:
        run.network.mirror()
    tqdm.write(f"  mirror check: {votes}{'; the network was mirrored' * votes.turn_round}")
    last: dict[str, Any] = asdict(votes)
    last |= {"turned_round": votes.turn_round, "certainty": votes.certainty}
    before = run.notes.get("mirror", {}).get("phases", {})
    run.notes["mirror"] = last | {"phases": before | {run.phase.name: last}}
