"""Real motion filmed by simulated, uncalibrated cameras: any method on any setting, one row each.

Examples:
    python -m benchmarks.ptz run s1+s2 ski                        # two to five minutes
    python -m benchmarks.ptz run triangulation ski                # a reference, not trained
    python -m benchmarks.ptz run baseline ski --steps-scale 0.25  # quick look; a row of its own
    python -m benchmarks.ptz all --jobs 2                         # every row that is missing
    python -m benchmarks.ptz table                                # Markdown
    python -m benchmarks.ptz table --steps                        # accuracy over training length

The films are those of `benchmarks.films`, the configs those of `benchmarks.recipes`; the seed is
that of the training. What --work holds is named after all that it was made of, so that nothing
stale is used, and may be deleted at any time.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import films, recipes, rows
from benchmarks.experiments import Predictor, evaluate, run_folder, trained, untrained
from benchmarks.films import SETTINGS, Setting
from benchmarks.recipes import Recipe
from benchmarks.rows import Row
from benchmarks.triangulation import triangulate
from canonlift.data.prediction import Prediction
from canonlift.data.recording import Recording
from canonlift.inference.model import Model
from canonlift.training.config import Config
from canonlift.training.loop import Interrupted

HEADLINE = "ski"
SEEDS = (0, 1, 2)
FIGURES = {
    "n_mpjpe_mm": 1, "pa_mpjpe_mm": 1, "n_pck_150": 1, "jdr_detected": 1, "jdr_refined": 1,
    "refined_over_detected": 3, "train_seconds": 0, "frames_per_second": 0,
}  # fmt: skip
HEADINGS = (
    "N-MPJPE mm", "PA-MPJPE mm", "N-PCK %", "JDR detected %", "JDR refined %",
    "refined / detected", "train s", "frames/s",
)  # fmt: skip

# -------------------------------------------------------------------------- methods


@dataclass(frozen=True)
class Job:
    """One method on one setting."""

    setting: Setting
    film: Path  # folder of the filmed clips
    seed: int
    steps_scale: float
    work: Path

    @property
    def test(self) -> list[Path]:
        """The clips to evaluate on."""
        return list((self.film / "test").glob("*.npz"))

    def config(self, recipe: Recipe) -> Config:
        """What a recipe trains."""
        return recipes.config_of(recipe, self.setting, self.film, self.seed, self.steps_scale)

    def trained(self, recipe: Recipe) -> Model:
        """What was trained by a recipe."""
        config = self.config(recipe)
        return trained(config, run_folder(config, self.film.name.partition("-")[0], self.work))

    def untrained(self) -> Model:
        """A model for what is scored without one."""
        return untrained(self.config(S1_S2))


Method = Callable[[Job], dict[str, Any]]  # the figures of a row
S1_S2 = recipes.table_1("s1+s2")


def learned(recipe: Recipe) -> Method:
    """Train, and evaluate one view at a time."""

    def method(job: Job) -> dict[str, Any]:
        results = evaluate(job.trained(recipe), job.test)
        timing = {name: results[name] for name in ("train_seconds", "frames_per_second")}
        return results["metrics"] | refinement(results) | timing

    return method


def flat(job: Job) -> dict[str, Any]:
    """The 2D pose with depth 0."""
    results = evaluate(job.untrained(), job.test)
    return results["baselines"]["flat"] | refinement(results, refined=False)


def mean_pose(job: Job) -> dict[str, Any]:
    """The mean of what S1+S2 predicts on its training data."""
    results = evaluate(job.trained(S1_S2), job.test)
    found = results["baselines"]["mean_pose"] | refinement(results, refined=False)
    return found | {"train_seconds": results["train_seconds"]}


def triangulation(job: Job) -> dict[str, Any]:
    """All views together, by the true cameras: a reference for what the 2D allows."""
    spent = []

    def predict_all(path: Path, recording: Recording) -> Prediction:
        cameras = films.load_cameras(job.film / "cameras" / path.name)
        start = time.perf_counter()
        pose = cameras.in_axes(triangulate(recording, cameras))
        spent.append(time.perf_counter() - start)
        return Prediction(
            recording,
            pose.astype(np.float32),
            cameras.rotation.astype(np.float32),
            cameras.project(pose).astype(np.float32),
        )

    predictor: Predictor = predict_all
    results = evaluate(job.untrained(), job.test, predictor)
    rate = results["protocol"]["poses"] / sum(spent)
    return results["metrics"] | refinement(results) | {"frames_per_second": rate}


def refinement(results: Row, refined: bool = True) -> dict[str, float | None]:
    """Figures of the 2D repair; JDR is the mean over the joints of CVSF's Table 2."""
    found, kinds = results["refinement"], ("detected", "refined")
    jdr = {f"jdr_{kind}": float(np.mean(list(found[f"jdr_{kind}"].values()))) for kind in kinds}
    if not refined:
        return {"jdr_detected": jdr["jdr_detected"]}
    return jdr | {"refined_over_detected": found["refined_px"] / found["detected_px"]}


TRAINED = ("mean_pose", "supervised", "canonpose", "baseline", "s1", "s1+s2", "sequence")
# Of the headline only, with one seed.
ABLATIONS: Mapping[str, Method] = {
    "targets": learned(recipes.targets),
    "no_consensus": learned(recipes.without("consensus")),
    "full_consistency": learned(recipes.full_consistency),
    "cvsf": learned(recipes.cvsf),
    "s1+s2_exact": learned(recipes.fused_by("exact")),
    "s1+s2_grid": learned(recipes.fused_by("grid")),
    "sequence+fusion": learned(recipes.sequence_repaired),
}
METHODS: Mapping[str, Method] = {
    "flat": flat,
    "mean_pose": mean_pose,
    "supervised": learned(recipes.supervised),
    "triangulation": triangulation,
    "canonpose": learned(recipes.canonpose),
    "baseline": learned(recipes.table_1("baseline")),
    "s1": learned(recipes.table_1("s1")),
    "s1+s2": learned(S1_S2),
    "sequence": learned(recipes.sequence),
    **ABLATIONS,
}

# ----------------------------------------------------------------------------- rows


def run(
    method: str,
    setting: str,
    seed: int,
    mocap: Path,
    work: Path,
    results: Path,
    steps_scale: float = 1.0,
) -> dict[str, Any]:
    """Train and evaluate one method on one setting, and append the row to a file in `results`.

    A row of another length goes into a file of its own, so that the table compares equals.
    """
    commit = rows.commit()
    job = Job(SETTINGS[setting], films.shoot(setting, mocap, work), seed, steps_scale, work)
    found = METHODS[method](job)
    row = {"method": method, "setting": setting, "seed": seed}
    row |= {name: found.get(name) for name in FIGURES}  # None: there is no such figure
    row |= {"commit": commit, "machine": rows.machine()}
    name = "ptz.jsonl"
    if steps_scale != 1.0:
        row, name = row | {"steps_scale": steps_scale}, "ptz_steps.jsonl"
    rows.append(results / name, row)
    return row


def run_all(jobs: int, mocap: Path, work: Path, results: Path) -> None:
    """Append every row that is missing, `jobs` at a time on one thread each.

    The headline has three seeds for all that is trained, ablations and the other settings one.
    """
    done = rows.read(results / "ptz.jsonl")
    known = {(row["method"], row["setting"], row["seed"]) for row in done}
    for setting in SETTINGS:
        films.shoot(setting, mocap, work)
    # The mean pose is that of the run of S1+S2, which must not be in the making beside it.
    for methods in (set(METHODS) - {"mean_pose"}, {"mean_pose"}):
        todo = [
            (method, setting, seed)
            for setting in SETTINGS
            for seed in (SEEDS if setting == HEADLINE else SEEDS[:1])
            for method in METHODS
            if method in methods
            and (method in TRAINED or seed == SEEDS[0])
            and (method not in ABLATIONS or setting == HEADLINE)
        ]
        missing = [(*row, mocap, work, results) for row in todo if row not in known]
        for row in rows.measured(run, missing, jobs):
            print(json.dumps(row), flush=True)


# --------------------------------------------------------------------------- tables


def overview(found: Sequence[Row]) -> str:
    """Markdown, one line per method: N-MPJPE / PA-MPJPE in every setting."""
    groups = _groups(found)
    lines = [["N-MPJPE / PA-MPJPE, mm", *SETTINGS], ["---"] + ["---:"] * len(SETTINGS)]
    known = {method for _, method, _ in groups}
    for method in METHODS:
        if method in ABLATIONS or method not in known:
            continue
        cells = []
        for setting in SETTINGS:
            seeds = groups.get((setting, method, 1.0), {}).values()
            figures = [
                rows.mean([row[name] for row in seeds], 1)
                for name in ("n_mpjpe_mm", "pa_mpjpe_mm")
            ]
            cells.append(" / ".join(figures))
        lines.append([method, *cells])
    return rows.markdown(lines)


def table(found: Sequence[Row]) -> str:
    """Markdown, one line per setting, method and length: mean over seeds, and their spread."""
    groups = _groups(found)
    settings, methods = list(SETTINGS), list(METHODS)
    order = sorted(groups, key=lambda key: (settings.index(key[0]), methods.index(key[1]), key[2]))
    scaled = any(scale != 1.0 for _, _, scale in groups)
    heads = ["setting", "method", *(["steps"] if scaled else []), *HEADINGS, "seeds"]
    lines = [heads, ["---"] * 2 + ["---:"] * (len(heads) - 2)]
    for setting, method, scale in order:
        seeds = groups[setting, method, scale]
        cells = [
            rows.mean([row[name] for row in seeds.values()], digits)
            for name, digits in FIGURES.items()
        ]
        length = [f"x {scale:g}"] if scaled else []
        lines.append([setting, method, *length, *cells, str(len(seeds))])
    return rows.markdown(lines)


def without_ablations(found: Sequence[Row]) -> list[Row]:
    """The rows of the table of all settings."""
    return [row for row in found if row["method"] not in ABLATIONS]


def ablations(found: Sequence[Row]) -> list[Row]:
    """The rows of S1+S2, of sequences and of their ablations, on the headline with one seed."""
    return [
        row
        for row in found
        if row["method"] in {"s1+s2", "sequence", *ABLATIONS}
        and (row["setting"], row["seed"]) == (HEADLINE, SEEDS[0])
    ]


def tables(results: Path) -> list[str]:
    """All tables of the rows of full length."""
    found = rows.read(results / "ptz.jsonl")
    details = filter(None, (without_ablations(found), ablations(found)))
    return [overview(found), *map(table, details)]


def table_over_steps(results: Path) -> str:
    """The rows of another length, beside those of full length of the same methods."""
    longer = rows.read(results / "ptz_steps.jsonl")
    varied = {(row["setting"], row["method"]) for row in longer}
    found = rows.read(results / "ptz.jsonl")
    return table([row for row in found if (row["setting"], row["method"]) in varied] + longer)


def _groups(found: Sequence[Row]) -> dict[tuple[str, str, float], dict[int, Row]]:
    """Rows by setting, method and length, and therein by seed."""
    groups: dict[tuple[str, str, float], dict[int, Row]] = {}
    for row in found:
        key = row["setting"], row["method"], row.get("steps_scale", 1.0)
        groups.setdefault(key, {})[row["seed"]] = row  # a later row replaces an earlier one
    return groups


# --------------------------------------------------------------------- command line


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="train and evaluate, and append a row")
    one.add_argument("method", choices=tuple(METHODS))
    one.add_argument("setting", choices=tuple(SETTINGS))
    one.add_argument("--seed", type=int, default=0, metavar="N", help="of the training")
    one.add_argument(
        "--steps-scale", type=float, default=1.0, metavar="F", help="factor on all steps"
    )
    every = commands.add_parser("all", help="append every row of the table that is missing")
    every.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time")
    show = commands.add_parser("table", help="print the rows as Markdown")
    show.add_argument("--steps", action="store_true", help="with the runs of another length")
    for command in (one, every):
        command.add_argument("--data", type=Path, default=films.MOCAP, metavar="NPZ")
        command.add_argument("--work", type=Path, default=rows.WORK, metavar="DIR")
    for command in (one, every, show):
        command.add_argument("--results", type=Path, default=rows.RESULTS, metavar="DIR")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Measure rows, or print them."""
    args = arguments().parse_args(argv)
    try:
        if args.command == "run":
            row = run(
                args.method, args.setting, args.seed, args.data, args.work, args.results,
                args.steps_scale,
            )  # fmt: skip
            print(f"\n{json.dumps(row)}\n\n{table([row])}")
        elif args.command == "all":
            run_all(args.jobs, args.data, args.work, args.results)
        elif args.steps:
            print(table_over_steps(args.results))
        else:
            print(*tables(args.results), sep="\n\n")
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"ptz: {error}")
    except (Interrupted, KeyboardInterrupt):
        print("ptz: stopped and saved; the same command continues from there", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
