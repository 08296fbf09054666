"""Random numbers that change smoothly over time."""

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d


def smooth_noise(
    n_frames: int, shape: tuple[int, ...], period: float, generator: np.random.Generator
) -> Float[np.ndarray, "T ..."]:
    """Stationary Gaussian noise of unit variance that varies over about `period` frames."""
    sigma = period / 4
    margin = int(4 * sigma) + 1
    white = generator.standard_normal((n_frames + 2 * margin, *shape))
    impulse = np.zeros(2 * margin + 1)
    impulse[margin] = 1.0
    gain = np.sqrt(np.square(gaussian_filter1d(impulse, sigma)).sum())
    return gaussian_filter1d(white, sigma, axis=0)[margin:-margin] / gain


def autoregressive_noise(
    shape: tuple[int, ...], correlation: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """AR(1) noise of unit variance over the first axis.

    `correlation` is that of neighbouring frames, one value for each entry of the last axis.
    """
    from scipy.signal import lfilter  # half a second, which runs on recordings need not wait

    white = generator.standard_normal(shape)
    white[1:] *= np.sqrt(1 - correlation**2)
    return np.stack(
        [lfilter([1.0], [1.0, -c], white[..., j], axis=0) for j, c in enumerate(correlation)], -1
    )
