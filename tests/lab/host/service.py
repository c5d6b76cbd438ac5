"""Client of a machine's service supervisor, and a command for use inside the machine.

``python3 -m lab.host.service list|start|stop|restart|enable|disable|remove NAME`` speaks to the
supervisor of the machine it runs in. Programs use :func:`request`, :func:`add` and the rest; the
socket is ``/run/lab/init.sock`` inside, and ``<machine's directory>/run/init.sock`` on the host.
"""

from __future__ import annotations

import json
import socket
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.host.supervisor import Service

INSIDE = Path("/run/lab/init.sock")


def request(
    message: dict[str, Any], *, path: Path = INSIDE, timeout: float = 30
) -> dict[str, Any]:
    """Send one request to a supervisor and return its answer.

    Raises:
        LabError: no supervisor answers within ``timeout`` seconds, or it refuses.
    """
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            connection.connect(str(path))
            connection.sendall(json.dumps(message).encode() + b"\n")
            with connection.makefile("r", encoding="utf-8") as stream:
                answer: dict[str, Any] = json.loads(stream.readline() or "{}")
    except OSError as error:
        raise LabError(f"the supervisor at {path} does not answer: {error}") from error
    if not answer.get("ok"):
        raise LabError(f"{message.get('op')}: {answer.get('error', 'the supervisor hung up')}")
    return answer


def add(service: Service, *, start: bool = True, path: Path = INSIDE) -> None:
    """Add or replace a service, and start (or restart) it."""
    request({"op": "add", "service": asdict(service), "start": start}, path=path)


def act(
    operation: str, name: str, *, path: Path = INSIDE, timeout: float = 30, signal: str = ""
) -> None:
    """Do ``start``, ``stop``, ``restart``, ``enable``, ``disable`` or ``remove`` to a service.

    ``stop``, ``restart`` and ``remove`` return when the old process is gone; ``signal`` is used
    instead of the service's own stop signal.
    """
    message = {"op": operation, "name": name, "signal": signal}
    request(message, path=path, timeout=timeout)


def states(*, path: Path = INSIDE) -> dict[str, dict[str, Any]]:
    """Return every service's state, pid, exit status, number of starts and whether enabled."""
    services: dict[str, dict[str, Any]] = request({"op": "list"}, path=path)["services"]
    return services


def main(argv: list[str]) -> int:
    """Run the command; return its exit status."""
    try:
        if argv == ["list"]:
            for name, report in sorted(states().items()):
                print(f"{name:32} {report['state']:12} pid {report['pid']}")
        elif len(argv) == 2 and argv[0] in (
            "start",
            "stop",
            "restart",
            "enable",
            "disable",
            "remove",
        ):
            act(argv[0], argv[1])
        else:
            print(__doc__, file=sys.stderr)
            return 2
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
