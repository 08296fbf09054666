"""OpenPose folders, written here in their exact layout from takes whose truth is known."""

import json

import numpy as np
import pytest
from detector_files import person

from canonlift.body import skeleton
from canonlift.readers import tracking
from canonlift.readers.detectors.joint_layouts import LAYOUTS
from canonlift.readers.detectors.to_recording import Options
from canonlift.readers.detectors.to_recording import read as read_take

KEY = "pose_keypoints_2d"
each_body = pytest.mark.parametrize("body", ["BODY_25", "BODY_25B", "COCO-18"])


def read(folders, fps, layout=None, rig=""):
    return read_take(folders, "openpose", Options(fps=(fps,), layout=layout, rig=rig))


def write(folder, frames, key=KEY, name="cam.{:04d}.json"):
    """`frames`: frame number -> people, each (J, 3)."""
    folder.mkdir()
    for number, people in frames.items():
        content = [
            {"person_id": [-1], key: p.ravel().tolist(), "face_keypoints_2d": []} for p in people
        ]
        text = json.dumps({"version": 1.3, "people": content})
        (folder / name.format(number)).write_text(text)
    return folder


@each_body
@pytest.mark.parametrize("key", [KEY, "pose_keypoints"])
@pytest.mark.parametrize("name", ["cam02.{:04d}.json", "a7_{:012d}_keypoints.json", "{}.json"])
def test_reads_back_exactly_what_was_written(tmp_path, body, key, name):
    rng = np.random.default_rng(0)
    joints = LAYOUTS[body].joints
    truth = np.stack([[person(joints, rng) for _ in range(3)] for _ in range(12)])
    truth[rng.random(truth.shape[:3]) < 0.1] = 0  # undetected
    folders = [
        write(tmp_path / f"{camera}_json", {t: [truth[t, v]] for t in range(12)}, key, name)
        for v, camera in enumerate("abc")
    ]
    recording, report = read(folders, 59.94, rig="hill")
    np.testing.assert_array_equal(recording.confidence, truth[..., 2])
    missed = truth[..., 2:] == 0
    np.testing.assert_array_equal(recording.keypoints, np.where(missed, np.nan, truth[..., :2]))
    assert (recording.joints, recording.views) == (joints, ("a", "b", "c"))
    assert (recording.fps, recording.rig) == (59.94, "hill")
    assert f"body model {body}" in report[0]


@each_body
def test_what_is_read_can_be_trained_on(tmp_path, body):
    rng = np.random.default_rng(1)
    folder = write(tmp_path / "a", {0: [person(LAYOUTS[body].joints, rng)]})
    taken = read([folder], 30.0)[0].on_skeleton(skeleton.H36M17)
    left, right = (taken.joints.index(n) for n in ("l_ankle", "r_ankle"))
    pelvis, head = (taken.joints.index(n) for n in ("pelvis", "head"))
    x, y = taken.keypoints[0, 0].T
    assert x[left] > x[pelvis] > x[right]
    assert y[left] > y[pelvis] > y[head]


@pytest.mark.parametrize("body", ["BODY_25", "BODY_25B"])
def test_recognises_both_layouts_of_25_joints_from_behind(tmp_path, body):
    """No face is seen from behind; and a camera without evidence follows the others."""
    joints = LAYOUTS[body].joints
    behind = person(joints, np.random.default_rng(2))
    face = [i for i, name in enumerate(joints) if name[2:] in ("eye", "ear") or name == "nose"]
    behind[face] = 0
    only_head = np.zeros_like(behind)
    only_head[0] = 400, 300, 0.5
    folders = [write(tmp_path / "a", {0: [behind]}), write(tmp_path / "b", {0: [only_head]})]
    assert read(folders, 30.0)[0].joints == joints


def test_asks_for_the_body_where_it_cannot_tell(tmp_path):
    one, other = (person(LAYOUTS[b].joints) for b in ("BODY_25", "BODY_25B"))
    contradicting = [write(tmp_path / "a", {0: [one]}), write(tmp_path / "b", {0: [other]})]
    one = one.copy()
    one[8] = 0  # mid-hip decides
    undecided = [write(tmp_path / "c", {0: [one]})]
    for folders in (contradicting, undecided):
        with pytest.raises(ValueError, match="say which by --layout"):
            read(folders, 30.0)
        for body in ("BODY_25", "BODY_25B"):
            assert read(folders, 30.0, body)[0].joints == LAYOUTS[body].joints
    with pytest.raises(ValueError, match="25 joints.*cannot be COCO-18"):
        read(undecided, 30.0, "COCO-18")


def test_cameras_are_matched_by_frame_number_and_missing_files_are_unobserved(tmp_path):
    rng = np.random.default_rng(3)
    a = {n: [person(skeleton.COCO18, rng)] for n in (7, 8, 10)}
    b = {n: [person(skeleton.COCO18, rng)] for n in (9, 10, 11)}
    folders = [write(tmp_path / "a", a), write(tmp_path / "b", b)]
    recording, report = read(folders, 25.0)
    assert recording.n_frames == 5
    observed = recording.confidence.any(-1)
    assert observed.T.tolist() == [
        [True, True, False, True, False],
        [False, False, True, True, True],
    ]
    assert np.isnan(recording.keypoints[~observed]).all()
    np.testing.assert_array_equal(recording.keypoints[3, 0], a[10][0][:, :2])
    np.testing.assert_array_equal(recording.keypoints[3, 1], b[10][0][:, :2])
    assert "frames of 5 of which a camera has no record, unobserved: a 2, b 2" in report


@pytest.mark.parametrize("speed", [3.0, 8.0, 30.0])
def test_follows_the_person_of_higher_confidence_through_a_crossing(tmp_path, speed):
    """Two of the same pose walk through each other, in any order in the file."""
    rng = np.random.default_rng(4)
    frames = {}
    for t in range(41):
        shift = speed * (t - 20.4)  # nearest to the other's last place, once
        one = person(skeleton.COCO18, at=(600 + shift, 300), confidence=0.8)
        other = person(skeleton.COCO18, at=(600 - shift, 310), confidence=0.6)
        frames[t] = [[one, other], [other, one]][rng.integers(2)]
    recording, report = read([write(tmp_path / "a", frames)], 25.0)
    assert (recording.confidence == np.float32(0.8)).all()
    assert "0 of 41 frames unobserved; 41 ambiguous" in report[2]
    assert "of 2)" in report[2]


def test_bridges_a_gap_without_a_change_to_another_person(tmp_path):
    """The athlete is lost for half a second while a bystander is seen more surely."""
    athlete = {
        t: person(skeleton.COCO18, at=(200 + 5 * t, 300), confidence=0.6) for t in range(60)
    }
    bystander = person(skeleton.COCO18, at=(900, 350), confidence=0.9)
    lost = range(20, 32)
    frames = {t: [bystander] if t in lost else [p] for t, p in athlete.items()}
    recording, report = read([write(tmp_path / "a", frames)], 25.0)
    seen = recording.confidence[:, 0].any(-1)
    assert np.flatnonzero(~seen).tolist() == list(lost)
    assert (recording.confidence[seen] == np.float32(0.6)).all()
    assert "12 of 60 frames unobserved (in 12 of them another person is seen)" in report[2]


def alone(places, **options):
    """One person per frame, nobody where the place is None."""
    nobody = np.zeros((0, 18, 3))
    people = (
        None if x is None else person(skeleton.COCO18, at=(x, 300), **options) for x in places
    )
    return [nobody if p is None else p[None] for p in people]


def n_tracks(people, max_gap=50):
    return len(tracking.tracks(people, max_gap))


def test_a_jump_farther_than_a_person_can_move_is_another_person():
    jump = alone([300] * 6 + [700] * 4)
    assert [len(track) for track in tracking.tracks(jump, max_gap=50)] == [6, 4]
    assert n_tracks(alone([300, 300, 550])) == 2
    assert n_tracks(alone([300, 300, None, 550])) == 1  # in twice the time


def test_a_track_ends_when_it_is_not_seen_for_too_long():
    people = alone([300, None, None, 300])
    assert tracking.tracks(people, max_gap=3) == [{0: 0, 3: 0}]
    assert tracking.tracks(people, max_gap=2) == [{0: 0}, {3: 0}]


def test_follows_a_run_of_which_every_fourth_frame_is_seen():
    people = alone([100 * t if t % 4 == 0 else None for t in range(60)])
    assert n_tracks(people) == 1


def test_a_person_seen_in_halves_is_one_track():
    """Joints out of sight move along with those in sight."""
    people = alone([100 + 40 * t for t in range(40)])
    lower, upper = range(8, 14), [*range(8), *range(14, 18)]
    for t in range(1, 40):
        people[t][0, lower if t < 20 else upper] = 0
    assert n_tracks(people) == 1


def test_one_outlying_joint_does_not_end_a_track():
    people = alone([300 + 10 * t for t in range(12)])
    people[5][0, 3, :2] += 5000
    assert n_tracks(people) == 1


def test_a_new_person_does_not_swap_the_tracks_of_two_others():
    """Though that would find a place for everybody."""
    a, b, newcomer = (person(skeleton.COCO18, at=(x, 300)) for x in (500, 670, 330))
    moved = person(skeleton.COCO18, at=(505, 300))
    people = [np.stack([a, b]), np.stack([newcomer, moved])]
    assert tracking.tracks(people, max_gap=5) == [{0: 0, 1: 1}, {0: 1}, {1: 0}]


def test_the_best_track_has_the_largest_sum_of_confidences():
    long, short = alone([300] * 3, confidence=0.5), alone([300] * 3, confidence=0.9)
    people = [np.concatenate(pair) for pair in zip(long, short, strict=True)]
    tracks = [{1: 1}, {0: 0, 1: 0, 2: 0}]
    assert tracking.best(people, tracks) == tracks[1]
    for frame in people:
        frame[0, 2:, 2] = 0  # two joints for three frames are less than 18 in one
    assert tracking.best(people, tracks) == tracks[0]
    people[2][0, 0, 2] = 99.0  # no joint counts for more than a sure one
    assert tracking.best(people, tracks) == tracks[0]
    assert tracking.best(people, []) == {}


@pytest.mark.parametrize(("moments", "kept"), [(1, 0), (2, 1)])
def test_a_hand_before_the_lens_is_not_the_largest_person(moments, kept):
    people = alone([300 + t for t in range(20)])
    for t in range(moments):
        people[t] = np.concatenate([people[t], people[t] * [5, 5, 1]])
    tracks = [dict.fromkeys(range(20), 0), dict.fromkeys(range(moments), 1)]
    assert tracking.largest(people, tracks) == tracks[kept]


def test_the_largest_person_is_so_for_most_of_the_time():
    small, large = alone([300] * 5), [p * [1.2, 1.2, 1] for p in alone([600] * 5)]
    small[2] *= [9, 9, 1]
    people = [np.concatenate(pair) for pair in zip(small, large, strict=True)]
    tracks = [dict.fromkeys(range(5), i) for i in range(2)]
    assert tracking.largest(people, tracks) == tracks[1]


def test_every_person_is_in_exactly_one_track():
    rng = np.random.default_rng(5)
    people = []
    for _ in range(30):
        persons = [
            person(skeleton.COCO18, rng, rng.uniform(0, 900, 2)) for _ in range(rng.integers(5))
        ]
        people.append(np.stack(persons) if persons else np.zeros((0, 18, 3)))
        people[-1][rng.random(people[-1].shape[:2]) < 0.5] = 0
    found = [item for track in tracking.tracks(people, max_gap=5) for item in track.items()]
    assert sorted(found) == [
        (t, i) for t, persons in enumerate(people) for i in range(len(persons))
    ]


def test_people_without_any_joint_are_ignored(tmp_path):
    someone = person(skeleton.COCO18)
    frames = {0: [np.zeros((18, 3)), someone], 1: [], 2: [np.zeros((0, 3))], 3: [someone]}
    recording, report = read([write(tmp_path / "a", frames)], 30.0)
    assert recording.confidence[:, 0].any(-1).tolist() == [True, False, False, True]
    assert "2 of 4 frames unobserved; 0 ambiguous" in report[2]


def test_a_joint_in_the_corner_is_undetected(tmp_path):
    someone = person(skeleton.COCO18)
    someone[4, :2] = 0
    recording, _ = read([write(tmp_path / "a", {0: [someone]})], 30.0)
    assert np.flatnonzero(recording.confidence[0, 0] == 0).tolist() == [4]


def test_hidden_files_are_not_read(tmp_path):
    """macOS leaves `._` files on drives that are not its own."""
    folder = write(tmp_path / "a", {0: [person(skeleton.COCO18)]})
    (folder / "._cam.0000.json").write_bytes(b"\x00\x05\x16\x07")
    assert read([folder], 30.0)[0].n_frames == 1


def test_clips_confidence_and_says_how_often(tmp_path):
    someone = person(skeleton.COCO18)
    someone[3, 2], someone[5, 2], someone[7, 2] = 1.25, 1.0, -0.1
    recording, report = read([write(tmp_path / "a", {0: [someone]})], 30.0)
    expected = np.where(np.arange(18) == 7, 0, someone[:, 2].clip(0, 1))
    np.testing.assert_array_equal(recording.confidence[0, 0], expected)
    assert report[1].endswith("; outside [0, 1], clipped: 2 of 18")


def test_refuses_what_is_not_in_pixels_or_not_a_confidence(tmp_path):
    small = person(skeleton.COCO18, at=(0.5, 0.1), height=0.8)
    with pytest.raises(ValueError, match="--keypoint_scale 0"):
        read([write(tmp_path / "a", {0: [small]})], 30.0)
    percent = person(skeleton.COCO18, confidence=87)
    with pytest.raises(
        ValueError, match="scores from 87 to 87.* say which by --confidence: percent"
    ):
        read([write(tmp_path / "b", {0: [percent]})], 30.0)


def people_of(value):
    return json.dumps({"people": [{KEY: value}]})


GOOD = person(skeleton.COCO18).ravel().tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        (people_of(GOOD)[:-20], "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1, 2]", "no list 'people'"),
        ("{}", "no list 'people'"),
        ('{"people": {"0": 1}}', "'people' is {'0': 1}, not a list"),
        ('{"people": [3]}', "person 0: no 'pose_keypoints_2d'"),
        ('{"people": [{"keypoints": [1]}]}', "person 0: no 'pose_keypoints_2d'"),
        (people_of(GOOD[:-1]), "person 0: 53 numbers"),
        (people_of([*GOOD[:-1], "1"]), "not a list of numbers"),
        (people_of([*GOOD[:-1], float("inf")]), "finite numbers"),
        (people_of([*GOOD[:-1], 10**400]), "too large"),
        (people_of([-(2**63)] * 54), "finite numbers"),  # has no absolute value as an integer
        (people_of([*GOOD[:-1], [1]]), "not a list of numbers"),
        (people_of({"x": 1}), "not a list of numbers"),
        (people_of(True), "not a list of numbers"),
    ],
)
def test_a_malformed_file_is_named(tmp_path, text, message):
    folder = write(tmp_path / "a", {0: [person(skeleton.COCO18)]})
    text = text if isinstance(text, bytes) else text.encode()
    (folder / "cam.0001.json").write_bytes(text)
    with pytest.raises(ValueError, match=message) as error:
        read([folder], 30.0)
    assert str(folder / "cam.0001.json") in str(error.value)


def test_numbers_of_joints_that_disagree_are_named(tmp_path):
    few, many = person(skeleton.COCO18), person(skeleton.BODY_25)
    mixed = write(tmp_path / "a", {0: [few], 1: [many]})
    with pytest.raises(ValueError, match="a, frame 0: people of 18 and 25 joints"):
        read([mixed], 30.0)
    with pytest.raises(ValueError, match="d, frame 0: people of 18 and 25 joints"):
        read([write(tmp_path / "d", {0: [few, many]})], 30.0)
    folders = [write(tmp_path / "b", {0: [few]}), write(tmp_path / "c", {0: [many]})]
    with pytest.raises(ValueError, match="b of 18, c of 25"):
        read(folders, 30.0)


def test_folders_that_cannot_be_cameras_are_refused(tmp_path):
    someone = [person(skeleton.COCO18)]
    good = write(tmp_path / "good", {0: someone, 1: someone})

    def refused(error, match, *folders):
        with pytest.raises(error, match=match):
            read(folders, 30.0)

    refused(FileNotFoundError, "nowhere: no such file or folder", tmp_path / "nowhere")
    refused(
        FileNotFoundError, "no results of a detector in it; give its folders good one", tmp_path
    )
    refused(
        FileNotFoundError,
        "no results of a detector in it; is it the one",
        write(tmp_path / "empty", {}),
    )
    refused(ValueError, "given twice", good, tmp_path / "." / "good")
    later = write(tmp_path / "later", {2: someone})
    refused(ValueError, "good: frames 0 to 1, .* 2 to 2: no frame in common", good, later)
    stamps = write(tmp_path / "stamps", {0: someone, 1700000000000: someone})
    refused(ValueError, "replaced by frame numbers", stamps)
    refused(ValueError, "alone: no person in any file", write(tmp_path / "alone", {0: []}))
    twice = write(tmp_path / "twice", {0: someone}, name="x.{}.json")
    (twice / "y.00.json").write_text('{"people": []}')
    refused(ValueError, "y.00.json: frame 0 again, after x.0.json", twice)
    (good / "about.json").write_text("{}")
    refused(ValueError, "about.json: no frame number", good)


def test_folders_of_the_same_name_are_called_as_the_folder_above(tmp_path):
    folders = []
    for camera in "ab":
        (tmp_path / camera).mkdir()
        folders.append(write(tmp_path / camera / "json", {0: [person(skeleton.COCO18)]}))
    assert read(folders, 30.0)[0].views == ("a", "b")


@pytest.mark.parametrize("fps", [0.0, -30.0, float("nan"), float("inf")])
def test_refuses_an_impossible_frame_rate(tmp_path, fps):
    with pytest.raises(ValueError, match="fps must be positive"):
        read([tmp_path], fps)
