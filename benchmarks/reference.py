"""How far exported poses of real recordings are from what calibrated cameras made of the same.

Examples:
    python -m benchmarks.reference runs/balancing/eval/export/balancing ../triangulated.trc
    python -m benchmarks.reference runs/webcam/eval/export/webcam ../kpts_3d.dat

The first argument is where NAME-fused.npz and NAME-VIEW.npz lie, as `canonlift export --formats
npz` writes them. The reference is a TRC file in metres, or rows of 12 limb joints in an unknown
unit (`kpts_3d.dat`), which is taken to be of a person of 1.75 m. It is triangulated from the same
detections, so it is wrong where these are; joints whose definitions differ are not compared.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from canonlift.geometry.alignment import align_similarity
from canonlift.readers.detectors.joint_layouts import LIMBS12, canonical

LEG, TALL_M = 0.491, 1.75  # share of thigh and shank in the height (Drillis and Contini 1966)
DEFINED_OTHERWISE = {"head"}


class Reference(NamedTuple):
    """Joints in space, frame by frame."""

    joints: tuple[str, ...]
    metres: Float[np.ndarray, "T J 3"]  # NaN where missing


def main(argv: Sequence[str] | None = None) -> None:
    """Print a Markdown table: a row for the fused sequence, and one for each view."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("exports", type=Path, metavar="FOLDER/NAME")
    parser.add_argument("reference", type=Path)
    args = parser.parse_args(argv)
    reference = READERS[args.reference.suffix](args.reference)
    paths = sorted(args.exports.parent.glob(f"{args.exports.name}-*.npz"))
    if not paths:
        sys.exit(
            f"{args.exports}-*.npz: no such files; `canonlift export --formats npz` writes them"
        )
    print("| sequence | PA-MPJPE mm | by one similarity mm | frames | joints |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for path in paths:
        print(row(path.stem.removeprefix(f"{args.exports.name}-"), path, reference))


def read_trc(path: Path) -> Reference:
    """Read a TRC file in metres."""
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    names = lines[3][2::3]
    rows = np.array([[float(cell or "nan") for cell in line[2:]] for line in lines[5:]])
    joints = tuple(canonical(name) or name for name in names if name)
    return Reference(joints, rows[:, : 3 * len(joints)].reshape(len(rows), -1, 3))


def read_limbs(path: Path) -> Reference:
    """Read rows of 12 points in any unit."""
    points = np.loadtxt(path).reshape(-1, len(LIMBS12), 3)
    points[(points == -1).all(-1)] = np.nan
    joint = {name: points[:, i] for i, name in enumerate(LIMBS12)}
    parts = [
        (f"{s}_{a}", f"{s}_{b}") for s in "lr" for a, b in (("hip", "knee"), ("knee", "ankle"))
    ]
    length = sum(np.nanmedian(np.linalg.norm(joint[a] - joint[b], axis=-1)) for a, b in parts) / 2
    return Reference(LIMBS12, points * LEG * TALL_M / length)


READERS: Mapping[str, Callable[[Path], Reference]] = {".trc": read_trc, ".dat": read_limbs}


def row(name: str, path: Path, reference: Reference) -> str:
    """One line of the table."""
    with np.load(path) as file:
        found, joints = file["positions"].astype(np.float64), file["joints"].tolist()
    if len(found) != len(reference.metres):
        sys.exit(f"{path}: {len(found)} frames, but the reference has {len(reference.metres)}")
    both = [j for j in joints if j in reference.joints and j not in DEFINED_OTHERWISE]
    # Uncalibrated cameras do not show where the person is in the room.
    found, truth = (
        points[:, [names.index(j) for j in both]] - points[:, hips(names)].mean(1, keepdims=True)
        for points, names in ((found, joints), (reference.metres, reference.joints))
    )
    frame_by_frame = np.concatenate(list(gaps(found, truth)))
    at_once = next(gaps(found.reshape(1, -1, 3), truth.reshape(1, -1, 3)))
    n_frames = int(np.isfinite(found).all(-1).any(-1).sum())
    return (
        f"| {name} | {1000 * frame_by_frame.mean():.0f} | {1000 * at_once.mean():.0f} | "
        f"{n_frames} | {len(both)} |"
    )


def hips(joints: Sequence[str]) -> list[int]:
    """Where the hips are among the joints."""
    return [joints.index("l_hip"), joints.index("r_hip")]


def gaps(
    found: Float[np.ndarray, "N J 3"], truth: Float[np.ndarray, "N J 3"]
) -> Iterator[Float[np.ndarray, " _"]]:
    """Distances of the joints that both have, after the best similarity, set by set."""
    for pose, target in zip(found, truth, strict=True):
        known = np.isfinite(pose).all(-1) & np.isfinite(target).all(-1)
        if known.sum() >= 4:
            source, aim = (torch.from_numpy(x[known])[None] for x in (pose, target))
            yield (align_similarity(source, aim)(source) - aim).norm(dim=-1)[0].numpy()


if __name__ == "__main__":
    main()
