"""Which recordings are evaluated, under which names, and in which groups."""

import glob
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from canonlift.data.frames import expand, read_one
from canonlift.data.recording import Recording
from canonlift.training.config import Config

Source = str | Path | Recording  # a text may be a glob


def by_name(
    recordings: Source | Sequence[Source] | Mapping[str, Recording],
) -> dict[str, Path | Recording]:
    """Recordings by names that differ: those of their files, `recording-1` where there is none."""
    if isinstance(recordings, Mapping):
        return dict(recordings)
    if isinstance(recordings, Source):
        recordings = [recordings]
    found: list[Path | Recording] = []
    for source in recordings:
        if isinstance(source, str):
            found += [Path(source)] if Path(source).is_file() else expand([source])
        else:
            found.append(source)
    of_files = iter(unique_names([source for source in found if isinstance(source, Path)]))
    return {
        next(of_files) if isinstance(source, Path) else f"recording-{number}": source
        for number, source in enumerate(found, start=1)
    }


def unique_names(paths: Sequence[Path]) -> list[str]:
    """File names without suffix; where two are equal, with as many folders as needed."""
    for depth in range(1, max((len(path.parts) for path in paths), default=1) + 1):
        names = ["-".join(path.with_suffix("").parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise ValueError(f"the same recording is given twice: {', '.join(map(str, paths))}")


def read(source: Path | Recording, joints: tuple[str, ...]) -> Recording:
    """A recording on the given joints; those that cannot be computed are unobserved."""
    if isinstance(source, Path):
        return read_one(source, joints, partly=True)
    if source.n_frames == 0:
        raise ValueError("a recording has no frames")
    return source.on_skeleton(joints, partly=True)


def group_names(names: Sequence[str], pattern: str) -> dict[str, str]:
    """What a regular expression finds in each name: its first group, or all that it matches."""
    try:
        found = {name: re.search(pattern, name) for name in names}
    except re.error as error:
        raise ValueError(f"--group-by {pattern!r} is no regular expression: {error}") from error
    matches = {name: (*match.groups(), match[0])[0] for name, match in found.items() if match}
    groups = {name: group for name, group in matches.items() if group}
    if lost := [name for name in names if name not in groups]:
        raise ValueError(
            f"--group-by {pattern!r} finds nothing in {len(lost)} of {len(names)} names, such as "
            f"{lost[0]}"
        )
    return groups


def held_out(config: Config, run: Path) -> list[Path]:
    """The recordings that the config of a run sets aside for evaluation."""
    data = config.data
    if data.simulate is not None and data.simulate.n_test:
        return expand([f"{glob.escape(str(run))}/session/test_*.npz"])
    if not data.test:
        raise FileNotFoundError(f"{run} set no test recordings aside; give --recordings")
    return expand(data.test)


def trained_on(config: Config, run: Path) -> list[Path]:
    """The recordings that a run was trained on, as far as they still exist."""
    data = config.data
    if data.simulate is not None:
        return sorted((run / "session").glob("train_*.npz"))
    return [Path(path) for pattern in data.train for path in glob.glob(pattern, recursive=True)]
