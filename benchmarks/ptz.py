"""Real motion filmed by simulated, uncalibrated cameras: any method on any setting, one row each.

Examples:
    python benchmarks/ptz.py run s1+s2 ski                        # two to five minutes
    python benchmarks/ptz.py run triangulation ski                # a reference, not trained
    python benchmarks/ptz.py run baseline ski --steps-scale 0.25  # quick look; a row of its own
    python benchmarks/ptz.py all --jobs 2                         # every row that is missing
    python benchmarks/ptz.py table                                # Markdown, for the README
    python benchmarks/ptz.py table --steps                        # accuracy over training length

The films depend on the setting alone, the seed is that of the training. All frames are used, at
30 fps. What --work holds is named after all that it was made of, so that nothing stale is used,
and may be deleted at any time.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from glob import escape
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # `train` is not installed

import train
from canonlift.body.skeleton import H36M17
from canonlift.data.prediction import Prediction
from canonlift.data.recording import Recording, save
from canonlift.data.samples import read_one
from canonlift.evaluation.evaluate import Scores
from canonlift.inference.predict import predict
from canonlift.simulation.cameras import CameraConfig, Cameras, place_cameras
from canonlift.simulation.detector import DetectorConfig
from canonlift.simulation.session import film
from canonlift.training import checkpoint
from canonlift.training import config as configs
from canonlift.training.checkpoint import Model
from canonlift.training.config import Config, ConvergenceConfig, DataConfig, PhaseConfig

ROOT = Path(__file__).resolve().parents[1]
MOCAP = ROOT.parent / "shared" / "data" / "mocap" / "cmu_17j_30fps.npz"
FILM_SEED = 0
FPS = 30.0


class Setting(NamedTuple):
    """Who films; the names of a setting and of its clips are the seeds of its cameras."""

    cameras: CameraConfig
    detector: DetectorConfig = DetectorConfig()
    film: str = ""  # name of the setting whose cameras and errors these are; empty: its own
    threshold: float = 0.85  # confidence below which a joint is repaired


_SKI = CameraConfig(n_views=6, distance_m=(15.0, 40.0), height_m=(0.0, 8.0), arc_deg=200.0)
SETTINGS: Mapping[str, Setting] = {
    "ski": Setting(_SKI),
    "phones": Setting(
        CameraConfig(n_views=3, distance_m=(4.0, 8.0), drift_m=0.25, zoom=False, roll_deg=5.0)
    ),
    "studio": Setting(CameraConfig(n_views=4, distance_m=(4.0, 6.0), fixed=True)),
    "pair": Setting(
        CameraConfig(
            n_views=2,
            azimuths_deg=(0.0, 90.0),
            distance_m=(6.0, 12.0),
            drift_m=0.25,
            zoom=False,
        )
    ),
    # Every confidence is 1, so every joint is repaired or none.
    "blind": Setting(_SKI, DetectorConfig(confidences=False), film="ski", threshold=1.01),
}

# By person and clip: training saw neither the bones nor the actions of asf/02.
SPLITS: Mapping[str, tuple[str, ...]] = {
    "train": ("expmap/train/", "asf/01_", "asf/03_"),
    "test": ("expmap/test/", "asf/02_"),
}
MOCAP_JOINTS: Mapping[str, str] = {
    "Pelvis": "pelvis", "RHip": "r_hip", "RKnee": "r_knee", "RAnkle": "r_ankle",
    "LHip": "l_hip", "LKnee": "l_knee", "LAnkle": "l_ankle", "Spine": "spine",
    "Thorax": "thorax", "Neck": "nose", "Head": "head", "LShoulder": "l_shoulder",
    "LElbow": "l_elbow", "LWrist": "l_wrist", "RShoulder": "r_shoulder", "RElbow": "r_elbow",
    "RWrist": "r_wrist",
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One method on one setting."""

    setting: Setting
    film: Path  # folder of the filmed clips
    seed: int
    steps_scale: float
    work: Path


# ---------------------------------------------------------------------------- films


def shoot(
    setting_name: str, mocap: Path, work: Path, settings: Mapping[str, Setting] = SETTINGS
) -> Path:
    """Film all clips of a setting, or find them filmed already; returns their folder.

    It holds `train/CLIP.npz`, `test/CLIP.npz` and, never read in training, the true cameras.

    Raises:
        FileNotFoundError: if there is no motion capture.
        ValueError: if it has other joints, or no clips of a split.
    """
    setting = settings[setting_name]
    if not mocap.is_file():
        raise FileNotFoundError(f"{mocap}: no motion capture; give --data, see shared/data")
    sources = sorted((ROOT / "canonlift" / "simulation").glob("*.py"))
    made_of = _digest(setting, mocap.read_bytes(), Path(__file__), *sources)
    folder = work / "films" / f"{setting_name}-{made_of}"
    if folder.is_dir():
        return folder
    print(f"filming {setting_name} into {folder}")
    part = folder.with_name(f"{folder.name}.part{os.getpid()}")
    for split, name, recording, crew in _takes(setting_name, _clips(mocap), settings):
        stem = name.replace("/", "-")
        save(recording, part / split / f"{stem}.npz")
        (part / "cameras").mkdir(exist_ok=True)
        np.savez(part / "cameras" / f"{stem}.npz", **_arrays(crew))
    settle(part, folder)
    return folder


def settle(part: Path, folder: Path) -> None:
    """Give a finished film its name, unless another process was faster, whose film is the same."""
    try:
        part.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        shutil.rmtree(part)


def _clips(mocap: Path) -> dict[str, np.ndarray]:
    """Motion in metres, y up, on h36m17, by the clips' names."""
    with np.load(mocap, allow_pickle=False) as file:
        joints = [MOCAP_JOINTS.get(str(joint), "") for joint in file["joints"]]
        if sorted(joints) != sorted(H36M17):
            raise ValueError(f"{mocap}: joints must be {', '.join(MOCAP_JOINTS)}")
        if float(file["fps"]) != FPS:
            raise ValueError(f"{mocap}: need {FPS:g} fps, got {file['fps']}")
        order = [joints.index(joint) for joint in H36M17]
        clips = {
            name: file[name][:, order].astype(np.float64) for name in file.files if "/" in name
        }
    for split in SPLITS:
        if not any(_split(name) == split for name in clips):
            raise ValueError(f"{mocap}: no clips of {' or '.join(SPLITS[split])} to {split} on")
    return clips


def _takes(
    setting_name: str,
    clips: Mapping[str, np.ndarray],
    settings: Mapping[str, Setting] = SETTINGS,
) -> Iterator[tuple[str, str, Recording, Cameras]]:
    """Split, name, recording and true cameras of every clip.

    Cameras that may move are set up anew for every clip. Fixed ones stay for a day, on which
    everything of one kind is done in front of them: at the same place, in any direction.
    """
    setting = settings[setting_name]
    fixed = setting.cameras.fixed
    days: dict[str, list[str]] = {}
    for name in sorted(clips):
        if _split(name):
            days.setdefault(re.sub(r"_\d+$", "", name) if fixed else name, []).append(name)
    for day, names in days.items():
        film_name = setting.film or setting_name
        turns = _generator(film_name, day, 0).uniform(0, 2 * np.pi, len(names))
        parts = [_placed(clips[name], turn) for name, turn in zip(names, turns, strict=True)]
        motion, rig, shoot = np.concatenate(parts), day if fixed else "", (film_name, day, 1)
        recording = film(
            motion, H36M17, FPS, setting.cameras, setting.detector, _generator(*shoot), rig
        )
        # `film` sets up its cameras from the first child of its generator.
        crew = place_cameras(motion, FPS, setting.cameras, _generator(*shoot).spawn(2)[0])
        ends = np.cumsum([len(part) for part in parts])
        for name, part, end in zip(names, parts, ends, strict=True):
            frames = slice(end - len(part), end)
            yield _split(name), name, _cut(recording, frames), _cut_cameras(crew, frames)


def _generator(film: str, day: str, stream: int) -> np.random.Generator:
    key = (zlib.crc32(film.encode()), zlib.crc32(day.encode()), stream)
    return np.random.default_rng(np.random.SeedSequence(FILM_SEED, spawn_key=key))


def _placed(motion: np.ndarray, turn: float) -> np.ndarray:
    """The motion about the origin of the floor, turned about the vertical axis by radians."""
    ends = motion.min((0, 1)), motion.max((0, 1))
    centred = motion - (ends[0] + ends[1]) / 2 * [1.0, 0.0, 1.0]
    cos, sin = np.cos(turn), np.sin(turn)
    return centred @ np.array([[cos, 0.0, -sin], [0.0, 1.0, 0.0], [sin, 0.0, cos]])


def _cut(recording: Recording, frames: slice) -> Recording:
    names = ("keypoints", "confidence", "pose3d", "keypoints_true")
    return replace(recording, **{name: getattr(recording, name)[frames] for name in names})


def _cut_cameras(crew: Cameras, frames: slice) -> Cameras:
    return Cameras(
        crew.rotation[frames], crew.position[frames], crew.focal_px[frames], crew.image_size
    )


def _arrays(crew: Cameras) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in vars(crew).items()}


def _split(name: str) -> str:
    """`train`, `test`, or empty for a clip of neither."""
    return next((split for split, starts in SPLITS.items() if name.startswith(starts)), "")


# -------------------------------------------------------------------------- methods

Recipe = Callable[[Config, Setting], Config]
Method = Callable[[Job], dict[str, Any]]  # the figures of a row


def _ours(variant: str) -> Recipe:
    """The demo's schedule: imitate what all views say in closed form, then stages 1 and 2."""

    def recipe(demo: Config, setting: Setting) -> Config:
        if setting.cameras.n_views >= 3:
            return replace(demo, variant=variant)
        # Two views have no closed form; the same steps go into reprojection.
        start = replace(demo.schedule[0], name="start", weights={"reprojection": 1.0})
        data = replace(demo.data, target="none")
        return replace(demo, variant=variant, data=data, schedule=[start, *demo.schedule[1:]])

    return recipe


def _canonpose(demo: Config, setting: Setting) -> Config:
    """Reprojection from a random start, with the camera term where the cameras are fixed."""
    weights = {"reprojection": 1.0}
    if setting.cameras.fixed:
        weights["camera_consistency"] = 0.1
    return _one_phase(demo, "canonpose", "none", weights)


def _supervised(demo: Config, _: Setting) -> Config:
    """The same network, told the truth."""
    return _one_phase(demo, "supervised", "pose3d", {"imitation": 1.0})


def _over_time(demo: Config, setting: Setting) -> Config:
    """Windows, held together by similarities; after the same start where there is one."""
    ours = configs.load(ROOT / "configs" / "sequence.yaml")
    schedule, target = ours.schedule, demo.data.target
    if setting.cameras.n_views < 3:
        # Without a guess, what tells people from mirror images has to do so from the first step.
        start = replace(schedule[0], weights={**schedule[1].weights, "fold": 0.1})
        schedule, target = [start, *schedule[1:]], "none"
    return replace(
        demo,
        variant="sequence",
        batch_size=ours.batch_size,
        flip=ours.flip,
        data=replace(demo.data, target=target),
        sequence=ours.sequence,
        schedule=schedule,
    )


def _over_time_fused(demo: Config, setting: Setting) -> Config:
    """The same, held to its own image as the other views repair it."""
    config = replace(_over_time(demo, setting), variant="sequence+fusion")
    start, views = config.schedule
    weights = {**views.weights, "image": 0.0, "mended_image": views.weights["image"]}
    return replace(config, schedule=[start, replace(views, weights=weights)])


def _without(term: str) -> Recipe:
    """S1+S2 less one of its terms."""

    def recipe(demo: Config, setting: Setting) -> Config:
        return _weighted(_ours("s1+s2")(demo, setting), {term: None})

    return recipe


def _full_consistency(demo: Config, setting: Setting) -> Config:
    """S1+S2 with the paper's weight on what the second lift feeds."""
    config = _ours("s1+s2")(demo, setting)
    *rest, last = config.schedule
    strong = _weighted(replace(config, schedule=[last]), {"consistency_3d": 1.0})
    return replace(config, schedule=[*rest, *strong.schedule])


def _weighted(config: Config, weights: Mapping[str, float | None]) -> Config:
    """Other weights for terms that the phases have; None: without the term."""
    schedule = [
        replace(
            phase,
            weights={
                term: weights.get(term, weight)
                for term, weight in phase.weights.items()
                if weights.get(term, weight) is not None
            },
        )
        for phase in config.schedule
    ]
    return replace(config, schedule=schedule)


def _cvsf(demo: Config, _: Setting) -> Config:
    """The paper's own weights and map, from a random start; the map's exact maximum."""
    paper = configs.load(ROOT / "configs" / "cvsf.yaml")
    each = sum(phase.steps for phase in demo.schedule) // len(paper.schedule)
    schedule = [
        replace(pace, name=phase.name, steps=each, weights=phase.weights)
        for phase, pace in zip(paper.schedule, (demo.schedule[0], demo.schedule[-1]), strict=True)
    ]
    fusion = replace(paper.fusion, method="exact", threshold=demo.fusion.threshold)
    data = replace(demo.data, target="none")
    return replace(demo, variant="s1+s2", data=data, fusion=fusion, schedule=schedule)


def _fused_by(method: str) -> Recipe:
    """S1+S2 with another way to repair joints."""

    def recipe(demo: Config, setting: Setting) -> Config:
        config = _ours("s1+s2")(demo, setting)
        return replace(config, fusion=replace(config.fusion, method=method))

    return recipe


def _targets(demo: Config, _: Setting) -> Config:
    """What all views say over two seconds, imitated throughout: no term of the papers."""
    return _one_phase(demo, "targets", demo.data.target, {"imitation": 1.0})


def _one_phase(demo: Config, name: str, target: str, weights: dict[str, float]) -> Config:
    """As many steps as the demo's, all as its first phase takes them."""
    steps = sum(phase.steps for phase in demo.schedule)
    phase = replace(demo.schedule[0], name=name, steps=steps, weights=weights)
    data = replace(demo.data, target=target)
    return replace(demo, variant="baseline", data=data, schedule=[phase])


def _learned(recipe: Recipe) -> Method:
    """Train, and evaluate one view at a time."""

    def method(job: Job) -> dict[str, Any]:
        model = _trained(recipe, job)
        results = _evaluate(model, job)
        timing = {name: results[name] for name in ("train_seconds", "frames_per_second")}
        return results["metrics"] | _refinement(results) | timing

    return method


def _flat(job: Job) -> dict[str, Any]:
    """The 2D pose with depth 0."""
    results = _evaluate(_untrained(job), job)
    return results["baselines"]["flat"] | _refinement(results, refined=False)


def _mean_pose(job: Job) -> dict[str, Any]:
    """The mean of what S1+S2 predicts on its training data."""
    results = _evaluate(_trained(_ours("s1+s2"), job), job)
    found = results["baselines"]["mean_pose"] | _refinement(results, refined=False)
    return found | {"train_seconds": results["train_seconds"]}


def _triangulation(job: Job) -> dict[str, Any]:
    """All views together, by the true cameras: a reference for what the 2D allows."""
    spent = []

    def predict_all(path: Path, recording: Recording) -> Prediction:
        crew = _load_cameras(job.film / "cameras" / path.name)
        start = time.perf_counter()
        pose = crew.in_axes(triangulate(recording, crew))
        spent.append(time.perf_counter() - start)
        return Prediction(
            pose.astype(np.float32),
            crew.rotation.astype(np.float32),
            crew.project(pose).astype(np.float32),
        )

    results = _evaluate(_untrained(job), job, predict_all)
    rate = results["protocol"]["poses"] / sum(spent)
    return results["metrics"] | _refinement(results) | {"frames_per_second": rate}


TRAINED = ("mean_pose", "supervised", "canonpose", "baseline", "s1", "s1+s2", "sequence")
# Of the headline only, with one seed.
ABLATIONS: Mapping[str, Method] = {
    "targets": _learned(_targets),
    "no_consensus": _learned(_without("consensus")),
    "full_consistency": _learned(_full_consistency),
    "cvsf": _learned(_cvsf),
    "s1+s2_exact": _learned(_fused_by("exact")),
    "s1+s2_grid": _learned(_fused_by("grid")),
    "sequence+fusion": _learned(_over_time_fused),
}
METHODS: Mapping[str, Method] = {
    "flat": _flat,
    "mean_pose": _mean_pose,
    "supervised": _learned(_supervised),
    "triangulation": _triangulation,
    "canonpose": _learned(_canonpose),
    "baseline": _learned(_ours("baseline")),
    "s1": _learned(_ours("s1")),
    "s1+s2": _learned(_ours("s1+s2")),
    "sequence": _learned(_over_time),
    **ABLATIONS,
}


def config_of(recipe: Recipe, job: Job) -> Config:
    """What a recipe trains, on the films and at the length of a job."""
    demo = configs.load(ROOT / "configs" / "demo.yaml")
    globs = {split: [f"{escape(str(job.film / split))}/*.npz"] for split in SPLITS}
    demo = replace(
        demo,
        seed=job.seed,
        data=DataConfig(**globs, target=demo.data.target, window_s=demo.data.window_s),
        fusion=replace(demo.fusion, threshold=job.setting.threshold),
    )
    config = recipe(demo, job.setting)
    return replace(config, schedule=[_scaled(phase, job.steps_scale) for phase in config.schedule])


def _scaled(phase: PhaseConfig, factor: float) -> PhaseConfig:
    """The phase made longer or shorter; never ended early, so that all methods train equally."""
    return replace(
        phase,
        steps=max(1, round(factor * phase.steps)),
        warmup=round(factor * phase.warmup),
        decay_at=[round(factor * step) for step in phase.decay_at],
        convergence=ConvergenceConfig(patience=sys.maxsize),
    )


def _trained(recipe: Recipe, job: Job) -> Model:
    """Train, or go on, or find the very run finished."""
    config = config_of(recipe, job)
    return trained(config, run_folder(config, job.film.name.partition("-")[0], job.work))


def run_folder(config: Config, film: str, work: Path) -> Path:
    """Where a run is: named after all that it is made of."""
    sources = sorted((ROOT / "canonlift").rglob("*.py"))
    made_of = _digest(configs.to_yaml(config), ROOT / "train.py", *sources)
    return work / "runs" / "-".join([film, config.schedule[0].name, config.variant, made_of])


def trained(config: Config, out: Path) -> Model:
    """Train, or go on, or find the very run finished."""
    try:
        return checkpoint.load_model(out, config.device)
    except (FileNotFoundError, ValueError):  # not begun, not finished
        train.train(config, out, resume=True)
    return checkpoint.load_model(out, config.device)


def _untrained(job: Job) -> Model:
    config = config_of(_ours("s1+s2"), job)
    mean_pose = torch.zeros(len(config.joints), 3)
    return Model(config, checkpoint.new_lifter(config).eval(), mean_pose, {}, 0.0)


def _evaluate(
    model: Model, job: Job, predictor: Callable[[Path, Recording], Prediction] | None = None
) -> dict[str, Any]:
    """Results on the test clips; without a predictor, the model's."""
    scores = Scores(model)
    for path in sorted((job.film / "test").glob("*.npz")):
        recording = read_one(path, model.joints)
        prediction = predictor(path, recording) if predictor else predict(model, recording)
        scores.add(path.stem, recording, prediction)
    return scores.results()


def _refinement(results: Mapping[str, Any], refined: bool = True) -> dict[str, float | None]:
    """Figures of the 2D repair; JDR is the mean over the joints of CVSF's Table 2."""
    found = results["refinement"]
    jdr = {kind: float(np.mean(list(found[f"jdr_{kind}"].values()))) for kind in KINDS}
    if not refined:
        return {"jdr_detected": jdr["detected"]}
    ratio = found["refined_px"] / found["detected_px"]
    return {f"jdr_{kind}": jdr[kind] for kind in KINDS} | {"refined_over_detected": ratio}


KINDS = ("detected", "refined")

# -------------------------------------------------------------------- triangulation

CAUCHY_M = 0.06  # distance from a ray at which its say has halved
REWEIGHTINGS = 10
LEASH = 1e-3  # say of the body's middle, against that of one sure ray


def triangulate(recording: Recording, crew: Cameras) -> np.ndarray:
    """World positions (T, J, 3) from calibrated cameras, by robust least squares.

    Distances are measured in metres across each ray and weighted by confidence and by Cauchy's
    function. A joint that fewer than two cameras saw is put where its ray, if there is one,
    passes the middle of the body.
    """
    keypoints, confidence = recording.keypoints, recording.confidence
    middle = np.array(crew.image_size) / 2
    seen = confidence > 0
    slope = np.where(seen[..., None], keypoints - middle, 0.0) / crew.focal_px[..., None, None]
    # Two rows per ray: R1 - x R3 and R2 - y R3 vanish on it, and measure metres at its depth.
    turn = crew.rotation[:, :, None]
    rows = turn[..., :2, :] - slope[..., None] * turn[..., 2:, :]
    rows = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    offset = np.einsum("tvjrc,tvc->tvjr", rows, crew.position)

    say = confidence.astype(np.float64)
    eye = np.eye(3)
    for _ in range(1 + REWEIGHTINGS):
        normal = np.einsum("tvj,tvjrc,tvjrd->tjcd", say, rows, rows)
        right = np.einsum("tvj,tvjrc,tvjr->tjc", say, rows, offset)
        whole = normal.sum(1) + 1e-9 * eye  # a frame that nobody saw
        body = np.linalg.solve(whole, right.sum(1)[..., None])
        point = np.linalg.solve(normal + LEASH * eye, right[..., None] + LEASH * body[:, None])
        gap = np.einsum("tvjrc,tjc->tvjr", rows, point[..., 0]) - offset
        say = confidence / (1 + np.square(gap / CAUCHY_M).sum(-1))
    return point[..., 0]


def _load_cameras(path: Path) -> Cameras:
    with np.load(path, allow_pickle=False) as file:
        width, height = file["image_size"].tolist()
        return Cameras(file["rotation"], file["position"], file["focal_px"], (width, height))


# ----------------------------------------------------------------------- the table

RESULTS = ROOT / "benchmarks" / "results"
HEADLINE = "ski"
Rows = Sequence[Mapping[str, Any]]
SEEDS = (0, 1, 2)
FIGURES = {
    "n_mpjpe_mm": 1, "pa_mpjpe_mm": 1, "n_pck_150": 1, "jdr_detected": 1, "jdr_refined": 1,
    "refined_over_detected": 3, "train_seconds": 0, "frames_per_second": 0,
}  # fmt: skip
HEADINGS = (
    "N-MPJPE mm", "PA-MPJPE mm", "N-PCK %", "JDR detected %", "JDR refined %",
    "refined / detected", "train s", "frames/s",
)  # fmt: skip


def run(
    method: str,
    setting: str,
    seed: int,
    mocap: Path,
    work: Path,
    results: Path,
    steps_scale: float = 1.0,
) -> dict[str, Any]:
    """Train and evaluate one method on one setting, and append the row to `results`.

    A row of another length goes into a file of its own, so that the table has like beside like.
    """
    commit = _commit()
    job = Job(SETTINGS[setting], shoot(setting, mocap, work), seed, steps_scale, work)
    found = METHODS[method](job)
    row = {"method": method, "setting": setting, "seed": seed}
    row |= {name: found.get(name) for name in FIGURES}  # None: there is no such figure
    row |= {"commit": commit, "machine": _machine()}
    name = "ptz.jsonl"
    if steps_scale != 1.0:
        row, name = row | {"steps_scale": steps_scale}, "ptz_steps.jsonl"
    results.mkdir(parents=True, exist_ok=True)
    with (results / name).open("a") as file:
        file.write(json.dumps(row) + "\n")
    return row


def run_all(jobs: int, mocap: Path, work: Path, results: Path) -> None:
    """Append every row that is missing, `jobs` at a time on one thread each.

    The headline has three seeds for all that is trained, ablations and the other settings one.
    """
    known = {
        (row["method"], row["setting"], row["seed"]) for row in _read_rows(results / "ptz.jsonl")
    }
    for setting in SETTINGS:
        shoot(setting, mocap, work)
    # The mean pose looks for the run of S1+S2, which must not be in the making beside it.
    for methods in (set(METHODS) - {"mean_pose"}, {"mean_pose"}):
        todo = [
            (method, setting, seed)
            for setting in SETTINGS
            for seed in (SEEDS if setting == HEADLINE else SEEDS[:1])
            for method in METHODS
            if method in methods
            and (method in TRAINED or seed == SEEDS[0])
            and (method not in ABLATIONS or setting == HEADLINE)
        ]
        todo = [row for row in todo if row not in known]
        with ProcessPoolExecutor(jobs, get_context("spawn"), _settle) as processes:
            rows = [processes.submit(run, *row, mocap, work, results) for row in todo]
            try:
                for row in as_completed(rows):
                    print(json.dumps(row.result()), flush=True)
            except BaseException:
                processes.shutdown(cancel_futures=True)  # what runs is saved, the rest not begun
                raise


def _settle() -> None:
    """One thread, and what train.py does for its own speed."""
    torch.set_num_threads(1)
    train.keep_memory()


def overview(rows: Rows) -> str:
    """Markdown, one line per method: N-MPJPE / PA-MPJPE in every setting."""
    groups = _groups(rows)
    lines = [["N-MPJPE / PA-MPJPE, mm", *SETTINGS], ["---"] + ["---:"] * len(SETTINGS)]
    known = {method for _, method, _ in groups}
    for method in METHODS:
        if method in ABLATIONS or method not in known:
            continue
        cells = []
        for setting in SETTINGS:
            seeds = groups.get((setting, method, 1.0), {}).values()
            figures = [
                _mean([row[name] for row in seeds], 1) for name in ("n_mpjpe_mm", "pa_mpjpe_mm")
            ]
            cells.append(" / ".join(figures))
        lines.append([method, *cells])
    return _markdown(lines)


def table(rows: Rows) -> str:
    """Markdown, one line per setting, method and length: mean over seeds, and their spread."""
    groups = _groups(rows)
    settings, methods = list(SETTINGS), list(METHODS)
    order = sorted(groups, key=lambda key: (settings.index(key[0]), methods.index(key[1]), key[2]))
    scaled = any(scale != 1.0 for _, _, scale in groups)
    heads = ["setting", "method", *(["steps"] if scaled else []), *HEADINGS, "seeds"]
    lines = [heads, ["---"] * 2 + ["---:"] * (len(heads) - 2)]
    for setting, method, scale in order:
        seeds = groups[setting, method, scale]
        cells = [
            _mean([row[name] for row in seeds.values()], digits)
            for name, digits in FIGURES.items()
        ]
        length = [f"x {scale:g}"] if scaled else []
        lines.append([setting, method, *length, *cells, str(len(seeds))])
    return _markdown(lines)


def without_ablations(rows: Rows) -> Rows:
    """What the table of all settings is made of."""
    return [row for row in rows if row["method"] not in ABLATIONS]


def ablations(rows: Rows) -> Rows:
    """S1+S2 and sequences on the headline and what was changed about them, with one seed."""
    return [
        row
        for row in rows
        if row["method"] in {"s1+s2", "sequence", *ABLATIONS}
        and (row["setting"], row["seed"]) == (HEADLINE, SEEDS[0])
    ]


def _groups(rows: Rows) -> dict[tuple, dict[int, Mapping[str, Any]]]:
    """Rows by setting, method and length, and therein by seed."""
    groups: dict[tuple, dict[int, Mapping[str, Any]]] = {}
    for row in rows:
        key = row["setting"], row["method"], row.get("steps_scale", 1.0)
        groups.setdefault(key, {})[row["seed"]] = row  # a later row replaces an earlier one
    return groups


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _mean(values: Sequence[float | None], digits: int) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    spread = f" ± {np.std(known, ddof=1):.{digits}f}" if len(known) > 1 else ""
    return f"{np.mean(known):.{digits}f}{spread}"


def _read_rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def _digest(*parts: object) -> str:
    """Of contents: of files, bytes, and of anything else what it prints as."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.read_bytes() if isinstance(part, Path) else part
        content = content if isinstance(content, bytes) else str(content).encode()
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:12]


def _commit() -> str:
    """The commit, marked where the working tree differs from it in more than the rows."""
    git = ["git", "-C", str(ROOT)]
    changes = [*git, "status", "--porcelain", "--", ".", ":!benchmarks/results"]
    try:
        head, changed = (
            subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
            for command in ([*git, "rev-parse", "--short", "HEAD"], changes)
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}-dirty" if changed else head


def _machine() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.+)", info.read_text()) if info.is_file() else []
    return f"{(names or [platform.machine()])[0]}, {torch.get_num_threads()} threads"


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="train and evaluate, and append a row")
    one.add_argument("method", choices=tuple(METHODS))
    one.add_argument("setting", choices=tuple(SETTINGS))
    one.add_argument("--seed", type=int, default=0, metavar="N", help="of the training")
    one.add_argument(
        "--steps-scale", type=float, default=1.0, metavar="F", help="factor on all steps"
    )
    every = commands.add_parser("all", help="append every row of the table that is missing")
    every.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time")
    show = commands.add_parser("table", help="print the rows as Markdown")
    show.add_argument("--steps", action="store_true", help="with the runs of another length")
    for command in (one, every):
        command.add_argument("--data", type=Path, default=MOCAP, metavar="NPZ", help="motion")
        command.add_argument("--work", type=Path, default=ROOT / "runs" / "ptz", metavar="DIR")
    for command in (one, every, show):
        command.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    args = parser.parse_args(argv)
    try:
        if args.command == "run":
            row = run(
                args.method, args.setting, args.seed, args.data, args.work, args.results,
                args.steps_scale,
            )  # fmt: skip
            print(f"\n{json.dumps(row)}\n\n{table([row])}")
        elif args.command == "all":
            run_all(args.jobs, args.data, args.work, args.results)
        else:
            rows = _read_rows(args.results / "ptz.jsonl")
            if args.steps:
                longer = _read_rows(args.results / "ptz_steps.jsonl")
                varied = {(row["setting"], row["method"]) for row in longer}
                rows = [row for row in rows if (row["setting"], row["method"]) in varied]
                print(table(rows + longer))
            else:
                details = filter(None, (without_ablations(rows), ablations(rows)))
                print(overview(rows), *map(table, details), sep="\n\n")
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"ptz.py: {error}")
    except (train.Interrupted, KeyboardInterrupt):
        print("ptz.py: stopped and saved; the same command goes on from there", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
