import dataclasses
import json
from pathlib import Path

import pytest

from edgeserve.config.settings import BalancerSettings, NodeSettings
from edgeserve.config.sources import resolve
from edgeserve.errors import SettingsError
from tests.fakes.terminal import Terminal

FILE = """
drain_seconds = 5
[node]
slots = 3
models = ["a.gguf", "b.gguf"]
[balancer]
port = 9000
"""


def a_file(folder: Path, text: str) -> Path:
    path = folder / "edgeserve.toml"
    path.write_text(text)
    return path


def test_the_later_place_wins_and_is_remembered(tmp_path: Path) -> None:
    found = resolve(
        NodeSettings,
        file=a_file(tmp_path, FILE),
        environ={"EDGESERVE_NODE_SLOTS": "4", "EDGESERVE_NODE_CONTEXT": "512"},
        flags={"context": "1024", "threads": None, "balancers": ()},
    )

    assert (found.settings.slots, found.settings.context) == (4, 1024)
    assert found.settings.models == ("a.gguf", "b.gguf")
    assert found.origins["threads"] == "default"
    assert found.origins["models"] == f"{tmp_path / 'edgeserve.toml'} [node]"
    assert found.origins["slots"] == "environment EDGESERVE_NODE_SLOTS"
    assert found.origins["context"] == "--context"


def test_what_stands_above_the_sections_speaks_to_both(tmp_path: Path) -> None:
    file = a_file(tmp_path, FILE)

    node = resolve(NodeSettings, file=file, environ={})
    balancer = resolve(BalancerSettings, file=file, environ={})

    assert node.settings.drain_seconds == balancer.settings.drain_seconds == 5


def test_a_shared_variable_never_sets_a_port() -> None:
    found = resolve(NodeSettings, environ={"EDGESERVE_PORT": "1"})

    assert found.settings.port == 8090


def test_several_models_fit_into_one_variable() -> None:
    found = resolve(NodeSettings, environ={"EDGESERVE_NODE_MODELS": "a.gguf,b.gguf"})

    assert found.settings.models == ("a.gguf", "b.gguf")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        NodeSettings().slots = 3  # type: ignore[misc] # the point of the test


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[node\n", "is not TOML: "),
        ("[node]\nslot = 2", "[node]: unknown key `slot`; did you mean `slots`?"),
        ("drain = 2", "unknown key `drain`"),
        (
            "[node]\nslots = 'two'",
            "node.slots must be a whole number, not 'two'",
        ),
        ("[node]\nslots = -1", "node.slots must be at least 0, not -1 (from "),
        ("node = 3", "`node` must be a table, [node]"),
        ("[node]\nport = 70000", "must be between 0 and 65535"),
        ("[node]\nengine = 'vllm'", "must be one of auto, native, bundled"),
        ("[node]\ngpu_layers = 'most'", "must be auto, all or a number"),
        ("[node]\nbalancers = ['nuc:8080']", "must be URLs such as http://"),
        ("[balancer]\nqueue_seconds = 0", "must be at least 0.05, not 0"),
        ("[[routes]]\nname = 'a'", "unknown key `routes`; did you mean `route`?"),
        ("[route]\nname = 'a'", "`route` must be tables, [[route]]"),
        ("[[route]]\nname = 'a'", "[[route]] a: `models` must be a list of models'"),
        ("[[route]]\nmodels = ['a']", "[[route]] 1: `name` must be a model's name"),
        (
            "[[route]]\nname = 'a'\nmodels = ['b']\nwhen = ['busy']",
            "[[route]] a: `when` has 'busy'; it can have away, full, too-long",
        ),
        (
            "[[route]]\nname = 'a'\nmodels = ['b']\nfull_second = 3",
            "[[route]] a: unknown key `full_second`; did you mean `full_seconds`?",
        ),
        (
            "[[route]]\nname = 'a'\nmodels = ['b']\n"
            "[[route]]\nname = 'c'\nmodels = ['a']",
            "[[route]]: route c names a, which is a route itself",
        ),
    ],
)
def test_a_wrong_file_is_one_sentence_that_names_it(
    text: str, sentence: str, tmp_path: Path, edgeserve: Terminal
) -> None:
    seen = edgeserve("config", "show", "--config", str(a_file(tmp_path, text)))

    assert seen.status == 2
    assert sentence in seen.err
    assert str(tmp_path) in seen.err
    assert seen.err.count("\n") == 1


def test_routes_are_tables_of_the_file_and_shown_with_it(
    tmp_path: Path, edgeserve: Terminal
) -> None:
    file = a_file(tmp_path, "[[route]]\nname = 'Fast'\nmodels = ['Big', 'small']\n")

    seen = edgeserve("config", "show", "--config", str(file), "--json")

    shown = json.loads(seen.out)
    assert shown["balancer"]["routes"] == {
        "value": [
            {
                "name": "fast",
                "models": ["big", "small"],
                "when": ["away", "full", "too-long"],
                "full_seconds": 10.0,
            }
        ],
        "origin": str(file),
    }
    assert "routes" not in shown["node"]


def test_a_file_that_was_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        resolve(NodeSettings, file=tmp_path / "absent.toml", environ={})


@pytest.mark.parametrize("value", ["x", "-1", ""])
def test_a_wrong_variable_is_named(
    value: str, edgeserve: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESERVE_NODE_THREADS", value)

    seen = edgeserve("config", "show")

    assert seen.status == 2
    assert "EDGESERVE_NODE_THREADS" in seen.err
    assert seen.err.count("\n") == 1


@pytest.mark.parametrize("value", ["x", "-1"])
def test_a_wrong_flag_is_named(value: str, edgeserve: Terminal) -> None:
    seen = edgeserve("node", "start", "--threads", value)

    assert seen.status == 2
    assert "--threads" in seen.err
    assert seen.err.count("\n") == 1


def test_a_flag_that_does_not_exist_is_refused(edgeserve: Terminal) -> None:
    seen = edgeserve("node", "start", "--slot", "3")

    assert seen.status == 2
    assert "--slots" in seen.err
