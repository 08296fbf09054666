"""That `exact` finds the highest point of every map, as far as float32 can tell.

    python -m benchmarks.fusion_proof --json proof.json         # every V, 100,000 joints each
    python -m benchmarks.fusion_proof --views 4 --joints 10000

Maps are those of the frames of `benchmarks.fusion`, half of them by cameras that look from
anywhere. The peak of each is compared with the highest of a million grid points.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from benchmarks import measure
from benchmarks.fusion import JOINTS, N_VIEWS, frames
from canonlift.methods import fusion
from canonlift.methods.fusion import (
    FusionConfig,
    Maps,
    exact_peaks,
    joint_maps,
    others,
    to_repair,
)

CELLS = 1024  # of the dense grid's side
TOLERANCE = 1e-6  # share of a height that float32 may get wrong
# Sides of the blocks of cells that are searched one after another, the last a single point.
BLOCKS = (128, 32, 8, 2, 1)


def dense_maximum(
    maps: Maps, config: FusionConfig, near: Float[Tensor, "K 2"], cells: int = CELLS
) -> Float[Tensor, " K"]:
    """Height of the highest of (cells + 1)^2 grid points over the closed extent, rigorously.

    Branch and bound: in a block of points no ridge is higher than where it comes nearest to the
    block. A block whose bound is not above the best point known so far is left out, which cannot
    change the maximum. The first point known is the one next to `near`, however good it is.
    """
    step = 2 * config.extent / cells
    nearest = (near.double() + config.extent).div(step).round().clamp(0, cells)
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
    return joint_maps(views, lifted, where, config, others(where, n_views)).pick(slice(n_maps))


def prove(n_joints: int, n_views: int, seed: int = 0) -> dict[str, Any]:
    """Compare `exact` in float32 with the dense grid; heights are compared in float64."""
    config = FusionConfig()
    shortfall, border = [], 0
    for around in (True, False):
        maps = random_maps(n_joints // 2, n_views, seed=10 * seed + n_views, around=around)
        for index in torch.arange(len(maps.joint)).split(1000):
            one = maps.pick(index)
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
    """Compare joints for every number of views."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--joints", type=int, default=100_000, help="compared for each V")
    parser.add_argument("--seed", type=int, default=0, help="of the compared joints")
    parser.add_argument("--views", type=int, nargs="+", default=list(N_VIEWS))
    args = parser.parse_args(argv)
    results = {"machine": measure.machine("cpu"), "cells": CELLS, "views": {}}
    print(f"`exact` in float32 against the highest of {CELLS + 1}^2 grid points")
    print(f"{'V':>3}{'joints':>10}{'on border':>11}{'lower':>8}{'worst shortfall':>18}{'s':>7}")
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
