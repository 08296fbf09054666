"""Frames per second of whole optimisation steps, beside their matrix products.

    python -m benchmarks.training --json runs/training.json
    OMP_NUM_THREADS=1 python -m benchmarks.training --cpu-time     # on a busy machine
    python -m benchmarks.training --batch 32 --profile s1+s2       # where the time goes
    python -m benchmarks.training --device cuda --precision bfloat16 --compile --batch 32 8192
    python -m benchmarks.training skipose --device cuda --precision bfloat16
    python -m benchmarks.training skipose --steps-scale 0.01       # a look, on a CPU

A frame is one instant in all of its 4 views. A step gathers a batch from the table of all frames,
mirrors it, lifts, repairs, lifts again where a term needs it, computes the losses and their
gradients, and lets Adam step: `training.loop.descend`. (Training also reads the loss, once in 20
steps.) The products are those of the linear layers, forward and backward, of the layers whose
result some loss reads: both heads of the first lift, and of the second one the poses alone. They
are computed twice: by what the network multiplies with here (oneDNN, in float32 on a CPU), which
is what `step_over_products` means, and by `torch.mm` into memory that is already there,
`step_over_torch_mm`. The former are timed after Adam, which as in a step has put all else out of
the caches.

Adam reads and writes 28 bytes per weight, which no cache holds: of a small batch this takes a
seventh as long as the products. `step_over_floor` counts it in.

S1 and S1+S2 have the paper's losses and repair by triangulation, canonlift's default; with `grid`
as the paper does, with `exact` to the peak of the paper's map.

`step_over_products` and `frames_per_second` are those of the first batch size; 32 frames is that
of CVSF and CanonPose.
"""

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from jaxtyping import Float
from torch import Tensor, nn

from benchmarks import measure
from benchmarks.compute_ways import EAGER, WAYS
from canonlift.data import frames
from canonlift.data.batches import chunks, flip
from canonlift.data.frames import FramesInMemory
from canonlift.data.windows import Samples
from canonlift.methods import targets
from canonlift.models import layers
from canonlift.models.layers import PRECISIONS
from canonlift.models.mlp import CanonicalLifter
from canonlift.models.network import Network
from canonlift.simulation.cameras import CameraConfig
from canonlift.simulation.session import SimulateConfig, session
from canonlift.training import config as configs
from canonlift.training import loop, runs
from canonlift.training.schedule import PhaseConfig
from canonlift.training.train import HOOKS
from canonlift.types import Target, Views

N_VIEWS = 4
SKIPOSE = 8481, 6  # rows, views
# Side of the product that shows how fast matrices can be multiplied.
LARGE = {"cpu": 2048, "cuda": 8192}


class Variant(NamedTuple):
    """What is trained."""

    config: str
    overrides: tuple[str, ...] = ()
    phase: int = 0


# The rows of CVSF's Table 1 with the paper's losses, repaired as the paper does and by what is
# here beside it; and what the demo minimises.
VARIANTS: Mapping[str, Variant] = {
    "baseline": Variant("cvsf_baseline"),
    "s1": Variant("cvsf_s1", ("fusion.method=triangulate",)),
    "s1+s2": Variant("cvsf", ("fusion.method=triangulate",)),
    "s1 grid": Variant("cvsf_s1"),
    "s1+s2 grid": Variant("cvsf"),
    "s1+s2 exact": Variant("cvsf", ("fusion.method=exact",)),
    "demo bootstrap": Variant("demo"),
    "demo stage 1": Variant("demo", phase=1),
    "demo stage 2": Variant("demo", phase=2),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Time every variant at every batch size."""
    parser = measure.parser(__doc__)
    parser.add_argument("what", nargs="?", choices=("steps", "skipose"), default="steps")
    parser.add_argument("--steps-scale", type=float, default=1.0, help="of the phases of skipose")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--batch", nargs="+", type=int, default=[32, 1024], help="in frames")
    parser.add_argument("--width", type=int, default=1024, help="of the network")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="float32", help="of the network's products"
    )
    parser.add_argument("--compile", action="store_true", help="by torch.compile")
    parser.add_argument("--profile", nargs="+", default=[], metavar="VARIANT", choices=VARIANTS)
    args = parser.parse_args(argv)
    measure.keep_memory()
    way = EAGER if not args.compile else "compile" if args.device == "cpu" else "compiled graphs"
    settings = [
        Setting(batch_size, args.width, args.precision, args.device, way)
        for batch_size in args.batch
    ]
    figures: dict[str, Any] = {
        "machine": measure.machine(args.device),
        "options": {"width": args.width, "precision": args.precision, "compile": args.compile},
    }
    if args.what == "skipose":
        figures["skipose"] = found = train_whole(settings[0], *SKIPOSE, args.steps_scale)
        print(
            f"{SKIPOSE[0]:,} rows of {SKIPOSE[1]} views, {args.width} wide: {found['steps']:,} "
            f"steps of {args.batch[0]} rows in {found['seconds']:.1f} s, "
            f"{found['frames_per_second']:,.0f} frames/s"
        )
    else:
        figures |= time_steps(settings, args.variants, args.profile, args.rounds, args.cpu_time)
    measure.write(args.json, figures)


def time_steps(
    settings: Sequence["Setting"],
    variants: Sequence[str],
    profiled: Sequence[str],
    rounds: int,
    cpu_time: bool,
) -> dict[str, Any]:
    """Time variants in every setting, and print a table for each."""
    first = settings[0]
    rate = matrix_rate(first.device, cpu_time=cpu_time) / 1e12
    print(f"a large matrix product: {rate:.3f} TFLOP/s")
    table = film(max(16 * 1024, *(setting.batch_size for setting in settings)))
    found: dict[int, dict[str, Timing]] = {}
    for setting in settings:
        each = rounds if setting.batch_size <= 256 else max(3, rounds // 4)
        timings = {
            name: time_variant(VARIANTS[name], setting, table, each, cpu_time) for name in variants
        }
        show(timings, setting, rate)
        for name in profiled:
            profile(name, setting, table)
        found[setting.batch_size] = timings
    of_first = found[first.batch_size]
    return {
        "matrix_teraflops": rate,
        "step_over_products": {n: t.ratio for n, t in of_first.items()},
        "step_over_torch_mm": {n: t.step / t.torch_mm for n, t in of_first.items()},
        "step_over_floor": {n: t.step / t.floor for n, t in of_first.items()},
        "frames_per_second": {n: t.frames_per_second for n, t in of_first.items()},
        "of_matrix_rate": {n: t.teraflops / rate for n, t in of_first.items()},
        "batches": {
            size: {
                n: t._asdict() | {"step_over_products": t.ratio, "teraflops": t.teraflops}
                for n, t in timings.items()
            }
            for size, timings in found.items()
        },
    }


def show(timings: Mapping[str, "Timing"], setting: "Setting", rate: float) -> None:
    """Print a Markdown table; `rate` is that of a large matrix product, in TFLOP/s."""
    print(f"\nbatch of {setting.batch_size} frames, {N_VIEWS} views, {setting.width} wide\n")
    print(
        "| | step (ms) | products (ms) | Adam (ms) | step / products | / torch.mm "
        "| / products and Adam | frames/s | TFLOP/s | of the matrix rate |"
    )
    print("|---" * 10 + "|")
    for name, t in timings.items():
        print(
            f"| {name} | {1e3 * t.step:.2f} | {1e3 * t.products:.2f} | {1e3 * t.adam:.2f} "
            f"| {t.ratio:.2f} | {t.step / t.torch_mm:.2f} | {t.step / t.floor:.2f} "
            f"| {t.frames_per_second:,.0f} | {t.teraflops:.3f} | {t.teraflops / rate:.1%} |",
            flush=True,
        )


@dataclass(frozen=True)
class Setting:
    """How a variant is trained."""

    batch_size: int
    width: int = 1024
    precision: str = "float32"  # of the network's products
    device: str = "cpu"
    way: str = EAGER  # row of `compute_ways.WAYS`


class Timing(NamedTuple):
    """Medians, in seconds."""

    step: float
    products: float
    torch_mm: float  # the same products
    adam: float
    frames_per_second: float
    operations: int  # of the products
    weights: int

    @property
    def ratio(self) -> float:
        """How much longer the step takes than its products."""
        return self.step / self.products

    @property
    def floor(self) -> float:
        """What no step can do without: its products, and an update of every weight."""
        return self.products + self.adam

    @property
    def teraflops(self) -> float:
        """Rate of the step, of which only the products count."""
        return self.operations / self.step / 1e12


def time_variant(
    variant: Variant, setting: Setting, table: Views, rounds: int, cpu_time: bool = False
) -> Timing:
    """Time steps and products in turns."""
    with tempfile.TemporaryDirectory() as folder:
        run, step = make_step(variant, setting, table, Path(folder) / "run")
        products = Products(run.network, setting, relifts(run.phase))
        jobs = {"step": step, "adam": run.optimiser.step, "products": products}
        jobs["torch_mm"] = products.by_torch
        median = measure.in_turns(jobs, rounds, setting.device, cpu_time)
    rate = setting.batch_size / median["step"]
    weights = sum(p.numel() for p in run.network.parameters())
    return Timing(
        **median, frames_per_second=rate, operations=products.operations, weights=weights
    )


def matrix_rate(device: str, side: int | None = None, cpu_time: bool = False) -> float:
    """Operations per second of a large product: in bfloat16, but on a CPU in float32."""
    kind = torch.device(device).type
    side = side or LARGE[kind]
    dtype = torch.float32 if kind == "cpu" else torch.bfloat16
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    product = layers.multiply if layers.by_onednn(a, b) else torch.mm
    taken = measure.in_turns({"product": lambda: product(a, b)}, 5, device, cpu_time)
    return 2 * side**3 / taken["product"]


def train_whole(
    setting: Setting, n_rows: int, n_views: int, steps_scale: float = 1.0
) -> dict[str, float]:
    """Seconds that training takes for all that the demo's config has scheduled, and its steps."""
    config = configs.load("demo", overrides(setting))
    schedule = [
        replace(phase, steps=max(1, round(steps_scale * phase.steps))) for phase in config.schedule
    ]
    config = replace(config, schedule=schedule, batch_size=setting.batch_size)
    samples = samples_of(film(n_rows, n_views)).to(torch.device(setting.device))
    objective = loop.objective
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(loop, "objective", lambda run: WAYS[setting.way](objective(run))),
    ):
        run = runs.start(config, Path(folder) / "run", resume=False)
        start = time.perf_counter()
        loop.fit(run, samples, HOOKS)
        measure.finish(setting.device)
        seconds = time.perf_counter() - start
    steps, of_steps = run.progress.total_step, run.progress.seconds
    rate = steps * setting.batch_size / seconds
    return {"steps": steps, "seconds": seconds, "of_steps": of_steps, "frames_per_second": rate}


def film(n_frames: int, n_views: int = N_VIEWS) -> Views:
    """Frames of the simulated session with a 3D target, repeated until there are enough."""
    config = SimulateConfig(
        n_train=4,
        n_test=0,
        n_frames=min(150, n_frames),
        fps=10.0,
        cameras=CameraConfig(n_views=n_views),
    )
    parts = [
        replace(frames.to_views(recording), target=targets.solved(recording, n_views))
        for _, recording in session(config)
    ]
    solved = [part.target for part in parts if part.target is not None]
    views = Views(
        torch.cat([part.keypoints for part in parts]),
        torch.cat([part.confidence for part in parts]),
        torch.cat([part.rig for part in parts]),
        Target(torch.cat([t.pose for t in solved]), torch.cat([t.trust for t in solved])),
    )
    return views[torch.arange(n_frames) % len(views)]


def samples_of(views: Views) -> Samples:
    """Frames as training has them in memory."""
    return Samples(FramesInMemory(views, torch.tensor([0, len(views)]), ("film",)))


def make_step(
    variant: Variant, setting: Setting, table: Views, folder: Path
) -> tuple[runs.Run, Callable[[], Float[Tensor, ""]]]:
    """A run, and a function that takes one step of it as training does."""
    config = configs.load(variant.config, [*variant.overrides, *overrides(setting)])
    config = replace(config, schedule=[config.schedule[variant.phase]])
    table = table if "target_pose" in config.terms else replace(table, target=None)
    samples = samples_of(table.to(setting.device))
    run = runs.start(config, folder, resume=False)
    turn_views_apart(run.network, samples[torch.arange(setting.batch_size)])
    compute = WAYS[setting.way](loop.objective(run))
    order = itertools.chain.from_iterable(chunks(len(samples), setting.batch_size, config.seed, 0))
    flips: Iterator[bool] = itertools.cycle([False, True])

    def step() -> Float[Tensor, ""]:
        views = samples[next(order).to(setting.device, non_blocking=True)]
        if next(flips):
            views = flip(views, config.joints)
        loss, _ = loop.descend(run, compute, views, run.phase.learning_rate)
        return loss

    return run, step


def overrides(setting: Setting) -> list[str]:
    """A setting as overrides of a config."""
    return [
        f"model.width={setting.width}",
        f"model.precision={setting.precision}",
        f"device={setting.device}",
    ]


@torch.no_grad()
def turn_views_apart(network: Network, views: Views) -> None:
    """Have an untrained network predict views that differ: parallel views repair nothing."""
    assert isinstance(network, CanonicalLifter)  # all variants lift single frames
    last = network.rotation[-1]
    assert isinstance(last, nn.Linear)
    for _ in range(20):
        axis = network(views).to_camera[..., 2, :]
        sine = torch.linalg.cross(axis, axis.roll(1, dims=1), dim=-1).norm(dim=-1)
        if sine.mean() > 0.5:
            break
        last.weight.mul_(2.0)


def relifts(phase: PhaseConfig) -> bool:
    """Whether some loss reads a second lift."""
    return "consistency_3d" in phase.terms


class Products:
    """The matrix products of a step, and nothing else."""

    def __init__(self, network: Network, setting: Setting, relift: bool) -> None:
        assert isinstance(network, CanonicalLifter)  # all variants lift single frames
        lifts = [linear_layers(network.encode, network.pose, network.rotation)]
        if relift:
            lifts.append(linear_layers(network.encode, network.pose))
        n_rows = setting.batch_size * N_VIEWS
        options = {"dtype": PRECISIONS[setting.precision], "device": setting.device}
        self.in_tf32 = partial(layers.tf32, setting.precision, torch.device(setting.device))
        self.onednn = layers.by_onednn(torch.empty(1, 1, **options), torch.empty(1, 1, **options))
        self.operations = 0
        self.forward: list[tuple[Tensor, Tensor, Tensor]] = []
        self.backward: list[tuple[Tensor, Tensor, Tensor]] = []
        for second, linear in enumerate(lifts):
            for number, layer in enumerate(linear):
                n_out, n_in = layer.weight.shape
                x, dx = torch.randn(2, n_rows, n_in, **options)
                y, dy = torch.randn(2, n_rows, n_out, **options)
                weight = torch.randn(n_out, n_in, **options)
                self.forward.append((x, weight.mT, y))
                # The second lift passes a gradient on to what was repaired.
                if number or second:
                    self.backward.append((dy, weight, dx))
                self.backward.append((dy.mT, x, torch.empty_like(weight)))
        for a, b, _ in self.forward + self.backward:
            self.operations += 2 * a.shape[0] * a.shape[1] * b.shape[1]
        self.backward.reverse()

    def __call__(self) -> None:
        """Compute all of them, once, by what the network multiplies with."""
        if not self.onednn:
            self.by_torch()
            return
        for a, b, _ in itertools.chain(self.forward, self.backward):
            layers.multiply(a, b.mT)

    def by_torch(self) -> None:
        """Compute all of them, once, by PyTorch's own choice."""
        with self.in_tf32():
            for a, b, out in itertools.chain(self.forward, self.backward):
                torch.mm(a, b, out=out)


def linear_layers(*parts: nn.Module) -> list[nn.Linear]:
    """Linear layers, in order."""
    return [m for part in parts for m in part.modules() if isinstance(m, nn.Linear)]


def profile(name: str, setting: Setting, table: Views, steps: int = 5) -> None:
    """Print where the time of a step goes."""
    with tempfile.TemporaryDirectory() as folder:
        _, step = make_step(VARIANTS[name], setting, table, Path(folder) / "run")
        step()
        with torch.profiler.profile() as recorded:
            for _ in range(steps):
                step()
            measure.finish(setting.device)
    by = "self_cpu_time_total" if setting.device == "cpu" else "self_device_time_total"
    print(f"\n{name}, {steps} steps")
    print(recorded.key_averages().table(sort_by=by, row_limit=25, max_name_column_width=45))


if __name__ == "__main__":
    main()
