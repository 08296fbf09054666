"""The page in a real browser: it shows what the arrays say, and every control does its work."""

import base64
import contextlib
import io
import json
import os
import re
import shutil
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from canonlift import metrics
from canonlift.body import skeleton
from canonlift.body.skeleton import H36M17
from canonlift.data.prediction import Prediction
from canonlift.data.samples import centre, to_views
from canonlift.evaluation import evaluate
from canonlift.geometry.scale import norm, unit_scale
from canonlift.output import viewer
from canonlift.output.viewer import Take
from canonlift.simulation.athlete import perform, sample_person
from canonlift.simulation.cameras import CameraConfig
from canonlift.simulation.detector import DetectorConfig
from canonlift.simulation.motions import MOTIONS
from canonlift.simulation.session import film
from canonlift.types import Lifted

FPS = 25.0


def made_take(n_frames=75, n_views=4, seed=3, name="walk"):
    """A filmed athlete, and a prediction that is wrong in its own way everywhere."""
    g = np.random.default_rng(seed)
    pose = perform(sample_person(g), list(MOTIONS), n_frames, FPS, g)
    detector = DetectorConfig(joint_miss_rate=0.05, frame_miss_rate=0.0)
    recording = film(pose, H36M17, FPS, CameraConfig(n_views=n_views), detector, g)
    recording.confidence[50:56, 1] = 0.0
    truth = recording.pose3d - recording.pose3d[:, :, :1]
    body = truth / 4.5 + g.normal(0, 0.01, truth.shape)
    body = body - body[:, :, :1]
    # In the first camera everybody stands for the canonical frame, which nods from frame to frame.
    nod = Rotation.from_rotvec(g.normal(0, 0.2, (n_frames, 3))).as_matrix()[:, None]
    turn = nod @ np.swapaxes(_camera_turns(truth), -1, -2)
    refined, _, _, _ = centre(recording)
    refined = np.where(recording.confidence[..., None] > 0, refined, np.nan)
    moved = g.random(refined.shape[:3]) < 0.1
    refined = np.where(moved[..., None], recording.keypoints_true + 7.0, refined)
    unseen = ~to_views(recording).observed.any(-1).numpy()[..., None, None]
    assert 6 <= unseen.sum() < 20
    return Take(
        name,
        recording,
        Prediction(
            np.where(unseen, np.nan, body).astype(np.float32),
            np.where(unseen, np.nan, np.swapaxes(turn, -1, -2)).astype(np.float32),
            np.where(unseen, np.nan, refined).astype(np.float32),
        ),
    )


def _camera_turns(pose):
    """Rotations of every view's pose onto that of the first view."""
    u, _, vt = np.linalg.svd(np.einsum("tjr,tvjc->tvrc", pose[:, 0], pose))
    sign = np.ones((*u.shape[:2], 3))
    sign[..., 2] = np.linalg.det(u @ vt)
    return (u * sign[..., None, :]) @ vt


def fewer_views(take, views, name):
    recording = take.recording
    arrays = {k: getattr(recording, k)[:, views] for k in ("keypoints", "confidence")}
    names = tuple(recording.views[v] for v in views)
    plain = replace(recording, **arrays, views=names, pose3d=None, keypoints_true=None,
                    image_size=None)  # fmt: skip
    prediction = Prediction(*(array[:, views] for array in vars(take.prediction).values()))
    return Take(name, plain, prediction)


@pytest.fixture(scope="module")
def take():
    return made_take()


@pytest.fixture(scope="module")
def fused(take):
    """The true motion in centimetres, y up, which no camera has."""
    truth = take.recording.pose3d[:, 1] - take.recording.pose3d[:, 1, :1]
    sequence = 100 * truth * np.array([1.0, -1.0, -1.0])
    sequence[7] = np.nan
    return replace(take, name="fused", fused=sequence.astype(np.float32))


def unpacked(packed, base=None):
    """What the page makes of a packed array, step by step."""
    raw = np.frombuffer(zlib.decompress(base64.b64decode(packed["data"])), np.uint8)
    low, high = raw.reshape(2, *packed["shape"]).astype(np.int64)
    small = low + 256 * high
    change = np.where(small % 2 == 1, -(small + 1) // 2, small // 2)
    number = np.cumsum(change, axis=0) + (0 if base is None else base)
    number = (number + 2**15) % 2**16 - 2**15
    return number, np.where(number == -(2**15), np.nan, packed["origin"] + number * packed["step"])


def told(path):
    """The JSON of each take in a page."""
    scripts = re.findall(r'<script type="application/json" class="take">(.*)</script>',
                         path.read_text())  # fmt: skip
    return [json.loads(text) for text in scripts]


# --- what is written


@pytest.mark.parametrize("scale", [1.0, 300.0, 1e-6])
def test_packing_keeps_every_value_to_half_a_step_and_what_is_missing_missing(scale):
    g = np.random.default_rng(0)
    array = scale * g.normal(5.0, 1.0, (40, 3, 2)).cumsum(0)
    array[g.random(array.shape) < 0.2] = np.nan
    packed = viewer._pack(array, 1e-4)
    assert packed["step"] >= 1e-4
    _, found = unpacked(packed)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(array))
    assert np.nanmax(np.abs(found - array)) <= 0.5001 * packed["step"]
    assert np.nanmax(np.abs(array)) / packed["step"] < 2**16


def test_one_joint_gone_astray_does_not_coarsen_the_others():
    array = np.random.default_rng(0).normal(500.0, 100.0, (400, 17, 2))
    array[3, 2] = 1e9
    packed = viewer._pack(array, 0.1)
    assert packed["step"] == 0.1
    _, found = unpacked(packed)
    far = array == 1e9
    assert np.abs(found - array)[~far].max() < 0.051
    assert found[far].min() > array[~far].max()


def test_refined_joints_are_told_relative_to_the_detected(take, tmp_path):
    (page,) = told(viewer.write([take], tmp_path / "a.html"))
    base, detected = unpacked(page["arrays"]["detected"])
    _, refined = unpacked(page["arrays"]["refined"], base)
    seen = take.recording.confidence > 0
    np.testing.assert_array_equal(np.isfinite(detected[..., 0]), seen)
    np.testing.assert_allclose(detected[seen], take.recording.keypoints[seen], atol=0.0502)
    np.testing.assert_allclose(refined, take.prediction.keypoints_refined, atol=0.0502)


def test_a_recording_too_long_for_a_page_is_thinned_and_says_so(take, tmp_path, monkeypatch):
    monkeypatch.setattr(viewer, "MOST_JOINTS", take.recording.confidence.size // 3 + 1)
    page, _ = told(viewer.write([take, fewer_views(take, [0], "one")], tmp_path / "a.html"))
    assert page["step"] == 4
    assert page["fps"] == FPS / 4
    _, pose = unpacked(page["arrays"]["pose"])
    np.testing.assert_allclose(pose, take.prediction.pose[::4], atol=1e-4)


def test_measures_are_those_of_the_evaluation(take):
    error, others, own = viewer.measures(take)
    assert [m.name for m in (error, others, own)] == ["Error", "Disagreement", "Own misfit"]
    truth = torch.from_numpy(1000 * take.recording.pose3d).double().flatten(0, 1)
    pose = torch.from_numpy(take.prediction.pose).double().flatten(0, 1)
    n_mpjpe = metrics.joint_errors(pose, truth, 0).n_mpjpe.nanmean(-1)
    np.testing.assert_allclose(error.values.ravel(), n_mpjpe, rtol=1e-4)
    gaps_own, gaps_others = evaluate.view_gaps(take.recording, take.prediction)
    seen = take.recording.confidence > 0
    # The evaluation counts joints, the page views: weigh each by the joints it has.
    count = seen.sum(-1) * np.isfinite(own.values)
    mean = np.nansum(own.values * count) / count.sum()
    assert mean == pytest.approx(100 * float(gaps_own.mean()), rel=1e-4)
    usable = np.isfinite(take.prediction.pose[:, :, 0, 0])
    count = ((seen & usable[..., None]).sum((1, 2))[:, None] - count) * usable
    mean = np.nansum(others.values * count) / count.sum()
    assert mean == pytest.approx(100 * float(gaps_others.mean()), rel=1e-4)


def test_a_fused_sequence_is_measured_beside_the_views(fused):
    """By cameras that are known exactly it is without error; fitted ones turn with the views."""
    plain = viewer.measures(replace(fused, fused=None))
    flip = np.diag([1.0, -1.0, -1.0])
    truth = fused.recording.pose3d - fused.recording.pose3d[:, :, :1]
    turns = np.swapaxes(_camera_turns(truth), -1, -2)
    exact = turns @ np.swapaxes(turns[:, [1]], -1, -2) @ flip
    known = viewer.measures(replace(fused, fused_rotation=exact.astype(np.float32)))
    fitted = viewer.measures(fused)
    seen = np.arange(75) != 7
    for with_it in (known, fitted):
        for one, other in zip(with_it, plain, strict=True):
            np.testing.assert_array_equal(one.values[:, :4], other.values)
            assert np.isnan(one.values[7, 4])
        assert np.isnan(with_it[2].values[:, 4]).all(), "it was lifted from no view"
    assert known[0].values[seen, 4].max() < 0.1
    assert 1.0 < np.median(fitted[0].values[seen, 4]) < np.nanmedian(plain[0].values)
    assert known[1].values[seen, 4].mean() < 0.8 * np.nanmean(plain[1].values)


def test_one_view_without_truth_is_measured_by_its_own_misfit_alone(take):
    assert [m.name for m in viewer.measures(fewer_views(take, [2], "one"))] == ["Own misfit"]


def test_up_is_where_the_head_is_in_whatever_axes(take):
    pose = take.recording.pose3d[:, 0].astype(np.float64)
    turn = Rotation.from_rotvec([0.3, 1.1, -2.0]).as_matrix()
    up = np.array(viewer._up(pose, H36M17))
    assert up[1] < -0.8
    np.testing.assert_allclose(viewer._up(pose @ turn.T, H36M17), turn @ up, atol=0.1)
    assert viewer._up(np.full_like(pose, np.nan), H36M17) == [0.0, -1.0, 0.0]
    assert viewer._up(pose[:, :2], ("tail", "fin")) == [0.0, -1.0, 0.0]


def test_the_fused_pose_is_turned_onto_that_of_each_view(fused):
    truth = fused.recording.pose3d - fused.recording.pose3d[:, :, :1]
    turn = viewer._turns(fused.fused, truth)
    known = np.isfinite(truth[..., 0]).all(-1) & np.isfinite(fused.fused[:, None, :, 0]).all(-1)
    assert not known[7].any()
    laid = np.einsum("tvrc,tjc->tvjr", turn, fused.fused) / 100
    np.testing.assert_allclose(laid[known], truth[known], atol=1e-3)
    assert np.isnan(turn[~known]).all()


short = Prediction(*(np.zeros((9, 4, *end)) for end in ((17, 3), (3, 3), (17, 2))))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fused": np.zeros((75, 16, 3))}, r"walk: the fused sequence is \(75, 16, 3\)"),
        ({"prediction": short}, r"prediction is of \(9, 4, 17\).*predict this recording"),
    ],
)
def test_what_does_not_belong_together_is_refused(take, change, words):
    with pytest.raises(ValueError, match=words):
        replace(take, **change)


def test_nothing_to_show_is_refused_and_nothing_is_written(take, tmp_path):
    with pytest.raises(ValueError, match=r"a\.html"):
        viewer.write([], tmp_path / "a.html")
    empty = replace(take.recording, keypoints=take.recording.keypoints[:0],
                    confidence=take.recording.confidence[:0], pose3d=None,
                    keypoints_true=None)  # fmt: skip
    with pytest.raises(ValueError, match="walk: has no frames"):
        replace(take, recording=empty)
    assert not list(tmp_path.iterdir())


# --- what is seen


@pytest.fixture(scope="module")
def browser():
    """One Chromium for all tests, with a profile of its own that is thrown away."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip(f"no browser is installed: none of {', '.join(names)}")
    options = ["--disable-background-networking", "--disable-gpu"]
    options += ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=program, args=options)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def written(take, fused, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    hostile = '</script><script>state = 0</script><img src=x onerror="state = 0"> & <b>'
    never = fewer_views(take, [0, 1], hostile)
    for array in (never.recording.confidence, *vars(never.prediction).values()):
        array[:, 1] = 0 if array is never.recording.confidence else np.nan
    never = replace(never, recording=replace(never.recording, views=(hostile, "attic")))
    pages = {"walk": [take], "fused": [fused, take], "odd": [fewer_views(take, [2], "one"), never]}
    return {name: viewer.write(takes, folder / f"{name}.html") for name, takes in pages.items()}


@pytest.fixture
def visit(browser, written):
    """Opens a page; at the end nothing may have been fetched, and no error said."""
    with contextlib.ExitStack() as stack:
        wrong, asked = [], []

        def go(name, suffix="", **options):
            options = {"viewport": {"width": 1200, "height": 800}} | options
            context = browser.new_context(offline=True, **options)
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(5000)
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("console", lambda line: wrong.append(line.text))
            page.on("request", lambda request: asked.append(request.url))
            page.goto(f"file://{written[name]}{suffix}")
            page.evaluate("ready")
            settle(page)
            return page

        yield go
        assert wrong == []
        assert [url for url in asked if not url.startswith(("file://", "data:"))] == []
        assert len([url for url in asked if url.startswith("file://")]) == 1


def settle(page):
    """Wait until what was asked for is drawn."""
    page.evaluate(
        "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )


def until(page, script):
    """Playwright's own waiting evaluates text, which the page forbids."""
    for _ in range(200):
        if page.evaluate(script):
            return settle(page)
        page.wait_for_timeout(20)
    raise TimeoutError(script)


def numbers(page, script):
    """An array of the page's, with NaN where it says NaN."""
    found = page.evaluate(f"Array.from({script}, (x) => Number.isNaN(x) ? null : x)")
    return np.array([np.nan if x is None else x for x in found])


def picture(page, canvases="#views canvas"):
    return page.evaluate(f"[...document.querySelectorAll('{canvases}')].map((c) => c.toDataURL())")


def shown_pose(page):
    return numbers(page, "poseOf(state.take, state.frame, state.source)").reshape(-1, 3)


def test_scrubbing_shows_the_values_of_the_prediction(visit, take):
    page = visit("walk")
    refined = numbers(page, "state.take.refined").reshape(75, 4, 17, 2)
    np.testing.assert_allclose(refined, take.prediction.keypoints_refined, atol=0.06)
    bar = page.evaluate("[strip.left, strip.width]")
    box = page.locator("#strip").bounding_box()
    for frame in (5, 31, 74, 18):
        page.mouse.move(box["x"] + bar[0] + bar[1] * (frame + 0.5) / 75, box["y"] + 20)
        page.mouse.down()
        settle(page)
        assert page.evaluate("state.frame") == frame
        source = page.evaluate("state.source")
        np.testing.assert_allclose(
            shown_pose(page), take.prediction.pose[frame, source], atol=3e-5
        )
        for v in range(4):
            view = page.evaluate(
                "(v) => ({...views[v], panel: 0, canvas: 0, output: 0, none: 0, shown: 0})", v
            )
            screen = numbers(page, f"views[{v}].shown.detected").reshape(-1, 2)
            pixels = (screen - [view["left"], view["top"]]) / view["scale"] + [
                view["x"],
                view["y"],
            ]
            seen = take.recording.confidence[frame, v] > 0
            np.testing.assert_array_equal(np.isfinite(screen[:, 0]), seen)
            found, expected = pixels[seen], take.recording.keypoints[frame, v][seen]
            np.testing.assert_allclose(found, expected, atol=0.06)
    page.mouse.move(2000, box["y"])
    page.mouse.up()
    assert page.evaluate("state.frame") == 74
    assert page.locator(".time span").inner_text() == "frame 74"


def test_poses_are_laid_over_every_view_as_the_evaluation_does_it(visit, take):
    page = visit("walk")
    views = to_views(take.recording)
    rotation, pose = (
        torch.from_numpy(np.nan_to_num(array))
        for array in (take.prediction.rotation, take.prediction.pose)
    )
    lifted = Lifted(torch.einsum("tvrc,tvjr->tvjc", rotation, pose), rotation)
    image = unit_scale(lifted.in_every_image, views.observed[:, None])
    image = (image * norm(views.keypoints, views.observed)[:, None]).numpy()
    _, _, root, rooted = centre(take.recording)
    known = np.isfinite(take.prediction.pose[..., 0, 0])
    for frame, view, source in [(12, 0, 0), (12, 1, 0), (40, 3, 2), (66, 2, 1)]:
        assert known[frame, [view, source]].all()
        assert rooted[frame, view]
        found = numbers(page, f"reproject(state.take, {frame}, {view}, {source})").reshape(-1, 2)
        expected = image[frame, source, view] + root[frame, view]
        np.testing.assert_allclose(found, expected, atol=0.5)


def test_turning_the_pose_changes_no_distance_and_mirrors_nothing(visit, take):
    page = visit("walk")
    frame = 20
    for azimuth, elevation in [(0.0, 0.0), (2.1, 0.6), (-0.9, 1.4)]:
        page.evaluate(f"state.azimuth = {azimuth}; state.elevation = {elevation}; seek({frame})")
        settle(page)
        shown = numbers(page, "room.shown").reshape(-1, 3)
        height = page.evaluate("standing(state.take, state.source).height")
        width, tall = page.evaluate("[room.canvas.clientWidth, room.canvas.clientHeight]")
        away = 3.6 * height
        flat = (shown[:, :2] - [width / 2, 0.52 * tall]) * ((away + shown[:, 2:]) / away)
        scale = min(width / (1.32 * height), tall / (1.55 * height))
        solid = np.column_stack([flat / scale, shown[:, 2]])
        pose = take.prediction.pose[frame, page.evaluate("state.source")]
        turn, error = Rotation.align_vectors(solid - solid.mean(0), pose - pose.mean(0))
        assert error < 5e-3 * np.linalg.norm(pose), "no rotation maps the pose to what is drawn"
        if azimuth == elevation == 0:
            # Levelled, that is nearly what the camera sees.
            assert turn.as_matrix().diagonal().min() > 0.85


def test_each_layer_can_be_switched_by_its_button_and_by_its_key(visit):
    page = visit("walk", "#frame=40", viewport={"width": 800, "height": 500})
    assert page.evaluate("state.frame") == 40
    page.keyboard.press("2")
    settle(page)
    for name, key, place in [
        ("detected", "d", "#views canvas"),
        ("refined", "r", "#views canvas"),
        ("own", "o", "#views canvas"),
        ("cross", "c", "#views canvas"),
        ("truth", "t", "#views canvas"),
        ("truth", "t", "#space canvas"),
        ("others", "v", "#space canvas"),
        ("cameras", "k", "#space canvas"),
    ]:
        button = page.locator(f"[data-layer={name}]")
        before, pressed = picture(page, place), button.get_attribute("aria-pressed")
        button.click()
        settle(page)
        assert button.get_attribute("aria-pressed") != pressed
        assert picture(page, place) != before, f"{name} changes nothing"
        page.keyboard.press(key)
        settle(page)
        assert button.get_attribute("aria-pressed") == pressed
        assert picture(page, place) == before, f"{name} does not come back"


def test_a_detected_joint_has_the_colour_of_its_side(visit, take):
    page = visit("walk", "#frame=40", color_scheme="light")
    for key in "rct":
        page.keyboard.press(key)
    settle(page)
    sides = {"l_": (0, 114, 178), "r_": (213, 94, 0)}
    drawn = [base64.b64decode(url.partition(",")[2]) for url in picture(page)]
    images = [Image.open(io.BytesIO(png)).convert("RGBA") for png in drawn]
    seen = 0
    for view, joint in np.argwhere(take.recording.confidence[40] > 0.98):
        if H36M17[joint] not in ("l_ankle", "r_ankle", "l_wrist", "r_wrist"):
            continue  # other joints and bones may lie over them
        x, y = numbers(page, f"views[{view}].shown.detected")[2 * joint : 2 * joint + 2]
        colour = images[view].getpixel((int(x), int(y)))[:3]
        assert np.abs(np.subtract(colour, sides[H36M17[joint][:2]])).max() < 12
        seen += 1
    assert seen > 3


def test_the_keyboard_goes_through_time_views_and_bad_frames(visit, take):
    page = visit("walk")

    def at():
        return page.evaluate("state.frame")

    keys = "ArrowRight ArrowRight ArrowLeft Shift+ArrowRight Shift+ArrowLeft End ArrowRight Home"
    for key, frame in zip(keys.split(), (1, 2, 1, 26, 1, 74, 74, 0), strict=True):
        page.keyboard.press(key)
        assert at() == frame, key
    mean = np.nanmean(viewer.measures(take)[0].values, axis=1)
    visited = []
    for _ in range(12):
        page.keyboard.press("n")
        visited.append(at())
    assert int(mean.argmax()) in visited
    assert mean[visited].min() > np.median(mean)
    page.keyboard.press("p")
    assert at() == visited[-2]
    page.keyboard.press("3")
    settle(page)
    assert page.locator("#source").input_value() == "2"
    np.testing.assert_allclose(shown_pose(page), take.prediction.pose[at(), 2], atol=3e-5)
    values = [m.values[at(), 2] for m in viewer.measures(take)]
    for value, unit in zip(values, ("mm", "%", "%"), strict=True):
        said = page.locator("#space output").inner_text().split()
        assert said[1] == unit
        assert float(said[0]) == pytest.approx(value, abs=0.51 if unit == "mm" else 0.051)
        page.keyboard.press("m")
        settle(page)
    page.keyboard.press("e")
    assert page.locator("#views .panel:visible").count() == 1
    page.keyboard.press("e")
    assert page.locator("#views .panel:visible").count() == 4
    page.keyboard.press("?")
    assert page.locator("dialog").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()


def test_playing_keeps_the_time_of_the_recording(visit):
    page = visit("walk")
    page.keyboard.press(".")  # twice as fast
    # The time of the very frame that was drawn, which a busy machine may draw late.
    played = """new Promise((done) => {
        seek(0); play(true);
        const begun = performance.now();
        setTimeout(() => requestAnimationFrame((now) => done([state.frame, now - begun])), 500);
    })"""
    frame, milliseconds = page.evaluate(played)
    late = (frame - milliseconds / 1000 * 2 * FPS + 37) % 75 - 37  # it starts again at the end
    assert milliseconds > 400
    assert abs(late) < 2
    page.keyboard.press(" ")
    stood = page.evaluate("state.frame")
    page.wait_for_timeout(100)
    assert page.evaluate("state.frame") == stood
    assert page.evaluate("state.playing") is False


def test_the_fused_pose_comes_first_and_meets_the_truth_in_every_view(visit, fused):
    page = visit("fused")
    assert page.locator("#source option").count() == 5
    page.evaluate("seek(30)")
    settle(page)
    np.testing.assert_allclose(shown_pose(page), fused.fused[30], atol=0.01)
    truth = fused.recording.pose3d[30]
    for view in range(4):
        found = numbers(page, f"reproject(state.take, 30, {view}, 4)").reshape(-1, 2)
        shape = [p - p.mean(0) for p in (found, truth[view, :, :2])]
        shape = [p / np.linalg.norm(p) for p in shape]
        np.testing.assert_allclose(shape[0], shape[1], atol=0.02)
    page.evaluate("seek(7)")
    settle(page)
    assert page.locator("#space .none").inner_text() == "nobody seen in this frame"
    page.select_option("#take", "1")
    until(page, "state.take.name === 'walk'")
    assert page.locator("#source option").count() == 4


def test_one_view_missing_views_and_hostile_names(visit):
    page = visit("odd")
    assert "no ground truth" in page.locator(".about").inner_text()
    buttons = page.locator(".layers button:visible").all_inner_texts()
    assert buttons == ["Detected", "Repaired", "Own pose"]
    names = page.locator("#take option").all_inner_texts()
    page.select_option("#take", "1")
    until(page, "state.take.V === 2")
    settle(page)
    assert names[1] == page.evaluate("state.take.views[0]")
    assert page.locator("#views b").first.inner_text() == names[1]
    assert page.locator("#views .none").nth(1).inner_text() == "never seen"
    page.keyboard.press("2")
    settle(page)
    assert page.locator("#space .none").inner_text() == "never seen from here"
    assert page.locator("img").count() == 0


def test_a_phone_shows_everything_without_scrolling_sideways(visit):
    page = visit("walk", viewport={"width": 360, "height": 740}, color_scheme="dark",
                 has_touch=True, is_mobile=True, device_scale_factor=2)  # fmt: skip
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    for one in [*page.locator(".panel:visible").all(), page.locator("#strip")]:
        box = one.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
        assert box["y"] + box["height"] <= 740
    for one in page.locator("[data-do]").all():
        assert one.bounding_box()["width"] >= 40
    box = page.locator("#strip").bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + 15)
    assert page.evaluate("state.frame") == 37
    page.locator("#views .panel").nth(2).tap()
    assert page.evaluate("state.source") == 2


def test_light_and_dark_follow_the_system_until_one_is_chosen(visit):
    page = visit("walk", color_scheme="dark")
    ground = (
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).reduce((a, b) => +a + +b)"
    )
    until(page, f"{ground} < 120")
    before = picture(page)
    page.keyboard.press("l")
    until(page, f"{ground} > 600")
    assert picture(page) != before
    for scheme, found in (("light", f"{ground} > 600"), ("dark", f"{ground} < 120")):
        page.emulate_media(color_scheme=scheme)
        until(page, found)


def test_every_skeleton_has_its_bones_in_the_page(tmp_path, take):
    for joints in skeleton.SKELETONS.values():
        kept = [H36M17.index(name) for name in joints]
        recording = take.recording.on_skeleton(joints)
        parts = take.prediction
        prediction = Prediction(
            parts.pose[:, :, kept], parts.rotation, parts.keypoints_refined[:, :, kept]
        )
        (page,) = told(viewer.write([Take("a", recording, prediction)], tmp_path / "a.html"))
        assert len(page["bones"]) == len(joints) - 1
