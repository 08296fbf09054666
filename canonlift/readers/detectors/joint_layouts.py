"""The orders in which detectors list joints, and detectors' own names for them."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from jaxtyping import Float

from canonlift.body import skeleton
from canonlift.readers.datasets.joint_orders import LAYOUTS as DATA_SETS
from canonlift.readers.detectors.parsing import InputError

BLAZEPOSE33 = tuple(
    "nose l_eye_inner l_eye l_eye_outer r_eye_inner r_eye r_eye_outer l_ear r_ear l_mouth r_mouth "
    "l_shoulder r_shoulder l_elbow r_elbow l_wrist r_wrist l_pinky r_pinky l_index r_index "
    "l_thumb r_thumb l_hip r_hip l_knee r_knee l_ankle r_ankle l_heel r_heel l_bigtoe "
    "r_bigtoe".split()
)
# As the two-webcam files of `bodypose3d` list them
LIMBS12 = tuple(
    side + joint
    for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    for side in ("l_", "r_")
)
MPI15 = ("head_top", *skeleton.COCO18[1:14], "chest")
MPI_INF_3DHP17 = ("head_top", *skeleton.COCO18[1:14], "pelvis", "spine", "head")


class Layout(NamedTuple):
    """The first joints of a detector that lists `total`; of whole bodies, those without hands."""

    joints: tuple[str, ...]
    total: int


LAYOUTS: Mapping[str, Layout] = {
    name: Layout(joints, max(len(joints), total))
    for name, joints, total in (
        ("BODY_25", skeleton.BODY_25, 0),
        ("BODY_25B", skeleton.BODY_25B, 0),
        ("COCO-18", skeleton.COCO18, 0),
        ("MPI-15", MPI15, 0),
        *((name, joints, 0) for name, joints in DATA_SETS.items()),
        ("mpi_inf_3dhp17", MPI_INF_3DHP17, 0),
        ("halpe68", DATA_SETS["halpe26"], 68),
        ("halpe136", DATA_SETS["halpe26"], 136),
        ("wholebody133", (*skeleton.COCO17, *skeleton.FEET), 133),
        ("blazepose33", BLAZEPOSE33, 0),
        ("limbs12", LIMBS12, 0),
    )
}

# Joints without a side, and parts of a pair, by the words that detectors have for them.
MIDDLE: Mapping[str, str] = {
    "nose": "nose", "neck": "neck", "thorax": "thorax", "spine": "spine", "head": "head",
    "headtop": "head_top", "tophead": "head_top", "topofhead": "head_top", "pelvis": "pelvis",
    "root": "pelvis", "midhip": "mid_hip", "hip": "mid_hip", "upperneck": "upper_neck",
    "neckbase": "nose", "chest": "chest",
}  # fmt: skip
PAIRED: Mapping[str, str] = {
    **{word: word for word in "eye ear shoulder elbow wrist hip knee ankle heel mouth pinky index "
       "thumb bigtoe smalltoe".split()},
    "sho": "shoulder", "elb": "elbow", "wri": "wrist", "kne": "knee", "ank": "ankle",
    "eyeinner": "eye_inner", "eyeouter": "eye_outer", "innereye": "eye_inner",
    "outereye": "eye_outer", "footindex": "bigtoe", "foot": "ankle",
}  # fmt: skip
SIDES = {"l": "l_", "left": "l_", "r": "r_", "right": "r_"}


def canonical(name: str) -> str | None:
    """The name that canonlift has for a detector's joint, or None.

    (`neck_base` is mmpose's word for what VideoPose3D calls nose.)
    """
    words = [
        word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", str(name)[:80])
    ]
    side = [word for word in words if word in SIDES]
    rest = "".join(word for word in words if word not in SIDES)
    for prefix in () if side or rest in MIDDLE else SIDES:  # rshoulder, leftshoulder
        if rest.removeprefix(prefix) in PAIRED and rest.startswith(prefix):
            side, rest = [prefix], rest.removeprefix(prefix)
            break
    if len(side) == 1:
        return SIDES[side[0]] + PAIRED[rest] if rest in PAIRED else None
    return MIDDLE.get(rest) if not side else None


def named(joints: Sequence[str], where: object) -> tuple[tuple[str, ...], list[str]]:
    """The names that canonlift has for joints, and the detector's that it keeps for want of one.

    Two names of one joint are refused by an `InputError`.
    """
    known = [canonical(joint) for joint in joints]
    result = [new or old for new, old in zip(known, joints, strict=True)]
    twice = {joint for joint in result if result.count(joint) > 1}
    if twice:
        both = [old for old, new in zip(joints, result, strict=True) if new in twice]
        what = f"joints {', '.join(both[:6])} are called the same here"
        raise InputError(where, what, "name them in a YAML file for --layout")
    return tuple(result), [old for new, old in zip(known, joints, strict=True) if new is None]


class Custom(NamedTuple):
    """The joints of a detector as its user describes them in a YAML file."""

    names: list[str] | dict[str, str]  # in the detector's order, or by the file's own names
    combinations: dict[str, dict[str, float]]  # joints to make, each by the weights of others


def load(path: Path) -> Custom:
    """Read the YAML of a detector with other joints: `names`, and optional `combinations`.

    `names` is a list in the detector's order, or a mapping from the file's names. Weights of a
    combination sum to 1; then it is one and the same point of the body in every view.

    Raises:
        FileNotFoundError: if there is no such file.
        InputError: if it says something else.
    """

    def refused(what: str) -> InputError:
        remedy = "write `names: [nose, l_hip, ...]` or `names: {Nose: nose, ...}`, and "
        return InputError(
            path, what, remedy + "`combinations: {pelvis: {l_hip: 0.5, r_hip: 0.5}}`"
        )

    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file, nor a layout; give a YAML file or one of {', '.join(LAYOUTS)}"
        )
    if path.stat().st_size > 1 << 20:
        raise refused("larger than a list of joints")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise refused(f"not YAML ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(content, dict) or not content.keys() <= {"names", "combinations"}:
        raise refused("not a mapping of `names` and `combinations`")
    names, combinations = content.get("names"), content.get("combinations") or {}
    if not isinstance(names, dict | list) or not names:
        raise refused("no `names`")
    if not isinstance(combinations, dict) or not all(map(_sums_to_1, combinations.values())):
        raise refused("a combination is not joints with weights that sum to 1")
    texts = [*names, *(names.values() if isinstance(names, dict) else ()), *combinations]
    if not all(isinstance(text, str) and text for text in texts):
        raise refused("a name is no text")
    return Custom(names, combinations)


def _sums_to_1(weights: object) -> bool:
    return (
        isinstance(weights, dict)
        and all(type(w) in (int, float) and abs(w) < 100 for w in weights.values())
        and abs(sum(weights.values()) - 1) < 1e-6
    )


def combine(
    joints: Sequence[str], custom: Custom, where: object
) -> tuple[tuple[str, ...], Float[np.ndarray, "n_target n_source"]]:
    """The joints with those that `custom` combines of them, and the matrix that makes them."""
    weights = {joint: {joint: 1.0} for joint in joints} | custom.combinations
    for name, sources in weights.items():
        if missing := [source for source in sources if source not in joints]:
            what = f"combination {name!r} is made of {missing[0]!r}, which is not there"
            raise InputError(where, what, f"use {', '.join(joints)}")
    matrix = [[sources.get(joint, 0.0) for joint in joints] for sources in weights.values()]
    return tuple(weights), np.array(matrix)
