"""The errors of many recordings pooled, and the results made of them; formulas: `metrics`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from canonlift import metrics
from canonlift.data.prediction import Prediction
from canonlift.evaluation import protocol, recording_errors
from canonlift.evaluation.recording_errors import BASELINES
from canonlift.inference.model import Model

Errors = TypeVar("Errors", metrics.JointErrors, metrics.MotionErrors, metrics.RefinementErrors)


class PooledErrors:
    """The errors of the predictions of one model, recording after recording."""

    def __init__(self, model: Model, groups: Mapping[str, str] | None = None) -> None:
        """Begin; `groups` names, for each recording, what it is reported together with."""
        self.model = model
        self.groups = groups or {}
        self.data = protocol.Data()
        self.poses: dict[str, dict[str, metrics.JointErrors]] = {}
        self.motions: dict[str, metrics.MotionErrors] = {}
        self.joints: list[metrics.RefinementErrors] = []
        self.gaps: list[tuple[Tensor, Tensor]] = []
        self.fused = PooledFusedErrors()

    def add(self, name: str, prediction: Prediction) -> None:
        """Count one recording."""
        recording, several = prediction.recording, len(prediction.views) > 1
        self.data.add(name, recording)
        if several:
            gaps = recording_errors.view_gaps(prediction)
            if len(gaps[1]):
                self.gaps.append(gaps)
        if prediction.fused is not None:
            self.fused.add(prediction)
        if recording.pose3d is not None:
            found = recording_errors.pose_errors(prediction, self.model.mean_pose)
            if found["canonlift"].n_mpjpe.isfinite().any():
                self.poses[name] = found
                self.motions[name] = recording_errors.motion_errors(prediction)
        if recording.keypoints_true is not None and several:
            threshold = protocol.repair_threshold(self.model)
            repaired = recording_errors.refinement_errors(prediction, threshold)
            if repaired.counted.any():
                self.joints.append(repaired)

    def results(self) -> dict[str, Any]:
        """The protocol, and all that could be measured."""
        results: dict[str, Any] = {"protocol": protocol.describe(self.model, self.data)}
        results["protocol"]["poses"] = sum(
            int(each["canonlift"].n_mpjpe.isfinite().any(-1).sum()) for each in self.poses.values()
        )
        if self.poses:
            results |= self._per_pose()
        if self.poses and self.groups:
            results |= self._per_group()
        if self.joints:
            pooled = _pool(self.joints)
            results["refinement"] = metrics.refinement_summary(pooled, self.model.joints)
        if self.gaps:
            own, other = (torch.cat(gaps) for gaps in zip(*self.gaps, strict=True))
            results["agreement"] = {
                "own_view_pct": 100 * float(own.mean()),
                "other_views_pct": 100 * float(other.mean()),
            }
        if self.fused.views:
            results["fused"] = self.fused.results()
        return results

    def _per_pose(self) -> dict[str, Any]:
        columns = {name: [each[name] for each in self.poses.values()] for name in BASELINES}
        own = _pool([each["canonlift"] for each in self.poses.values()])
        per_joint = [error.nanmean(0).tolist() for error in own]
        return {
            "metrics": self._summary(self.poses),
            "baselines": {name: metrics.summary(_pool(row)) for name, row in columns.items()},
            "per_joint": {
                joint: {"n_mpjpe_mm": n, "pa_mpjpe_mm": pa, "mpjpe_mm": plain}
                for joint, n, pa, plain in zip(self.model.joints, *per_joint, strict=True)
            },
            "per_recording": {
                name: {"frames": self.data.frames[name], **self._summary([name])}
                for name in self.poses
            },
        }

    def _summary(self, names: Iterable[str]) -> dict[str, float]:
        """Metrics of some recordings together."""
        poses = metrics.summary(_pool([self.poses[name]["canonlift"] for name in names]))
        return poses | metrics.motion_summary(_pool([self.motions[name] for name in names]))

    def _per_group(self) -> dict[str, Any]:
        """Metrics of each group, in which all poses count the same; and the mean over groups."""
        members: dict[str, list[str]] = {}
        for name in self.poses:
            members.setdefault(self.groups[name], []).append(name)
        groups = {
            group: {"frames": sum(self.data.frames[name] for name in names)} | self._summary(names)
            for group, names in sorted(members.items())
        }
        figures = [key for key in next(iter(groups.values())) if key != "frames"]
        mean = {key: float(np.mean([row[key] for row in groups.values()])) for key in figures}
        return {"per_group": groups, "mean_over_groups": mean}


class PooledFusedErrors:
    """The errors of the sequences that are made of all views."""

    def __init__(self) -> None:
        self.views: list[int] = []  # of each recording
        self.frames = 0
        self.errors: list[metrics.JointErrors] = []
        self.gaps: list[Tensor] = []
        self.spreads: list[float] = []

    def add(self, prediction: Prediction) -> None:
        """Count one recording."""
        fused, recording = prediction.fused, prediction.recording
        assert fused is not None
        self.views.append(len(recording.views))
        self.frames += recording.n_frames
        if len(gaps := recording_errors.fused_gaps(prediction)):
            self.gaps.append(gaps)
            self.spreads.append(recording_errors.bone_spread(fused.pose, recording.joints))
        if recording.pose3d is not None:
            found = recording_errors.joint_errors(recording, torch.from_numpy(fused.in_camera))
            if found.n_mpjpe.isfinite().any():
                self.errors.append(found)

    def results(self) -> dict[str, Any]:
        """Their protocol, and all that could be measured."""
        results: dict[str, Any] = {
            "protocol": {
                "input": "all views of a recording together, over windows of time",
                "fewest_views": min(self.views),
                "most_views": max(self.views),
                "recordings": len(self.views),
                "frames": self.frames,
                "frame": "camera axes of every view, by the fused rotations",
            }
        }
        if self.errors:
            results["metrics"] = metrics.summary(_pool(self.errors))
        if self.gaps:
            results["reprojection_pct"] = 100 * float(torch.cat(self.gaps).mean())
            results["bone_spread_pct"] = 100 * float(np.mean(self.spreads))
        return results


def _pool(parts: Sequence[Errors]) -> Errors:
    return type(parts[0])(*map(torch.cat, zip(*parts, strict=True)))
