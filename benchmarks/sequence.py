"""Consistency of sequences: what it is worth, and what it depends on; films are those of ptz.py.

Examples:
    python benchmarks/sequence.py run headline --jobs 2           # every row that is missing
    python benchmarks/sequence.py run weight --steps-scale 0.1    # quick look; rows of their own
    python benchmarks/sequence.py show headline                   # Markdown
    python benchmarks/sequence.py show views                      # and figures/sequence-views.png
    python benchmarks/sequence.py speed --device cuda             # seconds and memory, 243 frames

Studies: headline (the papers' Table 1), views (their Fig. 4), second_view (their Table 3),
segment, length, weight, offset (views that are not synchronised), and training (how long).

The network is pretrained with 3D on the clips of asf/01, each stretch of 10 s filmed by four
random cameras. Training is on the clips of ptz.py's training split without that person, so that
nobody is in two of pretraining, training and test; the generic skeleton of expmap counts as
nobody. No row of 2D reads 3D after pretraining.
"""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import cache
from glob import escape
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.interpolate import interp1d

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # `train` is not installed

import train
from benchmarks import measure, ptz
from canonlift.body import skeleton
from canonlift.body.skeleton import H36M17
from canonlift.data.prediction import Prediction
from canonlift.data.recording import Recording, load, save
from canonlift.models.temporal import SequenceConfig
from canonlift.simulation.cameras import CameraConfig
from canonlift.simulation.detector import DetectorConfig
from canonlift.simulation.session import film
from canonlift.training import checkpoint, metrics_log
from canonlift.training import config as configs
from canonlift.training.checkpoint import Model
from canonlift.training.config import Config, DataConfig, PhaseConfig
from canonlift.types import Windows

PRETRAINED_ON = "asf/01_"
TRAINED_ON = ("expmap-train-*.npz", "asf-03_*.npz")
LABELLED = "asf-03_*.npz"  # whose 3D is read where that of one person is
STRETCH = 300  # frames that one crew films for pretraining
CREW = CameraConfig(n_views=4, distance_m=(4.0, 15.0), height_m=(0.2, 4.0), zoom=False)

_STUDIO = ptz.SETTINGS["studio"].cameras
ANGLES = (15, 30, 45, 60, 90, 120, 150, 180)
SETTINGS: Mapping[str, ptz.Setting] = {
    **ptz.SETTINGS,
    # Two of the studio's cameras, so many degrees apart.
    **{
        f"pair{angle}": ptz.Setting(
            replace(_STUDIO, n_views=2, azimuths_deg=(0.0, float(angle)), azimuth_jitter_deg=0.0)
        )
        for angle in ANGLES
    },
    "ring": ptz.Setting(replace(_STUDIO, n_views=6)),
}


class Method(NamedTuple):
    """What is minimised after pretraining (the papers' Eqs. 5 to 8)."""

    weights: Mapping[str, float]
    target: str = "none"
    labelled: str = ""  # clips whose 3D alone is read; with `pose3d` all others are left out


_3D = {"position": 1.0, "velocity": 20.0, "scale_free": 0.5}
_OF_VIEWS = {"image": 0.1, "cross_image": 1.0, "consistency": 0.1}
METHODS: Mapping[str, Method | None] = {
    "still": None,
    "truth": None,
    "pretrained": None,
    "2d": Method({"image": 1.0}),
    "2d+consistency": Method({"image": 1.0, "consistency": 1.0}),
    "2d+as printed": Method({"image": 1.0, "consistency_as_printed": 1.0}),
    "2d+ours": Method(_OF_VIEWS),
    "3d of one": Method(_3D, "pose3d", LABELLED),
    "3d of one+ours": Method(_3D | _OF_VIEWS, labelled=LABELLED),
    "3d": Method(_3D, "pose3d"),
    "3d+consistency": Method(_3D | {"consistency": 0.2}, "pose3d"),
}
# Not trained: bodies that stay as they are on average, and the truth at the rate of the windows,
# with straight lines in between.
REFERENCES = ("still", "truth")
ALONE = (*REFERENCES, "pretrained", "2d", "3d of one", "3d")  # no view knows of another


@dataclass(frozen=True)
class Experiment:
    """One training and its evaluation: what a row is of."""

    method: str
    setting: str
    seed: int = 0
    start: str = "pretrained"  # or random
    segment: int = 0  # 0 and from `length` on: the whole window
    length: int = 81  # at 10 fps, as long as 243 frames of SkiPose
    weight: float | None = None  # of the consistency, in place of the method's
    n_views: int | None = None  # train on the first of them only
    offset_ms: float = 0.0  # by which every other view is late, in training
    steps_scale: float = 1.0


ROOT = H36M17.index(skeleton.ROOT)
SEGMENT = 27  # frames
PRINTED = 0.3  # weight of the consistency beside a 2D loss of 1 in the papers
# A small network, trained for a minute: what is asked is what depends on what, not how far
# training goes (the study `training`, and the row `sequence` of ptz.py).
SMALL = (
    "sequence.width=128",
    "batch_size=16",
    "schedule.0.learning_rate=1e-3",
    "schedule.0.warmup=50",
    "schedule.1.learning_rate=5e-4",
)


def _headline() -> Iterator[Experiment]:
    both, seeds = ("studio", "ski"), ptz.SEEDS
    every = ("2d", "2d+consistency", "2d+ours", "3d", "3d+consistency")
    for setting, method in product(both, (*REFERENCES, "pretrained")):
        yield Experiment(method, setting)
    for seed, setting, method in product(seeds, both, every):
        yield Experiment(method, setting, seed)
    for seed, setting in product(seeds, both):
        yield Experiment("2d+as printed", setting, seed, weight=PRINTED)
    for seed in seeds:  # as they do where cameras move
        yield Experiment("2d+as printed", "ski", seed, weight=PRINTED, segment=1)
    for seed, setting, method, segment in product(seeds, both, every[1:3], (SEGMENT, 1)):
        yield Experiment(method, setting, seed, segment=segment)
    for seed, setting, method in product(seeds, both, (*every[:4], "3d of one", "3d of one+ours")):
        yield Experiment(method, setting, seed, start="random")


def _over(field: str, values: Sequence[Any], **fixed: Any) -> Callable[[], Iterator[Experiment]]:
    return lambda: (Experiment(**fixed, **{field: value}) for value in values)


def _all(*parts: Callable[[], Iterator[Experiment]]) -> Callable[[], Iterator[Experiment]]:
    return lambda: (row for part in parts for row in part())


_CON, _OURS = {"method": "2d+consistency"}, {"method": "2d+ours"}
_PAIRS = [f"pair{angle}" for angle in ANGLES]
_WEIGHTS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


class Study(NamedTuple):
    """A question, and the rows that answer it."""

    experiments: Callable[[], Iterator[Experiment]]
    over: str  # the field along the horizontal axis; empty: a table alone
    heading: str = ""
    beside: str = "pa_mpjpe_mm"  # figure of the right panel


STUDIES: Mapping[str, Study] = {
    "headline": Study(_headline, ""),
    "views": Study(
        _all(
            _over("n_views", range(1, 7), **_OURS, setting="ring"),
            _over("n_views", (2, 3, 4, 6), **_CON, setting="ring"),
            _over("n_views", (1, 6), method="3d", setting="ring"),
            _over("n_views", (2, 6), method="3d+consistency", setting="ring"),
            _over("n_views", (2, 6), method="2d", setting="ring"),
        ),
        "n_views",
        "views in training",
    ),
    "second_view": Study(
        _all(_over("setting", _PAIRS, **_OURS), _over("setting", _PAIRS[1::2], **_CON)),
        "setting",
        "degrees between two views",
    ),
    "segment": Study(
        _all(
            _over("segment", (1, 3, 9, 27, 0), **_OURS, setting="ski"),
            _over("segment", (1, 27, 0), **_CON, setting="ski"),
        ),
        "segment",
        "frames of a segment, at 10 fps",
    ),
    "length": Study(
        _all(
            _over("length", (9, 27, 81), **_OURS, setting="ski"),
            _over("length", (9, 27, 81), **_OURS, setting="studio"),
        ),
        "length",
        "frames of a window, at 10 fps",
    ),
    "weight": Study(
        _all(
            _over("weight", _WEIGHTS, **_CON, setting="studio"),
            _over("weight", _WEIGHTS[2:], method="2d+as printed", setting="studio"),
        ),
        "weight",
        "weight of the consistency",
        "movement",
    ),
    "offset": Study(
        _all(
            _over("offset_ms", (0.0, 50.0, 100.0, 200.0), **_OURS, setting="studio"),
            _over("offset_ms", (0.0, 50.0, 100.0, 200.0), **_CON, setting="studio"),
        ),
        "offset_ms",
        "milliseconds by which every other view is late",
    ),
    "training": Study(
        _all(
            *(
                _over("steps_scale", (0.5, 1.0, 2.0, 4.0), method=method, setting="studio")
                for method in ("2d+consistency", "2d+ours", "3d")
            )
        ),
        "steps_scale",
        "length of training, relative to the other studies",
    ),
}

# ---------------------------------------------------------------------------- films


def shoot_for_pretraining(mocap: Path, work: Path) -> Path:
    """Film stretches of the one person, each by random cameras; returns the folder."""
    folder = work / "films" / f"pretraining-{_sources(mocap)}"
    if folder.is_dir():
        return folder
    part = folder.with_name(f"{folder.name}.part{os.getpid()}")
    for name, motion in ptz._clips(mocap).items():
        for begin in range(0, len(motion) if name.startswith(PRETRAINED_ON) else 0, STRETCH):
            stretch = motion[begin : begin + STRETCH]
            if len(stretch) < 3:
                continue
            key = f"{name}-{begin}"
            turn = ptz._generator("pretraining", key, 0).uniform(0, 2 * np.pi)
            generator = ptz._generator("pretraining", key, 1)
            filmed = film(
                ptz._placed(stretch, turn), H36M17, ptz.FPS, CREW, DetectorConfig(), generator
            )
            save(filmed, part / f"{key.replace('/', '-')}.npz")
    ptz.settle(part, folder)
    return folder


def altered(folder: Path, experiment: Experiment, work: Path) -> Path:
    """The training films of an experiment: with fewer views, or with late ones."""
    if experiment.n_views is None and not experiment.offset_ms:
        return folder
    name = f"{folder.name}-{experiment.n_views or 'all'}-{experiment.offset_ms:g}"
    made = work / "films" / f"{name}-{ptz._digest(Path(__file__))}"
    for pattern in TRAINED_ON:
        for path in sorted((folder / "train").glob(pattern)):
            target = made / "train" / path.name
            if not target.is_file():
                take = first_views(load(path), experiment.n_views)
                save(delayed(take, experiment.offset_ms / 1000), target)
    return made


def first_views(take: Recording, n_views: int | None) -> Recording:
    """The same take by the first of its cameras; None: all."""
    some = slice(n_views)
    arrays = ("keypoints", "confidence", "pose3d", "keypoints_true")
    return replace(
        take,
        **{name: getattr(take, name)[:, some] for name in arrays},
        views=take.views[some],
        image_size=take.image_size[some],
    )


def delayed(take: Recording, seconds: float) -> Recording:
    """Every other view shows what was seen so much earlier, between frames linearly.

    The truth stays with its frames; nothing that learns from 2D reads it.
    """
    moments = np.maximum(np.arange(take.n_frames) - seconds * take.fps, 0.0)
    before = np.floor(moments).astype(int)
    after, share = np.minimum(before + 1, take.n_frames - 1), (moments - before)[:, None, None]
    keypoints, confidence = take.keypoints.copy(), take.confidence.copy()
    late = slice(1, None, 2)
    points, sure = take.keypoints[:, late], take.confidence[:, late]
    mixed = (1 - share[..., None]) * points[before] + share[..., None] * points[after]
    # What was not observed may be NaN, and 0 * NaN is NaN.
    keypoints[:, late] = np.where(share[..., None] > 0, mixed, points[before])
    confidence[:, late] = np.where(share > 0, np.minimum(sure[before], sure[after]), sure[before])
    return replace(take, keypoints=keypoints.astype(np.float32), confidence=confidence)


def _sources(mocap: Path) -> str:
    sources = sorted((ptz.ROOT / "canonlift" / "simulation").glob("*.py"))
    return ptz._digest(mocap.read_bytes(), CREW, STRETCH, Path(__file__), *sources)


# ----------------------------------------------------------------------------- runs


def shape(config: Config, experiment: Experiment) -> SequenceConfig:
    """Windows and network of an experiment."""
    length = experiment.length
    segment = 0 if experiment.segment >= length else experiment.segment
    return replace(config.sequence, length=length, stride=max(1, length // 3), segment=segment)


def batch_size(config: Config, experiment: Experiment) -> int:
    """Windows of a step: whatever their length, a step sees as many frames."""
    return max(1, round(config.batch_size * config.sequence.length / experiment.length))


@cache
def _ours() -> Config:
    return configs.load(ptz.ROOT / "configs" / "sequence.yaml", SMALL)


def pretraining(experiment: Experiment, mocap: Path, work: Path) -> tuple[Config, Path]:
    """The config of the run to start from, which all seeds and methods share, and its folder."""
    ours = _ours()
    folder = shoot_for_pretraining(mocap, work)
    phase = replace(ours.schedule[0], name="pretraining", steps=1200, weights=dict(_3D))
    config = replace(
        ours,
        data=DataConfig(train=[f"{escape(str(folder))}/*.npz"], target="pose3d"),
        sequence=replace(shape(ours, experiment), segment=0),
        batch_size=batch_size(ours, experiment),
        schedule=[ptz._scaled(phase, experiment.steps_scale)],
    )
    return config, ptz.run_folder(config, "pretraining", work)


def fine_tuning(experiment: Experiment, folder: Path, start: Path | None) -> Config | None:
    """What an experiment trains on the films in a folder; None if nothing."""
    ours = _ours()
    method = METHODS[experiment.method]
    if method is None:
        return None
    weights = dict(method.weights)
    if experiment.weight is not None:
        weights |= {name: experiment.weight for name in weights if name.startswith("consistency")}
    first, last = ours.schedule
    present = [name for name in TRAINED_ON if any((folder / "train").glob(name))]
    films = {name: f"{escape(str(folder))}/train/{name}" for name in present}
    alone = method.labelled and method.target == "pose3d"
    phase = replace(last, name=experiment.method, steps=600, weights=weights)
    schedule = [phase]
    if experiment.start == "random":
        schedule = [replace(phase, learning_rate=first.learning_rate, steps=1200)]
    return replace(
        ours,
        seed=experiment.seed,
        data=DataConfig(
            train=[films[method.labelled]] if alone else list(films.values()),
            target=method.target,
            supervised=[films[method.labelled]] if method.labelled and not alone else [],
        ),
        sequence=shape(ours, experiment),
        batch_size=batch_size(ours, experiment),
        start_from=None if start is None else str(start),
        schedule=[ptz._scaled(part, experiment.steps_scale) for part in schedule],
    )


FIGURES = {
    "mpjpe_mm": 1, "n_mpjpe_mm": 1, "pa_mpjpe_mm": 1, "mpjve_mm_s": 0, "acceleration_m_s2": 2,
    "spread": 2, "depth": 2, "movement": 2, "train_seconds": 0,
}  # fmt: skip
HEADINGS = (
    "MPJPE mm", "N-MPJPE mm", "PA-MPJPE mm", "MPJVE mm/s", "acceleration m/s²", "size", "depth",
    "movement", "train s",
)  # fmt: skip

OVERVIEW = ("mpjpe_mm", "pa_mpjpe_mm")


def run(experiment: Experiment, mocap: Path, work: Path, results: Path) -> dict[str, Any]:
    """Train and evaluate, and append the row; of poses that collapsed there are no figures."""
    commit = ptz._commit()
    filmed = ptz.shoot(experiment.setting, mocap, work, SETTINGS)
    start, model = None, None
    if experiment.method in REFERENCES:
        return _kept(experiment, _referred(experiment, filmed, work), commit, results)
    if experiment.start == "pretrained":
        config, start = pretraining(experiment, mocap, work)
        model = ptz.trained(config, start)
    config = fine_tuning(experiment, altered(filmed, experiment, work), start)
    out, found = start, dict.fromkeys(FIGURES)
    try:
        if config is not None:
            out = ptz.run_folder(config, experiment.setting, work)
            model = ptz.trained(config, out)
        found |= _evaluated(model, experiment, filmed, mocap, work)
    except train.Collapsed as collapse:
        print(collapse)
    last = metrics_log.read(out)[-1:]
    found |= {name: float(row[name]) for row in last for name in ("spread", "depth", "movement")}
    return _kept(experiment, found, commit, results)


def _kept(
    experiment: Experiment, found: Mapping[str, Any], commit: str, results: Path
) -> dict[str, Any]:
    """Append a row."""
    row = asdict(experiment) | {name: found.get(name) for name in FIGURES}
    row |= {"commit": commit, "machine": ptz._machine()}
    results.mkdir(parents=True, exist_ok=True)
    with (results / "sequence.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    return row


def _referred(experiment: Experiment, filmed: Path, work: Path) -> dict[str, Any]:
    """What is not trained, scored as what is."""
    job = ptz.Job(SETTINGS[experiment.setting], filmed, experiment.seed, 1.0, work)
    fps = shape(_ours(), experiment).fps

    def predict(_: Path, take: Recording) -> Prediction:
        pose = np.broadcast_to(take.pose3d.mean(0), take.pose3d.shape)
        if experiment.method == "truth":
            known = np.arange(0, take.n_frames, round(take.fps / fps))
            line = interp1d(known, take.pose3d[known], axis=0, fill_value="extrapolate")
            pose = line(np.arange(take.n_frames))
        pose = (pose - pose[..., [ROOT], :]).astype(np.float32)
        rotation = np.broadcast_to(np.eye(3, dtype=np.float32), (*pose.shape[:2], 3, 3))
        return Prediction(pose, rotation, take.keypoints)

    return ptz._evaluate(ptz._untrained(job), job, predict)["metrics"]


def _evaluated(
    model: Model, experiment: Experiment, filmed: Path, mocap: Path, work: Path
) -> dict[str, Any]:
    """On the test clips of the setting; of pairs of views on those of the whole studio."""
    if experiment.setting.startswith("pair") and experiment.setting != "pair":
        filmed = ptz.shoot("studio", mocap, work)
    job = ptz.Job(SETTINGS[experiment.setting], filmed, experiment.seed, 1.0, work)
    results = ptz._evaluate(model, job)
    return results["metrics"] | {"train_seconds": results["train_seconds"]}


def run_study(name: str, scale: float, jobs: int, mocap: Path, work: Path, results: Path) -> None:
    """Append every row of a study that is missing, `jobs` at a time on one thread each."""
    wanted = [_longer(one, scale) for one in STUDIES[name].experiments()]
    known = {_key(row) for row in ptz._read_rows(results / "sequence.jsonl")}
    todo = [one for one in dict.fromkeys(wanted) if _key(asdict(one)) not in known]
    # Films and the runs that others start from are made once, before all of these look for them.
    for setting in dict.fromkeys(one.setting for one in todo):
        ptz.shoot(setting, mocap, work, SETTINGS)
        if setting.startswith("pair"):
            ptz.shoot("studio", mocap, work)
    trained = [one for one in todo if one.method not in REFERENCES]
    starts = [one for one in trained if one.start == "pretrained"]
    for one in {(one.length, one.steps_scale): one for one in starts}.values():
        ptz.trained(*pretraining(one, mocap, work))
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        rows = [pool.submit(run, one, mocap, work, results) for one in todo]
        try:
            for row in as_completed(rows):
                print(json.dumps(row.result()), flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # what runs is saved, the rest not begun
            raise


def _longer(one: Experiment, factor: float) -> Experiment:
    return replace(one, steps_scale=factor * one.steps_scale)


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in Experiment.__dataclass_fields__)


# --------------------------------------------------------------------------- showing


def show(name: str, rows: Sequence[Mapping[str, Any]], scale: float, out: Path) -> str:
    """A study as Markdown, mean over seeds; with a figure where it is over something."""
    study = STUDIES[name]
    known = {_key(row): row for row in rows}  # a later row replaces an earlier one
    groups: dict[Experiment, list[Mapping[str, Any]]] = {}
    for one in study.experiments():
        one = _longer(one, scale)
        if _key(asdict(one)) in known:
            groups.setdefault(replace(one, seed=0), []).append(known[_key(asdict(one))])
    if not study.over:
        order = list(METHODS)
        groups = dict(sorted(groups.items(), key=lambda item: order.index(item[0].method)))
    heads = ["setting", "start", "method", *([study.heading] if study.over else []), *HEADINGS]
    lines = [[*heads, "seeds"], ["---"] * 3 + ["---:"] * (len(heads) - 2)]
    for one, seeds in groups.items():
        cells = [ptz._mean([row[key] for row in seeds], d) for key, d in FIGURES.items()]
        place = [f"{_place(one, study.over):g}"] if study.over else []
        lines.append(
            [one.setting, one.start, _spoken(one, study.over), *place, *cells, str(len(seeds))]
        )
    if study.over and groups:
        draw(study, groups, out / f"sequence-{name}.png")
    return ptz._markdown(lines) if study.over else f"{overview(groups)}\n\n{ptz._markdown(lines)}"


def overview(groups: Mapping[Experiment, Sequence[Mapping[str, Any]]]) -> str:
    """MPJPE / PA-MPJPE of every setting, and by how much the worst seed is below `2d` in MPJPE."""
    settings = list(dict.fromkeys(one.setting for one in groups))
    columns = [head for name in settings for head in (name, "below 2d, worst seed")]
    lines = [["MPJPE / PA-MPJPE, mm", *columns], ["---"] + ["---:"] * len(columns)]
    for one in dict.fromkeys(replace(one, setting="") for one in groups):
        cells = []
        for setting in settings:
            rows = groups.get(replace(one, setting=setting), [])
            plain = groups.get(Experiment("2d", setting, 0, one.start, length=one.length), [])
            base = {row["seed"]: row["mpjpe_mm"] for row in plain}
            shown = rows and one.method not in ("2d", "pretrained")
            shown = shown and all(row["seed"] in base and row["mpjpe_mm"] for row in rows)
            gains = [1 - row["mpjpe_mm"] / base[row["seed"]] for row in rows] if shown else []
            figures = [ptz._mean([row[key] for row in rows], 1) for key in OVERVIEW]
            cells += [" / ".join(figures), f"{100 * min(gains):.0f} %" if shown else ""]
        start = "" if one.start == "pretrained" else f", {one.start} start"
        lines.append([_spoken(one) + start, *cells])
    return ptz._markdown(lines)


def _spoken(one: Experiment, over: str = "") -> str:
    kinds = {0: "per sequence", 1: "per frame"}
    if one.method in ALONE:
        return one.method
    weight = "" if one.weight is None or over == "weight" else f" x {one.weight:g}"
    return f"{one.method}{weight}, {kinds.get(one.segment, f'per segment of {one.segment}')}"


def _place(one: Experiment, field: str) -> float:
    value = getattr(one, field)
    if field == "segment" and value == 0:
        value = one.length
    return float(value.removeprefix("pair")) if isinstance(value, str) else float(value)


def draw(
    study: Study, groups: Mapping[Experiment, Sequence[Mapping[str, Any]]], path: Path
) -> None:
    """Draw figures over what the study varies, one curve per setting and method."""
    from canonlift.output.figures import style

    figure = style.figure((style.WIDTH, 3.4), study.heading.capitalize())
    panels = [style.plain(axes) for axes in figure.subplots(1, 2)]
    curves: dict[str, list[tuple[float, Sequence[Mapping[str, Any]]]]] = {}
    for one, seeds in groups.items():
        setting = "" if study.over == "setting" else one.setting
        name = f"{setting} {one.method}".strip()
        curves.setdefault(name, []).append((_place(one, study.over), seeds))
    names = dict(zip(FIGURES, HEADINGS, strict=True))
    for axes, key in zip(panels, ("mpjpe_mm", study.beside), strict=True):
        for (name, points), colour in zip(curves.items(), style.CURVES, strict=False):
            known = [(x, [r[key] for r in rows if r[key] is not None]) for x, rows in points]
            known = [(x, float(np.mean(values))) for x, values in sorted(known) if values]
            axes.plot(
                *zip(*known, strict=True), marker="o", markersize=4, color=colour, label=name
            )
        axes.set(xlabel=study.heading, ylabel=names[key])
        if study.over in ("weight", "segment", "length", "steps_scale"):
            axes.set_xscale("log")
        places = sorted({x for points in curves.values() for x, _ in points})
        axes.set_xticks(places, [f"{x:g}" for x in places])
        axes.minorticks_off()
    panels[0].legend(frameon=False, fontsize=style.SMALL)
    style.save(figure, path)


# ----------------------------------------------------------------------------- speed

SIZES: Mapping[str, SequenceConfig] = {
    "temporal": SequenceConfig(length=243, depth=2, width=128),
    "dstformer, small": SequenceConfig("dstformer", 243, depth=2, heads=4, width=64),
    "dstformer, paper": SequenceConfig("dstformer", 243, depth=5, heads=8, width=512),
}


def speed(device: str, rounds: int, names: Sequence[str], batch: int) -> dict[str, Any]:
    """Seconds and memory of a step of training, and views per second, on 243 frames of 2 to 6."""
    found: dict[str, Any] = {"machine": measure.machine(device), "batch": batch, "rows": []}
    for name, n_views in product(names, (2, 4, 6)):
        # The memory of a process never falls, so each size has one of its own.
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            job = pool.submit(speed_of, SIZES[name], n_views, batch, device, rounds)
            row: dict[str, Any] = {"backbone": name, "views": n_views}
            try:
                row |= job.result()
            except (BrokenExecutor, torch.OutOfMemoryError):
                row |= {"failed": "killed, or out of memory"}
        print(json.dumps(row), flush=True)
        found["rows"].append(row)
    return found


def speed_of(
    sequence: SequenceConfig, n_views: int, batch: int, device: str, rounds: int
) -> dict[str, float]:
    """Seconds, memory of this process and rate of one network."""
    train.keep_memory()
    config = _config_for(sequence)
    lifter = checkpoint.new_lifter(config).to(device)
    compute = train.computation(config, config.schedule[0], lifter)
    shape_ = (batch, n_views, 243, 17)
    windows = Windows(torch.randn(*shape_, 2), torch.rand(shape_), torch.full((batch,), -1)).to(
        device
    )

    def step() -> None:
        lifter.zero_grad()
        compute(windows)[0].backward()

    seconds = measure.in_turns({"step": step}, rounds, device)["step"]
    if device == "cpu":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    else:
        peak = torch.cuda.max_memory_allocated(device)
    with torch.inference_mode():
        forward = measure.in_turns({"lift": lambda: lifter(windows)}, rounds, device)
    return {
        "step_s": seconds,
        "frames_per_second": batch * n_views * 243 / forward["lift"],
        "peak_gb": peak / 1e9,
    }


def _config_for(sequence: SequenceConfig) -> Config:
    phase = PhaseConfig("speed", {"image": 1.0, "consistency": 0.3}, 1)
    data = DataConfig(train=["none.npz"])
    return Config([phase], data, variant="sequence", sequence=replace(sequence, segment=81))


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    every = commands.add_parser("run", help="append every row of a study that is missing")
    every.add_argument("study", choices=tuple(STUDIES))
    every.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time")
    every.add_argument("--data", type=Path, default=ptz.MOCAP, metavar="NPZ", help="motion")
    every.add_argument("--work", type=Path, default=ptz.ROOT / "runs" / "ptz", metavar="DIR")
    shown = commands.add_parser("show", help="print a study as Markdown, and draw it")
    shown.add_argument("study", choices=tuple(STUDIES))
    shown.add_argument("--figures", type=Path, default=ptz.ROOT / "figures", metavar="DIR")
    for command in (every, shown):
        command.add_argument(
            "--steps-scale", type=float, default=1.0, metavar="F", help="factor on all steps"
        )
        command.add_argument("--results", type=Path, default=ptz.RESULTS, metavar="DIR")
    timed = commands.add_parser("speed", help="seconds and memory of 243 frames")
    timed.add_argument("--device", default="cpu", help="any torch device")
    timed.add_argument("--rounds", type=int, default=3)
    timed.add_argument("--batch", type=int, default=1, help="windows at a time")
    timed.add_argument("--backbones", nargs="+", default=list(SIZES), choices=tuple(SIZES))
    timed.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    args = parser.parse_args(argv)
    start = time.monotonic()
    try:
        if args.command == "run":
            run_study(args.study, args.steps_scale, args.jobs, args.data, args.work, args.results)
            print(f"{args.study}: complete, after {time.monotonic() - start:.0f} s")
        elif args.command == "show":
            rows = ptz._read_rows(args.results / "sequence.jsonl")
            print(show(args.study, rows, args.steps_scale, args.figures))
        else:
            found = speed(args.device, args.rounds, args.backbones, args.batch)
            measure.write(args.json, found)
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"sequence.py: {error}")
    except (train.Interrupted, KeyboardInterrupt):
        print("sequence.py: stopped; the same command goes on from there", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
