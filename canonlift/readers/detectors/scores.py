"""From detectors' scores to confidences in [0, 1], by one rule per family of detectors."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from canonlift import suggestions

Scores = Float[np.ndarray, " N"]


class Rule(NamedTuple):
    """One row of the rules."""

    apply: Callable[[Scores], Scores]  # all scores of a recording that are of observed joints
    text: str  # what is printed; {top} is the 95th percentile


def _flags(scores: Scores) -> Scores:
    return np.where(scores >= 2, 1.0, scores / 2)


def _logistic(scores: Scores) -> Scores:
    return 1 / (1 + np.exp(-scores.clip(-50, 50)))


def _relative(scores: Scores) -> Scores:
    return scores / np.quantile(scores, 0.95)


RULES: Mapping[str, Rule] = {
    "probability": Rule(lambda s: s, "taken as they are"),
    "percent": Rule(lambda s: s / 100, "divided by 100"),
    "logit": Rule(_logistic, "logits, through the logistic function"),
    "relative": Rule(
        _relative,
        "without upper bound, divided by their 95th percentile, {top:.3g}: they compare joints of "
        "this recording and are no probabilities",
    ),
    "flags": Rule(_flags, "flags: 2 visible becomes 1, 1 hidden 0.5, 0 unobserved"),
    "none": Rule(np.ones_like, "none in the files: 1 wherever a joint is given"),
}
TOLERANCE = 1.2  # rounding and interpolation in a detector put some scores a little above 1


def rule(wanted: str | None, family: str, scores: Scores, persons: Scores) -> tuple[str, Scores]:
    """The rule that scores need, by name, and the confidences it makes of them, in [0, 1].

    Args:
        wanted: a name of `RULES` that was asked for; None: by the detector's family.
        family: what the format's scores are: a name of `RULES`, or `simcc`, `visibility`, `coco`
            or `unknown`, which the numbers decide.
        scores: of observed joints; NaN where the file has none.
        persons: beside each of them the score of the person as a whole.

    Raises:
        ValueError: if no rule fits, with advice.
    """
    if wanted is not None and wanted not in RULES:
        raise suggestions.unknown("--confidence", wanted, RULES)
    given = np.isfinite(scores)
    if not given.any():
        return "none", np.ones_like(scores)
    known = scores[given]
    name = wanted or _choose(family, known)
    if name == "person":
        made = np.where(np.isfinite(persons), persons, 1.0).clip(0, 1)
        return name, made
    if name == "relative" and np.quantile(known, 0.95) <= 0:
        raise ValueError("no score is above 0; are these the detector's results?")
    made = np.zeros_like(scores)  # a joint without a score among joints with one
    made[given] = RULES[name].apply(known)
    return name, made.clip(0, 1)


def explain(name: str, scores: Scores) -> str:
    """One line: the range of the scores, and what was done to them."""
    known = scores[np.isfinite(scores)]
    if not known.size or name == "none":
        return f"confidence: {RULES['none'].text}"
    if name == "person":
        text = "all the same for each joint: the score of the whole person, or 1"
    else:
        text = RULES[name].text.format(top=np.quantile(known, 0.95))
    outside = 0
    if name == "probability":
        outside = int(((known < 0) | (known > 1)).sum())
    return f"confidence: scores from {known.min():.3g} to {known.max():.3g}, {text}" + (
        f"; outside [0, 1], clipped: {outside} of {known.size}" if outside else ""
    )


def _choose(family: str, scores: Scores) -> str:
    if family in RULES and family != "probability":
        return family
    low, high = float(scores.min()), float(scores.max())
    middle, top = float(np.median(scores)), float(np.quantile(scores, 0.95))
    if family == "simcc":
        return "probability" if top <= TOLERANCE and low >= -TOLERANCE else "relative"
    if family == "visibility":
        outside = ((scores < 0) | (scores > 1)).mean()
        return "logit" if outside > 0.1 else "probability"
    found = set(np.unique(scores)) if family == "coco" else set()
    if found and found <= {0.0, 1.0, 2.0} and found != {0.0, 1.0}:
        return "flags" if len(found) > 1 else "person"
    if middle <= 1 and top <= 2 and high <= 10 and low >= -TOLERANCE:
        return "probability"
    raise ValueError(
        f"scores from {low:.3g} to {high:.3g}, half of them above {middle:.3g}, are on no scale "
        "known of this format; say which by --confidence: percent (0 to 100), logit (any number, "
        "0 is undecided), relative (0 to any number) or none (take every joint as sure)"
    )
