"""What `benchmarks.sequence` asks: methods, experiments, and the studies that they are rows of."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple

from benchmarks import films, ptz
from benchmarks.films import Setting

LABELLED = "asf-03_*.npz"  # whose 3D is read where that of one person is

_STUDIO = films.SETTINGS["studio"].cameras
ANGLES = (15, 30, 45, 60, 90, 120, 150, 180)
SETTINGS: Mapping[str, Setting] = {
    **films.SETTINGS,
    # Two of the studio's cameras, so many degrees apart.
    **{
        f"pair{angle}": Setting(
            replace(_STUDIO, n_views=2, azimuths_deg=(0.0, float(angle)), azimuth_jitter_deg=0.0)
        )
        for angle in ANGLES
    },
    "ring": Setting(replace(_STUDIO, n_views=6)),
}


class Method(NamedTuple):
    """What is minimised after pretraining (the papers' Eqs. 5 to 8)."""

    weights: Mapping[str, float]
    target: str = "none"
    labelled: str = ""  # clips whose 3D alone is read; with `pose3d` all others are left out


IN_3D = {"target_position": 1.0, "target_velocity": 20.0, "target_scale_free": 0.5}
_OF_VIEWS = {"own_view": 0.1, "other_views": 1.0, "consistency": 0.1}
METHODS: Mapping[str, Method | None] = {
    "still": None,
    "truth": None,
    "pretrained": None,
    "2d": Method({"own_view": 1.0}),
    "2d+consistency": Method({"own_view": 1.0, "consistency": 1.0}),
    "2d+as printed": Method({"own_view": 1.0, "consistency_as_printed": 1.0}),
    "2d+ours": Method(_OF_VIEWS),
    "3d of one": Method(IN_3D, "pose3d", LABELLED),
    "3d of one+ours": Method(IN_3D | _OF_VIEWS, labelled=LABELLED),
    "3d": Method(IN_3D, "pose3d"),
    "3d+consistency": Method(IN_3D | {"consistency": 0.2}, "pose3d"),
}
# Not trained: bodies that stay as they are on average, and the truth at the rate of the windows,
# with straight lines in between.
REFERENCES = ("still", "truth")
ALONE = (*REFERENCES, "pretrained", "2d", "3d of one", "3d")  # views are not related

FIGURES = {
    "mpjpe_mm": 1, "n_mpjpe_mm": 1, "pa_mpjpe_mm": 1, "mpjve_mm_s": 0, "acceleration_m_s2": 2,
    "spread": 2, "depth": 2, "movement": 2, "train_seconds": 0,
}  # fmt: skip
HEADINGS = (
    "MPJPE mm", "N-MPJPE mm", "PA-MPJPE mm", "MPJVE mm/s", "acceleration m/s²", "size", "depth",
    "movement", "train s",
)  # fmt: skip


@dataclass(frozen=True)
class Experiment:
    """One training and its evaluation: what a row is of."""

    method: str
    setting: str
    seed: int = 0
    start: str = "pretrained"  # or random
    segment: int = 0  # 0 and from `length` on: the whole window
    length: int = 81  # at 10 fps, as long as 243 frames of SkiPose
    weight: float | None = None  # of the consistency, in place of the method's
    n_views: int | None = None  # train on the first of them only
    offset_ms: float = 0.0  # by which every other view is late, in training
    steps_scale: float = 1.0

    def longer(self, factor: float) -> "Experiment":
        """The same, trained for `factor` times as many steps."""
        return replace(self, steps_scale=factor * self.steps_scale)


def key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells the rows of different experiments apart."""
    return tuple(row[name] for name in Experiment.__dataclass_fields__)


Experiments = Callable[[], Iterator[Experiment]]
SEGMENT = 27  # frames
PRINTED = 0.3  # weight of the consistency beside a 2D loss of 1 in the papers


def _headline() -> Iterator[Experiment]:
    both, seeds = ("studio", "ski"), ptz.SEEDS
    every = ("2d", "2d+consistency", "2d+ours", "3d", "3d+consistency")
    for setting, method in product(both, (*REFERENCES, "pretrained")):
        yield Experiment(method, setting)
    for seed, setting, method in product(seeds, both, every):
        yield Experiment(method, setting, seed)
    for seed, setting in product(seeds, both):
        yield Experiment("2d+as printed", setting, seed, weight=PRINTED)
    for seed in seeds:  # as they do where cameras move
        yield Experiment("2d+as printed", "ski", seed, weight=PRINTED, segment=1)
    for seed, setting, method, segment in product(seeds, both, every[1:3], (SEGMENT, 1)):
        yield Experiment(method, setting, seed, segment=segment)
    for seed, setting, method in product(seeds, both, (*every[:4], "3d of one", "3d of one+ours")):
        yield Experiment(method, setting, seed, start="random")


def _over(field: str, values: Sequence[Any], **fixed: Any) -> Experiments:
    return lambda: (Experiment(**fixed, **{field: value}) for value in values)


def _all(*parts: Experiments) -> Experiments:
    return lambda: (row for part in parts for row in part())


_CONSISTENCY, _OURS = {"method": "2d+consistency"}, {"method": "2d+ours"}
_PAIRS = [f"pair{angle}" for angle in ANGLES]
_WEIGHTS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_OFFSETS_MS = (0.0, 50.0, 100.0, 200.0)


class Study(NamedTuple):
    """A question, and the rows that answer it."""

    experiments: Experiments
    over: str = ""  # the field along the horizontal axis; empty: a table alone
    heading: str = ""
    beside: str = "pa_mpjpe_mm"  # figure of the right panel


STUDIES: Mapping[str, Study] = {
    "headline": Study(_headline),
    "views": Study(
        _all(
            _over("n_views", range(1, 7), **_OURS, setting="ring"),
            _over("n_views", (2, 3, 4, 6), **_CONSISTENCY, setting="ring"),
            _over("n_views", (1, 6), method="3d", setting="ring"),
            _over("n_views", (2, 6), method="3d+consistency", setting="ring"),
            _over("n_views", (2, 6), method="2d", setting="ring"),
        ),
        "n_views",
        "views in training",
    ),
    "second_view": Study(
        _all(_over("setting", _PAIRS, **_OURS), _over("setting", _PAIRS[1::2], **_CONSISTENCY)),
        "setting",
        "degrees between two views",
    ),
    "segment": Study(
        _all(
            _over("segment", (1, 3, 9, 27, 0), **_OURS, setting="ski"),
            _over("segment", (1, 27, 0), **_CONSISTENCY, setting="ski"),
        ),
        "segment",
        "frames of a segment, at 10 fps",
    ),
    "length": Study(
        _all(
            _over("length", (9, 27, 81), **_OURS, setting="ski"),
            _over("length", (9, 27, 81), **_OURS, setting="studio"),
        ),
        "length",
        "frames of a window, at 10 fps",
    ),
    "weight": Study(
        _all(
            _over("weight", _WEIGHTS, **_CONSISTENCY, setting="studio"),
            _over("weight", _WEIGHTS[2:], method="2d+as printed", setting="studio"),
        ),
        "weight",
        "weight of the consistency",
        "movement",
    ),
    "offset": Study(
        _all(
            _over("offset_ms", _OFFSETS_MS, **_OURS, setting="studio"),
            _over("offset_ms", _OFFSETS_MS, **_CONSISTENCY, setting="studio"),
        ),
        "offset_ms",
        "milliseconds by which every other view is late",
    ),
    "training": Study(
        _all(
            *(
                _over("steps_scale", (0.5, 1.0, 2.0, 4.0), method=method, setting="studio")
                for method in ("2d+consistency", "2d+ours", "3d")
            )
        ),
        "steps_scale",
        "length of training, relative to the other studies",
    ),
}
