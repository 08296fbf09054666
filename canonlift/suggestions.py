"""Errors about names that do not exist, with the one that was probably meant."""

import difflib
from collections.abc import Iterable


def unknown(what: str, name: object, known: Iterable[str]) -> ValueError:
    """An error to raise: `what` must be one of `known`, but is `name`."""
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return ValueError(f"{what} must be one of {', '.join(known)}, got {name!r}{hint}")
