"""The README's figures of the demo.

    python -m figures.demo [runs/demo]
    python -m figures.demo runs/sequence runs/demo    # motion.png alone, of both

Draws from the run's own checkpoint and test recordings into figures/: the frame of test_00 whose
joints were repaired most, how one of them was repaired, its 3D pose, the course of the training
and the error of each joint; of a sequence model, how its hands move beside the prediction of a
model of single frames.
"""

import sys
from pathlib import Path

from canonlift.data.recording import load as read
from canonlift.evaluation.evaluate import evaluate
from canonlift.evaluation.recordings import held_out
from canonlift.inference.model import load
from canonlift.output.figures.motion import draw_motion
from canonlift.output.figures.notable import notable_frames

HERE = Path(__file__).parent
FIGURES = {
    "refinement.png": "test_00-most_repaired-refinement.png",
    "fusion.png": "test_00-most_repaired-fusion.png",
    "pose.png": "test_00-median-pose.png",
    "losses.png": "losses.png",
    "joint_errors.png": "joint_errors.png",
}


def main(run: Path) -> None:
    """Evaluate into RUN/readme and keep the figures that the README shows."""
    model = load(run)
    out = run / "readme"
    evaluate(model, held_out(model.config, run), out, run)
    for name, source in FIGURES.items():
        (out / "figures" / source).replace(HERE / name)


def over_time(run: Path, single: Path) -> None:
    """Draw the motion of the hands around the median frame of the first."""
    model, other = load(run), load(single)
    recording = read(held_out(model.config, run)[0])
    prediction = model.lift(recording)
    place = notable_frames(prediction)["median"]
    title = f"Motion of the hands, lifted from {recording.views[place.view]} alone"
    beside = "one frame at a time", other.lift(recording)
    path = HERE / "motion.png"
    draw_motion(prediction, place.frame, place.view, title, path, beside)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        over_time(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/demo"))
