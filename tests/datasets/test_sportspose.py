"""SportsPose: clips, calibration and timing, written in their layout from known recordings."""

import json
import os
import pickle
import shutil

import numpy as np
import pytest
from datasets_scene import camera, person

from canonlift.body.skeleton import COCO17
from canonlift.readers.datasets import sportspose

SIZE = (1936, 1216)
# Day, subject, activity and number: one of validation, one of test, two of training
CLIPS = {
    ("indoors", "S04", "soccer", "0003"): 4,
    ("indoors", "S19", "throw_baseball", "0010"): 3,
    ("outdoors", "S10", "jump", "0001"): 3,
    ("outdoors", "S10", "jump", "0002"): 2,
}
# Each camera with its own lens: none, OpenCV's 5 coefficients, 8 with the rational model
LENSES = [
    (0,) * 8,
    (-0.2, 0.1, 0.001, -0.002, 0.9, 0, 0, 0),
    (0.1, 0, 0, 0.001, 0, 0.05, 0.02, 0),
]
TURNS = [0, 1, 2, 3, 1, 0, 5]


def rig(day, subject):
    start = int(subject[1:]) + (7 if day == "indoors" else 0)
    return [
        camera(50 * i + start, 4.5 + 0.2 * i, roll_deg=3 * i, size=SIZE, lens=LENSES[i % 3])
        for i in range(7)
    ]


def world(clip):
    return person(CLIPS[clip], COCO17, seed=sum(map(ord, "".join(clip))))


def upright(points, turns, size):
    """What turning an image a quarter clockwise does to a pixel, step by step."""
    (width, height), points = size, np.array(points)
    for _ in range(turns % 4):
        for pose in points:
            for index, (x, y) in enumerate(pose):
                pose[index] = height - y, x
        width, height = height, width
    return points, (width, height)


def write_pickle(path, content):
    path.write_bytes(pickle.dumps(content))


@pytest.fixture
def folder(tmp_path):
    for clip in CLIPS:
        day, subject, activity, number = clip
        place = tmp_path / "data" / day / subject / activity
        place.mkdir(parents=True, exist_ok=True)
        n_frames = CLIPS[clip]
        np.save(place / f"{activity}{number}.npy", world(clip).astype(np.float32))
        starts = 100 + 10 * np.arange(7)  # the cameras did not start together
        timing = {
            "video_path": np.array([day, subject, "Video_2022-10-06_10-00-00"]),
            "video_index": starts[:, None] + np.arange(n_frames) + 5 * int(number),
            "times_ms": 11 * (starts[:, None] + np.arange(n_frames)),
        }
        write_pickle(place / f"{activity}{number}_timing.pkl", timing)
        cameras = []
        for lens, seen in zip(range(7), rig(day, subject), strict=True):
            cameras.append(
                {
                    "R": seen.rotation,
                    "T": -seen.rotation @ seen.position,
                    "f": np.array(seen.focal),
                    "c": np.array([seen.centre]),
                    "k": np.array(seen.lens[: (8, 5, 8)[lens % 3]]),
                    "tpr": None,
                    "A": None,
                    "P": None,
                }  # fmt: skip
            )
        calibration = {"calibration": cameras, "numtimesrot90clockwise": TURNS}
        write_pickle(place.parent / "calib.pkl", calibration)
    return tmp_path


def test_clips_are_split_by_subject(folder):
    names = [name for name, _ in sportspose.read(folder)]
    assert names == [
        "val_s04_indoors_soccer0003", "test_s19_indoors_throw_baseball0010",
        "train_s10_outdoors_jump0001", "train_s10_outdoors_jump0002",
    ]  # fmt: skip
    assert names == [name for name, _ in sportspose.read(folder / "data")]


def test_poses_are_in_upright_camera_axes_and_project_onto_upright_images(folder):
    for clip, (_, recording) in zip(CLIPS, sportspose.read(folder), strict=True):
        day, subject, *_ = clip
        assert recording.joints == COCO17
        assert recording.fps == 90
        assert recording.rig == f"sportspose_{subject.lower()}_{day}"
        for view, (seen, turns) in enumerate(zip(rig(day, subject), TURNS, strict=True)):
            pixels, size = upright(seen.pixels(world(clip)), turns, SIZE)
            np.testing.assert_allclose(recording.keypoints[:, view], pixels, atol=1e-2)
            np.testing.assert_array_equal(
                recording.keypoints[:, view], recording.keypoints_true[:, view]
            )
            assert tuple(recording.image_size[view]) == size
            pose = seen.in_camera(world(clip))
            np.testing.assert_allclose(recording.pose3d[:, view, :, 2], pose[..., 2], atol=1e-5)
            # Upright axes: right and down in the turned image, by a camera without lens
            flat = pose[..., :2] / pose[..., 2:]
            turned, _ = upright(flat, turns, (0, 0))
            found = recording.pose3d[:, view, :, :2] / recording.pose3d[:, view, :, 2:]
            np.testing.assert_allclose(found, turned, atol=1e-5)


def test_views_are_named_by_the_places_of_the_cameras(folder):
    """The table of the loader: the camera called `right` is 3, but 2 for the later subjects."""
    recordings = dict(sportspose.read(folder))
    assert recordings["val_s04_indoors_soccer0003"].views.index("right") == 3
    assert recordings["test_s19_indoors_throw_baseball0010"].views.index("right") == 2
    assert recordings["train_s10_outdoors_jump0001"].views.index("right") == 3
    kept = dict(sportspose.read(folder, views=("right", "front-left")))
    for name, recording in kept.items():
        views = [recordings[name].views.index(view) for view in recording.views]
        assert set(recording.views) == {"right", "front-left"}
        np.testing.assert_array_equal(recording.pose3d, recordings[name].pose3d[:, views])
    with pytest.raises(ValueError, match=r"S04: no view above; it has back-left, back"):
        dict(sportspose.read(folder, views=("above",)))


@pytest.mark.parametrize(
    ("day", "right", "split", "numbers"),
    [
        ("indoors", 3, "train", (0, 1, 2, 3, 5, 8, 10, 11, 13)),
        ("indoors", 3, "val", (4, 7, 9, 14)),
        ("indoors", 3, "test", (6, 12)),
        ("indoors", 2, "train", (15, 16, 17, 18, 20, 21)),
        ("indoors", 2, "test", (19,)),
        ("outdoors", 3, "train", (0, 10, 23)),
        ("outdoors", 3, "val", (22,)),
    ],
)
def test_each_subject_has_its_split_and_its_places_of_cameras(day, right, split, numbers, folder):
    """As the loader of the data set lists its camera `right`, one by one."""
    (folder / "data/indoors/S04").rename(folder / "S")
    for place in ("indoors", "outdoors"):
        shutil.rmtree(folder / "data" / place)
    for number in numbers:
        shutil.copytree(folder / "S", folder / f"data/{day}/S{number:02d}")
    recordings = dict(sportspose.read(folder))
    assert list(recordings) == [f"{split}_s{number:02d}_{day}_soccer0003" for number in numbers]
    assert {recording.views.index("right") for recording in recordings.values()} == {right}


def spot(camera_index, frame):
    """Where a detector saw the joints in a frame of a video."""
    rng = np.random.default_rng([camera_index, frame])
    return np.column_stack([rng.uniform(0, 1200, (17, 2)), rng.uniform(0.1, 1, 17)])


@pytest.fixture
def detections(tmp_path):
    """MMPose's results on two cameras' videos; nobody is in frame 146 of camera 3."""
    for day, subject, *_ in CLIPS:
        place = tmp_path / "rtmpose" / day / subject / "Video_2022-10-06_10-00-00"
        place.mkdir(parents=True, exist_ok=True)
        for index in (1, 3):
            frames = []
            for frame in range(160):
                points = spot(index, frame)
                person = {
                    "keypoints": points[:, :2].tolist(),
                    "keypoint_scores": points[:, 2].tolist(),
                }
                nobody = (index, frame) == (3, 146)
                # frames are counted from 0 by some versions of MMPose and from 1 by others
                frames.append(
                    {"frame_id": frame + index % 2, "instances": [] if nobody else [person]}
                )
            (place / f"CAM{index}.json").write_text(json.dumps(frames))
    return tmp_path / "rtmpose"


def test_detections_are_those_of_the_frames_in_the_timing_file(folder, detections):
    recordings = dict(sportspose.read(folder, detections, views=("right", "back-right", "back")))
    truth = dict(sportspose.read(folder, views=("right", "back-right", "back")))
    recording = recordings["val_s04_indoors_soccer0003"]
    assert recording.views == ("back", "back-right", "right")  # cameras 1, 2 and 3
    for index, camera_index in ((0, 1), (2, 3)):
        for frame in range(4):
            number = 100 + 10 * camera_index + frame + 15
            if (camera_index, number) == (3, 146):
                assert (recording.confidence[frame, index] == 0).all()
                continue
            points = spot(camera_index, number)
            np.testing.assert_allclose(recording.keypoints[frame, index], points[:, :2], rtol=1e-5)
            np.testing.assert_allclose(recording.confidence[frame, index], points[:, 2], rtol=1e-5)
    assert (recording.confidence[:, 1] == 0).all()
    np.testing.assert_array_equal(recording.pose3d, truth["val_s04_indoors_soccer0003"].pose3d)
    np.testing.assert_array_equal(
        recording.keypoints_true, truth["val_s04_indoors_soccer0003"].keypoints_true
    )


def test_alphapose_numbers_the_frames_of_a_video(folder, detections):
    for file in detections.rglob("CAM*.json"):
        index = int(file.stem[3:])
        entries = [
            {
                "image_id": f"{frame}.jpg",
                "keypoints": spot(index, frame).ravel().tolist(),
                "score": 2,
            }
            for frame in reversed(range(140, 160))
        ]
        file.write_text(json.dumps(entries))
    recording = dict(sportspose.read(folder, detections))["val_s04_indoors_soccer0003"]
    np.testing.assert_allclose(recording.keypoints[2, 3], spot(3, 147)[:, :2], rtol=1e-5)
    file.write_text(json.dumps([{**entries[0], "image_id": "a.jpg"}]))
    with pytest.raises(ValueError, match=r"CAM\d.json: frame 'a.jpg' has no number"):
        dict(sportspose.read(folder, detections))


def test_missing_detections_are_named(folder, detections):
    with pytest.raises(FileNotFoundError, match=r"Video_2022-10-06_10-00-00: none of .*CAM2.json"):
        dict(sportspose.read(folder, detections, views=("back-right",)))
    (detections / "indoors/S04/Video_2022-10-06_10-00-00/CAM3.json").write_text("[{}]")
    with pytest.raises(ValueError, match=r"CAM3.json: not the results .*KeyError"):
        dict(sportspose.read(folder, detections))


SOCCER = "data/indoors/S04/soccer/soccer0003"
TIMING = f"{SOCCER}_timing.pkl"
CALIB = "data/indoors/S04/calib.pkl"


def edit(path, function):
    content = pickle.loads(path.read_bytes())
    function(content)
    write_pickle(path, content)


class Payload:
    def __reduce__(self):
        return os.mkdir, ("hacked",)


def halves(timing):
    timing["video_index"] = timing["video_index"] + 0.5


def from_the_camera(calibration):
    """R and T from camera to world, as other data sets have them."""
    for entry in calibration["calibration"]:
        entry["R"], entry["T"] = entry["R"].T, -entry["R"].T @ entry["T"]


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("file", "spoil", "message"),
    [
        (f"{SOCCER}.npy", cut, r"soccer0003.npy: \d+ bytes .* truncated"),
        (f"{SOCCER}.npy", lambda f: np.save(f, np.ones((4, 24, 3))), r"soccer0003.npy: shape"),
        (f"{SOCCER}.npy", lambda f: np.save(f, np.ones(4)), r"soccer0003.npy: shape"),
        (f"{SOCCER}.npy", lambda f: np.save(f, np.array(7.0)), r"soccer0003.npy: shape \(\)"),
        (f"{SOCCER}.npy", lambda f: np.save(f, np.array({}, "O")), "soccer0003.npy: not an arr"),
        (f"{SOCCER}.npy", lambda f: np.save(f, 1000 * np.load(f)), "3D in another unit"),
        (TIMING, cut, "timing.pkl: not a readable pickle"),
        (TIMING, lambda f: edit(f, lambda c: c.pop("video_index")), "lacks video_i"),
        (TIMING, lambda f: edit(f, lambda c: c.update(video_index=1)), "video_index"),
        (TIMING, lambda f: edit(f, halves), "video_index: not whole numbers"),
        (TIMING, lambda f: write_pickle(f, Payload()), "timing.pkl: refused"),
        (CALIB, lambda f: edit(f, lambda c: c["calibration"][2].update(R=-np.eye(3))), "R: not a"),
        (CALIB, lambda f: edit(f, lambda c: c["calibration"][2].update(f=[[1], 2])), "2, f: not"),
        (
            CALIB,
            lambda f: edit(f, lambda c: c.update(numtimesrot90clockwise=[np.nan] * 7)),
            "calib.pkl, numtimesrot90clockwise: not whole numbers",
        ),
        (CALIB, lambda f: edit(f, from_the_camera), "do not project"),
        (CALIB, cut, "calib.pkl: not a readable pickle"),
        (CALIB, lambda f: write_pickle(f, {"calibration": Payload()}), "calib.pkl: refused"),
        (CALIB, lambda f: edit(f, lambda c: c["calibration"].pop()), "not a list of 7 cameras"),
        (CALIB, lambda f: edit(f, lambda c: c["calibration"][2].pop("f")), "camera 2: lacks f"),
        (CALIB, lambda f: edit(f, lambda c: c["calibration"][2].update(R=np.eye(4))), "R: shape"),
        (CALIB, lambda f: edit(f, lambda c: c["calibration"][2].update(k=np.ones(12))), "prism"),
        (CALIB, lambda f: edit(f, lambda c: c.pop("numtimesrot90clockwise")), "lacks numtimes"),
    ],
)  # fmt: skip
def test_the_message_names_what_is_wrong(file, spoil, message, folder, detections, monkeypatch):
    monkeypatch.chdir(folder)
    spoil(folder / file)
    with pytest.raises(ValueError, match=message):
        dict(sportspose.read(folder, detections))
    assert not (folder / "hacked").exists()


def test_another_size_of_video_is_noticed(folder):
    with pytest.raises(ValueError, match=r"camera 0: principal point .* give the videos' true"):
        dict(sportspose.read(folder, video_size=(1280, 720)))


def test_missing_files_are_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no clips such as data/indoors/S01/soccer"):
        dict(sportspose.read(tmp_path / "nowhere"))
    (folder / CALIB).unlink()
    with pytest.raises(FileNotFoundError, match=r"S04/calib.pkl: no such file; the data set has"):
        dict(sportspose.read(folder))
