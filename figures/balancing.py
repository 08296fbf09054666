"""The figures of four cameras: balancing_health, balancing_page.

    python -m figures.balancing runs/balancing balancing.npz

Draws the health of a recording without ground truth, and its page at the median frame.
"""

import sys
from pathlib import Path

from canonlift.data.recording import load
from canonlift.inference import model as models
from canonlift.output.figures.health import draw_health
from canonlift.output.figures.notable_frames import notable_frames
from canonlift.readers.health import examine
from figures.pages import photograph

HERE = Path(__file__).parent


def draw(run: Path, path: Path, out: Path = HERE) -> None:
    """Lift the recording and draw."""
    recording = load(path)
    draw_health(examine(recording), out / "balancing_health.png")
    prediction = models.load(run).lift(recording)
    frame = notable_frames(prediction)["median"].frame
    photograph(prediction, path.stem, frame, out / "balancing_page.png")


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
