"""The README's picture of real detections.

    python -m figures.balancing runs/balancing recording.npz

Draws the median frame of a recording without ground truth: its views with repaired joints, and the
3D pose lifted from one of them, into figures/.
"""

import sys
from pathlib import Path

from canonlift import checkpoint, pictures
from canonlift.data.session import read_one
from canonlift.evaluation import predict

HERE = Path(__file__).parent


def main(run: Path, path: Path) -> None:
    """Predict the recording and draw."""
    model = checkpoint.load_model(run)
    recording = read_one(path, model.joints)
    prediction = predict(model, recording)
    place = pictures.notable_frames(recording, prediction)["median"]
    title = f"Real detections, four cameras, frame {place.frame}"
    pictures.refinement(recording, prediction, place.frame, title, HERE / "balancing_2d.png")
    title = f"Lifted from {recording.views[place.view]} alone, frame {place.frame}"
    pictures.poses(
        recording, prediction, place.frame, place.view, title, HERE / "balancing_3d.png"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
