"""Calibrations: what is written is read back, and files of one rig agree."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from canonlift.body.skeleton import H36M17
from canonlift.cli.main import main
from canonlift.data.calibration import Calibration
from canonlift.data.recording import Recording
from canonlift.data.solution import Solution
from canonlift.output.calibration import of_solution, write_calibration
from canonlift.output.export.markers import Size
from canonlift.readers.calibration import read_calibration

SHARED = Path(__file__).parents[2] / "shared" / "data"
POSE2SIM = SHARED / "recordings" / "balancing_4cam" / "calibration.toml"
QUALISYS = SHARED / "videos" / "balancing_4cam" / "Calib.qca.txt"


@pytest.fixture
def calibration():
    generator = np.random.default_rng(0)
    matrix = np.tile(np.eye(3), (3, 1, 1))
    matrix[:, [0, 1], [0, 1]] = generator.uniform(900, 2000, (3, 2))
    matrix[:, :2, 2] = [[950.5, 530.25], [960, 540], [512, 700.125]]
    return Calibration(
        ("left", "a view, “right”", "cam.3"),
        np.array([[1920.0, 1080.0], [1920.0, 1080.0], [1088.0, 1920.0]]),
        matrix,
        generator.normal(0, [0.1, 0.03, 1e-3, 1e-3, 1e-2], (3, 5)),
        Rotation.random(3, rng=generator).as_matrix(),
        generator.normal(0, 3, (3, 3)),
    )


def assert_same(found, true):
    assert found.views == true.views
    for name in ("size", "matrix", "distortion", "rotation", "translation"):
        one, other = getattr(found, name), getattr(true, name)
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("name", ["Calib.toml", "rig.yml"])
@pytest.mark.parametrize("placed", [True, False])
def test_what_is_written_is_read_back(calibration, tmp_path, name, placed):
    if not placed:
        calibration = replace(calibration, rotation=None, translation=None)
    write_calibration(calibration, tmp_path / name)
    assert_same(read_calibration(tmp_path / name), calibration)


def test_opencvs_file_is_as_opencv_writes_it(calibration, tmp_path):
    write_calibration(calibration, tmp_path / "rig.yml")
    text = (tmp_path / "rig.yml").read_text()
    assert text.startswith("%YAML:1.0\n---\n")
    assert "camera_matrix: !!opencv-matrix\n         rows: 3\n         cols: 3\n" in text


def test_a_straightened_image_bends_back(calibration):
    generator = np.random.default_rng(1)
    mild = replace(calibration, distortion=0.5 * calibration.distortion)
    pixels = calibration.size[:, None] * generator.uniform(0.2, 0.8, (4, 3, 9, 2))
    np.testing.assert_allclose(mild.bent(mild.straightened(pixels)), pixels, atol=1e-3)


def test_a_straight_image_is_bent_as_opencv_describes_it(calibration):
    """By hand, for one point: the formula of OpenCV's documentation."""
    k1, k2, p1, p2, k3 = calibration.distortion[0]
    x, y = 0.2, -0.1
    r2 = x * x + y * y
    factor = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    across = x * factor + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    down = y * factor + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    true = (calibration.matrix[0] @ [across, down, 1])[:2]
    straight = calibration.focal_px[:, None] * [[x, y]] + calibration.size / 2
    found = calibration.bent(straight[None, :, None])[0, 0, 0]
    np.testing.assert_allclose(found, true)


def test_cameras_are_found_by_name_or_by_order_or_refused(calibration):
    found, note = calibration.matched(("cam.3", "left"))
    assert not note
    np.testing.assert_array_equal(found.matrix, calibration.matrix[[2, 0]])
    found, note = calibration.matched(("a", "b", "c"))
    assert "left, a view, “right”, cam.3 are taken to be a, b, c" in note
    np.testing.assert_array_equal(found.matrix, calibration.matrix)
    for views in (("left", "b"), ("a", "b"), ("left", "b", "c")):
        with pytest.raises(ValueError, match="rename the cameras"):
            calibration.matched(views)


def test_half_the_resolution_is_half_the_focal_length_and_another_shape_is_refused(calibration):
    recording = Recording(
        np.ones((1, 3, 1, 2), np.float32),
        np.ones((1, 3, 1), np.float32),
        ("nose",),
        calibration.views,
        30.0,
        image_size=(calibration.size / 2).astype(np.int32),
    )
    half = calibration.resized(recording)
    np.testing.assert_allclose(half.focal_px, calibration.focal_px / 2)
    np.testing.assert_allclose(half.matrix[:, :2, 2], calibration.matrix[:, :2, 2] / 2)
    turned = replace(recording, image_size=recording.image_size[:, ::-1].copy())
    with pytest.raises(ValueError, match="left: .* differ in shape"):
        calibration.resized(turned)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "[a]\nmatrix = 3", "no calibration that can be read"),
        ("a.toml", "[metadata]\nerror = 0.0", "no cameras"),
        ("a.toml", "[a]\nmatrix = []\nfisheye = true", "fisheye"),
        ("a.yml", "%YAML:1.0\n---\nb: !!python/object:os.system 1", "can be read"),
        ("a.qca.txt", '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "declares entities"),
        ("a.qca.txt", "<a><cameras><camera/></cameras></a>", "lacks 'fov_video'"),
        ("a.csv", "", "a calibration ends in"),
    ],
)
def test_other_files_are_refused_with_the_reason(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_calibration(tmp_path / name)


@pytest.mark.skipif(not (POSE2SIM.is_file() and QUALISYS.is_file()), reason="no shared data")
def test_pose2sims_file_and_qualisys_own_agree():
    """Pose2Sim made one of the other, with another origin."""
    ours, theirs = read_calibration(POSE2SIM), read_calibration(QUALISYS)
    np.testing.assert_allclose(ours.size, theirs.size)
    np.testing.assert_allclose(ours.matrix, theirs.matrix, atol=1e-3)
    for one, other in ((0, 1), (1, 3), (2, 0)):
        turns = [c.rotation[one] @ c.rotation[other].T for c in (ours, theirs)]
        np.testing.assert_allclose(*turns, atol=1e-6)
        ways = [c.rotation[one] @ (c.position[other] - c.position[one]) for c in (ours, theirs)]
        np.testing.assert_allclose(*ways, atol=1e-5)


def standing_solution(height=1.7):
    """Somebody who stands on a floor (z = 0), in a frame of reference that is tilted."""
    generator = np.random.default_rng(2)
    up = dict.fromkeys(H36M17, 0.0) | {
        "head": 1.0, "nose": 0.93, "thorax": 0.82, "spine": 0.68, "pelvis": 0.53,
    }  # fmt: skip
    for side in "lr":
        up |= {f"{side}_hip": 0.53, f"{side}_knee": 0.285, f"{side}_ankle": 0.039}
        up |= {f"{side}_shoulder": 0.818, f"{side}_elbow": 0.632, f"{side}_wrist": 0.486}
    body = np.array([[0.0, 0.1 * (n[0] == "l") - 0.1 * (n[0] == "r"), up[n]] for n in H36M17])
    body[:, 2] -= 0.039
    way = np.linspace([-2, -1, 0], [2, 1.5, 0], 20)
    room = height * body + way[:, None]
    position = np.array([[4.0, 0, 1.5], [-3.0, 3, 1.8], [0.0, -5, 1.2]])
    ahead = -position / np.linalg.norm(position, axis=-1, keepdims=True) * [1, 1, 0]
    ahead /= np.linalg.norm(ahead, axis=-1, keepdims=True)
    down = np.tile([0.0, 0, -1], (3, 1))
    rotation = np.stack([np.cross(down, ahead), down, ahead], 1)
    tilt, unit = Rotation.random(rng=generator).as_matrix(), 0.3
    n, v, j = 20, 3, len(H36M17)
    recording = Recording(
        np.ones((n, v, j, 2), np.float32),
        np.ones((n, v, j), np.float32),
        H36M17,
        ("a", "b", "c"),
        30.0,
        rig="rig",
        image_size=np.tile(np.array([1920, 1080], np.int32), (v, 1)),
    )
    root = room[:, [H36M17.index("pelvis")]]
    solution = Solution(
        recording,
        pose=unit * (room - root) @ tilt.T,
        rotation=np.tile(rotation @ tilt.T, (n, 1, 1, 1)),
        focal_px=np.full((n, v), 1500.0),
        distance=np.ones((n, v)),
        root_px=np.ones((n, v, 2)),
        keypoints_refined=recording.keypoints,
        inlier=recording.confidence,
        covariance=np.zeros((n, j, 3, 3)),
        trust=np.ones(n),
        swapped=np.zeros((n, v, 2), bool),
        position=unit * position @ tilt.T + [1.0, 2, 3],
        root=unit * root[:, 0] @ tilt.T + [1.0, 2, 3],
    )
    return solution, position, room


def test_a_solutions_cameras_stand_in_a_room_in_metres_with_z_up_and_the_floor_at_0():
    solution, position, _ = standing_solution()
    bone = 1.7 * 0.246
    found = of_solution(solution, Size.of_bone(f"l_knee-l_ankle={bone}"))
    np.testing.assert_allclose(found.position[:, 2], position[:, 2], atol=0.02)
    for one, other in ((0, 1), (1, 2)):
        ways = [c[one] - c[other] for c in (found.position, position)]
        np.testing.assert_allclose(*(np.linalg.norm(way) for way in ways), rtol=1e-4)
    np.testing.assert_allclose(found.focal_px, 1500)


def test_what_was_not_placed_is_no_calibration():
    solution, _, _ = standing_solution()
    with pytest.raises(ValueError, match="not known where the cameras stand.*--rig"):
        of_solution(replace(solution, position=None), Size.of_person(1.7))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--calibration-out", "c.toml"], "--height or --bone"),
        (["--calibration-out", "c.csv", "--height", "1.8"], "end in"),
        (["--height", "1.8"], "--calibration-out"),
        (["--calibration", "none.toml"], "no calibration none.toml"),
    ],
)
def test_the_command_refuses_before_it_solves(tmp_path, capsys, options, message):
    solution, _, _ = standing_solution()
    solution.recording.save(tmp_path / "walk.npz")
    with pytest.raises(SystemExit, match="2"):
        main(["solve", str(tmp_path / "walk.npz"), *options])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "walk-solved").exists()
