"""What a run leaves on disk, and how it comes back: never half written, never unpickled."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from canonlift import files
from canonlift.body.skeleton import ROOT
from canonlift.models import table
from canonlift.models.network import Network
from canonlift.training.config import Config

FILE = "checkpoint.pt"
FORMAT = 2  # 1, which had no such entry: canonlift 0.1


def new_network(config: Config) -> Network:
    """An untrained network for this config."""
    n_joints, root = len(config.joints), config.joints.index(ROOT)
    return table.build(config.model, config.windows.length, n_joints, root)


def save(run: Path, state: Mapping[str, Any]) -> None:
    """Write the run's checkpoint."""
    files.write(run / FILE, lambda file: torch.save({"format": FORMAT, **state}, file))


def load(run: Path) -> dict[str, Any]:
    """Read the run's checkpoint onto the CPU.

    Raises:
        FileNotFoundError: if the run has none.
        ValueError: if the file is damaged, of another version, or no checkpoint of this program.
    """
    path = run / FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no checkpoint; is {run} the folder of a run?")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises its own, pickle's and zip's errors here
        # Some of these errors advise to unpickle the file.
        raise ValueError(
            f"{path}: damaged, or not a checkpoint; train again with `canonlift train`"
        ) from error
    if not isinstance(state, dict) or not {"config", "lifter"} <= state.keys():
        raise ValueError(f"{path}: not a checkpoint of canonlift")
    if state.get("format") != FORMAT:
        raise ValueError(
            f"{path}: written by another version of canonlift (format "
            f"{state.get('format', 1)}, need {FORMAT}), whose configs differ; train it again with "
            "`canonlift train`, or use the version that wrote it (0.1 for format 1)"
        )
    return state


def load_finished(run: Path) -> dict[str, Any]:
    """Read the checkpoint of a run that has ended.

    Raises:
        ValueError: if the run has not finished.
    """
    state = load(run)
    if "mean_pose" not in state:
        raise ValueError(
            f"{run}: training has not finished; continue it with "
            f"`canonlift train {run / 'config.yaml'} --out {run} --resume`"
        )
    return state


def pick_device(name: str) -> torch.device:
    """The device that a config names; "auto" is CUDA where there is one.

    Raises:
        ValueError: if this machine cannot compute there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type != "cuda":
            torch.empty(0, device=device)
        elif (device.index or 0) >= torch.cuda.device_count():  # to try would take memory there
            raise RuntimeError(f"there are {torch.cuda.device_count()} GPUs")
    except (RuntimeError, AssertionError) as error:  # torch raises either
        raise ValueError(f"device {name!r} does not work here; use auto or cpu") from error
    return device
