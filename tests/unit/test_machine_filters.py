"""MicroCloud's disk filter language means here what it means there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine import filters
from machine.filters import FilterError, parse

GIB = 1024**3
NVME = {
    "id": "nvme0n1",
    "device": "259:0",
    "model": "Samsung SSD 990 PRO",
    "type": "nvme",
    "size": 100 * GIB,
    "device_id": "nvme-eui.0025388b",
    "device_path": "pci-0000:01:00.0-nvme-1",
    "read_only": False,
    "removable": False,
    "rpm": 0,
    "numa_node": 0,
    "block_size": 512,
}
LXD_DISK = {"id": "sdb", "type": "scsi", "size": 10 * GIB, "device_id": "scsi-0QEMU_lxd_disk1"}


@pytest.mark.parametrize(
    ("text", "disk", "matches"),
    [
        ("size > 10GiB", NVME, True),
        ("size > 10GiB", LXD_DISK, False),
        ("size >= 10GiB", LXD_DISK, True),
        ("size == 10GiB", LXD_DISK, True),
        ("size != 10737418240", LXD_DISK, False),
        ("size < 11GB", LXD_DISK, True),
        ("size <= 1PiB", LXD_DISK, True),
        ("type == nvme", NVME, True),
        ("type == NVMe", NVME, True),
        ("type == nvm", NVME, False),
        ("type == nv.*", NVME, True),
        ("type != nvme", LXD_DISK, True),
        ("id == sdb", LXD_DISK, True),
        ("id == sd[a-c]", LXD_DISK, True),
        ("id == ^sd", LXD_DISK, True),
        ("id == b$", LXD_DISK, True),
        ("id == [[:alpha:]]+", LXD_DISK, True),
        ("device_id == *lxd_disk1", LXD_DISK, True),
        ("device_id == *lxd_disk2", LXD_DISK, False),
        ("model == 'Samsung %'", NVME, False),
        ("model == 'Samsung SSD .*'", NVME, True),
        ('model == "samsung ssd   990 pro"', NVME, True),
        ("model == (", {"model": "("}, True),
        ("model == a\\1", {"model": "A\\1"}, True),
        ("model == a|b", {"model": "ax"}, True),  # ^a|b$, as Go has it
        ("removable == false", NVME, True),
        ("removable != 0", NVME, False),
        ("read_only == T", NVME, False),
        ("! type == nvme", LXD_DISK, True),
        ("! size > 10GiB", NVME, False),
        ("serial == ''  ''", {"serial": "''"}, False),
        ("wwn == x", NVME, False),
        ("rpm == 0 && numa_node < 1 && block_size >= 512", NVME, True),
        # Strictly from the left: (true or false) and false.
        ("type == nvme || id == x && id == y", NVME, False),
        ("id == x && id == y || type == nvme", NVME, True),
        ("id == x || ! id == y", NVME, True),
        ("\tsize  >  10GiB\n&& type == nvme ", NVME, True),
    ],
)
def test_match(text: str, disk: dict[str, object], matches: bool) -> None:
    assert parse(text).matches(disk) is matches


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is empty"),
        ("!", "incomplete not clause"),
        ("size", "clause has no operator"),
        ("! size", "clause has no operator"),
        ("size >", "clause has no value"),
        ("type == 'nvme'", "unterminated quote"),
        ('model == "Samsung SSD', "unterminated quote"),
        ("size > 1 and type == nvme", "invalid clause composition"),
        ("size > 1 &&", "unterminated compound clause"),
        ("(size > 1)", 'Invalid type "invalid" for field "(size"'),
        ("colour == red", 'Invalid type "invalid" for field "colour"'),
        ("partitions == 0", 'Invalid type "invalid" for field "partitions"'),
        ("type > nvme", 'Invalid operator ">" for field "type"'),
        ("removable >= true", 'Invalid operator ">=" for field "removable"'),
        ("size = 10GiB", 'Unsupported operation "="'),
        ("type ~ nvme", 'Unsupported operation "~"'),
        ("size > big", "Failed to parse value"),
        ("size > 10gib", "Failed to parse value"),
        ("size > -1", "Failed to parse value"),
        ("size > 1.5GiB", "Failed to parse value"),
        ("size > 99EiB", "Failed to parse value"),
        ("rpm == 10k", "Failed to parse value"),
        ("rpm == 18446744073709551616", "Failed to parse value"),
        ("removable == yes", "Failed to parse value"),
    ],
)
def test_fault(text: str, fault: str) -> None:
    with pytest.raises(FilterError) as caught:
        parse(text)
    assert fault in str(caught.value)
    assert str(caught.value).startswith(f"disk filter {filters.quote(text)}: ")


def test_all_faults_of_a_filter_at_once() -> None:
    with pytest.raises(FilterError) as caught:
        parse("colour == red || type > nvme && size > x")
    assert len(caught.value.findings) == 3


WORDS = st.sampled_from(
    [
        *filters.FIELDS,
        "==",
        "!=",
        ">",
        "<=",
        "&&",
        "||",
        "!",
        "'a",
        "b'",
        '"',
        "10GiB",
        "true",
        "*x",
    ]
)


@given(st.one_of(st.text(), st.lists(st.one_of(WORDS, st.text(max_size=8))).map(" ".join)))
def test_anything_is_read_or_refused_in_a_sentence(text: str) -> None:
    fault = ""
    try:
        assert parse(text).matches(NVME) in (True, False)
    except FilterError as error:
        fault = str(error)
    assert not fault or fault.startswith("disk filter ")


@given(st.text(alphabet="ab*+?.^$|()[]{}\\1dw-:", min_size=1, max_size=12))
def test_any_regular_expression_is_one_or_is_literal(pattern: str) -> None:
    clause = parse(f"model == x{pattern}").clauses[0]
    assert clause.holds(NVME) in (True, False)


CLAUSE = st.tuples(
    st.booleans(),
    st.sampled_from(["size > 10GiB", "type == nvme", "id != sdb", "removable == false"]),
)


@given(st.lists(CLAUSE, min_size=1), st.lists(st.booleans(), min_size=20, max_size=20))
def test_joined_from_the_left(clauses: list[tuple[bool, str]], ors: list[bool]) -> None:
    expected, text = True, ""
    for number, (negated, clause) in enumerate(clauses[:20]):
        holds = parse(clause).matches(LXD_DISK) is not negated
        either = bool(number) and ors[number]
        expected = (expected or holds) if either else (expected and holds)
        joint = "" if not number else " || " if either else " && "
        text += joint + ("! " if negated else "") + clause
    assert parse(text).matches(LXD_DISK) is expected
