"""How the views of a sample are turned to each other: a table of ways to find it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch

from canonlift.methods.consistency import Alignment, rotations
from canonlift.suggestions import unknown
from canonlift.types import Lifted, Views


class Relation(NamedTuple):
    """One row of the table."""

    # Of detections, lifted poses, and a way to align them that is called only if need be: the
    # poses in a frame that the views share, and the rotations from it to the cameras.
    find: Callable[[Views, Lifted, Callable[[], Alignment]], Lifted]
    canonical: bool = False  # reads the rotations that the network predicts


def predicted(_views: Views, lifted: Lifted, _align: Callable[[], Alignment]) -> Lifted:
    """As the network predicts it: the canonical frame and the rotations of CanonPose."""
    return lifted


def procrustes(views: Views, lifted: Lifted, align: Callable[[], Alignment]) -> Lifted:
    """By the similarities between the views' poses, segment by segment (Ingwersen et al.).

    The shared frame is the camera of the view that observed most. Poses are in units of the
    window.
    """
    rotation = rotations(align(), views.confidence.sum(-1))
    pose = torch.einsum("bvtrc,bvtjr->bvtjc", rotation, lifted.in_camera / views.unit)
    return Lifted(pose, rotation)


RELATIONS: Mapping[str, Relation] = {
    "predicted": Relation(predicted, canonical=True),
    "procrustes": Relation(procrustes),
}


@dataclass(frozen=True)
class RelationConfig:
    """How views are related, by which they are fused and compared."""

    name: str = "predicted"  # row of RELATIONS
    segment: int = 0  # frames that share one similarity; 0: the whole window, 1: each frame

    def __post_init__(self) -> None:
        if self.name not in RELATIONS:
            raise unknown("relation.name", self.name, RELATIONS)
        if self.segment < 0:
            raise ValueError(f"relation.segment must not be negative, got {self.segment}")
