"""What a run leaves on disk, and how it comes back: never half written, never unpickled."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from canonlift import files
from canonlift.body.skeleton import ROOT
from canonlift.methods.stages import Repair
from canonlift.models.mlp import Lifter
from canonlift.models.temporal import SequenceLifter
from canonlift.training import config as configs

FILE = "checkpoint.pt"

Network = Lifter | SequenceLifter


@dataclass(frozen=True, eq=False)
class Model:
    """A trained lifter with all it needs to be used."""

    config: configs.Config
    lifter: Network
    mean_pose: Float[
        Tensor, "J 3"
    ]  # of the lifted training poses, in their mean heading, unit norm
    mirror: Mapping[str, Any]  # what was decided after training, and how surely
    train_seconds: float

    @property
    def joints(self) -> tuple[str, ...]:
        """Names of the joints."""
        return self.config.joints

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.mean_pose.device

    @property
    def repair(self) -> Repair:
        """How it repairs detections."""
        return repair(self.config)


def new_lifter(config: configs.Config) -> Network:
    """An untrained lifter for this config."""
    size = len(config.joints), config.joints.index(ROOT)
    if config.is_sequence:
        return SequenceLifter(config.sequence, *size)
    return Lifter(config.lifter, *size)


def repair(config: configs.Config) -> Repair:
    """How a lifter of this config repairs detections."""
    return Repair(config.fusion, config.joints, config.sequence.segment)


def save(run: Path, state: Mapping[str, Any]) -> None:
    """Write the run's checkpoint."""
    files.write(run / FILE, lambda file: torch.save(dict(state), file))


def load(run: Path) -> dict[str, Any]:
    """Read the run's checkpoint onto the CPU.

    Raises:
        FileNotFoundError: if the run has none.
        ValueError: if the file is damaged or is not a checkpoint of this program.
    """
    path = run / FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no checkpoint; is {run} a folder that train.py wrote?")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises its own, pickle's and zip's errors here
        raise ValueError(f"{path}: not a readable checkpoint ({error})") from error
    if not isinstance(state, dict) or not {"config", "lifter"} <= state.keys():
        raise ValueError(f"{path}: not a checkpoint of canonlift")
    return state


def load_model(run: Path, device: str = "auto") -> Model:
    """Read a finished run.

    Raises:
        ValueError: if the run has not finished.
    """
    state = load(run)
    if "mean_pose" not in state:
        raise ValueError(
            f"{run}: training has not finished; continue it with "
            f"`python train.py {run / 'config.yaml'} --out {run} --resume`"
        )
    config = configs.from_yaml(state["config"])
    lifter = new_lifter(config)
    lifter.load_state_dict(state["lifter"])
    place = pick_device(device)
    return Model(
        config,
        lifter.to(place).eval(),
        state["mean_pose"].to(place),
        state["mirror"],
        state["seconds"],
    )


def pick_device(name: str) -> torch.device:
    """The device that a config names; "auto" is CUDA where there is one.

    Raises:
        ValueError: if this machine cannot compute there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # torch raises either
        raise ValueError(f"device {name!r} does not work here; use auto or cpu") from error
    return torch.device(name)
