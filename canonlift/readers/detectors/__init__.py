"""What detectors write: one small reader per format, and everything that they share."""
