"""The controller's process: `python -m lab.juju.controller LAB VERSION`."""

from __future__ import annotations

import asyncio
import sys

from lab.juju.controller import root_of, socket_of
from lab.juju.controller.core import Controller
from lab.juju.controller.server import serve
from lab.juju.provider import choose
from lab.layout import Lab


def main() -> None:
    lab = Lab(sys.argv[1])
    controller = Controller(root_of(lab), choose(lab), sys.argv[2])
    asyncio.run(serve(controller, socket_of(lab)))


main()
