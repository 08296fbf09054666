"""Consistency of sequences: what it is worth, and what it depends on; the films of `ptz`.

Examples:
    python -m benchmarks.sequence run headline --jobs 2         # every row that is missing
    python -m benchmarks.sequence run weight --steps-scale 0.1  # quick look; rows of their own
    python -m benchmarks.sequence show headline                 # Markdown
    python -m figures.sequence views                            # figures/sequence-views.png

Studies: headline (the papers' Table 1), views (their Fig. 4), second_view (their Table 3),
segment, length, weight, offset (views that are not synchronised), and training (how long).

The network is pretrained with 3D on the clips of asf/01, each stretch of 10 s filmed by four
random cameras. Training is on the training clips of `benchmarks.films` without that person, so
that nobody is in two of pretraining, training and test; the generic skeleton of expmap counts as
nobody. No row of 2D reads 3D after pretraining.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
from scipy.interpolate import interp1d

from benchmarks import experiments, films, rows
from benchmarks.recipes import config_of, table_1
from benchmarks.sequence_films import TRAINED_ON, altered, shoot_for_pretraining
from benchmarks.sequence_studies import (
    FIGURES,
    IN_3D,
    METHODS,
    REFERENCES,
    SETTINGS,
    STUDIES,
    Experiment,
    key,
)
from benchmarks.sequence_tables import FILE, show
from canonlift.body import skeleton
from canonlift.body.skeleton import H36M17
from canonlift.data.prediction import Prediction
from canonlift.data.recording import Recording
from canonlift.data.windows import WindowConfig
from canonlift.inference.model import Model
from canonlift.methods.relations import RelationConfig
from canonlift.training import config as configs
from canonlift.training import metrics_log
from canonlift.training.config import Config, DataConfig
from canonlift.training.loop import Interrupted
from canonlift.training.monitor import Collapsed

ROOT = H36M17.index(skeleton.ROOT)
# A small network, trained for a minute: what is asked is what depends on what, not how far
# training goes (the study `training`, and the row `sequence` of `ptz`).
SMALL = (
    "model.width=128",
    "batch_size=16",
    "schedule.0.learning_rate=1e-3",
    "schedule.0.warmup=50",
    "schedule.1.learning_rate=5e-4",
)

# -------------------------------------------------------------------------- configs


@cache
def ours() -> Config:
    """The config that every experiment is a change of."""
    return configs.load("sequence", SMALL)


def windows_of(experiment: Experiment) -> WindowConfig:
    """How an experiment cuts recordings into windows."""
    length = experiment.length
    return replace(ours().windows, length=length, stride=max(1, length // 3))


def relation_of(experiment: Experiment) -> RelationConfig:
    """How an experiment relates views."""
    whole = experiment.segment >= experiment.length
    return replace(ours().relation, segment=0 if whole else experiment.segment)


def batch_size(experiment: Experiment) -> int:
    """Windows of a step: whatever their length, a step has as many frames."""
    return max(1, round(ours().batch_size * ours().windows.length / experiment.length))


def pretraining(experiment: Experiment, mocap: Path, work: Path) -> tuple[Config, Path]:
    """The config of the run to start from, which all seeds and methods share, and its folder."""
    folder = shoot_for_pretraining(mocap, work)
    phase = replace(ours().schedule[0], name="pretraining", steps=1200, weights=dict(IN_3D))
    config = replace(
        ours(),
        data=DataConfig(train=[f"{escape(str(folder))}/*.npz"], target="pose3d"),
        windows=windows_of(experiment),
        batch_size=batch_size(experiment),
        schedule=[experiments.scaled(phase, experiment.steps_scale)],
    )
    return config, experiments.run_folder(config, "pretraining", work)


def fine_tuning(experiment: Experiment, folder: Path, start: Path | None) -> Config | None:
    """What an experiment trains on the films in a folder; None if nothing."""
    method = METHODS[experiment.method]
    if method is None:
        return None
    weights = dict(method.weights)
    if experiment.weight is not None:
        weights |= {name: experiment.weight for name in weights if name.startswith("consistency")}
    first, last = ours().schedule
    present = [name for name in TRAINED_ON if any((folder / "train").glob(name))]
    globs = {name: f"{escape(str(folder))}/train/{name}" for name in present}
    alone = method.labelled and method.target == "pose3d"
    phase = replace(last, name=experiment.method, steps=600, weights=weights)
    if experiment.start == "random":
        phase = replace(phase, learning_rate=first.learning_rate, steps=1200)
    return replace(
        ours(),
        seed=experiment.seed,
        data=DataConfig(
            train=[globs[method.labelled]] if alone else list(globs.values()),
            target=method.target,
            supervised=[globs[method.labelled]] if method.labelled and not alone else [],
        ),
        windows=windows_of(experiment),
        relation=relation_of(experiment),
        batch_size=batch_size(experiment),
        start_from=None if start is None else str(start),
        schedule=[experiments.scaled(phase, experiment.steps_scale)],
    )


# ----------------------------------------------------------------------------- rows


def run(experiment: Experiment, mocap: Path, work: Path, results: Path) -> dict[str, Any]:
    """Train and evaluate, and append the row; of poses that collapsed there are no figures."""
    commit = rows.commit()
    filmed = films.shoot(experiment.setting, mocap, work, SETTINGS)
    found: dict[str, Any] = dict.fromkeys(FIGURES)
    if experiment.method in REFERENCES:
        found |= reference(experiment, filmed)
    else:
        found |= _trained(experiment, filmed, mocap, work)
    row = asdict(experiment) | {name: found[name] for name in FIGURES}
    row |= {"commit": commit, "machine": rows.machine()}
    rows.append(results / FILE, row)
    return row


def _trained(experiment: Experiment, filmed: Path, mocap: Path, work: Path) -> dict[str, Any]:
    start, model = None, None
    if experiment.start == "pretrained":
        config, start = pretraining(experiment, mocap, work)
        model = experiments.trained(config, start)
    config = fine_tuning(experiment, altered(filmed, experiment, work), start)
    out, found = start, {}
    try:
        if config is not None:
            out = experiments.run_folder(config, experiment.setting, work)
            model = experiments.trained(config, out)
        assert model is not None  # either start is pretrained, or something is trained
        found = evaluated(model, experiment, filmed, mocap, work)
    except Collapsed as collapse:
        print(collapse)
    assert out is not None
    last = metrics_log.read(out)[-1:]
    return found | {name: float(r[name]) for r in last for name in ("spread", "depth", "movement")}


def reference(experiment: Experiment, filmed: Path) -> dict[str, Any]:
    """Metrics of what is not trained, scored as what is."""
    fps = windows_of(experiment).fps

    def predict(_: Path, recording: Recording) -> Prediction:
        truth = recording.pose3d
        assert truth is not None  # the films are simulated
        assert fps is not None  # sequence.yaml has one
        pose = np.broadcast_to(truth.mean(0), truth.shape)
        if experiment.method == "truth":
            known = np.arange(0, recording.n_frames, round(recording.fps / fps))
            line = interp1d(known, truth[known], axis=0, fill_value="extrapolate")
            pose = line(np.arange(recording.n_frames))
        pose = (pose - pose[..., [ROOT], :]).astype(np.float32)
        rotation = np.broadcast_to(np.eye(3, dtype=np.float32), (*pose.shape[:2], 3, 3))
        return Prediction(recording, pose, rotation, recording.keypoints)

    setting = SETTINGS[experiment.setting]
    config = config_of(table_1("s1+s2"), setting, filmed, experiment.seed, 1.0)
    test = (filmed / "test").glob("*.npz")
    return experiments.evaluate(experiments.untrained(config), test, predict)["metrics"]


def evaluated(
    model: Model, experiment: Experiment, filmed: Path, mocap: Path, work: Path
) -> dict[str, Any]:
    """On the test clips of the setting; of pairs of views on those of the whole studio."""
    if experiment.setting.startswith("pair") and experiment.setting != "pair":
        filmed = films.shoot("studio", mocap, work)
    results = experiments.evaluate(model, (filmed / "test").glob("*.npz"))
    return results["metrics"] | {"train_seconds": results["train_seconds"]}


def run_study(name: str, scale: float, jobs: int, mocap: Path, work: Path, results: Path) -> None:
    """Append every row of a study that is missing, `jobs` at a time on one thread each."""
    wanted = [one.longer(scale) for one in STUDIES[name].experiments()]
    known = {key(row) for row in rows.read(results / FILE)}
    todo = [one for one in dict.fromkeys(wanted) if key(asdict(one)) not in known]
    # Films, and the runs that others start from, are made once, before all of these need them.
    for setting in dict.fromkeys(one.setting for one in todo):
        films.shoot(setting, mocap, work, SETTINGS)
        if setting.startswith("pair"):
            films.shoot("studio", mocap, work)
    starts: Mapping[tuple[int, float], Experiment] = {
        (one.length, one.steps_scale): one
        for one in todo
        if one.method not in REFERENCES and one.start == "pretrained"
    }
    for one in starts.values():
        experiments.trained(*pretraining(one, mocap, work))
    for row in rows.measured(run, [(one, mocap, work, results) for one in todo], jobs):
        print(json.dumps(row), flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the rows of a study, or print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    every = commands.add_parser("run", help="append every row of a study that is missing")
    shown = commands.add_parser("show", help="print a study as Markdown")
    for command in (every, shown):
        command.add_argument("study", choices=tuple(STUDIES))
        command.add_argument(
            "--steps-scale", type=float, default=1.0, metavar="F", help="factor on all steps"
        )
        command.add_argument("--results", type=Path, default=rows.RESULTS, metavar="DIR")
    every.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time")
    every.add_argument("--data", type=Path, default=films.MOCAP, metavar="NPZ", help="motion")
    every.add_argument("--work", type=Path, default=rows.WORK, metavar="DIR")
    args = parser.parse_args(argv)
    start = time.monotonic()
    try:
        if args.command == "run":
            run_study(args.study, args.steps_scale, args.jobs, args.data, args.work, args.results)
            print(f"{args.study}: complete, after {time.monotonic() - start:.0f} s")
        else:
            print(show(args.study, args.results, args.steps_scale))
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"sequence: {error}")
    except (Interrupted, KeyboardInterrupt):
        print("sequence: stopped; the same command continues from there", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
