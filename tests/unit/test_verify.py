"""The action verify: what it launches, what it checks, and that nothing of it stays."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from ops import testing

from errors import CharmError
from operations import verify
from unit.conftest import Machine
from unit.test_charm import member
from unit.test_membership import instance


def act(machine: Machine, **params: Any) -> Any:
    machine.run(machine.context.on.action("verify", params=params), machine.state())
    return json.loads((machine.context.action_results or {})["members"])


def refusal(machine: Machine, **params: Any) -> str:
    with pytest.raises(testing.ActionFailed) as caught:
        act(machine, **params)
    return caught.value.message


def test_each_member_is_checked_and_nothing_stays(machine: Machine):
    member(machine, "micro2", "micro3")
    machine.lxd.evacuated = {"micro3"}
    mine = instance("c1", "Running")
    left = {**instance("verify-old", "Running"), "config": {verify.NOTE: "1700000000-abc"}}
    now = f"{int(time.time())}-def"
    other = {**instance("verify-other", "Running"), "config": {verify.NOTE: now}}
    machine.lxd.instances = [mine, left, other]
    found = act(machine, egress="example.com")
    assert list(found) == ["micro1", "micro2"]
    assert found["micro1"].pop("address").startswith("10.9.0.")
    checks = ("storage", "network", "name-resolution", "egress")
    assert found["micro1"] == dict.fromkeys(checks, "ok")
    assert machine.lxd.instances == [mine, other], "another run is going on"
    assert any("ping -c 3 -W 3 example.com" in command for command in machine.lxd.commands)


def test_what_does_not_work_is_said_and_nothing_stays(machine: Machine, monkeypatch):
    monkeypatch.setattr(verify, "PATIENCE", 0.0)
    member(machine, "micro2")
    machine.lxd.failing = ".lxd"
    said = refusal(machine, member="micro2", image="mini")
    assert said.startswith("micro2: name-resolution: `ping -c 3 -W 3 verify-")
    assert said.endswith("failed: exit code 1")
    assert not machine.lxd.instances


def test_an_image_that_cannot_be_had_is_said(machine: Machine):
    member(machine)
    machine.lxd.refuse["POST /1.0/instances"] = "no such image"
    said = refusal(machine)
    assert "no instance can be launched on micro1 from image 24.04: LXD: no such image" in said


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"member": "micro9"}, "there is no member micro9 that takes instances; there are micro1"),
        ({"image": "moon:1"}, "there is no server moon; there are ubuntu"),
        ({"egress": "a; reboot"}, "egress='a; reboot' is neither a host name nor an address"),
    ],
)
def test_bad_parameters_change_nothing(machine: Machine, params: dict[str, str], sentence: str):
    member(machine)
    assert sentence in refusal(machine, **params)
    assert not any(request.startswith("POST") for request in machine.lxd.requests)


def test_images_are_named_as_for_lxc_launch():
    assert verify.image_source("mini") == {"type": "image", "alias": "mini"}
    assert verify.image_source("ubuntu:24.04")["alias"] == "24.04"
    with pytest.raises(CharmError):
        verify.image_source("moon:1")
