"""Running host commands: always with a deadline, and with the command's own words on failure."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from lab.errors import LabError


def run(
    argv: Sequence[str], *, timeout: float = 30, check: bool = True, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a host command and return what it printed.

    Raises:
        LabError: it failed (unless ``check`` is false), is not installed, or took longer than
            ``timeout`` seconds.
    """
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"`{' '.join(argv)}` did not end within {timeout} s") from error
    except FileNotFoundError as error:
        raise LabError(f"`{argv[0]}` is not installed on this host") from error
    if check and done.returncode != 0:
        words = (done.stderr or done.stdout).strip()
        script = f" (fed with: {stdin.strip()})" if stdin else ""
        raise LabError(f"`{' '.join(argv)}` failed ({done.returncode}): {words}{script}")
    return done
