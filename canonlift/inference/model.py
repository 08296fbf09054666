"""A trained network with all it needs to be used."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from canonlift.data.prediction import Prediction
from canonlift.data.recording import Recording
from canonlift.inference.predict import predict
from canonlift.methods.passes import Method
from canonlift.models.network import Network
from canonlift.solver.solve import solve
from canonlift.training import checkpoint
from canonlift.training.config import Config, from_yaml


@dataclass(frozen=True, eq=False)
class Model:
    """A trained network, its config, and what was found out about it."""

    config: Config
    network: Network
    mean_pose: Float[Tensor, "J 3"]  # of lifted training poses, in their mean heading, unit norm
    mirror: Mapping[str, Any]  # the vote on the mirrored world after training
    train_seconds: float

    def __repr__(self) -> str:
        return f"Model({self.config.model.name}, {self.config.skeleton}, on {self.device})"

    @property
    def joints(self) -> tuple[str, ...]:
        """Names of the joints."""
        return self.config.joints

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.mean_pose.device

    @property
    def method(self) -> Method:
        """How views are related to each other and detections repaired."""
        return self.config.method

    def lift(self, recording: Recording) -> Prediction:
        """Poses of a recording, view by view; and of all views together, which are solved.

        The joints of the recording may be in any order: they are converted by name. Where there
        are several views, `fused` and `keypoints_refined` are those of `canonlift.solve`, which
        needs no network; `inference.predict` repairs joints as the config's fusion does.

        Raises:
            ValueError: if the model's joints cannot be made of those recorded.
        """
        lifted = predict(self.network, self.config, recording)
        if len(lifted.views) < 2:
            return lifted
        together = solve(lifted.recording, device=self.device).prediction
        return replace(lifted, keypoints_refined=together.keypoints_refined, fused=together.fused)


def load(run: str | Path, device: str = "auto") -> Model:
    """Read a finished run.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the run has not finished, or cannot be read.
    """
    run = Path(run)
    state = checkpoint.load_finished(run)
    config = from_yaml(state["config"])
    network = checkpoint.new_network(config)
    network.load_state_dict(state["lifter"])
    place = checkpoint.pick_device(device)
    return Model(
        config,
        network.to(place).eval(),
        state["mean_pose"].to(place),
        state["notes"].get("mirror", {}),
        state["seconds"],
    )
