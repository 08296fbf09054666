"""The page in a real browser: it shows the arrays of the predictions, and every control works."""

import base64
import contextlib
import io
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation
from viewer_scene import FPS, NAME, fewer_views, made, recordings_in, with_truth_fused

from canonlift.body import skeleton
from canonlift.body.skeleton import H36M17
from canonlift.data.frames import centre, to_views
from canonlift.data.prediction import Prediction
from canonlift.geometry.scale import norm, unit_scale
from canonlift.output import viewer
from canonlift.types import Lifted


@pytest.fixture(scope="module")
def prediction():
    return made()


@pytest.fixture(scope="module")
def fused(prediction):
    return with_truth_fused(prediction)


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
def written(prediction, fused, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    hostile = '</script><script>state = 0</script><img src=x onerror="state = 0"> & <b>'
    never = fewer_views(prediction, [0, 1])
    recording = replace(never.recording, views=(hostile, "attic"))
    recording.confidence[:, 1] = 0
    for array in (never.pose, never.rotation, never.keypoints_refined):
        array[:, 1] = np.nan
    never = replace(never, recording=recording)
    pages = {
        "walk": {NAME: prediction},
        "fused": {"fused": fused, NAME: prediction},
        "odd": {"one": fewer_views(prediction, [2]), hostile: never},
    }
    return {name: viewer.write(shown, folder / f"{name}.html") for name, shown in pages.items()}


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
    return numbers(page, "poseOf(state.recording, state.frame, state.source)").reshape(-1, 3)


def test_scrubbing_shows_the_values_of_the_prediction(visit, prediction):
    page = visit("walk")
    refined = numbers(page, "state.recording.refined").reshape(75, 4, 17, 2)
    np.testing.assert_allclose(refined, prediction.keypoints_refined, atol=0.06)
    bar = page.evaluate("[strip.left, strip.width]")
    box = page.locator("#strip").bounding_box()
    for frame in (5, 31, 74, 18):
        page.mouse.move(box["x"] + bar[0] + bar[1] * (frame + 0.5) / 75, box["y"] + 20)
        page.mouse.down()
        settle(page)
        assert page.evaluate("state.frame") == frame
        source = page.evaluate("state.source")
        np.testing.assert_allclose(shown_pose(page), prediction.pose[frame, source], atol=3e-5)
        for v in range(4):
            view = page.evaluate(
                "(v) => ({...views[v], panel: 0, canvas: 0, output: 0, none: 0, shown: 0})", v
            )
            screen = numbers(page, f"views[{v}].shown.detected").reshape(-1, 2)
            pixels = (screen - [view["left"], view["top"]]) / view["scale"] + [
                view["x"],
                view["y"],
            ]
            seen = prediction.recording.confidence[frame, v] > 0
            np.testing.assert_array_equal(np.isfinite(screen[:, 0]), seen)
            found, expected = pixels[seen], prediction.recording.keypoints[frame, v][seen]
            np.testing.assert_allclose(found, expected, atol=0.06)
    page.mouse.move(2000, box["y"])
    page.mouse.up()
    assert page.evaluate("state.frame") == 74
    assert page.locator(".time span").inner_text() == "frame 74"


def test_poses_are_laid_over_every_view_as_the_evaluation_does_it(visit, prediction):
    page = visit("walk")
    views = to_views(prediction.recording)
    rotation, pose = (
        torch.from_numpy(np.nan_to_num(array)) for array in (prediction.rotation, prediction.pose)
    )
    lifted = Lifted(torch.einsum("tvrc,tvjr->tvjc", rotation, pose), rotation)
    image = unit_scale(lifted.in_every_image, views.observed[:, None])
    image = (image * norm(views.keypoints, views.observed)[:, None]).numpy()
    _, _, root, rooted = centre(prediction.recording)
    known = np.isfinite(prediction.pose[..., 0, 0])
    for frame, view, source in [(12, 0, 0), (12, 1, 0), (40, 3, 2), (66, 2, 1)]:
        assert known[frame, [view, source]].all()
        assert rooted[frame, view]
        found = numbers(page, f"reproject(state.recording, {frame}, {view}, {source})").reshape(
            -1, 2
        )
        expected = image[frame, source, view] + root[frame, view]
        np.testing.assert_allclose(found, expected, atol=0.5)


def test_turning_the_pose_changes_no_distance_and_mirrors_nothing(visit, prediction):
    page = visit("walk")
    frame = 20
    for azimuth, elevation in [(0.0, 0.0), (2.1, 0.6), (-0.9, 1.4)]:
        page.evaluate(f"state.azimuth = {azimuth}; state.elevation = {elevation}; seek({frame})")
        settle(page)
        shown = numbers(page, "room.shown").reshape(-1, 3)
        height = page.evaluate("standing(state.recording, state.source).height")
        width, tall = page.evaluate("[room.canvas.clientWidth, room.canvas.clientHeight]")
        away = 3.6 * height
        flat = (shown[:, :2] - [width / 2, 0.52 * tall]) * ((away + shown[:, 2:]) / away)
        scale = min(width / (1.32 * height), tall / (1.55 * height))
        solid = np.column_stack([flat / scale, shown[:, 2]])
        pose = prediction.pose[frame, page.evaluate("state.source")]
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


def test_a_detected_joint_has_the_colour_of_its_side(visit, prediction):
    page = visit("walk", "#frame=40", color_scheme="light")
    for key in "rct":
        page.keyboard.press(key)
    settle(page)
    sides = {"l_": (0, 114, 178), "r_": (213, 94, 0)}
    drawn = [base64.b64decode(url.partition(",")[2]) for url in picture(page)]
    images = [Image.open(io.BytesIO(png)).convert("RGBA") for png in drawn]
    seen = 0
    for view, joint in np.argwhere(prediction.recording.confidence[40] > 0.98):
        if H36M17[joint] not in ("l_ankle", "r_ankle", "l_wrist", "r_wrist"):
            continue  # other joints and bones may lie over them
        x, y = numbers(page, f"views[{view}].shown.detected")[2 * joint : 2 * joint + 2]
        colour = images[view].getpixel((int(x), int(y)))[:3]
        assert np.abs(np.subtract(colour, sides[H36M17[joint][:2]])).max() < 12
        seen += 1
    assert seen > 3


def test_the_keyboard_goes_through_time_views_and_bad_frames(visit, prediction):
    page = visit("walk")

    def at():
        return page.evaluate("state.frame")

    keys = "ArrowRight ArrowRight ArrowLeft Shift+ArrowRight Shift+ArrowLeft End ArrowRight Home"
    for key, frame in zip(keys.split(), (1, 2, 1, 26, 1, 74, 74, 0), strict=True):
        page.keyboard.press(key)
        assert at() == frame, key
    mean = np.nanmean(viewer.measures(prediction)[0].values, axis=1)
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
    np.testing.assert_allclose(shown_pose(page), prediction.pose[at(), 2], atol=3e-5)
    values = [m.values[at(), 2] for m in viewer.measures(prediction)]
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
    np.testing.assert_allclose(shown_pose(page), fused.fused.pose[30], atol=0.01)
    truth = fused.recording.pose3d[30]
    for view in range(4):
        found = numbers(page, f"reproject(state.recording, 30, {view}, 4)").reshape(-1, 2)
        shape = [p - p.mean(0) for p in (found, truth[view, :, :2])]
        shape = [p / np.linalg.norm(p) for p in shape]
        np.testing.assert_allclose(shape[0], shape[1], atol=0.02)
    page.evaluate("seek(7)")
    settle(page)
    assert page.locator("#space .none").inner_text() == "nobody seen in this frame"
    page.select_option("#recording", "1")
    until(page, "state.recording.name === 'walk'")
    assert page.locator("#source option").count() == 4


def test_one_view_missing_views_and_hostile_names(visit):
    page = visit("odd")
    assert "no ground truth" in page.locator(".about").inner_text()
    buttons = page.locator(".layers button:visible").all_inner_texts()
    assert buttons == ["Detected", "Repaired", "Own pose"]
    names = page.locator("#recording option").all_inner_texts()
    page.select_option("#recording", "1")
    until(page, "state.recording.V === 2")
    settle(page)
    assert names[1] == page.evaluate("state.recording.views[0]")
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


def test_every_skeleton_has_its_bones_in_the_page(tmp_path, prediction):
    for joints in skeleton.SKELETONS.values():
        kept = [H36M17.index(name) for name in joints]
        shown = Prediction(
            prediction.recording.on_skeleton(joints),
            prediction.pose[:, :, kept],
            prediction.rotation,
            prediction.keypoints_refined[:, :, kept],
        )
        (page,) = recordings_in(viewer.write({"a": shown}, tmp_path / "a.html"))
        assert len(page["bones"]) == len(joints) - 1
