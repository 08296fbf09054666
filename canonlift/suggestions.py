"""Errors about unknown names, with the most similar known one."""

import difflib
from collections.abc import Iterable


def unknown(what: str, name: object, known: Iterable[str]) -> ValueError:
    """The error that `what` is `name` but must be one of `known`; to be raised by the caller."""
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return ValueError(f"{what} must be one of {', '.join(known)}, got {name!r}{hint}")
