"""The README's figures of four cameras.

    python -m figures.balancing runs/balancing balancing.npz

Draws the health of a recording without ground truth, and how a browser (chromium) shows the page
of it at the median frame, into figures/.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from canonlift.data.prediction import Prediction
from canonlift.data.recording import load
from canonlift.inference.model import load as load_model
from canonlift.output import viewer
from canonlift.output.figures.health import draw_health
from canonlift.output.figures.notable import notable_frames
from canonlift.readers.health import examine

HERE = Path(__file__).parent


def main(run: Path, path: Path) -> None:
    """Predict the recording and draw."""
    draw_health(examine(load(path)), HERE / "balancing_health.png")
    prediction = load_model(run).lift(load(path))
    place = notable_frames(prediction)["median"]
    page_of(prediction, path.stem, place.frame, HERE / "balancing_page.png")


def page_of(prediction: Prediction, name: str, frame: int, picture: Path) -> None:
    """Photograph the page of a recording at a frame."""
    with tempfile.TemporaryDirectory() as folder:
        page = viewer.write({name: prediction}, Path(folder) / "page.html")
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
