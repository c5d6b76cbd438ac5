"""The snaps of the services: installed once, all at the same time, and held.

snapd is asked through its command, since the library for its socket knows no cohorts, and
members of one cloud must run the same revision.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from errors import CharmError

SNAP = "/usr/bin/snap"
MOUNTS = Path("/snap")
KILL_INTERVAL = 0.2  # seconds between two kills of a service that is to stop
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
    hold(channels)


def hold(names: Iterable[str]) -> None:
    """Let snapd not refresh the snaps by itself; raises CharmError."""
    run("refresh", "--hold", *names)


def stop(name: str, kill: Callable[[], None], timeout: float = 120) -> None:
    """Stop a snap's services, killing them until they have stopped.

    Raises:
        CharmError: it failed, or took more than `timeout` seconds.
    """
    words = [SNAP, "stop", name]
    deadline = time.monotonic() + timeout
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        while True:
            kill()
            try:
                said, _ = process.communicate(timeout=KILL_INTERVAL)
                break
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    process.kill()
                    fault = f"snap stop {name} did not end within {timeout:.0f} s"
                    raise CharmError(fault) from None
    if process.returncode != 0:
        raise CharmError(f"snap stop {name} failed: {said.strip()}")


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
