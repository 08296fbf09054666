"""The figures of the studies of `benchmarks.sequence`: sequence-STUDY.png.

    python -m figures.sequence             # every study that varies something
    python -m figures.sequence weight views

Draws the rows in benchmarks/results, one curve per setting and method.
"""

import sys
from pathlib import Path

from benchmarks import rows
from benchmarks.sequence_studies import FIGURES, HEADINGS, STUDIES
from benchmarks.sequence_tables import FILE, Groups, curves, of_study
from canonlift.output.figures import style

HERE = Path(__file__).parent
LOGARITHMIC = ("weight", "segment", "length", "steps_scale")


def draw(name: str, groups: Groups, out: Path = HERE) -> Path:
    """Draw two figures of a study over what it varies."""
    study, headings = STUDIES[name], dict(zip(FIGURES, HEADINGS, strict=True))
    figure = style.figure((style.WIDTH, 3.4), study.heading.capitalize())
    panels = [style.plain(axes) for axes in figure.subplots(1, 2)]
    for axes, key in zip(panels, ("mpjpe_mm", study.beside), strict=True):
        found = curves(name, groups, key)
        for (label, points), colour in zip(found.items(), style.CURVES, strict=False):
            look = {"marker": "o", "markersize": 4, "color": colour, "label": label}
            axes.plot(*zip(*points, strict=True), **look)
        axes.set(xlabel=study.heading, ylabel=headings[key])
        if study.over in LOGARITHMIC:
            axes.set_xscale("log")
        places = sorted({x for points in found.values() for x, _ in points})
        axes.set_xticks(places, [f"{x:g}" for x in places])
        axes.minorticks_off()
    panels[0].legend(frameon=False, fontsize=style.SMALL)
    return style.save(figure, out / f"sequence-{name}.png")


if __name__ == "__main__":
    found = rows.read(rows.RESULTS / FILE)
    for name in sys.argv[1:] or [name for name, study in STUDIES.items() if study.over]:
        print(draw(name, of_study(name, found)))
