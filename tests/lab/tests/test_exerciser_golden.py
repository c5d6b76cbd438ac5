"""A whole life of an application, and every event each of its units is sent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.exerciser.story import Story
from lab.pack import pack

EXERCISER = Path(__file__).resolve().parents[1] / "exerciser"
GOLDEN = json.loads((EXERCISER / "golden.json").read_text())


def newer_charm(tmp: Path) -> Path:
    """Pack the exerciser with another version number."""
    source = tmp / "exerciser"
    shutil.copytree(EXERCISER / "exerciser", source, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(EXERCISER / "requirements.txt", tmp)
    charm = source / "src" / "charm.py"
    charm.write_text(charm.read_text().replace("VERSION = 1", "VERSION = 2"))
    return pack(source, tmp / "newer.charm")


class Life:
    """The steps of the golden log."""

    def __init__(self, story: Story, deploy: Callable[..., None], tmp: Path) -> None:
        self.story = story
        self.deploy = deploy
        self.tmp = tmp
        self.lost = ""  # the chapter that went wrong: those after it would only repeat that
        name = "log-dir"
        self.config = {name: str(story.log_dir)}

    def write(self, unit: str, endpoint: str, of: str, text: str) -> None:
        self.story.one(unit, set={"endpoint": endpoint, "of": of, "data": {"word": text}})

    def do(self, step: str) -> None:
        juju = self.story.juju
        steps: dict[str, Callable[[], object]] = {
            "deploy": lambda: self.deploy("exerciser"),
            "second unit": lambda: juju.add_unit("exerciser"),
            "third unit": lambda: juju.add_unit("exerciser"),
            "follower writes its bag": lambda: self.write("exerciser/1", "cluster", "unit", "a"),
            "follower writes the same again": self.write_again,
            "leader writes the application's bag": lambda: self.write(
                "exerciser/0", "cluster", "app", "b"
            ),
            "config": lambda: juju.config("exerciser", {"greeting": "hullo"}),
            "same config": lambda: juju.config("exerciser", {"greeting": "hullo"}),
            "refresh": lambda: juju.refresh("exerciser", path=newer_charm(self.tmp)),
            "integrate": self.integrate,
            "visitor writes its application's bag": lambda: self.write(
                "visitor/0", "host", "app", "c"
            ),
            "remove the relation": lambda: juju.remove_relation("exerciser:visit", "visitor"),
            "remove a follower": lambda: juju.remove_unit("exerciser/2"),
            "remove the leader": lambda: juju.remove_unit("exerciser/0"),
            "remove the application": lambda: juju.remove_application("exerciser"),
        }
        steps[step]()

    def write_again(self) -> None:
        """Write past ops, which would not even send a value that is there already."""
        env = self.story.last("exerciser/1", "cluster-relation-created").env
        done = self.story.tool(
            "exerciser/1", "relation-set", "-r", env["JUJU_RELATION_ID"], "word=a"
        )
        assert done["rc"] == 0

    def integrate(self) -> None:
        self.story.juju.integrate("exerciser:visit", "visitor:host")

    def wait(self, expected: dict[str, list[str]], mark: dict[str, int]) -> None:
        """Wait until each unit was sent as many events as expected, and no more come."""

        def enough() -> bool:
            found = self.story.since(mark)
            return all(len(found[unit]) >= len(events) for unit, events in expected.items())

        try:
            self.story.until("the expected number of events", enough, 30)
        except AssertionError:
            return  # the comparison will tell what is missing
        self.story.settle()


@pytest.fixture(scope="module")
def life(
    story: Story, deploy: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Life:
    deploy("visitor")
    story.sent("visitor/0", "start")
    return Life(story, deploy, tmp_path_factory.mktemp("newer"))


@pytest.mark.parametrize("chapter", GOLDEN, ids=[g["step"].replace(" ", "-") for g in GOLDEN])
def test_events_are_those_of_the_golden_log(life: Life, chapter: dict) -> None:
    if life.lost:
        pytest.fail(f"the story was lost in the chapter {life.lost!r}")
    life.lost = chapter["step"]
    expected = chapter["events"]
    mark = life.story.mark(*expected)
    life.do(chapter["step"])
    life.wait(expected, mark)
    found = life.story.since(mark)
    for unit in chapter.get("unordered", []):
        found[unit], expected[unit] = sorted(found[unit]), sorted(expected[unit])
    assert found == expected
    life.lost = ""


def test_refreshed_units_ran_the_new_code(life: Life) -> None:
    versions = {record.event: record.line["version"] for record in life.story.lines("exerciser/1")}
    assert (versions["install"], versions["upgrade-charm"]) == (1, 2)


def test_start_is_not_repeated_by_a_refresh(life: Life) -> None:
    assert life.story.events("exerciser/1").count("start") == 1


def test_the_application_is_gone(life: Life) -> None:
    apps = life.story.juju.status
    life.story.until("the application is gone", lambda: "exerciser" not in apps().apps)
    assert set(apps().apps) == {"visitor"}


def test_survivors_learn_of_a_departure_at_once(life: Life) -> None:
    """In 3.6 the survivors' departed does not wait for the leaver's remove."""
    (departed,) = [
        record
        for record in life.story.lines("exerciser/1")
        if str(record) == "cluster-relation-departed exerciser/2 (exerciser/2 departs)"
    ]
    assert departed.time < life.story.last("exerciser/2", "remove").time
