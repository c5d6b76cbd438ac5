"""A stand-in for Juju: controller, unit agents, hook tools and the `juju` command.

See `controller` for the state and its rules, `agent` for what runs in a machine, `cli` for the
command, `faults` for what real Juju has not: ways to break things on purpose.
"""
