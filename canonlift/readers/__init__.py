"""From what detectors and data sets wrote to recordings."""
