"""Notices poses that shrink, go flat or deep, or stop moving while a network is trained."""

import math
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from canonlift.training.runs import Run

# Shares of what was detected, in so many logged steps in a row.
SMALL, COLLAPSED, FLAT, DEEP, STILL, PATIENCE = 0.5, 0.1, 0.15, 3.0, 0.4, 10


class Collapsed(Exception):
    """The poses have shrunk to points."""


def watch_poses(run: Run, row: Mapping[str, Any]) -> None:
    """After a logged step: warn where `spread`, `depth` and `movement` go wrong.

    Counts of logged steps in a row are kept under `run.notes["monitor"]`.

    Raises:
        Collapsed: with advice, where poses have shrunk to points.
    """
    if "spread" not in row:
        return
    spread, depth, movement = row["spread"], row["depth"], row.get("movement", math.inf)
    weights = run.phase.terms
    consistent = any("consistency" in name for name in weights)
    counts: dict[str, int] = run.notes.setdefault("monitor", {})
    for name, wrong in {
        "small": spread < SMALL,
        "flat": depth < FLAT,
        "deep": depth > DEEP,
        "still": consistent and movement < STILL,
    }.items():
        counts[name] = counts.get(name, 0) + 1 if wrong else 0
    step = f"step {run.progress.total_step}"
    if counts["flat"] == PATIENCE:
        tqdm.write(
            f"WARNING: {step}: the poses are flat, {depth:.0%} as deep as wide: consistency alone "
            "seldom gets away from there; give `other_views` a weight, begin with a phase of "
            "`target_position`, or with start_from"
        )
    if counts["deep"] == PATIENCE:
        tqdm.write(
            f"WARNING: {step}: the poses are {depth:.1f} times as deep as wide: rods along the "
            "axes of the cameras, on which all views can agree; give `other_views` a weight, "
            "begin with a phase of `target_position`, or with start_from"
        )
    if counts["still"] == PATIENCE:
        tqdm.write(
            f"WARNING: {step}: the poses move {movement:.0%} as much as what was detected: bodies "
            "that stay the same are consistent. Unless nobody moved, lower the weight of "
            "consistency, or give `other_views` or `own_view` more"
        )
    if counts["small"] == PATIENCE // 2:
        tqdm.write(f"WARNING: {step}: the poses have {spread:.0%} of the size of the detections")
    if counts["small"] >= PATIENCE and spread < COLLAPSED:
        printed = weights.get("consistency_as_printed", 0.0)
        raise Collapsed(
            f"{step}: the poses have collapsed to points, {spread:.1%} of the size of the "
            "detections. Points are consistent: "
            + (
                f"lower the weight of consistency_as_printed (now {printed:g}), or use "
                "`consistency`, which does not reward shrinking"
                if printed
                else "give `own_view` a weight, or raise it"
            )
        )


def begin_phase(run: Run) -> None:
    """Start the counts afresh."""
    run.notes.pop("monitor", None)
