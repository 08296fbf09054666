"""Which frames of the cameras show the same instant: by number, or by time."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from canonlift.readers.detectors.parsing import CameraDetections, InputError

SAME_RATE = 0.01  # frame rates nearer than this are one
LARGEST = 1 << 28  # numbers in a recording; an hour of eight views is a tenth of it


def rates_of(
    detections: Mapping[str, CameraDetections], given: Sequence[float]
) -> tuple[list[float], list[str]]:
    """Frames per second of each camera."""
    if len(given) not in (0, 1, len(detections)):
        raise ValueError(
            f"{len(given)} frame rates for {len(detections)} cameras; give one for each"
        )
    if given:
        return [given[0]] * len(detections) if len(given) == 1 else list(given), []
    rates = []
    for part in detections.values():
        part.instants(1.0)
        stamps = np.array(sorted(part.times.items())).reshape(-1, 2)
        step = np.diff(stamps, axis=0)
        if len(step) == 0:
            raise InputError(
                part.path, "the files do not say how many frames make a second", "say --fps"
            )
        rates.append(float(np.median(step[:, 0] / step[:, 1])))
        if not 0.1 < rates[-1] < 1e4:
            what = f"{rates[-1]:.3g} frames per second by its times"
            raise InputError(part.path, what, "write times in seconds, or say --fps")
    return rates, [f"frames per second by the times in the files: {np.mean(rates):.4g}"]


def match(
    taken: Mapping[str, dict[int, np.ndarray]],
    detections: Mapping[str, CameraDetections],
    rates: Sequence[float],
    n_joints: int,
    between: bool,
    where: str,
) -> tuple[Float[np.ndarray, "T V J 3"], float, str, list[str]]:
    """One row per instant: by number where all cameras run alike, else by time.

    Returns:
        A camera in each column, frames per second, what was done to keypoints, and an account.
    """
    alike = max(rates) <= min(rates) * (1 + SAME_RATE)
    if alike and all(part.numbered for part in detections.values()):
        span = _span(detections, {n: sorted(p.frames) for n, p in detections.items()})
        _check_total(len(span), len(taken), n_joints, where)
        grid = np.zeros((len(span), len(taken), n_joints, 3))
        for view, frames in enumerate(taken.values()):
            for number, person in frames.items():
                grid[number - span[0], view] = person
        return grid, float(np.mean(rates)), "", _gaps(detections, len(span))
    fps = min(rates)
    instants = {
        name: np.array(list(part.instants(rate).values()))
        for (name, part), rate in zip(detections.items(), rates, strict=True)
    }
    begin = min(times[0] for times in instants.values())
    end = max(times[-1] for times in instants.values())
    for name, times in instants.items():
        others = [other for key, other in instants.items() if key != name]
        if others and not any(times[0] <= o[-1] and o[0] <= times[-1] for o in others):
            what = f"seen from {times[0]:.2f} to {times[-1]:.2f} s, when no other camera is"
            raise InputError(
                detections[name].path, what, "correct the times, or leave them out and use --sync"
            )
    n_frames = int(np.floor((end - begin) * fps + 1e-6)) + 1
    if n_frames > 100 * max(map(len, instants.values())):
        what = f"{n_frames} instants from {begin:.6g} to {end:.6g} s, but few of them are seen"
        raise InputError(where, what, "correct the times")
    _check_total(n_frames, len(taken), n_joints, where)
    wanted = begin + np.arange(n_frames) / fps
    grid = np.stack(
        [
            _resample(taken[name], detections[name], rate, wanted, n_joints, fps, between)
            for name, rate in zip(taken, rates, strict=True)
        ],
        axis=1,
    )
    how = "resampled (linearly)" if between else "matched by the nearest instant"
    shown = ", ".join(f"{name} {rate:.4g}" for name, rate in zip(taken, rates, strict=True))
    text = f"frames per second: {shown}; {how} to {fps:.4g}"
    if alike:
        return grid, fps, text, [text]
    return grid, fps, text, [f"WARNING: {text}; --no-resample takes nearest frames"]


def _resample(
    frames: Mapping[int, np.ndarray],
    detections: CameraDetections,
    rate: float,
    wanted: np.ndarray,
    n_joints: int,
    fps: float,
    between: bool,
) -> Float[np.ndarray, "T J 3"]:
    """A camera at the instants wanted: linear between two frames that follow each other."""
    result = np.zeros((len(wanted), n_joints, 3))
    numbers = sorted(frames)
    if not numbers:
        return result
    instants = detections.instants(rate)
    times = np.array([instants[n] for n in numbers])
    values = np.stack([frames[n] for n in numbers])
    after = np.searchsorted(times, wanted).clip(0, len(times) - 1)
    before = (after - 1).clip(0)
    nearest = np.where(
        np.abs(wanted - times[before]) < np.abs(times[after] - wanted), before, after
    )
    gap = np.abs(times[nearest] - wanted)
    if not between:
        close = gap <= 0.5 / fps * (1 + 1e-6)
        result[close] = values[nearest[close]]
        return result
    exact = gap * rate < 1e-3
    inside = (times[after] - times[before] <= 1.5 / rate) & (wanted >= times[before])
    inside &= (wanted <= times[after]) & ~exact & (after > before)
    a, b = values[before[inside]], values[after[inside]]
    span = times[after[inside]] - times[before[inside]]
    share = ((wanted[inside] - times[before[inside]]) / span)[:, None, None]
    mixed = (1 - share) * a + share * b
    mixed[..., 2] = np.minimum(a[..., 2], b[..., 2])
    result[inside] = np.where(mixed[..., 2:] > 0, mixed, 0)
    result[exact] = values[nearest[exact]]
    return result


def _span(
    detections: Mapping[str, CameraDetections], cameras: Mapping[str, Sequence[int]]
) -> range:
    """All frames that any camera has, from the first to the last."""
    for name, frames in cameras.items():
        others = {n for other, them in cameras.items() if other != name for n in them}
        if others and not others & set(frames):
            raise InputError(
                detections[name].path,
                f"frames {frames[0]} to {frames[-1]}, the others {min(others)} to "
                f"{max(others)}: no frame in common",
                "number the files by the instant they show",
            )
    first, last = min(f[0] for f in cameras.values()), max(f[-1] for f in cameras.values())
    most = max(map(len, cameras.values()))
    if last - first + 1 > 100 * most:
        raise InputError(
            ", ".join(dict.fromkeys(part.path for part in detections.values())),
            f"{last - first + 1} frames by their numbers, {first} to {last}, but a camera has at "
            f"most {most}",
            "time stamps must be replaced by frame numbers",
        )
    return range(first, last + 1)


def _gaps(detections: Mapping[str, CameraDetections], n_frames: int) -> list[str]:
    missing = {name: n_frames - len(part.frames) for name, part in detections.items()}
    shown = ", ".join(f"{name} {count}" for name, count in missing.items() if count)
    return [f"frames of {n_frames} of which a camera has no record, unobserved: {shown}"] * (
        bool(shown)
    )


def _check_total(n_frames: int, n_views: int, n_joints: int, where: str) -> None:
    if n_frames * n_views * n_joints * 3 > LARGEST:
        what = f"{n_frames} frames of {n_views} views are more than one take"
        raise InputError(where, what, "split the recording")
