"""Storage: at deploy, later, and when it goes away."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import jubilant
import pytest

from lab.exerciser.story import Story

UNIT = "exerciser/0"


@pytest.fixture(scope="module")
def stored(story: Story, deploy: Callable[..., None]) -> Story:
    """Deploy a unit with two disks and one directory."""
    deploy("exerciser", storage={"disk": "64M,2", "data": "16M"})
    story.sent(UNIT, "start")
    story.settle()
    return story


def test_storage_comes_before_install(stored: Story) -> None:
    events = stored.events(UNIT)
    assert sorted(events[:3]) == [
        "data-storage-attached data",
        "disk-storage-attached disk",
        "disk-storage-attached disk",
    ]
    assert events[3:] == [
        "install",
        "cluster-relation-created exerciser",
        "leader-elected",
        "config-changed",
        "start",
    ]


def test_environment_of_a_storage_hook(stored: Story) -> None:
    env = stored.last(UNIT, "data-storage-attached").env
    assert env["JUJU_STORAGE_ID"].startswith("data/")
    assert env["JUJU_STORAGE_KIND"] == "filesystem"
    disk = stored.last(UNIT, "disk-storage-attached").env
    assert disk["JUJU_STORAGE_KIND"] == "block"
    assert disk["JUJU_STORAGE_LOCATION"].startswith("/dev/")


def test_block_storage_is_a_disk_of_that_size(stored: Story) -> None:
    locations = stored.one(UNIT, storage="disk")
    assert len(set(locations)) == 2
    for location in locations:
        size = stored.juju.ssh(UNIT, f"blockdev --getsize64 {location}")
        assert int(size) == 64 << 20
        assert stored.juju.ssh(UNIT, f"stat -L -c %F {location}").strip() == "block special file"


def test_filesystem_storage_is_a_directory(stored: Story) -> None:
    (location,) = stored.one(UNIT, storage="data")
    assert stored.juju.ssh(UNIT, f"stat -c %F {location}").strip() == "directory"
    stored.juju.ssh(UNIT, f"touch {location}/written")


def test_tools(stored: Story) -> None:
    ids = json.loads(stored.tool(UNIT, "storage-list", "--format=json")["out"])
    assert len(ids) == 3
    (data,) = json.loads(stored.tool(UNIT, "storage-list", "--format=json", "data")["out"])
    got = json.loads(stored.tool(UNIT, "storage-get", "--format=json", "-s", data)["out"])
    assert got["kind"] == "filesystem"
    assert os.path.isabs(got["location"])


def test_status_shows_storage(stored: Story) -> None:
    storage = stored.juju.status().storage.storage
    kinds = sorted((name.split("/")[0], s.kind) for name, s in storage.items())
    assert kinds == [("data", "filesystem"), ("disk", "block"), ("disk", "block")]
    for instance in storage.values():
        assert instance.attachments is not None
        assert list(instance.attachments.units) == [UNIT]


def test_storage_added_by_the_user(stored: Story) -> None:
    mark = stored.mark(UNIT)
    stored.juju.cli("add-storage", UNIT, "disk=32M")
    stored.sent(UNIT, "disk-storage-attached", mark)
    stored.settle()
    assert stored.since(mark)[UNIT] == ["disk-storage-attached disk"]
    assert len(stored.one(UNIT, storage="disk")) == 3


def test_storage_asked_for_by_the_charm(stored: Story) -> None:
    mark = stored.mark(UNIT)
    stored.one(UNIT, storage_add={"data": 1})
    stored.sent(UNIT, "data-storage-attached", mark)
    stored.settle()
    assert len(stored.one(UNIT, storage="data")) == 2


def test_detached_storage(stored: Story) -> None:
    ids = json.loads(stored.tool(UNIT, "storage-list", "--format=json", "disk")["out"])
    gone = max(ids, key=lambda name: int(name.split("/")[1]))
    mark = stored.mark(UNIT)
    stored.juju.cli("detach-storage", gone)
    record = stored.sent(UNIT, "disk-storage-detaching", mark)
    assert record.env["JUJU_STORAGE_ID"] == gone
    stored.settle()
    left = json.loads(stored.tool(UNIT, "storage-list", "--format=json", "disk")["out"])
    assert sorted(left) == sorted(set(ids) - {gone})


def test_more_than_the_charm_allows_is_refused(stored: Story) -> None:
    with pytest.raises(jubilant.CLIError):
        stored.juju.cli("add-storage", UNIT, "disk=32M,9")
    with pytest.raises(jubilant.CLIError):
        stored.juju.cli("add-storage", UNIT, "nothing=32M")


def test_detaching_comes_before_stop(stored: Story) -> None:
    mark = stored.mark(UNIT)
    stored.juju.remove_unit(UNIT, destroy_storage=True)
    stored.sent(UNIT, "remove", mark)
    events = stored.since(mark)[UNIT]
    assert sorted(events[:4]) == [
        "data-storage-detaching data",
        "data-storage-detaching data",
        "disk-storage-detaching disk",
        "disk-storage-detaching disk",
    ]
    assert events[4:] == ["stop", "remove"]
    stored.until("the unit is gone", lambda: UNIT not in stored.units())
