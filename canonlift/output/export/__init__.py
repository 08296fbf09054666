"""Predictions as files that other programs read."""
