"""The parts of deploy/ray that need no Ray; `make check-servers` runs the rest."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from edgeserve_ray.answers import error_event, model_list
from edgeserve_ray.engine import RunningEngine, command_of
from edgeserve_ray.settings import (
    EngineSettings,
    LlamaCppSettings,
    VllmSettings,
    settings_of,
)

FOLDER = Path(__file__).parents[2] / "deploy" / "ray"


def arguments(name: str) -> dict[str, str]:
    """Return the `args` of an example, the last mapping of its file, as texts."""
    text = (FOLDER / name).read_text().partition("    args:\n")[2]
    return dict(re.findall(r"^ {6}(\w+): (.*?)(?: +#.*)?$", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("llama-cpp.yaml", LlamaCppSettings), ("vllm.yaml", VllmSettings)],
)
def test_the_examples_are_accepted(name: str, kind: type[EngineSettings]) -> None:
    given = arguments(name)

    settings = settings_of(kind, given)

    assert len(given) > 4
    assert settings.max_replicas == 4


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": "m", "slot": "3"}, "unknown argument `slot`; known: model, name"),
        ({"model": "m", "slots": "many"}, "slots"),
        ({"model": "m", "slots": 0}, "`slots` must be at least 1"),
        ({"model": "m", "min_replicas": 3}, "`min_replicas` must be between 0 and"),
        ({"model": ""}, "`model` must name a model"),
        ({}, "model"),
    ],
)
def test_a_wrong_argument_is_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        settings_of(LlamaCppSettings, given)


def test_readme_has_every_argument() -> None:
    text = (FOLDER / "README.md").read_text()

    fields = {*LlamaCppSettings.__struct_fields__, *VllmSettings.__struct_fields__}
    assert {name for name in fields if f"`{name}`" not in text} == set()


@pytest.mark.parametrize(
    ("given", "served"),
    [
        ({"model": "/m/Small-Q4_K_M.gguf"}, "Small-Q4_K_M"),
        ({"model": "Qwen/Small/"}, "Small"),
        ({"model": "/m/x.gguf", "name": "small"}, "small"),
    ],
)
def test_a_model_is_served_by_its_own_name(given: dict[str, str], served: str) -> None:
    settings = settings_of(LlamaCppSettings, given)
    (card,) = model_list(settings)["data"]

    assert (card["id"], card["max_model_len"]) == (served, 4096)


def test_vllm_listens_on_loopback_and_its_key_is_not_in_its_arguments() -> None:
    settings = VllmSettings(model="Qwen/Small", flags="--dtype 'float 32'")

    command = command_of(settings, 9000, "secret")

    argv = " ".join(command.argv)
    assert "serve Qwen/Small --served-model-name Small --host 127.0.0.1" in argv
    assert "secret" not in argv
    assert command.argv[-1] == "float 32"
    assert command.env == {"VLLM_API_KEY": "secret"}


def test_a_stream_that_cannot_go_on_ends_in_an_error() -> None:
    event = error_event("it ended")

    assert json.loads(event.removeprefix(b"data: "))["error"]["code"] == 502
    assert event.endswith(b"\n\n")


def test_an_engine_that_cannot_load_says_so_and_is_gone(tmp_path: Path) -> None:
    missing = LlamaCppSettings(model=str(tmp_path / "missing.gguf"), start_seconds=60)

    with pytest.raises(RuntimeError, match="the engine ended with status"):
        RunningEngine(missing)
