"""Errors that carry the sentence shown to the user."""

from __future__ import annotations


class Refused(Exception):
    """A request that cannot be done; `code` tells hook tools and the CLI which kind it is."""

    def __init__(self, message: str, code: str = ""):
        super().__init__(message)
        self.code = code


class NotFound(Refused):
    """Something named in a request does not exist."""

    def __init__(self, message: str):
        super().__init__(message, "not found")
