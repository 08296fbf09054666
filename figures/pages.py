"""How a browser (chromium) shows the page of a recording."""

import subprocess
import tempfile
from pathlib import Path

from canonlift.data.prediction import Prediction
from canonlift.output import viewer


def photograph(prediction: Prediction, name: str, frame: int, picture: Path) -> None:
    """Write the page as shown at a frame as a PNG."""
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
