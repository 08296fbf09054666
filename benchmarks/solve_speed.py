"""Frames per second of the solver, how they grow, its memory, and aniposelib beside it.

aniposelib solves a smaller problem: fixed cameras, started from nearly true ones (here turned by 2
degrees, moved by 2 % and with focal lengths 5 % off), no people, no outliers taken out. It is run
by a Python that has it (`--anipose`), on the same machine and in the same run.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from benchmarks import rows, solve_scores
from benchmarks.rows import Row
from benchmarks.solve_scores import Truth
from canonlift.body.skeleton import H36M17
from canonlift.data.recording import Recording
from canonlift.simulation.athlete import perform, sample_person
from canonlift.simulation.cameras import CameraConfig
from canonlift.simulation.detector import DetectorConfig
from canonlift.simulation.motions import MOTIONS
from canonlift.simulation.session import film_knowingly
from canonlift.solver.solve import solve

FILE = "solve_speed.jsonl"
FPS = 30.0
HOUR = 216_000  # frames of an hour at 60 Hz
# What grows: views, joints, frames; the rest is 4, 17 and 3,000.
GROWTH = {"views": (2, 4, 8), "joints": (17, 34, 136), "frames": (1_000, 3_000, 12_000)}
ANIPOSE_FRAMES = 300


def study(
    minutes: float, anipose: Path | None, results: Path, only: Sequence[str] = ()
) -> list[Row]:
    """Append a row per measurement and print them as Markdown."""
    jobs: dict[str, list[tuple[Any, ...]]] = {
        "growth": [
            (fixed, *(size if name == what else usual for name, usual in _USUAL.items()))
            for fixed in (True, False)
            for what, sizes in GROWTH.items()
            for size in sizes
            if size != _USUAL[what] or what == "views"
        ],
        "long": [
            (fixed, 6, 17, round(length * 60 * 60))
            for fixed in (True, False)
            for length in (minutes / 2, minutes)
        ],
    }
    found: list[Row] = []

    def keep(row: Row) -> None:
        done = {**row, "commit": rows.commit(), "machine": rows.machine()}
        rows.append(results / FILE, done)
        print(json.dumps(done), flush=True)
        found.append(done)

    for part in only or (*jobs, "anipose"):
        for job in jobs.get(part, ()):
            # The memory of a process never falls, so each size has one of its own.
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                keep({"part": part} | pool.submit(speed_of, *job).result())
        if part == "anipose" and anipose is not None:
            keep({"part": part} | beside(anipose))
    return found


_USUAL = {"views": 4, "joints": 17, "frames": 3_000}


def speed_of(fixed: bool, n_views: int, n_joints: int, n_frames: int) -> dict[str, Any]:
    """Seconds of a recording, frames per second, and what memory rose by, in a new process."""
    torch.set_num_threads(1)
    solve(filmed(fixed, n_views, 300).recording)  # warm: the pose library
    recording = with_joints(repeated(filmed(fixed, n_views, 3_000).recording, n_frames), n_joints)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, used = time.perf_counter(), time.process_time()
    solve(recording)
    seconds, cpu = time.perf_counter() - start, time.process_time() - used
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "cameras": "fixed" if fixed else "moving",
        "views": n_views,
        "joints": n_joints,
        "frames": n_frames,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "frames_per_second": round(n_frames / cpu),
        "memory_gb": round((after - before) / 1e6, 3),
        "recording_gb": round(recording.keypoints.nbytes * 1.5 / 1e9, 3),
    }


def filmed(fixed: bool, n_views: int, n_frames: int) -> Truth:
    """An athlete who does everything, filmed by simulated cameras."""
    draw = np.random.default_rng(0)
    motion = perform(sample_person(draw), list(MOTIONS), n_frames, FPS, draw)
    cameras = CameraConfig(n_views=n_views, distance_m=(5.0, 9.0), fixed=fixed)
    made = film_knowingly(motion, H36M17, FPS, cameras, DetectorConfig(), draw, "rig" * fixed)
    return Truth(made.recording, made.cameras, made.swapped, made.defined)


def repeated(recording: Recording, n_frames: int) -> Recording:
    """The recording to and fro, until it has so many frames, without its truth."""
    last = recording.n_frames - 1
    frames = np.arange(n_frames) % max(1, 2 * last)
    frames = last - np.abs(frames - last)
    return replace(
        recording,
        keypoints=recording.keypoints[frames],
        confidence=recording.confidence[frames],
        pose3d=None,
        keypoints_true=None,
    )


def with_joints(recording: Recording, n_joints: int) -> Recording:
    """More joints, as a whole-body detector has them: points near those that there are."""
    more = n_joints - len(recording.joints)
    copies = np.arange(more) % len(recording.joints)
    shift = np.random.default_rng(0).normal(0, 10, (more, 2)).astype(np.float32)
    extra = recording.keypoints[:, :, copies] + shift
    names = tuple(f"point_{index}" for index in range(more))
    return replace(
        recording,
        joints=recording.joints + names,
        keypoints=np.concatenate([recording.keypoints, extra], 2),
        confidence=np.concatenate([recording.confidence, recording.confidence[:, :, copies]], 2),
    )


def beside(anipose: Path) -> dict[str, Any]:
    """The same detections of fixed cameras, by aniposelib's bundle adjustment and by ours."""
    torch.set_num_threads(1)
    truth = filmed(True, 4, ANIPOSE_FRAMES)
    recording, cameras = truth.recording, truth.cameras
    draw = np.random.default_rng(1)
    turn = Rotation.from_rotvec(np.radians(2) * draw.standard_normal((4, 3)) / np.sqrt(3))
    rotation = turn.as_matrix() @ cameras.rotation[0]
    away = np.linalg.norm(cameras.position[0], axis=-1, keepdims=True)
    place = cameras.position[0] + 0.02 * away * draw.standard_normal((4, 3)) / np.sqrt(3)
    focal = cameras.focal_px[0] * np.exp(0.05 * draw.standard_normal(4))
    points = np.where((recording.confidence > 0)[..., None], recording.keypoints, np.nan)
    with tempfile.TemporaryDirectory() as folder:
        problem, answer = Path(folder) / "problem.npz", Path(folder) / "answer.json"
        np.savez(
            problem,
            points=points.transpose(1, 0, 2, 3).reshape(4, -1, 2).astype(np.float64),
            rotation=Rotation.from_matrix(rotation).as_rotvec(),
            translation=-np.einsum("vrc,vc->vr", rotation, place),
            focal=focal,
            size=cameras.image_size,
        )
        script = Path(__file__).with_name("solve_anipose.py")
        subprocess.run([anipose, script, problem, answer], check=True, stdout=sys.stderr)
        theirs = json.loads(answer.read_text())
    times = []
    solution = solve(recording)
    for _ in range(3):
        start = time.process_time()
        solution = solve(recording)
        times.append(time.process_time() - start)
    found = Rotation.from_rotvec(theirs["rotation"]).as_matrix()[None]
    error = solve_scores.relative_rotation_deg
    return {
        "frames": ANIPOSE_FRAMES,
        "views": 4,
        "joints": 17,
        "start_rotation_deg": float(np.median(error(rotation[None], cameras.rotation[:1]))),
        "anipose_seconds": theirs["seconds"],
        "anipose_frames_per_second": ANIPOSE_FRAMES / theirs["seconds"],
        "anipose_rotation_deg": float(np.median(error(found, cameras.rotation[:1]))),
        "seconds": float(np.median(times)),
        "frames_per_second": ANIPOSE_FRAMES / float(np.median(times)),
        "rotation_deg": float(np.median(error(solution.rotation, cameras.rotation))),
    }


def table(found: Sequence[Row]) -> str:
    """Markdown: frames per second and memory over the size of the recording."""
    lines = [
        [
            "cameras",
            "views",
            "joints",
            "frames",
            "frames/s",
            "seconds for an hour at 60 Hz",
            "memory GB",
        ],
        ["---"] + ["---:"] * 6,
    ]
    last = {
        (r["part"], r["cameras"], r["views"], r["joints"], r["frames"]): r
        for r in found
        if r["part"] != "anipose"
    }
    for row in last.values():
        rate = row["frames_per_second"]
        sizes = [str(row[name]) for name in ("views", "joints", "frames")]
        lines.append(
            [row["cameras"], *sizes, str(rate), f"{HOUR / rate:.0f}", f"{row['memory_gb']:.2f}"]
        )
    return rows.markdown(lines)


def beside_table(found: Sequence[Row]) -> str:
    """Markdown: aniposelib and ours on the same detections."""
    lines = [["", "seconds", "frames/s", "rotation °"], ["---"] + ["---:"] * 3]
    for row in [row for row in found if row["part"] == "anipose"][-1:]:
        frames = f"{row['frames']} frames of {row['views']} views"
        lines += [
            _line(f"aniposelib, {frames}, from {row['start_rotation_deg']:.1f}°", row, "anipose_"),
            _line(f"solve, {frames}, from nothing", row, ""),
        ]
    return rows.markdown(lines)


def _line(name: str, row: Mapping[str, Any], prefix: str) -> list[str]:
    keys = (("seconds", 2), ("frames_per_second", 0), ("rotation_deg", 2))
    return [name, *(f"{row[prefix + key]:.{digits}f}" for key, digits in keys)]


def tables(results: Path = rows.RESULTS) -> list[str]:
    """Both tables."""
    found = rows.read(results / FILE)
    return [table(found), beside_table(found)]
