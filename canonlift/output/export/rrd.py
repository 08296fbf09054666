"""RRD: what the Rerun viewer opens, all views and poses of a recording on one time line."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from canonlift import files
from canonlift.body import skeleton
from canonlift.data.prediction import Prediction
from canonlift.output.export.markers import Markers

COLOURS = {"l_": (31, 119, 180), "r_": (255, 127, 14)}  # of joints; others are grey
GREY = (140, 140, 140)


def write(name: str, prediction: Prediction, sequences: Mapping[str, Markers], path: Path) -> None:
    """Write one file: `image/VIEW/detected` and `refined` in pixels, `pose/SEQUENCE` y up.

    The viewer begins with the last of the sequences beside the images of all views. Joints that
    were not observed have no point. Sequences of single views come first, in the order of views.
    """
    recording, refined = prediction.recording, prediction.keypoints_refined
    rerun: Any = import_module("rerun")  # an optional package
    blueprint: Any = import_module("rerun.blueprint")
    stream = rerun.RecordingStream("canonlift")
    content = stream.memory_recording()
    stream.send_recording_name(name)
    stream.log("/", _people(rerun, recording.joints), static=True)
    frames = np.arange(recording.n_frames)
    times = [
        rerun.TimeColumn("frame", sequence=frames),
        rerun.TimeColumn("time", duration=frames / recording.fps),
    ]

    def show(place: str, kind: Any, points: np.ndarray, known: Bool[np.ndarray, "T J"]) -> None:
        joint = np.nonzero(known)[1]
        columns = kind.columns(
            positions=points[known], keypoint_ids=joint, class_ids=np.zeros_like(joint)
        )
        stream.send_columns(place, times, columns.partition(known.sum(1)), strict=True)
        stream.log(place, kind.from_fields(show_labels=False), static=True)

    names = list(sequences)
    images = [rerun.new_entity_path(["image", view]) for view in names[: refined.shape[1]]]
    for v, place in enumerate(images):
        seen = np.asarray(recording.confidence[:, v] > 0)
        show(f"{place}/detected", rerun.Points2D, recording.keypoints[:, v], seen)
        known = np.asarray(np.isfinite(refined[:, v]).all(-1))
        show(f"{place}/refined", rerun.Points2D, refined[:, v], known)
    for sequence, markers in sequences.items():
        place = rerun.new_entity_path(["pose", sequence])
        stream.log(place, rerun.ViewCoordinates.RIGHT_HAND_Y_UP, static=True)
        show(place, rerun.Points3D, markers.positions, markers.known)
        about = "\n".join([f"unit: {markers.unit}", *markers.notes])
        stream.log(f"{place}/about", rerun.TextDocument(about), static=True)
    stream.send_blueprint(
        blueprint.Horizontal(
            blueprint.Spatial3DView(origin=rerun.new_entity_path(["pose", names[-1]])),
            blueprint.Grid(*(blueprint.Spatial2DView(origin=image) for image in images)),
        )
    )
    files.write(path, lambda file: file.write(content.drain_as_bytes()))


def _people(rerun: Any, joints: tuple[str, ...]) -> Any:
    """Names, colours and bones of the joints of a body."""
    names = [(j, name, COLOURS.get(name[:2], GREY)) for j, name in enumerate(joints)]
    return rerun.AnnotationContext(
        rerun.ClassDescription(
            info=(0, "person", GREY),
            keypoint_annotations=names,
            keypoint_connections=skeleton.bones(joints),
        )
    )
