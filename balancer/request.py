"""Inference requests: read from a client once, written anew for a node. Pure.

The body passes as it came, apart from named edits: `model` becomes the variant that was
chosen, `id_slot` and `lora` go (they speak of one engine's insides), and generation is
made to stream, so that it can be cancelled and tried elsewhere.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import msgspec

from balancer.dialects import prompt
from balancer.dialects.prompt import EMPTY
from balancer.routing.decision import RoutingRequest
from balancer.validation.abilities import media
from balancer.validation.limits import CAPS, Caps, check
from balancer.validation.translation import is_forced, translated
from edgeserve.errors import BadRequest
from edgeserve.json_edit import edited, raw_fields
from edgeserve.openai import Dialect, RequestFields, Route, normal, read
from edgeserve.wire import REQUEST_HEADER, Ability, EngineReport

Mode = Literal["stream", "aggregate", "whole"]
"""How the answer travels: as the stream the client asked for; as a stream that is put
together here; or as the whole body that the engine sends."""

TELLING: frozenset[Dialect] = frozenset(("chat", "completion", "native", "responses"))
"""Streams that can say how far the prompt is read, in events that stand alone."""

PROMPTED: frozenset[Dialect] = frozenset(("completion", "native"))
"""Routes that may be given several prompts at once."""

TOOLS: frozenset[Ability] = frozenset(("tools",))

STRIPPED = ("id_slot", "lora")

SESSION_HEADERS = ("x-session-id", "x-conversation-id", "x-session-affinity")
"""Where clients name a conversation; no client need do so."""

BYTES_PER_TOKEN = 4

SHORT = 32
"""Tokens of an answer that is not worth streaming to ourselves: so little is lost with
an engine that dies, or made for a client that has left."""

_MILLISECONDS = re.compile(r"0*[1-9][0-9]{0,9}")
_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


@dataclass(slots=True, kw_only=True)
class InferenceRequest:
    """One request, read and understood.

    `tells`: the client itself wants to hear how far the engine has read. `answers` is
    how many it is to get. `filtered`: of their last events it wants some fields only.
    `put`: fields of its own that are said otherwise.
    """

    route: Route
    body: bytes
    mode: Mode
    need: RoutingRequest
    tells: bool = False
    answers: int = 1
    filtered: bool = False
    put: Mapping[str, object] = field(default_factory=dict[str, object])

    @property
    def dialect(self) -> Dialect:
        """How its answer streams."""
        return self.route.dialect

    @property
    def tells_us(self) -> bool:
        """Whether the engine is asked to say how far it has read."""
        return self.mode != "whole" and self.dialect in TELLING

    def as_it_is(self) -> InferenceRequest:
        """Return the same, to be asked without streaming."""
        return replace(self, mode="whole")

    def longer(self, than: int) -> InferenceRequest:
        """Return the same, for an engine with a longer context than that."""
        return replace(self, need=msgspec.structs.replace(self.need, too_short=than))

    def body_for(self, engine: EngineReport, slot: int | None = None) -> bytes:
        """Return the body with the named edits. `slot` is one of the engine's."""
        if self.route.method == "GET":
            return b""
        put: dict[str, object] = {**self.put, "model": engine.variant}
        if self.tells_us:
            put["return_progress"] = True
        if self.mode == "aggregate":
            put["stream"] = True
            if self.dialect in {"chat", "completion"}:
                put["stream_options"] = {"include_usage": True}
        if slot is None:
            return edited(self.body, put=put, drop=STRIPPED)
        return edited(self.body, put={**put, "id_slot": slot}, drop=("lora",))


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: client, session if named; `deadline`, `floor`: see `RoutingRequest`."""

    client: str = ""
    session: str = ""
    deadline: float | None = None
    floor: str = ""


NOBODY = Caller()


def understood(
    route: Route,
    body: bytes,
    caller: Caller = NOBODY,
    key: bytes = b"",
    caps: Caps = CAPS,
) -> InferenceRequest:
    """Read a request's body, or raise BadRequest naming what is wrong.

    `key` is for the hashes of its prompt; `caps` are those on what constrains answers.
    """
    asked, body = read(body)
    check(asked, caps)
    generates = route.dialect != "plain"
    return InferenceRequest(
        route=route,
        body=body,
        mode=_mode(route, asked, body),
        need=RoutingRequest(
            model=normal(asked.model or ""),
            ability=route.needs,
            slots=_slots(route, asked, generates=generates),
            tokens=len(body) // BYTES_PER_TOKEN if generates else 0,
            also=_also(asked, body),
            generates=generates,
            prompt=prompt.read(body, key) if generates else EMPTY,
            budget=asked.budget,
            client=caller.client,
            session=caller.session,
            deadline=caller.deadline,
            floor=caller.floor,
        ),
        tells=bool(asked.return_progress),
        answers=asked.answers if route.dialect in PROMPTED else asked.each,
        filtered=route.dialect == "native" and bool(asked.response_fields),
        put=translated(route.dialect, asked, body),
    )


def _slots(route: Route, asked: RequestFields, *, generates: bool) -> int:
    if not route.slot:
        return 0
    return asked.each if generates else 1


def _also(asked: RequestFields, body: bytes) -> frozenset[Ability]:
    prompt, choice = memoryview(asked.prompt), asked.tool_choice
    plain = bytes(prompt[:1]) in {b"", b'"'}
    needs = media(body, b"" if plain else bytes(prompt))
    return needs | TOOLS if choice and is_forced(choice) else needs


def _mode(route: Route, asked: RequestFields, body: bytes) -> Mode:
    if route.dialect == "plain":
        return "whole"
    if asked.stream:
        return "stream"
    if asked.budget is not None and asked.budget <= SHORT:
        return "whole"
    return "aggregate" if _can_be_put_together(raw_fields(body)) else "whole"


def _can_be_put_together(fields: Mapping[str, msgspec.Raw]) -> bool:
    """Whether a stream holds all that the whole body would.

    llama.cpp streams no probabilities or ids of tokens whose text it holds back,
    filters `response_fields` in the last event only, and leaves out an assistant's
    words that the caller sent ahead.
    """
    lossy = ("logprobs", "top_logprobs", "n_probs", "return_tokens", "response_fields")
    if any(_truthy(fields.get(key)) for key in lossy):
        return False
    if _truthy(fields.get("continue_final_message")):
        return False
    return not any(
        _ends_with_assistant(fields.get(key)) for key in ("messages", "input")
    )


def _truthy(raw: msgspec.Raw | None) -> bool:
    try:
        return raw is not None and bool(msgspec.json.decode(raw))
    except RecursionError:  # there is something in it
        return True


class _Turn(msgspec.Struct):
    role: Any = None


def _ends_with_assistant(raw: msgspec.Raw | None) -> bool:
    try:
        turns = msgspec.json.decode(raw or b"[]", type=list[_Turn])
    except (msgspec.ValidationError, RecursionError):
        return False
    return bool(turns) and turns[-1].role == "assistant"


def session_of(received: Mapping[str, str]) -> str:
    """Return the name of the conversation, where the client gives one."""
    return next((received[each] for each in SESSION_HEADERS if each in received), "")


def request_id(received: Mapping[str, str]) -> str:
    """Keep the caller's id where it is sane, else make one."""
    given = received.get(REQUEST_HEADER)
    if given is not None and _SANE_ID.fullmatch(given):
        return given
    return f"req-{secrets.token_hex(8)}"


def deadline_seconds(received: Mapping[str, str]) -> float | None:
    """Read how long the caller is ready to wait for an answer to begin."""
    given = received.get("x-edgeserve-deadline-ms")
    if given is None:
        return None
    if not _MILLISECONDS.fullmatch(given):
        raise BadRequest(
            f"x-edgeserve-deadline-ms is {given[:80]!r}; it must be a number of"
            " milliseconds, of ten digits at most"
        )
    return int(given) / 1000
