"""The figures of two phones: phones_sync, phones_page.

    python -m figures.phones runs/limbs phone_a.dat phone_b.dat

Draws when the second was found to have started, and the page of both.
"""

import sys
from pathlib import Path

from canonlift.inference import model as models
from canonlift.output.figures.synchrony import draw_synchrony
from canonlift.readers import synchronise
from canonlift.readers.detectors.to_recording import Options, read
from figures.pages import photograph

HERE = Path(__file__).parent
FPS, FRAME = 30.0, 300


def draw(run: Path, phones: list[Path], out: Path = HERE) -> None:
    """Read, synchronise, lift and draw."""
    recording, _ = read(phones, options=Options(fps=(FPS,), rig="desk"))
    synchrony = synchronise.estimate(recording)
    draw_synchrony(synchrony, out / "phones_sync.png")
    prediction = models.load(run).lift(synchronise.apply(recording, synchrony.offset_s))
    photograph(prediction, "phones", FRAME, out / "phones_page.png")


if __name__ == "__main__":
    draw(Path(sys.argv[1]), [Path(word) for word in sys.argv[2:]])
