"""The README's pictures of four cameras.

    python -m figures.balancing runs/balancing balancing.npz

Draws the health of a recording without ground truth, and how a browser (chromium) shows the page
of it at the median frame, into figures/.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from canonlift.data.recording import Recording, load
from canonlift.data.samples import read_one
from canonlift.inference.predict import predict
from canonlift.inference.reconstruction import reconstruct
from canonlift.output import viewer
from canonlift.output.figures import pictures
from canonlift.readers.health import examine
from canonlift.training import checkpoint
from canonlift.training.checkpoint import Model

HERE = Path(__file__).parent


def main(run: Path, path: Path) -> None:
    """Predict the recording and draw."""
    pictures.health(examine(load(path)), HERE / "balancing_health.png")
    model = checkpoint.load_model(run)
    recording = read_one(path, model.joints)
    place = pictures.notable_frames(recording, predict(model, recording))["median"]
    page_of(model, recording, path.stem, place.frame, HERE / "balancing_page.png")


def page_of(model: Model, recording: Recording, name: str, frame: int, picture: Path) -> None:
    """Photograph the page of a recording at a frame."""
    prediction = predict(model, recording)
    fused = reconstruct(recording, prediction)
    take = viewer.Take(name, recording, prediction, fused.pose, fused.rotation)
    with tempfile.TemporaryDirectory() as folder:
        page = viewer.write([take], Path(folder) / "page.html")
        subprocess.run(
            [
                "chromium", "--headless", "--no-sandbox", "--hide-scrollbars",
                f"--user-data-dir={folder}/profile", "--window-size=1440,900",
                "--virtual-time-budget=2000", f"--screenshot={picture}",
                f"{page.as_uri()}#frame={frame}",
            ],
            check=True,
            capture_output=True,
        )  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
