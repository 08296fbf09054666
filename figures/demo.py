"""The README's pictures of the demo.

    python -m figures.demo [runs/demo]
    python -m figures.demo runs/sequence    # of a sequence model: motion.png alone

Draws from the run's own checkpoint and test recordings into figures/: the frame of test_00 whose
joints were repaired most, how one of them was repaired, its 3D pose, the course of the training
and the error of each joint; of a sequence model, how its hands move.
"""

import sys
from pathlib import Path

from canonlift import checkpoint
from canonlift.evaluation import evaluate
from eval import test_recordings

HERE = Path(__file__).parent
PICTURES = {
    "refinement.png": "test_00-most_repaired-refinement.png",
    "fusion.png": "test_00-most_repaired-fusion.png",
    "pose.png": "test_00-median-pose.png",
    "losses.png": "losses.png",
    "joint_errors.png": "joint_errors.png",
}
OVER_TIME = {"motion.png": "test_00-median-motion.png"}


def main(run: Path) -> None:
    """Evaluate into RUN/readme and keep the pictures that the README shows."""
    model = checkpoint.load_model(run)
    out = run / "readme"
    evaluate(model, test_recordings(model, run), out, run)
    pictures = OVER_TIME if model.config.is_sequence else PICTURES
    for name, source in pictures.items():
        (out / "figures" / source).replace(HERE / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/demo"))
