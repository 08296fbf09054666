"""Seconds and memory of a step of training over 243 frames, and views lifted per second.

python -m benchmarks.sequence_speed --json runs/sequence_speed.json
python -m benchmarks.sequence_speed --device cuda
"""

import json
import resource
from collections.abc import Mapping, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from typing import Any

import torch

from benchmarks import measure
from canonlift.data.windows import WindowConfig
from canonlift.methods.objective import Objective
from canonlift.methods.relations import RelationConfig
from canonlift.models.config import ModelConfig
from canonlift.training import checkpoint
from canonlift.training.config import Config, DataConfig
from canonlift.training.schedule import PhaseConfig
from canonlift.types import Views

LENGTH, SEGMENT = 243, 81  # frames
SIZES: Mapping[str, ModelConfig] = {
    "temporal": ModelConfig("temporal", width=128, depth=2, heads=4),
    "dstformer, small": ModelConfig("dstformer", width=64, depth=2, heads=4),
    "dstformer, paper": ModelConfig("dstformer", width=512, depth=5, heads=8),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every network with 2, 4 and 6 views."""
    parser = measure.parser(__doc__, rounds=3)
    parser.add_argument("--batch", type=int, default=1, help="windows at a time")
    parser.add_argument("--models", nargs="+", default=list(SIZES), choices=tuple(SIZES))
    args = parser.parse_args(argv)
    measure.write(args.json, speed(args.device, args.rounds, args.models, args.batch))


def speed(device: str, rounds: int, names: Sequence[str], batch: int) -> dict[str, Any]:
    """Figures of networks by name, each with 2, 4 and 6 views."""
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
    model: ModelConfig, n_views: int, batch: int, device: str, rounds: int
) -> dict[str, float]:
    """Seconds of a step, memory of this process and rate of one network."""
    measure.keep_memory()
    phase = PhaseConfig("speed", {"own_view": 1.0, "consistency": 0.3}, 1)
    config = Config(
        [phase],
        DataConfig(train=["none.npz"]),
        windows=WindowConfig(length=LENGTH),
        model=model,
        relation=RelationConfig("procrustes", SEGMENT),
    )
    network = checkpoint.new_network(config).to(device)
    objective = Objective(network, config.method, phase.weights, config.measures)
    shape = (batch, n_views, LENGTH, len(config.joints))
    views = Views(torch.randn(*shape, 2), torch.rand(shape), torch.full((batch,), -1)).to(device)

    def step() -> None:
        network.zero_grad()
        objective(views)[0].backward()

    seconds = measure.in_turns({"step": step}, rounds, device)["step"]
    if device == "cpu":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    else:
        peak = torch.cuda.max_memory_allocated(device)
    with torch.inference_mode():
        forward = measure.in_turns({"lift": lambda: network(views)}, rounds, device)
    return {
        "step_s": seconds,
        "frames_per_second": batch * n_views * LENGTH / forward["lift"],
        "peak_gb": peak / 1e9,
    }


if __name__ == "__main__":
    main()
