"""What the joints in the files are: by their names, by their number, or as the user says."""

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
    seen: Mapping[str, dict[int, People]],
    possible: Sequence[str],
    layout: str | None,
    where: str,
) -> tuple[tuple[str, ...], Float[np.ndarray, "_ _"], list[str]]:
    """The joints' names, the matrix that makes them of those in the files, and how it was told."""
    counts = {
        name: next(f.points.shape[1] for f in frames.values() if len(f))
        for name, frames in seen.items()
        if any(map(len, frames.values()))
    }
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{name} of {count}" for name, count in counts.items())
        what = f"cameras of different body models, by number of joints: {found}"
        raise InputError(where, what, "use one detector for all cameras")
    n_joints = next(iter(counts.values()))
    given = {part.joints for name, part in detections.items() if name in counts}
    if len({frozenset(joints) if joints else joints for joints in given}) > 1:
        raise InputError(where, "cameras with joints of different names", "use one detector")
    joints = detections[next(iter(counts))].joints
    report: list[str] = []
    custom = None
    if layout is not None and layout not in joint_layouts.LAYOUTS:
        custom = joint_layouts.load(Path(layout))
    if custom is not None:
        joints = _renamed(joints, custom, n_joints, where)
        report.append(f"joints: {n_joints} as {layout} names them")
    elif joints is not None and layout is None:
        joints, kept = joint_layouts.named(joints, where)
        report.append(f"joints: {n_joints}, named in the file")
        if kept:
            report.append(f"joints kept under names unknown here: {', '.join(kept[:12])}")
    else:
        name, evidence = _recognise(seen, possible, n_joints, layout, where)
        joints = joint_layouts.LAYOUTS[name].joints
        report.append(f"body model {name}: {evidence}")
    matrix = np.eye(len(joints), n_joints)
    if len({detections[name].joints for name in counts}) > 1:
        raise InputError(where, "cameras with joints in different orders", "use one detector")
    if custom is not None:
        joints, more = joint_layouts.mixing(joints, custom, layout)
        matrix = more @ matrix
    return joints, matrix, report


def _renamed(
    joints: tuple[str, ...] | None, custom: joint_layouts.Custom, n_joints: int, where: str
) -> tuple[str, ...]:
    if custom.order is not None:
        if len(custom.order) != n_joints or len(set(custom.order)) != n_joints:
            what = f"{len(custom.order)} names in the YAML file for {n_joints} joints"
            raise InputError(
                where, what, "give each joint one name of its own, in the file's order"
            )
        return custom.order
    if joints is None:
        what = f"{n_joints} joints without names in the file"
        raise InputError(where, what, "write `names` as a list, in the detector's order")
    missing = [name for name in custom.rename if name not in joints]
    if missing:
        what = f"no joint {', '.join(missing)}; there are {', '.join(joints)}"
        raise InputError(where, what, "correct `names` in the YAML file")
    return joint_layouts.named([custom.rename.get(name, name) for name in joints], where)[0]


def _recognise(
    seen: Mapping[str, dict[int, People]],
    possible: Sequence[str],
    n_joints: int,
    wanted: str | None,
    where: str,
) -> tuple[str, str]:
    """Find the layout of joints that the files do not name, and say how."""
    fitting = [n for n in possible if joint_layouts.LAYOUTS[n].total == n_joints]
    if wanted is not None:
        if joint_layouts.LAYOUTS[wanted].total != n_joints:
            raise InputError(
                where,
                f"the files hold {n_joints} joints, the number of "
                f"{' and '.join(fitting) or 'no layout of this format'}; they cannot be {wanted}",
                "name another --layout",
            )
        return wanted, "as asked for"
    if not fitting:
        known = ", ".join(f"{joint_layouts.LAYOUTS[n].total} ({n})" for n in possible)
        raise InputError(
            where,
            f"people of {n_joints} joints; {known or 'none'} are known of this format",
            "name the joints in a YAML file for --layout",
        )
    if len(fitting) == 1:
        return fitting[0], f"the one of {n_joints} joints"
    return _tell_25_from_25b(seen, where)


def _tell_25_from_25b(seen: Mapping[str, dict[int, People]], where: str) -> tuple[str, str]:
    """Recognise the order of joints by what lies where; every camera must say the same.

    Joint 8 of BODY_25 is mid-hip, between the hips 9 and 12. In BODY_25B they are right elbow,
    left wrist and right hip. (In `balancing_4cam` this tells every camera apart for over 99 % of
    the people, also those seen from behind, whose eyes and nose OpenPose does not report.)
    """
    share = {
        name: _share_with_mid_hip(np.concatenate([f.points for f in frames.values() if len(f)]))
        for name, frames in seen.items()
        if any(map(len, frames.values()))
    }
    told = {"BODY_25" if s > 0.5 else "BODY_25B" for s in share.values() if abs(s - 0.5) > 0.3}
    shares = ", ".join(f"{name} {100 * s:.0f} %" for name, s in share.items())
    evidence = f"joint 8 lies midway between 9 and 12 for this share of people: {shares}"
    if len(told) != 1:
        what = f"cannot tell BODY_25 from BODY_25B ({evidence})"
        raise InputError(where, what, "say which by --layout")
    return told.pop(), evidence


def _share_with_mid_hip(people: Float[np.ndarray, "N 25 3"]) -> float:
    """How many of those with joints 8, 9, 12 have the first midway between the others."""
    whole = people[~np.isnan(people[:, [8, 9, 12], 0]).any(-1)]
    if not len(whole):
        return 0.5  # cannot tell
    points = whole[..., :2]
    off = np.linalg.norm(points[:, 8] - (points[:, 9] + points[:, 12]) / 2, axis=-1)
    return float((off < 0.05 * tracking.size(points, ~np.isnan(points[..., 0]))).mean())
