"""Which frames of the cameras show the same instant: by number, or by time."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from canonlift.readers.detectors.parsing import CameraDetections, InputError

SAME_RATE = 0.01  # frame rates nearer than this are one
LARGEST = 1 << 28  # numbers in a recording; an hour of eight views is a tenth of it


def rates_of(detections: Mapping[str, CameraDetections]) -> tuple[list[float], str]:
    """Frames per second of each camera by the times in its files, and a line about them."""
    rates = []
    for part in detections.values():
        part.instants(1.0)  # refuses times that run back
        stamps = np.array(sorted(part.times.items())).reshape(-1, 2)
        if len(stamps) < 2:
            what = "the files do not say how many frames make a second"
            raise InputError(part.path, what, "say --fps")
        step = np.diff(stamps, axis=0)
        rates.append(float(np.median(step[:, 0] / step[:, 1])))
        if not 0.1 < rates[-1] < 1e4:
            what = f"{rates[-1]:.3g} frames per second by its times"
            raise InputError(part.path, what, "write times in seconds, or say --fps")
    return rates, f"frames per second by the times in the files: {np.mean(rates):.4g}"


def match(
    kept: Mapping[str, dict[int, np.ndarray]],
    detections: Mapping[str, CameraDetections],
    rates: Sequence[float],
    n_joints: int,
    resample: bool,
    where: str,
) -> tuple[Float[np.ndarray, "T V J 3"], float, str, list[str]]:
    """Keypoints, frames per second, what was done to the keypoints, and lines for the report.

    Frames are matched by number where all rates are the same, else by time.
    """
    alike = max(rates) <= min(rates) * (1 + SAME_RATE)
    if alike and all(part.numbered for part in detections.values()):
        span = _span(detections, where)
        grid = _empty(len(span), len(kept), n_joints, where)
        for view, frames in enumerate(kept.values()):
            for number, person in frames.items():
                grid[number - span[0], view] = person
        return grid, float(np.mean(rates)), "", _gaps(detections, len(span))
    fps = min(rates)
    instants = [p.instants(rate) for p, rate in zip(detections.values(), rates, strict=True)]
    spans = [(min(times.values()), max(times.values())) for times in instants]
    begin, end = min(first for first, _ in spans), max(last for _, last in spans)
    for part, (first, last) in zip(detections.values(), spans, strict=True):
        # A camera overlaps with itself.
        if len(spans) > 1 and sum(first <= z and a <= last for a, z in spans) < 2:
            what = f"seen from {first:.2f} to {last:.2f} s, when no other camera is"
            raise InputError(
                part.path, what, "correct the times, or leave them out and use --sync"
            )
    n_frames = int(np.floor((end - begin) * fps + 1e-6)) + 1
    if n_frames > 100 * max(map(len, instants)):
        what = f"{n_frames} instants from {begin:.6g} to {end:.6g} s, but few of them are seen"
        raise InputError(where, what, "correct the times")
    wanted = begin + np.arange(n_frames) / fps
    grid = _empty(n_frames, len(kept), n_joints, where)
    for view, (frames, times) in enumerate(zip(kept.values(), instants, strict=True)):
        if frames:
            values = np.stack([frames[number] for number in sorted(frames)])
            known = np.array([times[number] for number in sorted(frames)])
            grid[:, view] = _resample(values, known, wanted, rates[view], fps, resample)
    how = "resampled (linearly)" if resample else "matched by the nearest instant"
    shown = ", ".join(f"{name} {rate:.4g}" for name, rate in zip(kept, rates, strict=True))
    text = f"frames per second: {shown}; {how} to {fps:.4g}"
    line = text if alike else f"WARNING: {text}; --no-resample takes nearest frames"
    return grid, fps, text, [line]


def _resample(
    values: Float[np.ndarray, "N J 3"],
    times: Float[np.ndarray, " N"],
    wanted: Float[np.ndarray, " T"],
    rate: float,
    fps: float,
    resample: bool,
) -> Float[np.ndarray, "T J 3"]:
    """A camera at the instants wanted: linear between two frames that follow each other."""
    result = np.zeros((len(wanted), *values.shape[1:]))
    after = np.searchsorted(times, wanted).clip(0, len(times) - 1)
    before = (after - 1).clip(0)
    nearest = np.where(
        np.abs(wanted - times[before]) < np.abs(times[after] - wanted), before, after
    )
    gap = np.abs(times[nearest] - wanted)
    if not resample:
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


def _span(detections: Mapping[str, CameraDetections], where: str) -> range:
    """All frames that any camera has, from the first to the last."""
    for name, part in detections.items():
        others = {n for other, o in detections.items() if other != name for n in o.frames}
        if others and not others & part.frames.keys():
            what = (
                f"frames {min(part.frames)} to {max(part.frames)}, the others {min(others)} to "
                f"{max(others)}: no frame in common"
            )
            raise InputError(part.path, what, "number the files by the instant they show")
    numbers = {number for part in detections.values() for number in part.frames}
    span = range(min(numbers), max(numbers) + 1)
    most = max(len(part.frames) for part in detections.values())
    if len(span) > 100 * most:
        what = (
            f"{len(span)} frames by their numbers, {span[0]} to {span[-1]}, but a camera has at "
            f"most {most}"
        )
        raise InputError(where, what, "time stamps must be replaced by frame numbers")
    return span


def _gaps(detections: Mapping[str, CameraDetections], n_frames: int) -> list[str]:
    missing = {name: n_frames - len(part.frames) for name, part in detections.items()}
    shown = ", ".join(f"{name} {count}" for name, count in missing.items() if count)
    line = f"frames of {n_frames} of which a camera has no record, unobserved: {shown}"
    return [line] if shown else []


def _empty(n_frames: int, n_views: int, n_joints: int, where: str) -> np.ndarray:
    if n_frames * n_views * n_joints * 3 > LARGEST:
        what = f"{n_frames} frames of {n_views} views are more than one recording holds"
        raise InputError(where, what, "split the recording")
    return np.zeros((n_frames, n_views, n_joints, 3))
