"""A sample of the fault matrix (`make faults` is the whole): hooks die, the cloud is the same."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.queues import Queue
from pathlib import Path

import pytest

from integration import faults_matrix
from integration.faults_plan import Counts, Plans

pytestmark = pytest.mark.timeout(900)
# The points are those of hooks as they usually are; some hooks make fewer calls.
HOOKS = [Counts(f"microcloud/{unit}", 14, 6) for unit in range(3) for _ in range(14)]
HEAVY = [Counts("microcloud/0", 30, 150), Counts("microcloud/1", 20, 80)]


def test_hooks_that_are_killed_at_any_call_lead_to_the_same_cloud(charm: Path, lab: str) -> None:
    if not lab:
        pytest.skip("only the lab can kill a hook at a call")
    seed = int(os.environ.get("SEED") or random.randrange(10**6))
    plan = Plans([*HOOKS, *HEAVY], seed).many(0)
    names: Queue[str] = multiprocessing.Queue()
    for letter in "ab":
        names.put(f"{lab[:6]}{letter}")
    faults_matrix.FOLDER.mkdir(parents=True, exist_ok=True)
    shutil.copy2(charm, faults_matrix.CHARM)
    reference = faults_matrix.FOLDER / f"undisturbed-{lab}.json"
    with ProcessPoolExecutor(2, initializer=faults_matrix.begin, initargs=(names,)) as pool:
        whole = pool.submit(faults_matrix.undisturbed, reference)
        disturbed = pool.submit(faults_matrix.disturbed, 0, plan, reference)
        whole.result()
        found = disturbed.result()
        for _ in range(2):
            pool.submit(faults_matrix.down)
    reference.unlink()
    assert not found["wrong"], f"SEED={seed}: {found}"
    assert len(found["kills"]) >= 20
