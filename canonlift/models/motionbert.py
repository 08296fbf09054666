"""Weights published for MotionBERT, read by name into our DSTformer."""

from pathlib import Path

import torch
from torch import Tensor

from canonlift.body.skeleton import H36M17
from canonlift.models.dstformer import DSTformer
from canonlift.models.network import Network

KEYS = ("model_pos", "model")  # under which a checkpoint holds its weights
PREFIXES = ("module.", "backbone.")  # what wrappers put before a name


def load(path: Path, network: Network, joints: tuple[str, ...]) -> None:
    """Fill a DSTformer with the weights in a file; nothing in it is unpickled.

    Weights for longer windows are cut: a window of T frames has the first T places in time.

    Raises:
        ValueError: naming the file and what does not fit.
    """
    backbone = getattr(network, "backbone", None)
    if not isinstance(backbone, DSTformer) or joints != H36M17:
        raise ValueError(
            f"start_from: {path} is a file, so it is read as weights of MotionBERT; these need "
            "model.name: dstformer and skeleton: h36m17"
        )
    backbone.load_state_dict(fitted(read(path), backbone.state_dict(), path))


def read(path: Path) -> dict[str, Tensor]:
    """Weights by the names that they have in a DSTformer by itself.

    Raises:
        ValueError: if the file holds no weights.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises its own, pickle's and zip's errors here
        raise ValueError(
            f"{path}: damaged, or not a file of weights that opens without unpickling"
        ) from error
    for key in KEYS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(w, Tensor) for w in state.values()):
        raise ValueError(f"{path}: holds no weights under {' or '.join(KEYS)}")
    return {_plain(name): weight for name, weight in state.items()}


def fitted(found: dict[str, Tensor], wanted: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The weights that a DSTformer wants, of those found.

    Raises:
        ValueError: naming weights that are missing, or whose shape is another.
    """
    if "temp_embed" in found and "temp_embed" in wanted:
        found = found | {"temp_embed": found["temp_embed"][:, : wanted["temp_embed"].shape[1]]}
    wrong = [
        f"{name} {tuple(found[name].shape) if name in found else 'missing'}, "
        f"need {tuple(weight.shape)}"
        for name, weight in wanted.items()
        if name not in found or found[name].shape != weight.shape
    ]
    if wrong:
        raise ValueError(
            f"{path}: {len(wrong)} of {len(wanted)} weights do not fit, such as {wrong[0]}; the "
            "published ones have windows.length: 243 and model: {name: dstformer, depth: 5, "
            "heads: 8, width: 512, head_width: 512}, and width: 256 in the light model"
        )
    return {name: found[name] for name in wanted}


def _plain(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name
