"""How smoothly the page of `canonlift export --formats html` plays, and how large it is.

Examples:
    python -m benchmarks.viewer               # needs Chromium and Playwright
    python -m benchmarks.viewer --profile     # and where a drawn frame's time goes

A minute of six views of made-up motion, 60 frames per second, 17 joints. The browser draws
without a GPU; `throttle` is how many times slower it makes the page's own thread, as on a phone.
"""

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Page, sync_playwright
from scipy.ndimage import gaussian_filter1d

from canonlift.body.skeleton import H36M17
from canonlift.data.prediction import Fused, Prediction
from canonlift.output import viewer
from canonlift.simulation.athlete import perform, sample_person
from canonlift.simulation.cameras import CameraConfig
from canonlift.simulation.detector import DetectorConfig
from canonlift.simulation.motions import MOTIONS
from canonlift.simulation.session import film

FPS, SECONDS, VIEWS = 60.0, 60, 6
PLAYED_S = 5.0


def main(argv: Sequence[str] | None = None) -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--throttles", type=float, nargs="+", default=[1, 4, 8])
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args(argv)
    program = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if program is None:
        sys.exit("no Chromium is installed")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        made = {"a minute of six views": made_prediction()}
        path = viewer.write(made, Path(folder) / "page.html")
        print(f"page: {path.stat().st_size / 2**20:.1f} MiB\n")
        options = ["--disable-background-networking", "--disable-gpu", "--no-sandbox"]
        browser = playwright.chromium.launch(executable_path=program, args=options)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(path.as_uri())
        page.evaluate("ready")
        print("| throttle | frames/s | ms of script a frame |\n| ---: | ---: | ---: |")
        for throttle in args.throttles:
            rate, milliseconds = played(page, throttle)
            print(f"| {throttle:g} | {rate:.0f} | {milliseconds:.1f} |")
        if args.profile:
            print("\n".join(profile(page)))
        browser.close()


def made_prediction() -> Prediction:
    """An athlete, and predictions that are a little wrong everywhere."""
    g = np.random.default_rng(0)
    n_frames = round(FPS * SECONDS)
    pose = perform(sample_person(g), list(MOTIONS), n_frames, FPS, g)
    recording = film(pose, H36M17, FPS, CameraConfig(n_views=VIEWS), DetectorConfig(), g)
    truth = recording.pose3d - recording.pose3d[:, :, :1]
    wrong = gaussian_filter1d(g.normal(0, 0.03, truth.shape), 2.0, axis=0)
    lifted = ((truth + wrong) / 4.5).astype(np.float32)
    u, _, vt = np.linalg.svd(np.einsum("tjr,tvjc->tvrc", truth[:, 0], truth))
    u[..., 2] *= np.sign(np.linalg.det(u @ vt))[..., None]
    turn = np.swapaxes(u @ vt, -1, -2).astype(np.float32)
    refined = np.where(g.random(truth.shape[:3])[..., None] < 0.1, recording.keypoints_true + 5,
                       recording.keypoints)  # fmt: skip
    seen_by = np.full((n_frames, len(H36M17)), VIEWS, np.int8)
    fused = Fused(lifted[:, 0], turn, seen_by)
    return Prediction(recording, lifted, turn, refined.astype(np.float32), fused)


def played(page: Page, throttle: float) -> tuple[float, float]:
    """Frames drawn per second of playing, and the time that the page's own code took for one."""
    devtools = page.context.new_cdp_session(page)
    devtools.send("Emulation.setCPUThrottlingRate", {"rate": throttle})
    script = """(seconds) => new Promise((done) => {
        seek(0); play(true);
        const first = state.drawn, begun = performance.now();
        setTimeout(() => done([state.drawn - first, performance.now() - begun]), 1000 * seconds);
    })"""
    frames, milliseconds = page.evaluate(script, PLAYED_S)
    page.evaluate("play(false)")
    cost = page.evaluate(
        """() => { const begun = performance.now();
        for (let i = 0; i < 50; i++) {
          state.frame = 60 * i; state.dirty = true;
          for (const view of views) drawView(view);
          drawSpace(); write(begun + 100 * i);
        }
        return (performance.now() - begun) / 50; }"""
    )
    devtools.send("Emulation.setCPUThrottlingRate", {"rate": 1})
    devtools.detach()
    return 1000 * frames / milliseconds, cost


def profile(page: Page) -> list[str]:
    """Share of the time that each function took by itself while playing."""
    devtools = page.context.new_cdp_session(page)
    devtools.send("Profiler.enable")
    devtools.send("Profiler.setSamplingInterval", {"interval": 200})
    devtools.send("Profiler.start")
    page.evaluate("play(true)")
    page.wait_for_timeout(1000 * PLAYED_S)
    found: dict[str, Any] = devtools.send("Profiler.stop")["profile"]
    names = {node["id"]: node["callFrame"]["functionName"] or "-" for node in found["nodes"]}
    counts = Counter(names[sample] for sample in found["samples"])
    return [
        f"{100 * n / len(found['samples']):5.1f} % {name}" for name, n in counts.most_common(16)
    ]


if __name__ == "__main__":
    main()
