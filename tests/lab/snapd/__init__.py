"""A stand-in for snapd: the ``snap`` command inside the machines, and what it can install."""
