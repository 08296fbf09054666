"""From a trained model and a recording to predictions."""
