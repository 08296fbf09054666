"""The README's pictures of real detections.

    python -m figures.balancing runs/balancing recording.npz

Draws the health of a recording without ground truth, its median frame (the views with repaired
joints, and the 3D pose lifted from one of them), and how a browser (chromium) shows the page of
it, into figures/.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from canonlift import checkpoint, pictures, viewer
from canonlift.data.health import examine
from canonlift.data.recording import load
from canonlift.data.session import read_one
from canonlift.evaluation import predict
from canonlift.reconstruction import reconstruct

HERE = Path(__file__).parent


def main(run: Path, path: Path) -> None:
    """Predict the recording and draw."""
    pictures.health(examine(load(path)), HERE / "balancing_health.png")
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
    fused = reconstruct(recording, prediction)
    take = viewer.Take(path.stem, recording, prediction, fused.pose, fused.rotation)
    with tempfile.TemporaryDirectory() as folder:
        page = viewer.write([take], Path(folder) / "page.html")
        picture = HERE / "balancing_page.png"
        subprocess.run(
            [
                "chromium", "--headless", "--no-sandbox", "--hide-scrollbars",
                f"--user-data-dir={folder}/profile", "--window-size=1440,900",
                "--virtual-time-budget=2000", f"--screenshot={picture}",
                f"{page.as_uri()}#frame={place.frame}",
            ],
            check=True,
            capture_output=True,
        )  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
