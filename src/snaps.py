"""The snaps of the services: installed once, all at the same time, and held.

snapd is asked through its command, since the library for its socket knows no cohorts, and
members of one cloud must run the same revision.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from errors import CharmError

SNAP = "/usr/bin/snap"
MOUNTS = Path("/snap")
INSTALL_TIMEOUT = 1200  # seconds; a slow mirror is no failure


def is_installed(name: str) -> bool:
    """Whether the snap is there and active; a look at the file system, as hooks do it often."""
    return (MOUNTS / name / "current").exists()


def install(channels: Mapping[str, str]) -> None:
    """Install the snaps that are missing, in one cohort, and hold their refreshes.

    A snap that is there already (many images bring LXD along) moves to the channel.

    Raises:
        CharmError: snapd failed, or took more than INSTALL_TIMEOUT seconds.
    """
    running = {
        name: subprocess.Popen(
            [SNAP, verb, name, f"--channel={channel}", "--cohort=+"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name, channel in channels.items()
        for verb in ("refresh" if is_installed(name) else "install",)
    }
    faults: list[str] = []
    for name, process in running.items():
        try:
            said, _ = process.communicate(timeout=INSTALL_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            said = f"not finished after {INSTALL_TIMEOUT} s"
        if process.returncode != 0:
            faults.append(f"cannot install snap {name} from {channels[name]}: {said.strip()}")
    if faults:
        raise CharmError("; ".join(faults))
    run("refresh", "--hold", *channels)


def run(*words: str, timeout: float = 120) -> str:
    """Run one `snap` command and give its output.

    Raises:
        CharmError: it failed, or took more than `timeout` seconds.
    """
    command = " ".join(("snap", *words))
    try:
        done = subprocess.run(
            [SNAP, *words], check=True, capture_output=True, text=True, timeout=timeout
        )
    except subprocess.CalledProcessError as fault:
        raise CharmError(f"{command} failed: {fault.stderr.strip()}") from fault
    except (OSError, subprocess.TimeoutExpired) as fault:
        raise CharmError(f"{command} failed: {fault}") from fault
    return done.stdout
