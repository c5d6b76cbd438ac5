"""What was asked while looking holds until something is done.

Between two looks a step may have changed only what this unit publishes. Then no daemon need
be asked again. Whoever acts, or waits for something, is always given a fresh answer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

Answer = TypeVar("Answer")
_known: ContextVar[dict[Hashable, Any] | None] = ContextVar("known", default=None)


@contextlib.contextmanager
def recalling(known: dict[Hashable, Any]) -> Iterator[None]:
    """Within this, `recall` takes answers from `known`, and adds new ones."""
    before = _known.set(known)
    try:
        yield
    finally:
        _known.reset(before)


def recall(question: Hashable, ask: Callable[[], Answer]) -> Answer:
    """The answer to a question: the one that is known, or a new one."""
    known = _known.get()
    if known is None:
        return ask()
    if question not in known:
        known[question] = ask()
    return known[question]
