"""Secrets inside one application, secrets of units, and secrets of the user."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import jubilant
import pytest

from lab.exerciser.story import Story


@pytest.fixture(scope="module")
def pair(story: Story, deploy: Callable[..., None]) -> tuple[str, str]:
    """Deploy two units; return the leader and the follower."""
    deploy("exerciser", units=2)
    story.sent("exerciser/0", "cluster-relation-changed exerciser/1")
    story.sent("exerciser/1", "cluster-relation-changed exerciser/0")
    story.settle()
    return story.leader(), story.others()[0]


@pytest.fixture(scope="module")
def shared(story: Story, pair: tuple[str, str]) -> str:
    """Have the leader make a secret of the application."""
    return story.one(
        pair[0],
        secret_add={
            "owner": "app",
            "label": "shared",
            "description": "a test's",
            "content": {"word": "one", "other": "line 1\nline 2"},
        },
    )


def test_uri(shared: str) -> None:
    assert re.fullmatch(r"secret:[0-9a-v]{20}", shared)


def test_every_unit_reads_the_applications_secret(
    story: Story, pair: tuple[str, str], shared: str
) -> None:
    wanted = {"word": "one", "other": "line 1\nline 2"}
    assert story.one(pair[1], secret_get={"label": "shared"}) == wanted
    assert story.one(pair[1], secret_get={"id": shared}) == wanted
    bare = shared.partition(":")[2]
    uuid = story.last(pair[1], "start").env["JUJU_MODEL_UUID"]
    for uri in (bare, f"secret://{uuid}/{bare}"):
        done = story.tool(pair[1], "secret-get", "--format=json", uri)
        assert json.loads(done["out"]) == wanted


def test_only_the_leader_manages_it(story: Story, pair: tuple[str, str], shared: str) -> None:
    for argv in (
        ["secret-set", "--owner", "application", shared, "word=x"],
        ["secret-remove", shared],
        ["secret-grant", shared, "--relation", "0"],
    ):
        done = story.tool(pair[1], *argv)
        assert (done["rc"], done["err"].strip()) == (1, "ERROR this unit is not the leader")


def test_information(story: Story, pair: tuple[str, str], shared: str) -> None:
    info = story.one(pair[0], secret_info={"label": "shared"})
    assert info["revision"] == 1
    assert info["label"] == "shared"
    assert info["rotation"] in (None, "never")
    raw = json.loads(story.tool(pair[0], "secret-info-get", "--format=json", shared)["out"])
    (told,) = raw.values()
    assert list(raw) == [shared.partition(":")[2]]
    assert told["owner"] == "application"
    assert told["description"] == "a test's"


def test_equal_content_makes_no_revision(story: Story, pair: tuple[str, str], shared: str) -> None:
    same = {"word": "one", "other": "line 1\nline 2"}
    story.one(pair[0], secret_set={"id": shared, "content": same})
    assert story.one(pair[0], secret_info={"label": "shared"})["revision"] == 1


def test_new_revision_reaches_the_peers(story: Story, pair: tuple[str, str], shared: str) -> None:
    leader, follower = pair
    story.one(leader, secret_get={"label": "shared"})
    mark = story.mark(*pair)
    story.one(leader, secret_set={"label": "shared", "content": {"word": "two"}})
    assert story.one(leader, secret_info={"label": "shared"})["revision"] == 2
    for unit in pair:
        assert str(story.sent(unit, "secret-changed", mark)) == "secret-changed shared"
    for unit in pair:
        assert story.one(unit, secret_get={"label": "shared"})["word"] == "one"
        assert story.one(unit, secret_get={"label": "shared", "peek": True})["word"] == "two"
    assert "secret-remove shared r1" not in story.since(mark)[leader]
    for unit in pair:
        assert story.one(unit, secret_get={"label": "shared", "refresh": True})["word"] == "two"
    assert str(story.sent(leader, "secret-remove", mark)) == "secret-remove shared r1"
    story.settle()
    assert not [e for e in story.since(mark)[follower] if e.startswith("secret-remove")]


def test_removed_revision_is_not_offered_again(
    story: Story, pair: tuple[str, str], shared: str
) -> None:
    story.one(pair[0], secret_remove={"label": "shared", "revision": 1})
    (document,) = [s for s in story.juju.secrets() if s.uri == shared]
    assert document.revision == 2
    shown = story.juju.show_secret(shared, revisions=True)
    assert [r.revision for r in shown.revisions or []] == [2]


def test_pending_secret_can_be_read_in_its_hook(story: Story, pair: tuple[str, str]) -> None:
    uri, content = story.perform(
        pair[0],
        {"secret-add": {"owner": "unit", "label": "early", "content": {"word": "now"}}},
        {"secret-get": {"label": "early"}},
    )
    assert content == {"word": "now"}
    assert uri in [s.uri for s in story.juju.secrets()]


def test_secret_of_a_failed_action_is_dropped(story: Story, pair: tuple[str, str]) -> None:
    before = len(story.juju.secrets())
    with pytest.raises(jubilant.TaskError):
        story.perform(
            pair[0],
            {"secret-add": {"owner": "app", "label": "lost", "content": {"word": "x"}}},
            {"raise": "x"},
        )
    assert len(story.juju.secrets()) == before
    assert story.attempt(pair[0], secret_get={"label": "lost"})["error"] == "SecretNotFoundError"


def test_secret_of_a_unit_is_its_own(story: Story, pair: tuple[str, str]) -> None:
    leader, follower = pair
    uri = story.one(
        follower, secret_add={"owner": "unit", "label": "own", "content": {"word": "mine"}}
    )
    assert story.one(follower, secret_get={"label": "own"}) == {"word": "mine"}
    done = story.tool(leader, "secret-get", "--format=json", uri)
    assert (done["rc"], done["err"].strip()) == (1, "ERROR permission denied")
    story.one(follower, secret_grant={"id": uri, "endpoint": "cluster", "unit": leader})
    assert story.one(leader, secret_get={"id": uri}) == {"word": "mine"}
    (document,) = [s for s in story.juju.secrets() if s.uri == uri]
    assert document.owner == follower


def test_values_by_file_and_base64(story: Story, pair: tuple[str, str]) -> None:
    done = story.tool(
        pair[0], "secret-add", "--owner", "unit", "coded#base64=aGVsbG8=", "bare=plain"
    )
    got = story.tool(pair[0], "secret-get", "--format=json", done["out"].strip())
    assert json.loads(got["out"]) == {"coded": "hello", "bare": "plain"}


def test_labels_are_unique_per_owner(story: Story, pair: tuple[str, str], shared: str) -> None:
    argv = ["secret-add", "--owner", "application", "--label", "shared", "word=x"]
    done = story.tool(pair[0], *argv)
    assert done["rc"] == 1
    assert "already exists" in done["err"]


def test_removed_secret_is_gone(story: Story, pair: tuple[str, str]) -> None:
    uri = story.one(pair[0], secret_add={"owner": "app", "content": {"word": "short"}})
    assert story.one(pair[1], secret_get={"id": uri}) == {"word": "short"}
    story.one(pair[0], secret_remove={"id": uri})
    done = story.tool(pair[1], "secret-get", "--format=json", uri)
    assert done["rc"] == 1
    assert "not found" in done["err"]


def test_expiry(story: Story, pair: tuple[str, str]) -> None:
    leader, follower = pair
    mark = story.mark(*pair)
    story.one(
        leader,
        secret_add={"owner": "app", "label": "brief", "content": {"a-word": "x"}, "expire": 2},
    )
    record = story.sent(leader, "secret-expired", mark)
    assert str(record) == "secret-expired brief r1"
    assert record.env["JUJU_SECRET_REVISION"] == "1"
    story.one(leader, secret_remove={"label": "brief"})
    assert not [e for e in story.since(mark)[follower] if e.startswith("secret-expired")]


def test_secret_of_the_user(story: Story, pair: tuple[str, str]) -> None:
    uri = story.juju.add_secret("mine", {"word": "one"})
    done = story.tool(pair[0], "secret-get", "--format=json", uri)
    assert (done["rc"], done["err"].strip()) == (1, "ERROR permission denied")
    story.juju.grant_secret(uri, "exerciser")
    mark = story.mark(*pair)
    story.juju.config("exerciser", {"token": uri})
    for unit in pair:
        story.sent(unit, "config-changed", mark)
    assert story.one(pair[0], config=True)["token"] == uri
    assert story.juju.config("exerciser")["token"] == uri
    assert story.one(pair[0], secret_get={"id": uri}) == {"word": "one"}
    mark = story.mark(*pair)
    story.juju.update_secret(uri, {"word": "two"})
    story.sent(pair[0], "secret-changed", mark)
    assert story.one(pair[0], secret_get={"id": uri, "refresh": True}) == {"word": "two"}
    shown = story.juju.show_secret(uri, reveal=True)
    assert shown.content == {"word": "two"}
    assert (shown.name, shown.owner) == ("mine", "<model>")
    story.juju.config("exerciser", reset="token")
    story.juju.remove_secret(uri)
    assert uri not in [s.uri for s in story.juju.secrets()]


def test_no_document_shows_content_unasked(story: Story, pair: tuple[str, str]) -> None:
    story.one(pair[0], secret_add={"owner": "app", "content": {"word": "hush-hush-42"}})
    for argv in (["secrets", "--format", "json"], ["status", "--format", "json"], ["show-unit"]):
        full = [*argv, pair[0], "--format", "json"] if argv == ["show-unit"] else argv
        assert "hush-hush-42" not in story.juju.cli(*full)


def test_secrets_of_a_removed_unit_are_gone(story: Story, pair: tuple[str, str]) -> None:
    follower = pair[1]
    owned = {s.uri for s in story.juju.secrets() if s.owner == follower}
    assert owned
    story.juju.remove_unit(follower)
    story.until("the unit is gone", lambda: follower not in story.units())
    assert not owned & {s.uri for s in story.juju.secrets()}
