"""Every format of detections, written here in its exact layout and read back; and odd cases."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from detector_files import (
    COCO17,
    DLC_NAMES,
    FPS,
    IDS,
    LAYOUT_FILES,
    SIZE,
    alphapose,
    assert_read,
    bodypose3d,
    caliscope,
    coco_annotations,
    coco_results,
    deeplabcut_csv,
    detectron,
    double,
    film,
    mediapipe_csv,
    mmpose_lists,
    mmpose_video,
    people,
    person,
    table_long,
    videopose3d,
    yolo_text,
)

from canonlift.body import skeleton
from canonlift.readers.detectors import joint_layouts, scores
from canonlift.readers.detectors.parsing import InputError
from canonlift.readers.detectors.to_recording import Options, read

each_layout = pytest.mark.parametrize("name", LAYOUT_FILES)
SHARED = Path(__file__).parents[2] / "shared" / "data" / "recordings"
SOME = Options(fps=(FPS,))


@each_layout
def test_reads_back_what_was_written(name, tmp_path):
    layout = LAYOUT_FILES[name]
    points = film(layout.joints)
    cameras = layout.write(tmp_path, points)
    recording, _ = read(cameras, layout.form, layout.options)
    assert_read(recording, layout.expect(points), layout.atol)
    assert recording.joints == layout.joints
    assert len(recording.views) == 2
    assert recording.fps == pytest.approx(FPS, rel=1e-6)
    recognised, report = read(cameras, "auto", layout.options)
    assert f"looks like {layout.form}:" in report[0]
    np.testing.assert_array_equal(recognised.keypoints, recording.keypoints)


# --- scores


def of_scores(values, tmp_path, write=mmpose_video, form="mmpose", **options):
    """Confidences where scores are `values` times those of the film."""
    points = film(COCO17, missed=0)
    points[..., 2] *= values
    recording, report = read(write(tmp_path, points), form, replace(SOME, **options))
    return points, recording.confidence, "\n".join(report)


def test_unbounded_scores_are_divided_by_their_95th_percentile(tmp_path):
    points, confidence, said = of_scores(9.0, tmp_path)
    top = np.quantile(points[..., 2][points[..., 2] > 0], 0.95)
    np.testing.assert_allclose(confidence, (points[..., 2] / top).clip(0, 1), atol=1e-6)
    assert f"divided by their 95th percentile, {top:.3g}" in said


def test_scores_of_an_unknown_scale_are_refused_until_it_is_named(tmp_path):
    with pytest.raises(InputError, match="say which by --confidence: percent") as error:
        of_scores(100.0, tmp_path / "a", alphapose, "alphapose")
    assert "alphapose-results.json" in str(error.value)
    points, confidence, said = of_scores(
        100.0, tmp_path / "b", alphapose, "alphapose", confidence="percent"
    )
    np.testing.assert_allclose(confidence, points[..., 2] / 100, atol=1e-6)
    assert "divided by 100" in said
    with pytest.raises(ValueError, match="--confidence must be one of"):
        of_scores(1.0, tmp_path / "c", confidence="percentage")
    with pytest.raises(ValueError, match="--confidence must be one of .*, got '0-1'"):
        of_scores(1.0, tmp_path / "d", confidence="0-1")


def test_logits_are_recognised_by_their_range_and_not_by_one_outlier():
    sure = np.linspace(0.01, 0.99, 99)
    logits = np.log(sure / (1 - sure))
    nobody = np.full(99, np.nan)
    made, line = scores.confidences(logits, nobody, "visibility", None, "files")
    assert "logits" in line
    np.testing.assert_allclose(made, sure)
    odd = np.where(np.arange(99) == 3, 5.0, sure)
    made, line = scores.confidences(odd, nobody, "visibility", None, "files")
    assert line.endswith("taken as they are; outside [0, 1], clipped: 1 of 99")
    assert made[3] == 1.0
    np.testing.assert_array_equal(np.delete(made, 3), np.delete(sure, 3))


def test_flags_that_are_all_1_are_replaced_by_the_score_of_the_person(tmp_path):
    """COCO's results have 1 in the third place, if they follow its specification."""
    points = film(COCO17, missed=0)
    flags = np.concatenate([points[..., :2], 1.0 * (points[..., 2:] > 0)], -1)
    recording, report = read(coco_results(tmp_path, flags), "coco", SOME)
    np.testing.assert_allclose(recording.confidence, 0.9 * flags[..., 2], atol=1e-6)
    assert any("score of the whole person" in line for line in report)


def test_a_joint_without_a_score_has_confidence_0_where_others_have_one():
    raw = np.array([0.5, np.nan, 0.7])
    made, _ = scores.confidences(raw, raw, "probability", None, "files")
    np.testing.assert_array_equal(made, [0.5, 0.0, 0.7])


# --- pixels


def test_normalised_coordinates_need_the_image_size(tmp_path):
    points = film(joint_layouts.BLAZEPOSE33)
    cameras = mediapipe_csv(tmp_path, points)
    with pytest.raises(InputError, match="say the size by --image-size"):
        read(cameras, "mediapipe", SOME)
    sizes = replace(SOME, image_size=(SIZE, (720, 1280)))
    recording, _ = read(cameras, "mediapipe", sizes)
    np.testing.assert_array_equal(recording.image_size, sizes.image_size)
    turned = points[:, 1, :, :2] * [720 / 1280, 1280 / 720]
    seen = points[:, 1, :, 2] > 0
    np.testing.assert_allclose(recording.keypoints[:, 1][seen], turned[seen], atol=1e-3)
    with pytest.raises(ValueError, match="3 image sizes for 2 cameras"):
        read(cameras, "mediapipe", replace(SOME, image_size=(SIZE,) * 3))


def test_a_negative_third_number_is_depth_and_not_visibility(tmp_path):
    points = film(joint_layouts.BLAZEPOSE33, n_views=1, missed=0)
    frames = [[[x, y, 0.1 - z] for x, y, z in p.tolist()] for p in points[:5, 0]]
    (tmp_path / "a.json").write_text(json.dumps(frames))
    recording, report = read([tmp_path / "a.json"], "mediapipe", SOME)
    assert (recording.confidence == 1).all()
    assert any("none in the files" in line for line in report)


# --- columns and names


@pytest.mark.parametrize(("confidence", "track"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_yolo_text_with_a_track_id_a_confidence_or_both(tmp_path, confidence, track):
    cameras = yolo_text(tmp_path, film(COCO17, missed=0), confidence, track)
    options = replace(SOME, image_size=(SIZE,))
    if track:
        assert read(cameras, "yolo", replace(options, person=("1",)))
    else:
        with pytest.raises(ValueError, match="no person 7"):
            read(cameras, "yolo", replace(options, person=("7",)))


def test_numbered_columns_are_read_in_any_order(tmp_path):
    """A joint on the edge of the image is seen, and milliseconds are not seconds."""
    points = film(COCO17, n_views=1, missed=0)[:5, 0]
    points[2, 3, 0] = 0.0
    names = [f"{axis}{joint}" for joint in reversed(range(17)) for axis in "xy"]
    rows = [[t, 40 * t, *frame[::-1, :2].ravel()] for t, frame in enumerate(points)]
    lines = [["frame", "timestamp_ms", *names], *rows]
    (tmp_path / "a.csv").write_text("".join(",".join(map(str, row)) + "\n" for row in lines))
    recording, _ = read([tmp_path / "a.csv"], "csv")
    assert recording.joints == COCO17
    assert recording.fps == pytest.approx(FPS)
    np.testing.assert_allclose(recording.keypoints[:, 0], points[..., :2], atol=1e-3)


def test_joint_names_of_detectors_are_translated():
    words = {
        "left_shoulder": "l_shoulder", "LShoulder": "l_shoulder", "LEFT_FOOT_INDEX": "l_bigtoe",
        "RAnkle": "r_ankle", "rightknee": "r_knee", "rsho": "r_shoulder", "Hip": "mid_hip",
        "MidHip": "mid_hip", "right_eye (inner)": "r_eye_inner", "head_top": "head_top",
        "r_hip": "r_hip", "root": "pelvis", "Nose": "nose", "left_big_toe": "l_bigtoe",
        "tail": None, "left_right_hip": None, "": None, "knee": None,
    }  # fmt: skip
    assert {word: joint_layouts.canonical(word) for word in words} == words
    with pytest.raises(InputError, match="Nose, nose are called the same"):
        joint_layouts.named(["Nose", "nose"], "here")


def test_joints_of_a_layout_are_unique_and_no_more_than_its_total():
    for name, layout in joint_layouts.LAYOUTS.items():
        assert len(set(layout.joints)) == len(layout.joints) <= layout.total, name
    places = {"l_hip": 23, "r_ankle": 28, "l_bigtoe": 31, "r_wrist": 16, "l_mouth": 9}
    assert {n: joint_layouts.BLAZEPOSE33.index(n) for n in places} == places
    assert joint_layouts.LIMBS12.index("r_knee") == 9


def test_body_and_feet_are_read_of_133_whole_body_joints(tmp_path):
    """Of 133 joints the first 23 are the body and the feet."""
    points = film((*COCO17, *skeleton.FEET))
    rest = np.full((*points.shape[:2], 110, 3), 300.0) * [1, 1, 0.001]
    recording, _ = read(mmpose_lists(tmp_path, np.concatenate([points, rest], 2)), "mmpose", SOME)
    assert recording.joints == (*COCO17, *skeleton.FEET)
    seen = points[..., 2] > 0
    np.testing.assert_allclose(recording.keypoints[seen], points[..., :2][seen], atol=1e-3)


def test_a_yaml_file_describes_any_detector(tmp_path):
    points = film(COCO17)
    cameras = mmpose_video(tmp_path, points[:, :, :13])
    with pytest.raises(InputError, match="people of 13 joints.*YAML file for --layout"):
        read(cameras, "mmpose", SOME)
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"names: [{', '.join(COCO17[:13])}]\n"
        "combinations: {pelvis: {l_hip: 0.5, r_hip: 0.5}, chin: {nose: 1.5, l_eye: -0.5}}\n"
    )
    recording, _ = read(cameras, "mmpose", replace(SOME, layout=str(path)))
    assert recording.joints == (*COCO17[:13], "pelvis", "chin")
    both = (points[:, :, 11:13, 2] > 0).all(-1)
    middle = points[:, :, 11:13, :2].mean(2)
    np.testing.assert_allclose(recording.keypoints[:, :, 13][both], middle[both], atol=1e-3)
    least = np.where(both, points[:, :, 11:13, 2].min(-1), 0)
    np.testing.assert_allclose(recording.confidence[:, :, 13], least, atol=1e-6)

    path.write_text("names: {LAnkle: l_heel}\n")
    cameras = deeplabcut_csv(tmp_path, points)
    recording, _ = read(cameras, "deeplabcut", replace(SOME, layout=str(path)))
    assert recording.joints[15] == "l_heel"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [nose", "not YAML"), ("[nose]", "not a mapping"), ("{}", "no `names`"),
        ("names: [1, 2]", "a name is no text"), ("names: {}", "no `names`"),
        ("{names: [nose], combinations: {pelvis: {nose: 2}}}", "weights that sum to 1"),
        ("{names: [nose], combinations: {pelvis: {nose: .nan}}}", "weights that sum to 1"),
        ("{names: [nose], bones: 3}", "not a mapping"),
        ("!!python/object/apply:os.getcwd []", "not YAML"),
    ],
)  # fmt: skip
def test_a_wrong_yaml_file_is_refused_by_its_name(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=f"mine.yaml: .*{message}.*; write `names"):
        joint_layouts.load(path)


def test_the_report_says_which_joints_a_skeleton_lacks(tmp_path):
    _, report = read(bodypose3d(tmp_path, film(joint_layouts.LIMBS12)), "bodypose3d", SOME)
    assert report[-1].startswith("trains on skeleton limbs14 (made by fixed combinations: pelvis,")
    assert "h36m17 lacks nose, head" in report[-1]


def test_videopose3d_files_are_read_by_their_layout_name(tmp_path):
    points = film(COCO17)
    (path,) = videopose3d(tmp_path, points)
    arrays = dict(np.load(path, allow_pickle=True))
    arrays["metadata"] = np.array({"layout_name": "h36m", "num_joints": 17})
    np.savez(path, **arrays)
    assert read([path], "detectron", SOME)[0].joints == skeleton.H36M17
    content = {"S1": {"a": [points[:, 0, :, :2]], "b": [points[:, 1, :, :2]]}}
    np.savez(path, positions_2d=content, metadata=arrays["metadata"])
    with pytest.raises(
        InputError, match=r"2 recordings \(S1/a, S1/b\); save one recording per file"
    ):
        read([path], "detectron", SOME)


# --- who


def people_file(tmp_path, people, ids=None, first=0):
    """An AlphaPose file of several people, (frames, people, joints, 3), and their ids."""
    entries = [
        {"image_id": f"{first + t}.jpg", "keypoints": p.ravel().tolist(), "score": 2.0,
         **({} if ids is None else {"idx": ids[t][i]})}
        for t, frame in enumerate(people) for i, p in enumerate(frame) if p[:, 2].any()
    ]  # fmt: skip
    path = tmp_path / "cam.json"
    path.write_text(json.dumps(entries))
    return [path]


def three_people():
    """A sure one, a large one, and one who is seen for longest."""
    sure = [person(COCO17, at=(200 + t, 200), height=200, confidence=0.9) for t in range(20)]
    large = [person(COCO17, at=(700 + t, 100), height=600, confidence=0.5) for t in range(20)]
    long = [person(COCO17, at=(1500 + t, 200), height=150, confidence=0.2) for t in range(20)]
    for t in (18, 19):
        sure[t] = large[t] = np.zeros((17, 3))
    return np.array([sure, large, long], dtype=float).swapaxes(0, 1)


@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize(
    ("choice", "confidence"),
    [("best", 0.9), ("largest", 0.5), ("longest", 0.2), ("cam=largest", 0.5),
     ("other=longest", 0.9)],
)  # fmt: skip
def test_the_person_that_was_asked_for_is_kept(tmp_path, choice, confidence, tracked):
    people = three_people()
    ids = [[5, [3.0], [[8]]]] * 20 if tracked else None
    recording, _ = read(
        people_file(tmp_path, people, ids), "alphapose", replace(SOME, person=(choice,))
    )
    assert np.unique(recording.confidence[recording.confidence > 0]) == np.float32(confidence)
    if tracked:
        by_id = {0.9: "5", 0.5: "3", 0.2: "8"}[confidence]
        again, _ = read(
            people_file(tmp_path, people, ids), "alphapose", replace(SOME, person=(by_id,))
        )
        np.testing.assert_array_equal(again.keypoints, recording.keypoints)


WITH_IDS = ["openpose body25", "alphapose coco17", "mmpose video", "mmpose images", "mmpose lists",
            "coco results", "coco annotations", "yolo json"]  # fmt: skip


@pytest.mark.parametrize("name", WITH_IDS)
def test_each_of_two_people_is_found_by_track_id(tmp_path, name):
    """Also where the other one stands first in a file, or last."""
    layout = LAYOUT_FILES[name]
    points = film(layout.joints)
    cameras = layout.write(tmp_path, points)
    for path in tmp_path.rglob("*.json"):
        document = json.loads(path.read_text())
        for i, (place, entry) in enumerate(people(document)):
            key = next((key for key in IDS if key in entry), "track_id")
            other = double(entry) | {key: 8}
            entry[key] = 3
            place.insert(len(place) * (i % 2), other)
        path.write_text(json.dumps(document))
    one, other = (read(cameras, layout.form, replace(SOME, person=(i,)))[0] for i in "38")
    assert_read(one, layout.expect(points), layout.atol)
    np.testing.assert_array_equal(other.confidence, one.confidence)
    np.testing.assert_allclose(other.keypoints, one.keypoints + [3000, 0], atol=1e-3)


def test_individuals_of_deeplabcut_may_lack_joints_and_differ_in_their_order(tmp_path):
    points = film(COCO17, n_views=1, missed=0)[:, 0]
    names = list(DLC_NAMES.values())
    columns = [("anna", n) for n in range(17)] + [("bob", n) for n in (16, 3, 9)]
    rows = [
        ["scorer"] + ["net"] * 60,
        ["individuals"] + [who for who, _ in columns for _ in range(3)],
        ["bodyparts"] + [names[n] for _, n in columns for _ in range(3)],
        ["coords"] + ["x", "y", "likelihood"] * 20,
        *(
            [str(t)] + [f"{x + 100 * (who == 'bob' and i < 2):.3f}" for who, n in columns
                        for i, x in enumerate(frame[n])]
            for t, frame in enumerate(points)
        ),
    ]  # fmt: skip
    path = tmp_path / "video.csv"
    path.write_text("".join(",".join(row) + "\n" for row in rows))
    anna, bob = (
        read([path], "deeplabcut", replace(SOME, person=(who,)))[0] for who in ("anna", "bob")
    )
    seen = points[..., 2] > 0
    np.testing.assert_allclose(anna.keypoints[:, 0][seen], points[..., :2][seen], atol=1e-3)
    assert set(np.flatnonzero((bob.confidence[:, 0] > 0).any(0))) == {3, 9, 16}
    for joint in (3, 9, 16):
        there = seen[:, joint]
        expected = points[there, joint, :2] + 100
        np.testing.assert_allclose(bob.keypoints[there, 0, joint], expected, atol=1e-3)


def test_labelled_images_of_deeplabcut_are_numbered_by_their_names(tmp_path):
    """Their path stands in three columns, of which the head names none."""
    path = tmp_path / "CollectedData_me.csv"
    path.write_text(
        "scorer,,,me,me,me,me\nbodyparts,,,Nose,Nose,LHip,LHip\ncoords,,,x,y,x,y\n"
        "labeled-data,walk,img0007.png,10,20,30,90\nlabeled-data,walk,img0004.png,11,22,33,94\n"
    )
    recording, _ = read([path], "deeplabcut", SOME)
    assert (recording.joints, recording.n_frames) == (("nose", "l_hip"), 4)
    np.testing.assert_array_equal(recording.keypoints[0, 0], [[11, 22], [33, 94]])
    np.testing.assert_array_equal(recording.keypoints[3, 0], [[10, 20], [30, 90]])


def test_two_images_of_the_same_frame_number_are_refused(tmp_path):
    (path, _) = coco_annotations(tmp_path, film(COCO17))
    content = json.loads(path.read_text())
    content["images"][0]["file_name"] = "other/frame_000003.png"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="same number in their names"):
        read([path], "coco", SOME)
    (path, _) = alphapose(tmp_path, film(COCO17))
    content = json.loads(path.read_text())
    content[0]["image_id"] = "b/3.jpg"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="'b/3.jpg' .*are both frame 3|are both frame 3"):
        read([path], "alphapose", SOME)


def test_landmarks_of_five_numbers_have_their_visibility_before_their_presence(tmp_path):
    """And frames that say their number are of that number, wherever they stand."""
    points = film(joint_layouts.BLAZEPOSE33, n_views=1, missed=0)[:6]
    rows = [[[x, y, -0.1, c, 0.95] for x, y, c in p.tolist()] for p in points[:, 0]]
    frames = [{"frame": 2 * t, "pose_landmarks": [row]} for t, row in enumerate(rows) if t != 5]
    (tmp_path / "a.json").write_text(json.dumps(frames[::-1]))
    recording, _ = read([tmp_path / "a.json"], "mediapipe", SOME)
    assert recording.n_frames == 9
    np.testing.assert_allclose(recording.confidence[::2, 0], points[:5, 0, :, 2], atol=1e-5)
    np.testing.assert_allclose(recording.keypoints[::2, 0], points[:5, 0, :, :2], atol=1e-3)
    assert not recording.confidence[1::2].any()


def test_an_unknown_track_id_is_refused_with_a_list_of_the_known(tmp_path):
    cameras = people_file(tmp_path, three_people(), [[5, 3, 8]] * 20)
    with pytest.raises(ValueError, match="cam: no person 4; there are 8, 5, 3"):
        read(cameras, "alphapose", replace(SOME, person=("4",)))


def test_two_people_of_one_track_id_in_a_frame_are_refused(tmp_path):
    cameras = people_file(tmp_path, three_people(), [[5, 5, 8]] * 20)
    with pytest.raises(InputError, match=r"cam.json, frame 0: two people with the track id 5"):
        read(cameras, "alphapose", SOME)


def test_a_change_of_track_id_is_reported_and_both_tracks_can_be_joined(tmp_path):
    people = three_people()[:, :1]
    ids = [[1]] * 12 + [[7]] * 8
    recording, report = read(people_file(tmp_path, people, ids, first=30), "alphapose", SOME)
    assert (recording.confidence[:, 0, 0] > 0).sum() == 12
    (warning,) = [line for line in report if "WARNING" in line]
    assert "id 1 ends at frame 41" in warning
    assert "id 7 at frame 42" in warning
    joined = replace(SOME, person=("cam=1,7",))
    recording, _ = read(people_file(tmp_path, people, ids), "alphapose", joined)
    assert (recording.confidence[:, 0, 0] > 0).sum() == 18


def test_of_joined_tracks_in_the_same_frame_the_first_is_kept(tmp_path):
    cameras = people_file(tmp_path, three_people(), [[5, 3, 8]] * 20)
    recording, _ = read(cameras, "alphapose", replace(SOME, person=("3,8",)))
    np.testing.assert_allclose(recording.confidence[:, 0].max(-1), [0.5] * 18 + [0.2] * 2)


@pytest.mark.parametrize(("lost", "frame"), [(0, 9), (1, 9), (2, 10)])
def test_a_track_id_that_jumps_to_another_person_is_reported(tmp_path, lost, frame):
    """Also where its owner, or both of them, are out of sight that very moment."""
    people = three_people()[:18]
    people[9, :lost] = 0
    ids = [[1, 2, 3]] * 9 + [[2, 1, 3]] * 9
    _, report = read(people_file(tmp_path, people, ids, first=30), "alphapose", SOME)
    assert any(f"jumps to another person at frame {30 + frame}" in line for line in report)


def test_of_many_switches_five_are_listed(tmp_path):
    ids = [[1, 2, 3], [2, 1, 3]] * 9
    _, report = read(people_file(tmp_path, three_people()[:18], ids), "alphapose", SOME)
    warnings = [line for line in report if "WARNING" in line]
    assert len(warnings) == 6
    assert warnings[5].endswith("more such switches")


def test_detections_without_a_track_id_are_left_out_and_counted(tmp_path):
    cameras = people_file(tmp_path, three_people(), [[None, 3, None]] * 20)
    recording, report = read(cameras, "alphapose", SOME)
    assert np.unique(recording.confidence[recording.confidence > 0]) == np.float32(0.5)
    assert any("38 detections without a track id" in line for line in report)


# --- which files


def test_globs_files_and_folders_are_cameras(tmp_path):
    points = film(skeleton.BODY_25)
    LAYOUT_FILES["openpose body25"].write(tmp_path, points)
    for v in range(2):
        for path in (tmp_path / f"cam{v}_json").iterdir():
            path.rename(tmp_path / path.name.replace("cam_", f"phone{v}_"))
    recording, _ = read([f"{tmp_path}/phone{v}_*.json" for v in range(2)], "openpose", SOME)
    assert recording.views == ("phone0", "phone1")
    assert_read(recording, points)
    with pytest.raises(FileNotFoundError, match="matches no file"):
        read([f"{tmp_path}/phone7_*.json"], "openpose", SOME)


def test_auto_refuses_an_unknown_format_and_a_mixture_of_formats(tmp_path):
    (tmp_path / "a.json").write_text('{"cats": 3}')
    with pytest.raises(InputError, match="looks like no format that is known.*; name the format"):
        read([tmp_path / "a.json"], "auto", SOME)
    (one, _) = mmpose_video(tmp_path / "m", film(COCO17))
    (other, _) = coco_results(tmp_path / "c", film(COCO17))
    with pytest.raises(InputError, match="looks like coco, the camera before like mmpose"):
        read([one, other], "auto", SOME)


def test_a_truncated_text_file_is_refused(tmp_path):
    """Its last number may have lost digits."""
    (path, _) = bodypose3d(tmp_path, film(joint_layouts.LIMBS12))
    path.write_text(path.read_text()[:-3])
    with pytest.raises(InputError, match="the last line does not end"):
        read([path], "bodypose3d", SOME)


def test_points_of_hands_and_faces_are_left_out_and_counted(tmp_path):
    _, report = read(caliscope(tmp_path, film(joint_layouts.BLAZEPOSE33)), "auto")
    assert any("18 rows of points other than the 33 of the body" in line for line in report)


def test_errors_that_the_fuzz_test_found(tmp_path):
    """Sizes of images that are lists, and a joint whose name is a number of 5000 digits."""
    (path, _) = coco_annotations(tmp_path, film(COCO17))
    content = json.loads(path.read_text())
    content["images"][2]["width"] = [1280]
    path.write_text(json.dumps(content))
    assert read([path], "coco", SOME)[0].image_size is None
    (path,) = table_long(tmp_path, film(COCO17))
    path.write_text(path.read_text().replace("l_ear", "9" * 5000, 1))
    assert "9" * 5000 in read([path], "csv")[0].joints


def test_cameras_of_one_table_are_sorted_by_number(tmp_path):
    points = film(joint_layouts.BLAZEPOSE33, n_frames=6, n_views=11, missed=0)
    (path,) = caliscope(tmp_path, points)
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([head, *rows[::-1]]) + "\n")
    recording, _ = read([path], "auto")
    assert recording.views == tuple(f"port{v}" for v in range(11))
    np.testing.assert_allclose(recording.keypoints[0], points[0, ..., :2], atol=1e-3)


def test_files_without_any_person_are_refused(tmp_path):
    points = film(COCO17)
    with pytest.raises(InputError, match="no person in any file"):
        read(detectron(tmp_path, 0 * points), "detectron", SOME)


# --- the real thing


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no recordings in {SHARED}")
@pytest.mark.parametrize(
    ("cameras", "fps", "shape", "least"),
    [
        (["balancing_4cam/cam0*_json"], (60.0,), (100, 4, 25), 0.9),
        (["holistic_4cam/xy_HOLISTIC.csv"], (), (267, 4, 33), 0.5),
        (["webcam_2cam_a/kpts_cam*.dat"], (30.0,), (428, 2, 12), 0.99),
        (["webcam_2cam_b/kpts_cam*.dat"], (30.0,), (187, 2, 12), 0.99),
    ],
)
def test_real_recordings_are_read(cameras, fps, shape, least):
    paths = [path for pattern in cameras for path in sorted(SHARED.glob(pattern))]
    recording, _ = read(paths, "auto", Options(fps=fps))
    assert recording.confidence.shape == shape
    assert (recording.confidence > 0).mean() > least
    assert recording.fps == pytest.approx(fps[0] if fps else 30.3, abs=0.1)
    assert skeleton.lacking(recording.joints, skeleton.SKELETONS["limbs14"]) == ()
