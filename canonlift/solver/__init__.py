"""Many uncalibrated views to poses and cameras, without a network."""
