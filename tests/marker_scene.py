"""Bodies as markers, in metres and y up."""

import numpy as np
from scipy.spatial.transform import Rotation

from canonlift.body.skeleton import H36M17
from canonlift.output.export.markers import SEGMENTS, Markers
from canonlift.simulation.athlete import perform, sample_person
from canonlift.simulation.motions import MOTIONS


def motion(n_frames=40, fps=30.0, seed=0, holes=True):
    """A person in metres, y up, relative to the pelvis, with joints and frames missing."""
    g = np.random.default_rng(seed)
    positions = perform(sample_person(g), list(MOTIONS), n_frames, fps, g)
    positions = positions - positions[:, :1]
    if holes:
        positions[3, 5], positions[5:9, 13], positions[12] = np.nan, np.nan, np.nan
        positions[-1, 16] = np.nan
    return Markers(positions, H36M17, fps)


def standing(n_frames=50, lean=0.0, seed=0):
    """A person as tall as usual proportions say, in metres, who sways and holds arms out."""
    share = {(a, b): s for a, b, s in SEGMENTS}
    g = np.random.default_rng(seed)
    points = dict.fromkeys(H36M17, np.zeros(3))
    trunk = share[("l_hip", "r_hip"), ("l_shoulder", "r_shoulder")]
    for side, x in (("l", 0.05), ("r", -0.05)):
        points[f"{side}_hip"] = np.array([x, 0, 0])
        for upper, lower in (("hip", "knee"), ("knee", "ankle")):
            length = share[(f"{side}_{upper}",), (f"{side}_{lower}",)]
            points[f"{side}_{lower}"] = points[f"{side}_{upper}"] - [0, length, 0]
        points[f"{side}_shoulder"] = np.array([2 * x, trunk, 0])
        for upper, lower in (("shoulder", "elbow"), ("elbow", "wrist")):
            length = share[(f"{side}_{upper}",), (f"{side}_{lower}",)]
            out = length * np.array([np.sign(x) * 0.6, -0.8, 0])
            points[f"{side}_{lower}"] = points[f"{side}_{upper}"] + out
    points["thorax"] = np.array([0, trunk + 0.02, 0])
    points["spine"], points["nose"] = points["thorax"] / 2, points["thorax"] + [0, 0.05, 0.05]
    points["head"] = points["thorax"] + [0, 0.15, 0]
    body = 1.8 * np.stack([points[name] for name in H36M17])
    sway = Rotation.from_rotvec(np.radians(1) * g.standard_normal((n_frames, 3)))
    leaning = Rotation.from_euler("x", lean, degrees=True)
    return Markers(body @ (leaning * sway).as_matrix().swapaxes(1, 2), H36M17, 30.0)
