"""`microovn.ovn-nbctl` and its like: `python -m lab.microovn.tools TOOL ARGS...`."""

from __future__ import annotations

import os
import sys

from lab.microovn import ovs, paths

CENTRAL = ("ovn-nbctl", "ovn-sbctl")
SWITCH = ("ovs-vsctl", "ovs-appctl", "ovs-ofctl", "ovs-dpctl")
NAMES = (*CENTRAL, *SWITCH, "ovn-appctl", "ovn-trace")


def main() -> None:
    """Become the tool that the command line names, with the snap's certificates."""
    tool, args = sys.argv[1], sys.argv[2:]
    if tool in CENTRAL:
        argv = ovs.ctl_argv(tool, args)
    elif tool == "ovs-vsctl":
        argv = [tool, f"--db=unix:{paths.OVS_SOCKET}", *args]
    elif tool == "ovn-trace":
        connect = ovs.ctl_argv("ovn-sbctl", [])[1]
        argv = [tool, connect, *paths.ssl_options("client"), *args]
    else:
        argv = [tool, *args]
    os.execvpe(argv[0], argv, ovs.variables())


if __name__ == "__main__":
    main()
