"""How long the repair of 2D joints takes, by every method.

Examples:
    python -m benchmarks.fusion --json fusion.json        # minutes on two cores
    python -m benchmarks.fusion profile                   # where the time of `exact` goes

Frames are a moving person of 16 joints in V cameras around him, at heights of their own;
detections and rotations err. Two sets: `all`, in which every joint of every view is repaired, and
`detector`, in which confidences are those of a real detector: three in ten are below the
threshold, some joints were not observed, and those that the paper never repairs stay. All
methods repair the same joints of a set. That `exact` misses no maximum: `benchmarks.fusion_proof`.

The loop follows the published procedure, one joint and one line at a time, in numpy.

`profile` sets beside `exact` (CPU time of one thread) what a climb cannot do without: one power of
two for each ridge and Gaussian wherever a map is computed, and, by torch's operations, one pass
over the numbers of each. What both cost is measured in tensors that fit the caches.
"""

import argparse
import cProfile
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks import measure
from canonlift.body.skeleton import H36M17, ROOT
from canonlift.geometry import ridges
from canonlift.geometry.rotations import from_axis_angle, from_six
from canonlift.geometry.scale import norm
from canonlift.methods.fusion import METHODS, FusionConfig, fuse, to_repair
from canonlift.simulation.athlete import perform, sample_person
from canonlift.simulation.motions import MOTIONS
from canonlift.types import Lifted, Views

JOINTS = tuple(name for name in H36M17 if name != "spine")
KEPT = [H36M17.index(name) for name in JOINTS]
N_VIEWS = range(2, 9)


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
    generator = np.random.default_rng(seed)
    torch_generator = torch.Generator().manual_seed(seed)
    world = perform(sample_person(generator), list(MOTIONS), n_frames, 30.0, generator)[:, KEPT]
    world = torch.from_numpy(world - world[:, [JOINTS.index(ROOT)]])
    if around:
        turn = (np.arange(n_views) + generator.uniform(-0.3, 0.3, (n_frames, n_views))) / n_views
        azimuth = torch.from_numpy(2 * np.pi * turn)
        up = torch.from_numpy(np.sin(generator.normal(0.15, 0.1, (n_frames, n_views))))
        depth = torch.stack([azimuth.cos(), azimuth.sin(), -up], -1)
        down = torch.tensor([0.0, 0.0, -1.0], dtype=world.dtype).expand_as(depth)
        # Depth first, then down made orthogonal to it: rows z, y; x is what they leave.
        basis = from_six(torch.cat([depth, down], -1))
        z, y = basis[..., 0], basis[..., 1]
        rotation = torch.stack([torch.linalg.cross(y, z), y, z], dim=-2)
    else:
        columns = torch.randn(n_frames, n_views, 6, generator=torch_generator, dtype=world.dtype)
        rotation = from_six(columns)
    pose = world[:, None].expand(-1, n_views, -1, -1)
    image = Lifted(pose, rotation).in_camera[..., :2]

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=torch_generator, dtype=world.dtype)

    turned = from_axis_angle(0.06 * noise(n_frames, n_views, 3)) @ rotation
    lifted = Lifted(pose + 0.06 * noise(*pose.shape), turned)
    keypoints = image + 0.03 * noise(*image.shape)
    uniform = torch.rand(image.shape[:-1], generator=torch_generator, dtype=world.dtype)
    confidence = (1 - 0.9 * uniform**5).clamp(0.05, 1.0)  # as in simulation/detector.py
    lost = torch.rand(confidence.shape, generator=torch_generator) < 0.02
    lost[:, :, JOINTS.index(ROOT)] = False
    keypoints = torch.where(lost[..., None], 0.0, keypoints)
    views = Views(keypoints, confidence.masked_fill(lost, 0.0), torch.full((n_frames,), -1))
    single = Lifted(lifted.pose.float(), lifted.to_camera.float())
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
    rotation = lifted.to_camera.double().numpy()
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
    rotation = sample.lifted.to_camera.clone().requires_grad_()

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


def described(machine: Mapping[str, Any]) -> str:
    """Processor, threads and library."""
    return f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}"


def show_timing(results: Mapping[str, Any]) -> None:
    """Print what `timing` found."""
    print(
        f"{described(results['machine'])}; {results['frames']} frames at a time, 16 joints, "
        "float32"
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
    exact = 1e9 * seconds(run, repeats, time.process_time) / n_joints
    parts = parts_of(run, repeats)
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
        "ns_per_joint_of_parts": {name: 1e9 * taken / n_joints for name, taken in parts.items()},
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


def parts_of(run: Callable[[], Any], repeats: int) -> dict[str, float]:
    """CPU seconds of `run` in each function of `ridges`, without the functions that it calls."""
    # Without entries for built-in functions, whose time then counts as their caller's.
    recorded = cProfile.Profile(time.process_time, builtins=False)
    for _ in range(repeats):
        recorded.runcall(run)
    recorded.create_stats()
    # Read as it is: pstats' own table is rounded to milliseconds.
    rows: Any = recorded.stats  # pyright: ignore[reportAttributeAccessIssue]
    taken = {
        name: own / repeats
        for (file, _, name), (_, _, own, _, _) in rows.items()
        if Path(file) == Path(ridges.__file__)
    }
    return dict(sorted(taken.items(), key=lambda part: -part[1]))


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
    print(f"{described(found['machine'])}; {found['joints']} joints at once\n")
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


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=("time", "profile"), default="time")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    parser.add_argument("--frames", type=int, default=256, help="fused at a time")
    parser.add_argument("--loop-frames", type=int, default=2, help="given to the slow loop")
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args(argv)
    measure.keep_memory()
    if args.what == "time":
        results = timing(args.frames, args.loop_frames, args.repeats)
        show_timing(results)
    else:
        torch.set_num_threads(1)
        results = {"machine": measure.machine("cpu")} | profile(args.frames, args.repeats)
        show_profile(results)
    measure.write(args.json, results)


if __name__ == "__main__":
    main()
