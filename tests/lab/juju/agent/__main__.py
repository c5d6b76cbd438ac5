"""The unit agent's process: `python -m lab.juju.agent --unit app/0 ...`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from lab.juju.agent.loop import Agent, Gone, Options


def options(argv: list[str]) -> Options:
    """Read the command line the controller made."""
    values = dict(zip(argv[::2], argv[1::2], strict=True))
    host, _, port = values["--controller"].rpartition(":")
    return Options(
        unit=values["--unit"],
        model=values["--model"],
        controller=(host, int(port)),
        tool=Path(values["--tool"]),
        trace=Path(values["--trace"]),
        data_dir=Path(values.get("--data-dir", "/var/lib/juju")),
        interfaces=values.get("--interfaces", ""),
    )


def main() -> None:
    """Run until the unit is dead, then wait to be removed (the supervisor would restart us)."""
    password = os.environ.pop("AGENT_PASSWORD", "")
    try:
        Agent(options(sys.argv[1:]), password).run()
    except Gone as err:
        print(f"unit agent ends: {err}", file=sys.stderr)
    while True:
        signal.pause()


main()
