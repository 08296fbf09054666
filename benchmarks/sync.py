"""How well the offsets between unsynchronised views are found, on real motion in simulated films.

Examples:
    python -m benchmarks.sync                                      # a Markdown table
    python -m benchmarks.sync --settings pair --spreads 1 --clips 4
    python -m benchmarks.sync --spreads 1 --run runs/sequence      # and by lifted poses

Every clip of at least ten seconds is filmed by the cameras and detector of each setting of
`benchmarks.films`, each camera starting at a random time, to a fraction of a frame. With --run,
other ways are compared on the same films with `detections`, which is what `canonlift convert
--sync auto` does: its `whole frames`; `consistency`, which continues from these to where the loss
of that name is least; and `poses`, which compares the poses that a run lifts from each view.
"""

import argparse
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize

from benchmarks import films
from canonlift.body.skeleton import H36M17
from canonlift.data.frames import FramesInMemory, to_views
from canonlift.data.prediction import Prediction
from canonlift.data.recording import Recording
from canonlift.data.windows import WindowConfig, cut
from canonlift.inference import model as models
from canonlift.inference.predict import predict
from canonlift.methods import consistency
from canonlift.readers import synchronise
from canonlift.simulation.session import film
from canonlift.types import Lifted

SHORTEST_S, LONGEST_S = 10.0, 20.0  # of a recording, before its offsets
SETTINGS = ("ski", "phones", "studio", "pair")
SPREADS_S = (0.1, 1.0, 4.0)  # cameras start up to so much before or after the first
WRONG_MS = 100.0  # more than any rounding: a false peak
SEGMENT_S, REACH_S = 2.7, 0.1  # consistency: of a window; from whole frames to the least loss

Estimate = Callable[[Recording], synchronise.Synchrony]
Lift = Callable[[Recording], Prediction]


def by_poses(lift: Lift, recording: Recording) -> synchronise.Synchrony:
    """Offsets at which lifted poses, instead of detections, have most in common."""
    return synchronise.estimate(recording, pose=lift(recording).pose)


def by_whole_frames(recording: Recording) -> synchronise.Synchrony:
    """Offsets to the nearest frame."""
    found = synchronise.estimate(recording)
    return replace(found, offset_s=np.rint(found.offset_s * recording.fps) / recording.fps)


def by_consistency(lift: Lift, recording: Recording) -> synchronise.Synchrony:
    """Offsets at which the poses of all views, each pair moved onto another, agree best."""
    found = by_whole_frames(recording)
    pose = np.nan_to_num(lift(recording).pose)
    lifted = replace(recording, pose3d=pose, keypoints_true=None)
    length = round(SEGMENT_S * recording.fps)

    def disagreement(offset: Float[np.ndarray, " V"]) -> float:
        moved = synchronise.apply(lifted, offset)
        assert moved.pose3d is not None  # as lifted has it
        frames = FramesInMemory(to_views(moved), torch.tensor([0, moved.n_frames]), ("",))
        samples = cut(frames, WindowConfig(length, length, gap=length))
        every = torch.arange(len(samples))
        windows, (numbers, _) = samples[every], samples.frames_of(every)
        poses = torch.from_numpy(np.nan_to_num(moved.pose3d))[numbers].transpose(1, 2)
        aligned = consistency.align(Lifted(poses * windows.unit, None), windows, 0)
        return float(consistency.consistency(aligned))

    start = found.offset_s
    best = minimize(
        lambda late: disagreement(start + np.append(0.0, late)),
        np.zeros(len(start) - 1),
        method="Powell",
        bounds=[(-REACH_S, REACH_S)] * (len(start) - 1),
        options={"xtol": 1e-3, "ftol": 1e-5},
    )
    return replace(found, offset_s=start + np.append(0.0, best.x))


def filmed(
    setting: str, spread_s: float, clips: Mapping[str, np.ndarray]
) -> Iterator[tuple[Recording, np.ndarray]]:
    """Every film, and the true offsets in seconds."""
    cameras, detector = films.SETTINGS[setting].cameras, films.SETTINGS[setting].detector
    for name, motion in clips.items():
        key = (zlib.crc32(setting.encode()), zlib.crc32(name.encode()), round(1000 * spread_s))
        generator = np.random.default_rng(np.random.SeedSequence(films.SEED, spawn_key=key))
        starts = generator.uniform(-spread_s, spread_s, cameras.n_views)
        starts[0] = 0.0
        recording = film(
            motion[: round(LONGEST_S * films.FPS)],
            H36M17,
            films.FPS,
            replace(cameras, starts_s=tuple(starts.tolist())),
            detector,
            generator,
        )
        yield recording, starts


def row(
    setting: str, spread_s: float, clips: Mapping[str, np.ndarray], by: str, estimate: Estimate
) -> str:
    """One line of the table; errors are over all views but the first."""
    found = [
        (estimate(recording), starts) for recording, starts in filmed(setting, spread_s, clips)
    ]
    error = [1000 * np.abs(f.offset_s - starts)[1:] for f, starts in found]
    used = [e for (f, _), e in zip(found, error, strict=True) if not f.ambiguous]
    refused = [e for (f, _), e in zip(found, error, strict=True) if f.ambiguous]
    errors = np.concatenate(used) if used else np.full(1, np.nan)
    middle, high, most = np.quantile(errors, [0.5, 0.9, 1.0])
    wrong = [sum(e.max() > WRONG_MS for e in some) for some in (used, refused)]
    return (
        f"| {setting} | {len(error[0]) + 1} | ±{spread_s:g} s | {by} | {middle:.1f} | {high:.1f} "
        f"| {most:.0f} | {100 * len(refused) / len(found):.0f} | {wrong[0]} of {len(used)} "
        f"| {wrong[1]} of {len(refused)} |"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=SETTINGS)
    parser.add_argument("--spreads", nargs="+", type=float, default=SPREADS_S, metavar="SECONDS")
    parser.add_argument("--clips", type=int, help="use so many only")
    parser.add_argument("--data", type=Path, default=films.MOCAP, help="motion capture")
    parser.add_argument("--run", type=Path, help="a finished run, to compare lifted poses as well")
    args = parser.parse_args(argv)
    if not args.data.is_file():
        parser.error(f"{args.data}: no motion capture; give --data, see shared/data")
    clips = {
        name: motion
        for name, motion in sorted(films.motions(args.data).items())
        if len(motion) >= SHORTEST_S * films.FPS
    }
    clips = dict(list(clips.items())[: args.clips])
    print(
        f"{len(clips)} recordings of {SHORTEST_S:g} to {LONGEST_S:g} s per row, "
        f"{films.FPS:g} fps\n"
    )
    ways: dict[str, Estimate] = {"detections": synchronise.estimate}
    if args.run:
        try:
            model = models.load(args.run, "cpu")
        except (FileNotFoundError, ValueError) as error:
            parser.error(str(error))
        lift = partial(predict, model.network, model.config)
        ways |= {
            "whole frames": by_whole_frames,
            "consistency": partial(by_consistency, lift),
            "poses": partial(by_poses, lift),
        }
    print("| setting | views | starts | by | median ms | p90 ms | worst ms | refused % "
          "| wrong, used | wrong, refused |")  # fmt: skip
    print("| --- |" + " ---: |" * 2 + " --- |" + " ---: |" * 6)
    for setting, spread_s in product(args.settings, args.spreads):
        for by, estimate in ways.items():
            print(row(setting, spread_s, clips, by, estimate), flush=True)


if __name__ == "__main__":
    main()
