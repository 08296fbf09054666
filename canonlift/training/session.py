"""The recordings of a run: found or filmed, read with their targets, cut into samples."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from canonlift import distributed
from canonlift.data import frames, shards, windows
from canonlift.data.frames import Frames, Summary
from canonlift.data.recording import Recording
from canonlift.data.windows import Samples
from canonlift.methods import targets
from canonlift.simulation.session import write_session
from canonlift.training.checkpoint import pick_device
from canonlift.training.config import Config
from canonlift.types import Views

TRUSTED = 0.05  # share of frames with a trusted target below which there is nothing to learn


def find_recordings(config: Config, out: Path) -> tuple[list[Path], list[Path]]:
    """Train and test recordings; a simulated session is filmed into `out` first.

    Raises:
        FileNotFoundError: if a glob matches nothing.
        ValueError: if a recording is in both.
    """
    if config.data.simulate is not None:
        print(f"filming the simulated session into {out / 'session'}")
        train_paths, test_paths = write_session(config.data.simulate, out / "session")
    else:
        train_paths, test_paths = (
            frames.expand(config.data.train),
            frames.expand(config.data.test),
        )
    both = {path.resolve() for path in train_paths} & {path.resolve() for path in test_paths}
    if both:
        raise ValueError(
            f"{', '.join(str(path) for path in sorted(both))}: in data.train and in data.test; "
            "figures on recordings that training read mean nothing"
        )
    return train_paths, test_paths


def read(config: Config, paths: list[Path]) -> Samples:
    """The samples of the training recordings, on the device of this process."""
    supervised = supervised_recordings(config, paths)
    session = read_frames(config, paths, supervised)
    print(f"training on {frames.describe(session)}")
    announce(config, session.summary(), [path for path in paths if path in supervised])
    samples = windows.cut(session, config.windows)
    if config.windows.length > 1:
        print(f"{len(samples)} windows of {config.windows.length} frames")
    return samples.to(distributed.own_device(pick_device(config.device)))


def read_frames(config: Config, paths: list[Path], supervised: set[Path]) -> Frames:
    """The frames of the training recordings with their targets, in memory or on disk."""
    complete = partial(_complete, config, supervised)
    if config.data.shards is None:
        return frames.read(paths, config.joints, config.least_views, complete)
    folder, kind = Path(config.data.shards), config.data.target
    if supervised:
        kind += f", pose3d of {', '.join(config.data.supervised)}"
    if config.windows.fps is not None:
        kind += f", at {config.windows.fps} fps"
    print(f"copying what is not there yet of {len(paths)} recordings into {folder}")
    return distributed.from_first(
        lambda: shards.read(paths, config.joints, config.least_views, complete, folder, kind)
    )


def announce(config: Config, total: Summary, supervised: Sequence[Path]) -> None:
    """Print what the recordings can and cannot be used for."""
    if total.views == 1:
        print("no recording has two views, so there are no other views to learn from")
    if "camera_consistency" in config.terms and not total.fixed:
        print("no recording names a rig of fixed cameras, so camera_consistency does nothing")
    if config.data.target == "solved":
        usable = total.trusted / total.frames
        print(f"solved targets: {usable:.0%} of the frames trusted")
        if usable < TRUSTED:
            print(
                "WARNING: there is next to nothing to learn from these targets; `canonlift solve` "
                "says of each recording how well its views agree. Train over time, without "
                "targets (`canonlift train sequence data.target=none`, as the comments of that "
                "config say), or begin with start_from"
            )
    elif config.data.target == "pose3d":
        print("SUPERVISED: training reads pose3d (data.target)")
    if supervised:
        names = ", ".join(map(str, supervised))
        print(f"SUPERVISED IN PART: training reads pose3d of {names} (data.supervised)")


def supervised_recordings(config: Config, paths: Sequence[Path]) -> set[Path]:
    """The training recordings that `data.supervised` names.

    Raises:
        ValueError: if one of its globs names none of them.
    """
    named: set[Path] = set()
    for pattern in config.data.supervised:
        found = {path for path in paths if path.match(pattern)}
        if not found:
            raise ValueError(
                f"data.supervised: {pattern!r} names none of the {len(paths)} training "
                f"recordings, such as {paths[0]}"
            )
        named |= found
    return named


def _complete(
    config: Config, supervised: set[Path], path: Path, recording: Recording, views: Views
) -> Views:
    """Add the target of a recording, and bring it to the frame rate of windows."""
    kind = "pose3d" if path in supervised else config.data.target
    n_views = views.keypoints.shape[1]
    if kind == "solved":
        views = replace(views, target=targets.solved(recording, n_views))
    elif kind == "pose3d":
        views = replace(views, target=targets.ground_truth(path, config.joints, n_views))
    elif supervised:  # all have to have one
        views = replace(views, target=targets.empty(views))
    if config.windows.fps is not None:
        return windows.resample(views, config.windows.fps / recording.fps)
    return views
