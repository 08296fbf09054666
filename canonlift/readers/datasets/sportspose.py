"""SportsPose: sports indoors and outdoors, seven fixed cameras, 90 Hz, 3D without markers.

Layout: `data/indoors/S00/calib.pkl` and, in the folders of its activities, `soccer0003.npy`
beside `soccer0003_timing.pkl`. There is no 2D: it is either the projected 3D, or what a detector
sees in the videos `CAM0.avi` to `CAM6.avi`.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from canonlift.body.skeleton import COCO17
from canonlift.data.recording import Recording
from canonlift.readers.datasets.cameras import Camera
from canonlift.readers.datasets.checks import integers, items, need, numbers, rotation, vector
from canonlift.readers.datasets.detections import by_frame, joints_of, rows
from canonlift.readers.datasets.to_recording import detected, with_truth
from canonlift.readers.datasets.unpickle import load_npy, load_pickle

FPS = 90.0
N_CAMERAS = 7
DAYS = ("indoors", "outdoors")
# The split of "Two Views Are Better than One"; it tests on the view `right` alone.
SPLITS: Mapping[str, tuple[str, ...]] = {
    "val": ("S04", "S07", "S09", "S14", "S22"),
    "test": ("S06", "S12", "S19"),
}
# What camera 0, 1, ... sees: the table of the data set's loader, which moved some cameras
# before S15 came.
VIEWS: Mapping[str, tuple[str, ...]] = {
    "indoors until S14": tuple(
        "back-left back back-right right front-left left front-right".split()
    ),
    "indoors": tuple("back-left back-right right front-left left back front-right".split()),
    "outdoors": tuple("front-right back-right back right front-left left back-left".split()),
}


def read(
    path: Path,
    detections: Path | None = None,
    layout: str | None = None,
    views: Sequence[str] = (),
    video_size: tuple[int, int] = (1936, 1216),
) -> Iterator[tuple[str, Recording]]:
    """Yield each clip as `train_s01_indoors_soccer0003`, on the joints of coco17.

    Images are stored lying on their side; poses and 2D are turned upright with them.

    Args:
        path: the data set's folder, or its folder `data`.
        detections: folder of results on upright images, laid out as the videos:
            `indoors/S01/Video_.../CAM3.json` (see `detections.by_frame`); None projects the 3D.
        layout: the detector's joints (`joint_orders.LAYOUTS`); None goes by their number.
        views: the views to keep, such as `right`; none given keeps all seven.
        video_size: width and height of the videos before turning. No file says; the default is
            what others report, and is checked roughly against the calibration.
    """
    root = path / "data" if (path / "data").is_dir() else path
    pattern = "S[0-9][0-9]/*/*[0-9][0-9][0-9][0-9].npy"
    clips = [clip for day in DAYS for clip in sorted((root / day).glob(pattern))]
    if not clips:
        raise FileNotFoundError(
            f"{path}: no clips such as data/indoors/S01/soccer/soccer0003.npy; give the folder "
            "that has data"
        )
    for folder, clips_here in groupby(clips, key=lambda clip: clip.parents[1]):
        rig = _rig(folder / "calib.pkl", video_size)
        day, subject = folder.parts[-2:]
        names = VIEWS["indoors until S14" if day == "indoors" and subject <= "S14" else day]
        unknown = [view for view in views if view not in names]
        if unknown:
            raise ValueError(f"{folder}: no view {', '.join(unknown)}; it has {', '.join(names)}")
        kept = {name: i for i, name in enumerate(names) if not views or name in views}
        split = next((s for s, subjects in SPLITS.items() if subject in subjects), "train")
        name = f"{subject.lower()}_{day}"
        for clip in clips_here:
            recording = _recording(clip, kept, rig, f"sportspose_{name}", detections, layout)
            yield f"{split}_{name}_{clip.stem}", recording


class Mounted(NamedTuple):
    """A camera that may lie on its side."""

    camera: Camera
    n_turns: int  # quarter turns clockwise that put its images upright
    size: tuple[int, int]  # before turning

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height after turning."""
        width, height = self.size
        return (width, height) if self.n_turns % 2 == 0 else (height, width)

    def see(self, world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Poses in camera axes and their images in pixels, both upright."""
        pose = self.camera.to_camera(world)
        image = self.camera.project(pose)
        width, height = self.size
        for _ in range(self.n_turns):
            image = np.stack([height - image[..., 1], image[..., 0]], axis=-1)
            pose = np.stack([-pose[..., 1], pose[..., 0], pose[..., 2]], axis=-1)
            width, height = height, width
        return pose, image


def _rig(file: Path, video_size: tuple[int, int]) -> tuple[Mounted, ...]:
    content = load_pickle(file, "the data set has one for every subject and day")
    keys = ("calibration", "numtimesrot90clockwise")
    need(content, keys, file)
    entries = items(content[keys[0]], N_CAMERAS, "cameras", f"{file}, {keys[0]}")
    turns = integers(content[keys[1]], (N_CAMERAS,), f"{file}, {keys[1]}") % 4
    cameras = [_camera(entries[i], video_size, f"{file}, camera {i}") for i in range(N_CAMERAS)]
    return tuple(Mounted(*pair, video_size) for pair in zip(cameras, turns.tolist(), strict=True))


def _camera(entry: Any, video_size: tuple[int, int], where: str) -> Camera:
    need(entry, ("R", "T", "f", "c", "k"), where)
    focal, centre, position = (
        vector(entry[key], size, f"{where}, {key}") for key, size in (("f", 2), ("c", 2), ("T", 3))
    )
    if (np.abs(centre / video_size - 0.5) > 0.2).any():
        raise ValueError(
            f"{where}: principal point {centre} is far from the middle of a video of "
            f"{video_size}; give the videos' true size"
        )
    # OpenCV's order: k1 k2 p1 p2 k3 k4 k5 k6, of which it writes 4, 5 or 8
    lens = numbers(entry["k"], None, f"{where}, k").ravel().astype(np.float64)
    if np.any(lens[8:]):
        raise ValueError(f"{where}: a lens with thin prism terms, which are not read")
    lens = np.append(lens[:8], np.zeros(max(0, 8 - len(lens))))
    return Camera(rotation(entry["R"], f"{where}, R"), position, focal, centre, lens)


def _recording(
    clip: Path,
    kept: Mapping[str, int],
    rig: Sequence[Mounted],
    rig_name: str,
    detections: Path | None,
    layout: str | None,
) -> Recording:
    world = numbers(load_npy(clip, "fetch it again"), (None, len(COCO17), None), clip)
    world = numbers(world[..., :3], (None, None, 3), clip)
    cameras = [rig[index] for index in kept.values()]
    poses, images = zip(*(camera.see(world) for camera in cameras), strict=True)
    pose3d, true = np.stack(poses, axis=1), np.stack(images, axis=1)
    seen, joints = true, COCO17
    if detections is not None:
        seen, joints = _detections(clip, len(world), list(kept.values()), detections, layout)
    sizes = [camera.upright_size for camera in cameras]
    recording = detected(seen, joints, tuple(kept), FPS, rig_name, sizes, clip)
    return with_truth(recording, COCO17, pose3d, true, clip)


def _detections(
    clip: Path, n_frames: int, cameras: Sequence[int], folder: Path, layout: str | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Per frame and camera the person of `by_frame`, (T, V, J, 3); NaN where there is none."""
    file = clip.with_name(f"{clip.stem}_timing.pkl")
    timing = load_pickle(file, "it says which frames of the videos belong to the clip")
    need(timing, ("video_path", "video_index"), file)
    folder = folder.joinpath(*map(str, np.ravel(np.array(timing["video_path"], object))))
    files = {camera: folder / f"CAM{camera}.json" for camera in cameras}
    if not any(file.is_file() for file in files.values()):
        raise FileNotFoundError(
            f"{folder}: none of the detections {', '.join(f.name for f in files.values())}"
        )
    people = {
        (camera, frame): person
        for camera, results in files.items()
        if results.is_file()
        for frame, person in by_frame(results).items()
    }
    joints = joints_of(people, layout, folder)
    frames = integers(timing["video_index"], (N_CAMERAS, n_frames), f"{file}, video_index")
    keys = [[(camera, frame) for frame in frames[camera].tolist()] for camera in cameras]
    return np.stack([rows(people, of_view, len(joints)) for of_view in keys], axis=1), joints
