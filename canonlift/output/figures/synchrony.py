"""When the views of a recording started, and how certain that is."""

from pathlib import Path

import numpy as np

from canonlift.output.figures import style
from canonlift.output.figures.notable_frames import mean
from canonlift.readers.synchronise import Synchrony


def draw_synchrony(found: Synchrony, path: Path, title: str = "When the views started") -> Path:
    """Draw how much motion each view has in common with the others, over when it started.

    A thin line per other view, a thick one for their mean, and a mark at what was found; a second
    peak as high as the first is what makes an offset ambiguous.
    """
    others = range(1, len(found.views))
    n_rows = max(1, len(others))
    figure = style.figure((style.WIDTH, 0.9 + 1.25 * n_rows), title)
    grid = figure.subplots(n_rows, 1, squeeze=False, sharex=True, sharey=True).ravel().tolist()
    for view, axes in zip(others, grid, strict=False):
        style.plain(axes)
        rows = []
        for (a, b), curve in zip(found.pairs, found.curves, strict=True):
            if view in (a, b):
                late = curve if view == b else curve[::-1]
                lag_s = found.lag_s - found.offset_s[a if view == b else b]
                rows.append(np.interp(lag_s, found.lag_s, late, np.nan, np.nan))
        axes.plot(found.lag_s, np.transpose(rows), color=style.RULE, linewidth=0.5)
        axes.plot(found.lag_s, mean(np.array(rows), axis=0), color=style.INK, linewidth=1.2)
        offset, error = found.offset_s[view], found.error_s[view]
        colour = style.RIGHT if found.ambiguous else style.REFINED
        axes.axvline(offset, color=colour, linewidth=1.2)
        note = f"{offset:+.3f} s ± {max(1000 * error, 1):.0f} ms"
        style.title(axes, style.short(found.views[view]), note)
        axes.set_ylim(0)
        axes.margins(x=0)
    warning = "AMBIGUOUS, " if found.ambiguous else ""
    first = style.short(found.views[0])
    grid[-1].set_xlabel(f"seconds later than {first} ({warning}confidence {found.confidence:.2f})")
    figure.supylabel("share of motion in common", fontsize=style.SMALL, color=style.PALE)
    return style.save(figure, path)
