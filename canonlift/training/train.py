"""One training run, from a config to a finished checkpoint."""

from pathlib import Path
from typing import Any, NamedTuple

from canonlift import distributed
from canonlift.data.windows import Samples
from canonlift.training import loop, runs, session
from canonlift.training.config import Config
from canonlift.training.loop import Hooks
from canonlift.training.mean_pose import mean_pose
from canonlift.training.mirror import check_mirror
from canonlift.training.monitor import begin_phase, watch_poses
from canonlift.training.runs import Run


class Outcome(NamedTuple):
    """What a training run leaves."""

    run: Path  # its folder
    test: list[Path]  # recordings that the config sets aside for evaluation


def train(
    config: Config,
    out: Path,
    resume: bool = False,
    hooks: Hooks | None = None,
    log_every: int | None = None,
) -> Outcome:
    """Run every phase of `config`, and leave a finished checkpoint in `out`.

    `hooks` are HOOKS, and every LOG_EVERY-th step is logged, unless given.

    Raises:
        FileExistsError: if `out` holds a run that is not to be resumed.
        FloatingPointError: if the loss is not finite, naming step, term and recording.
        Collapsed: if the poses have shrunk to points.
        Interrupted: if the process was asked to stop; the run can be resumed.
    """
    begun = (out / "config.yaml").exists()
    run = runs.start(config, out, resume)
    try:
        train_paths, test_paths = distributed.from_first(
            lambda: session.find_recordings(config, out)
        )
        samples = session.read(config, train_paths)
    except Exception:
        if not begun:
            runs.withdraw(out)
        raise
    loop.fit(run, samples, hooks or HOOKS, log_every or loop.LOG_EVERY)
    return Outcome(out, test_paths)


def _finish(run: Run, samples: Samples) -> dict[str, Any]:
    return {"mean_pose": mean_pose(run.network, samples)}


HOOKS = Hooks(
    phase_begins=(begin_phase,),
    logged=(watch_poses,),
    phase_ends=(check_mirror,),
    finished=_finish,
)
