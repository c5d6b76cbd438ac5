"""An option's text is one value, or a value for each host."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine.perhost import PerHost, PerHostError, parse


@pytest.mark.parametrize(
    ("text", "host", "value"),
    [
        ("enp6s0", "micro1", "enp6s0"),
        (" enp6s0 \n", "any", "enp6s0"),
        ("", "micro1", None),
        ("{}", "micro1", None),
        ("{micro1: enp6s0, micro2: eno2}", "micro2", "eno2"),
        ("{micro1: enp6s0}", "micro3", None),
        ('{"micro1": "enp6s0"}', "micro1", "enp6s0"),
        ('{"micro1": 10}', "micro1", "10"),
        ("micro1: enp6s0\nmicro2: eno2\n", "micro1", "enp6s0"),
        ("micro1: on", "micro1", "on"),
        ("micro1: 010", "micro1", "010"),
        ("node-1.example: fd00::1", "node-1.example", "fd00::1"),
        ("fd00::1", "micro1", "fd00::1"),
        ("/dev/disk/by-path/pci-0000:00:1f.2", "x", "/dev/disk/by-path/pci-0000:00:1f.2"),
        ("[enp6s0]", "micro1", "enp6s0"),
    ],
)
def test_get(text: str, host: str, value: str | None) -> None:
    assert parse(text).get(host) == value


def test_many() -> None:
    found = parse("{micro1: [/dev/sdb, /dev/sdc], micro2: '/dev/sdb,/dev/sdd'}", many=True)
    assert found.get_all("micro1") == ("/dev/sdb", "/dev/sdc")
    assert found.get_all("micro2") == ("/dev/sdb", "/dev/sdd")
    assert found.hosts == ("micro1", "micro2")
    assert found.missing(["micro1", "micro3"]) == ("micro3",)
    assert parse("a, b c", many=True) == PerHost(("a", "b", "c"))


def test_truth() -> None:
    assert not parse("")
    assert parse("x")
    assert parse("{a: b}")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{micro1: a, micro1: b}", "micro1 is named twice"),
        ('{"micro1": "a", "micro1": "b"}', "micro1 is named twice"),
        ("{micro1: {a: b}}", "the value for micro1 must be plain text"),
        ("{micro1: [a, b]}", "the value for micro1 is a list of 2"),
        ("{micro1: }", "micro1 has no value"),
        ("{micro1: a", "neither one value nor a YAML map"),
        ("{'a b': c}", "'a b' is no host name"),
        ("{[a]: c}", "neither one value nor a YAML map"),
        ("[a, b]", "the value is a list of 2"),
        ("[" * 5000, "nested too deeply"),
    ],
)
def test_fault(text: str, fault: str) -> None:
    with pytest.raises(PerHostError) as caught:
        parse(text)
    assert fault in str(caught.value)


def test_a_value_twice() -> None:
    with pytest.raises(PerHostError, match="names a twice"):
        parse("a,a", many=True)


@given(st.one_of(st.text(), st.text(alphabet="ab{}[]:,&*!'\"- \n", max_size=30)), st.booleans())
def test_anything_is_read_or_refused(text: str, many: bool) -> None:
    with contextlib.suppress(PerHostError):
        value = parse(text, many=many).get("micro1")
        assert value is None or isinstance(value, str)
