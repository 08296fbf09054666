"""How time and memory of a step grow with views, joints and frames.

    python -m benchmarks.growth --json runs/growth.json
    OMP_NUM_THREADS=1 python -m benchmarks.growth --cpu-time        # on a busy machine

The step has every term of single frames that can be computed; its network is 32 wide, so that
what lies between the layers shows. Memory is the most that a step holds at once, beyond what it
began with, as torch's own allocator counts it. One size grows, the others stay at 4 views, 17
joints and 64 frames. An exponent is the slope of log(figure) over log(size), of a line through all
sizes and, since constant parts flatten that, between the two largest sizes. Every pair of views
has to agree in every joint, so views may cost their square, joints and frames only their number.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from benchmarks import measure
from canonlift.geometry.rotations import from_axis_angle
from canonlift.methods.fusion import METHODS, FusionConfig
from canonlift.methods.objective import Objective
from canonlift.methods.passes import Method
from canonlift.methods.relations import RelationConfig
from canonlift.models.config import ModelConfig
from canonlift.models.mlp import CanonicalLifter
from canonlift.types import Target, Views

SIZES: Mapping[str, tuple[int, ...]] = {
    "views": (2, 3, 4, 6, 8),
    "joints": (16, 33, 67, 133),
    "frames": (64, 256, 1024),
}
BASE = {"views": 4, "joints": 17, "frames": 64}
ALLOWED = {"views": 2, "joints": 1, "frames": 1}
# The terms of single frames: of the lifted poses alone, and of repaired detections too.
LIFTED = ("reprojection", "target_pose", "camera_consistency")
REPAIRED = ("refinement", "repaired_reprojection", "consensus", "consistency_3d")


def main() -> None:
    """Print seconds and bytes over every size, and their exponents."""
    parser = measure.parser(__doc__)
    parser.add_argument("--methods", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    args = parser.parse_args()
    figures: dict[str, Any] = {"machine": measure.machine(args.device)}
    figures["growth"] = {}
    for size in args.sizes:
        print(f"\n| {size} | " + " | ".join(map(str, SIZES[size])) + " | exponent | last |")
        print("|---" * (len(SIZES[size]) + 3) + "|")
        for method in args.methods:
            steps = {n: make_step(method, args.device, **BASE | {size: n}) for n in SIZES[size]}
            seconds = measure.in_turns(steps, args.rounds, args.device, args.cpu_time)
            peaks = {n: peak_bytes(step, args.device) for n, step in steps.items()}
            for name, unit, values in (("time", "ms", seconds), ("memory", "MB", peaks)):
                whole, last = exponents(values)
                factor = 1e3 if unit == "ms" else 1e-6
                cells = " | ".join(f"{factor * value:.1f}" for value in values.values())
                mark = " (!)" if last > ALLOWED[size] + 0.1 else ""
                print(
                    f"| {method}, {name} ({unit}) | {cells} | {whole:.2f} | {last:.2f}{mark} |",
                    flush=True,
                )
                row = figures["growth"].setdefault(size, {}).setdefault(method, {})
                row[name] = {"values": values, "exponent": whole, "last_exponent": last}
    measure.write(args.json, figures)


ROWS = ("baseline", *METHODS)


def make_step(
    method: str, device: str, views: int, joints: int, frames: int
) -> Callable[[], None]:
    """Forward and backward of everything: of the lifts alone, or with repair by one method."""
    generator = torch.Generator().manual_seed(0)
    pose = torch.randn(frames, 1, joints, 3, generator=generator)
    rotation = from_axis_angle(torch.randn(frames, views, 3, generator=generator))
    in_camera = torch.einsum("bvrc,bujc->bvjr", rotation, pose - pose[:, :, :1])
    confidence = torch.rand(frames, views, joints, generator=generator)
    target = Target(in_camera, torch.ones_like(confidence))
    noise = 0.05 * torch.randn(frames, views, joints, 2, generator=generator)
    seen = Views(in_camera[..., :2] + noise, confidence, torch.arange(frames) % 3, target)
    windows = seen.as_windows.to(device)
    network = CanonicalLifter(ModelConfig(width=32), joints, 0).to(device)
    terms = LIFTED if method == "baseline" else LIFTED + REPAIRED
    fusion = FusionConfig(method="grid" if method == "baseline" else method)
    repair = Method(tuple(f"joint {i}" for i in range(joints)), RelationConfig(), fusion)
    objective = Objective(network, repair, dict.fromkeys(terms, 1.0))

    def step() -> None:
        network.zero_grad(set_to_none=True)
        loss, _ = objective(windows)
        loss.backward()

    return step


def peak_bytes(step: Callable[[], None], device: str) -> int:
    """The most that is allocated at once during a step, beyond what was before."""
    step()
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(profile_memory=True) as recorded:
        step()
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def exponents(values: Mapping[int, float]) -> tuple[float, float]:
    """Slope in double logarithms, of the line through all values and between the last two."""
    x, y = [math.log(n) for n in values], [math.log(value) for value in values.values()]
    return slope(x, y), slope(x[-2:], y[-2:])


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Slope of the least squares line."""
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    cross = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return cross / sum((a - mean_x) ** 2 for a in x)


if __name__ == "__main__":
    main()
