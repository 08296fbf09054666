"""What the figures must show, and which views they choose."""

import io
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.patches import FancyArrowPatch

from canonlift.body.skeleton import H36M17, ROOT, SKELETONS, bones
from canonlift.data.prediction import Prediction
from canonlift.data.recording import Recording
from canonlift.methods.fusion import FusionConfig, Maps, exact_peaks
from canonlift.output.figures import style
from canonlift.output.figures.fusion import draw_fusion
from canonlift.output.figures.joint_errors import draw_joint_errors
from canonlift.output.figures.losses import draw_losses
from canonlift.output.figures.motion import draw_motion
from canonlift.output.figures.notable_frames import notable_frames
from canonlift.output.figures.pose import SIDES, draw_pose
from canonlift.output.figures.refinement import draw_refinement

SHAPE = (5, 3, 17)


@pytest.fixture
def recording():
    """Three cameras, zoomed differently, that see one person; a tenth is unobserved."""
    rng = np.random.default_rng(0)
    pose = rng.normal(scale=0.5, size=(*SHAPE, 3)) + [0.0, 0.0, 12.0]
    true = 500 + np.array([300.0, 900.0, 2000.0])[:, None, None] * pose[..., :2]
    confidence = rng.uniform(0.2, 1.0, SHAPE)
    confidence[rng.random(SHAPE) < 0.1] = 0.0
    keypoints = true + rng.normal(scale=5.0, size=true.shape)
    keypoints[confidence == 0] = np.nan
    return Recording(
        keypoints=keypoints.astype(np.float32),
        confidence=confidence.astype(np.float32),
        joints=H36M17,
        views=("left", "right", r"über $\q$"),  # neither mathematics nor ASCII
        fps=30.0,
        pose3d=pose.astype(np.float32),
        keypoints_true=true.astype(np.float32),
    )


@pytest.fixture
def prediction(recording):
    """As detected, and lifted almost right, in another unit and another place."""
    rng = np.random.default_rng(1)
    root = recording.pose3d[:, :, :1]
    pose = 0.3 * (recording.pose3d - root) + rng.normal(scale=0.01, size=(*SHAPE, 3))
    rotation = np.broadcast_to(np.eye(3, dtype=np.float32), (*SHAPE[:2], 3, 3)).copy()
    return Prediction(recording, pose.astype(np.float32), rotation, recording.keypoints.copy())


@pytest.fixture
def maps():
    """One joint of the second of five views; the third saw nothing."""
    rng = torch.Generator().manual_seed(0)
    angle = torch.rand(1, 5, generator=rng, dtype=torch.float64) * 3
    return Maps(
        joint=torch.tensor([[-0.2, 0.1]], dtype=torch.float64),
        joint_height=torch.tensor([0.4], dtype=torch.float64),
        normal=torch.stack([angle.cos(), angle.sin()], dim=-1),
        offset=0.2 * torch.rand(1, 5, generator=rng, dtype=torch.float64),
        line_height=torch.tensor([[0.9, 0.0, 0.0, 0.6, 0.3]], dtype=torch.float64),
    )


@pytest.fixture
def rows():
    """Two phases as `csv.DictReader` reads them; the first knows one term, the second both."""
    return [
        {"step": str(50 * i), "phase": "one" if i < 7 else "two", "loss": str(1.0 / i)}
        | {"rep": "0.5", "ref": "" if i < 7 else "0.25", "learning_rate": "1e-3", "seconds": "1"}
        for i in range(1, 20)
    ]


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """The figure a function would save."""

    def draw(function, *args, **options):
        figures = []

        def keep(figure, path):
            figures.append(figure)
            return path

        monkeypatch.setattr(style, "save", keep)
        assert function(*args, path=tmp_path / "a.png", **options) == tmp_path / "a.png"
        return figures[0]

    return draw


def move(prediction, frame, view, joint, by):
    prediction.keypoints_refined[frame, view, H36M17.index(joint)] += by


def without(prediction, *names):
    """The same without some of the truth."""
    return replace(prediction, recording=replace(prediction.recording, **dict.fromkeys(names)))


def seen(recording, frame, view, n):
    """Names of n joints that were observed."""
    return [H36M17[j] for j in np.flatnonzero(recording.confidence[frame, view])[:n]]


def with_gid(axes, gid):
    return [artist for artist in axes.collections if artist.get_gid() == gid]


def settings():
    """All of matplotlib's; to ask for the backend would choose one."""
    return {key: mpl.rcParams[key] for key in mpl.rcParams if key != "backend"}


def picture(name, path, prediction, maps, rows):
    draw = {
        "refinement": lambda: draw_refinement(prediction, 1, "R", path),
        "poses": lambda: draw_pose(prediction, 1, 2, "P", path),
        "motion": lambda: draw_motion(prediction, 1, 2, "M", path, ("beside", prediction)),
        "fusion": lambda: draw_fusion(maps, FusionConfig(), list("abcde"), "F", path),
        "losses": lambda: draw_losses(rows, path),
        "joint_errors": lambda: draw_joint_errors(dict.fromkeys(H36M17, 30.0), path),
    }
    return draw[name]()


@pytest.mark.parametrize(
    "name", ["refinement", "poses", "motion", "fusion", "losses", "joint_errors"]
)
def test_writes_a_png_that_is_not_blank_and_changes_no_setting(
    name, tmp_path, monkeypatch, prediction, maps, rows
):
    monkeypatch.setattr(style, "DPI", 40)
    before = settings()
    path = picture(name, tmp_path / "new" / "a.png", prediction, maps, rows)
    assert settings() == before
    image = imread(path, format="png")
    assert (image[0] == 1.0).all()  # white at the edge
    assert len(np.unique(image.reshape(-1, 4), axis=0)) > 20


def test_the_same_picture_has_the_same_bytes(tmp_path, rows):
    first = draw_losses(rows, tmp_path / "a.png").read_bytes()
    assert draw_losses(rows, tmp_path / "b.png").read_bytes() == first


def test_a_failed_save_leaves_the_old_picture_and_nothing_else(tmp_path, monkeypatch, rows):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def fail(_figure, file, **_options):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        draw_losses(rows, path)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


def test_an_arrow_for_each_moved_joint_from_detected_to_refined(drawn, recording, prediction):
    planted = [(view, joint) for view in (0, 2) for joint in seen(recording, 1, view, 4)]
    for view, joint in planted:
        move(prediction, 1, view, joint, (30.0, -70.0))
    move(prediction, 1, 1, seen(recording, 1, 1, 1)[0], 1e-3)  # rounding
    move(prediction, 2, 1, seen(recording, 2, 1, 1)[0], 50.0)  # another frame
    figure = drawn(draw_refinement, prediction, 1, "")
    for view, axes in enumerate(figure.axes):
        arrows = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
        expected = [H36M17.index(joint) for v, joint in planted if v == view]
        assert len(arrows) == len(expected)
        (rings,) = with_gid(axes, "refined")
        np.testing.assert_array_equal(
            rings.get_offsets(), prediction.keypoints_refined[1, view, expected]
        )
        for arrow, joint in zip(arrows, expected, strict=True):
            start, end = arrow._posA_posB
            np.testing.assert_array_equal(start, recording.keypoints[1, view, joint])
            np.testing.assert_array_equal(end, prediction.keypoints_refined[1, view, joint])


def test_a_joint_placed_where_none_was_seen_gets_a_ring_and_no_arrow(drawn, recording, prediction):
    view = 1
    joint = int(np.flatnonzero(recording.confidence[3, view] == 0)[0])
    prediction.keypoints_refined[3, view, joint] = recording.keypoints_true[3, view, joint]
    axes = drawn(draw_refinement, prediction, 3, "").axes[view]
    assert not axes.patches
    assert len(with_gid(axes, "refined")[0].get_offsets()) == 1


def test_unobserved_joints_are_not_drawn_whatever_stands_there(drawn, recording, prediction):
    """Only NaN is forbidden to be confident; a detector may leave any number at confidence 0."""
    recording.keypoints[1][recording.confidence[1] == 0] = 1e6
    prediction = replace(prediction, keypoints_refined=recording.keypoints.copy())
    figure = drawn(draw_refinement, prediction, 1, "")
    observed = recording.confidence[1] > 0
    for view, axes in enumerate(figure.axes):
        assert len(with_gid(axes, "joints")[0].get_offsets()) == observed[view].sum()
        whole = sum(observed[view][list(pair)].all() for pair in bones(H36M17))
        assert len(with_gid(axes, "bones")[0].get_segments()) == whole
        assert not with_gid(axes, "refined")[0].get_offsets().size
        assert max(axes.get_xlim()) < 1e4


def test_opacity_falls_with_confidence(drawn, recording, prediction):
    axes = drawn(draw_refinement, prediction, 1, "").axes[0]
    confidence = recording.confidence[1, 0]
    alpha = with_gid(axes, "joints")[0].get_facecolors()[:, 3]
    np.testing.assert_array_equal(alpha.argsort(), confidence[confidence > 0].argsort())
    assert alpha.min() > 0.1


def test_y_grows_downwards_and_both_axes_have_one_scale(drawn, prediction):
    for axes in drawn(draw_refinement, prediction, 1, "").axes:
        bottom, top = axes.get_ylim()
        assert bottom > top
        assert axes.get_aspect() == 1.0


@pytest.mark.parametrize(("n_views", "joints"), [(1, "h36m17"), (5, "h36m16"), (8, "limbs14")])
def test_any_rig_and_skeleton_without_truth_and_with_a_missing_camera(
    n_views, joints, drawn, recording, prediction
):
    recording = recording.on_skeleton(SKELETONS[joints])
    columns = [H36M17.index(joint) for joint in SKELETONS[joints]]
    which = np.arange(n_views) % 3
    recording = Recording(
        recording.keypoints[:, which],
        recording.confidence[:, which],
        recording.joints,
        tuple(f"camera {v} with quite a long name" for v in range(n_views)),
        fps=30.0,
    )
    recording.confidence[2, -1] = 0.0
    prediction = Prediction(
        recording,
        prediction.pose[:, which][:, :, columns],
        prediction.rotation[:, which],
        recording.keypoints.copy(),
    )
    prediction.pose[2, -1] = np.nan
    prediction.keypoints_refined[2, -1] = np.nan
    figure = drawn(draw_refinement, prediction, 2, "")
    figure.savefig(io.BytesIO(), dpi=20)
    assert len(figure.axes) == n_views
    assert [bool(axes.texts) for axes in figure.axes] == [False] * (n_views - 1) + [True]
    assert not any(with_gid(axes, "truth")[0].get_segments() for axes in figure.axes)
    drawn(draw_pose, prediction, 2, n_views - 1, "").savefig(io.BytesIO(), dpi=20)
    assert "most_repaired" not in notable_frames(prediction)


def test_a_pose_in_another_unit_and_place_covers_the_truth(drawn, recording, prediction):
    exact = 0.07 * recording.pose3d + np.float32(3.0)
    figure = drawn(draw_pose, replace(prediction, pose=exact), 1, 2, "")
    root = H36M17.index(ROOT)
    truth = recording.pose3d[1, 2] - recording.pose3d[1, 2, root]
    for axes, (right, up) in zip(figure.axes[1:], [(0, 1), (2, 1), (0, 2)], strict=True):
        points = with_gid(axes, "joints")[0].get_offsets()
        np.testing.assert_allclose(points, truth[:, [right, up]], atol=1e-5)
        assert "(m)" in axes.get_xlabel()
        assert np.ptp(axes.get_xlim()) == pytest.approx(np.ptp(figure.axes[1].get_xlim()))


def test_no_side_shows_the_pose_in_a_mirror():
    for side in SIDES:
        right, down = np.eye(3)[side.plane[0]], -side.up * np.eye(3)[side.plane[1]]
        np.testing.assert_array_equal(np.cross(right, down), side.away)


def test_parts_add_up_to_the_sum_and_those_that_do_not_count_are_left_out(drawn, maps):
    config = FusionConfig()
    figure = drawn(draw_fusion, maps, config, list("abcde"), "")
    *parts, total = [axes.images[0].get_array() for axes in figure.axes]
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["detected", *"ade", "sum"]
    np.testing.assert_allclose(sum(parts), total, atol=1e-12)
    for part, height in zip(parts, [0.4, 0.9, 0.6, 0.3], strict=True):
        assert part.max() == pytest.approx(height, rel=0.01)
    peak = next(line for line in figure.axes[-1].lines if line.get_label() == "peak")
    np.testing.assert_allclose(peak.get_xydata()[0], exact_peaks(maps, config)[0])
    row, column = np.unravel_index(total.argmax(), total.shape)
    found = (np.array([column, row]) + 0.5) / total.shape[0] * 2 * config.extent - config.extent
    np.testing.assert_allclose(peak.get_xydata()[0], found, atol=0.01)


def test_a_joint_that_was_not_seen_has_no_map_of_its_own(drawn, maps):
    maps = maps._replace(joint_height=torch.zeros(1, dtype=torch.float64))
    figure = drawn(draw_fusion, maps, FusionConfig(), list("abcde"), "", truth=np.zeros(2))
    assert [axes.get_title(loc="left") for axes in figure.axes] == [*"ade", "sum"]
    assert [line.get_label() for line in figure.axes[-1].lines] == ["truth", "peak"]


def test_the_fusion_of_several_joints_is_refused(maps, tmp_path):
    two = Maps(*(torch.cat([part, part]) for part in tuple(maps)))
    with pytest.raises(ValueError, match="maps of 2"):
        draw_fusion(two, FusionConfig(), list("abcde"), "", tmp_path / "a.png")


def test_losses_show_each_value_and_where_the_phases_switch(drawn, rows):
    (axes,) = drawn(draw_losses, rows).axes
    curves = {(line.get_gid(), len(line.get_xdata())) for line in axes.lines if line.get_gid()}
    assert curves == {("loss", 6), ("loss", 13), ("rep", 6), ("rep", 13), ("ref", 0), ("ref", 13)}
    (switch,) = [line for line in axes.lines if line.get_gid() is None]
    assert switch.get_xdata()[0] == 350
    assert [text.get_text() for text in axes.texts] == ["one", "two"]


def test_many_losses_are_smoothed_and_few_are_not(drawn, rows):
    rng = np.random.default_rng(0)
    noisy = [rows[0] | {"step": i, "loss": v} for i, v in enumerate(rng.uniform(1, 2, 500))]
    (axes,) = drawn(draw_losses, noisy).axes
    raw, smooth = (line.get_ydata() for line in axes.lines[:2])
    np.testing.assert_array_equal(raw, [row["loss"] for row in noisy])
    assert smooth.std() < 0.4 * raw.std()
    assert smooth.mean() == pytest.approx(raw.mean(), rel=0.01)


def test_losses_need_rows(tmp_path):
    with pytest.raises(ValueError, match=r"a\.png"):
        draw_losses([], tmp_path / "a.png")


def test_joints_go_from_head_to_feet_and_keep_their_errors(drawn):
    errors = {name: float(i) for i, name in enumerate(H36M17)} | {"tail": 5.0, "nose": np.nan}
    flat = {name: 2 * error for name, error in errors.items()}
    (axes,) = drawn(draw_joint_errors, errors, baselines={"flat": flat}).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[:5] == ["head", "nose", "thorax", "left shoulder", "right shoulder"]
    assert names[-2:] == ["right ankle", "tail"]
    widths = dict(zip(names, [bar.get_width() for bar in axes.patches], strict=True))
    assert widths["left knee"] == errors["l_knee"]
    assert np.isnan(widths["nose"])
    ticks = axes.collections[0].get_offsets()
    assert ticks[names.index("left knee"), 0] == flat["l_knee"]


def test_most_repaired_is_the_largest_gain_for_a_person_of_that_size(recording, prediction):
    truth = recording.keypoints_true
    small, large = (2, 0), (3, 2)  # seen at 300 and at 2000 pixels a metre
    for (frame, view), share in ((small, 0.4), (large, 0.1)):
        joint = seen(recording, frame, view, 1)[0]
        j = H36M17.index(joint)
        recording.keypoints[frame, view, j] += share * np.ptp(truth[frame, view])
        prediction.keypoints_refined[frame, view, j] = truth[frame, view, j]
    move(prediction, 4, 0, seen(recording, 4, 0, 1)[0], 400.0)  # far, but wrong
    hopeless, other = seen(recording, 1, 0, 2)
    recording.keypoints[1, 0, H36M17.index(hopeless)] += 900.0
    move(prediction, 1, 0, hopeless, 900.0)
    move(prediction, 1, 0, other, 1.0)
    found = notable_frames(prediction)["most_repaired"]
    assert found[:2] == small
    before = np.linalg.norm(recording.keypoints - truth, axis=-1)[small]
    assert f"{np.nanmean(before):.0f} → " in found.title
    assert "(left, frame 2)" in found.title


def test_most_repaired_without_truth_is_the_largest_movement(recording, prediction):
    prediction = without(prediction, "keypoints_true")
    for frame, view, by in ((1, 2, 200.0), (4, 0, 120.0), (3, 0, 40.0)):
        move(prediction, frame, view, seen(recording, frame, view, 1)[0], by)
    assert notable_frames(prediction)["most_repaired"][:2] == (4, 0)


def test_worst_by_shape_not_by_size_or_turn(prediction):
    prediction.pose[0, 1] *= 20.0
    prediction.pose[4, 2] = prediction.pose[4, 2] @ np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    prediction.pose[3, 0, H36M17.index("l_wrist")] += 0.5
    prediction.pose[2, 2] = np.nan
    found = notable_frames(prediction)
    assert found["worst"][:2] == (3, 0)
    assert found["worst"].title.startswith("Worst of 14 views: PA-MPJPE")


def test_half_of_the_views_are_better_than_the_median(prediction):
    wrong = np.random.default_rng(2).permutation(15).reshape(5, 3)
    prediction.pose[:, :, H36M17.index("l_wrist"), 0] += 0.1 + 0.1 * wrong
    found = notable_frames(prediction)["median"]
    assert wrong[found[:2]] == 7


def test_worst_without_pose_truth_is_the_largest_2d_error_left(recording, prediction):
    prediction = without(prediction, "pose3d")
    move(prediction, 2, 2, seen(recording, 2, 2, 1)[0], 500.0)
    move(prediction, 1, 0, seen(recording, 1, 0, 1)[0], 400.0)  # less, on a smaller person
    assert notable_frames(prediction)["worst"][:2] == (1, 0)


def test_worst_without_any_truth_is_where_the_pose_does_not_fit(recording, prediction):
    prediction = without(prediction, "pose3d", "keypoints_true")
    prediction.pose[0, 1] = 5.0 * prediction.pose[0, 1] + 7.0  # size and place cost nothing
    prediction.pose[3, 2, :, 2] += 1.0  # nor does depth
    prediction.pose[4, 1, H36M17.index("l_ankle"), 1] += 1.0
    recording.confidence[4, 1, H36M17.index("l_ankle")] = 1.0
    ankle = (4, 1, H36M17.index("l_ankle"))
    recording.keypoints[ankle] = prediction.keypoints_refined[ankle] = 500.0
    assert notable_frames(prediction)["worst"][:2] == (4, 1)


def test_nothing_seen_is_nothing_notable(recording, prediction):
    recording.confidence[:] = 0.0
    names = ("pose", "rotation", "keypoints_refined")
    blank = {name: np.full_like(getattr(prediction, name), np.nan) for name in names}
    empty = replace(prediction, **blank)
    assert notable_frames(empty) == {}
