"""Inference requests: read once from the client, written for each node. Pure.

The body passes unchanged except for named edits: `model` becomes the chosen variant,
`id_slot` and `lora` are removed (their meaning differs by engine), and generation is
made to stream, so that it can be cancelled and retried.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec
from msgspec import structs

from balancer.dialects import DIALECTS, prompt
from balancer.dialects.base import Dialect
from balancer.dialects.prompt import EMPTY
from balancer.routing.decision import Resumes, RoutingRequest
from balancer.validation.abilities import media
from balancer.validation.grammar_text import Caps
from balancer.validation.limits import CAPS, check, check_messages
from balancer.validation.media_urls import check_media
from balancer.validation.translation import is_forced, translated
from edgeserve.errors import BadRequest
from edgeserve.json_edit import edited, raw_fields
from edgeserve.openai import RequestFields, Route, normal, read
from edgeserve.servers.profiles import profile_of
from edgeserve.servers.requests import called, ends_with_assistant, portable_body
from edgeserve.wire import REQUEST_HEADER, Ability, EngineReport

Mode = Literal["stream", "aggregate", "whole"]
"""How the answer arrives: as the stream that the client asked for; as a stream that is
aggregated here; or as a whole body from the engine."""

TOOLS: frozenset[Ability] = frozenset(("tools",))

STRIPPED = ("id_slot", "lora")

PORTABLE = frozenset(("/v1/chat/completions", "/v1/completions", "/v1/embeddings"))
"""Routes that every server with OpenAI's API may have."""

OPENAI_BUDGETS = ("max_tokens", "max_completion_tokens")

SESSION_HEADERS = ("x-session-id", "x-conversation-id", "x-session-affinity")
"""Headers in which a client may name a conversation."""

BYTES_PER_TOKEN = 4

CONVERSATIONS = frozenset(("chat", "messages"))
"""The dialects whose requests are lists of messages."""

SHORT = 32
"""Tokens of an answer that is requested whole: little is lost if the engine dies or the
client leaves."""

_MILLISECONDS = re.compile(r"0*[1-9][0-9]{0,9}")
_VALID_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


class InferenceRequest(msgspec.Struct, kw_only=True):
    """One request, parsed and validated.

    `wants_progress`, `wants_usage`: the client asked for it. `ends`: how many ends the
    stream has. `filtered`: see `Dialect.filters_end`. `edits`: fields with translated
    values.
    """

    route: Route
    dialect: type[Dialect]
    body: bytes
    mode: Mode
    routing: RoutingRequest
    wants_progress: bool = False
    wants_usage: bool = False
    ends: int = 1
    filtered: bool = False
    edits: Mapping[str, object] = {}

    @property
    def asks_for_progress(self) -> bool:
        """Whether the engine is asked to report progress."""
        return self.mode != "whole" and self.dialect.reports_progress

    def not_streamed(self) -> InferenceRequest:
        """Return the same request, not streamed by the engine."""
        return structs.replace(self, mode="whole")

    def resuming(self, resumes: Resumes) -> InferenceRequest:
        """Return the same request, for engines that go on in such a way."""
        routing = structs.replace(self.routing, resumes=resumes)
        return structs.replace(self, routing=routing)

    def for_longer_context(self, than: int) -> InferenceRequest:
        """Return the same request, for an engine with a longer context than that."""
        return structs.replace(
            self, routing=structs.replace(self.routing, too_short=than)
        )

    def body_for(self, engine: EngineReport, slot: int | None = None) -> bytes:
        """Return the body with the named edits; `slot` is a slot of the engine."""
        if self.route.method == "GET":
            return b""
        if engine.kind == "server":
            return self._body_for_server(engine)
        return self.body_of(engine.variant, slot)

    def body_of(self, model: str, slot: int | None = None) -> bytes:
        """Return the body for llama.cpp."""
        put: dict[str, object] = {**self.edits, "model": model}
        if self.asks_for_progress:
            put["return_progress"] = True
        if self.mode == "aggregate":
            put["stream"] = True
            if self.dialect.usage_on_request:
                put["stream_options"] = {"include_usage": True}
        if slot is None:
            return edited(self.body, put=put, drop=STRIPPED)
        return edited(self.body, put={**put, "id_slot": slot}, drop=("lora",))

    def _body_for_server(self, engine: EngineReport) -> bytes:
        """Return the body for a server that is no node."""
        if profile_of(engine).llama_cpp:
            return self.body_of(called(engine))
        put: dict[str, object] = {**self.edits}
        if self.mode != "whole":
            put |= {"stream": True, "stream_options": {"include_usage": True}}
        given = raw_fields(self.body)
        if "n_predict" in given and given.keys().isdisjoint(OPENAI_BUDGETS):
            put["max_tokens"] = self.routing.budget
        return portable_body(self.body, engine, put)


def read_request(
    route: Route,
    body: bytes,
    key: bytes = b"",
    caps: Caps = CAPS,
    *,
    client: str = "",
    session: str = "",
    deadline: float | None = None,
    floor: str = "",
    priority: int = 0,
) -> InferenceRequest:
    """Parse and validate a request body. Raises BadRequest.

    `key`: for the hashes of the prompt. `caps`: limits of grammars and schemas. For the
    rest see `RoutingRequest`.
    """
    request, body = read(body)
    check(request, caps)
    check_media(body, caps.media_hosts)
    if route.dialect in CONVERSATIONS:
        check_messages(request.messages)
    dialect, budget = DIALECTS[route.dialect], request.budget
    if request.answers > caps.entries:
        raise BadRequest(
            f"{request.answers} answers are requested; the limit is {caps.entries}"
            " (`list_entries`)"
        )
    return InferenceRequest(
        route=route,
        dialect=dialect,
        body=body,
        mode=_mode(dialect, request, budget, body),
        routing=RoutingRequest(
            model=normal(request.model or ""),
            ability=route.needs,
            slots=_slots(route, request, generates=dialect.streams),
            tokens=len(body) // BYTES_PER_TOKEN if dialect.streams else 0,
            extra_abilities=_extra_abilities(request, body),
            generates=dialect.streams,
            prompt=prompt.read(body, key) if dialect.streams else EMPTY,
            budget=budget,
            client=client,
            session=session,
            deadline=deadline,
            floor=floor,
            priority=priority,
            portable=_portable(route, request),
            path=route.path,
        ),
        wants_progress=bool(request.return_progress),
        wants_usage=_wants_usage(request),
        ends=dialect.ends(request),
        filtered=dialect.filters_end(request),
        edits=translated(dialect, request, body),
    )


def _portable(route: Route, request: RequestFields) -> bool:
    """Whether any server with OpenAI's API can answer it."""
    llama = request.grammar or request.json_schema or request.n_probs
    return route.path in PORTABLE and not (llama or request.response_fields)


def _wants_usage(request: RequestFields) -> bool:
    options = request.stream_options
    return isinstance(options, dict) and bool(options.get("include_usage"))


def _slots(route: Route, request: RequestFields, *, generates: bool) -> int:
    if not route.slot:
        return 0
    return request.each if generates else 1


def _extra_abilities(request: RequestFields, body: bytes) -> frozenset[Ability]:
    needs, choice = media(body, request.prompt), request.tool_choice
    return needs | TOOLS if choice and is_forced(choice) else needs


def _mode(
    dialect: type[Dialect], request: RequestFields, budget: int | None, body: bytes
) -> Mode:
    if not dialect.streams:
        return "whole"
    if request.stream:
        return "stream"
    if budget is not None and budget <= SHORT:
        return "whole"
    return "aggregate" if _can_be_aggregated(raw_fields(body)) else "whole"


def _can_be_aggregated(fields: Mapping[str, msgspec.Raw]) -> bool:
    """Whether a stream contains everything that the whole body would.

    llama.cpp does not stream probabilities or ids of tokens whose text it holds back,
    filters `response_fields` in the last event only, and leaves out the assistant's
    text that the client sent.
    """
    lossy = ("logprobs", "top_logprobs", "n_probs", "return_tokens", "response_fields")
    if any(_truthy(fields.get(key)) for key in lossy):
        return False
    if _truthy(fields.get("continue_final_message")):
        return False
    return not any(
        ends_with_assistant(fields.get(key)) for key in ("messages", "input")
    )


def _truthy(raw: msgspec.Raw | None) -> bool:
    try:
        return raw is not None and bool(msgspec.json.decode(raw))
    except RecursionError:  # nested too deeply to be empty
        return True


def session_of(received: Mapping[str, str]) -> str:
    """Return the conversation that the client names, or an empty string."""
    for each in SESSION_HEADERS:
        if each in received:
            return received[each]
    return ""


def request_id(received: Mapping[str, str]) -> str:
    """Keep the client's id where it is valid, else generate one."""
    given = received.get(REQUEST_HEADER)
    if given is not None and _VALID_ID.fullmatch(given):
        return given
    return fresh_id()


def fresh_id() -> str:
    """Return an id that no other request has."""
    return f"req-{next(_ids)}"


def _random_ids() -> Iterator[str]:
    """Yield 16 random hex digits; the system is asked once for many."""
    while True:
        digits = secrets.token_hex(2048)
        for at in range(0, len(digits), 16):
            yield digits[at : at + 16]


_ids = _random_ids()


def deadline_seconds(received: Mapping[str, str]) -> float | None:
    """Read how long the client is ready to wait until the answer begins."""
    given = received.get("x-edgeserve-deadline-ms")
    if given is None:
        return None
    if not _MILLISECONDS.fullmatch(given):
        raise BadRequest(
            f"x-edgeserve-deadline-ms is {given[:80]!r}; it must be a number of"
            " milliseconds, of ten digits at most"
        )
    return int(given) / 1000
