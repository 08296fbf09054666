"""Recordings: how they are read, written, converted and simulated."""
