"""Human3.6M: indoors, four fixed cameras, 50 Hz; as VideoPose3D or Martinez et al. hand it out.

VideoPose3D: `data_3d_h36m.npz` (world) and a detector's `data_2d_h36m_*.npz`.
Martinez: `cameras.h5`, `S1/MyPoses/3D_positions/*.h5` (world) and `S1/StackedHourglass/*.h5`.
The npz files do not hold the cameras, without which there is no pose in camera axes: they are
in VideoPose3D's source file `common/h36m_dataset.py`, which is read as data, or in `cameras.h5`.
"""

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from scipy.spatial.transform import Rotation

from canonlift.body.skeleton import H36M17
from canonlift.data.recording import Recording
from canonlift.readers.datasets.cameras import Camera
from canonlift.readers.datasets.checks import (
    existing,
    items,
    need,
    numbers,
    open_h5,
    read_h5,
    rotation,
    vector,
)  # fmt: skip
from canonlift.readers.datasets.joint_orders import layout as named_layout
from canonlift.readers.datasets.to_recording import detected, stack_views, with_truth
from canonlift.readers.datasets.unpickle import load_npz

FPS = 50.0
SPLITS: Mapping[str, tuple[int, ...]] = {"train": (1, 5, 6, 7, 8), "test": (9, 11)}
# In the order of every file; image width and height.
VIEWS: Mapping[str, tuple[int, int]] = {
    "54138969": (1000, 1002),
    "55011271": (1000, 1000),
    "58860488": (1000, 1000),
    "60457274": (1000, 1002),
}
# Which of the 32 joints of the motion capture move, in the order of h36m17.
MOVING = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)
# The layouts by what VideoPose3D's metadata hold: a name or, in older files, only the joints of
# the left side.
METADATA: Mapping[Any, str] = {
    "coco": "coco17",
    "h36m": "h36m17",
    "mpii": "mpii16",
    (1, 3, 5, 7, 9, 11, 13, 15): "coco17",
    (4, 5, 6, 11, 12, 13): "h36m17",
}
HOURGLASS = (
    "16 joints are those of MPII (layout mpii16: 7, 8, 9 are thorax, upper neck, head top) before "
    "fine-tuning, but hourglass16 (spine, thorax, head) after it; name the layout"
)

Cameras = Mapping[str, Camera]  # by subject and view: "S1/54138969"


class Action(NamedTuple):
    """One recorded action, as the files hold it."""

    subject: int
    name: str
    world: np.ndarray  # (T, 17, 3) metres
    keypoints: Sequence[np.ndarray | None]  # per view (T or longer, J, 2 or 3) pixels
    joints: tuple[str, ...]  # of the keypoints


def read(
    path: Path,
    detections: str | None = None,
    cameras: Path | None = None,
    layout: str | None = None,
) -> Iterator[tuple[str, Recording]]:
    """Yield each action as `train_s1_Directions-1`: split, subject, action and its number.

    Detections without scores have confidence 1. What the videos show after the motion capture
    has ended is cut off. Without cameras there is no ground truth.

    Args:
        path: VideoPose3D's `data_3d_h36m.npz` or the folder that has it, or the folder in which
            Martinez et al. keep `S1`, `S5`, ...
        detections: beside `data_3d_h36m.npz`, the name of the npz of 2D poses; of Martinez,
            the name of each subject's folder, `StackedHourglass`. None projects the truth.
        cameras: VideoPose3D's `h36m_dataset.py`, or `cameras.h5`; None takes the `cameras.h5`
            in the folder, if there is one.
        layout: the detector's joints (`joint_orders.LAYOUTS`), where the files do not name them.
    """
    npz = path / "data_3d_h36m.npz" if path.is_dir() else existing(path, "give a folder")
    if cameras is None and (npz.parent / "cameras.h5").is_file():
        cameras = npz.parent / "cameras.h5"
    if cameras is None and detections is None:
        raise ValueError(
            f"{path}: to project the ground truth takes cameras; give VideoPose3D's "
            "common/h36m_dataset.py or cameras.h5, or detections"
        )
    rigs = None if cameras is None else read_cameras(cameras)
    actions = _videopose if npz.is_file() else _martinez
    for action in actions(npz, detections, layout):
        subject = f"S{action.subject}"
        name = f"{split_of(action.subject)}_s{action.subject}_{action.name.replace(' ', '-')}"
        keys = [f"{subject}/{view}" for view in VIEWS]
        rig = None if rigs is None else [need(rigs, keys, cameras)[key] for key in keys]
        yield name, _recording(action, rig, f"{path}, {subject} {action.name}")


def split_of(subject: int) -> str:
    """`train`, `test`, or `other` for a subject of neither."""
    return next((split for split, subjects in SPLITS.items() if subject in subjects), "other")


def _recording(action: Action, rig: Sequence[Camera] | None, where: str) -> Recording:
    n_frames = len(action.world)
    views = list(action.keypoints)
    poses = [camera.to_camera(action.world) for camera in rig or ()]
    images = [camera.project(pose) for camera, pose in zip(rig or (), poses, strict=True)]
    short = [len(view) for view in views if view is not None and len(view) < n_frames]
    if short:
        raise ValueError(f"{where}: {n_frames} frames in 3D but only {short[0]} in 2D")
    views = [None if view is None else view[:n_frames] for view in views or images]
    sizes, name = tuple(VIEWS.values()), f"human36m_s{action.subject}"
    seen = stack_views(views, where)
    recording = detected(seen, action.joints, tuple(VIEWS), FPS, name, sizes, where)
    if rig is None:
        return recording
    pose3d, true = (np.stack(views, axis=1) for views in (poses, images))
    return with_truth(recording, H36M17, pose3d, true, where)


def _videopose(file: Path, detections: str | None, layout: str | None) -> Iterator[Action]:
    world = load_npz(file, ("positions_3d",), "see VideoPose3D's DATASETS.md")["positions_3d"]
    joints, seen = H36M17, None
    if detections is not None:
        joints, seen = _videopose_2d(file.parent / detections, layout)
    for subject, actions in need(world, (), file).items():
        for action, positions in need(actions, (), f"{file}, {subject}").items():
            views = []
            if seen is not None:
                where = f"{file.parent / str(detections)}, {subject}"
                found = need(need(seen, [subject], where)[subject], [action], where)[action]
                where = f"{where} {action}"
                found = items(found, len(VIEWS), "views", where)
                views = [_keypoints(view, len(joints), where) for view in found]
            points = _moving(positions, f"{file}, {subject} {action}")
            yield Action(_number(subject, file), str(action), points, views, joints)


def _videopose_2d(file: Path, layout: str | None) -> tuple[tuple[str, ...], Mapping]:
    keys = ("positions_2d",) if layout else ("positions_2d", "metadata")
    entries = load_npz(file, keys, "give the name of the npz of 2D poses")
    if layout is None:
        about = need(entries["metadata"], ["keypoints_symmetry"], f"{file}, metadata")
        try:
            left = tuple(int(joint) for joint in about["keypoints_symmetry"][0])
        except (TypeError, ValueError, LookupError):
            left = ()
        layout = METADATA.get(str(about.get("layout_name")), METADATA.get(left))
        if layout is None:
            raise ValueError(f"{file}: its metadata does not name the joints. {HOURGLASS}")
    return named_layout(layout, file), need(entries["positions_2d"], (), file)


def _martinez(file: Path, detections: str | None, layout: str | None) -> Iterator[Action]:
    folder = file.parent
    poses = sorted(folder.glob("S*/MyPoses/3D_positions/*.h5"))
    if not poses:
        raise FileNotFoundError(
            f"{folder}: has neither data_3d_h36m.npz nor S1/MyPoses/3D_positions/*.h5; "
            "give the folder of VideoPose3D's or of Martinez's files"
        )
    joints = H36M17
    if detections is not None:
        layout = layout or {"StackedHourglass": "mpii16"}.get(detections)
        if layout is None:
            raise ValueError(f"{folder}: {detections} does not name its joints. {HOURGLASS}")
        joints = named_layout(layout, folder)
    for path in poses:
        subject = path.parts[-4]
        flat = read_h5(path, ("3D_positions",), "")["3D_positions"]
        flat = numbers(flat, (3 * 32, None), f"{path}, 3D_positions")
        views = []
        if detections is not None:
            views = _hourglass(folder / subject / detections, path.stem, len(joints))
        world = _moving(flat.T.reshape(-1, 32, 3) / 1000, path)
        yield Action(_number(subject, path), path.stem, world, views, joints)


def _hourglass(folder: Path, action: str, n_joints: int) -> list[np.ndarray | None]:
    """Per view its detections, None where there is no file (one of S11's videos is damaged)."""
    # Martinez's 3D files have a space in their names where these have an underscore.
    files = {file.stem.replace("_", " "): file for file in folder.glob("*.h5")}
    paths = [files.get(f"{action.replace('_', ' ')}.{view}") for view in VIEWS]
    if not any(paths):
        raise FileNotFoundError(
            f"{folder}: no detections of {action!r}, such as "
            f"{action.replace(' ', '_')}.{next(iter(VIEWS))}.h5; fetch them or move the 3D away"
        )
    return [
        path and _keypoints(read_h5(path, ("poses",), "")["poses"], n_joints, f"{path}, poses")
        for path in paths
    ]


def _keypoints(view: Any, n_joints: int, where: object) -> np.ndarray:
    columns = 3 if np.shape(view)[-1:] == (3,) else 2
    return numbers(view, (None, n_joints, columns), where)


def _moving(positions: Any, where: object) -> np.ndarray:
    """The 17 joints that move, of 17 or of all 32."""
    if np.shape(positions)[1:2] == (len(MOVING),):
        return numbers(positions, (None, len(MOVING), 3), where)
    return numbers(positions, (None, 32, 3), where)[:, MOVING]


def _number(subject: Any, where: object) -> int:
    digits = str(subject).removeprefix("S")
    if not digits.isdecimal():
        raise ValueError(f"{where}: subject {subject!r}, expected S1, S5, ...")
    return int(digits)


def read_cameras(path: Path) -> Cameras:
    """The cameras by subject and view (`S1/54138969`) in `cameras.h5` or `h36m_dataset.py`."""
    if path.suffix not in CAMERA_FILES:
        raise ValueError(f"{path}: give cameras.h5 or VideoPose3D's common/h36m_dataset.py")
    return CAMERA_FILES[path.suffix](existing(path, "give cameras.h5 or h36m_dataset.py"))


def _martinez_cameras(path: Path) -> Cameras:
    cameras = {}
    with open_h5(path, "") as file:
        groups = {name: group for name, group in file.items() if isinstance(group, h5py.Group)}
        names = [f"{subject}/{camera}" for subject, group in groups.items() for camera in group]
    for name in names:
        keys = [f"{name}/{key}" for key in ("R", "T", "f", "c", "k", "p", "Name")]
        turn, *values, letters = read_h5(path, keys, "").values()
        letters = vector(letters, len(next(iter(VIEWS))), f"{path}, {name}, Name")
        view = "".join(chr(int(letter)) for letter in letters)
        subject = name.partition("/")[0].removeprefix("subject")
        # HDF5 has Matlab's arrays transposed; T is where the camera stands.
        cameras[f"S{subject}/{view}"] = _camera(f"{path}, {name}", turn.T, *values)
    return cameras


def _videopose_cameras(path: Path) -> Cameras:
    inner, outer = "h36m_cameras_intrinsic_params", "h36m_cameras_extrinsic_params"
    try:
        literals = {
            node.targets[0].id: ast.literal_eval(node.value)
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id in (inner, outer)
        }
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"{path}: not VideoPose3D's h36m_dataset.py ({error})") from error
    need(literals, (inner, outer), path)
    lenses = items(literals[inner], len(VIEWS), "cameras", f"{path}, {inner}")
    cameras = {}
    for subject, rig in need(literals[outer], (), path).items():
        where = f"{path}, {subject}"
        for lens, place in zip(lenses, items(rig, len(VIEWS), "cameras", where), strict=True):
            keys = ("focal_length", "center", "radial_distortion", "tangential_distortion", "id")
            *values, view = (need(lens, keys, where)[key] for key in keys)
            if place:  # subjects without data have none
                at = need(place, ("orientation", "translation"), where)
                turn = vector(at["orientation"], 4, where)
                if not 0.9 < np.linalg.norm(turn) < 1.1:
                    raise ValueError(f"{where}: orientation {turn} is not a unit quaternion")
                # camera -> world, real part first
                turn = Rotation.from_quat(np.roll(turn, -1)).as_matrix().T
                cameras[f"{subject}/{view}"] = _camera(where, turn, at["translation"], *values)
    return cameras


CAMERA_FILES: Mapping[str, Callable[[Path], Cameras]] = {
    ".h5": _martinez_cameras,
    ".py": _videopose_cameras,
}


def _camera(
    where: str, turn: Any, centre_mm: Any, focal: Any, centre: Any, radial: Any, tangential: Any
) -> Camera:
    turn = rotation(turn, where)
    k1, k2, k3 = vector(radial, 3, where)
    return Camera(
        rotation=turn,
        translation=-turn @ vector(centre_mm, 3, where) / 1000,
        focal=vector(focal, 2, where),
        centre=vector(centre, 2, where),
        distortion=np.array([k1, k2, *vector(tangential, 2, where), k3, 0, 0, 0]),
        mixed=1.0,
    )
