"""Predictions against ground truth: errors, protocols and the report."""
