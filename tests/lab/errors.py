"""Errors of the lab: every one carries a sentence that its user can act on."""


class LabError(Exception):
    """Something the user of the lab must know or change; ``str()`` is the whole message."""
