"""The error about an unknown name, which suggests the most similar known one."""

import difflib
from collections.abc import Iterable


def unknown(what: str, name: object, known: Iterable[str]) -> ValueError:
    """The error, for the caller to raise, that `what` must be one of `known` and not `name`."""
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return ValueError(f"{what} must be one of {', '.join(known)}, got {name!r}{hint}")
