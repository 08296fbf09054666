"""Laws of overlapping windows."""

import pytest
import torch
from torch.testing import assert_close

from canonlift.time_windows import triangle_weights, window_frames, window_starts

SIZES = [(1, 1), (7, 7), (7, 20), (23, 1), (23, 2), (23, 5), (24, 8), (100, 99)]
each_size = pytest.mark.parametrize(("n_frames", "length"), SIZES)


@each_size
def test_every_frame_is_covered_and_none_beyond(n_frames, length):
    frames = window_frames(n_frames, length)
    assert frames.unique().tolist() == list(range(n_frames))


@each_size
@pytest.mark.parametrize("stride", [None, 1, 3])
def test_windows_are_evenly_spaced_and_the_last_one_ends_with_the_last_frame(
    n_frames, length, stride
):
    """A slow loop as the oracle."""
    expected, first = [], 0
    while first + length < n_frames:
        expected.append(first)
        first += stride or max(1, length // 2)
    expected.append(max(0, n_frames - length))
    assert window_starts(n_frames, length, stride).tolist() == expected
    frames = window_frames(n_frames, length, stride)
    assert frames[:, 0].tolist() == expected
    assert frames[-1, -1] == n_frames - 1
    assert (frames.diff(dim=1) == 1).all()


def test_there_is_one_window_where_the_frames_are_too_few_or_just_enough():
    for n_frames in (1, 4, 8):
        assert window_starts(n_frames, 8).tolist() == [0]
        assert window_frames(n_frames, 8).tolist() == [list(range(n_frames))]
    assert window_starts(9, 8).tolist() == [0, 1]


def test_windows_overlap_by_half_unless_a_stride_is_given():
    assert window_starts(20, 8).tolist() == [0, 4, 8, 12]
    assert window_starts(21, 8).tolist() == [0, 4, 8, 12, 13]
    assert window_starts(20, 8, stride=8).tolist() == [0, 8, 12]


@pytest.mark.parametrize("stride", [0, -1])
def test_refuses_a_stride_that_does_not_advance(stride):
    with pytest.raises(ValueError, match=f"stride must be at least 1, got {stride}"):
        window_starts(20, 8, stride)


def test_triangle_weights_grow_by_one_a_frame_from_both_ends():
    like = torch.zeros(1, dtype=torch.float64)
    assert triangle_weights(5, like).tolist() == [1, 2, 3, 2, 1]
    assert triangle_weights(4, like, edge=0.5).tolist() == [0.5, 1.5, 1.5, 0.5]
    assert triangle_weights(1, like).dtype == torch.float64


def test_weighted_by_triangles_half_overlapping_windows_add_up_evenly():
    weight = torch.zeros(40, dtype=torch.float64)
    frames = window_frames(40, 8)
    own = triangle_weights(8, weight, edge=0.5).expand(frames.shape)
    weight.index_put_((frames,), own, accumulate=True)
    assert_close(weight[4:-4], torch.full((32,), 4.0, dtype=torch.float64))
