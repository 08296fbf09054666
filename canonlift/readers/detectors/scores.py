"""From detectors' scores to confidences in [0, 1], by one rule per kind of score."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from canonlift import suggestions
from canonlift.readers.detectors.parsing import InputError

Scores = Float[np.ndarray, " N"]


class Rule(NamedTuple):
    """One row of the rules."""

    apply: Callable[[Scores], Scores]  # all scores of a recording that are of observed joints
    text: str  # what is printed; {top} is the 95th percentile


RULES: Mapping[str, Rule] = {
    "probability": Rule(lambda s: s, "taken as they are"),
    "percent": Rule(lambda s: s / 100, "divided by 100"),
    "logit": Rule(
        lambda s: 1 / (1 + np.exp(-s.clip(-50, 50))), "logits, through the logistic function"
    ),
    "relative": Rule(
        lambda s: s / np.quantile(s, 0.95),
        "without upper bound, divided by their 95th percentile, {top:.3g}: they compare joints of "
        "this recording and are no probabilities",
    ),
    "flags": Rule(
        lambda s: np.where(s >= 2, 1.0, s / 2),
        "flags: 2 visible becomes 1, 1 hidden 0.5, 0 unobserved",
    ),
    "none": Rule(lambda s: np.ones_like(s), "none in the files: 1 wherever a joint is given"),
}
TOLERANCE = 1.2  # rounding and interpolation in a detector put some scores a little above 1


def confidences(
    scores: Scores, persons: Scores, kind: str, wanted: str | None, where: object
) -> tuple[Scores, str]:
    """Confidences in [0, 1], and a line on the range of the scores and what was done to them.

    Args:
        scores: of observed joints; NaN where the file has none.
        persons: beside each of them the score of the person as a whole.
        kind: what scores of the format are: a name of `RULES`, or `simcc`, `visibility`, `coco`
            or `unknown`, which the numbers decide.
        wanted: a name of `RULES` that the user asked for, if any.
        where: which files, for the message of an error.

    Raises:
        InputError: if no rule fits.
        ValueError: if there is no rule of the wanted name.
    """
    if wanted is not None and wanted not in RULES:
        raise suggestions.unknown("--confidence", wanted, RULES)
    given = np.isfinite(scores)
    known = scores[given]
    name = (wanted or _choose(kind, known, where)) if known.size else "none"
    if name == "none":
        return np.ones_like(scores), f"confidence: {RULES[name].text}"
    top = np.quantile(known, 0.95)
    if name == "relative" and top <= 0:
        raise InputError(where, "no score is above 0", "are these the detector's results?")
    if name == "person":
        made = np.where(np.isfinite(persons), persons, 1.0)
        text = "all the same for each joint: the score of the whole person, or 1"
    else:
        made = np.zeros_like(scores)  # a joint without a score among joints with one
        made[given] = RULES[name].apply(known)
        text = RULES[name].text.format(top=top)
    line = f"confidence: scores from {known.min():.3g} to {known.max():.3g}, {text}"
    outside = int(((known < 0) | (known > 1)).sum()) if name == "probability" else 0
    if outside:
        line += f"; outside [0, 1], clipped: {outside} of {known.size}"
    return made.clip(0, 1), line


def _choose(kind: str, scores: Scores, where: object) -> str:
    if kind in RULES and kind != "probability":
        return kind
    low, high = float(scores.min()), float(scores.max())
    middle, top = float(np.median(scores)), float(np.quantile(scores, 0.95))
    if kind == "simcc":
        return "probability" if top <= TOLERANCE and low >= -TOLERANCE else "relative"
    if kind == "visibility":
        outside = ((scores < 0) | (scores > 1)).mean()
        return "logit" if outside > 0.1 else "probability"
    found = set(np.unique(scores)) if kind == "coco" else set()
    if found and found <= {0.0, 1.0, 2.0} and found != {0.0, 1.0}:
        return "flags" if len(found) > 1 else "person"
    if middle <= 1 and top <= 2 and high <= 10 and low >= -TOLERANCE:
        return "probability"
    raise InputError(
        where,
        f"scores from {low:.3g} to {high:.3g}, half of them above {middle:.3g}, are on no scale "
        "known of this format",
        "say which by --confidence: percent (0 to 100), logit (any number, 0 is undecided), "
        "relative (0 to any number) or none (each joint has confidence 1)",
    )
