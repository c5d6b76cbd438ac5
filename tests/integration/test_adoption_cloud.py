"""A whole cloud from before Juju, as `microcloud init` makes it, gets the charm.

Nothing of it changes and what runs goes on; it grows, and a member of it leaves, as if the charm
had made it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jubilant
import pytest

from integration import by_hand, ceph, cloud, ovn
from integration.cloud import APP
from integration.faults import Faults
from integration.membership import agree, check_data, launch, remove

pytestmark = pytest.mark.timeout(1200)
PATHS = (
    "/1.0/storage-pools?recursion=1",
    "/1.0/networks/UPLINK",
    "/1.0/networks/default",
    "/1.0/profiles/default",
)


def made_before(juju: jubilant.Juju) -> dict[str, Any]:
    """What the cloud is made of, which Ceph it is, and the container's process."""
    pools, *others = by_hand.told(juju, 0, *PATHS)
    return {
        "inside LXD": [_sorted(e) for e in (*pools, *others) if e["name"] != "remote-fs"],
        "trusted": by_hand.told(juju, 0, "/1.0/certificates?recursion=1")[0],
        "Ceph": by_hand.sh(juju, 0, "microceph.ceph fsid"),
        "process": by_hand.told(juju, 0, "/1.0/instances/c1/state")[0]["pid"],
    }


def _sorted(entity: dict[str, Any]) -> dict[str, Any]:
    """LXD lists users and members in no order."""
    return {key: sorted(v) if isinstance(v, list) else v for key, v in entity.items()}


@pytest.fixture(scope="module")
def adopted(juju: jubilant.Juju, charm: Path, config, faults: Faults) -> jubilant.Juju:
    """Three machines that were a cloud with a container with data, and the charm on them."""
    juju.model_config({"update-status-hook-interval": "10s"})
    by_hand.machines(juju, 3)
    first, *_ = by_hand.microcloud(juju, 3)
    juju.scp(faults.image(), "0:/root/mini.tar.xz")
    by_hand.sh(
        juju,
        0,
        f"lxc image import /root/mini.tar.xz --alias {ovn.IMAGE};"
        f"lxc launch {ovn.IMAGE} c1 --target {first} --quiet;"
        "lxc exec -T -n c1 -- sh -c 'echo data of c1 >/root/precious; sync'",
    )
    before = made_before(juju)
    juju.deploy(
        charm, APP, num_units=3, config={**config, **ovn.UPLINK, **ceph.WITH_CEPH}, to=list("012")
    )
    cloud.wait_active(juju, 3)
    ceph.wait_pools(juju, cloud.units(juju)[0])
    assert made_before(juju) == before
    return juju


def test_it_is_one_cloud_of_three_units(adopted: jubilant.Juju):
    agree(adopted)
    said = [unit.workload_status.message for unit in adopted.status().apps[APP].units.values()]
    assert sorted(said) == ["3 members"] * 3
    check_data(adopted, cloud.units(adopted)[0], "c1")


def test_it_grows(adopted: jubilant.Juju):
    adopted.add_unit(APP)
    cloud.wait_active(adopted, 4)
    new = cloud.units(adopted)[-1]
    ceph.add_disk(adopted, new)
    agree(adopted)
    launch(adopted, new, "c2", cloud.hostname(adopted, new))
    check_data(adopted, new, "c1", "c2")


def test_a_member_from_before_leaves(adopted: jubilant.Juju):
    adopted.config(APP, {"on-removal": "move"})
    remove(adopted, by_hand.unit_on(adopted, 0))
    cloud.wait_active(adopted, 3)
    agree(adopted)
    check_data(adopted, cloud.units(adopted)[0], "c1", "c2")
