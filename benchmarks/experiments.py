"""What every benchmark of accuracy does: train a config once, evaluate a model on recordings."""

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import rows
from canonlift.data.frames import read_one
from canonlift.data.prediction import Prediction
from canonlift.data.recording import Recording
from canonlift.evaluation.pooled_errors import PooledErrors
from canonlift.evaluation.protocol import Timing, time_lifting
from canonlift.inference import model as models
from canonlift.inference.model import Model
from canonlift.inference.predict import predict
from canonlift.training import checkpoint
from canonlift.training import config as configs
from canonlift.training.config import Config
from canonlift.training.schedule import ConvergenceConfig, PhaseConfig
from canonlift.training.train import train

Predictor = Callable[[Path, Recording], Prediction]


def trained(config: Config, out: Path) -> Model:
    """The model of the run in a folder, which is trained, or continued, unless it is finished."""
    try:
        return models.load(out, config.device)
    except (FileNotFoundError, ValueError):  # not begun, not finished
        train(config, out, resume=True)
    return models.load(out, config.device)


def untrained(config: Config) -> Model:
    """A model that was not trained, for what is scored without one."""
    network = checkpoint.new_network(config).eval()
    return Model(config, network, torch.zeros(len(config.joints), 3), {}, 0.0)


def run_folder(config: Config, film: str, work: Path) -> Path:
    """Where a run is: named after all that it is made of."""
    made_of = rows.digest(configs.to_yaml(config), *sorted(rows.PACKAGE.rglob("*.py")))
    name = [film, config.schedule[0].name, config.model.name, made_of]
    return work / "runs" / "-".join(name)


def scaled(phase: PhaseConfig, factor: float) -> PhaseConfig:
    """The phase made longer or shorter; never ended early, so that all methods train equally."""
    return replace(
        phase,
        steps=max(1, round(factor * phase.steps)),
        warmup=round(factor * phase.warmup),
        decay_at=[round(factor * step) for step in phase.decay_at],
        convergence=ConvergenceConfig(patience=sys.maxsize),
    )


def weighted(config: Config, weights: Mapping[str, float]) -> Config:
    """The config with other weights for terms, in the phases that have them; 0: without."""
    schedule = [
        replace(phase, weights={t: weights.get(t, weight) for t, weight in phase.weights.items()})
        for phase in config.schedule
    ]
    return replace(config, schedule=schedule)


def evaluate(
    model: Model, paths: Iterable[Path], predictor: Predictor | None = None
) -> dict[str, Any]:
    """Results on recordings, one view at a time; without a predictor, the model's, and timed."""
    pooled, timings = PooledErrors(model), [Timing(0, 0.0)]
    for path in sorted(paths):
        recording = read_one(path, model.joints)
        if predictor:
            pooled.add(path.stem, predictor(path, recording))
        else:
            pooled.add(path.stem, predict(model.network, model.config, recording))
            timings.append(time_lifting(model, recording, warm_up=len(timings) == 1))
    results = pooled.results() | {"train_seconds": model.train_seconds}
    lifted, seconds = (sum(column) for column in zip(*timings, strict=True))
    return results | {"frames_per_second": lifted / seconds if seconds else None}
