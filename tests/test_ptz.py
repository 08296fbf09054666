"""The benchmark on procedural motion, a few steps long; and that every config can be read."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import films, ptz, recipes, rows
from benchmarks.films import SETTINGS
from benchmarks.triangulation import triangulate
from canonlift.body.skeleton import H36M17
from canonlift.data.recording import load
from canonlift.methods.fusion import FusionConfig
from canonlift.simulation.athlete import perform, sample_person
from canonlift.training import config as configs

pytestmark = pytest.mark.usefixtures("shapes_unchecked")

KEYS = (
    "method setting seed n_mpjpe_mm pa_mpjpe_mm n_pck_150 jdr_detected jdr_refined "
    "refined_over_detected train_seconds frames_per_second commit machine"
).split()
CLIPS = {
    "expmap/train/running/running_1": 40,
    "expmap/train/running/running_2": 50,
    "asf/01_07": 60,
    "asf/03_01": 40,
    "asf/02_01": 45,
    "expmap/test/jumping/jumping_1": 40,
    "asf/99_01": 40,  # of neither split
}


@pytest.fixture(scope="module")
def motions():
    """What the clips hold, on h36m17."""
    generator = np.random.default_rng(0)
    return {
        name: perform(sample_person(generator), ["run", "squat"], n_frames, 30.0, generator)
        for name, n_frames in CLIPS.items()
    }


@pytest.fixture(scope="module")
def mocap(motions, tmp_path_factory):
    """The file of the motion capture, its joints in an order of its own."""
    theirs = dict(zip(films.MOCAP_JOINTS.values(), films.MOCAP_JOINTS, strict=True))
    order = np.random.default_rng(1).permutation(17)
    path = tmp_path_factory.mktemp("mocap") / "cmu.npz"
    arrays = {name: motion[:, order].astype(np.float32) for name, motion in motions.items()}
    names = np.array([theirs[H36M17[j]] for j in order])
    np.savez(path, joints=names, fps=np.float64(30.0), **arrays)
    return path


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("work [1]")  # a name that means something in a glob


@pytest.fixture
def run(mocap, work, tmp_path):
    def run_(method, setting, *options):
        argv = ["run", method, setting, "--data", mocap, "--work", work, "--results", tmp_path]
        ptz.main([str(word) for word in [*argv, "--steps-scale", "0.001", *options]])
        return json.loads((tmp_path / "ptz_steps.jsonl").read_text().splitlines()[-1])

    return run_


def check(row, method, setting):
    assert list(row) == [*KEYS, "steps_scale"]
    assert (row["method"], row["setting"]) == (method, setting)
    known = [row[key] for key in KEYS if isinstance(row[key], float)]
    assert np.isfinite(known).all()
    assert 0 < row["pa_mpjpe_mm"] < row["n_mpjpe_mm"] < 600
    assert row["commit"]
    assert row["machine"]


@pytest.mark.parametrize("method", [m for m in ptz.METHODS if m not in ptz.ABLATIONS] + ["cvsf"])
def test_every_method_gives_a_row(method, run):
    row = run(method, "phones", "--seed", "3")
    check(row, method, "phones")
    assert row["seed"] == 3
    trained = method not in ("flat", "triangulation")
    assert (row["train_seconds"] is not None) == trained
    assert trained == (method in {*ptz.TRAINED, "cvsf"})
    repairs = method not in ("flat", "mean_pose")
    assert (row["refined_over_detected"] is not None) == repairs


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_gives_a_row(setting, run):
    check(run("triangulation", setting), "triangulation", setting)


def test_a_row_of_full_length_has_the_keys_of_the_table_and_no_more(mocap, work, tmp_path):
    row = ptz.run("triangulation", "pair", 0, mocap, work, tmp_path)
    assert list(row) == KEYS
    assert json.loads((tmp_path / "ptz.jsonl").read_text()) == row


def test_splits_by_person_and_clip(mocap, work):
    film = films.shoot("ski", mocap, work)
    stems = {split: {p.stem for p in (film / split).iterdir()} for split in films.SPLITS}
    assert stems == {
        "train": {
            "expmap-train-running-running_1", "expmap-train-running-running_2", "asf-01_07",
            "asf-03_01",
        },
        "test": {"asf-02_01", "expmap-test-jumping-jumping_1"},
    }  # fmt: skip


@pytest.mark.parametrize("setting", SETTINGS)
def test_clips_are_filmed_whole_by_the_cameras_of_the_setting(setting, mocap, motions, work):
    """The cameras that are kept see the motion where the film has it, up to place and turn."""
    film, cameras = films.shoot(setting, mocap, work), SETTINGS[setting].cameras
    for path in [*film.glob("t*/*.npz")]:
        recording = load(path)
        name = next(name for name in motions if name.replace("/", "-") == path.stem)
        assert recording.keypoints.shape == (CLIPS[name], cameras.n_views, 17, 2)
        filmed_by = films.load_cameras(film / "cameras" / path.name)
        world = filmed_by.position[:, 0, None] + np.einsum(
            "trc,tjr->tjc", filmed_by.rotation[:, 0], recording.pose3d[:, 0]
        )
        np.testing.assert_allclose(
            filmed_by.project(filmed_by.in_axes(world)), recording.keypoints_true, atol=0.1
        )
        lengths = [
            np.linalg.norm(points[:, 1:] - points[:, :-1], axis=-1)
            for points in (world, motions[name])
        ]
        np.testing.assert_allclose(*lengths, atol=1e-4)
        np.testing.assert_allclose(world[..., 1], motions[name][..., 1], atol=1e-4)


def test_fixed_cameras_stay_for_a_day_and_others_are_set_up_for_every_clip(mocap, work):
    names = ["expmap-train-running-running_1", "expmap-train-running-running_2", "asf-01_07"]

    def rigs_and_places(setting):
        film = films.shoot(setting, mocap, work)
        recordings = [load(film / "train" / f"{name}.npz") for name in names]
        cameras = [films.load_cameras(film / "cameras" / f"{name}.npz") for name in names]
        return [recording.rig for recording in recordings], [
            camera.position[0] for camera in cameras
        ]

    rigs, places = rigs_and_places("studio")
    assert rigs == ["expmap/train/running/running"] * 2 + ["asf/01"]
    assert np.array_equal(places[0], places[1])
    assert not np.allclose(places[0], places[2])
    rigs, places = rigs_and_places("ski")
    assert rigs == ["", "", ""]
    assert not np.allclose(places[0], places[1])


def test_a_film_follows_from_its_name_and_not_from_what_else_is_filmed(motions):
    some = {name: motions[name] for name in ("asf/02_01", "asf/01_07")}
    whole = {name: recording for _, name, recording, *_ in films.clips_of("ski", motions)}
    for _, name, recording, *_ in films.clips_of("ski", some):
        np.testing.assert_array_equal(recording.keypoints, whole[name].keypoints)
    other = {name: recording for _, name, recording, *_ in films.clips_of("phones", some)}
    assert not np.allclose(other["asf/02_01"].pose3d[:, 0], whole["asf/02_01"].pose3d[:, 0])


def test_blind_is_ski_without_confidences(motions):
    for (_, _, blind, *_), (_, _, ski, *_) in zip(
        films.clips_of("blind", motions), films.clips_of("ski", motions), strict=True
    ):
        np.testing.assert_array_equal(blind.keypoints, ski.keypoints)
        assert set(np.unique(blind.confidence)) <= {0.0, 1.0}
        assert len(np.unique(ski.confidence)) > 2


def test_triangulation_is_exact_on_exact_detections_and_robust_to_an_outlier(motions):
    for _, _, recording, filmed_by, *_ in films.clips_of("studio", motions):
        keypoints = recording.keypoints_true.copy()
        keypoints[::3, 1, 4] += 300
        generator = np.random.default_rng(0)
        confidence = generator.uniform(0.7, 1, recording.confidence.shape).astype(np.float32)
        confidence[::2, 0, 7] = 0
        recording = replace(recording, keypoints=keypoints, confidence=confidence)
        seen = filmed_by.in_axes(triangulate(recording, filmed_by))
        error = np.linalg.norm(seen - recording.pose3d, axis=-1)
        assert error[1::3].max() < 0.01
        assert error[::3].max() < 0.05


def test_a_joint_that_one_camera_observed_is_put_on_its_ray_near_the_body(motions):
    _, _, recording, filmed_by, *_ = next(films.clips_of("pair", motions))
    confidence = np.ones_like(recording.confidence)
    confidence[:, 1, 9] = 0
    recording = replace(recording, keypoints=recording.keypoints_true, confidence=confidence)
    seen = filmed_by.in_axes(triangulate(recording, filmed_by))
    np.testing.assert_allclose(
        filmed_by.project(seen)[:, 0, 9], recording.keypoints[:, 0, 9], atol=1
    )
    assert np.linalg.norm(seen[:, :, 9] - recording.pose3d[:, :, 9], axis=-1).max() < 1.0


@pytest.mark.parametrize("setting", SETTINGS)
def test_what_the_methods_train_differs_only_where_it_should(setting, tmp_path):
    job = ptz.Job(SETTINGS[setting], tmp_path, 5, 0.1, tmp_path)
    chosen = {name: recipes.table_1(name) for name in ("baseline", "s1", "s1+s2")}
    chosen |= {"canonpose": recipes.canonpose, "supervised": recipes.supervised}
    trained = {name: job.config(recipe) for name, recipe in chosen.items()}
    steps = {sum(phase.steps for phase in config.schedule) for config in trained.values()}
    assert len(steps) == 1
    for name, config in trained.items():
        assert config.seed == 5
        assert config.model == trained["s1"].model
        assert (config.data.target == "pose3d") == (name == "supervised")
    weights = trained["canonpose"].schedule[0].weights
    assert ("camera_consistency" in weights) == (setting == "studio")
    assert trained["canonpose"].data.target == "none"
    assert trained["s1+s2"].data.target == "solved"


def test_the_rows_of_table_1_differ_in_their_terms_alone(tmp_path):
    job = ptz.Job(SETTINGS["ski"], tmp_path, 5, 0.1, tmp_path)
    rows_ = {name: job.config(recipes.table_1(name)) for name in recipes.WITHOUT}
    terms = {name: set(config.terms) for name, config in rows_.items()}
    assert terms["baseline"] == {"target_pose", "reprojection"}
    assert terms["s1+s2"] - terms["s1"] == {"consistency_3d"}
    whole = rows_["s1+s2"].schedule
    for config in rows_.values():
        assert replace(config, schedule=whole) == rows_["s1+s2"]
        for phase, full in zip(config.schedule, whole, strict=True):
            assert replace(phase, weights=full.weights) == full
            assert phase.terms.items() <= full.weights.items()


def test_what_the_ablations_leave_out(tmp_path):
    job = ptz.Job(SETTINGS["ski"], tmp_path, 5, 0.1, tmp_path)

    def terms(recipe):
        return [phase.terms for phase in job.config(recipe).schedule]

    ours = terms(recipes.table_1("s1+s2"))
    assert "consensus" in ours[1]
    left = [{name: w for name, w in phase.items() if name != "consensus"} for phase in ours]
    assert terms(recipes.without("consensus")) == left
    assert terms(recipes.full_consistency) == [*ours[:-1], ours[-1] | {"consistency_3d": 1.0}]
    assert terms(recipes.targets) == [{"target_pose": 1.0}]
    paper, exact = (job.config(r) for r in (recipes.cvsf, recipes.fused_by("exact")))
    assert [phase.weights["consistency_3d"] for phase in paper.schedule] == [0.01, 1.0]
    assert not {"target_pose", "consensus"} & set(paper.terms)
    assert paper.data.target == "none"
    assert paper.fusion.line_sigma != exact.fusion.line_sigma
    assert {paper.fusion.method, exact.fusion.method} == {"exact"}
    plain, repaired = (job.config(r) for r in (recipes.sequence, recipes.sequence_repaired))
    before, after = plain.schedule[1].weights, repaired.schedule[1].weights
    assert after == before | {"own_view": 0.0, "repaired_own_view": before["own_view"]}
    assert repaired.schedule[0] == plain.schedule[0]


def test_a_finished_run_is_found_again_and_another_seed_is_not(run, work):
    def runs():
        return sorted((work / "runs").iterdir())

    first = run("canonpose", "pair")
    known = runs()
    again = run("canonpose", "pair")
    assert runs() == known
    # An untrained network is not timed twice alike, but it is the same network.
    assert {**again, "frames_per_second": 0} == {**first, "frames_per_second": 0}
    run("canonpose", "pair", "--seed", "1")
    assert len(runs()) == len(known) + 1


def test_table_has_means_over_seeds_and_the_last_row_of_each(tmp_path, capsys):
    row = dict.fromkeys(KEYS) | {"method": "s1", "setting": "ski", "seed": 0}
    rows = [
        row | {"n_mpjpe_mm": 999.0},
        row | {"n_mpjpe_mm": 80.0, "frames_per_second": 12345.6},
        row | {"n_mpjpe_mm": 84.0, "seed": 1},
        row | {"method": "flat", "n_mpjpe_mm": 150.0},
        row | {"setting": "pair", "n_mpjpe_mm": 100.0},
    ]
    lines = "".join(json.dumps(r) + "\n" for r in rows)
    (tmp_path / "ptz.jsonl").write_text(lines)
    ptz.main(["table", "--results", str(tmp_path)])
    short, _, full = capsys.readouterr().out.partition("\n\n")
    assert short.splitlines()[2].startswith("| flat | 150.0 / - | - / - |")
    methods = [line.split(" | ")[0] for line in short.splitlines()[2:]]
    assert methods == ["| flat", "| s1"]  # none that has no row
    printed = full.splitlines()
    assert printed[0].startswith("| setting | method | N-MPJPE mm | PA-MPJPE mm |")
    assert printed[0].count("|") == printed[1].count("|") == printed[2].count("|")
    assert printed[2].startswith("| ski | flat | 150.0 | - |")
    assert printed[3].startswith("| ski | s1 | 82.0 ± 2.8 | - |")
    assert printed[3].endswith("| 12346 | 2 |")
    assert printed[4].startswith("| pair | s1 | 100.0 |")
    ablated = [row | {"method": "targets"}, row | {"method": "s1+s2"}]
    (tmp_path / "ptz.jsonl").write_text(lines + "".join(json.dumps(r) + "\n" for r in ablated))
    ptz.main(["table", "--results", str(tmp_path)])
    short, full, changed = capsys.readouterr().out.split("\n\n")
    assert "targets" not in short + full
    assert [line.split(" | ")[1] for line in changed.splitlines()[2:]] == ["s1+s2", "targets"]
    (tmp_path / "ptz.jsonl").write_text(lines)
    (tmp_path / "ptz_steps.jsonl").write_text(json.dumps(row | {"steps_scale": 0.5}) + "\n")
    ptz.main(["table", "--steps", "--results", str(tmp_path)])
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[2] for line in printed[2:]] == ["x 0.5", "x 1"]


def test_all_appends_what_is_missing_and_nothing_twice(mocap, work, tmp_path, monkeypatch, capsys):
    """With threads for processes, and runs that end at once."""
    asked = []

    def run(method, setting, seed, *_):
        asked.append((method, setting, seed))
        return {"method": method}

    monkeypatch.setattr(ptz, "run", run)
    monkeypatch.setattr(rows, "ProcessPoolExecutor", lambda jobs, *_: ThreadPoolExecutor(jobs))
    there = {"method": "s1", "setting": "ski", "seed": 1}
    (tmp_path / "ptz.jsonl").write_text(json.dumps(there) + "\n")
    paths = ["--data", mocap, "--work", work, "--results", tmp_path]
    ptz.main([str(word) for word in ["all", "--jobs", "2", *paths]])
    once = len(ptz.METHODS) - len(ptz.ABLATIONS)
    expected = once * len(SETTINGS) + 2 * len(ptz.TRAINED) + len(ptz.ABLATIONS) - 1
    assert len(set(asked)) == len(asked) == expected
    assert tuple(there.values()) not in asked
    first = asked.index(("mean_pose", "ski", 0))
    assert {method for method, _, _ in asked[first:]} == {"mean_pose"}
    assert {seed for method, _, seed in asked if method in ("flat", "triangulation")} == {0}
    assert capsys.readouterr().out.count('{"method": ') == len(asked)


def test_wrong_input_is_reported_in_one_line(tmp_path, mocap):
    argv = ["run", "flat", "ski", "--work", str(tmp_path), "--data"]
    with pytest.raises(SystemExit, match=r"ptz: .*gone.npz: no motion capture; give --data"):
        ptz.main([*argv, str(tmp_path / "gone.npz")])
    with np.load(mocap) as file:
        arrays = dict(file)
    np.savez(tmp_path / "a.npz", **{k: v for k, v in arrays.items() if not k.startswith("asf/02")
                                    and not k.startswith("expmap/test")})  # fmt: skip
    with pytest.raises(SystemExit, match=r"no clips of expmap/test/ or asf/02_ to test on"):
        ptz.main([*argv, str(tmp_path / "a.npz")])
    np.savez(tmp_path / "b.npz", **(arrays | {"joints": arrays["joints"][::-1][:16]}))
    with pytest.raises(SystemExit, match=r"b.npz: joints must be Pelvis, RHip"):
        ptz.main([*argv, str(tmp_path / "b.npz")])
    with pytest.raises(SystemExit):
        ptz.main(["run", "flat", "snow"])


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[1] / "configs").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_config_can_be_read(path):
    config = configs.load(path)
    assert configs.from_yaml(configs.to_yaml(config)) == config


def test_papers_configs_are_the_papers():
    folder = Path(__file__).parents[1] / "configs"
    canonpose, cvsf, ski = (
        configs.load(folder / f"{name}.yaml") for name in ("canonpose", "cvsf", "skipose_cvsf")
    )
    for config in (canonpose, cvsf, ski):
        assert (config.model.width, config.model.rotation) == (1024, "axis_angle")
        assert config.batch_size == 32
        assert config.data.target == "none"
        for phase in config.schedule:
            assert (phase.learning_rate_at(0), phase.weight_decay) == (1e-4, 1e-5)
    (phase,) = canonpose.schedule
    assert phase.learning_rate_at(phase.steps - 1) == pytest.approx(1e-7)
    assert [at / phase.steps for at in phase.decay_at] == [0.3, 0.6, 0.9]
    terms = ["reprojection", "refinement", "repaired_reprojection", "consistency_3d"]
    for config in (cvsf, ski):  # Eq. 7
        one, two = ([phase.weights[name] for name in terms] for phase in config.schedule)
        assert (one, two) == ([1, 1, 0.01, 0.01], [0.01, 0.01, 1, 1])
        assert config.fusion == FusionConfig()
