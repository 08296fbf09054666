"""Monocular 3D human pose from uncalibrated, moving cameras, learned without 3D labels."""
