"""Accuracy of the rows of CVSF's Table 1 on the embedded session, over seeds.

    python -m benchmarks.variants --jobs 2             # 3 rows x 3 seeds, about half an hour
    python -m benchmarks.variants --config demo --seeds 0 1 2 --out runs/variants

Every row runs the same schedule for the same number of steps; terms that it is without have the
weight 0 (`benchmarks.recipes.WITHOUT`). Each run is kept in --out and not repeated, so an
interrupted benchmark continues where it was. Prints a Markdown table of mean and standard
deviation over the seeds, and writes it with every run's figures to OUT/variants.json.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import measure, rows
from benchmarks.experiments import evaluate, trained, weighted
from benchmarks.recipes import WITHOUT
from canonlift.evaluation.recordings import held_out
from canonlift.training import config as configs

COLUMNS = {
    "N-MPJPE (mm)": ("metrics", "n_mpjpe_mm"),
    "PA-MPJPE (mm)": ("metrics", "pa_mpjpe_mm"),
    "N-PCK (%)": ("metrics", "n_pck_150"),
    "2D refined (px)": ("refinement", "refined_px"),
    "2D refined, unsure (px)": ("refinement", "refined_unsure_px"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="demo", help="name or YAML file")
    parser.add_argument("--rows", nargs="+", default=list(WITHOUT), choices=WITHOUT)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/variants"))
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_intermixed_args(argv)
    todo = [
        (args.config, row, seed, args.overrides, args.out)
        for row in args.rows
        for seed in args.seeds
    ]
    found = {(r["row"], r["seed"]): r["results"] for r in rows.measured(run, todo, args.jobs)}
    results = {row: [found[row, seed] for seed in args.seeds] for row in args.rows}
    summary = {"machine": rows.machine(), "seeds": args.seeds, "results": results}
    measure.write(args.out / "variants.json", summary)
    print(table(results, args.seeds))


def run(config: str, row: str, seed: int, overrides: Sequence[str], out: Path) -> dict[str, Any]:
    """Train and evaluate one row with one seed, unless that has been done.

    Raises:
        ValueError: if it has been done with another config.
    """
    chosen = configs.load(config, overrides)
    chosen = replace(weighted(chosen, dict.fromkeys(WITHOUT[row], 0.0)), seed=seed)
    folder = out / f"{row.replace('+', '')}-{seed}"
    path = folder / "results.json"
    begun = folder / "config.yaml"
    if begun.is_file() and begun.read_text() != configs.to_yaml(chosen):
        raise ValueError(f"{folder} holds a run with another config; choose another --out")
    if not path.is_file():
        model = trained(chosen, folder)
        measure.write(path, evaluate(model, held_out(chosen, folder)))
    return {"row": row, "seed": seed, "results": json.loads(path.read_text())}


def table(results: Mapping[str, Sequence[Mapping[str, Any]]], seeds: Sequence[int]) -> str:
    """Mean and standard deviation over seeds, in Markdown."""
    lines = [["", *COLUMNS], ["---"] + ["---:"] * len(COLUMNS)]
    first = next(iter(results.values()))
    every = dict(results)
    for name in ("flat", "mean_pose"):
        every[name.replace("_", " ")] = [{"metrics": r["baselines"][name]} for r in first]
    for name, runs in every.items():
        figures = [[run.get(part, {}).get(key) for run in runs] for part, key in COLUMNS.values()]
        lines.append([name, *(rows.mean(values, 1) for values in figures)])
    detected = first[0]["refinement"]
    return (
        f"{rows.markdown(lines)}\n\nMean ± standard deviation over seeds "
        f"{', '.join(map(str, seeds))}. Detected 2D error: {detected['detected_px']:.1f} px, "
        f"unsure joints {detected['detected_unsure_px']:.1f} px."
    )


if __name__ == "__main__":
    main()
