"""Rotations, alignment, epipolar lines: functions of bare tensors, independent of people."""
