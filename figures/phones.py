"""The README's pictures of two phones.

    python -m figures.phones runs/limbs phone_a.dat phone_b.dat

Draws how the second was found to have started later, and how a browser (chromium) shows the page
of both, into figures/.
"""

import sys
from pathlib import Path

from canonlift.output.figures import pictures
from canonlift.readers import synchronise
from canonlift.readers.detectors.assemble import Options, read
from canonlift.training import checkpoint
from figures.balancing import page_of

HERE = Path(__file__).parent
FPS = 30.0


def main(run: Path, phones: list[Path]) -> None:
    """Read, synchronise, predict and draw."""
    recording, _ = read(phones, options=Options(fps=(FPS,), rig="desk"))
    synchrony = synchronise.estimate(recording)
    pictures.synchronisation(synchrony, HERE / "phones_sync.png")
    model = checkpoint.load_model(run)
    together = synchronise.apply(recording, synchrony.offset_s).on_skeleton(model.joints)
    page_of(model, together, "phones", 300, HERE / "phones_page.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(word) for word in sys.argv[2:]])
