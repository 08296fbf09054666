"""Joints by name: the skeletons of detectors and data sets, and fixed matrices between them.

A joint that a detector does not report is a fixed combination of joints that it does report, with
weights that sum to 1. Under weak perspective such a joint is the image of the same 3D point in
every view, so converted detections remain consistent between cameras.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

ROOT = "pelvis"

H36M17 = tuple(
    "pelvis r_hip r_knee r_ankle l_hip l_knee l_ankle spine thorax nose head "
    "l_shoulder l_elbow l_wrist r_shoulder r_elbow r_wrist".split()
)

# Skeletons that a network can be trained on.
SKELETONS: Mapping[str, tuple[str, ...]] = {
    "h36m17": H36M17,
    "h36m16": tuple(name for name in H36M17 if name != "spine"),  # the one of the CVSF release
    "limbs14": tuple(
        "pelvis r_hip r_knee r_ankle l_hip l_knee l_ankle thorax "
        "l_shoulder l_elbow l_wrist r_shoulder r_elbow r_wrist".split()
    ),
}

# Skeletons that detectors write, in their order.
COCO17 = tuple(
    "nose l_eye r_eye l_ear r_ear l_shoulder r_shoulder l_elbow r_elbow l_wrist r_wrist "
    "l_hip r_hip l_knee r_knee l_ankle r_ankle".split()
)
FEET = tuple("l_bigtoe l_smalltoe l_heel r_bigtoe r_smalltoe r_heel".split())
COCO18 = tuple(
    "nose neck r_shoulder r_elbow r_wrist l_shoulder l_elbow l_wrist r_hip r_knee r_ankle "
    "l_hip l_knee l_ankle r_eye l_eye r_ear l_ear".split()
)
BODY_25 = (
    *COCO18[:8],
    "mid_hip",
    *COCO18[8:],
    *FEET,
)
BODY_25B = (*COCO17, "upper_neck", "head_top", *FEET)

# How a joint that is not reported is computed: the first recipe whose sources all exist.
# (Sources: the conversions of mmpose and MotionBERT, and MPI-INF-3DHP's use of the neck.)
RECIPES: Mapping[str, tuple[Mapping[str, float], ...]] = {
    "pelvis": ({"mid_hip": 1.0}, {"l_hip": 0.5, "r_hip": 0.5}),
    "thorax": ({"neck": 1.0}, {"l_shoulder": 0.5, "r_shoulder": 0.5}),
    "spine": ({"pelvis": 0.5, "thorax": 0.5},),
    "nose": ({"upper_neck": 1.0},),
    "head": (
        {"head_top": 1.0},
        {"l_eye": 0.5, "r_eye": 0.5},
        {"l_ear": 0.5, "r_ear": 0.5},
    ),
}

# The parent of each joint in the kinematic tree.
PARENT: Mapping[str, str] = {
    "r_hip": "pelvis", "r_knee": "r_hip", "r_ankle": "r_knee",
    "l_hip": "pelvis", "l_knee": "l_hip", "l_ankle": "l_knee",
    "spine": "pelvis", "thorax": "spine", "nose": "thorax", "head": "nose",
    "l_shoulder": "thorax", "l_elbow": "l_shoulder", "l_wrist": "l_elbow",
    "r_shoulder": "thorax", "r_elbow": "r_shoulder", "r_wrist": "r_elbow",
}  # fmt: skip


def bones(joints: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Pairs (parent, joint) of indices into `joints`; for an absent parent, its own parent."""
    pairs = []
    for index, name in enumerate(joints):
        parent = PARENT.get(name)
        while parent is not None and parent not in joints:
            parent = PARENT.get(parent)
        if parent is not None:
            pairs.append((joints.index(parent), index))
    return tuple(pairs)


def mirrored(joints: Sequence[str]) -> tuple[int, ...]:
    """For each joint the index of its left/right counterpart, or its own."""
    swap = {"l_": "r_", "r_": "l_"}
    partners = [swap.get(name[:2], name[:2]) + name[2:] for name in joints]
    return tuple(joints.index(p) if p in joints else i for i, p in enumerate(partners))


def lacking(source: Sequence[str], target: Sequence[str]) -> tuple[str, ...]:
    """The `target` joints that are neither among the sources nor can be computed from them."""
    return tuple(name for name in target if _row(name, tuple(source)) is None)


def conversion(
    source: Sequence[str], target: Sequence[str]
) -> Float[np.ndarray, "n_target n_source"]:
    """Matrix from `source` joints to `target` joints, by name; every row sums to 1.

    Raises:
        ValueError: if a target joint is neither among the sources nor can be computed from them.
    """
    rows = {name: _row(name, tuple(source)) for name in target}
    missing = [name for name, row in rows.items() if row is None]
    if missing:
        able = [
            name
            for name, joints in SKELETONS.items()
            if all(_row(joint, tuple(source)) is not None for joint in joints)
        ]
        remedy = (
            f"set skeleton: {' or '.join(able)}" if able else "no skeleton can be made of them"
        )
        raise ValueError(
            f"cannot make {', '.join(missing)} of the joints {', '.join(source)}; {remedy}"
        )
    return np.stack([row for row in rows.values() if row is not None])


def _row(name: str, source: tuple[str, ...]) -> np.ndarray | None:
    if name in source:
        return np.eye(len(source))[source.index(name)]
    for recipe in RECIPES.get(name, ()):
        parts = [_row(part, source) for part in recipe]
        rows = [part for part in parts if part is not None]
        if len(rows) == len(recipe):
            return np.array(list(recipe.values())) @ np.stack(rows)
    return None
