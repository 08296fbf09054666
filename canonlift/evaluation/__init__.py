"""Predictions against ground truth: scores, protocols and the report."""
