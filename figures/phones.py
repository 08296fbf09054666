"""The README's figures of two phones.

    python -m figures.phones runs/limbs phone_a.dat phone_b.dat

Draws how the second was found to have started later, and how a browser (chromium) shows the page
of both, into figures/.
"""

import sys
from pathlib import Path

from canonlift.inference.model import load
from canonlift.output.figures.synchrony import draw_synchrony
from canonlift.readers import synchronise
from canonlift.readers.detectors.assemble import Options, read
from figures.balancing import page_of

HERE = Path(__file__).parent
FPS = 30.0


def main(run: Path, phones: list[Path]) -> None:
    """Read, synchronise, predict and draw."""
    recording, _ = read(phones, options=Options(fps=(FPS,), rig="desk"))
    synchrony = synchronise.estimate(recording)
    draw_synchrony(synchrony, HERE / "phones_sync.png")
    together = synchronise.apply(recording, synchrony.offset_s)
    page_of(load(run).lift(together), "phones", 300, HERE / "phones_page.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(word) for word in sys.argv[2:]])
