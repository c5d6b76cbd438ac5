"""Settings of the uplink, the underlay and Ceph's networks: right ones pass, wrong ones talk."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine.uplink import (
    UplinkError,
    check_members,
    check_subnet,
    check_underlay,
    parse,
    used_outside,
)

GOOD = {"gateway4": "10.0.0.1/24", "ranges4": "10.0.0.100-10.0.0.150"}


@pytest.mark.parametrize(
    ("given_settings", "config"),
    [
        (
            GOOD,
            {
                "ipv4.gateway": "10.0.0.1/24",
                "ipv4.ovn.ranges": "10.0.0.100-10.0.0.150",
                "dns.nameservers": "10.0.0.1",
            },
        ),
        (
            GOOD | {"ranges4": " 10.0.0.9-10.0.0.9 , 10.0.0.20 - 10.0.0.30", "ingress": "routed"},
            {
                "ipv4.gateway": "10.0.0.1/24",
                "ipv4.ovn.ranges": "10.0.0.9-10.0.0.9,10.0.0.20-10.0.0.30",
                "dns.nameservers": "10.0.0.1",
                "ovn.ingress_mode": "routed",
            },
        ),
        (
            {"gateway6": "fd00::1/64", "dns": "fd00::53, 9.9.9.9"},
            {"ipv6.gateway": "fd00::1/64", "dns.nameservers": "fd00::53,9.9.9.9"},
        ),
        (
            GOOD | {"gateway6": "FD00:0::1/64", "ranges6": "fd00::10-fd00::ff"},
            {
                "ipv4.gateway": "10.0.0.1/24",
                "ipv4.ovn.ranges": "10.0.0.100-10.0.0.150",
                "ipv6.gateway": "fd00::1/64",
                "ipv6.ovn.ranges": "fd00::10-fd00::ff",
                "dns.nameservers": "10.0.0.1,fd00::1",
            },
        ),
        (
            {"gateway4": "10.0.0.0/31", "ranges4": "10.0.0.1-10.0.0.1"},
            {
                "ipv4.gateway": "10.0.0.0/31",
                "ipv4.ovn.ranges": "10.0.0.1-10.0.0.1",
                "dns.nameservers": "10.0.0.0",
            },
        ),
    ],
)
def test_right_settings(given_settings: dict[str, str], config: dict[str, str]) -> None:
    assert parse(**given_settings).lxd_config() == config


@pytest.mark.parametrize(
    ("change", "findings"),
    [
        (
            {"gateway4": "", "ranges4": ""},
            ["Either the IPv4 or IPv6 gateway has to be set on the uplink network"],
        ),
        ({"ranges4": ""}, ["the uplink has an IPv4 gateway but no IPv4 range"]),
        (
            {"gateway4": "", "gateway6": "fd00::1/64"},
            ["Cannot specify IPv4 range without IPv4 gateway"],
        ),
        ({"ranges6": "fd00::2-fd00::3"}, ["Cannot specify IPv6 range without IPv6 gateway"]),
        ({"gateway4": "10.0.0.1"}, ["the IPv4 gateway '10.0.0.1' has no prefix length"]),
        ({"gateway4": "10.0.0.300/24"}, ["Invalid ipv4.gateway '10.0.0.300/24'"]),
        ({"gateway4": "fd00::1/64"}, ["Invalid ipv4.gateway 'fd00::1/64'"]),
        ({"gateway6": "10.0.0.1/24"}, ["Invalid ipv6.gateway '10.0.0.1/24'"]),
        ({"gateway4": "10.0.0.0/24"}, ["is the address of its network 10.0.0.0/24"]),
        ({"gateway4": "10.0.0.255/24"}, ["is the broadcast address of its network"]),
        ({"gateway4": "10.0.0.1/32"}, ["leaves no other address in its network"]),
        ({"gateway4": "127.0.0.1/8"}, ["is not the address of a gateway"]),
        ({"ranges4": "10.0.0.100"}, ["Invalid IPv4 range '10.0.0.100' (must be of the form"]),
        ({"ranges4": "10.0.0.100-x"}, ["Invalid IPv4 range '10.0.0.100-x'"]),
        ({"ranges4": "10.0.0.4-10.0.0.5-10.0.0.6"}, ["(must be of the form <ip>-<ip>)"]),
        ({"ranges4": "10.0.0.4-10.0.0.5,"}, ["Invalid IPv4 range ''"]),
        ({"ranges4": "fd00::1-fd00::2"}, ["fd00::1-fd00::2 is not one of IPv4"]),
        ({"ranges4": "10.0.0.9-10.0.0.8"}, ["ends before it begins"]),
        (
            {"ranges4": "10.0.1.2-10.0.1.9"},
            ["range 10.0.1.2-10.0.1.9 is not inside of 10.0.0.0/24, the network of the gateway"],
        ),
        (
            {"ranges4": "10.0.0.1-10.0.0.9"},
            ["UPLINK ipv4 ipv4.ovn.ranges must not include gateway address 10.0.0.1"],
        ),
        ({"ranges4": "10.0.0.0-10.0.0.0"}, ["includes the network's own address"]),
        ({"ranges4": "10.0.0.200-10.0.0.255"}, ["includes the broadcast address"]),
        (
            {"ranges4": "10.0.0.10-10.0.0.20,10.0.0.20-10.0.0.30"},
            ["the IPv4 ranges 10.0.0.10-10.0.0.20 and 10.0.0.20-10.0.0.30 overlap"],
        ),
        (
            {"gateway6": "fd00::1/64", "ranges6": "fd00::1-fd00::9"},
            ["UPLINK ipv6 ipv6.ovn.ranges must not include gateway address fd00::1"],
        ),
        ({"dns": "10.0.0.53,resolver"}, ["Invalid dns.nameservers: Invalid IP 'resolver'"]),
        ({"dns": "fe80::1%eth0"}, ["Invalid IP 'fe80::1%eth0'"]),
        ({"dns": "10.0.0.53,10.0.0.53"}, ["the name server 10.0.0.53 is given twice"]),
        ({"dns": "127.0.0.53"}, ["not an address that instances can reach"]),
        ({"ingress": "l3"}, ["the ingress mode 'l3' is none of l2proxy, routed"]),
        (
            {"gateway4": "10.0.0.1", "dns": "x", "ingress": "y", "ranges6": "a-b"},
            ["no prefix length", "Invalid IPv6 range", "Invalid IP", "ingress mode"],
        ),
    ],
)
def test_wrong_settings(change: dict[str, str], findings: list[str]) -> None:
    with pytest.raises(UplinkError) as caught:
        parse(**(GOOD | change))
    assert len(caught.value.findings) == len(findings), caught.value.findings
    for finding, expected in zip(caught.value.findings, findings, strict=True):
        assert expected in finding


TEXTS = st.text(alphabet="0123456789abcdef.:/-, %x", max_size=40)


@given(TEXTS, TEXTS, TEXTS, TEXTS, TEXTS)
def test_anything_is_read_or_refused(a: str, b: str, c: str, d: str, e: str) -> None:
    with contextlib.suppress(UplinkError):
        parse(gateway4=a, ranges4=b, gateway6=c, ranges6=d, dns=e)


@given(st.integers(0, 255), st.integers(0, 255))
def test_a_range_that_passes_has_only_free_host_addresses(first: int, last: int) -> None:
    with contextlib.suppress(UplinkError):
        parse(gateway4="10.0.0.7/24", ranges4=f"10.0.0.{first}-10.0.0.{last}")
        assert 1 <= first <= last <= 254
        assert not first <= 7 <= last


def test_members() -> None:
    settings = parse(**GOOD, gateway6="fd00::1/64", ranges6="fd00::10-fd00::20")
    right = {"micro1": ["10.0.0.11/24", "fd00::2"], "micro2": []}
    assert check_members(settings, right) == ()
    wrong = {"micro1": ["10.0.0.120/24", "10.0.0.1"], "micro2": ["fd00::10/64", "x"]}
    assert check_members(settings, wrong) == (
        "UPLINK ipv4 ipv4.ovn.ranges must not include system address 10.0.0.120; "
        "10.0.0.100-10.0.0.150 does, and micro1 has it",
        "the uplink's gateway 10.0.0.1 is an address of micro1",
        "UPLINK ipv6 ipv6.ovn.ranges must not include system address fd00::10; "
        "fd00::10-fd00::20 does, and micro2 has it",
        "Invalid address 'x' for system 'micro2'",
    )


def test_used_outside() -> None:
    settings = parse(**GOOD, gateway6="fd00::1/64", ranges6="fd00::10-fd00::20")
    used = ["10.0.0.120", "10.0.0.160", "fd00::30/64", "10.0.0.20", "fd00::11"]
    assert used_outside(settings.ranges, used) == ("10.0.0.20", "10.0.0.160", "fd00::30")
    assert used_outside((), ["10.0.0.1"]) == ("10.0.0.1",)


MEMBERS = ["micro1", "micro2"]
ADDRESSES = {"micro1": ["10.2.0.1/24"], "micro2": ["10.2.0.2/24", "fd02::2/64"]}


@pytest.mark.parametrize(
    ("ips", "findings"),
    [
        ({}, []),
        ({"micro1": "10.2.0.1", "micro2": "10.2.0.2"}, []),
        ({"micro1": "10.2.0.1"}, ["Underlay IP is not defined for 'micro2'"]),
        (
            {"micro1": "10.2.0.1", "micro2": "10.2.0.2", "x": "10.2.0.3"},
            ["x has an underlay IP but is no member"],
        ),
        (
            {"micro1": "10.2.0.1/24", "micro2": "10.2.0.2"},
            ["Invalid underlay IP '10.2.0.1/24' of micro1"],
        ),
        (
            {"micro1": "10.2.0.1", "micro2": "10.2.0.1"},
            ["micro1 and micro2 have the same", "No available interface found for OVN underlay"],
        ),
        ({"micro1": "10.2.0.1", "micro2": "fd02::2"}, ["underlay IPs are of both families"]),
    ],
)
def test_underlay(ips: dict[str, str], findings: list[str]) -> None:
    found = check_underlay(ips, MEMBERS, ADDRESSES)
    assert len(found) == len(findings), found
    for finding, expected in zip(found, findings, strict=True):
        assert expected in finding


@pytest.mark.parametrize(
    ("cidr", "findings"),
    [
        ("", []),
        ("10.2.0.0/24", []),
        ("10.2.0.9/24", []),
        ("10.2.0.1/32", ["it must be larger than one address"]),
        ("10.2.0.1", ["it must be larger than one address"]),
        ("10.2.0.0/33", ["Invalid ceph-public-network subnet '10.2.0.0/33'"]),
        ("fd02::/64", ["within the given CIDR subnet on 'micro1'"]),
        ("10.3.0.0/24", ["subnet on 'micro1'", "subnet on 'micro2'"]),
    ],
)
def test_subnet(cidr: str, findings: list[str]) -> None:
    found = check_subnet("ceph-public-network", cidr, ADDRESSES)
    assert len(found) == len(findings), found
    for finding, expected in zip(found, findings, strict=True):
        assert expected in finding
