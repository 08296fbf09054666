"""Which of several people is kept: by the detector's track ids, or by continuity of motion."""

from collections.abc import Mapping, Sequence

import numpy as np

from canonlift.readers import tracking
from canonlift.readers.detectors.parsing import CameraDetections, InputError
from canonlift.readers.detectors.people import People

MAX_GAP_S = 2.0  # a person missing for longer is another track


def choose(
    people: People, detections: CameraDetections, fps: float, name: str, wanted: Sequence[str]
) -> tuple[dict[int, np.ndarray], list[str]]:
    """The joints of the person that is kept, by frame, and lines for the report.

    `name` is the camera's, `wanted` are choices as in `Options.person`.
    """
    instants = detections.instants(fps)
    numbers = list(instants)
    starts = np.searchsorted(people.frames, numbers)
    points = np.split(people.points, starts[1:])  # of each frame
    moments = [round(instants[number] * fps) for number in numbers]
    by_motion = tracks_by_motion(points, moments, fps)
    ids: dict[str, dict[int, int]] = {}
    for place, start in enumerate(starts.tolist()):
        for person, track in enumerate(people.tracks[start : start + len(points[place])]):
            if track is None:
                continue
            if place in ids.setdefault(track, {}):
                where = f"{detections.path}, frame {numbers[place]}"
                what = f"two people with the track id {track}"
                raise InputError(where, what, "track the people again")
            ids[track][place] = person
    tracks = ids or {str(i): track for i, track in enumerate(by_motion)}
    kept, chosen = _pick(points, tracks, name, wanted)
    report = [_summary(points, tracks, kept) + chosen]
    if ids:
        if untracked := people.tracks.count(None):
            report.append(f"{untracked} detections without a track id left out")
        report += _id_switches(numbers, by_motion, ids, kept)
    return {numbers[place]: points[place][i] for place, i in kept.items()}, report


def tracks_by_motion(
    people: Sequence[np.ndarray], moments: Sequence[int], fps: float
) -> list[dict[int, int]]:
    """Tracks by overlap and continuity; frames that are missing count as empty."""
    max_gap = max(1, round(MAX_GAP_S * fps))
    timeline: list[np.ndarray] = []
    places: dict[int, int] = {}  # in the timeline -> in `people`
    for place, persons in enumerate(people):
        if place:
            # Longer gaps, however long, end all tracks alike.
            empty = min(max(moments[place] - moments[place - 1], 1), max_gap + 2) - 1
            timeline += [persons[:0]] * empty
        places[len(timeline)] = place
        timeline.append(persons)
    tracks = tracking.tracks(timeline, max_gap=max_gap)
    return [{places[m]: person for m, person in track.items()} for track in tracks]


def _pick(
    people: Sequence[np.ndarray],
    tracks: Mapping[str, dict[int, int]],
    name: str,
    wanted: Sequence[str],
) -> tuple[dict[int, int], str]:
    choice = "best"
    for word in wanted:
        camera, equals, value = word.rpartition("=")
        if not equals or camera == name:
            choice = value
    if choice in tracking.CHOICES:
        return tracking.CHOICES[choice](people, list(tracks.values())), ""
    parts = choice.split(",")
    missing = [one for one in parts if one not in tracks]
    if missing:
        found = ", ".join(sorted(tracks, key=lambda t: -len(tracks[t]))[:20])
        raise ValueError(
            f"{name}: no person {', '.join(missing)}; there are {found or 'none'} "
            f"(or say {', '.join(tracking.CHOICES)})"
        )
    joined: dict[int, int] = {}
    for one in parts:
        joined = {**tracks[one], **joined}
    return joined, f"; person {choice} as asked for"


def _summary(
    people: Sequence[np.ndarray], tracks: Mapping[str, dict[int, int]], kept: Mapping[int, int]
) -> str:
    others = sum(len(seen) > 0 and place not in kept for place, seen in enumerate(people))
    ambiguous = sum(len(seen) > 1 for seen in people)
    name = next((n for n, track in tracks.items() if track == kept), None)
    return (
        f"{len(people) - len(kept)} of {len(people)} frames unobserved"
        + (f" (in {others} of them another person is seen)" if others else "")
        + f"; {ambiguous} ambiguous, with more than one person"
        + (f" (kept track {name} of {len(tracks)})" if len(tracks) > 1 and name else "")
    )


def _id_switches(
    numbers: Sequence[int],
    by_motion: Sequence[Mapping[int, int]],
    ids: Mapping[str, Mapping[int, int]],
    kept: Mapping[int, int],
) -> list[str]:
    """Frames where the detector's id and the continuity of the pose disagree on who is kept."""
    owner = {item: t for t, track in enumerate(by_motion) for item in track.items()}
    name_of = {item: name for name, track in ids.items() for item in track.items()}
    places = sorted(kept)
    report = []
    for before, after in zip(places, places[1:], strict=False):
        track = owner[before, kept[before]]
        if track == owner[after, kept[after]]:
            continue
        if after in by_motion[track] or after - before == 1:
            report.append(
                f"WARNING: id {name_of[after, kept[after]]} jumps to another person at frame "
                f"{numbers[after]}"
            )
    last = places[-1]
    track = by_motion[owner[last, kept[last]]]
    later = min((place for place in track if place > last), default=last)
    old, new = name_of[last, kept[last]], name_of.get((later, track[later]))
    if later > last and new:
        report.append(
            f"WARNING: id {old} ends at frame {numbers[last]}; the same person may go on as "
            f"id {new} at frame {numbers[later]}: --person CAMERA={old},{new} joins them"
        )
    if len(report) > 5:
        report = [*report[:5], f"WARNING: {len(report) - 5} more such switches"]
    return report
