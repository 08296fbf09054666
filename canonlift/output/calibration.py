"""Make calibrations of solutions, and write Calib.toml (Pose2Sim, anipose) and OpenCV's YAML."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from canonlift import files
from canonlift.data.calibration import Calibration
from canonlift.data.solution import Solution
from canonlift.output.export.markers import METRES, Y_UP, Markers, Size, in_metres, upright

FEET = ("ankle", "heel", "bigtoe", "smalltoe")
ON_FLOOR = 0.05  # quantile of the height of feet that is the floor's
Z_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])  # of what has y up


def of_solution(solution: Solution, size: Size) -> Calibration:
    """The cameras of a solution: metres, z up, the floor at 0 where feet were seen.

    Below the middle of the person's way is the origin. Where up is, is an estimate (`upright`);
    where nobody was seen from head to ankles, it is up in the first image.

    Raises:
        ValueError: if it is not known where the cameras stand, or how large the person is.
    """
    position, root, shape = solution.position, solution.root, solution.recording.image_size
    if position is None or root is None or shape is None:
        raise ValueError(
            "it is not known where the cameras stand: that needs fixed cameras (`canonlift "
            "convert --rig`), image sizes, and a person who walks about or known focal lengths"
        )
    unseen = np.isnan(position).any(-1)
    if unseen.any():
        names = ", ".join(np.array(solution.views)[unseen])
        raise ValueError(f"nobody was seen by {names}; leave these views out")
    first = np.isfinite(solution.focal_px).argmax(0)
    views = np.arange(len(position))
    rotation = solution.rotation[first, views].astype(float)
    matrix = np.tile(np.eye(3), (len(views), 1, 1))
    matrix[:, [0, 1], [0, 1]] = solution.focal_px[first, views][:, None]
    matrix[:, :2, 2] = shape / 2

    turn = _z_up(solution, rotation)
    factor = _metres(solution, size)
    way = root @ turn.T
    origin = np.nanmedian(way, 0)
    origin[2] = _floor(solution.pose @ turn.T + way[:, None], solution.joints)
    rotation = rotation @ turn.T
    place = factor * (position @ turn.T - origin)
    return Calibration(
        solution.views,
        shape.astype(float),
        matrix,
        np.zeros((len(views), 5)),
        rotation,
        -np.einsum("vrc,vc->vr", rotation, place),
    )


def _z_up(solution: Solution, rotation: Float[np.ndarray, "V 3 3"]) -> Float[np.ndarray, "3 3"]:
    """The turn from the axes of the poses to those of a room, z up."""
    before = Y_UP[:, None] * rotation[0]  # y up in the first image
    markers = Markers(solution.pose @ before.T, solution.joints, solution.fps)
    across = rotation[:, 0] @ before.T
    try:
        turned = upright(markers, across)
    except ValueError:  # no head or no ankles
        return Z_UP @ before
    known = markers.known & turned.known
    u, _, vt = np.linalg.svd(turned.positions[known].T @ markers.positions[known])
    return Z_UP @ (u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt) @ before


def _metres(solution: Solution, size: Size) -> float:
    markers = Markers(solution.pose.astype(float), solution.joints, solution.fps)
    scaled = in_metres(markers, size)
    if scaled.unit != METRES:
        raise ValueError("; ".join(scaled.notes))
    spans = [np.nansum(np.abs(each.positions)) for each in (scaled, markers)]
    return float(spans[0] / spans[1])


def _floor(room: Float[np.ndarray, "T J 3"], joints: tuple[str, ...]) -> float:
    feet = [i for i, name in enumerate(joints) if name.partition("_")[2] in FEET]
    height = room[:, feet or slice(None), 2]
    return float(np.nanquantile(np.nanmin(height, 1), ON_FLOOR if feet else 0.0))


def write_calibration(calibration: Calibration, path: str | Path) -> None:
    """Write a file that `read_calibration` reads, by the end of its name: .toml, .yml or .yaml.

    Raises:
        ValueError: if the name ends in something else.
    """
    path = Path(path)
    check_suffix(path)
    text = "\n".join(FORMS[path.suffix.lower()](calibration)) + "\n"
    files.write(path, lambda file: file.write(text.encode()))


def check_suffix(path: Path) -> None:
    """Refuse names of files to which no calibration can be written.

    Raises:
        ValueError: if it is one.
    """
    if path.suffix.lower() not in FORMS:
        raise ValueError(f"{path}: calibrations are written to files that end in {list(FORMS)}")


def _toml(calibration: Calibration) -> Iterator[str]:
    for v, view in enumerate(calibration.views):
        yield f"[{view if re.fullmatch(r'[A-Za-z0-9_-]+', view) else _text(view)}]"
        yield f"name = {_text(view)}"
        yield f"size = {calibration.size[v].tolist()}"
        yield f"matrix = {calibration.matrix[v].tolist()}"
        bend = calibration.distortion[v].tolist()
        yield f"distortions = {bend if bend[4] else bend[:4]}"  # Pose2Sim writes four
        if calibration.rotation is not None and calibration.translation is not None:
            turn = Rotation.from_matrix(calibration.rotation[v]).as_rotvec()
            yield f"rotation = {turn.tolist()}"
            yield f"translation = {calibration.translation[v].tolist()}"
        yield "fisheye = false\n"
    yield "[metadata]\nadjusted = false\nerror = 0.0"


def _yaml(calibration: Calibration) -> Iterator[str]:
    yield "%YAML:1.0\n---\ncameras:"
    for v, view in enumerate(calibration.views):
        width, height = calibration.size[v]
        yield f"   -\n      name: {_text(view)}"
        yield f"      image_width: {round(width)}\n      image_height: {round(height)}"
        yield from _matrix("camera_matrix", calibration.matrix[v])
        yield from _matrix("distortion_coefficients", calibration.distortion[v][None])
        if calibration.rotation is not None and calibration.translation is not None:
            yield from _matrix("rotation", calibration.rotation[v])
            yield from _matrix("translation", calibration.translation[v][:, None])


def _matrix(name: str, values: Float[np.ndarray, "R C"]) -> Iterator[str]:
    rows, columns = values.shape
    # OpenCV's parser and YAML's agree on numbers with a point.
    data = ", ".join(np.format_float_scientific(x, trim="0") for x in values.ravel())
    yield f"      {name}: !!opencv-matrix\n         rows: {rows}\n         cols: {columns}"
    yield f"         dt: d\n         data: [ {data} ]"


def _text(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)


FORMS: Mapping[str, Callable[[Calibration], Iterator[str]]] = {
    ".toml": _toml,
    ".yml": _yaml,
    ".yaml": _yaml,
}
