"""The charm's errors: each one carries the sentence that the user will read."""

from __future__ import annotations

from collections.abc import Iterable


class CharmError(Exception):
    """Something went wrong; `str()` of it is a sentence for the user."""


class Findings(CharmError):
    """One or more things that a person has to put right before this unit may go on."""

    def __init__(self, sentences: Iterable[str]) -> None:
        self.sentences = tuple(sentences)
        super().__init__("; ".join(self.sentences))


class DaemonError(CharmError):
    """A daemon refused or failed a request.

    `code` is the HTTP status that it answered with, 0 if it gave none.
    """

    def __init__(self, sentence: str, code: int = 0) -> None:
        self.code = code
        super().__init__(sentence)


class Unreachable(DaemonError):
    """A daemon of this machine did not answer in time, or not at all."""


class JoinFailed(CharmError):
    """A join did not come about; what it left on this machine has been cleaned."""
