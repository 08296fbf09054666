"""Every format of detections, written here in its exact layout and read back."""

import numpy as np
import pytest
from detector_files import FPS, LAYOUT_FILES, film

from canonlift.data.detectors.take import read

each_layout = pytest.mark.parametrize("name", LAYOUT_FILES)


def written(name, folder, **change):
    layout = LAYOUT_FILES[name]
    points = film(layout.joints, **change)
    return layout, layout.expect(points), layout.write(folder, points)


def assert_read(recording, expected, layout):
    confidence = expected[..., 2]
    np.testing.assert_allclose(recording.confidence, confidence, rtol=0, atol=1e-3)
    seen = confidence > 0
    assert (recording.confidence > 0)[~seen].sum() == 0
    np.testing.assert_allclose(
        recording.keypoints[seen], expected[..., :2][seen], rtol=0, atol=layout.atol
    )
    assert np.isnan(recording.keypoints[~seen]).all()


@each_layout
@pytest.mark.parametrize("auto", [False, True])
def test_reads_back_what_was_written(name, auto, tmp_path):
    layout, expected, cameras = written(name, tmp_path)
    recording, report = read(cameras, "auto" if auto else layout.form, layout.options)
    assert_read(recording, expected, layout)
    assert recording.joints == layout.joints
    assert len(recording.views) == 2
    assert recording.fps == pytest.approx(FPS, rel=1e-6)
    assert not auto or f"looks like {layout.form}:" in report[0]
