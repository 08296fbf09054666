"""The figures of the demo: refinement, fusion, pose, losses, joint_errors, motion.

    python -m figures.demo [runs/demo]
    python -m figures.demo runs/sequence runs/demo    # motion.png alone, of both

Draws from the run's own checkpoint and test recordings into figures/: the frame of test_00 whose
joints were repaired most, how one of them was repaired, its 3D pose, the losses of the training
and the error of each joint; of a run over time, the motion of the hands beside that of a run of
single frames.
"""

import sys
import tempfile
from pathlib import Path

from canonlift.data.frames import read_one
from canonlift.evaluation.evaluate import evaluate
from canonlift.evaluation.recordings import held_out
from canonlift.inference.model import load
from canonlift.inference.predict import predict
from canonlift.output.figures.motion import draw_motion
from canonlift.output.figures.notable_frames import notable_frames

HERE = Path(__file__).parent
FIGURES = {
    "refinement.png": "test_00-most_repaired-refinement.png",
    "fusion.png": "test_00-most_repaired-fusion.png",
    "pose.png": "test_00-median-pose.png",
    "losses.png": "losses.png",
    "joint_errors.png": "joint_errors.png",
}


def draw(run: Path, out: Path = HERE) -> None:
    """Evaluate a run, and keep the figures that the documentation shows."""
    model = load(run)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        evaluate(model, held_out(model.config, run), folder, run)
        for name, source in FIGURES.items():
            (out / name).write_bytes((Path(folder) / "figures" / source).read_bytes())


def draw_over_time(run: Path, single: Path, out: Path = HERE) -> None:
    """Draw the motion of the hands around the median frame of the first run."""
    model, other = load(run), load(single)
    recording = read_one(held_out(model.config, run)[0], model.joints)
    prediction = predict(model.network, model.config, recording)
    frame, view, _ = notable_frames(prediction)["median"]
    title = f"Motion of the hands, lifted from {recording.views[view]} alone"
    beside = "one frame at a time", predict(other.network, other.config, recording)
    draw_motion(prediction, frame, view, title, out / "motion.png", beside)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        draw_over_time(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        draw(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/demo"))
