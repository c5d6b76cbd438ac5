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

from integration.faults import Faults

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
    name = os.environ.get("LAB", f"it{os.getpid() % 10000}")
    # Tests that run at the same time have a lab each.
    os.environ["LAB"] = name + os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    os.environ["PATH"] = f"{LAB.parent}:{os.environ['PATH']}"
    shape = Path(__file__).parent / "shape.yaml"
    subprocess.run([LAB, "up", "--shape", shape], check=True, timeout=120)
    yield os.environ["LAB"]
    subprocess.run([LAB, "down"], check=True, timeout=120)


@pytest.fixture(scope="session")
def charm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packed charm: CHARM_PATH, or packed here for the lab."""
    if "CHARM_PATH" in os.environ:
        return Path(os.environ["CHARM_PATH"]).resolve()
    if not ON_LAB:
        pytest.exit("pack the charm with charmcraft and name it in CHARM_PATH", 1)
    from lab.pack import pack

    return pack(REPO, tmp_path_factory.mktemp("packed"))


@pytest.fixture(scope="session")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A charm that does nothing, whose unit makes Juju keep a machine."""
    from lab.pack import pack

    return pack(REPO / "tests/lab/exerciser/empty", tmp_path_factory.mktemp("guest"))


@pytest.fixture(scope="module")
def juju(request: pytest.FixtureRequest) -> Iterator[jubilant.Juju]:
    """A model that is destroyed after the module."""
    yield from a_model(request)


def a_model(request: pytest.FixtureRequest) -> Iterator[jubilant.Juju]:
    """A model of its own; its log is kept in build/ if a test failed."""
    before = request.session.testsfailed
    with jubilant.temp_model() as model:
        model.wait_timeout = 600
        yield model
        if request.session.testsfailed > before:
            log = REPO / f"build/{request.node.name.replace('/', '_')}.log"
            log.parent.mkdir(exist_ok=True)
            log.write_text(model.debug_log())


@pytest.fixture(scope="module")
def faults(juju: jubilant.Juju) -> Faults:
    """The lab's fault controls."""
    if not ON_LAB:
        pytest.skip("only the lab can do this to a machine")
    return Faults(LAB, juju)


@pytest.fixture(scope="session")
def config() -> dict[str, bool | int | float | str]:
    """What every deployment needs here, and LXD alone: tests of Ceph and OVN ask for them.

    The lab's kernel has no ZFS.
    """
    alone: dict[str, bool | int | float | str] = {"microceph-channel": "", "microovn-channel": ""}
    return {**alone, "local-driver": "btrfs"} if ON_LAB else {}
