"""What the methods of `benchmarks.ptz` train: each a change of the demo's config."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from glob import escape
from pathlib import Path

from benchmarks.experiments import scaled, weighted
from benchmarks.films import Setting
from canonlift.training import config as configs
from canonlift.training.config import Config, DataConfig

Recipe = Callable[[Config, Setting], Config]

# The rows of CVSF's Table 1: the terms that each is without.
WITHOUT: Mapping[str, tuple[str, ...]] = {
    "baseline": ("refinement", "repaired_reprojection", "consensus", "consistency_3d"),
    "s1": ("consistency_3d",),
    "s1+s2": (),
}


def config_of(
    recipe: Recipe, setting: Setting, film: Path, seed: int, steps_scale: float
) -> Config:
    """What a recipe trains on the films in a folder."""
    demo = configs.load("demo")
    train, test = ([f"{escape(str(film / split))}/*.npz"] for split in ("train", "test"))
    demo = replace(
        demo,
        seed=seed,
        data=DataConfig(train, test, demo.data.target),
        fusion=replace(demo.fusion, threshold=setting.threshold),
    )
    config = recipe(demo, setting)
    return replace(config, schedule=[scaled(phase, steps_scale) for phase in config.schedule])


def table_1(row: str) -> Recipe:
    """The demo's schedule: learn solved targets, then stages 1 and 2 with a row's terms."""

    def recipe(demo: Config, _: Setting) -> Config:
        return weighted(demo, dict.fromkeys(WITHOUT[row], 0.0))

    return recipe


def canonpose(demo: Config, setting: Setting) -> Config:
    """Reprojection from a random start, with the camera term where the cameras are fixed."""
    weights = {"reprojection": 1.0}
    if setting.cameras.fixed:
        weights["camera_consistency"] = 0.1
    return _one_phase(demo, "canonpose", "none", weights)


def supervised(demo: Config, _: Setting) -> Config:
    """The same network, trained with the true poses."""
    return _one_phase(demo, "supervised", "pose3d", {"target_pose": 1.0})


def targets(demo: Config, _: Setting) -> Config:
    """The solved targets alone: no term of the papers."""
    return _one_phase(demo, "targets", demo.data.target, {"target_pose": 1.0})


def sequence(demo: Config, _: Setting) -> Config:
    """Windows, related by similarities; after the same start."""
    ours = configs.load("sequence")
    return replace(
        demo,
        batch_size=ours.batch_size,
        flip=ours.flip,
        windows=ours.windows,
        model=ours.model,
        relation=ours.relation,
        schedule=ours.schedule,
    )


def sequence_repaired(demo: Config, setting: Setting) -> Config:
    """`sequence`, whose own detections are first repaired by the other views."""
    config = sequence(demo, setting)
    start, views = config.schedule
    weights = {**views.weights, "own_view": 0.0, "repaired_own_view": views.weights["own_view"]}
    return replace(config, schedule=[start, replace(views, weights=weights)])


def without(term: str) -> Recipe:
    """S1+S2 less one of its terms."""

    def recipe(demo: Config, setting: Setting) -> Config:
        return weighted(table_1("s1+s2")(demo, setting), {term: 0.0})

    return recipe


def full_consistency(demo: Config, setting: Setting) -> Config:
    """S1+S2 with the paper's weight on `consistency_3d` in stage 2."""
    config = table_1("s1+s2")(demo, setting)
    *rest, last = config.schedule
    weights = {**last.weights, "consistency_3d": 1.0}
    return replace(config, schedule=[*rest, replace(last, weights=weights)])


def cvsf(demo: Config, _: Setting) -> Config:
    """The paper's own weights and map, from a random start; the exact maximum of the map."""
    paper = configs.load("cvsf")
    each = sum(phase.steps for phase in demo.schedule) // len(paper.schedule)
    schedule = [
        replace(pace, name=phase.name, steps=each, weights=phase.weights)
        for phase, pace in zip(paper.schedule, (demo.schedule[0], demo.schedule[-1]), strict=True)
    ]
    fusion = replace(paper.fusion, method="exact", threshold=demo.fusion.threshold)
    data = replace(demo.data, target="none")
    return replace(demo, data=data, fusion=fusion, schedule=schedule)


def fused_by(method: str) -> Recipe:
    """S1+S2 with another way to repair joints."""

    def recipe(demo: Config, setting: Setting) -> Config:
        config = table_1("s1+s2")(demo, setting)
        return replace(config, fusion=replace(config.fusion, method=method))

    return recipe


def _one_phase(demo: Config, name: str, target: str, weights: dict[str, float]) -> Config:
    """As many steps as the demo's, with the pace of its first phase."""
    steps = sum(phase.steps for phase in demo.schedule)
    phase = replace(demo.schedule[0], name=name, steps=steps, weights=weights)
    return replace(demo, data=replace(demo.data, target=target), schedule=[phase])
