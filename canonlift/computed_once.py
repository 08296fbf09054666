"""Attributes that are computed when they are first read."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")


class computed_once(Generic[T]):  # noqa: N801 (it is used like a function)
    """`functools.cached_property` without the lock that it has in Python 3.11.

    torch.compile cannot trace a lock.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self.compute, self.name = compute, compute.__name__
        self.__doc__ = compute.__doc__

    @overload
    def __get__(self, owner: None, of: Any = None) -> "computed_once[T]": ...

    @overload
    def __get__(self, owner: object, of: Any = None) -> T: ...

    def __get__(self, owner: Any, of: Any = None) -> Any:
        """Compute it; from now on the value is read instead of this."""
        if owner is None:
            return self
        value = self.compute(owner)
        owner.__dict__[self.name] = value
        return value
