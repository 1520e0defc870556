"""States of real engines move, and what is not right about one is refused.

Each test starts nodes of its own, which takes a minute in all: make check-caches.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgeserve.config.paths import saved_states
from tests.endpoint.caches.machines import (
    MODEL,
    Conversation,
    Machine,
    balancer,
    got,
    model,
    node,
    until,
)
from tests.native import engine_flags

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(
        "CACHES" not in os.environ, reason="starts many engines: make check-caches"
    ),
]

SLOTS = ("--slots", "2", "--context", "1024")


def post(url: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)


@dataclass(frozen=True)
class Pair:
    """Two nodes, and a state that the left one has saved."""

    left: Machine
    right: Machine
    state: dict[str, Any]
    messages: list[dict[str, str]]

    def take(self, **other: Any) -> tuple[int, dict[str, Any]]:
        """Have the right node take the state, or another one, into slot 1."""
        peer = {"id": "left", "urls": [self.left.url]}
        order = {
            "state": self.state, "peers": [peer], "engine": f"{MODEL}:Q4_1",
            "epoch": 1, "slot": 1,
        }  # fmt: skip
        return post(f"{self.right.url}/edgeserve/v1/caches/take", order | other)

    def kept(self) -> Path:
        """Return the file of the state on the right node."""
        (file,) = saved_states(self.right.state).glob("*.state")
        return file

    def asked(self, at: Machine, slot: int, question: str) -> dict[str, Any]:
        """Go on with the conversation in one slot of a node."""
        messages = [*self.messages, {"role": "user", "content": question}]
        status, answer = chat(at, slot, messages)
        assert status == 200
        return answer


def chat(
    at: Machine, slot: int, messages: list[dict[str, str]]
) -> tuple[int, dict[str, Any]]:
    return post(
        f"{at.url}/v1/chat/completions",
        {"model": MODEL, "messages": messages, "temperature": 0, "max_tokens": 24,
         "id_slot": slot},
    )  # fmt: skip


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[Machine, ...]]:
    folder = tmp_path_factory.mktemp("nodes")
    with ExitStack() as stack:
        yield tuple(
            stack.enter_context(node(name, folder, *SLOTS, *engine_flags()))
            for name in ("left", "right")
        )


@pytest.fixture
def pair(nodes: tuple[Machine, Machine]) -> Pair:
    left, right = nodes
    messages = [
        *Conversation(1, 8).messages,
        {"role": "user", "content": "How many slots has machine 3?"},
    ]
    _, answer = chat(left, 0, messages)
    timings = answer["timings"]
    held = timings["cache_n"] + timings["prompt_n"] + timings["predicted_n"] - 1
    order = {
        "engine": f"{MODEL}:Q4_1", "epoch": 1, "slot": 0, "name": "ab" * 8,
        "tokens": held, "worth": 1.0,
    }  # fmt: skip
    status, state = post(f"{left.url}/edgeserve/v1/caches/save", order)
    assert status == 200, state
    for each in saved_states(right.state).glob("*"):
        each.unlink()
    messages.append({"role": "assistant", "content": _text(answer)})
    return Pair(left, right, state, messages)


def _text(answer: dict[str, Any]) -> str:
    text: str = answer["choices"][0]["message"]["content"]
    return text


def test_a_moved_state_continues_with_the_same_text(pair: Pair) -> None:
    status, taken = pair.take()
    assert (status, taken["tokens"]) == (200, pair.state["tokens"])

    moved = pair.asked(pair.right, 1, "And machine 4?")
    stayed = pair.asked(pair.left, 0, "And machine 4?")
    anew = pair.asked(pair.left, 1, "And machine 4?")

    assert moved["timings"]["cache_n"] == pair.state["tokens"]
    assert anew["timings"]["cache_n"] < pair.state["tokens"]
    assert _text(moved) == _text(stayed) == _text(anew)


def test_only_their_owner_can_read_states(pair: Pair) -> None:
    pair.take()

    folder = saved_states(pair.right.state)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {each.stat().st_mode & 0o777 for each in folder.iterdir()} == {0o600}


def test_a_state_that_was_changed_on_the_disk_is_refused_and_removed(
    pair: Pair,
) -> None:
    pair.take()
    content = bytearray(pair.kept().read_bytes())
    content[len(content) // 2] ^= 0xFF
    pair.kept().write_bytes(content)

    status, refusal = pair.take(peers=[])

    assert (status, refusal["error"]["code"]) == (409, "state_damaged")
    assert "it has been removed" in refusal["error"]["message"]
    assert not list(saved_states(pair.right.state).glob("*"))


def test_a_state_that_became_shorter_is_refused_and_removed(pair: Pair) -> None:
    pair.take()
    os.truncate(pair.kept(), pair.kept().stat().st_size // 2)

    status, refusal = pair.take(peers=[])

    assert (status, refusal["error"]["code"]) == (409, "state_damaged")
    assert not list(saved_states(pair.right.state).glob("*"))


@pytest.mark.parametrize(
    "other", [{"content": "0" * 32}, {"build": "b1"}, {"kv_type": "q8_0"}]
)
def test_a_state_of_another_engine_is_refused(
    pair: Pair, other: dict[str, str]
) -> None:
    foreign = pair.state | {"fit": pair.state["fit"] | other}

    status, refusal = pair.take(state=foreign)

    assert (status, refusal["error"]["code"]) == (409, "state_foreign")
    assert next(iter(other.values())) in refusal["error"]["message"]


def test_a_slot_that_holds_another_text_by_now_is_not_saved(pair: Pair) -> None:
    chat(pair.left, 0, [{"role": "user", "content": "Something else."}])
    order = {
        "engine": f"{MODEL}:Q4_1", "epoch": 1, "slot": 0, "name": "cd" * 8,
        "tokens": pair.state["tokens"],
    }  # fmt: skip

    status, refusal = post(f"{pair.left.url}/edgeserve/v1/caches/save", order)

    assert (status, refusal["error"]["code"]) == (409, "state_stale")


def test_an_engine_that_has_restarted_is_not_asked(pair: Pair) -> None:
    status, refusal = pair.take(epoch=7)

    assert (status, refusal["error"]["code"]) == (409, "state_stale")


def test_conversations_of_a_node_that_drains_go_on_where_they_are_fetched(
    tmp_path: Path,
) -> None:
    flags = (*SLOTS, *engine_flags())
    with ExitStack() as stack:
        first, other = (
            stack.enter_context(node(name, tmp_path, *flags)) for name in ("a", "b")
        )
        front = stack.enter_context(balancer(tmp_path, first, other))
        talks = [Conversation(number, 12) for number in range(2)]
        begun = [each.ask(front.url, "How many slots has machine 3?") for each in talks]
        by_name = {"a": first, "b": other}
        leaves, stays = begun[0].node, "b" if begun[0].node == "a" else "a"
        by_name[leaves].drain()
        until(lambda: not got(f"{by_name[leaves].url}/health"), "it has ended")

        there = [each.node for each in begun]
        went = [each.ask(front.url, "And machine 4?") for each in talks]

    for before, after in zip(there, went, strict=True):
        if before == leaves:
            assert after.node == stays
            assert after.cached > 150


def test_a_conversation_comes_back_from_the_disk_after_its_engine_restarted(
    tmp_path: Path,
) -> None:
    with ExitStack() as stack:
        only = stack.enter_context(
            node(
                "only",
                tmp_path,
                *("--slots", "1", "--context", "1024"),
                *engine_flags(),
            )
        )
        front = stack.enter_context(balancer(tmp_path, only))
        talk, another = Conversation(1, 16), Conversation(2, 16)
        talk.ask(front.url, "How many slots has machine 3?")
        another.ask(front.url, "How many slots has machine 3?")  # takes its slot
        only.engine().kill()

        def again() -> bool:
            (engine,) = got(f"{only.url}/edgeserve/v1/node")["engines"]
            return bool(engine["epoch"] == 2 and engine["state"] == "ready")

        until(again, "the engine has restarted")
        turn = talk.ask(front.url, "And machine 4?")
        record = got(f"{front.url}/edgeserve/v1/requests/{turn.id}")

    assert turn.cached > 200
    move = record["attempts"][0]["cache_move"]
    assert (move["outcome"], move["why"]) == ("moved", "from the disk")
    assert move["predicted_seconds"] < move["read_anew_seconds"]


def test_a_conversation_goes_on_after_its_model_was_unloaded(tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / model().name).symlink_to(model())
    with ExitStack() as stack:
        only = stack.enter_context(
            node("only", tmp_path, *SLOTS, *engine_flags(), models=models)
        )
        front = stack.enter_context(balancer(tmp_path, only))
        talk = Conversation(1, 16)
        talk.ask(front.url, "How many slots has machine 3?")
        (engine,) = got(f"{only.url}/edgeserve/v1/node")["engines"]
        status, _ = post(
            f"{only.url}/edgeserve/v1/engines/unload", {"engine": engine["id"]}
        )
        assert status == 202

        def unloaded() -> bool:
            (engine,) = got(f"{only.url}/edgeserve/v1/node")["engines"]
            return bool(engine["state"] == "absent")

        until(unloaded, "it is unloaded")
        turn = talk.ask(front.url, "And machine 4?")

    assert turn.cached > 200
