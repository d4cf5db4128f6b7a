"""Watch the layer calls of one forward pass, for summaries and feature maps.

A context variable rather than hooks on the layers: nothing has to be put on and taken off again, and two threads
that run the same module do not see each other's trace.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

if TYPE_CHECKING:
    from .module import Module

__all__ = ["Observer", "active_observer", "observe"]


class Observer(Protocol):
    """What a trace needs: told before and after each layer's forward."""

    def enter(self, module: Module, x: NDArray[Any]) -> None:
        """Tell that ``module`` is about to be applied to ``x``."""

    def leave(self, module: Module, x: NDArray[Any], y: NDArray[Any]) -> None:
        """Tell that ``module`` applied to ``x`` gave ``y``."""


_OBSERVER: ContextVar[Observer | None] = ContextVar("fastconv_nn_observer", default=None)


def active_observer() -> Observer | None:
    """Return the observer of the trace in progress, if there is one."""
    return _OBSERVER.get()


@contextmanager
def observe(observer: Observer) -> Iterator[None]:
    """Report every layer call inside the ``with`` block to ``observer``."""
    token = _OBSERVER.set(observer)
    try:
        yield
    finally:
        _OBSERVER.reset(token)
