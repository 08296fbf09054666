"""The published data sets that can be read: a new one is a row here and a file beside this."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from canonlift.data.recording import Recording
from canonlift.readers.datasets import canonpose, human36m, mpi_inf_3dhp, skipose, sportspose
from canonlift.readers.datasets.joint_orders import LAYOUTS

Options = Mapping[str, Mapping[str, Any]]


class DataSet(NamedTuple):
    """One row."""

    help: str
    read: Callable[..., Iterator[tuple[str, Recording]]]  # of a path and the options, by name
    path: str  # what the path is
    options: Options  # parameters of `read`, which has their defaults, as argparse takes them


_LAYOUT = {"choices": tuple(LAYOUTS), "help": "the detector's joints (default: recognised)"}
_FPS = {"type": float, "help": "frames per second, which the files do not say"}

DATA_SETS: Mapping[str, DataSet] = {
    "skipose": DataSet(
        "SkiPose-PTZ: six moving cameras, alpine skiers. Views that lack a frame are unobserved "
        "there. Without --detections the annotated 2D is used as if detected.",
        skipose.read,
        "the folder that has train/labels.h5 and test/labels.h5, or one of the two",
        {
            "detections": {
                "type": Path,
                "help": "AlphaPose or RTMPose results on the crops: one JSON file by image paths "
                "(train/seq_003/cam_02/image_000012.png), or a folder train/seq_003/cam_02/ ... "
                "of one JSON file per camera",
            },
            "layout": _LAYOUT,
            "fps": _FPS,
        },
    ),
    "human36m": DataSet(
        "Human3.6M: four fixed cameras indoors; VideoPose3D's npz files or the h5 files of "
        "Martinez et al. Train: S1, 5, 6, 7, 8; test: S9, 11.",
        human36m.read,
        "folder of data_3d_h36m.npz, or of S1, S5, ...",
        {
            "detections": {
                "metavar": "NAME",
                "help": "name of the npz of 2D poses beside data_3d_h36m.npz, or of the folder "
                "in each subject's, StackedHourglass (default: the projected truth)",
            },
            "cameras": {
                "type": Path,
                "help": "VideoPose3D's common/h36m_dataset.py, or cameras.h5 (default: cameras.h5 "
                "in PATH, if it is there); without cameras there is no 3D truth",
            },
            "layout": _LAYOUT,
        },
    ),
    "mpi_inf_3dhp": DataSet(
        "MPI-INF-3DHP: fixed studio cameras, and test videos of one camera each; annot.mat or "
        "P-STMO's npz files. The 2D is annotated, not detected.",
        mpi_inf_3dhp.read,
        "folder of S1, ..., TS1, ... or of the npz files, or one file",
        {
            "pose": {
                "choices": ("annot3", "univ_annot3"),
                "help": "which 3D of the Matlab files",
            },
            "cameras": {"type": int, "nargs": "+", "metavar": "N", "help": "of annot.mat"},
            "test_fps": _FPS,
        },
    ),
    "sportspose": DataSet(
        "SportsPose: seven fixed cameras, sports indoors and outdoors. Without --detections the "
        "3D is projected. Train, val and test by subject.",
        sportspose.read,
        "the folder that has data/indoors and data/outdoors",
        {
            "detections": {
                "type": Path,
                "help": "folder of results, laid out as the videos: "
                "indoors/S01/Video_.../CAM3.json",
            },
            "layout": _LAYOUT,
            "views": {"nargs": "+", "metavar": "VIEW", "help": "such as right (default: all)"},
            "video_size": {
                "type": int,
                "nargs": 2,
                "metavar": ("WIDTH", "HEIGHT"),
                "help": "of the videos before they are turned upright",
            },
        },
    ),
    "canonpose": DataSet(
        "CanonPose's and CVSF's pickles: 2D detections on Human3.6M, opened by an unpickler that "
        "makes arrays and plain containers only.",
        canonpose.read,
        "detections.pickle, alphapose_2d3dgt_img_h36m.pickle or the like",
        {"layout": _LAYOUT, "fps": _FPS},
    ),
}
