"""The README's pictures of the demo.

    python -m figures.demo [runs/demo]
    python -m figures.demo runs/sequence runs/demo    # motion.png alone, of both

Draws from the run's own checkpoint and test recordings into figures/: the frame of test_00 whose
joints were repaired most, how one of them was repaired, its 3D pose, the course of the training
and the error of each joint; of a sequence model, how its hands move beside what a model of single
frames says.
"""

import sys
from pathlib import Path

from canonlift.data.samples import read_one
from canonlift.evaluation.evaluate import evaluate
from canonlift.inference.predict import predict
from canonlift.output.figures import pictures
from canonlift.training import checkpoint
from eval import test_recordings

HERE = Path(__file__).parent
PICTURES = {
    "refinement.png": "test_00-most_repaired-refinement.png",
    "fusion.png": "test_00-most_repaired-fusion.png",
    "pose.png": "test_00-median-pose.png",
    "losses.png": "losses.png",
    "joint_errors.png": "joint_errors.png",
}


def main(run: Path) -> None:
    """Evaluate into RUN/readme and keep the pictures that the README shows."""
    model = checkpoint.load_model(run)
    out = run / "readme"
    evaluate(model, test_recordings(model, run), out, run)
    for name, source in PICTURES.items():
        (out / "figures" / source).replace(HERE / name)


def over_time(run: Path, single: Path) -> None:
    """Draw the motion of the hands around the median frame of the first."""
    model, other = checkpoint.load_model(run), checkpoint.load_model(single)
    recording = read_one(test_recordings(model, run)[0], model.joints)
    prediction = predict(model, recording)
    place = pictures.notable_frames(recording, prediction)["median"]
    title = f"Motion of the hands, lifted from {recording.views[place.view]} alone"
    beside = "one frame at a time", predict(other, recording)
    path = HERE / "motion.png"
    pictures.motion(recording, prediction, place.frame, place.view, title, path, beside)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        over_time(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/demo"))
