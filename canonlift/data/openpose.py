"""OpenPose output: one folder of JSON files per camera, one file per frame."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from canonlift import skeleton
from canonlift.data import tracking
from canonlift.data.recording import Recording

# Body models by the name that --body takes, with their joints in the order of the file.
BODIES: Mapping[str, tuple[str, ...]] = {
    "BODY_25": skeleton.BODY_25,
    "BODY_25B": skeleton.BODY_25B,
    "COCO-18": skeleton.COCO18,
}
MAX_GAP_S = 2.0  # a person missing for longer comes back as somebody else
LARGEST_PX = 1e6  # no image is wider; larger numbers are no coordinates

# Everybody in each frame of one camera, by the frame number in the file name.
Frames = dict[int, list[np.ndarray]]


def read(
    folders: Sequence[Path], fps: float, body: str | None = None, rig: str = ""
) -> tuple[Recording, list[str]]:
    """Read one person's take on the detector's own joints, and report what was decided.

    Cameras are matched by frame number; a frame without a file is unobserved. Of several
    people the track with the largest sum of confidences is kept. OpenPose writes 0 for a
    joint it did not find and at times confidences above 1, which are clipped.

    Args:
        folders: one per camera.
        fps: frames per second, the same for all cameras.
        body: a name of `BODIES`; None recognises the model by the number and place of joints.
        rig: name of the rig if the cameras never moved.

    Raises:
        FileNotFoundError: if a folder or its files are missing.
        ValueError: if a file is not what OpenPose writes, or the folders do not fit together.
    """
    if not 0 < fps < np.inf:
        raise ValueError(f"fps must be positive, got {fps}")
    cameras = {
        name: _read_folder(folder)
        for name, folder in zip(_view_names(folders), folders, strict=True)
    }
    span = _common_span(cameras)
    body, evidence = _body(cameras, body)
    joints = BODIES[body]
    report = [f"body model {body}: {evidence}"]

    taken = np.zeros((len(span), len(cameras), len(joints), 3))
    for view, (name, frames) in enumerate(cameras.items()):
        nobody = np.zeros((0, len(joints), 3))
        people = [np.stack(frames[n]) if frames.get(n) else nobody for n in span]
        tracks = tracking.tracks(people, max_gap=round(MAX_GAP_S * fps))
        best = tracking.best(people, tracks)
        for frame, person in best.items():
            taken[frame, view] = people[frame][person]
        report.append(f"{name}: {_account(people, tracks, best)}")

    confidence = taken[..., 2]
    observed = confidence > 0
    _check_scale(taken[observed])
    outside = int(((confidence < 0) | (confidence > 1)).sum())
    report.append(f"confidences outside [0, 1], clipped: {outside} of {observed.sum()}")
    recording = Recording(
        keypoints=np.where(observed[..., None], taken[..., :2], np.nan).astype(np.float32),
        confidence=confidence.clip(0, 1).astype(np.float32),
        joints=joints,
        views=tuple(cameras),
        fps=float(fps),
        rig=rig,
    )
    return recording, report


def _account(
    people: Sequence[np.ndarray], tracks: Sequence[dict[int, int]], best: dict[int, int]
) -> str:
    unobserved = len(people) - len(best)
    others = sum(len(them) > 0 and frame not in best for frame, them in enumerate(people))
    ambiguous = sum(len(them) > 1 for them in people)
    return (
        f"{unobserved} of {len(people)} frames unobserved"
        + (f" (in {others} of them somebody else is seen)" if others else "")
        + f"; {ambiguous} ambiguous, with more than one person"
        + (f" (kept the best of {len(tracks)} tracks)" if len(tracks) > 1 else "")
    )


def _view_names(folders: Sequence[Path]) -> list[str]:
    """Folder names without Pose2Sim's `_json`; longer paths where those are not unique."""
    whole = [folder.resolve() for folder in folders]
    if len(set(whole)) < len(whole):
        twice = next(folder for folder in whole if whole.count(folder) > 1)
        raise ValueError(f"{twice}: given twice; give one folder per camera")
    names = [folder.name.removesuffix("_json") for folder in whole]
    if len(set(names)) < len(names):
        root = os.path.commonpath(whole)
        names = [folder.relative_to(root).as_posix() for folder in whole]
    return names


def _read_folder(folder: Path) -> Frames:
    if not folder.is_dir():
        what = "is a file; give the folder that holds it" if folder.exists() else "no such folder"
        raise FileNotFoundError(f"{folder}: {what}")
    paths = sorted(p for p in folder.glob("*.json") if not p.name.startswith("."))
    if not paths:
        inner = sorted({p.parent.name for p in folder.glob("*/*.json")})
        hint = f"give its folders {', '.join(inner)} one by one" if inner else "need one per frame"
        raise FileNotFoundError(f"{folder}: no .json files; {hint}")
    files: dict[int, Path] = {}
    for path in paths:
        match = re.search(r"(\d+)(?:_keypoints)?$", path.stem)
        if match is None:
            raise ValueError(
                f"{path}: no frame number at the end of the name, as in "
                "video_000000000012_keypoints.json; move other files out of the folder"
            )
        number = int(match[1])
        if number in files:
            raise ValueError(
                f"{path}: frame {number} again, after {files[number].name}; "
                "a folder must hold the files of one camera only"
            )
        files[number] = path
    frames = {number: _read_people(path) for number, path in files.items()}
    _check_one_body(files, frames)
    return frames


def _check_one_body(files: Mapping[int, Path], frames: Frames) -> None:
    joints = {n: {len(person) for person in people} for n, people in frames.items() if people}
    first = next(iter(joints), None)
    for number, found in joints.items():
        if len(found) > 1 or found != joints[first]:
            raise ValueError(
                f"{files[number]}: people of {sorted(found)} joints, in {files[first].name} of "
                f"{sorted(joints[first])}; a folder must hold the files of one body model"
            )


def _read_people(path: Path) -> list[np.ndarray]:
    """(J, 3) of x, y, confidence for everybody of whom something was found."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error}); run the detector on it again") from error
    people = content.get("people") if isinstance(content, dict) else None
    if not isinstance(people, list):
        raise ValueError(f"{path}: no list 'people', so not written by OpenPose")
    triples = [_read_person(person, f"{path}, person {i}") for i, person in enumerate(people)]
    return [person for person in triples if (person[:, 2] > 0).any()]


def _read_person(person: object, where: str) -> Float[np.ndarray, "J 3"]:
    keys = ("pose_keypoints_2d", "pose_keypoints")  # the latter until version 1.0
    found = [person[k] for k in keys if k in person] if isinstance(person, dict) else []
    if not found:
        raise ValueError(f"{where}: no 'pose_keypoints_2d'; run OpenPose with its body detector")
    try:
        numbers = np.asarray(found[0])
    except ValueError as error:  # lists of different lengths
        raise ValueError(f"{where}: not a list of numbers ({error})") from error
    if numbers.size == 0:
        return np.zeros((0, 3))
    if numbers.dtype.kind not in "iuf" or not (np.abs(numbers.astype(float)) < LARGEST_PX).all():
        raise ValueError(f"{where}: x, y, confidence must be finite numbers below {LARGEST_PX:g}")
    sizes = {3 * len(joints): name for name, joints in BODIES.items()}
    if numbers.size not in sizes:
        raise ValueError(
            f"{where}: {numbers.size} numbers, but {' or '.join(map(str, sizes))} are "
            f"{', '.join(BODIES)}; other body models are not read"
        )
    triples = numbers.reshape(-1, 3).astype(float)
    # No joint is exactly in the corner: that is how an undetected one is written.
    triples[(triples[:, :2] == 0).all(-1)] = 0
    return triples


def _common_span(cameras: Mapping[str, Frames]) -> range:
    """All frames that any camera has, from the first to the last."""
    for name, frames in cameras.items():
        others = {n for other, them in cameras.items() if other != name for n in them}
        if others and not others & frames.keys():
            raise ValueError(
                f"view {name!r} has frames {min(frames)} to {max(frames)}, the others "
                f"{min(others)} to {max(others)}: no frame in common; number the files by the "
                "instant they show"
            )
    span = range(min(map(min, cameras.values())), max(map(max, cameras.values())) + 1)
    files = max(map(len, cameras.values()))
    if len(span) > 100 * files:
        raise ValueError(
            f"file names number {len(span)} frames, {span[0]} to {span[-1]}, but a camera has at "
            f"most {files} files; time stamps must be replaced by frame numbers"
        )
    return span


def _body(cameras: Mapping[str, Frames], wanted: str | None) -> tuple[str, str]:
    """Find the body model of all files, and say how."""
    people = {
        name: np.stack([person for frame in frames.values() for person in frame])
        for name, frames in cameras.items()
        if any(frames.values())
    }
    if not people:
        raise ValueError(f"no person in any file of {', '.join(cameras)}")
    counts = {name: them.shape[1] for name, them in people.items()}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{name} of {count}" for name, count in counts.items())
        raise ValueError(f"cameras of different body models, by number of joints: {found}")
    n_joints = next(iter(counts.values()))
    fitting = [name for name, joints in BODIES.items() if len(joints) == n_joints]
    if wanted is not None:
        if wanted not in fitting:
            raise ValueError(
                f"the files hold {n_joints} joints, the number of {' and '.join(fitting)}; "
                f"they cannot be {wanted}"
            )
        return wanted, "as asked for"
    if len(fitting) == 1:
        return fitting[0], f"the one of {n_joints} joints"
    return _tell_25_from_25b(people)


def _tell_25_from_25b(people: Mapping[str, Float[np.ndarray, "_ 25 3"]]) -> tuple[str, str]:
    """Recognise the order of joints by what lies where; every camera must say the same.

    Joint 8 of BODY_25 is mid-hip, between the hips 9 and 12. In BODY_25B they are right elbow,
    left wrist and right hip. (In `balancing_4cam` this tells every camera apart for over 99 % of
    the people, also those seen from behind, whose eyes and nose OpenPose does not report.)
    """
    share = {name: _share_with_mid_hip(them) for name, them in people.items()}
    told = {"BODY_25" if s > 0.5 else "BODY_25B" for s in share.values() if abs(s - 0.5) > 0.3}
    shares = ", ".join(f"{name} {100 * s:.0f} %" for name, s in share.items())
    evidence = f"joint 8 lies midway between 9 and 12 for this share of people: {shares}"
    if len(told) != 1:
        raise ValueError(f"cannot tell BODY_25 from BODY_25B ({evidence}); say which by --body")
    return told.pop(), evidence


def _share_with_mid_hip(people: Float[np.ndarray, "N 25 3"]) -> float:
    """How many of those with joints 8, 9, 12 have the first midway between the others."""
    whole = people[(people[:, [8, 9, 12], 2] > 0).all(-1)]
    if not len(whole):
        return 0.5  # cannot tell
    points = whole[..., :2]
    off = np.linalg.norm(points[:, 8] - (points[:, 9] + points[:, 12]) / 2, axis=-1)
    return float((off < 0.05 * tracking.size(points, whole[..., 2] > 0)).mean())


def _check_scale(observed: Float[np.ndarray, "N 3"]) -> None:
    if np.abs(observed[:, :2]).max() <= 2:
        raise ValueError(
            "all coordinates lie within 2 pixels, so they were divided by the image size and "
            "have lost its shape; run OpenPose with --keypoint_scale 0"
        )
    if np.median(observed[:, 2]) > 1:
        raise ValueError(
            f"confidences reach {observed[:, 2].max():.3g} and most are above 1: not the scale "
            "of OpenPose; scale them to [0, 1]"
        )
