"""Fixtures of the tests that need a whole lab: it is brought up once, under a name of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jubilant
import pytest

from lab.exerciser.story import Story
from lab.pack import pack

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parent
CHARMS = ("exerciser", "visitor", "empty")
# Tests that run at the same time have a lab each.
LAB_NAME = os.environ.get("EXERCISER_LAB", "exer") + os.environ.get("PYTEST_XDIST_WORKER", "")
UP_TIMEOUT = 120  # seconds
SHAPE = """\
networks:
  mgmt: {cidr: 10.71.0.0/24}
  uplink: {cidr: 10.72.0.0/24, addresses: false}
  data: {cidr: 10.74.0.0/24}
defaults:
  disks: {}
"""
# Also for the programs that tests start with `python -m lab...`.
os.environ["PYTHONPATH"] = str(PACKAGE.parent)
KEEP = bool(os.environ.get("EXERCISER_KEEP"))  # leave the lab up, to look at what failed


def run_lab(*argv: str, timeout: float = UP_TIMEOUT) -> subprocess.CompletedProcess[str]:
    """Run the `lab` command for the exerciser's lab."""
    environment = {**os.environ, "LAB": LAB_NAME, "PYTHONPATH": str(PACKAGE.parent)}
    return subprocess.run(
        [sys.executable, "-m", "lab", *argv],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment,
    )


@pytest.fixture(scope="session")
def lab_command() -> Callable[..., str]:
    """Return a function that runs a `lab` sub-command and returns what it printed."""

    def call(*argv: str) -> str:
        done = run_lab(*argv)
        assert done.returncode == 0, f"lab {' '.join(argv)}: {done.stdout}{done.stderr}"
        return done.stdout

    return call


@pytest.fixture(scope="session")
def lab_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bring a lab up, put its `juju` first on PATH, and take it down in the end."""
    if os.geteuid() != 0:
        pytest.skip("a lab needs root: it makes namespaces, mounts and cgroups")
    run_lab("down")
    shape = tmp_path_factory.mktemp("lab") / "shape.yaml"
    shape.write_text(SHAPE)
    up = run_lab("up", "--shape", str(shape))
    if up.returncode != 0:
        pytest.fail(f"lab up: {up.stdout}{up.stderr}")
    before = dict(os.environ)
    os.environ["LAB"] = LAB_NAME
    os.environ["PATH"] = f"{PACKAGE / 'bin'}{os.pathsep}{before.get('PATH', '')}"
    yield LAB_NAME
    os.environ.update({"PATH": before.get("PATH", ""), "LAB": before.get("LAB", "")})
    if not KEEP:
        down = run_lab("down")
        assert down.returncode == 0, f"lab down: {down.stdout}{down.stderr}"


@pytest.fixture(scope="session")
def charms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pack the exercised charms and return their paths by name."""
    out = tmp_path_factory.mktemp("charms")
    return {name: pack(PACKAGE / "exerciser" / name, out) for name in CHARMS}


@pytest.fixture(scope="module")
def story(lab_up: str, request: pytest.FixtureRequest) -> Iterator[Story]:
    """Add a model for one module of tests; destroy it after the last."""
    name = request.module.__name__.rpartition("test_exerciser_")[2]
    juju = jubilant.Juju(wait_timeout=120)
    juju.add_model(name)
    base = Path(os.environ.get("LAB_ROOT", "/srv/charm-lab")) / lab_up / "exerciser" / name
    base.mkdir(parents=True, exist_ok=True)
    yield Story(juju, base)
    if not KEEP:
        juju.destroy_model(name, destroy_storage=True, force=True)


@pytest.fixture(scope="module")
def deploy(story: Story, charms: dict[str, Path]) -> Callable[..., None]:
    """Return a function that deploys an exercised charm with its record in the shared place."""

    def call(charm: str, app: str | None = None, units: int = 1, **options: object) -> None:
        config = {"log-dir": str(story.log_dir), **options.pop("config", {})}  # type: ignore[dict-item]
        story.juju.deploy(charms[charm], app, num_units=units, config=config, **options)  # type: ignore[arg-type]

    return call
