"""How well the offsets between unsynchronised views are found, on real motion in simulated films.

Examples:
    python benchmarks/sync.py                             # Markdown, for the README
    python benchmarks/sync.py --settings pair --spreads 1 --clips 4

Every clip of at least ten seconds is filmed by the cameras and detector of each setting of
`ptz.py`, each camera starting at a random time, to a fraction of a frame.
"""

import argparse
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import ptz
from canonlift import sync
from canonlift.data.simulate import film
from canonlift.skeleton import H36M17

SHORTEST_S, LONGEST_S = 10.0, 20.0  # of a take, before its offsets
SETTINGS = ("ski", "phones", "studio", "pair")
SPREADS_S = (0.1, 1.0, 4.0)  # cameras start up to so much before or after the first
WRONG_MS = 100.0  # more than any rounding: a false peak


def takes(
    setting: str, spread_s: float, clips: Mapping[str, np.ndarray]
) -> Iterator[tuple[sync.Synchrony, np.ndarray]]:
    """What is found in every film, and the true offsets in seconds."""
    cameras, detector = ptz.SETTINGS[setting].cameras, ptz.SETTINGS[setting].detector
    for name, motion in clips.items():
        key = (zlib.crc32(setting.encode()), zlib.crc32(name.encode()), round(1000 * spread_s))
        generator = np.random.default_rng(np.random.SeedSequence(ptz.FILM_SEED, spawn_key=key))
        starts = generator.uniform(-spread_s, spread_s, cameras.n_views)
        starts[0] = 0.0
        recording = film(
            motion[: round(LONGEST_S * ptz.FPS)],
            H36M17,
            ptz.FPS,
            replace(cameras, starts_s=tuple(starts.tolist())),
            detector,
            generator,
        )
        yield sync.estimate(recording), starts


def row(setting: str, spread_s: float, clips: Mapping[str, np.ndarray]) -> str:
    """One line of the table; errors are over all views but the first."""
    found = list(takes(setting, spread_s, clips))
    error = [1000 * np.abs(f.offset_s - starts)[1:] for f, starts in found]
    used = [e for (f, _), e in zip(found, error, strict=True) if not f.ambiguous]
    refused = [e for (f, _), e in zip(found, error, strict=True) if f.ambiguous]
    errors = np.concatenate(used) if used else np.full(1, np.nan)
    middle, high, most = np.quantile(errors, [0.5, 0.9, 1.0])
    wrong = [sum(e.max() > WRONG_MS for e in some) for some in (used, refused)]
    return (
        f"| {setting} | {len(error[0]) + 1} | ±{spread_s:g} s | {middle:.1f} | {high:.1f} "
        f"| {most:.0f} | {100 * len(refused) / len(found):.0f} | {wrong[0]} of {len(used)} "
        f"| {wrong[1]} of {len(refused)} |"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=SETTINGS)
    parser.add_argument("--spreads", nargs="+", type=float, default=SPREADS_S, metavar="SECONDS")
    parser.add_argument("--clips", type=int, help="use so many only")
    parser.add_argument("--data", type=Path, default=ptz.MOCAP, help="motion capture")
    args = parser.parse_args(argv)
    if not args.data.is_file():
        parser.error(f"{args.data}: no motion capture; give --data, see shared/data")
    clips = {
        name: motion
        for name, motion in sorted(ptz._clips(args.data).items())
        if len(motion) >= SHORTEST_S * ptz.FPS
    }
    clips = dict(list(clips.items())[: args.clips])
    print(f"{len(clips)} takes of {SHORTEST_S:g} to {LONGEST_S:g} s per row, {ptz.FPS:g} fps\n")
    print("| setting | views | starts | median ms | p90 ms | worst ms | refused % | wrong, used "
          "| wrong, refused |")  # fmt: skip
    print("| --- |" + " ---: |" * 8)
    for setting in args.settings:
        for spread_s in args.spreads:
            print(row(setting, spread_s, clips), flush=True)


if __name__ == "__main__":
    main()
