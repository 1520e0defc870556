import json

import pytest

from tests.fakes.terminal import Terminal


def test_each_setting_is_shown_with_its_origin(
    edgeserve: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESERVE_NODE_SLOTS", "4")

    seen = edgeserve("config", "show")

    lines = [line.split() for line in seen.out.splitlines()]
    assert ["slots", "4", "environment", "EDGESERVE_NODE_SLOTS"] in lines
    assert ["port", "8080", "default"] in lines


def test_scripts_get_json(edgeserve: Terminal) -> None:
    seen = edgeserve("config", "show", "--section", "balancer", "--json")

    found = json.loads(seen.out)
    assert list(found) == ["balancer"]
    assert found["balancer"]["port"] == {"value": 8080, "origin": "default"}
    assert found["balancer"]["nodes"] == {"value": [], "origin": "default"}


def test_a_variable_with_a_typing_error_is_warned_of(
    edgeserve: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESERVE_NODE_SLTS", "4")

    seen = edgeserve("config", "show", "--section", "node", "--json")

    assert json.loads(seen.out)["node"]["slots"]["origin"] == "default"
    assert "did you mean EDGESERVE_NODE_SLOTS?" in seen.err
