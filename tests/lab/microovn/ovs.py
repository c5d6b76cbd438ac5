"""The programs of OVS and OVN, called with the snap's directories and certificates."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from lab.microcluster.rest import ApiError
from lab.microovn import environment, paths

DEADLINE = 20


def variables() -> dict[str, str]:
    """The environment that points OVS and OVN programs to the snap's directories."""
    return {
        **os.environ,
        "OVS_RUNDIR": str(paths.RUN_SWITCH),
        "OVS_DBDIR": str(paths.SWITCH),
        "OVS_LOGDIR": str(paths.LOGS),
        "OVN_RUNDIR": str(paths.RUN_OVN),
        "OVN_LOGDIR": str(paths.LOGS),
    }


def run(*argv: str, timeout: float = DEADLINE) -> str:
    """Run a program; its output, or ApiError with what it complained about."""
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=variables(),
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise ApiError(f"{' '.join(argv[:4])} did not end within {timeout:g} seconds") from error
    if done.returncode:
        raise ApiError(f"{' '.join(argv[:4])} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def vsctl(*args: str) -> str:
    """ovs-vsctl on the switch's database."""
    return run("ovs-vsctl", f"--timeout={DEADLINE - 5}", f"--db=unix:{paths.OVS_SOCKET}", *args)


def appctl(target: str, *args: str) -> str:
    """ovs-appctl of a daemon, by its control socket or its name."""
    return run("ovs-appctl", f"--timeout={DEADLINE - 5}", "-t", target, *args)


def controller(*args: str) -> str:
    """A command for ovn-controller."""
    pid = (paths.RUN_OVN / "ovn-controller.pid").read_text().strip()
    return appctl(str(paths.RUN_OVN / f"ovn-controller.{pid}.ctl"), *args)


def ctl_argv(tool: str, args: Sequence[str]) -> list[str]:
    """`ovn-nbctl` or `ovn-sbctl` over SSL to all central members."""
    key = "OVN_NB_CONNECT" if tool == "ovn-nbctl" else "OVN_SB_CONNECT"
    connect = environment.load().get(key, "")
    return [tool, f"--db={connect}", *paths.ssl_options("client"), *args]
