"""The vote of the recordings: is the network in the mirrored world?"""

from dataclasses import replace

import pytest
import torch
from simulated import filmed, take
from synthetic_scene import random_rotations, uniform
from torch import nn

from canonlift.body.skeleton import H36M17
from canonlift.data.frames import FramesInMemory, to_views
from canonlift.data.windows import Samples
from canonlift.models.config import ModelConfig
from canonlift.models.mlp import CanonicalLifter
from canonlift.simulation.motions import MOTIONS
from canonlift.training.mirror import Vote, vote
from canonlift.types import Lifted, Views

DEPTH = torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)


class Stored(CanonicalLifter):
    """Returns poses that it was given, found by the first coordinate of their keypoints."""

    def __init__(self, poses):
        super().__init__(ModelConfig(width=1), 17, 0)
        self.stored = nn.Parameter(poses)

    def forward(self, views):
        pose = self.stored[views.keypoints[:, 0, 0, 0, 0].long()][:, :, None]
        return Lifted(pose, random_rotations(*pose.shape[:3]))


def samples_of(views, n_recordings):
    """Recordings of equal length, in this order."""
    bounds = torch.linspace(0, len(views), n_recordings + 1).long()
    return Samples(FramesInMemory(views, bounds, tuple(f"r{i}" for i in range(n_recordings))))


def stored(signs, n_frames=40, n_views=3):
    """A network whose poses are upright (1) or mirrored (-1) in each recording, and its views."""
    pose = torch.stack([take(m)[:n_frames] for m in list(MOTIONS)[: len(signs)]])
    sign = torch.tensor(signs, dtype=torch.float64)[:, None, None, None]
    pose = (pose * torch.cat([sign.abs(), sign.abs(), sign], -1)).flatten(0, 1)
    n_samples = len(pose)
    pose = pose[:, None].expand(-1, n_views, -1, -1) @ random_rotations(n_samples, n_views).mT
    keypoints = torch.zeros(n_samples, n_views, 17, 2, dtype=torch.float64)
    keypoints[:, 0, 0, 0] = torch.arange(n_samples)
    views = Views(keypoints, uniform(n_samples, n_views, 17), torch.full((n_samples,), -1))
    return Stored(pose), views


@pytest.mark.parametrize(
    ("signs", "expected"),
    [((-1, -1, 1), Vote(2, 1)), ((1, 1, 1, -1), Vote(1, 3)), ((-1,), Vote(1, 0))],
)
def test_every_recording_votes_once(signs, expected):
    network, views = stored(signs)
    assert vote(network, samples_of(views, len(signs)), H36M17) == expected


def test_long_recordings_are_sampled_over_their_whole_length():
    network, views = stored((1, 1))
    with torch.no_grad():
        network.stored[15:40] *= DEPTH  # most of the first recording, but not its start
    samples = samples_of(views, 2)
    assert vote(network, samples, H36M17) == Vote(1, 1)
    assert vote(network, samples, H36M17, most_frames=8) == Vote(1, 1)


def test_what_was_not_observed_does_not_vote():
    network, views = stored((1, 1))
    confidence = views.confidence.clone()
    confidence[:, 1] = 0.0
    confidence[5] = 0.0
    with torch.no_grad():
        network.stored[:, 1] *= 100 * DEPTH
        network.stored[5] *= DEPTH
    partial = samples_of(replace(views, confidence=confidence), 2)
    assert vote(network, partial, H36M17) == Vote(0, 2)
    nothing = samples_of(replace(views, confidence=torch.zeros_like(confidence)), 2)
    assert vote(network, nothing, H36M17) == Vote(0, 0)


def test_a_mirrored_network_loses_the_vote_and_its_mirror_wins_it():
    torch.manual_seed(1)
    network = CanonicalLifter(ModelConfig(width=16), 17, 0).double()
    samples = samples_of(to_views(filmed(n_views=3)).to(torch.float64), 3)
    before = vote(network, samples, H36M17)
    network.mirror()
    after = vote(network, samples, H36M17)
    assert before.mirrored + before.upright == 3
    assert (after.mirrored, after.upright) == (before.upright, before.mirrored)
    assert after.turn_round != before.turn_round
    assert after.certainty == before.certainty


def test_the_winner_and_its_share_by_hand():
    assert Vote(3, 1).turn_round
    assert not Vote(2, 2).turn_round
    assert not Vote(0, 0).turn_round
    assert Vote(3, 1).certainty == Vote(1, 3).certainty == 0.75
    assert Vote(0, 0).certainty == 0.5
