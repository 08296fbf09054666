"""Arrays as text that a page unpacks: whole multiples of a step, differences in time, deflated."""

import base64
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int16

MOST = int(np.iinfo(np.int16).max)
MISSING = -MOST - 1


class Grid(NamedTuple):
    """Whole numbers for values: origin + number * step."""

    origin: float
    step: float

    @classmethod
    def around(cls, arrays: Sequence[np.ndarray], finest: float) -> "Grid":
        """In steps of `finest`, or as large as 16 bits need to reach all values but outliers."""
        known = np.concatenate([array[np.isfinite(array)] for array in arrays]).astype(np.float64)
        if len(known) == 0:
            return cls(0.0, finest)
        origin = float(np.median(known))
        distance = np.abs(known - origin)
        reach = min(float(distance.max()), 4 * float(np.quantile(distance, 0.99)))
        return cls(origin, max(finest, reach / MOST))

    def numbers(self, array: Float[np.ndarray, "..."]) -> Int16[np.ndarray, "..."]:
        """The nearest whole numbers; `MISSING` for what is not finite."""
        with np.errstate(invalid="ignore"):  # infinity less infinity, replaced at once
            number = np.rint((array.astype(np.float64) - self.origin) / self.step)
        number = np.where(np.isfinite(array), np.clip(number, -MOST, MOST), MISSING)
        return number.astype(np.int16)

    def pack(
        self, array: Float[np.ndarray, "T ..."], relative_to: np.ndarray | None = None
    ) -> dict[str, Any]:
        """The array as the page unpacks it; int16 wraps around, so differences lose nothing."""
        number = self.numbers(array)
        if relative_to is not None:
            number = number - self.numbers(relative_to)
        change = np.diff(number, axis=0, prepend=np.zeros_like(number[:1]))
        small = ((change << 1) ^ (change >> 15)).astype(np.uint16)  # 0 -1 1 -2 2 as 0 1 2 3 4
        planes = np.stack([small & 0xFF, small >> 8]).astype(np.uint8)
        text = base64.b64encode(zlib.compress(planes.tobytes(), 9)).decode()
        return {"shape": array.shape, "origin": self.origin, "step": self.step, "data": text}


def pack(array: Float[np.ndarray, "T ..."], finest: float) -> dict[str, Any]:
    """An array on a grid of its own."""
    return Grid.around([array], finest).pack(array)
