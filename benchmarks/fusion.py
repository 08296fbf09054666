"""How long fusion takes, and that `exact` misses no maximum.

Examples:
    python benchmarks/fusion.py --json fusion.json        # time; minutes on two cores
    python benchmarks/fusion.py proof --json proof.json   # every V, 100,000 joints each
    python benchmarks/fusion.py proof --views 4 --joints 10000
    python benchmarks/fusion.py profile                   # where the time of `exact` goes

Frames are a moving person of 16 joints seen by V cameras around him, at heights of their own;
detections and rotations err. Two sets: `all`, in which every joint of every view is repaired, and
`detector`, in which confidences are those of a real detector: three in ten are below the
threshold, some joints were not observed, and those that the paper never repairs stay. All
methods repair the same joints of a set.

The loop follows the published procedure, one joint and one line at a time, in numpy.

`profile` sets beside `exact` (CPU time of one thread) what a climb cannot do without: one power of
two for each ridge and Gaussian wherever a map is looked at, and, by torch's operations, one pass
over the numbers of each. What both cost is measured in tensors that fit the caches.
"""

import argparse
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout need not be installed

import train
from benchmarks import measure
from canonlift.body.skeleton import H36M17, ROOT
from canonlift.geometry import ridges
from canonlift.geometry.rotations import from_axis_angle, from_six
from canonlift.geometry.scale import norm
from canonlift.methods import fusion
from canonlift.methods.fusion import (
    METHODS,
    FusionConfig,
    Maps,
    exact_peaks,
    fuse,
    joint_maps,
    others,
    to_repair,
)
from canonlift.simulation.athlete import perform, sample_person
from canonlift.simulation.motions import MOTIONS
from canonlift.types import Lifted, Views

JOINTS = tuple(name for name in H36M17 if name != "spine")
KEPT = [H36M17.index(name) for name in JOINTS]
N_VIEWS = range(2, 9)
CELLS = 1024  # of the dense grid's side
TOLERANCE = 1e-6  # share of a height that float32 may get wrong
# Sides of the blocks of cells that are looked into one after another, the last a single point.
BLOCKS = (128, 32, 8, 2, 1)


class Sample(NamedTuple):
    """What is fused."""

    views: Views
    lifted: Lifted
    config: FusionConfig


# ---------------------------------------------------------------------------- frames


def frames(n_frames: int, n_views: int, seed: int, *, around: bool = True) -> tuple[Views, Lifted]:
    """A person, detections that err by about 4 cm and rotations that err by about 6 degrees.

    Args:
        n_frames: how many.
        n_views: cameras.
        seed: of everything.
        around: cameras stand upright around the person, as on a film set; their lines are then
            nearly parallel. If not, they look from anywhere, in any roll.
    """
    dice = np.random.default_rng(seed)
    torch_dice = torch.Generator().manual_seed(seed)
    world = perform(sample_person(dice), list(MOTIONS), n_frames, 30.0, dice)[:, KEPT]
    world = torch.from_numpy(world - world[:, [JOINTS.index(ROOT)]])
    if around:
        turn = (np.arange(n_views) + dice.uniform(-0.3, 0.3, (n_frames, n_views))) / n_views
        azimuth = torch.from_numpy(2 * np.pi * turn)
        up = torch.from_numpy(np.sin(dice.normal(0.15, 0.1, (n_frames, n_views))))
        depth = torch.stack([azimuth.cos(), azimuth.sin(), -up], -1)
        down = torch.tensor([0.0, 0.0, -1.0], dtype=world.dtype).expand_as(depth)
        # Depth first, then down made orthogonal to it: rows z, y; x is what they leave.
        basis = from_six(torch.cat([depth, down], -1))
        z, y = basis[..., 0], basis[..., 1]
        rotation = torch.stack([torch.linalg.cross(y, z), y, z], dim=-2)
    else:
        columns = torch.randn(n_frames, n_views, 6, generator=torch_dice, dtype=world.dtype)
        rotation = from_six(columns)
    pose = world[:, None].expand(-1, n_views, -1, -1)
    image = Lifted(pose, rotation).in_camera[..., :2]

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=torch_dice, dtype=world.dtype)

    turned = from_axis_angle(0.06 * noise(n_frames, n_views, 3)) @ rotation
    lifted = Lifted(pose + 0.06 * noise(*pose.shape), turned)
    keypoints = image + 0.03 * noise(*image.shape)
    uniform = torch.rand(image.shape[:-1], generator=torch_dice, dtype=world.dtype)
    confidence = (1 - 0.9 * uniform**5).clamp(0.05, 1.0)  # as in simulation/detector.py
    lost = torch.rand(confidence.shape, generator=torch_dice) < 0.02
    lost[:, :, JOINTS.index(ROOT)] = False
    keypoints = torch.where(lost[..., None], 0.0, keypoints)
    views = Views(keypoints, confidence.masked_fill(lost, 0.0), torch.full((n_frames,), -1))
    single = Lifted(lifted.pose.float(), lifted.rotation.float())
    return views.to(torch.float32), single


def sets(n_frames: int, n_views: int) -> Mapping[str, Sample]:
    """Both sets of frames; see the top of this file."""
    views, lifted = frames(n_frames, n_views, seed=n_views)
    seen = replace(views, confidence=views.confidence.clamp_min(0.05))
    return {
        "all": Sample(seen, lifted, FusionConfig(threshold=1.01, never=())),
        "detector": Sample(views, lifted, FusionConfig()),
    }


# ---------------------------------------------------------------------------- time


def loop(sample: Sample, where: Int[Tensor, "K 3"]) -> Float[np.ndarray, "K 2"]:
    """Eq. 2 and its highest cell, in units of the view's norm, by plain loops."""
    views, lifted, config = sample
    keypoints = (views.keypoints / norm(views.keypoints, views.observed)).double().numpy()
    confidence = views.confidence.double().numpy()
    rotation = lifted.rotation.double().numpy()
    n = config.resolution
    centres = ((np.arange(n) + 0.5) / n * 2 - 1) * config.extent
    x, y = np.meshgrid(centres, centres, indexing="ij")
    found = []
    for i, m, j in where.tolist():
        px, py = keypoints[i, m, j]
        away = (x - px) ** 2 + (y - py) ** 2
        heat = confidence[i, m, j] * np.exp(-away / (2 * config.joint_sigma**2))
        for k in range(keypoints.shape[1]):
            if k == m or confidence[i, k, j] == 0:
                continue
            turn = rotation[i, m] @ rotation[i, k].T
            start = turn @ np.append(keypoints[i, k, j], 0.0)  # the ray, seen from view m
            along = turn @ np.array([0.0, 0.0, 1.0])
            length = np.hypot(along[0], along[1])
            across = ((x - start[0]) * along[1] - (y - start[1]) * along[0]) / length
            heat += confidence[i, k, j] * np.exp(-(across**2) / (2 * config.line_sigma**2))
        row, column = np.unravel_index(heat.argmax(), heat.shape)
        found.append((centres[row], centres[column]))
    return np.array(found)


def seconds(
    run: Callable[[], Any], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Median of `repeats`, after one that does not count."""
    taken = []
    for _ in range(repeats + 1):
        start = clock()
        run()
        taken.append(clock() - start)
    return statistics.median(taken[1:])


def forward(sample: Sample, method: str) -> Callable[[], Any]:
    """Fuse by one method, as at test time."""
    config = replace(sample.config, method=method)

    def run() -> None:
        with torch.no_grad():
            fuse(sample.views, sample.lifted, config, JOINTS)

    return run


def both_ways(sample: Sample, method: str) -> Callable[[], Any]:
    """Fuse, and carry a gradient back to the rotations."""
    config = replace(sample.config, method=method)
    rotation = sample.lifted.rotation.clone().requires_grad_()

    def run() -> None:
        found = fuse(sample.views, Lifted(sample.lifted.pose, rotation), config, JOINTS)
        found.keypoints.sum().backward()

    return run


def timing(n_frames: int, n_loop: int, repeats: int) -> dict[str, Any]:
    """All figures; the headlines are those of `all`, forward, 4 views."""
    results: dict[str, Any] = {
        "machine": measure.machine("cpu"),
        "frames": n_frames,
        "repeats": repeats,
    }
    for name in ("all", "detector"):
        sample = sets(n_frames, 4)[name]
        where = to_repair(sample.views, sample.lifted, sample.config, JOINTS)
        few = where[where[:, 0] < n_loop]
        ms = {"loop": 1e3 * seconds(lambda s=sample, w=few: loop(s, w), 3) / n_loop}
        for method in METHODS:
            times = 3 if method == "grid" else repeats
            ms[method] = 1e3 * seconds(forward(sample, method), times) / n_frames
            key = f"{method}, forward and backward"
            ms[key] = 1e3 * seconds(both_ways(sample, method), times) / n_frames
        results[name] = {
            "repaired_per_frame": len(where) / n_frames,
            "ms_per_frame_by_method": ms,
            "speedup_over_loop": {m: ms["loop"] / ms[m] for m in METHODS},
            "speedup_over_grid": {m: ms["grid"] / ms[m] for m in METHODS},
        }
    for key in ("speedup_over_loop", "speedup_over_grid"):
        results[key] = results["all"][key]["exact"]
    for name in ("all", "detector"):
        for method in ("exact", "triangulate"):
            results[name][f"ms_per_frame_{method}"] = {
                n_views: 1e3
                * seconds(forward(sets(n_frames, n_views)[name], method), repeats)
                / n_frames
                for n_views in N_VIEWS
            }
    results["ms_per_frame"] = results["all"]["ms_per_frame_exact"]
    return results


def spoken(machine: Mapping[str, Any]) -> str:
    """Processor, threads and library."""
    return f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}"


def show_timing(results: Mapping[str, Any]) -> None:
    """Print what `timing` found."""
    print(
        f"{spoken(results['machine'])}; {results['frames']} frames at a time, 16 joints, float32"
    )
    for name in ("all", "detector"):
        part = results[name]
        print(f"\n{name}: {part['repaired_per_frame']:.1f} repaired joints per frame of 4 views")
        print(f"{'':32}{'ms/frame':>10}{'x loop':>10}{'x grid':>10}")
        ms = part["ms_per_frame_by_method"]
        for method, value in ms.items():
            ratios = f"{ms['loop'] / value:10.0f}"
            if "backward" not in method and method != "loop":
                ratios += f"{ms['grid'] / value:10.1f}"
            print(f"{method:32}{value:10.4f}{ratios}")
        for method in ("exact", "triangulate"):
            row = part[f"ms_per_frame_{method}"]
            print(f"ms/frame of {method}: " + ", ".join(f"V={v}: {t:.3f}" for v, t in row.items()))


# ---------------------------------------------------------------------------- profile


def profile(n_frames: int, repeats: int, n_views: int = 4) -> dict[str, Any]:
    """Where the time of `exact` goes, in nanoseconds a joint, and what it could not fall below."""
    sample = sets(n_frames, n_views)["all"]
    run = forward(sample, "exact")
    n_joints = len(to_repair(sample.views, sample.lifted, sample.config, JOINTS))
    with clocked(ridges, ("_candidates", "_best", "_climb")) as parts:
        exact = 1e9 * seconds(run, repeats, time.process_time) / n_joints
    with torch.profiler.profile() as recorded:
        run()
    with Passes() as passes:
        run()
    operations = sorted(recorded.key_averages(), key=lambda op: -op.self_cpu_time_total)

    spare, *numbers = torch.rand(4, ridges.BLOCK)

    def cost(operation: Callable[..., Any], *given: Tensor) -> float:
        taken = seconds(lambda: operation(*given, out=spare), 20 * repeats, time.process_time)
        return 1e9 * taken / ridges.BLOCK

    powers, touched = evaluated(n_views - 1), passes.numbers / n_joints
    power, one_pass = cost(torch.exp2, numbers[0]), cost(torch.addcmul, *numbers)
    return {
        "joints": n_joints,
        "ns_per_joint": exact,
        "ns_per_joint_of_parts": {
            name: 1e9 * taken / (repeats + 1) / n_joints for name, taken in parts.items()
        },
        "ns_per_joint_of_operations": {
            op.key: (1e3 * op.self_cpu_time_total / n_joints, op.count) for op in operations
        },
        "powers_per_joint": powers,
        "ns_per_power": power,
        "numbers_per_joint": touched,
        "ns_per_number": one_pass,
    }


def evaluated(n_ridges: int) -> int:
    """Powers of two that one map takes: one per ridge and one for the Gaussian, at every place."""
    places = ridges.n_candidates(n_ridges)
    n_places = 0
    for stage in ridges.SCHEDULE:
        keep = ridges.n_climbers(stage, n_ridges)
        n_places += (places if keep < places else 0) + keep * stage.steps
        places = keep
    return (n_places + places) * (n_ridges + 1)


@contextmanager
def clocked(module: ModuleType, names: Sequence[str]) -> Iterator[Counter[str]]:
    """CPU seconds spent in functions of a module that do not call each other."""
    taken: Counter[str] = Counter()

    def clock(name: str, function: Callable) -> Callable:
        def run(*args: Any) -> Any:
            start = time.process_time()
            found = function(*args)
            taken[name] += time.process_time() - start
            return found

        return run

    with mock.patch.multiple(module, **{n: clock(n, getattr(module, n)) for n in names}):
        yield taken


class Passes(TorchDispatchMode):
    """Counts the numbers that operations go through: of each, those of its largest tensor."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204, ARG002
        found = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [t for t in tree_leaves((args, kwargs, found)) if isinstance(t, Tensor)]
            self.numbers += max((t.numel() for t in tensors), default=0)
        return found


def show_profile(found: Mapping[str, Any], rows: int = 10) -> None:
    """Print what `profile` found."""
    whole = found["ns_per_joint"]
    print(f"{spoken(found['machine'])}; {found['joints']} joints at once\n")
    print(f"{'':24}{'ns/joint':>10}{'share':>8}{'calls':>8}")
    print(f"{'exact':24}{whole:10.0f}")
    for name, ns in found["ns_per_joint_of_parts"].items():
        print(f"{name:24}{ns:10.0f}{ns / whole:8.0%}")
    print("\nby the profiler, which costs time of its own:")
    for name, (ns, calls) in list(found["ns_per_joint_of_operations"].items())[:rows]:
        print(f"{name:24}{ns:10.0f}{'':8}{calls:8}")
    print("\nat least, for a joint:")
    for what, n, ns in (
        ("powers of two", found["powers_per_joint"], found["ns_per_power"]),
        ("numbers passed through", found["numbers_per_joint"], found["ns_per_number"]),
    ):
        print(
            f"{n:.0f} {what} of {ns:.2f} ns: {n * ns:.0f} ns; exact takes {whole / (n * ns):.1f} x"
        )


# ---------------------------------------------------------------------------- proof


def dense_maximum(
    maps: Maps, config: FusionConfig, guess: Float[Tensor, "K 2"], cells: int = CELLS
) -> Float[Tensor, " K"]:
    """Height of the highest of (cells + 1)^2 grid points over the closed extent, rigorously.

    Branch and bound: in a block of points no ridge is higher than where it comes nearest to the
    block. A block whose bound is not above the best point known so far is left out, which cannot
    change the maximum. The first point known is the one next to `guess`, be it good or bad.
    """
    step = 2 * config.extent / cells
    nearest = (guess.double() + config.extent).div(step).round().clamp(0, cells)
    best = maps.at((nearest * step - config.extent)[:, None], config)[:, 0]
    n_maps = len(best)
    side = torch.arange(0, cells + 1, BLOCKS[0])
    corner = torch.cartesian_prod(side, side).repeat(n_maps, 1)
    index = torch.arange(n_maps).repeat_interleave(len(side) ** 2)
    for size, smaller in zip(BLOCKS, (*BLOCKS[1:], None), strict=True):
        low = corner.double() * step - config.extent
        high = (corner + size - 1).clamp_max(cells).double() * step - config.extent
        bound = _bound(maps, index, low, high, config)
        if smaller is None:  # a block of one point: the bound is the height
            return best.scatter_reduce(0, index, bound, "amax")
        open_blocks = bound > best[index]
        index, corner = index[open_blocks], corner[open_blocks]
        within = torch.arange(0, size, smaller)
        corner = (corner[:, None] + torch.cartesian_prod(within, within)).flatten(0, 1)
        index = index.repeat_interleave(len(within) ** 2)
        inside = (corner <= cells).all(-1)
        index, corner = index[inside], corner[inside]
    raise AssertionError("the last block is a point")


def _bound(
    maps: Maps,
    index: Int[Tensor, " P"],
    low: Float[Tensor, "P 2"],
    high: Float[Tensor, "P 2"],
    config: FusionConfig,
) -> Float[Tensor, " P"]:
    """No point of map `index` between two corners is higher than this."""
    middle, half = (low + high) / 2, (high - low) / 2
    nx, ny = maps.normal.unbind(-1)
    nx, ny = nx[index], ny[index]
    across = nx * middle[:, :1] + ny * middle[:, 1:] - maps.offset[index]
    reach = nx.abs() * half[:, :1] + ny.abs() * half[:, 1:]
    near = (across.abs() - reach).clamp_min(0)
    lines = maps.line_height[index] * (-near.square() / (2 * config.line_sigma**2)).exp()
    gap = ((maps.joint[index] - middle).abs() - half).clamp_min(0).square().sum(-1)
    own = maps.joint_height[index] * (-gap / (2 * config.joint_sigma**2)).exp()
    return lines.sum(-1) + own


def random_maps(n_maps: int, n_views: int, seed: int, *, around: bool) -> Maps:
    """Maps of the joints of random frames, whatever their confidence."""
    n_frames = n_maps // (n_views * len(JOINTS)) * 9 // 8 + 2  # some joints are not to be seen
    views, lifted = frames(n_frames, n_views, seed, around=around)
    config = FusionConfig(threshold=1.01, never=())
    where = to_repair(views, lifted, config, JOINTS)
    return joint_maps(views, lifted, where, config, others(where, n_views))[:n_maps]


def prove(n_joints: int, n_views: int, seed: int = 0) -> dict[str, Any]:
    """Compare `exact` in float32 with the dense grid; heights are compared in float64."""
    config = FusionConfig()
    shortfall, border = [], 0
    for around in (True, False):
        maps = random_maps(n_joints // 2, n_views, seed=10 * seed + n_views, around=around)
        for index in torch.arange(len(maps.joint)).split(1000):
            one = maps[index]
            peak = exact_peaks(one, config)
            one = Maps(*(part.double() for part in tuple(one)))
            height = one.at(peak.double()[:, None], config)[:, 0]
            shortfall.append(1 - height / dense_maximum(one, config, peak))
            inside = peak.abs().amax(-1) < (1 - fusion.BORDER) * config.extent
            border += int((~inside).sum())
    worst = torch.cat(shortfall)
    return {
        "joints": len(worst),
        "on_border": border,
        "tolerance": TOLERANCE,
        "lower": int((worst > TOLERANCE).sum()),
        "worst_shortfall": worst.max().item(),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=("time", "proof", "profile"), default="time")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    parser.add_argument("--frames", type=int, default=256, help="fused at a time")
    parser.add_argument("--loop-frames", type=int, default=2, help="given to the slow loop")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--joints", type=int, default=100_000, help="compared for each V")
    parser.add_argument("--seed", type=int, default=0, help="of the compared joints")
    parser.add_argument("--views", type=int, nargs="+", default=list(N_VIEWS))
    args = parser.parse_args(argv)
    if args.what == "time":
        train.keep_memory()  # as train.py does
        results = timing(args.frames, args.loop_frames, args.repeats)
        show_timing(results)
    elif args.what == "profile":
        train.keep_memory()
        torch.set_num_threads(1)
        results = {"machine": measure.machine("cpu")} | profile(args.frames, args.repeats)
        show_profile(results)
    else:
        results = {"machine": measure.machine("cpu"), "cells": CELLS, "views": {}}
        print(f"`exact` in float32 against the highest of {CELLS + 1}^2 grid points")
        print(
            f"{'V':>3}{'joints':>10}{'on border':>11}{'lower':>8}{'worst shortfall':>18}{'s':>7}"
        )
        for n_views in args.views:
            start = time.perf_counter()
            row = prove(args.joints, n_views, args.seed)
            results["views"][n_views] = row
            taken = time.perf_counter() - start
            print(
                f"{n_views:3}{row['joints']:10,}{row['on_border']:11,}{row['lower']:8,}"
                f"{row['worst_shortfall']:18.1e}{taken:7.0f}",
                flush=True,
            )
    measure.write(args.json, results)


if __name__ == "__main__":
    main()
