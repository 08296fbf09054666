"""What is known of a body unseen: it moves smoothly, and its bones keep their lengths."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from canonlift.body.skeleton import bones, mirrored


class Tree(NamedTuple):
    """The bones of a skeleton, which may be in several pieces."""

    start: Int[Tensor, " B"]
    end: Int[Tensor, " B"]
    mirrored: Int[Tensor, " B"]  # the same bone of the other side
    origin: Int[Tensor, " J"]  # where the piece of each joint begins
    path: Float[Tensor, "J B"]  # 1 for the bones from there to the joint

    @classmethod
    def of(cls, joints: Sequence[str], like: Tensor) -> "Tree":
        """The tree of joints by their names."""
        pairs = bones(joints)
        parent = {end: start for start, end in pairs}
        number = {end: index for index, (_, end) in enumerate(pairs)}
        partner = mirrored(joints)
        path, origin = torch.zeros(len(joints), len(pairs)), []
        for joint in range(len(joints)):
            at = joint
            while at in parent:
                path[joint, number[at]] = 1
                at = parent[at]
            origin.append(at)
        starts, ends = zip(*pairs, strict=True) if pairs else ((), ())
        others = [number.get(partner[end], index) for index, end in enumerate(ends)]
        start, end, other, first = (
            torch.tensor(x, dtype=torch.long, device=like.device)
            for x in (starts, ends, others, origin)
        )
        return cls(start, end, other, first, path.to(like))

    def size(self, pose: Float[Tensor, "T J 3"]) -> Float[Tensor, ""]:
        """Median over frames of the summed lengths of the bones."""
        bone = pose[:, self.end] - pose[:, self.start]
        return torch.linalg.vector_norm(bone, dim=-1).sum(-1).median()

    def with_steady_bones(self, pose: Float[Tensor, "N T J 3"]) -> Float[Tensor, "N T J 3"]:
        """The same directions, and for every bone its median length in the window.

        Left and right have the mean of both.
        """
        bone = pose[..., self.end, :] - pose[..., self.start, :]
        length = torch.linalg.vector_norm(bone, dim=-1, keepdim=True)
        usual = length.median(1, keepdim=True).values
        usual = 0.5 * (usual + usual[:, :, self.mirrored])
        bone = bone * (usual / length.clamp_min(1e-6))
        return pose[..., self.origin, :] + self.path @ bone


def moving_mean(
    values: Float[Tensor, "N T *shape"], width: int, piece: int | None = None
) -> Float[Tensor, "N T *shape"]:
    """Mean over an odd number of neighbouring frames, within pieces of consecutive ones."""
    piece = piece or values.shape[1]
    parts = values.reshape(-1, piece, values[0, 0].numel()).mT
    half = width // 2
    padded = torch.nn.functional.pad(parts, (half, half), mode="replicate")
    return torch.nn.functional.avg_pool1d(padded, width, 1).mT.reshape(values.shape)
