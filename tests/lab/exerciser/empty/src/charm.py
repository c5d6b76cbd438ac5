#!/usr/bin/env python3
"""A charm that observes nothing, to measure what an event costs by itself."""

import ops


class EmptyCharm(ops.CharmBase):
    """No behaviour."""


if __name__ == "__main__":
    ops.main(EmptyCharm)
