"""Calibrated cameras: their lenses, and where they stand if that is known."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from canonlift.data.recording import Recording

UNDISTORTING = 20  # rounds; each makes the error smaller by a factor, for lenses that are in use


@dataclass(frozen=True, eq=False)
class Calibration:
    """V cameras as OpenCV describes them: x right, y down, z away.

    Raises:
        ValueError: if arrays contradict each other, or a camera is none.
    """

    views: tuple[str, ...]
    size: Float[np.ndarray, "V 2"]  # width, height in pixels
    matrix: Float[np.ndarray, "V 3 3"]  # of the lens
    distortion: Float[np.ndarray, "V 5"]  # k1, k2, p1, p2, k3
    rotation: Float[np.ndarray, "V 3 3"] | None = None  # room -> camera axes
    translation: Float[np.ndarray, "V 3"] | None = None  # of the room's origin, in camera axes
    unit: str = "m"

    def __post_init__(self) -> None:
        if not self.views or len(set(self.views)) != len(self.views):
            raise ValueError(f"a calibration needs views of different names, got {self.views}")
        if (self.rotation is None) != (self.translation is None):
            raise ValueError("rotation and translation are known together, or not at all")
        shapes = {"size": (2,), "matrix": (3, 3), "distortion": (5,)}
        shapes |= {} if self.rotation is None else {"rotation": (3, 3), "translation": (3,)}
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != (len(self.views), *shape):
                raise ValueError(f"{name} is {array.shape}, but there are {len(self.views)} views")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} is not finite")
        if not ((self._focal > 0).all() and (self.size > 0).all()):
            raise ValueError("focal lengths and image sizes must be positive")
        turn = self.rotation
        if turn is not None and not (
            np.allclose(turn @ turn.mT, np.eye(3), atol=1e-3) and (np.linalg.det(turn) > 0).all()
        ):
            raise ValueError("rotation holds matrices that do not rotate")

    @property
    def _focal(self) -> Float[np.ndarray, "V 2"]:
        return self.matrix[:, [0, 1], [0, 1]]

    @property
    def focal_px(self) -> Float[np.ndarray, " V"]:
        """One focal length of each camera."""
        return np.sqrt(self._focal.prod(-1))

    @property
    def position(self) -> Float[np.ndarray, "V 3"] | None:
        """Where the cameras stand in the room."""
        if self.rotation is None or self.translation is None:
            return None
        return -np.einsum("vrc,vr->vc", self.rotation, self.translation)

    def matched(self, views: Sequence[str]) -> tuple["Calibration", str]:
        """The same for these views: by name or, if no name is known, by order; and a note on that.

        Raises:
            ValueError: if neither can be.
        """
        known = [view for view in views if view in self.views]
        if len(known) == len(views):
            return self._pick([self.views.index(view) for view in views]), ""
        ours, theirs = ", ".join(self.views), ", ".join(views)
        if known or len(views) != len(self.views):
            raise ValueError(
                f"the calibration is of {ours}, but the views are {theirs}; rename the cameras in "
                "the file, one for each view"
            )
        note = f"no camera of the calibration is named as a view: {ours} are taken to be {theirs}"
        return replace(self, views=tuple(views)), note

    def _pick(self, index: list[int]) -> "Calibration":
        turn, move = self.rotation, self.translation
        return Calibration(
            tuple(self.views[i] for i in index),
            self.size[index],
            self.matrix[index],
            self.distortion[index],
            None if turn is None else turn[index],
            None if move is None else move[index],
            self.unit,
        )

    def resized(self, recording: Recording) -> "Calibration":
        """The same for images of the size of a recording's.

        Raises:
            ValueError: if they have another shape.
        """
        if recording.image_size is None:
            return self
        factor = recording.image_size / self.size
        for view, (across, down) in zip(self.views, factor, strict=True):
            if abs(across / down - 1) > 0.02:
                raise ValueError(
                    f"{view}: the recording's image size and the calibration's differ in shape; "
                    "calibrate again, or correct the size in the file"
                )
        scale = np.concatenate([factor, np.ones_like(factor[:, :1])], -1)
        size = recording.image_size.astype(float)
        return replace(self, size=size, matrix=scale[..., None] * self.matrix)

    def straightened(self, keypoints: Float[np.ndarray, "T V J 2"]) -> np.ndarray:
        """Where a camera without distortion, axis in the middle of the image, sees the same.

        It has square pixels, and `focal_px`.
        """
        seen = _homogeneous(keypoints)
        bent = np.einsum("vrc,tvjc->tvjr", np.linalg.inv(self.matrix), seen)[..., :2]
        straight = bent
        for _ in range(UNDISTORTING):
            factor, shift = self._distortion_of(straight)
            straight = (bent - shift) / factor
        return self.focal_px[:, None, None] * straight + self.size[:, None] / 2

    def bent(self, keypoints: Float[np.ndarray, "T V J 2"]) -> np.ndarray:
        """The inverse of `straightened`: pixels of the camera as it is."""
        straight = (keypoints - self.size[:, None] / 2) / self.focal_px[:, None, None]
        factor, shift = self._distortion_of(straight)
        seen = _homogeneous(straight * factor + shift)
        return np.einsum("vrc,tvjc->tvjr", self.matrix[:, :2], seen)

    def _distortion_of(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        k1, k2, p1, p2, k3 = self.distortion.T[:, :, None]
        x, y = np.moveaxis(points, -1, 0)
        square = x * x + y * y
        factor = 1 + square * (k1 + square * (k2 + square * k3))
        across = 2 * p1 * x * y + p2 * (square + 2 * x * x)
        down = p1 * (square + 2 * y * y) + 2 * p2 * x * y
        return factor[..., None], np.stack([across, down], -1)


def _homogeneous(points: np.ndarray) -> np.ndarray:
    return np.concatenate([points, np.ones_like(points[..., :1])], -1).astype(float)
