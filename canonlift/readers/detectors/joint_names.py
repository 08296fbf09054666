"""The names of the joints in the files: their own, by their number, or as the user says."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from canonlift.readers import tracking
from canonlift.readers.detectors import joint_layouts
from canonlift.readers.detectors.parsing import CameraDetections, InputError
from canonlift.readers.detectors.people import People


def resolve(
    detections: Mapping[str, CameraDetections],
    detected: Mapping[str, People],
    possible: Sequence[str],
    layout: str | None,
    where: str,
) -> tuple[tuple[str, ...], Float[np.ndarray, "_ _"], list[str]]:
    """The names of the joints, the matrix that makes them of those in the files, and the reason.

    `possible` are the layouts that the format's detectors have, `layout` is what the user named:
    a row of `joint_layouts.LAYOUTS` or a YAML file.
    """
    seen = {name: people for name, people in detected.items() if len(people)}
    counts = {name: people.points.shape[1] for name, people in seen.items()}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{name} of {count}" for name, count in counts.items())
        what = f"cameras of different body models, by number of joints: {found}"
        raise InputError(where, what, "use one detector for all cameras")
    n_joints = next(iter(counts.values()))
    in_files = {detections[name].joints for name in seen}
    if len(in_files) > 1:
        what = "cameras with joints of different names or in different orders"
        raise InputError(where, what, "use one detector for all cameras")
    joints = in_files.pop()
    if layout is not None and layout not in joint_layouts.LAYOUTS:
        custom = joint_layouts.load(Path(layout))
        joints = _renamed(joints, custom.names, n_joints, where)
        joints, matrix = joint_layouts.combine(joints, custom, layout)
        return joints, matrix, [f"joints: {n_joints} as {layout} names them"]
    if joints is not None and layout is None:
        joints, kept = joint_layouts.named(joints, where)
        report = [f"joints: {n_joints}, named in the file"]
        if kept:
            report.append(f"joints kept under names unknown here: {', '.join(kept[:12])}")
    else:
        name, evidence = _recognise(seen, possible, n_joints, layout, where)
        joints = joint_layouts.LAYOUTS[name].joints
        report = [f"body model {name}: {evidence}"]
    return joints, np.eye(len(joints), n_joints), report


def _renamed(
    joints: tuple[str, ...] | None, names: list[str] | dict[str, str], n_joints: int, where: str
) -> tuple[str, ...]:
    if isinstance(names, list):
        if len(names) != n_joints or len(set(names)) != n_joints:
            what = f"{len(names)} names in the YAML file for {n_joints} joints"
            remedy = "give each joint one name of its own, in the file's order"
            raise InputError(where, what, remedy)
        return tuple(names)
    if joints is None:
        what = f"{n_joints} joints without names in the file"
        raise InputError(where, what, "write `names` as a list, in the detector's order")
    if missing := [name for name in names if name not in joints]:
        what = f"no joint {', '.join(missing)}; there are {', '.join(joints)}"
        raise InputError(where, what, "correct `names` in the YAML file")
    return joint_layouts.named([names.get(name, name) for name in joints], where)[0]


def _recognise(
    seen: Mapping[str, People],
    possible: Sequence[str],
    n_joints: int,
    wanted: str | None,
    where: str,
) -> tuple[str, str]:
    """The layout of joints that the files do not name, and the reason."""
    totals = {name: joint_layouts.LAYOUTS[name].total for name in possible}
    fitting = [name for name, total in totals.items() if total == n_joints]
    if wanted is not None:
        if joint_layouts.LAYOUTS[wanted].total != n_joints:
            what = (
                f"the files hold {n_joints} joints, the number of "
                f"{' and '.join(fitting) or 'no layout of this format'}; they cannot be {wanted}"
            )
            raise InputError(where, what, "name another --layout")
        return wanted, "as asked for"
    if not fitting:
        known = ", ".join(f"{total} ({name})" for name, total in totals.items())
        what = f"people of {n_joints} joints; {known or 'none'} are known of this format"
        raise InputError(where, what, "name the joints in a YAML file for --layout")
    if len(fitting) == 1:
        return fitting[0], f"the one of {n_joints} joints"
    return _body_25_or_25b(seen, where)


def _body_25_or_25b(seen: Mapping[str, People], where: str) -> tuple[str, str]:
    """The order of joints by where they lie; every camera must lead to the same.

    Joint 8 of BODY_25 is mid-hip, between the hips 9 and 12. In BODY_25B they are right elbow,
    left wrist and right hip. (In `balancing_4cam` this decides for every camera by over 99 % of
    the people, also those seen from behind, whose eyes and nose OpenPose does not report.)
    """
    share = {name: _share_with_mid_hip(people.points) for name, people in seen.items()}
    found = {"BODY_25" if s > 0.5 else "BODY_25B" for s in share.values() if abs(s - 0.5) > 0.3}
    shares = ", ".join(f"{name} {100 * s:.0f} %" for name, s in share.items())
    evidence = f"joint 8 lies midway between 9 and 12 for this share of people: {shares}"
    if len(found) != 1:
        what = f"cannot tell BODY_25 from BODY_25B ({evidence})"
        raise InputError(where, what, "say which by --layout")
    return found.pop(), evidence


def _share_with_mid_hip(people: Float[np.ndarray, "N 25 3"]) -> float:
    """How many of those with joints 8, 9, 12 have the first midway between the others."""
    whole = people[~np.isnan(people[:, [8, 9, 12], 0]).any(-1)]
    if not len(whole):
        return 0.5  # undecided
    points = whole[..., :2]
    off = np.linalg.norm(points[:, 8] - (points[:, 9] + points[:, 12]) / 2, axis=-1)
    return float((off < 0.05 * tracking.size(points, ~np.isnan(points[..., 0]))).mean())
