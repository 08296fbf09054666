"""What one optimisation step computes before any loss: a Pass, each part when it is first read."""

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from canonlift.computed_once import computed_once
from canonlift.methods.consistency import Alignment, align
from canonlift.methods.fusion import FusionConfig, fuse
from canonlift.methods.relations import RELATIONS, RelationConfig
from canonlift.models.network import Network
from canonlift.types import Lifted, Views, flatten_time, unflatten_time


@dataclass(frozen=True)
class Method:
    """How views are related to each other, and detections repaired by them."""

    joints: tuple[str, ...]
    relation: RelationConfig
    fusion: FusionConfig

    def repair(self, instants: Views, related: Lifted) -> Views:
        """Repair detections, frame by frame, by those of the other views."""
        return fuse(instants, related, self.fusion, self.joints)


class Pass:
    """Views, and what the network and the method make of them.

    `lifted` -> `related` -> `repaired` -> `relifted`. A loss reads what it needs; what no loss
    reads is not computed. What begins with `frame_` has no axis of time: every frame is a sample.
    """

    def __init__(self, views: Views, network: Network, method: Method) -> None:
        self.views, self.network, self.method = views, network, method

    @computed_once
    def lifted(self) -> Lifted:
        """Each view, lifted by itself."""
        return self.network(self.views)

    @computed_once
    def aligned(self) -> Alignment:
        """The similarities between the lifted views."""
        return align(self.lifted, self.views, self.method.relation.segment)

    @computed_once
    def related(self) -> Lifted:
        """The poses in a frame that all views share, and how the views are turned in it."""
        relation = RELATIONS[self.method.relation.name]
        return relation.find(self.views, self.lifted, lambda: self.aligned)

    @computed_once
    def repaired(self) -> Views:
        """The detections, repaired by the other views."""
        if self.views.keypoints.shape[2] == 1:
            return self.frame_repaired.as_windows
        n_frames = self.views.keypoints.shape[2]
        return replace(
            self.views,
            keypoints=unflatten_time(self.frame_repaired.keypoints, n_frames),
            confidence=unflatten_time(self.frame_repaired.confidence, n_frames),
        )

    @computed_once
    def relifted(self) -> Lifted:
        """The repaired detections, lifted again by the same network (CVSF, Step 2)."""
        return self.network(self.repaired)

    @computed_once
    def realigned(self) -> Alignment:
        """The similarities between the relifted views."""
        return align(self.relifted, self.repaired, self.method.relation.segment)

    @computed_once
    def frame_views(self) -> Views:
        """The detections, frame by frame."""
        return self.views.instants

    @computed_once
    def frame_related(self) -> Lifted:
        """`related`, frame by frame."""
        return self.related.instants

    @computed_once
    def frame_repaired(self) -> Views:
        """`repaired`, frame by frame."""
        return self.method.repair(self.frame_views, self.frame_related)

    @computed_once
    def frame_reposed(self) -> Float[Tensor, "N V J 3"]:
        """The canonical poses of `relifted`, frame by frame; its rotations are not computed."""
        return flatten_time(self.network.poses(self.repaired))
