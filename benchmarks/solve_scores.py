"""Figures of 3D from all views together, with cameras and repaired joints where a method has them.

Poses are compared in camera axes, view by view. N-MPJPE is relative to the root, or to the thorax
where no camera sees the root, with one scale per pose; PA-MPJPE is after one similarity per pose.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float

from canonlift import metrics
from canonlift.body.skeleton import ROOT
from canonlift.data.recording import Recording
from canonlift.geometry.alignment import align_similarity
from canonlift.simulation.cameras import Cameras

WINDOW_S = 2.0
WRONG = 2.0  # a window's PA-MPJPE over that of triangulation, above which it is wrong
THRESHOLDS = (0.0, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)  # of trust
TRUSTED = 0.6  # proposed: the lowest that called no wrong window good but those of `room`
RIGHT, SPOILT = 0.02, 0.03  # 2D errors over the person's size: before, and after repair
NORMAL = {"68": 0.9945, "95": 1.9600}  # standard deviations on either side
MATTERS = 0.05  # displacement over the person's size from which a swap matters


@dataclass(frozen=True, eq=False)
class Found:
    """What a method says of a recording; None: it says nothing of that."""

    in_camera: Float[np.ndarray, "T V J 3"]  # NaN where it has no pose
    rotation: Float[np.ndarray, "T V 3 3"] | None = None
    focal_px: Float[np.ndarray, "T V"] | None = None
    refined: Float[np.ndarray, "T V J 2"] | None = None
    covariance: Float[np.ndarray, "T V J 3 3"] | None = None  # in camera axes
    trust: Float[np.ndarray, " T"] | None = None
    swapped: Bool[np.ndarray, "T V 2"] | None = None
    position: Float[np.ndarray, "V 3"] | None = None  # of fixed cameras, in axes of its own


class Truth(NamedTuple):
    """What the benchmark knows of a recording."""

    recording: Recording
    cameras: Cameras
    swapped: Bool[np.ndarray, "T V 2"]
    defined: Float[np.ndarray, "T V J 3"]  # what the detector calls joints


def joints_of(recording: Recording) -> tuple[list[int], int]:
    """Joints that some camera has seen, and which of them is the root, or else the thorax."""
    seen = np.flatnonzero((recording.confidence > 0).any((0, 1))).tolist()
    names = [recording.joints[joint] for joint in seen]
    return seen, names.index(ROOT if ROOT in names else "thorax")


class Errors(NamedTuple):
    """Mean error of the joints, mm; NaN where there is no pose."""

    n_mpjpe: Float[np.ndarray, "T V"]
    pa_mpjpe: Float[np.ndarray, "T V"]


def errors(in_camera: Float[np.ndarray, "T V J 3"], recording: Recording) -> Errors:
    """Errors of every pose in every view."""
    joints, root = joints_of(recording)
    found, truth = (
        torch.from_numpy(np.ascontiguousarray(x[:, :, joints])).double()
        for x in (in_camera, _known(recording.pose3d))
    )
    each = metrics.joint_errors(found.flatten(0, 1), truth.flatten(0, 1), root)
    shape = truth.shape[:3]
    pair = (1000 * e.view(shape).nanmean(-1).numpy() for e in (each.n_mpjpe, each.pa_mpjpe))
    return Errors(*pair)


def figures(truth: Truth, found: Found, reference: Errors) -> dict[str, np.ndarray]:
    """Everything that is pooled over clips before means are taken.

    Args:
        truth: of the recording.
        found: by a method.
        reference: errors of triangulation by the true cameras.
    """
    own = errors(found.in_camera, truth.recording)
    parts: dict[str, np.ndarray] = {
        "n": _over_views(own.n_mpjpe),
        "pa": _over_views(own.pa_mpjpe),
        "n_bar": _over_views(reference.n_mpjpe),
        "pa_bar": _over_views(reference.pa_mpjpe),
        "missing": np.isnan(own.pa_mpjpe).all(1),
    }
    parts |= _windows(truth.recording.fps, parts, found.trust)
    if found.rotation is not None:
        parts["rotation"] = relative_rotation_deg(found.rotation, truth.cameras.rotation)
    if found.focal_px is not None:
        parts["focal"] = _finite(np.abs(np.log(found.focal_px / truth.cameras.focal_px)))
    if found.position is not None and found.rotation is not None:
        parts["position"] = position_error(found, truth)
    if found.refined is not None:
        parts |= _repair(truth, found.refined)
    if found.covariance is not None:
        parts["z"] = deviations(truth, found)
    if found.swapped is not None:
        parts |= _swaps(truth, found.swapped)
    return parts


def summary(clips: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """The figures of a row; None where a method has none. Shares and ratios are plain numbers."""
    names = dict.fromkeys(name for clip in clips for name in clip)  # not all cameras are placed
    parts = {n: np.concatenate([clip[n] for clip in clips if n in clip]) for n in names}
    mean = {name: float(np.nanmean(parts[name])) for name in ("n", "pa", "n_bar", "pa_bar")}
    row: dict[str, Any] = {
        "n_mpjpe_mm": mean["n"],
        "pa_mpjpe_mm": mean["pa"],
        "n_ratio": mean["n"] / mean["n_bar"],
        "pa_ratio": mean["pa"] / mean["pa_bar"],
        "missing": float(parts["missing"].mean()),
        "wrong_windows": float(parts["wrong"].mean()),
        "windows": len(parts["wrong"]),
    }
    row["trust"] = trust_curve(parts["wrong"], parts["window_trust"])
    row["rotation_deg"] = _median(parts, "rotation")
    row["focal_error"] = _median(parts, "focal")
    row["position_error"] = _median(parts, "position")
    row |= dict.fromkeys(("refined_over_detected", "spoilt", "within_68", "within_95"))
    if "refined" in parts:
        row["refined_over_detected"] = float(parts["refined"].mean() / parts["detected"].mean())
        row["spoilt"] = float(parts["spoilt"].sum() / parts["right"].sum())
    if "z" in parts:
        for share, limit in NORMAL.items():
            row[f"within_{share}"] = float((parts["z"] < limit).mean())
    row |= dict.fromkeys(("swaps_found", "big_swaps_found", "false_swaps"))
    if "swap_hits" in parts:
        hits, big = parts["swap_hits"], parts["swap_big"]
        row["swaps_found"] = float(hits.mean()) if len(hits) else None
        row["big_swaps_found"] = float(hits[big].mean()) if big.any() else None
        row["false_swaps"] = float(parts["swap_false"].mean())
    return row


def trust_curve(
    wrong: Bool[np.ndarray, " W"], trust: Float[np.ndarray, " W"]
) -> list[list[float]] | None:
    """Per threshold: it, the share of windows called good, and that of wrong ones called good."""
    if np.isnan(trust).all():
        return None
    return [
        [
            threshold,
            float((trust >= threshold).mean()),
            float((wrong & (trust >= threshold)).mean()),
        ]
        for threshold in THRESHOLDS
    ]


def relative_rotation_deg(
    found: Float[np.ndarray, "T V 3 3"], true: Float[np.ndarray, "T V 3 3"]
) -> Float[np.ndarray, " N"]:
    """Errors of the rotations between the cameras, in degrees, over all pairs and frames."""
    angles = []
    for v, w in combinations(range(found.shape[1]), 2):
        between = [x[:, v] @ x[:, w].swapaxes(-1, -2) for x in (found, true)]
        trace = np.einsum("trc,trc->t", *between)
        angles.append(np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1))))
    return _finite(np.concatenate(angles))


def position_error(found: Found, truth: Truth) -> Float[np.ndarray, " V"]:
    """Errors of camera positions over the true distance to the person's middle place.

    The frames of reference are matched by the rotations, then by scale and place.
    """
    assert found.position is not None
    assert found.rotation is not None
    true, cameras = truth.cameras.position[0], truth.cameras
    product = np.nansum(np.einsum("tvcr,tvcd->tvrd", cameras.rotation, found.rotation), (0, 1))
    left, _, right = np.linalg.svd(product)
    turn = left @ np.diag([1.0, 1.0, np.linalg.det(left @ right)]) @ right
    here = found.position @ turn.T
    here, there = here - here.mean(0), true - true.mean(0)
    scale = (here * there).sum() / np.square(here).sum()
    recording = truth.recording
    away = np.median(np.linalg.norm(_known(recording.pose3d)[:, :, 0], axis=-1), axis=0)
    return np.linalg.norm(scale * here - there, axis=-1) / away


def deviations(truth: Truth, found: Found) -> Float[np.ndarray, " N"]:
    """Errors of coordinates over the standard deviations that the covariance gives.

    In the axes of the first camera that has a pose, after the similarity that is best for the
    pose, which takes 7 of its degrees of freedom away; against what the detector calls joints.
    Joints that a single view has seen count as well.
    """
    assert found.covariance is not None
    joints, _ = joints_of(truth.recording)
    seen = (truth.recording.confidence > 0).any(1)[:, joints]
    valid = np.isfinite(found.in_camera[:, :, joints]).all((2, 3))
    frames = np.flatnonzero(valid.any(1))
    view = valid.argmax(1)[frames]
    pose, true = (
        torch.from_numpy(x[frames, view][:, joints]).double()
        for x in (found.in_camera, truth.defined)
    )
    covariance = torch.from_numpy(found.covariance[frames, view][:, joints]).double()
    move = align_similarity(pose, true)
    turned = move.rotation[:, None] @ covariance @ move.rotation.mT[:, None]
    deviation = move.scale[:, None, None] * turned.diagonal(dim1=-2, dim2=-1).sqrt()
    z = ((move(pose) - true).abs() / deviation.clamp_min(1e-12)).numpy()
    return _finite(z[seen[frames]])


def by_clip(clips: Mapping[str, Mapping[str, np.ndarray]]) -> list[str]:
    """A line per clip, the worst first: what `--verbose` prints."""
    lines = []
    for name, clip in clips.items():
        mean = {key: np.nanmean(clip[key]) for key in ("n", "pa", "n_bar", "pa_bar")}
        rest = [
            f"{key} {np.median(clip[part]):.3g}"
            for key, part in (("rot", "rotation"), ("focal", "focal"), ("position", "position"))
            if part in clip
        ]
        if "refined" in clip:
            rest.append(f"2d {clip['refined'].mean() / clip['detected'].mean():.2f}")
        trust = _mean(clip["window_trust"])
        lines.append(
            f"{mean['pa'] / mean['pa_bar']:.2f} {name}: N {mean['n']:.1f} PA {mean['pa']:.1f} "
            f"(triangulated {mean['n_bar']:.1f} {mean['pa_bar']:.1f}) wrong windows "
            f"{clip['wrong'].sum()} of {len(clip['wrong'])}, trust {trust:.2f} {' '.join(rest)}"
        )
    return sorted(lines, key=lambda line: -float(line.split()[0]))


def _windows(
    fps: float, parts: Mapping[str, np.ndarray], trust: np.ndarray | None
) -> dict[str, np.ndarray]:
    length, n_frames = round(WINDOW_S * fps), len(parts["pa"])
    first = range(0, max(1, n_frames - length + 1), length)
    own, bar = (
        np.array([_mean(parts[name][at : at + length]) for at in first])
        for name in ("pa", "pa_bar")
    )
    trusts = [np.nan if trust is None else _mean(trust[at : at + length]) for at in first]
    known = np.isfinite(own)
    return {"wrong": (own > WRONG * bar)[known], "window_trust": np.array(trusts)[known]}


def _repair(truth: Truth, refined: np.ndarray) -> dict[str, np.ndarray]:
    joints, _ = joints_of(truth.recording)
    true = truth.cameras.project(truth.defined.astype(np.float64))
    size = (true.max(2) - true.min(2)).max(-1)[..., None].repeat(len(joints), -1)
    pick = [x[:, :, joints] for x in (truth.recording.keypoints, refined, true)]
    observed = (truth.recording.confidence[:, :, joints] > 0) & np.isfinite(pick[1]).all(-1)
    before, after = (np.linalg.norm(x - pick[2], axis=-1)[observed] for x in pick[:2])
    size = size[observed]
    right = before < RIGHT * size
    return {
        "detected": before,
        "refined": after,
        "right": right,
        "spoilt": right & (after > SPOILT * size),
    }


def _swaps(truth: Truth, claimed: Bool[np.ndarray, "T V 2"]) -> dict[str, np.ndarray]:
    recording = truth.recording
    hits, big, false = [], [], []
    true = truth.cameras.project(truth.defined.astype(np.float64))
    size = (true.max(2) - true.min(2)).max(-1)
    for limb, names in enumerate((("hip", "knee", "ankle"), ("shoulder", "elbow", "wrist"))):
        left, right = ([recording.joints.index(f"{s}_{n}") for n in names] for s in "lr")
        seen = (recording.confidence[..., left + right] > 0).sum(-1) > len(names)
        gap = np.linalg.norm(true[..., left, :] - true[..., right, :], axis=-1).mean(-1) / size
        happened = truth.swapped[..., limb]
        hits.append(claimed[..., limb][seen & happened])
        big.append(gap[seen & happened] > MATTERS)
        false.append(claimed[..., limb][seen & ~happened])
    keys = ("swap_hits", "swap_big", "swap_false")
    return dict(zip(keys, map(np.concatenate, (hits, big, false)), strict=True))


def _over_views(values: Float[np.ndarray, "T V"]) -> Float[np.ndarray, " T"]:
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(1)
    return np.where(known.any(1), total / np.maximum(known.sum(1), 1), np.nan)


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else np.nan


def _median(parts: Mapping[str, np.ndarray], name: str) -> float | None:
    return float(np.median(parts[name])) if name in parts and len(parts[name]) else None


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def _known(array: np.ndarray | None) -> np.ndarray:
    """The truth, which films always have."""
    assert array is not None
    return array
