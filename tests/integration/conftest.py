"""A Juju model for each module, on the lab (JUJU=lab, the default) or a real controller.

The suite is the same for both. What only the lab can do (cut a link, kill a hook) is in the
modules whose tests ask for the fixture `faults`; on a real controller they are skipped.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import jubilant
import pytest

REPO = Path(__file__).parent.parent.parent
LAB = REPO / "tests/lab/bin/lab"
ON_LAB = os.environ.get("JUJU", "lab") == "lab"


@pytest.fixture(scope="session", autouse=True)
def lab() -> Iterator[str]:
    """The lab of this run, under a name of its own; "" with a real controller."""
    if not ON_LAB:
        yield ""
        return
    if os.geteuid() != 0:
        pytest.exit("the lab needs root; with a Juju controller: make integration JUJU=real", 1)
    os.environ["LAB"] = f"it{os.getpid() % 10000}"
    os.environ["PATH"] = f"{LAB.parent}:{os.environ['PATH']}"
    subprocess.run([LAB, "up"], check=True, timeout=120)
    yield os.environ["LAB"]
    subprocess.run([LAB, "down"], check=True, timeout=120)


@pytest.fixture(scope="session")
def charm() -> Path:
    """The packed charm: CHARM_PATH, or packed here for the lab."""
    if "CHARM_PATH" in os.environ:
        return Path(os.environ["CHARM_PATH"]).resolve()
    if not ON_LAB:
        pytest.exit("pack the charm with charmcraft and name it in CHARM_PATH", 1)
    from lab.pack import pack

    return pack(REPO, REPO / "build/microcloud.charm")


@pytest.fixture(scope="module")
def juju(request: pytest.FixtureRequest) -> Iterator[jubilant.Juju]:
    """A model that is destroyed after the module; its log is printed if a test failed."""
    before = request.session.testsfailed
    with jubilant.temp_model() as model:
        model.wait_timeout = 300
        yield model
        if request.session.testsfailed > before:
            print(model.debug_log(limit=300))


@pytest.fixture(scope="session")
def config() -> dict[str, bool | int | float | str]:
    """What every deployment needs here: the lab's kernel has no ZFS."""
    return {"local-driver": "btrfs"} if ON_LAB else {}
