"""Single views lifted per second, one at a time and many at once, by each way to run the network.

    python -m benchmarks.inference --json runs/inference.json
    OMP_NUM_THREADS=1 python -m benchmarks.inference --cpu-time     # on a busy machine
    python -m benchmarks.inference --device cuda

`eager` is what `canonlift eval` does, in `torch.inference_mode`. The others are shown beside it
with the largest difference of a coordinate of their poses, which have unit norm, and of their
rotations: ONNX Runtime (`pip install onnxruntime onnx onnxscript`, CPU only) and `torch.compile`.
`blocks` is eager on 8192 views in blocks, which `canonlift eval` also does, since recordings are
long. A way is exact where both differences are 0; `canonlift eval` uses the fastest of these.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from benchmarks import measure
from benchmarks.training import film
from canonlift.body.skeleton import H36M17, ROOT
from canonlift.geometry.scale import unit_scale
from canonlift.inference.predict import BLOCK
from canonlift.models.config import ModelConfig
from canonlift.models.mlp import CanonicalLifter
from canonlift.types import Lifted, Views

BATCHES = (1, 64, 8192)
Run = Callable[[Views], tuple[Tensor, Tensor]]


def main(argv: Sequence[str] | None = None) -> None:
    """Time every way at every batch size."""
    parser = measure.parser(__doc__)
    parser.add_argument("--width", type=int, default=1024, help="of the network")
    parser.add_argument("--skip", nargs="*", default=[], choices=WAYS, help="ways to leave out")
    args = parser.parse_args(argv)
    figures: dict[str, Any] = {"machine": measure.machine(args.device)}
    figures |= rates(args.device, args.width, args.skip, args.rounds, cpu_time=args.cpu_time)
    print("\n| | " + " | ".join(f"{n} views at once" for n in BATCHES) + " | difference |")
    print("|---" * (len(BATCHES) + 2) + "|")
    for name, rate in figures["frames_per_second"].items():
        cells = " | ".join(f"{rate[n]:,.0f}/s ({1e3 * n / rate[n]:.2f} ms)" for n in BATCHES)
        gaps = figures["difference"][name]
        print(f"| {name} | {cells} | {gaps['pose']:.1e}, {gaps['rotation']:.1e} |")
    measure.write(args.json, figures)


def rates(
    device: str,
    width: int,
    without: Sequence[str],
    rounds: int,
    sizes: Sequence[int] = BATCHES,
    cpu_time: bool = False,
) -> dict[str, Any]:
    """Views per second and latency of every way, and how it differs from the first."""
    torch.manual_seed(0)
    network = CanonicalLifter(ModelConfig(width=width), len(H36M17), H36M17.index(ROOT))
    network = network.to(device).eval()
    table = film(sizes[-1])
    single = Views(table.keypoints[:, :1], table.confidence[:, :1], table.rig).to(device)
    ways = prepare(network, device, without)
    found: dict[str, dict[int, float]] = {name: {} for name in ways}
    with torch.inference_mode():
        differences = {name: difference(ways["eager"], ways[name], single) for name in ways}
        for n in sizes:
            jobs = {name: _job(way, single[:n]) for name, way in ways.items()}
            median = measure.in_turns(jobs, rounds * {1: 20, 64: 5}.get(n, 1), device, cpu_time)
            for name, seconds in median.items():
                found[name][n] = n / seconds
    return {
        "difference": {n: {"pose": p, "rotation": r} for n, (p, r) in differences.items()},
        "frames_per_second": found,
        "latency_ms": {name: 1e3 / rate[1] for name, rate in found.items()},
    }


def _job(way: Run, views: Views) -> Callable[[], tuple[Tensor, Tensor]]:
    return lambda: way(views)


def prepare(network: CanonicalLifter, device: str, skip: Sequence[str]) -> dict[str, Run]:
    """Each way that works here; the reason, printed, for one that does not."""
    ways = {}
    for name, make in WAYS.items():
        if name in skip:
            continue
        try:
            ways[name] = make(network, device)
        except (ImportError, ValueError) as error:
            print(f"{name} is left out: {error}")
    return ways


def difference(one: Run, other: Run, views: Views) -> tuple[float, float]:
    """Largest difference of a coordinate of the poses, at unit norm, and of the rotations."""
    gaps = []
    for n in BATCHES[:2]:
        (pose, rotation), (pose_2, rotation_2) = one(views[:n]), other(views[:n])
        gaps.append(((unit(pose) - unit(pose_2)).abs().max(), (rotation - rotation_2).abs().max()))
    return max(p.item() for p, _ in gaps), max(r.item() for _, r in gaps)


def unit(pose: Float[Tensor, "B V J 3"]) -> Float[Tensor, "B V J 3"]:
    """Poses at unit norm."""
    return unit_scale(pose, torch.ones_like(pose[..., 0], dtype=torch.bool))


def eager(network: CanonicalLifter, device: str) -> Run:  # noqa: ARG001
    """As `canonlift eval` does."""

    def run(views: Views) -> tuple[Tensor, Tensor]:
        lifted = network(views)
        return lifted.pose, lifted.to_camera

    return run


def blocks(network: CanonicalLifter, device: str) -> Run:  # noqa: ARG001
    """As `canonlift eval` does with many views."""

    def run(views: Views) -> tuple[Tensor, Tensor]:
        parts = [network(views[i : i + BLOCK]) for i in range(0, len(views), BLOCK)]
        return torch.cat([p.pose for p in parts]), torch.cat([p.to_camera for p in parts])

    return run


def compiled(network: CanonicalLifter, device: str) -> Run:
    """By torch.compile, for whatever batch size."""
    faster = torch.compile(Bare(network), dynamic=device == "cpu")
    return lambda views: faster(views.keypoints, views.confidence)


def onnx_runtime(network: CanonicalLifter, device: str) -> Run:
    """By ONNX Runtime, from an exported file.

    Raises:
        ImportError: if it, or what exports to it, is not installed.
        ValueError: if it would not compute where the others do.
    """
    # Neither is a dependency: whoever wants this row installs them.
    import onnxruntime  # noqa: PLC0415  # pyright: ignore[reportMissingImports]
    import onnxscript  # noqa: F401, PLC0415  # pyright: ignore[reportMissingImports]

    if device != "cpu":
        raise ValueError("its CUDA version is a package of its own")
    example = (torch.randn(2, 1, len(H36M17), 2), torch.rand(2, 1, len(H36M17)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lifter.onnx"
        n_samples = torch.export.Dim("n_samples")
        shapes = {"keypoints": {0: n_samples}, "confidence": {0: n_samples}}
        torch.onnx.export(
            Bare(network).eval(), example, path, dynamo=True, dynamic_shapes=shapes, verbose=False
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]

    def run(views: Views) -> tuple[Tensor, Tensor]:
        given = (views.keypoints.numpy(), views.confidence.numpy())
        pose, rotation = session.run(None, dict(zip(names, given, strict=True)))
        return torch.from_numpy(pose), torch.from_numpy(rotation)

    return run


class Bare(nn.Module):
    """The lifter on bare tensors, as exporters want it."""

    def __init__(self, lifter: CanonicalLifter) -> None:
        super().__init__()
        self.lifter = lifter

    def forward(self, keypoints: Tensor, confidence: Tensor) -> tuple[Tensor, Tensor]:
        """Lift views of unknown rigs."""
        rig = keypoints.new_zeros(keypoints.shape[0], dtype=torch.long)  # len() fixes the size
        lifted: Lifted = self.lifter(Views(keypoints, confidence, rig))
        return lifted.pose, lifted.to_camera


WAYS: Mapping[str, Callable[[CanonicalLifter, str], Run]] = {
    "eager": eager,
    "blocks": blocks,
    "torch.compile": compiled,
    "ONNX Runtime": onnx_runtime,
}


if __name__ == "__main__":
    main()
