"""The table of models: a new network is a row here and a file beside this one."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import nn

from canonlift.models.config import ModelConfig
from canonlift.models.dstformer import DSTformer
from canonlift.models.layers import PRECISIONS
from canonlift.models.mlp import ROTATIONS, CanonicalLifter
from canonlift.models.network import Network
from canonlift.models.temporal import CameraLifter, Frame, Temporal
from canonlift.suggestions import unknown


class Model(NamedTuple):
    """One row of the table."""

    build: Callable[[ModelConfig, int, int, int], Network]  # config, window, joints, root
    reads: tuple[str, ...]  # settings of ModelConfig
    canonical: bool  # predicts poses in a canonical frame, and rotations from it to the cameras
    image_scale: bool  # x and y of its poses in camera axes are in the scale of the keypoints


def _mlp(config: ModelConfig, length: int, n_joints: int, root: int) -> Network:  # noqa: ARG001
    return CanonicalLifter(config, n_joints, root)


def _over_time(
    backbone: Callable[[ModelConfig, int, int], nn.Module],
) -> Callable[[ModelConfig, int, int, int], Network]:
    def build(config: ModelConfig, length: int, n_joints: int, root: int) -> Network:
        return CameraLifter(backbone(config, length, n_joints), root, config.precision)

    return build


OVER_TIME = ("width", "depth", "precision")

MODELS: Mapping[str, Model] = {
    "mlp": Model(_mlp, ("width", "rotation", "precision"), canonical=True, image_scale=False),
    "temporal": Model(_over_time(Temporal), ("heads", *OVER_TIME, "checkpointing"), False, True),
    "dstformer": Model(
        _over_time(DSTformer), ("heads", "head_width", *OVER_TIME, "checkpointing"), False, True
    ),
    "frame": Model(_over_time(Frame), OVER_TIME, False, True),
}


def check(config: ModelConfig) -> None:
    """Refuse a model that cannot be built, and settings that it would not read.

    Raises:
        ValueError: naming the key.
    """
    if config.name not in MODELS:
        raise unknown("model.name", config.name, MODELS)
    if config.rotation not in ROTATIONS:
        raise unknown("model.rotation", config.rotation, ROTATIONS)
    if config.precision not in PRECISIONS:
        raise unknown("model.precision", config.precision, PRECISIONS)
    reads = MODELS[config.name].reads
    for name, default in vars(ModelConfig()).items():
        if name not in ("name", *reads) and getattr(config, name) != default:
            raise ValueError(
                f"model.{name} is not a setting of model {config.name!r}, which reads "
                f"{', '.join(reads)}; leave it out"
            )
    if "heads" in reads and config.width % config.heads:
        raise ValueError(
            f"model.width must be a multiple of model.heads, got {config.width} and {config.heads}"
        )


def build(config: ModelConfig, length: int, n_joints: int, root: int) -> Network:
    """An untrained network that lifts windows of `length` frames."""
    return MODELS[config.name].build(config, length, n_joints, root)
