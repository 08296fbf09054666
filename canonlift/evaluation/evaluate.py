"""What a trained lifter is worth: predictions, and metrics against ground truth."""

import json
import math
import re
import time
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from canonlift import files, metrics
from canonlift.body import skeleton
from canonlift.data.frames import centre, read_one, to_views
from canonlift.data.prediction import Fused, Prediction
from canonlift.data.recording import Recording
from canonlift.data.windows import gather
from canonlift.inference.predict import predict
from canonlift.inference.reconstruction import reconstruct
from canonlift.output.export.writing import Exporter, Take
from canonlift.output.figures.album import draw_recording, draw_run
from canonlift.training.checkpoint import Model
from canonlift.types import Lifted, Views

METHODS = ("canonlift", "mean_pose", "flat")


def evaluate(
    model: Model,
    paths: Sequence[Path],
    out: Path,
    run: Path,
    n_drawn: int = 1,
    group_by: str | None = None,
    exporter: Exporter | None = None,
) -> dict[str, Any]:
    """Write `predictions.npz`, `results.json` and `figures/` for recordings; return the results.

    Recordings without ground truth are predicted all the same; without any, the results hold no
    `metrics`. The course of the training is drawn from `run`, and the first `n_drawn` recordings.
    Recordings in whose names the regular expression `group_by` finds the same are also reported
    together, as the actions of Human3.6M are. What `exporter` writes goes into `export/`.

    Raises:
        FileNotFoundError: if there are no recordings.
        ValueError: naming the file that cannot serve, or that `group_by` says nothing of.
    """
    if not paths:
        raise FileNotFoundError("no recordings to evaluate; see data.test or --recordings")
    names = unique_names(paths)
    scores = Scores(model, group_names(names, group_by) if group_by else {})
    exported: dict[str, Any] = {}
    with PredictionFile(out / "predictions.npz") as file:
        for path, name in zip(paths, names, strict=True):
            recording = read_one(path, model.joints, partly=True)
            if absent := lacking(recording):
                print(
                    f"WARNING: {path}: no {', '.join(absent)}: unobserved throughout, so guessed "
                    "from the rest, and the rest is worse for it (skeleton: limbs14 needs no head)"
                )
            prediction = predict(model, recording)
            fused = reconstruct(recording, prediction) if len(recording.views) > 1 else None
            file.add(name, prediction, fused)
            scores.add(name, recording, prediction, fused)
            if exporter:
                take = Take(name, recording, prediction, fused)
                exported[name] = exporter.write(take, out / "export")
            if len(scores.frames) <= n_drawn:
                draw_recording(model, name, recording, prediction, out / "figures")
    results = scores.results() | ({"export": exported} if exporter else {})
    draw_run(results, run, out / "figures")
    text = json.dumps(_plain(results), indent=2, allow_nan=False) + "\n"
    files.write(out / "results.json", lambda file: file.write(text.encode()))
    return results


def lacking(recording: Recording) -> tuple[str, ...]:
    """Joints that no view has in any frame."""
    never = (recording.confidence == 0).all((0, 1))
    return tuple(name for name, gone in zip(recording.joints, never, strict=True) if gone)


class PredictionFile:
    """`predictions.npz`, written recording by recording: `NAME/pose` and so on.

    Use as a context; the file appears when it is complete.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.part = path, path.with_name(f".{path.name}.part")

    def __enter__(self) -> "PredictionFile":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.zip = zipfile.ZipFile(self.part, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
        return self

    def add(self, name: str, prediction: Prediction, fused: Fused | None = None) -> None:
        """Append one recording's arrays; those of the fused sequence as `fused_pose` and so on."""
        arrays = dict(vars(prediction))
        if fused is not None:
            arrays |= {f"fused_{key}": array for key, array in vars(fused).items()}
        for key, array in arrays.items():
            with self.zip.open(f"{name}/{key}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.zip.close()
        if error is None:
            self.part.replace(self.path)
        else:
            self.part.unlink()


class Scores:
    """Running errors over recordings, and the results made of them."""

    def __init__(self, model: Model, groups: Mapping[str, str] | None = None) -> None:
        self.model = model
        self.groups = groups or {}  # recording -> what it is reported with
        self.frames: dict[str, int] = {}
        self.poses: dict[str, dict[str, metrics.JointErrors]] = {}
        self.motions: dict[str, metrics.MotionErrors] = {}
        self.joints: list[metrics.RefinementErrors] = []
        self.gaps: list[tuple[Tensor, Tensor]] = []
        self.fused = FusedScores()
        self.seconds, self.lifted = 0.0, 0
        self.n_views = self.unobserved = self.joints_filmed = 0
        self.processing: set[str] = set()

    def add(
        self,
        name: str,
        recording: Recording,
        prediction: Prediction,
        fused: Fused | None = None,
    ) -> None:
        """Count one recording."""
        self.frames[name] = recording.n_frames
        self.n_views = max(self.n_views, len(recording.views))
        self.unobserved += int((recording.confidence == 0).sum())
        self.processing |= {recording.processing or "as detected"}
        self.joints_filmed += recording.confidence.size
        self._time(recording)
        if len(recording.views) > 1:
            gaps = view_gaps(recording, prediction)
            if len(gaps[1]):
                self.gaps.append(gaps)
        if fused is not None:
            self.fused.add(recording, fused)
        if recording.pose3d is not None:
            errors = pose_errors(self.model, recording, prediction)
            if errors["canonlift"].n_mpjpe.isfinite().any():
                self.poses[name] = errors
                self.motions[name] = motion_errors(self.model, recording, prediction)
        if recording.keypoints_true is not None and len(recording.views) > 1:
            threshold = self.model.config.fusion.threshold
            repaired = refinement_errors(recording, prediction, threshold)
            if repaired.counted.any():
                self.joints.append(repaired)

    def results(self) -> dict[str, Any]:
        """Everything that `results.json` holds."""
        results: dict[str, Any] = {"protocol": self._protocol()}
        if self.poses:
            pooled = {
                method: _pool([e[method] for e in self.poses.values()]) for method in METHODS
            }
            results["metrics"] = self._summary(list(self.poses))
            results["baselines"] = {name: metrics.summary(pooled[name]) for name in METHODS[1:]}
            per_joint = [errors.nanmean(0).tolist() for errors in pooled["canonlift"]]
            results["per_joint"] = {
                joint: {"n_mpjpe_mm": n, "pa_mpjpe_mm": pa, "mpjpe_mm": plain}
                for joint, n, pa, plain in zip(self.model.joints, *per_joint, strict=True)
            }
            results["per_recording"] = {
                name: {"frames": self.frames[name], **self._summary([name])} for name in self.poses
            }
            if self.groups:
                results |= self._per_group()
        if self.joints:
            pooled_2d = metrics.RefinementErrors(
                *(torch.cat(x) for x in zip(*self.joints, strict=True))
            )
            results["refinement"] = metrics.refinement_summary(pooled_2d, self.model.joints)
        if self.gaps:
            own, other = (torch.cat(gaps) for gaps in zip(*self.gaps, strict=True))
            results["agreement"] = {
                "own_view_pct": 100 * float(own.mean()),
                "other_views_pct": 100 * float(other.mean()),
            }
        if self.fused.views:
            results["fused"] = self.fused.results()
        results["mirror"] = dict(self.model.mirror)
        results["train_seconds"] = self.model.train_seconds
        results["frames_per_second"] = self.lifted / self.seconds
        return results

    def _summary(self, names: Sequence[str]) -> dict[str, float]:
        """Metrics of some recordings together."""
        motions = zip(*(self.motions[name] for name in names), strict=True)
        return metrics.summary(
            _pool([self.poses[name]["canonlift"] for name in names])
        ) | metrics.motion_summary(metrics.MotionErrors(*map(torch.cat, motions)))

    def _per_group(self) -> dict[str, Any]:
        """Metrics of each group, all poses in it alike, and their mean, all groups alike."""
        members: dict[str, list[str]] = {}
        for name in self.poses:
            members.setdefault(self.groups[name], []).append(name)
        groups = {
            group: {"frames": sum(self.frames[name] for name in names)} | self._summary(names)
            for group, names in sorted(members.items())
        }
        figures = [key for key in next(iter(groups.values())) if key != "frames"]
        mean = {key: float(np.mean([row[key] for row in groups.values()])) for key in figures}
        return {"per_group": groups, "mean_over_groups": mean}

    def _time(self, recording: Recording) -> None:
        """Time the lifter on single views, warm, at most 8192 of them."""
        views, sequence = to_views(recording), self.model.config.sequence
        single: Views = Views(
            views.keypoints.flatten(0, 1)[:8192, None],
            views.confidence.flatten(0, 1)[:8192, None],
            views.rig.repeat_interleave(views.keypoints.shape[1])[:8192],
        )
        n_lifted = len(single)
        if self.model.config.is_sequence:
            first = torch.arange(0, n_lifted, sequence.length)
            single = gather(single, first, first + sequence.length, sequence.length)
        single = single.to(self.model.device)
        with torch.inference_mode():
            if not self.lifted:
                self.model.lifter(single)
            start = time.perf_counter()
            self.model.lifter(single).pose.cpu()  # waits for the device
            self.seconds += time.perf_counter() - start
        self.lifted += n_lifted

    def _input(self) -> str:
        """How much of a view the model sees at once."""
        sequence = self.model.config.sequence
        if not self.model.config.is_sequence:
            return "single frames"
        rate = "" if sequence.fps is None else f" at {sequence.fps:g} fps"
        return f"windows of {sequence.length} frames{rate}, blended"

    def _protocol(self) -> dict[str, Any]:
        config = self.model.config
        poses = sum(
            int(e["canonlift"].n_mpjpe.isfinite().any(-1).sum()) for e in self.poses.values()
        )
        return {
            "joints": list(self.model.joints),
            "root": skeleton.ROOT,
            "input": f"one view at a time, {self._input()}",
            "frame": "camera axes",
            "alignment": "N-MPJPE, N-PCK, AUC: root-relative, least-squares scale per pose; "
            "PA-MPJPE: similarity without reflection per pose; MPJPE: root-relative, one "
            "least-squares scale per recording, as for MPJVE and the acceleration error",
            "root_joint": "counted, with error 0 in N-MPJPE, N-PCK and AUC",
            "baselines": "flat: detected 2D with depth 0, unobserved joints at the root; "
            "mean_pose: mean lifted training pose, the same for every view",
            "speed": f"views per second, lifter alone, up to 8192 a batch, {self.model.device}",
            "jdr": "within half of the head size (thorax to head, at the person's scale)",
            "unsure": f"confidence below {config.fusion.threshold}",
            "units": "mm, px, %",
            "keypoints": sorted(self.processing),
            "recordings": len(self.frames),
            "frames": sum(self.frames.values()),
            "poses": poses,
            "views": self.n_views,
            "unobserved": self.unobserved / max(self.joints_filmed, 1),
            "variant": config.variant,
            "target": config.data.target,
        }


class FusedScores:
    """Running errors of the sequences that are made of all views together."""

    def __init__(self) -> None:
        self.views: list[int] = []  # of each recording
        self.frames = 0
        self.errors: list[metrics.JointErrors] = []
        self.gaps: list[Tensor] = []
        self.spreads: list[float] = []

    def add(self, recording: Recording, fused: Fused) -> None:
        """Count one recording."""
        self.views.append(len(recording.views))
        self.frames += recording.n_frames
        in_camera = fused.in_camera
        seen = Prediction(in_camera, fused.rotation, recording.keypoints)
        if len(gaps := view_gaps(recording, seen)[0]):
            self.gaps.append(gaps)
            self.spreads.append(bone_spread(fused.pose, recording.joints))
        if recording.pose3d is not None:
            truth, root = _truth(recording), recording.joints.index(skeleton.ROOT)
            pose = torch.from_numpy(in_camera).double().flatten(0, 1)
            pose = metrics.in_one_size(pose, truth, root)
            errors = metrics.joint_errors(pose, truth, root)
            if errors.n_mpjpe.isfinite().any():
                self.errors.append(errors)

    def results(self) -> dict[str, Any]:
        """What `results.json` holds of them."""
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


def bone_spread(pose: Float[np.ndarray, "T J 3"], joints: Sequence[str]) -> float:
    """How much bones change their length over time: mean over bones of deviation over mean."""
    start, end = (list(side) for side in zip(*skeleton.bones(joints), strict=True))
    known = np.isfinite(pose).all((-1, -2))
    length = np.linalg.norm(pose[known][:, start] - pose[known][:, end], axis=-1)
    return float((length.std(0) / np.maximum(length.mean(0), 1e-12)).mean())


def group_names(names: Sequence[str], pattern: str) -> dict[str, str]:
    """What a regular expression finds in each name: its first group, or all that it matches.

    Raises:
        ValueError: if it is none, or finds nothing in some name.
    """
    try:
        found = {name: re.search(pattern, name) for name in names}
    except re.error as error:
        raise ValueError(f"--group-by {pattern!r} is no regular expression: {error}") from error
    groups = {name: match and (*match.groups(), match[0])[0] for name, match in found.items()}
    lost = [name for name, group in groups.items() if not group]
    if lost:
        raise ValueError(
            f"--group-by {pattern!r} finds nothing in {len(lost)} of {len(names)} names, such as "
            f"{lost[0]}"
        )
    return groups


def _pool(errors: Sequence[metrics.JointErrors]) -> metrics.JointErrors:
    return metrics.JointErrors(*(torch.cat(parts) for parts in zip(*errors, strict=True)))


def pose_errors(
    model: Model, recording: Recording, prediction: Prediction
) -> dict[str, metrics.JointErrors]:
    """Errors in mm of the prediction and of the trivial baselines, over frames and views."""
    truth = _truth(recording)
    flat = torch.nn.functional.pad(to_views(recording).keypoints.double(), (0, 1)).flatten(0, 1)
    poses = {
        "canonlift": torch.from_numpy(prediction.pose).double().flatten(0, 1),
        "mean_pose": model.mean_pose.cpu().double().expand(truth.shape),
        "flat": flat,
    }
    root = model.joints.index(skeleton.ROOT)
    sized = {name: metrics.in_one_size(pose, truth, root) for name, pose in poses.items()}
    return {name: metrics.joint_errors(pose, truth, root) for name, pose in sized.items()}


def _truth(recording: Recording) -> Float[Tensor, "N J 3"]:
    """True poses in mm over frames and views; NaN where the view saw nothing."""
    unseen = ~to_views(recording).observed.any(-1)[..., None, None]
    truth = 1000 * torch.from_numpy(recording.pose3d).double()
    return truth.masked_fill(unseen, torch.nan).flatten(0, 1)


def motion_errors(
    model: Model, recording: Recording, prediction: Prediction
) -> metrics.MotionErrors:
    """Errors in mm of the motion that is predicted, in one size for the recording."""
    pose = torch.from_numpy(prediction.pose).double()
    truth = _truth(recording)
    root = model.joints.index(skeleton.ROOT)
    sized = metrics.in_one_size(pose.flatten(0, 1), truth, root)
    return metrics.motion_errors(sized.view_as(pose), truth.view_as(pose), root, recording.fps)


def refinement_errors(
    recording: Recording, prediction: Prediction, threshold: float
) -> metrics.RefinementErrors:
    """2D errors in pixels before and after repair, over frames and views."""
    detected, _, _, _ = centre(recording)
    truth = recording.keypoints_true
    observed = to_views(recording).observed.numpy()
    in_two = (observed.any(-1).sum(-1) >= 2)[:, None, None]
    flat = (-1, len(recording.joints))
    return metrics.RefinementErrors(
        detected=_tensor(np.linalg.norm(detected - truth, axis=-1).reshape(flat)),
        refined=_tensor(
            np.linalg.norm(prediction.keypoints_refined - truth, axis=-1).reshape(flat)
        ),
        head=_tensor(head_size(recording).reshape(-1)),
        counted=_tensor((observed & np.isfinite(truth).all(-1) & in_two).reshape(flat)),
        unsure=_tensor((recording.confidence < threshold).reshape(flat)),
    )


def view_gaps(recording: Recording, prediction: Prediction) -> tuple[Tensor, Tensor]:
    """How far lifted poses fall from the detections, in their own view and in the others.

    Needs no truth. In units of the longer side of the person's box, for every observed joint.
    """
    views = to_views(recording)
    rotation = torch.from_numpy(np.nan_to_num(prediction.rotation))
    in_camera = torch.from_numpy(np.nan_to_num(prediction.pose))
    lifted = Lifted(torch.einsum("tvrc,tvjr->tvjc", rotation, in_camera), rotation)
    share = metrics.reprojection_gaps(views, lifted)
    counted = share.isfinite()
    own = torch.eye(len(recording.views), dtype=torch.bool)[None, :, :, None]
    return share[counted & own], share[counted & ~own]


def head_size(recording: Recording) -> Float[np.ndarray, "T V"]:
    """Distance from thorax to head in pixels, as if it lay in the image plane.

    Median length in space times the image's scale, so that a bowed head does not shrink it; where
    there is no `pose3d`, the distance in the image. NaN without these joints.
    """
    joints, truth = recording.joints, recording.keypoints_true
    if not {"thorax", "head"} <= set(joints):
        return np.full(truth.shape[:2], np.nan)
    ends = joints.index("head"), joints.index("thorax")
    if recording.pose3d is None:
        return np.linalg.norm(truth[:, :, ends[0]] - truth[:, :, ends[1]], axis=-1)
    pose = recording.pose3d
    known = np.isfinite(truth).all(-1) & np.isfinite(pose).all(-1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # where nothing is known, NaN is right
        length = np.nanmedian(np.linalg.norm(pose[:, :, ends[0]] - pose[:, :, ends[1]], axis=-1))
        extent = [
            np.sqrt(np.nanvar(np.where(known[..., None], p[..., :2], np.nan), axis=2).sum(-1))
            for p in (truth, pose)
        ]
        return length * extent[0] / extent[1]


def unique_names(paths: Sequence[Path]) -> list[str]:
    """File names without suffix; where two are equal, with as many folders as it takes."""
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["-".join(path.with_suffix("").parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise ValueError(f"the same recording is given twice: {', '.join(map(str, paths))}")


def table(results: Mapping[str, Any]) -> str:
    """The results as a table to print; empty where nothing could be compared."""
    lines = []
    if "metrics" in results:
        rows = {"canonlift, from one view": results["metrics"]}
        if "metrics" in (fused := results.get("fused", {})):
            counts = sorted({fused["protocol"][f"{which}_views"] for which in ("fewest", "most")})
            rows[f"canonlift, {' to '.join(map(str, counts))} views"] = fused["metrics"]
        rows["mean pose"] = results["baselines"]["mean_pose"]
        rows["flat (depth 0)"] = results["baselines"]["flat"]
        lines += _pose_table(rows)
        motion = results["metrics"]
        if np.isfinite(motion["mpjve_mm_s"]):
            lines += [
                "",
                f"Motion is off by {motion['mpjve_mm_s']:.0f} mm/s (MPJVE) and "
                f"{motion['acceleration_m_s2']:.1f} m/s² (acceleration error).",
            ]
    if "per_group" in results:
        rows = results["per_group"] | {"mean of these": results["mean_over_groups"]}
        lines += ["", *_pose_table(rows)]
    if "refinement" in results:
        r = results["refinement"]
        lines += [
            "",
            f"{'2D error':24}{'all joints':>12}{'unsure':>12}",
            *(
                f"{name:24}{r[f'{kind}_px']:9.1f} px" + _or_dash(r[f"{kind}_unsure_px"])
                for kind, name in (("detected", "detected"), ("refined", "refined, several views"))
            ),
        ]
    if "agreement" in results:
        gap = results["agreement"]
        lines += [
            "",
            f"Lifted poses reprojected: {gap['own_view_pct']:.1f} % of the person's size from the "
            f"detections in their own view, {gap['other_views_pct']:.1f} % in the others.",
        ]
    if "reprojection_pct" in (fused := results.get("fused", {})):
        lines.append(
            f"All views fused: {fused['reprojection_pct']:.1f} %; bones keep their length to "
            f"{fused['bone_spread_pct']:.1f} %."
        )
    return "\n".join(lines)


def _pose_table(rows: Mapping[str, Mapping[str, float | int]]) -> list[str]:
    width = max(map(len, rows))
    lines = [f"{'':{width}}{'N-MPJPE':>9}{'PA-MPJPE':>10}{'MPJPE':>10}{'N-PCK':>8}{'AUC':>7}"]
    for name, row in rows.items():
        lines.append(
            f"{name:{width}}{row['n_mpjpe_mm']:6.1f} mm{row['pa_mpjpe_mm']:7.1f} mm"
            f"{row['mpjpe_mm']:7.1f} mm{row['n_pck_150']:6.1f} %{row['auc']:7.1f}"
        )
    return lines


def _or_dash(error_px: float) -> str:
    return f"{'–':>12}" if np.isnan(error_px) else f"{error_px:9.1f} px"


def _plain(value: Any) -> Any:
    """The same with None for numbers that are none, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array if array.dtype == bool else array.astype(np.float64))
