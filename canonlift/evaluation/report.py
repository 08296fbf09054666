"""Results: a mapping that is written as `results.json`, and a table to print."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from canonlift import files

FILE = "results.json"


class Results(dict[str, Any]):
    """All that was measured: what `results.json` holds, by the same keys."""

    @property
    def metrics(self) -> dict[str, float]:
        """Errors over all poses, such as `n_mpjpe_mm`; empty where no truth is known."""
        return self.get("metrics", {})

    def table(self) -> str:
        """The errors as a table to print; empty where nothing could be measured."""
        return "\n".join(_table(self))

    def save(self, path: str | Path) -> None:
        """Write them as JSON; a number that is not finite becomes null."""
        text = json.dumps(_finite(self), indent=2, allow_nan=False) + "\n"
        files.write(Path(path), lambda file: file.write(text.encode()))


def _table(results: Results) -> list[str]:
    lines = []
    if "metrics" in results:
        lines += [*_pose_table(_rows(results)), *_motion(results["metrics"])]
    if "per_group" in results:
        rows = results["per_group"] | {"mean of these": results["mean_over_groups"]}
        lines += ["", *_pose_table(rows)]
    if "refinement" in results:
        refinement = results["refinement"]
        lines += ["", f"{'2D error':24}{'all joints':>12}{'unsure':>12}"]
        for kind, name in (("detected", "detected"), ("refined", "refined, several views")):
            everywhere, unsure = refinement[f"{kind}_px"], refinement[f"{kind}_unsure_px"]
            lines.append(f"{name:24}{everywhere:9.1f} px" + _or_dash(unsure))
    fused = results.get("fused", {})
    if "agreement" in results:
        gap = results["agreement"]
        own, others = gap["own_view_pct"], gap["other_views_pct"]
        line = f"Reprojection error (% of the person's size): own view {own:.1f}, "
        line += f"other views {others:.1f}"
        if "reprojection_pct" in fused:
            line += f", all views fused {fused['reprojection_pct']:.1f}"
        lines += ["", line]
    if "bone_spread_pct" in fused:
        lines.append(f"Bone lengths of all views fused vary by {fused['bone_spread_pct']:.1f} %")
    return lines


def _rows(results: Results) -> dict[str, Mapping[str, float | int]]:
    """Methods to compare, and their metrics."""
    rows = {"canonlift, from one view": results["metrics"]}
    if "metrics" in (fused := results.get("fused", {})):
        counts = sorted({fused["protocol"][f"{which}_views"] for which in ("fewest", "most")})
        rows[f"canonlift, {' to '.join(map(str, counts))} views"] = fused["metrics"]
    rows["mean pose"] = results["baselines"]["mean_pose"]
    rows["flat (depth 0)"] = results["baselines"]["flat"]
    return rows


def _pose_table(rows: Mapping[str, Mapping[str, float | int]]) -> list[str]:
    width = max(map(len, rows))
    lines = [f"{'':{width}}{'N-MPJPE':>9}{'PA-MPJPE':>10}{'MPJPE':>10}{'N-PCK':>8}{'AUC':>7}"]
    for name, row in rows.items():
        lines.append(
            f"{name:{width}}{row['n_mpjpe_mm']:6.1f} mm{row['pa_mpjpe_mm']:7.1f} mm"
            f"{row['mpjpe_mm']:7.1f} mm{row['n_pck_150']:6.1f} %{row['auc']:7.1f}"
        )
    return lines


def _motion(metrics: Mapping[str, float]) -> list[str]:
    if not math.isfinite(metrics["mpjve_mm_s"]):
        return []
    return [
        "",
        f"Motion error: {metrics['mpjve_mm_s']:.0f} mm/s (MPJVE), "
        f"{metrics['acceleration_m_s2']:.1f} m/s² (acceleration)",
    ]


def _or_dash(error_px: float) -> str:
    return f"{'–':>12}" if math.isnan(error_px) else f"{error_px:9.1f} px"


def _finite(value: Any) -> Any:
    """The same with None for numbers that are not finite, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
