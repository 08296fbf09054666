"""Temporary."""

from canonlift.solve.closed_form import consensus, none, true  # noqa: F401
