"""One experiment as a tree of dataclasses, read strictly from YAML."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from canonlift.body.skeleton import SKELETONS
from canonlift.data.windows import WindowConfig
from canonlift.methods.fusion import FusionConfig
from canonlift.methods.passes import Method
from canonlift.methods.relations import RELATIONS, RelationConfig
from canonlift.methods.terms import MEASURES, NEEDS, TERMS
from canonlift.models import table
from canonlift.models.config import ModelConfig
from canonlift.simulation.session import SimulateConfig
from canonlift.suggestions import unknown
from canonlift.training.schedule import PhaseConfig

TARGETS = {
    "none": "no 3D target",
    "solved": "solved from all views together; self-supervised",
    "pose3d": "the recordings' ground truth; supervised",
}


@dataclass(frozen=True)
class DataConfig:
    """Which recordings are read."""

    train: list[str] = field(default_factory=list)  # globs, from where the program is started
    test: list[str] = field(default_factory=list)
    target: str = "none"  # row of TARGETS, for the terms that learn from 3D
    supervised: list[str] = field(default_factory=list)  # of train: 3D of these alone is read
    simulate: SimulateConfig | None = None  # film a session into RUN/session, and read that
    shards: str | None = None  # folder for copies, to train on more than fits into memory

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise unknown("data.target", self.target, TARGETS)
        if self.supervised and self.target == "pose3d":
            raise ValueError(
                "data.target: pose3d reads the 3D of all recordings, data.supervised that of "
                "some; set data.target to none or solved for the others, or "
                "data.supervised to []"
            )
        if self.simulate is None and not self.train:
            raise ValueError("data.train names no recordings and data.simulate films none")
        if self.simulate is not None and (self.train or self.test):
            raise ValueError(
                "data.simulate films the recordings, so data.train and data.test would not be "
                "read; set data.simulate=null to read them"
            )


@dataclass(frozen=True)
class Config:
    """One experiment. Every field is written to the run."""

    schedule: list[PhaseConfig]
    data: DataConfig
    seed: int = 0
    skeleton: str = "h36m17"
    batch_size: int = 32
    accumulate: int = 1  # parts in which a batch is computed, one after another, to fit memory
    flip: bool = False  # show every other batch flipped, left and right exchanged
    windows: WindowConfig = field(default_factory=WindowConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    relation: RelationConfig = field(default_factory=RelationConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    start_from: str | None = None  # a finished run, or MotionBERT's weights, to begin with
    checkpoint_seconds: float = 30.0  # the most that a crash can cost
    device: str = "auto"  # or any torch device

    def __post_init__(self) -> None:
        table.check(self.model)
        self._check_sizes()
        if self.skeleton not in SKELETONS:
            raise unknown("skeleton", self.skeleton, SKELETONS)
        known = {name for joints in SKELETONS.values() for name in joints}
        for name in self.fusion.never:
            if name not in known:
                raise unknown("fusion.never", name, sorted(known))
        if self.relation.segment > self.windows.length:
            raise ValueError(
                f"relation.segment must not exceed windows.length, got {self.relation.segment} "
                f"and {self.windows.length}; 0 is the whole window"
            )
        if RELATIONS[self.relation.name].canonical and "canonical" not in self.provides:
            raise ValueError(
                f"relation.name: {self.relation.name} reads rotations, which model "
                f"{self.model.name!r} does not predict; set relation.name=procrustes"
            )
        if not self.schedule:
            raise ValueError("schedule needs at least one phase")
        for phase in self.schedule:
            self._check_terms(phase)

    @property
    def joints(self) -> tuple[str, ...]:
        """Names of the skeleton's joints."""
        return SKELETONS[self.skeleton]

    @property
    def method(self) -> Method:
        """How views are related and repaired."""
        return Method(self.joints, self.relation, self.fusion)

    @property
    def provides(self) -> set[str]:
        """What terms may need, of `methods.terms.NEEDS`."""
        row = table.MODELS[self.model.name]
        offered = {
            "target": self.data.target != "none" or bool(self.data.supervised),
            "canonical": row.canonical,
            "image_scale": row.image_scale,
            "motion": self.windows.length > 1,
            "single_frames": self.windows.length == 1,
        }
        return {name for name, given in offered.items() if given}

    @property
    def terms(self) -> list[str]:
        """Names of all terms that some phase computes."""
        return sorted({name for phase in self.schedule for name in phase.terms})

    @property
    def measures(self) -> list[str]:
        """Names of all that can be measured beside the terms."""
        return sorted(n for n, row in MEASURES.items() if self.provides.issuperset(row.needs))

    @property
    def least_views(self) -> int:
        """Views that a recording needs to serve in training."""
        return 1 if any(TERMS[name].one_view for name in self.terms) else 2

    def _check_sizes(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be positive, got {self.batch_size}")
        if not 1 <= self.accumulate <= self.batch_size:
            raise ValueError(
                f"accumulate must be from 1 to batch_size ({self.batch_size}), got "
                f"{self.accumulate}"
            )
        if not self.checkpoint_seconds >= 0:
            raise ValueError(
                f"checkpoint_seconds must not be negative, got {self.checkpoint_seconds}"
            )

    def _check_terms(self, phase: PhaseConfig) -> None:
        for name in phase.terms:
            lacking = [need for need in TERMS[name].needs if need not in self.provides]
            if lacking:
                raise ValueError(
                    f"phase {phase.name!r}: term {name!r} needs {NEEDS[lacking[0]]}; or give it "
                    f"the weight 0{_configs_with(name)}"
                )


def _configs_with(term: str) -> str:
    """The shipped configs that have a term, as a hint to end a message with."""
    found = []
    for path in shipped():
        phases = yaml.safe_load(path.read_text())["schedule"]
        if any(phase["weights"].get(term) for phase in phases):
            found.append(path.stem)
    return f". Configs that have it: {', '.join(found)}" if found else ""


def shipped() -> list[Path]:
    """The configs that come with canonlift: in an installed package, or in its checkout."""
    package = Path(__file__).parents[1]
    for folder in (package / "configs", package.parent / "configs"):
        if folder.is_dir():
            return sorted(folder.glob("*.yaml"))
    return []


def find(config: str | Path) -> Path:
    """A config by its path, or by the name of one that comes with canonlift.

    Raises:
        FileNotFoundError: if there is neither, with the names that there are.
    """
    path = Path(config)
    if path.is_file():
        return path
    by_name = {shipped_path.stem: shipped_path for shipped_path in shipped()}
    if path.parent == Path() and path.stem in by_name and path.suffix in ("", ".yaml"):
        return by_name[path.stem]
    hint = str(unknown("a config", path.stem, by_name)) if by_name else ""
    raise FileNotFoundError(f"{path}: no such file, nor the name of a config; {hint}")


def load(config: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML config and apply overrides such as `seed=1` or `schedule.0.steps=9`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the file and the key, with the nearest valid name.
    """
    path = find(config)
    try:
        given = OmegaConf.load(path)
        for override in [overrides] if isinstance(overrides, str) else overrides:
            key, equals, value = override.partition("=")
            if not equals:
                raise ValueError(f"{override!r} is not of the form key=value")
            try:
                OmegaConf.update(given, key, yaml.safe_load(value))
            except IndexError as error:
                raise ValueError(f"{key}: there is no such entry in the list") from error
        for split in ("train", "test", "supervised") if OmegaConf.is_dict(given) else ():
            if isinstance(glob := OmegaConf.select(given, f"data.{split}"), str):
                OmegaConf.update(given, f"data.{split}", [glob])  # one glob needs no brackets
        return _to_config(given)
    except OmegaConfBaseException as error:
        message = str(error).partition("\n")[0]
        where = error.full_key
        remedy = RENAMED.get(where or "") or RENAMED.get((where or "").partition(".")[0])
        if remedy is not None:
            message, where = f"{where} was given up; {remedy}", ""
        raise ValueError(": ".join(filter(None, (str(path), where, message)))) from error
    except (yaml.YAMLError, ValueError, TypeError, OSError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error


# Keys of before, and what to write instead.
RENAMED = {
    "data.window_s": "leave it out: targets are solved, with cameras that may turn as they like",
    "variant": "the terms with a weight are what is computed, so leave it out: for the rows of "
    "CVSF's Table 1 see the configs cvsf, cvsf_s1 and cvsf_baseline, for windows sequence",
    "lifter": "write model: {name: mlp, ...}",
    "sequence": "write windows: {length, stride, fps, gap}, model: {name, width, depth, heads} "
    "and relation: {name: procrustes, segment}",
}


def to_yaml(config: Config) -> str:
    """The resolved config, complete."""
    return OmegaConf.to_yaml(OmegaConf.create(asdict(config)))


def from_yaml(text: str) -> Config:
    """Read back what `to_yaml` wrote, now or when targets were solved in closed form."""
    given = yaml.safe_load(text)
    data = given.get("data", {})
    data.pop("window_s", None)
    if data.get("target") == "closed_form":
        data["target"] = "solved"
    return _to_config(OmegaConf.create(given))


def _to_config(given: Any) -> Config:
    found: Any = OmegaConf.to_object(OmegaConf.merge(_defaults(), given))  # merged into a copy
    return found


@cache
def _defaults() -> Any:
    return OmegaConf.structured(Config)
