"""Predict recordings, score the predictions, and write what comes of it."""

import itertools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from canonlift.data.prediction import FILE, Prediction, save_predictions
from canonlift.data.recording import Recording
from canonlift.evaluation import report
from canonlift.evaluation.pooled_errors import PooledErrors
from canonlift.evaluation.protocol import Timing, time_lifting
from canonlift.evaluation.recordings import Source, by_name, group_names, read
from canonlift.evaluation.report import Results
from canonlift.inference.model import Model


def evaluate(
    model: Model,
    recordings: Source | Sequence[Source] | Mapping[str, Recording],
    out: str | Path | None = None,
    run: str | Path | None = None,
    n_drawn: int = 1,
    group_by: str | None = None,
) -> Results:
    """Lift recordings, and compare the poses with the truth where it is known.

    Args:
        model: what lifts them.
        recordings: files, globs or recordings. Their joints are converted by name; without any
            ground truth, the results hold no `metrics`.
        out: folder for `predictions.npz`, `results.json` and `figures/`; None: nothing is written.
        run: folder of a training run, whose losses are drawn, too.
        n_drawn: so many recordings are drawn, the first ones.
        group_by: regular expression; recordings in whose names it finds the same are also
            reported together, as the actions of Human3.6M are.

    Raises:
        FileNotFoundError: if there are no recordings.
        ValueError: naming the file that cannot be used, or the name without a group.
    """
    sources = by_name(recordings)
    if not sources:
        raise FileNotFoundError("no recordings to evaluate; name some, or set data.test")
    pooled = PooledErrors(model, group_names(list(sources), group_by) if group_by else {})
    timings: list[Timing] = []
    figures = None if out is None else Path(out) / "figures"
    drawn = set(itertools.islice(sources, max(n_drawn, 0)))

    def predictions() -> Iterator[tuple[str, Prediction]]:
        for name, source in sources.items():
            prediction = model.lift(_read(name, source, model.joints))
            pooled.add(name, prediction)
            timings.append(time_lifting(model, prediction.recording, warm_up=not timings))
            if figures and name in drawn:
                from canonlift.output.figures.draw import draw_recording  # imports matplotlib

                draw_recording(name, prediction, model.config.fusion, figures)
            yield name, prediction

    if out is None:
        deque(predictions(), maxlen=0)
    else:
        save_predictions(predictions(), Path(out) / FILE)
    results = Results(
        pooled.results(),
        mirror=dict(model.mirror),
        train_seconds=model.train_seconds,
        frames_per_second=sum(t.views for t in timings) / sum(t.seconds for t in timings),
    )
    if out is not None and figures is not None:
        from canonlift.output.figures.draw import draw_run

        draw_run(results, None if run is None else Path(run), figures)
        results.save(Path(out) / report.FILE)
    return results


def _read(name: str, source: Path | Recording, joints: tuple[str, ...]) -> Recording:
    """A recording on the given joints; warns of those that no view ever observed."""
    recording = read(source, joints)
    never = (recording.confidence == 0).all((0, 1))
    if absent := [joint for joint, gone in zip(joints, never, strict=True) if gone]:
        print(
            f"WARNING: {name}: never observed: {', '.join(absent)}; guessed from the other "
            "joints, which makes these less accurate, too (skeleton: limbs14 needs no head)"
        )
    return recording
