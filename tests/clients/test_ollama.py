"""Ollama's Python package, against the balancer's `/api/…`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator
from typing import Any

import pytest

from tests.clients.conftest import (
    ASK,
    CITY,
    LIMIT_SECONDS,
    MODEL,
    TOOLS,
    WRONG,
    Fleet,
    client,
)

ollama = client("ollama")

EXACT = {"temperature": 0, "num_predict": 12}
CALL = {"temperature": 0, "num_predict": 60}
ON_DEMAND = "tiny"


def asking(fleet: Fleet, key: str) -> Any:
    headers = {"Authorization": f"Bearer {key}"}
    return ollama.Client(fleet.url, headers=headers, timeout=LIMIT_SECONDS)


@pytest.fixture
def sdk(fleet: Fleet) -> Generator[Any]:
    with asking(fleet, fleet.key) as found:
        yield found


def test_models_are_listed_shown_and_seen_in_memory(sdk: Any) -> None:
    listed = {each.model for each in sdk.list().models}
    shown = sdk.show(MODEL)

    assert {f"{MODEL}:latest", f"{ON_DEMAND}:latest"} <= listed
    assert {"completion", "tools", "embedding"} <= set(shown.capabilities)
    assert shown.details.format == "gguf"
    assert f"{MODEL}:latest" in {each.model for each in sdk.ps().models}


def test_a_stream_says_the_same_and_counts_the_same(sdk: Any) -> None:
    kinds: list[tuple[Any, Any, Callable[[Any], str]]] = [
        (sdk.chat, ASK, lambda each: each.message.content or ""),
        (sdk.generate, "Say hello.", lambda each: each.response),
    ]
    for function, given, text in kinds:
        whole = function(MODEL, given, options=EXACT)
        lines = list(function(MODEL, given, options=EXACT, stream=True))

        assert text(whole) == "".join(map(text, lines))
        assert lines[-1].done_reason == whole.done_reason == "length"
        assert lines[-1].eval_count == whole.eval_count == 12


def test_a_tool_is_called_and_its_result_is_taken(sdk: Any) -> None:
    whole = sdk.chat(MODEL, ASK, tools=TOOLS, options=CALL)
    lines = list(sdk.chat(MODEL, ASK, tools=TOOLS, options=CALL, stream=True))
    calls = [call for each in lines for call in each.message.tool_calls or ()]

    for call in (*whole.message.tool_calls, *calls):
        assert call.function.name == "weather"
        assert call.function.arguments["city"] in {"Paris", "Rome"}
    result = {"role": "tool", "tool_name": "weather", "content": "rain"}
    told = [*ASK, whole.message, result]
    assert sdk.chat(MODEL, told, tools=TOOLS, options=EXACT).message.content


def test_a_format_is_kept(sdk: Any) -> None:
    schema = sdk.chat(MODEL, ASK, format=CITY, options=CALL)
    free = sdk.generate(MODEL, "A city as JSON.", format="json", options=CALL)

    assert set(json.loads(schema.message.content)) == {"city"}
    assert free.response.lstrip().startswith("{")


def test_embeddings_come_for_one_and_for_several(sdk: Any) -> None:
    found = sdk.embed(MODEL, ["a cat", "a dog"])
    short = sdk.embed(MODEL, "a cat", dimensions=64)
    old = sdk.embeddings(MODEL, "a cat")

    assert [len(each) for each in found.embeddings] == [576, 576]
    assert len(short.embeddings[0]) == 64
    assert len(old.embedding) == 576


def test_think_and_the_context_are_taken_where_they_have_no_effect(sdk: Any) -> None:
    """Many clients send both with each request, to models of any kind."""
    options = {**EXACT, "num_ctx": 2048}
    for think in (True, False):
        assert sdk.chat(MODEL, ASK, think=think, options=options).message.content


def test_refusals_are_its_errors_with_a_status(fleet: Fleet, sdk: Any) -> None:
    with (
        asking(fleet, WRONG) as stranger,
        pytest.raises(ollama.ResponseError) as refused,
    ):
        stranger.list()
    for stream in (False, True):
        with pytest.raises(ollama.ResponseError, match="nothing-like-it") as missing:
            list(sdk.chat("nothing-like-it", ASK, stream=stream))
        assert missing.value.status_code == 404

    assert refused.value.status_code == 401


def test_a_stream_that_is_left_frees_its_slot(sdk: Any) -> None:
    for _ in range(3):  # more than there are slots
        stream = sdk.chat(MODEL, ASK, stream=True)
        next(stream)
        stream.close()

    assert sdk.chat(MODEL, ASK, options=EXACT).done


def test_keep_alive_loads_keeps_and_unloads_a_model(fleet: Fleet) -> None:
    """Only with an admin key: others share the fleet, and must not empty it."""
    with asking(fleet, fleet.admin) as sdk:
        loaded = sdk.generate(ON_DEMAND, keep_alive="10m")
        assert loaded.done
        assert f"{ON_DEMAND}:latest" in {each.model for each in sdk.ps().models}
        _until(lambda: _kept(fleet) == 600)
        sdk.chat(ON_DEMAND, ASK, options={"num_predict": 1}, keep_alive=-1)
        _until(lambda: _kept(fleet) == 0)
        sdk.generate(ON_DEMAND, keep_alive=0)
        name = f"{ON_DEMAND}:latest"
        _until(lambda: name not in {each.model for each in sdk.ps().models})


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _kept(fleet: Fleet) -> float | None:
    """Return after how many idle seconds the node unloads it, 0 for never."""
    (node,) = fleet.get("/edgeserve/v1/nodes")
    told = {each["model"]: each for each in node["report"]["desired"]}
    kept: float | None = told.get(ON_DEMAND, {}).get("keep_alive")
    return kept
