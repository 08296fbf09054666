"""Laws of the config: read strictly, written completely, refused with a remedy in one line."""

import re
import shlex
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest
import yaml

from canonlift.methods.fusion import FusionConfig
from canonlift.models.config import ModelConfig
from canonlift.simulation.cameras import CameraConfig
from canonlift.simulation.session import SimulateConfig
from canonlift.training import config as configs
from canonlift.training.config import Config, DataConfig
from canonlift.training.schedule import PhaseConfig

SHIPPED = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))

LEAST = """
data: {train: ["takes/*.npz"]}
schedule:
  - {name: only, steps: 5, weights: {reprojection: 1.0}}
"""
OVER_TIME = (
    "model.name=temporal",
    "model.width=64",
    "relation.name=procrustes",
    "windows.length=9",
)
PAPER = "{reprojection: 1.0, refinement: 1.0, repaired_reprojection: 0.01, consistency_3d: 0.01}"


@pytest.fixture
def load(tmp_path):
    """Loads a config from its text."""

    def read(text=LEAST, *overrides):
        (tmp_path / "my.yaml").write_text(text)
        return configs.load(tmp_path / "my.yaml", overrides)

    return read


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_config_loads_by_path_and_by_name(path):
    config = configs.load(path)
    assert all(phase.terms for phase in config.schedule)
    assert configs.load(path.stem) == configs.load(f"{path.stem}.yaml") == config


def test_the_configs_that_are_shipped_are_those_of_the_checkout():
    assert configs.shipped() == SHIPPED


def test_a_file_goes_before_a_name(tmp_path, monkeypatch):
    (tmp_path / "demo").write_text(LEAST)
    monkeypatch.chdir(tmp_path)
    assert configs.load("demo").data.train == ["takes/*.npz"]


@pytest.mark.parametrize(("name", "n_named"), [("sequence", 3), ("two_views", 3)])
def test_the_settings_that_comments_name_can_be_set(name, n_named):
    """Lines of comment that are overrides; one that ends in a backslash goes on."""
    path = next(path for path in SHIPPED if path.stem == name)
    lines = re.findall(r"^#   ([a-z0-9_.]+=.*)", path.read_text().replace("\\\n#", ""), re.M)
    assert len(lines) == n_named
    for line in lines:
        assert configs.load(path, shlex.split(line)) != configs.load(path)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_what_is_written_is_complete_and_reads_back_equal(path):
    config = configs.load(path)
    text = configs.to_yaml(config)
    assert configs.from_yaml(text) == config
    assert configs.to_yaml(configs.from_yaml(text)) == text
    assert_complete(config, yaml.safe_load(text))


def assert_complete(value, written):
    if isinstance(value, list):
        for item, text in zip(value, written, strict=True):
            assert_complete(item, text)
    elif is_dataclass(value):
        assert written.keys() == {field.name for field in fields(value)}
        for name, text in written.items():
            assert_complete(getattr(value, name), text)


def test_the_written_config_can_be_started_from(load, tmp_path):
    """As the advice to resume does: `python train.py RUN/config.yaml --out RUN --resume`."""
    config = load(LEAST, "seed=7", "fusion.never=[l_knee]", "schedule.0.clip_norm=2")
    path = tmp_path / "config.yaml"
    path.write_text(configs.to_yaml(config))
    assert configs.load(path) == config


def test_what_is_left_out_has_the_default_of_the_class(load):
    assert load() == Config(
        schedule=[PhaseConfig("only", {"reprojection": 1.0}, 5)],
        data=DataConfig(train=["takes/*.npz"]),
        model=ModelConfig(),
        fusion=FusionConfig(),
    )


def test_overrides_replace_what_the_file_says(load):
    config = load(
        LEAST,
        "seed=3",
        "model.width=17",
        "schedule.0.learning_rate=1e-3",
        "schedule.0.weights.reprojection=2",
        "fusion.method=exact",
        "data.test=[a.npz, 'b/*.npz']",
        "schedule.0.name=a = b",
    )
    phase = config.schedule[0]
    assert (config.seed, config.model.width, phase.learning_rate) == (3, 17, 0.001)
    assert (phase.weights, phase.name) == ({"reprojection": 2.0}, "a = b")
    assert config.data.test == ["a.npz", "b/*.npz"]
    assert config.fusion == FusionConfig(method="exact")


def test_one_glob_needs_no_brackets(load):
    bare = LEAST.replace('["takes/*.npz"]', '"takes/*.npz"')
    config = load(bare, "data.test=held_out.npz")
    assert (config.data.train, config.data.test) == (["takes/*.npz"], ["held_out.npz"])


def test_overrides_can_leave_the_simulated_session_for_recordings(load):
    simulated = LEAST.replace('{train: ["takes/*.npz"]}', "{simulate: {n_train: 3}}")
    config = load(simulated, "data.simulate.cameras.n_views=4")
    assert config.data.simulate == SimulateConfig(n_train=3, cameras=CameraConfig(n_views=4))
    real = load(simulated, "data.simulate=null", "data.train=[takes/*.npz]")
    assert real == load()
    assert real == load(simulated, "data.simulate=null", "data.train=takes/*.npz")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sed=1"], "sed: Key 'sed' not in 'Config'. Did you mean: 'seed'?"),
        (["model.widht=9"], "model.widht: .* Did you mean: 'width'?"),
        (["schedule.0.step=9"], "Key 'step' not in 'PhaseConfig'. Did you mean: 'steps'?"),
        (["schedule.3.steps=9"], "schedule.3.steps: there is no such entry in the list"),
        (["data.simulate.n_frame=9"], "simulate.n_frame: .* Did you mean: 'n_frames'?"),
        (["batch_size=many"], "batch_size: Value 'many' .* could not be converted to Integer"),
        (["batch_size=1.5"], "batch_size: Value '1.5' .* could not be converted to Integer"),
        (["flip=maybe"], "flip: Value 'maybe' is not a valid bool"),
        (["model=3"], "int is not a subclass of ModelConfig"),
        (["schedule.0.weights.reprojection=much"], "'much' .* converted to Float"),
        (["seed"], "'seed' is not of the form key=value"),
        (["seed=[1"], "expected ',' or ']'"),
        (["batch_size=0"], "batch_size must be positive, got 0"),
        (["checkpoint_seconds=-1"], "checkpoint_seconds must not be negative, got -1.0"),
        (["checkpoint_seconds=.nan"], "checkpoint_seconds must not be negative, got nan"),
        (["skeleton=h36m"], "skeleton must be one of h36m17, .*got 'h36m'"),
        (
            ["variant=s1"],
            "variant was given up; .* see the configs cvsf, cvsf_s1 and cvsf_baseline",
        ),
        (["lifter.width=9"], "lifter.* was given up; write model: {name: mlp"),
        (["sequence={length: 9}"], "sequence.* was given up; write windows: {length"),
        (["schedule=[]"], "schedule needs at least one phase"),
        (["data.target=mocap"], "target must be one of none, solved, pose3d, got 'mocap'"),
        (["data.window_s=2"], "data.window_s was given up; leave it out"),
        (["data.train=[]"], "data.train names no recordings and data.simulate films none"),
        (["data.simulate={}"], "data.train and data.test would not be read; set data.simulate=n"),
        (["data.simulate={n_frames: 1}"], "n_frames must be at least 2"),
        (["data.simulate={cameras: {n_views: 9}}"], "n_views must be 2 to 8, got 9"),
        (["data.simulate={motions: [ski]}"], r"no motion \['ski'\]; choose from slalom"),
        (["model.width=0"], "model.width must be positive, got 0"),
        (["model.name=mpl"], "model.name must be one of mlp, .*did you mean 'mlp'"),
        (["model.depth=2"], "model.depth is not a setting of model 'mlp', which reads width, rot"),
        (["model.precision=half"], "model.precision must be one of float32, bfloat16"),
        (["relation.name=known"], "relation.name must be one of predicted, procrustes"),
        (["relation.segment=2"], "segment must not exceed windows.length, got 2 and 1; 0 is"),
        (["windows.length=0"], "windows.length must be positive, got 0"),
        (["windows.fps=0"], "windows.fps must be positive, got 0.0"),
        (["windows.gap=-1"], "windows.gap must not be negative, got -1"),
        (["model={name: temporal, width: 9, heads: 2}"], "model.width must be a multiple of"),
        (["model.name=temporal"], "predicted reads rotations, which model 'temporal' does not"),
        (["model.rotation=euler"], "model.rotation must be one of axis_angle, 6d, got 'euler'"),
        (["fusion.method=mean"], "fusion.method must be one of grid, .*got 'mean'"),
        (["fusion.extent=0"], "fusion.extent must be positive"),
        (["fusion.threshold=-1"], "fusion.threshold .* not be negative, got -1.0 and 0.1"),
        (["fusion.smallest_sine=.nan"], "fusion.smallest_sine must not be negative, got .* nan"),
        (
            ["fusion.never=[pelvsi]"],
            "fusion.never must be one of .*got 'pelvsi'; did you mean 'pelvis'",
        ),
        (["schedule.0.steps=0"], "phase 'only': steps must be positive, got 0"),
        (
            ["schedule.0.decay=linear"],
            "phase 'only': decay must be one of none, cosine, got 'linear'",
        ),
        (["schedule.0.learning_rate=0"], "phase 'only': learning_rate must be positive"),
        (["schedule.0.warmup=-1"], "phase 'only': .*not negative; got 0.0001, -1 and 0.0"),
        (
            ["schedule.0.convergence.interval=0"],
            "interval and convergence.patience must be positive",
        ),
        (["schedule.0.weights.reprojection=0"], "phase 'only': at least one term needs a weight"),
        (
            ["schedule.0.weights.reproject=1"],
            "phase 'only': a term .*got 'reproject'; did you mean 'reprojection'",
        ),
        (["schedule.0.weights.imitation=1"], "a term must be one of .*got 'imitation'"),
        (
            ["schedule.0.weights.target_pose=1"],
            "'target_pose' needs a 3D target; set data.target to solved.*demo, recordings",
        ),
        (
            ["data.target=pose3d", "data.supervised=a.npz"],
            "pose3d reads the 3D of all recordings, data.supervised that of some; set",
        ),
        (
            ["schedule.0.weights.consistency=1"],
            "'consistency' needs a network that predicts poses in the scale of the image; or "
            "give it the weight 0. Configs that have it: sequence, sequence_semi",
        ),
        (
            [*OVER_TIME, "schedule.0.weights.consistency_3d=1"],
            "'consistency_3d' needs a network that predicts poses in a canonical frame.*: cvsf",
        ),
        (
            [*OVER_TIME, "schedule.0.weights.camera_consistency=1"],
            "'camera_consistency' needs single frames; set windows.length to 1.*: canonpose",
        ),
        (
            [
                *OVER_TIME,
                "windows.length=1",
                "data.target=pose3d",
                "schedule.0.weights.target_velocity=1",
            ],
            "'target_velocity' needs windows of two frames or more; set windows.length",
        ),
    ],
)
def test_refuses_in_one_line_that_names_file_and_key(load, tmp_path, overrides, message):
    with pytest.raises(ValueError, match=message) as error:
        load(LEAST, *overrides)
    said = str(error.value)
    assert said.startswith(f"{tmp_path / 'my.yaml'}: ")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "missing mandatory value: schedule"),
        ("42", "Invalid loaded object type: int"),
        ("- 1", "incompatible container types"),
        ("data: [", "expected"),
        ("data: {train: [a]}", "missing mandatory value: schedule"),
        ("schedule: [{name: a, steps: 1, weights: {reprojection: 1}}]", "mandatory value: data"),
        ("data: {train: [a]}\nschedule: [{steps: 1, weights: {}}]", r"schedule\[0\].name"),
        ("\xff", "."),
    ],
)
def test_refuses_files_that_are_no_config(load, tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as error:
        load(text)
    assert str(error.value).startswith(f"{tmp_path / 'my.yaml'}: ")
    assert "\n" not in str(error.value)


def test_an_absent_file_is_named_with_what_there_is(tmp_path):
    for path in (tmp_path / "no.yaml", tmp_path, tmp_path / "demo"):
        with pytest.raises(FileNotFoundError, match=f"{path}: no such file, nor the name of a co"):
            configs.load(path)
    with pytest.raises(FileNotFoundError, match="one of canonpose, .*did you mean 'smoke'"):
        configs.load("smok")


def test_the_terms_of_a_phase_are_those_with_a_weight(load):
    config = load(LEAST.replace("{reprojection: 1.0}", PAPER), "schedule.0.weights.refinement=0")
    assert set(config.terms) == {"reprojection", "repaired_reprojection", "consistency_3d"}
    assert config.schedule[0].terms.keys() == set(config.terms)
    assert load().terms == ["reprojection"]


def test_a_term_can_be_switched_off_by_its_weight(load):
    """A weight of 0 asks for nothing, a target neither."""
    both = LEAST.replace("{reprojection: 1.0}", "{target_pose: 1.0, reprojection: 1.0}")
    assert load(both, "schedule.0.weights.target_pose=0").terms == ["reprojection"]
    assert load(both, "data.target=solved").terms == ["reprojection", "target_pose"]


def test_recordings_of_one_view_serve_where_a_term_can_learn_from_them(load):
    assert load().least_views == 2
    weights = "schedule.0.weights={reprojection: 0, own_view: 1}"
    assert load(LEAST, *OVER_TIME, weights).least_views == 1


def test_the_rows_of_the_papers_table_differ_in_their_terms_alone():
    """CVSF, Table 1."""
    both, first, baseline = map(configs.load, ("cvsf", "cvsf_s1", "cvsf_baseline"))
    assert set(both.terms) - set(first.terms) == {"consistency_3d"}
    assert set(first.terms) - set(baseline.terms) == {"refinement", "repaired_reprojection"}
    assert baseline.terms == ["reprojection"]
    for row in (first, baseline):
        assert replace(row, schedule=both.schedule) == both
        for phase, whole in zip(row.schedule, both.schedule, strict=True):
            assert phase.terms.items() <= whole.terms.items()
            assert replace(phase, weights=whole.weights) == whole
