"""The orders in which data sets and their detectors list joints, by canonlift's names."""

from collections.abc import Mapping

from canonlift.body.skeleton import COCO17, H36M17, SKELETONS

# By the name to choose them with (`--layout`).
LAYOUTS: Mapping[str, tuple[str, ...]] = {
    "coco17": COCO17,
    "mpii16": tuple(
        "r_ankle r_knee r_hip l_hip l_knee l_ankle pelvis thorax upper_neck head_top "
        "r_wrist r_elbow r_shoulder l_shoulder l_elbow l_wrist".split()
    ),
    "halpe26": (
        *COCO17,
        *("head_top", "neck", "mid_hip"),
        *(side + joint for joint in ("bigtoe", "smalltoe", "heel") for side in ("l_", "r_")),
    ),
    "h36m17": H36M17,
    "h36m16": SKELETONS["h36m16"],
    # The hourglass of Martinez et al. after fine-tuning, as their code names its joints
    "hourglass16": tuple(
        "r_ankle r_knee r_hip l_hip l_knee l_ankle pelvis spine thorax head "
        "r_wrist r_elbow r_shoulder l_shoulder l_elbow l_wrist".split()
    ),
    # CanonPose's own order, given in its issue 1
    "canonpose16": tuple(
        "r_hip r_knee r_ankle l_hip l_knee l_ankle pelvis thorax nose head "
        "r_shoulder r_elbow r_wrist l_shoulder l_elbow l_wrist".split()
    ),
}


def layout(name: str, where: object) -> tuple[str, ...]:
    """The joints of a layout; ValueError if there is none of that name."""
    if name not in LAYOUTS:
        raise ValueError(f"{where}: no layout {name!r}; choose one of {', '.join(LAYOUTS)}")
    return LAYOUTS[name]
