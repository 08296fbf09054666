"""Files in the exact layouts of detectors, written from a take whose truth is known."""

import csv
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from canonlift.body import skeleton
from canonlift.readers.detectors.joint_layouts import BLAZEPOSE33, LAYOUTS, LIMBS12
from canonlift.readers.detectors.to_recording import Options

# A standing person, x right, y down, as tall as 1.
PLACE = {
    "nose": (0.02, 0.1), "neck": (0.0, 0.2), "upper_neck": (0.0, 0.16), "head_top": (0.0, 0.0),
    "eye": (0.03, 0.08), "ear": (0.06, 0.1), "shoulder": (0.1, 0.2), "elbow": (0.14, 0.36),
    "wrist": (0.12, 0.5), "hip": (0.07, 0.52), "mid_hip": (0.0, 0.52), "knee": (0.08, 0.75),
    "ankle": (0.07, 0.95), "bigtoe": (0.1, 1.0), "smalltoe": (0.13, 1.0), "heel": (0.06, 0.98),
    "eye_inner": (0.02, 0.08), "eye_outer": (0.04, 0.08), "mouth": (0.02, 0.13),
    "pinky": (0.13, 0.55), "index": (0.12, 0.56), "thumb": (0.11, 0.55), "pelvis": (0.0, 0.53),
    "thorax": (0.0, 0.21), "chest": (0.0, 0.35),
}  # fmt: skip
SIZE = 1280, 720
FPS = 25.0


def person(joints, rng=None, at=(500.0, 300.0), height=400.0, confidence=None):
    """(J, 3); every joint elsewhere than in a template, where `rng` is given."""
    places = [PLACE.get(name, PLACE.get(name[2:])) for name in joints]
    side = [-1.0 if name.startswith("r_") else 1.0 for name in joints]
    points = np.array(at) + height * np.array(places) * np.stack([side, np.ones(len(side))], -1)
    score = np.full(len(joints), 0.7)
    if rng is not None:
        points += rng.normal(0, 0.005 * height, points.shape)
        score = rng.uniform(0.1, 1.0, len(joints))
    triples = np.column_stack(
        [points, score if confidence is None else np.full_like(score, confidence)]
    )
    return triples.astype(np.float32)


def film(joints, n_frames=9, n_views=2, missed=0.1):
    """(T, V, J, 3) of one walking person; 0 where nothing was found, as in all of one frame."""
    rng = np.random.default_rng(0)
    shots = [
        [person(joints, rng, (400 + 6 * t + 50 * v, 200 + 10 * v)) for v in range(n_views)]
        for t in range(n_frames)
    ]
    points = np.round(np.array(shots, dtype=float), 3)
    points[rng.random(points.shape[:3]) < missed] = 0
    points[5, -1] = 0
    return points


def cameras(points):
    return enumerate(np.moveaxis(points, 1, 0))


def seen(person):
    return bool((person[:, 2] > 0).any())


def dump(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


# --- one writer per layout: (folder, points) -> the arguments of `convert`


def openpose(folder, points, key="pose_keypoints_2d", name="cam_{:012d}_keypoints.json"):
    for v, frames in cameras(points):
        for t, p in enumerate(frames):
            people = [{"person_id": [-1], key: p.ravel().tolist(), "face_keypoints_2d": []}]
            content = {"version": 1.3, "people": people if seen(p) else []}
            dump(folder / f"cam{v}_json" / name.format(t), content)
    return [folder / f"cam{v}_json" for v in range(points.shape[1])]


def alphapose(folder, points, track=True):
    paths = []
    for v, frames in cameras(points):
        entries = [
            {
                "image_id": f"{t}.jpg", "category_id": 1, "keypoints": p.ravel().tolist(),
                "score": 3.1, "box": [1.0, 2.0, 30.0, 40.0], **({"idx": [[2.0]]} if track else {}),
            }
            for t, p in enumerate(frames)
            if seen(p)
        ]  # fmt: skip
        paths.append(dump(folder / f"cam{v}" / "alphapose-results.json", entries))
    return paths


def alphapose_keyed(folder, points, outer, inner):
    paths = []
    for v, frames in cameras(points):
        content = {
            f"{t}.jpg": {"version": "AlphaPose v0.3", outer: [{inner: p.ravel().tolist()}]}
            for t, p in enumerate(frames)
            if seen(p)
        }
        paths.append(dump(folder / f"cam{v}" / "alphapose-results.json", content))
    return paths


def instances(p):
    if not seen(p):
        return []
    box = {"bbox": [[1.0, 2.0, 30.0, 40.0]], "bbox_score": 0.9}
    return [{"keypoints": p[:, :2].tolist(), "keypoint_scores": p[:, 2].tolist(), **box}]


def mmpose_video(folder, points, first=0, meta=None):
    paths = []
    for v, frames in cameras(points):
        content = [
            {"frame_id": t + first, "instances": instances(p)} for t, p in enumerate(frames)
        ]
        if meta is not None:
            content = {"meta_info": meta, "instance_info": content}
        paths.append(dump(folder / f"cam{v}.json", content))
    return paths


def mmpose_demo(folder, points):
    words = {"l": "left", "r": "right"}
    names = [words[n[0]] + n[1:] if n[1] == "_" else n for n in skeleton.COCO17]
    sigmas = {"__ndarray__": [0.1] * 17, "dtype": "float32", "shape": [17]}
    meta = {"keypoint_id2name": {str(i): n for i, n in enumerate(names)}, "sigmas": sigmas}
    return mmpose_video(folder, points, 1, meta)


def mmpose_images(folder, points):
    for v, frames in cameras(points):
        for t, p in enumerate(frames):
            dump(folder / f"cam{v}" / "predictions" / f"{t:06d}.json", instances(p))
    return [folder / f"cam{v}" / "predictions" for v in range(points.shape[1])]


def mmpose_lists(folder, points):
    return [
        dump(folder / f"cam{v}.json", [instances(p) for p in frames])
        for v, frames in cameras(points)
    ]


def coco_results(folder, points):
    return [
        dump(
            folder / f"cam{v}.json",
            [
                {"image_id": t, "category_id": 1, "keypoints": p.ravel().tolist(), "score": 0.9}
                for t, p in enumerate(frames)
                if seen(p)
            ],
        )
        for v, frames in cameras(points)
    ]


def coco_annotations(folder, points):
    """Flags instead of scores; ids that are not the numbers of the frames."""
    names = [n.replace("l_", "left_").replace("r_", "right_") for n in skeleton.COCO17]
    paths = []
    for v, frames in cameras(points):
        images, people = [], []
        for t, p in enumerate(frames):
            name = f"clip/frame_{t:06d}.PNG"
            images.append({"id": 100 - t, "width": SIZE[0], "height": SIZE[1], "file_name": name})
            if seen(p):
                flags = np.where(p[:, 2] > 0, np.where(p[:, 2] > 0.5, 2, 1), 0)
                values = np.column_stack([p[:, :2], flags]).ravel().tolist()
                people.append({"id": t, "image_id": 100 - t, "category_id": 1, "keypoints": values,
                               "bbox": [1, 2, 3, 4], "num_keypoints": 17})  # fmt: skip
        categories = [{"id": 1, "name": "person", "keypoints": names, "skeleton": [[1, 2]]}]
        content = {"images": images, "annotations": people, "categories": categories}
        paths.append(dump(folder / f"cam{v}.json", content))
    return paths


def cornered(p):
    """As ultralytics does with joints it is not half sure of."""
    return np.where(p[:, 2:] < 0.5, [0, 0, 1], 1) * p


def yolo_text(folder, points, confidence=True, track=True):
    for v, frames in cameras(points):
        place = folder / f"cam{v}" / "labels"
        place.mkdir(parents=True)
        for t, p in enumerate(frames):
            if seen(p):
                row = [0, 0.5, 0.5, 0.25, 0.5, *(cornered(p) / [*SIZE, 1]).ravel()]
                row += [0.8] * confidence + [1] * track
                text = " ".join(f"{x:g}" if isinstance(x, int) else f"{x:.7g}" for x in row)
                (place / f"video_{t + 1}.txt").write_text(text + "\n")
    return [folder / f"cam{v}" / "labels" for v in range(points.shape[1])]


def yolo_json(folder, points):
    paths = []
    for v, frames in cameras(points):
        lists = []
        for p in frames:
            x, y, visible = cornered(p).T.tolist()
            box = {"x1": 1.0, "y1": 2.0, "x2": 3.0, "y2": 4.0}
            entry = {"name": "person", "class": 0, "confidence": 0.9, "box": box, "track_id": 4,
                     "keypoints": {"x": x, "y": y, "visible": visible}}  # fmt: skip
            lists.append([entry] if seen(p) else [])
        paths.append(dump(folder / f"cam{v}.json", lists))
    return paths


def caliscope(folder, points):
    """All cameras in one table, body points and others, no scores, times of each camera's own."""
    folder.mkdir(exist_ok=True)
    with (folder / "xy_HOLISTIC.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            "sync_index port frame_index frame_time point_id img_loc_x img_loc_y obj_loc_x "
            "obj_loc_y".split()
        )
        for v, frames in cameras(points):
            for t, p in enumerate(frames):
                time = 47389.9 + t / FPS + 0.002 * v
                for j in np.flatnonzero(p[:, 2]):
                    writer.writerow([t, v, t + 3, time, j, *p[j, :2], "", ""])
                writer.writerow([t, v, t + 3, time, 500, 1, 2, "", ""])
    return [folder / "xy_HOLISTIC.csv"]


def landmarks(p, scale=SIZE):
    """Visibility 0 is what was missed."""
    return [
        {"x": x / scale[0], "y": y / scale[1], "z": -0.1, "visibility": c, "presence": 0.9}
        for x, y, c in p.tolist()
    ]


def mediapipe_tasks(folder, points):
    """Results of the tasks API, dumped frame by frame with their times only."""
    return [
        dump(
            folder / f"cam{v}.json",
            [
                {
                    "timestamp_ms": 1000 * t / FPS,
                    "pose_landmarks": [landmarks(p)] if seen(p) else [],
                    "pose_world_landmarks": [landmarks(p, (1e4, 1e4))] if seen(p) else [],
                }
                for t, p in enumerate(frames)
            ],
        )
        for v, frames in cameras(points)
    ]


def mediapipe_solutions(folder, points):
    """The old API's messages as dictionaries, keyed by frame; pixels; logits."""

    def logit(p):
        odds = np.clip(p[:, 2:], 1e-4, 1 - 1e-4)
        return np.hstack([p[:, :2], np.where(p[:, 2:] > 0, np.log(odds / (1 - odds)), -60)])

    return [
        dump(
            folder / f"cam{v}.json",
            {
                str(t): {"pose_landmarks": {"landmark": landmarks(logit(p), (1, 1))}}
                if seen(p)
                else None
                for t, p in enumerate(frames)
            },
        )
        for v, frames in cameras(points)
    ]


def mediapipe_csv(folder, points):
    paths = []
    for v, frames in cameras(points):
        path = folder / f"cam{v}.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            axes = ("x", "y", "z", "v")
            writer.writerow(["frame", *(f"{a}{j + 1}" for j in range(33) for a in axes)])
            for t, p in enumerate(frames):
                if seen(p):
                    rows = [[x / SIZE[0], y / SIZE[1], 0.1, c] for x, y, c in p.tolist()]
                    writer.writerow([t, *np.ravel(rows).tolist()])
        paths.append(path)
    return paths


DLC_NAMES = {name: name.title().replace("_", "") for name in skeleton.COCO17}
SCORER = "DLC_resnet50_walkMar1shuffle1_100000"


def deeplabcut_csv(folder, points, individual=None):
    paths = []
    for v, frames in cameras(points):
        path = folder / f"cam{v}{SCORER}.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            n = points.shape[2]
            writer.writerow(["scorer"] + [SCORER] * 3 * n)
            if individual:
                writer.writerow(["individuals"] + [individual] * 3 * n)
            names = DLC_NAMES.values()
            writer.writerow(["bodyparts", *(name for name in names for _ in range(3))])
            writer.writerow(["coords"] + ["x", "y", "likelihood"] * n)
            for t, p in enumerate(frames):
                cells = np.where(p[:, 2:] > 0, p, np.nan).ravel().tolist()
                writer.writerow([t, *("" if np.isnan(c) else c for c in cells)])
        paths.append(path)
    return paths


def deeplabcut_h5(folder, points, labels=None):
    """As pandas' `to_hdf(key="df_with_missing", format="table")`."""
    labels = labels or pickle.dumps(
        [(1, [(SCORER, n, a) for n in DLC_NAMES.values() for a in ("x", "y", "likelihood")])], 0
    )
    paths = []
    for v, frames in cameras(points):
        path = folder / f"cam{v}{SCORER}.h5"
        columns = np.dtype([("index", "<i8"), ("values_block_0", "<f8", (3 * points.shape[2],))])
        rows = np.zeros(len(frames), columns)
        rows["index"] = np.arange(len(frames))
        missed = np.where(frames[..., 2:] > 0, frames, np.nan)
        rows["values_block_0"] = missed.reshape(len(frames), -1)
        with h5py.File(path, "w") as file:
            group = file.create_group("df_with_missing")
            group.attrs["pandas_type"] = np.bytes_(b"frame_table")
            group.attrs["non_index_axes"] = np.bytes_(labels)
            group.create_dataset("table", data=rows, chunks=True)
        paths.append(path)
    return paths


def detectron(folder, points):
    paths = []
    for v, frames in cameras(points):
        keypoints = np.empty((len(frames), 2), object)
        boxes = np.empty((len(frames), 2), object)
        for t, p in enumerate(frames):
            rows = np.stack([p[:, 0], p[:, 1], 0 * p[:, 2], p[:, 2] / 40])[None]
            keypoints[t] = [], rows.astype(np.float32) if seen(p) else []
            boxes[t] = [], np.ones((1, 5), np.float32) if seen(p) else []
        path = folder / f"cam{v}.mp4.npz"
        segments = np.array([None] * len(frames))
        np.savez_compressed(path, boxes=boxes, segments=segments, keypoints=keypoints,
                            metadata={"w": SIZE[0], "h": SIZE[1]})  # fmt: skip
        paths.append(path)
    return paths


def videopose3d(folder, points):
    views = [np.float32(frames[..., :2]) for _, frames in cameras(points)]
    metadata = {"layout_name": "coco", "num_joints": 17, "keypoints_symmetry": [[1], [2]]}
    path = folder / "data_2d_custom_mine.npz"
    np.savez_compressed(path, positions_2d={"S1": {"custom": views}}, metadata=metadata)
    return [path]


def table_wide(folder, points):
    paths = []
    for v, frames in cameras(points):
        path = folder / f"cam{v}.csv"
        names = [f"{n}_{a}" for n in skeleton.COCO17 for a in ("x", "y", "confidence")]
        with path.open("w", newline="") as file:
            writer = csv.writer(file, delimiter=";")
            writer.writerow(["frame", "time", *names, "remark"])
            for t, p in enumerate(frames):
                cells = [("" if c == 0 else x) for *xy, c in p.tolist() for x in (*xy, c)]
                writer.writerow([t, t / FPS, *cells, "fine"])
        paths.append(path)
    return paths


def table_long(folder, points):
    path = folder / "all.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["camera", "frame", "time", "joint", "x", "y", "confidence"])
        for v, frames in cameras(points):
            for t, p in enumerate(frames):
                for name, row in zip(skeleton.COCO17, p.tolist(), strict=True):
                    writer.writerow([v, t, t / FPS, name, *row])
    return [path]


def bodypose3d(folder, points):
    paths = []
    for v, frames in cameras(points):
        path = folder / f"kpts_cam{v}.dat"
        rows = [np.where(p[:, 2:] > 0, p[:, :2], -1).ravel() for p in frames]
        path.write_text("".join(" ".join(f"{x:g}" for x in row) + " \n" for row in rows))
        paths.append(path)
    return paths


# --- people in JSON of any layout

IDS = "idx", "track_id", "person_id"


def nodes(value, path=()):
    """Every place in a JSON document."""
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from nodes(inner, (*path, key))


def at(value, path):
    for key in path:
        value = value[key]
    return value


def people(document):
    """Every list of people, with each of the people in it."""
    lists = [at(document, path) for path in nodes(document)]
    return [(p, entry) for p in lists if isinstance(p, list) for entry in p if pose_in(entry)]


def double(entry):
    """The same person 3000 px further to the right."""
    other = json.loads(json.dumps(entry))
    key = pose_in(other)
    other[key] = far_away(other[key])
    return other


def pose_in(entry):
    """The key of somebody's joints, if it is somebody."""
    keys = ("keypoints", "pose_keypoints_2d", "pose_keypoints", "joints")
    if isinstance(entry, dict) and "skeleton" in entry:
        return None  # COCO's names of joints
    return next((key for key in keys if isinstance(entry, dict) and key in entry), None)


def far_away(joints):
    """However they are written, 3000 px to the right; what was not found stays in the corner."""
    if isinstance(joints, dict):
        return joints | {"x": [x and x + 3000 for x in joints["x"]]}
    if isinstance(joints[0], list):
        return [[x and x + 3000, *rest] for x, *rest in joints]
    return [x and x + 3000 if i % 3 == 0 else x for i, x in enumerate(joints)]


# --- what is to be read of them


def as_they_are(points):
    return points


def without_scores(points):
    return np.where(
        points[..., 2:] > 0, np.concatenate([points[..., :2], points[..., :1] * 0 + 1], -1), 0
    )


def of_flags(points):
    flags = np.where(points[..., 2] > 0, np.where(points[..., 2] > 0.5, 1, 0.5), 0)
    return np.concatenate([points[..., :2], flags[..., None]], -1)


def half_sure(points):
    return points * (points[..., 2:] >= 0.5)


def relative(points):
    top = np.quantile(points[..., 2][points[..., 2] > 0], 0.95)
    return np.concatenate([points[..., :2], (points[..., 2:] / top).clip(0, 1)], -1)


@dataclass(frozen=True)
class Layout:
    """One layout of a format."""

    form: str
    joints: tuple[str, ...]
    write: Callable[[Path, np.ndarray], list[Path]]
    expect: Callable[[np.ndarray], np.ndarray] = as_they_are
    options: Options = field(default_factory=lambda: Options(fps=(FPS,)))
    atol: float = 1e-4


COCO17, H26, M16 = skeleton.COCO17, LAYOUTS["halpe26"].joints, LAYOUTS["mpii16"].joints
SCALED = Options(fps=(FPS,), image_size=(SIZE,))
TIMED = Options()
LAYOUT_FILES = {
    "openpose body25": Layout("openpose", skeleton.BODY_25, openpose),
    "openpose body25b": Layout("openpose", skeleton.BODY_25B, openpose),
    "openpose coco18 0.1": Layout(
        "openpose", skeleton.COCO18, lambda f, p: openpose(f, p, "pose_keypoints", "{:04d}.json")
    ),
    "openpose mpi15": Layout("openpose", LAYOUTS["MPI-15"].joints, openpose),
    "alphapose coco17": Layout("alphapose", COCO17, alphapose),
    "alphapose halpe26": Layout("alphapose", H26, lambda f, p: alphapose(f, p, False)),
    "alphapose mpii16": Layout("alphapose", M16, alphapose),
    "alphapose cmu": Layout(
        "alphapose", skeleton.COCO18, lambda f, p: alphapose_keyed(f, p, "bodies", "joints")
    ),
    "alphapose open": Layout(
        "alphapose",
        skeleton.COCO18,
        lambda f, p: alphapose_keyed(f, p, "people", "pose_keypoints_2d"),
    ),
    "mmpose video": Layout("mmpose", COCO17, mmpose_video),
    "mmpose halpe26": Layout("mmpose", H26, mmpose_video),
    "mmpose demo": Layout("mmpose", COCO17, mmpose_demo),
    "mmpose images": Layout("mmpose", COCO17, mmpose_images),
    "mmpose lists": Layout("mmpose", COCO17, mmpose_lists),
    "coco results": Layout("coco", COCO17, coco_results),
    "coco annotations": Layout("coco", COCO17, coco_annotations, of_flags),
    "yolo text": Layout("yolo", COCO17, yolo_text, half_sure, SCALED, 1e-3),
    "yolo json": Layout("yolo", COCO17, yolo_json, half_sure),
    "mediapipe caliscope": Layout("mediapipe", BLAZEPOSE33, caliscope, without_scores, TIMED),
    "mediapipe tasks": Layout(
        "mediapipe", BLAZEPOSE33, mediapipe_tasks, options=Options(image_size=(SIZE,))
    ),
    "mediapipe solutions": Layout("mediapipe", BLAZEPOSE33, mediapipe_solutions),
    "mediapipe csv": Layout("mediapipe", BLAZEPOSE33, mediapipe_csv, options=SCALED),
    "deeplabcut csv": Layout("deeplabcut", COCO17, deeplabcut_csv),
    "deeplabcut individuals": Layout(
        "deeplabcut", COCO17, lambda f, p: deeplabcut_csv(f, p, "anna")
    ),
    "deeplabcut h5": Layout("deeplabcut", COCO17, deeplabcut_h5),
    "detectron": Layout("detectron", COCO17, detectron, relative, atol=1e-3),
    "videopose3d": Layout("detectron", COCO17, videopose3d, without_scores),
    "csv wide": Layout("csv", COCO17, table_wide, options=TIMED),
    "csv long": Layout("csv", COCO17, table_long, options=TIMED),
    "bodypose3d": Layout("bodypose3d", LIMBS12, bodypose3d, without_scores, atol=1e-2),
}


def assert_read(recording, expected, atol=1e-4):
    confidence = expected[..., 2]
    np.testing.assert_allclose(recording.confidence, confidence, rtol=0, atol=1e-3)
    seen = confidence > 0
    assert not recording.confidence[~seen].any()
    np.testing.assert_allclose(
        recording.keypoints[seen], expected[..., :2][seen], rtol=0, atol=atol
    )
    assert np.isnan(recording.keypoints[~seen]).all()
