"""OVN inside LXD: where its databases are, the networks `UPLINK` and `default`.

The issuer makes the networks once every member has named a fit interface; who joins later
brings its own along (`member_config`). What the charm wrote into `UPLINK` last is kept in the
network itself: a key that is still as written follows the configuration, one that somebody
changed stays and is spoken of.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from cloud import CREATED, MARK, Cloud, Entity, Task
from errors import CharmError, DaemonError, Findings
from record import EMPTY, Record

if TYPE_CHECKING:
    from services.lxd import Lxd
    from services.microovn import Microovn
    from settings import Uplink
    from view import ServiceView

logger = logging.getLogger(__name__)

UPLINK, DEFAULT = "UPLINK", "default"
NB_KEY = "network.ovn.northbound_connection"
NB_PORT, SB_PORT = 6641, 6642
WRITTEN = f"{MARK}.written"
KEYS = (
    "ipv4.gateway",
    "ipv4.ovn.ranges",
    "ipv6.gateway",
    "ipv6.ovn.ranges",
    "dns.nameservers",
    "ovn.ingress_mode",
)
_ABOUT = {"description": "Uplink for OVN networks"}
RESTART_INTERVAL = 3600.0  # seconds between restarts of LXD that are to heal a network
HEAL_TIMEOUT = 60.0  # seconds; for the network to come back after LXD was restarted


class Ovn(Record):
    """OVN as this member sees it; a part of `Cloud`.

    `northbound` are the addresses of the database, one of each central. `stale`: this member's
    `ovn.env` does not say so; `lagging`: its northd was started with other ones. `members` and
    `centrals` are names; `fit` are members that may become a central now. `uplinks` are the
    interfaces of members as far as they have named one; `status` is the network `default`'s
    on this member, `parent` its interface in `UPLINK`. `lost` are servers of the databases on
    machines that are no members any more, `astray` says that this member's controller has
    other addresses than the databases', `strays` are chassis of machines that are no members
    any more: all three are looked for in periodic hooks only.
    """

    driver: Microovn
    members: frozenset[str]
    centrals: tuple[str, ...]
    northbound: tuple[str, ...]
    stale: bool = False
    lagging: bool = False
    fit: tuple[str, ...] = ()
    uplinks: Mapping[str, str] = EMPTY
    status: str = ""
    parent: str = ""
    lost: tuple[tuple[str, str], ...] = ()
    astray: bool = False
    strays: tuple[str, ...] = ()


def look(driver: Microovn, service: ServiceView, name: str, *, deep: bool, **more: Any) -> Ovn:
    """Ask MicroOVN; `deep`: OVN's own commands as well. `more` are fields that others know.

    Raises:
        CharmError: it does not tell.
    """
    from services.microovn import connections

    centrals = driver.centrals()
    northbound = connections(service.members, centrals, NB_PORT)
    told = _split(driver.environment().get("OVN_NB_CONNECT", ""))
    stale = set(told) != set(northbound)
    external = stale and bool(driver.external_centrals())
    if external:
        northbound, stale = told, False
    started = driver.northd_database()
    if deep and not stale and not external:
        more |= _look_deeply(driver, service, name, centrals)
    return Ovn(
        driver,
        service.names,
        centrals,
        northbound,
        stale,
        started is not None and set(_split(started)) != set(told),
        **more,
    )


def _look_deeply(
    driver: Microovn, service: ServiceView, name: str, centrals: tuple[str, ...]
) -> dict[str, Any]:
    from services.microovn import connections

    try:
        remote = _split(driver.remote())
        return {
            "astray": set(remote) != set(connections(service.members, centrals, SB_PORT)),
            "lost": driver.lost_servers(service.members) if name in centrals else (),
            "strays": tuple({one.name for one in driver.chassis()} - service.names),
        }
    except CharmError as fault:
        # While OVN starts, for example; the action `status` says what is wrong for longer.
        logger.info("OVN does not tell how it is: %s", fault)
        return {}


def _split(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)


# What is due


def tasks(cloud: Cloud) -> Iterator[Task]:
    """What is due for OVN."""
    ovn = cloud.ovn
    if ovn is None:
        return
    yield from _own_tasks(cloud, ovn)
    if not cloud.issuer:
        return
    if ovn.strays:
        yield Task("OVN's chassis", partial(_forget_chassis, ovn))
    central = _next_central(ovn)
    if central:
        yield Task(f"OVN's databases on {central}", lambda _: ovn.driver.enable_central(central))
    if _key_is_wrong(cloud, ovn):
        yield Task("LXD's connection to OVN", partial(_connect, ovn))
    # Every LXD makes its part of an OVN network, so OVN has to be there.
    if cloud.settings.uplink is not None and ovn.members >= set(cloud.facts.members):
        yield from _network_tasks(cloud, ovn, cloud.settings.uplink)


def _own_tasks(cloud: Cloud, ovn: Ovn) -> Iterator[Task]:
    if ovn.stale or ovn.astray:
        yield Task("OVN's addresses", lambda _: ovn.driver.spread_environment())
    elif ovn.lagging:
        yield Task("OVN's northd", lambda _: ovn.driver.restart_northd())
    if ovn.lost:
        yield Task("OVN's databases, without lost servers", partial(_kick, ovn))
    # In maintenance LXD starts no networks.
    if ovn.status == "Unavailable" and cloud.name not in cloud.facts.evacuated:
        yield Task(f"network {DEFAULT} on this member", partial(_heal, cloud.name))


def _next_central(ovn: Ovn) -> str:
    """Whom to make a central where members have gone: MicroOVN does so only for joiners."""
    from services.microovn import CENTRALS

    if len(ovn.centrals) >= min(CENTRALS, len(ovn.members)):
        return ""
    return next((name for name in ovn.fit if name not in ovn.centrals), "")


def hand_over(driver: Microovn, lxd: Lxd, name: str, staying: Iterable[str]) -> None:
    """Before a member leaves LXD: its databases are elsewhere, and LXD asks there.

    LXD takes the member's part of its networks away by asking the databases' leader, so the
    member must not be that leader any more, or be missing among the addresses.
    """
    from services.microovn import CENTRALS, connections

    if driver.external_centrals():
        return
    service = driver.look()
    centrals = driver.centrals()
    if name in centrals:
        online = {m.name for m in service.members if m.online}
        rest = [central for central in centrals if central != name]
        new = next((m for m in staying if m in online and m not in rest), "")
        if new and len(rest) < CENTRALS:
            driver.enable_central(new)
            rest.append(new)
        if not rest:
            return
        driver.disable_central(name)
        centrals = tuple(sorted(rest))
    if "ovn_dynamic_northbound_connection" not in lxd.server()["api_extensions"]:
        northbound = connections(service.members, centrals, NB_PORT)
        if set(_split(lxd.server()["config"].get(NB_KEY, ""))) != set(northbound):
            lxd.patch("", {"config": {NB_KEY: ",".join(northbound)}})


def _key_is_wrong(cloud: Cloud, ovn: Ovn) -> bool:
    if "ovn_dynamic_northbound_connection" in cloud.facts.extensions or not ovn.northbound:
        return False
    return set(_split(cloud.facts.config.get(NB_KEY, ""))) != set(ovn.northbound)


def _network_tasks(cloud: Cloud, ovn: Ovn, wanted: Uplink) -> Iterator[Task]:
    uplink = cloud.facts.networks.get(UPLINK)
    if uplink is None or (_is(uplink, "physical") and uplink.status != CREATED):
        if not _waited_for(cloud, ovn, uplink):
            yield Task(f"network {UPLINK}", partial(_make_uplink, cloud, ovn, wanted))
        return
    if not _is(uplink, "physical"):
        return
    changes = _changes(uplink, wanted)
    if changes:
        yield Task(f"settings of network {UPLINK}", partial(_change, cloud, wanted, changes))
    # Some versions of LXD forget it where the members' parts came first.
    if WRITTEN in uplink.config and not uplink.description:
        yield Task(f"description of network {UPLINK}", _describe_uplink)
    network = cloud.facts.networks.get(DEFAULT)
    if network is None or (_is(network, "ovn") and network.status != CREATED):
        yield Task(f"network {DEFAULT}", _make_default)


def _waited_for(cloud: Cloud, ovn: Ovn, uplink: Entity | None) -> tuple[str, ...]:
    """The members that have neither a part of `UPLINK` nor named an interface for it."""
    have = set(ovn.uplinks) | set(uplink.locations if uplink else ())
    return tuple(sorted(set(cloud.facts.members) - have))


def _is(network: Entity, kind: str) -> bool:
    return network.managed and network.kind == kind


def _changes(uplink: Entity, wanted: Uplink) -> dict[str, str]:
    """The keys to write anew, "" for one to unset; none of a network that is not the charm's."""
    if WRITTEN not in uplink.config:
        return {}
    written, values = json.loads(uplink.config[WRITTEN]), wanted.settings.lxd_config()
    return {
        key: values.get(key, "")
        for key in KEYS
        if values.get(key, "") != written.get(key, "")
        and uplink.config.get(key, "") == written.get(key, "")
    }


# What is spoken of


def advice(cloud: Cloud) -> Iterator[str]:
    """What is not as configured and stays so, or waits for somebody."""
    networks = cloud.facts.networks
    ovn, wanted, uplink = cloud.ovn, cloud.settings.uplink, networks.get(UPLINK)
    if wanted is None and uplink is not None and WRITTEN in uplink.config:
        yield f"ovn-uplink-interface is empty, and network {UPLINK} stays as it is"
    if ovn is None or wanted is None:
        return
    for name, kind in ((UPLINK, "physical"), (DEFAULT, "ovn")):
        network = networks.get(name)
        if network is not None and not _is(network, kind):
            yield (
                f"network {name} cannot be made: {cloud.name} has a {network.kind} of that name "
                "that is not the charm's; rename or remove it"
            )
        elif network is not None and network.status == "Errored":
            yield f"network {name} is in error; see `lxc network show {name}`"
    if cloud.issuer and (uplink is None or uplink.status != CREATED):
        waiting = _waited_for(cloud, ovn, uplink)
        if waiting:
            yield f"network {UPLINK} waits for the uplink interface of {', '.join(waiting)}"
    parent = wanted.interfaces.get(cloud.name)
    if ovn.parent and parent and parent != ovn.parent:
        yield (
            f"network {UPLINK} stays on {ovn.parent} of {cloud.name}, as "
            f"ovn-uplink-interface={parent} came after it"
        )
    if uplink is not None and uplink.status == CREATED:
        yield from _stubborn(uplink, wanted)


def _stubborn(uplink: Entity, wanted: Uplink) -> Iterator[str]:
    values, changes = wanted.settings.lxd_config(), _changes(uplink, wanted)
    ours = WRITTEN in uplink.config
    # LXD fills the mode in by itself in some versions; the servers are what the charm prefers.
    unasked = {"ovn.ingress_mode"} - set(values)
    if not ours and not wanted.settings.dns:
        unasked.add("dns.nameservers")
    keys = [
        key
        for key in KEYS
        if uplink.config.get(key, "") != values.get(key, "")
        and key not in changes
        and key not in unasked
    ]
    if keys:
        how = "was changed by somebody" if ours else "was set before the charm came"
        yield f"{', '.join(keys)} of network {UPLINK} {how} and stays so"


# Doing it


def _kick(ovn: Ovn, _: Lxd) -> None:
    for database, server in ovn.lost:
        ovn.driver.kick(database, server)


def _forget_chassis(ovn: Ovn, _: Lxd) -> None:
    for name in ovn.strays:
        ovn.driver.forget_chassis(name)


def _connect(ovn: Ovn, lxd: Lxd) -> None:
    lxd.patch("", {"config": {NB_KEY: ",".join(ovn.northbound)}})


def _make_uplink(cloud: Cloud, ovn: Ovn, wanted: Uplink, lxd: Lxd) -> None:
    network = cloud.facts.networks.get(UPLINK)
    for member in cloud.facts.members:
        if network is None or member not in network.locations:
            part = {"name": UPLINK, "type": "physical", "config": {"parent": ovn.uplinks[member]}}
            lxd.post("networks", part, target=member)
    values = wanted.settings.lxd_config()
    config = {**values, WRITTEN: _note(values)}
    lxd.post("networks", {"name": UPLINK, "type": "physical", **_ABOUT, "config": config})


def _describe_uplink(lxd: Lxd) -> None:
    lxd.patch(f"networks/{UPLINK}", _ABOUT)


def _make_default(lxd: Lxd) -> None:
    body = {
        "name": DEFAULT,
        "type": "ovn",
        "description": "Default OVN network",
        "config": {"network": UPLINK},
    }
    lxd.post("networks", body)


def _note(values: Mapping[str, str]) -> str:
    return json.dumps(values, sort_keys=True)


def _change(cloud: Cloud, wanted: Uplink, changes: Mapping[str, str], lxd: Lxd) -> None:
    """Write the new settings, unless they cut an address in use or take a member's."""
    faults = _cut(wanted, changes, lxd) + _taken(cloud, wanted, changes, lxd)
    if faults:
        raise Findings(faults)
    uplink = cloud.facts.networks[UPLINK]
    written = {**json.loads(uplink.config[WRITTEN]), **changes}
    note = _note({key: value for key, value in written.items() if value})
    # One PATCH, so that the values and the note of them cannot come apart.
    lxd.patch(f"networks/{UPLINK}", {"config": {**changes, WRITTEN: note}})


def _cut(wanted: Uplink, changes: Mapping[str, str], lxd: Lxd) -> tuple[str, ...]:
    from machine.uplink import AddressRange, used_outside

    ranges = list(wanted.settings.ranges)
    six = wanted.settings.gateway6
    if six is not None and not wanted.settings.ranges6:
        ranges.append(AddressRange(six.network[0], six.network[-1]))
    if not any(key.endswith(("ranges", "gateway")) for key in changes):
        return ()
    used = addresses_in_use(lxd)
    outside = used_outside(ranges, used)
    if not outside:
        return ()
    named = ", ".join(f"{address} ({used[address]})" for address in outside)
    return (f"ovn-ipv4-range and ovn-ipv6-range leave out addresses in use: {named}",)


def _taken(cloud: Cloud, wanted: Uplink, changes: Mapping[str, str], lxd: Lxd) -> tuple[str, ...]:
    from machine.uplink import check_members

    if not any(key.endswith(("ranges", "gateway")) for key in changes):
        return ()
    return check_members(
        wanted.settings, {member: _addresses(member, lxd) for member in cloud.facts.members}
    )


def _addresses(member: str, lxd: Lxd) -> tuple[str, ...]:
    """The addresses of a member's interfaces, as its LXD tells."""
    found: list[str] = []
    for interface in lxd.get(f"/1.0/networks?recursion=1&target={member}"):
        if interface["managed"] or interface["type"] in ("loopback", "unknown"):
            continue
        state = lxd.get(f"/1.0/networks/{interface['name']}/state?target={member}")
        found += [a["address"] for a in state["addresses"] or () if a["scope"] == "global"]
    return tuple(found)


def addresses_in_use(lxd: Lxd) -> dict[str, str]:
    """What networks have of `UPLINK`, and for what, as far as LXD tells."""
    used: dict[str, str] = {}
    for project in lxd.get("/1.0/projects"):
        query = f"project={project.rpartition('/')[2]}"
        for network in lxd.get(f"/1.0/networks?recursion=1&{query}"):
            if network["type"] == "ovn" and network["config"].get("network") == UPLINK:
                used.update(_used_by(network, query, lxd))
    return used


def _used_by(network: Mapping[str, Any], query: str, lxd: Lxd) -> Iterator[tuple[str, str]]:
    name = network["name"]
    for key in ("volatile.network.ipv4.address", "volatile.network.ipv6.address"):
        if network["config"].get(key):
            yield network["config"][key], f"router of network {name}"
    for kind, word in (("forwards", "forward"), ("load-balancers", "load balancer")):
        try:
            found = lxd.get(f"/1.0/networks/{name}/{kind}?recursion=1&{query}")
        except DaemonError as fault:
            if fault.code != 404:  # older LXDs have no load balancers
                raise
            continue
        for item in found:
            yield item["listen_address"], f"{word} of network {name}"


def _heal(name: str, lxd: Lxd) -> None:
    """Restart LXD, which may have joined without knowing where OVN's databases are.

    LXD 5.0 keeps trying with what it knew before it joined; a restart helps, and leaves
    instances alone. Where it does not, the cause is another one and a restart a nuisance.
    """
    ago = lxd.restart(RESTART_INTERVAL)
    if ago > HEAL_TIMEOUT:
        raise CharmError(
            f"network {DEFAULT} is unavailable on {name}, and restarting LXD did not help; "
            "see `microovn status` and /var/snap/lxd/common/lxd/logs/lxd.log there"
        )
    deadline = time.monotonic() + HEAL_TIMEOUT - ago
    while lxd.get(f"/1.0/networks/{DEFAULT}?target={name}")["status"] != CREATED:
        if time.monotonic() > deadline:
            raise CharmError(
                f"network {DEFAULT} is unavailable on {name} {HEAL_TIMEOUT:.0f} s after "
                "LXD was restarted; see /var/snap/lxd/common/lxd/logs/lxd.log there"
            )
        time.sleep(0.5)


def uplink_of(lxd: Lxd, member: str) -> str:
    """The interface by which a member reaches the network `UPLINK`, "" without the network.

    Raises:
        DaemonError: LXD does not tell.
    """
    try:
        found = lxd.get(f"/1.0/networks/{UPLINK}?target={member}")
    except DaemonError as fault:
        if fault.code != 404:
            raise
        return ""
    return str(found["config"].get("parent", ""))
