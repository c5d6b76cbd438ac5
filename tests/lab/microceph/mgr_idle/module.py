"""A manager module that does nothing, for those that Ceph insists on and the lab does without."""

from mgr_module import MgrModule  # pyright: ignore[reportMissingImports]


class Module(MgrModule):
    """No commands, no thread: a part of the memory of the module whose place it takes."""
