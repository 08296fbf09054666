"""Rotations, alignment and lines: bare tensors, nothing about people."""
