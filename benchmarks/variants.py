"""Accuracy of the paper's variants on the embedded session, over seeds.

    python -m benchmarks.variants --jobs 2             # 3 variants x 3 seeds, about half an hour
    python -m benchmarks.variants --config configs/demo.yaml --seeds 0 1 2 --out runs/variants

Every variant runs the same schedule for the same number of steps; a term that the variant does
not compute takes no part (see `VARIANTS` in canonlift/config.py). Each run is kept in --out and
not repeated, so an interrupted benchmark goes on where it was. Prints a Markdown table of mean
and standard deviation over the seeds, and writes it with every run's figures to
OUT/variants.json.
"""

import argparse
import json
import platform
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

import train
from canonlift import files
from canonlift.training import checkpoint
from canonlift.training import config as configs
from eval import report

COLUMNS = {
    "N-MPJPE (mm)": ("metrics", "n_mpjpe_mm"),
    "PA-MPJPE (mm)": ("metrics", "pa_mpjpe_mm"),
    "N-PCK (%)": ("metrics", "n_pck_150"),
    "2D refined (px)": ("refinement", "refined_px"),
    "2D refined, unsure (px)": ("refinement", "refined_unsure_px"),
}


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=Path("configs/demo.yaml"))
    parser.add_argument("--variants", nargs="+", default=list(configs.VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/variants"))
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_intermixed_args()
    todo = [
        (args.config, variant, seed, args.overrides, args.out)
        for variant in args.variants
        for seed in args.seeds
    ]
    threads = max(1, torch.get_num_threads() // args.jobs)
    with ProcessPoolExecutor(
        args.jobs, get_context("spawn"), torch.set_num_threads, (threads,)
    ) as processes:
        found = iter(list(processes.map(run, *zip(*todo, strict=True))))
    results = {variant: [next(found) for _ in args.seeds] for variant in args.variants}
    summary = {
        "machine": f"{platform.processor() or platform.machine()}, {threads} threads a run, "
        f"torch {torch.__version__}",
        "seeds": args.seeds,
        "results": results,
    }
    text = json.dumps(summary, indent=2)
    files.write(args.out / "variants.json", lambda file: file.write(text.encode()))
    print(table(results, args.seeds))


def run(
    config_path: Path, variant: str, seed: int, overrides: Sequence[str], out: Path
) -> dict[str, Any]:
    """Train and evaluate one variant with one seed, unless that has been done.

    Raises:
        ValueError: if it has been done with another config.
    """
    folder = out / f"{variant.replace('+', '')}-{seed}"
    config = configs.load(config_path, [*overrides, f"variant={variant}", f"seed={seed}"])
    if (folder / "results.json").is_file():
        if (folder / "config.yaml").read_text() != configs.to_yaml(config):
            raise ValueError(f"{folder} holds a run with another config; choose another --out")
    else:
        try:
            test_paths = train.train(config, folder, resume=True)
        except FileExistsError:  # trained, but not evaluated
            _, test_paths = train.find_recordings(config, folder)
        report(checkpoint.load_model(folder), test_paths, folder, folder)
    return json.loads((folder / "results.json").read_text())


def table(results: Mapping[str, Sequence[Mapping[str, Any]]], seeds: Sequence[int]) -> str:
    """Mean and standard deviation over seeds, in Markdown."""
    lines = ["| | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    rows = {name: [_figures(result) for result in runs] for name, runs in results.items()}
    first = next(iter(results.values()))
    for name in ("flat", "mean_pose"):
        rows[name] = [_figures({"metrics": result["baselines"][name]}) for result in first]
    for name, figures in rows.items():
        cells = [_cell([row[column] for row in figures]) for column in COLUMNS]
        lines.append(f"| {name.replace('_', ' ')} | " + " | ".join(cells) + " |")
    detected = first[0]["refinement"]
    lines.append(
        f"\nMean ± standard deviation over seeds {', '.join(map(str, seeds))}. Detected 2D error: "
        f"{detected['detected_px']:.1f} px, unsure joints {detected['detected_unsure_px']:.1f} px."
    )
    return "\n".join(lines)


def _figures(result: Mapping[str, Any]) -> dict[str, float | None]:
    figures = {}
    for column, keys in COLUMNS.items():
        value: Any = result
        for key in keys:
            value = value.get(key) if value is not None else None
        figures[column] = value
    return figures


def _cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    spread = f" ± {statistics.stdev(known):.1f}" if len(known) > 1 else ""
    return f"{statistics.mean(known):.1f}{spread}"


if __name__ == "__main__":
    main()
