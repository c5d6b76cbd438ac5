"""The `juju` command: `python -m lab.juju`."""

from __future__ import annotations

import sys

from lab.juju.cli.main import main

sys.exit(main(sys.argv[1:]))
