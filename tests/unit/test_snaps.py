"""Stopping a service that hangs."""

import pytest

import snaps
from errors import CharmError


def test_a_service_that_hangs_is_killed_until_it_has_stopped(tmp_path, monkeypatch):
    """It is started anew after the first kill, and hangs again."""
    snap = tmp_path / "snap"
    snap.write_text(f"#!/bin/sh\nuntil test -e {tmp_path}/dead; do sleep 0.02; done\n")
    snap.chmod(0o755)
    monkeypatch.setattr(snaps, "SNAP", str(snap))
    monkeypatch.setattr(snaps, "KILL_INTERVAL", 0.02)
    kills: list[int] = []

    def kill() -> None:
        kills.append(1)
        if len(kills) == 3:
            (tmp_path / "dead").touch()

    snaps.stop("lxd", kill)
    assert len(kills) >= 3


def test_a_stop_that_fails_is_told(tmp_path, monkeypatch):
    snap = tmp_path / "snap"
    snap.write_text("#!/bin/sh\necho no such snap\nexit 1\n")
    snap.chmod(0o755)
    monkeypatch.setattr(snaps, "SNAP", str(snap))
    with pytest.raises(CharmError, match="snap stop lxd failed: no such snap"):
        snaps.stop("lxd", lambda: None)


def test_a_stop_that_never_ends_is_given_up(tmp_path, monkeypatch):
    snap = tmp_path / "snap"
    snap.write_text("#!/bin/sh\nexec sleep 60\n")
    snap.chmod(0o755)
    monkeypatch.setattr(snaps, "SNAP", str(snap))
    with pytest.raises(CharmError, match="did not end within 0 s"):
        snaps.stop("lxd", lambda: None, timeout=0.1)
