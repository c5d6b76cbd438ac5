"""The reference lists every option, action, binding and storage that the charm has."""

from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).parent.parent.parent
PAGE = (REPO / "docs/reference/configuration.md").read_text()


def names() -> list[str]:
    charm = yaml.safe_load((REPO / "charmcraft.yaml").read_text())
    options = yaml.safe_load((REPO / "config.yaml").read_text())["options"]
    actions = yaml.safe_load((REPO / "actions.yaml").read_text())
    return [*options, *actions, *charm.get("extra-bindings", {}), *charm["storage"]]


@pytest.mark.parametrize("name", names())
def test_it_is_in_the_reference(name: str):
    assert f"| `{name}` |" in PAGE


def test_every_action_is_closed_and_described():
    for name, action in yaml.safe_load((REPO / "actions.yaml").read_text()).items():
        assert action["additionalProperties"] is False, name
        assert action["description"], name


def test_every_option_has_type_default_and_description():
    options = yaml.safe_load((REPO / "config.yaml").read_text())["options"]
    for name, option in options.items():
        assert {"type", "default", "description"} <= option.keys(), name
