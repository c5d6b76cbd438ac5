"""What Juju tells beyond what `ops` passes on."""

from __future__ import annotations


def units() -> frozenset[str]:
    """All units of the application that Juju has, those included that it is removing.

    A unit leaves its relations at once when it is to be removed, with its machine running.
    """
    from ops import hookcmds

    return frozenset(hookcmds.goal_state().units)
