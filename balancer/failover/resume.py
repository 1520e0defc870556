"""Stream resumption: decide how a broken answer goes on, or that it cannot. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from balancer.dialects import DIALECTS
from balancer.dialects.base import CannotResume, Dialect, Transcript
from balancer.dialects.stream import StreamObserver
from balancer.dialects.transcript import read_transcript
from balancer.dialects.usage import TokenCount
from balancer.failover.splice import Splice
from balancer.servers.stream import ServerEvents
from edgeserve import openai
from edgeserve.errors import BadRequest
from edgeserve.http.sse import EventReader
from edgeserve.json_edit import edited
from edgeserve.openai import prompts
from edgeserve.servers.profiles import profile_of
from edgeserve.servers.requests import called, portable_body
from edgeserve.wire import EngineReport

Body = dict[str, Any]


def why_not(request: Body) -> str | None:
    """Return why an answer to this request cannot be continued, None if it can."""
    for reason, holds in _REASONS.items():
        if holds(request):
            return reason
    return None


def _several_answers(request: Body) -> bool:
    return any((request.get(name) or 1) != 1 for name in ("n", "n_cmpl", "best_of"))


def _several_prompts(request: Body) -> bool:
    return prompts(request.get("prompt")) > 1


def _probabilities(request: Body) -> bool:
    return any(request.get(name) for name in ("logprobs", "n_probs", "top_logprobs"))


def _constrained(request: Body) -> bool:
    if request.get("grammar") or request.get("json_schema") is not None:
        return True
    text: Any = request.get("text")
    shapes = [request.get("response_format"), request.get("output_format")]
    if isinstance(text, dict):
        shapes.append(text.get("format"))
    return any(_kind(shape) not in (None, "text") for shape in shapes)


def _must_call_tool(request: Body) -> bool:
    if not request.get("tools"):
        return False
    choice = request.get("tool_choice")
    kind = _kind(choice) if isinstance(choice, dict) else choice
    return kind not in (None, "auto", "none")


def _kind(shape: object) -> object:
    return shape.get("type") if isinstance(shape, dict) else shape


def _fills_in(request: Body) -> bool:
    return any(
        request.get(name) for name in ("echo", "suffix", "input_suffix", "input_prefix")
    )


def _own_continuation(request: Body) -> bool:
    return request.get("continue_final_message", True) is not True


_REASONS: dict[str, Callable[[Body], bool]] = {
    "it was to give several answers at once": _several_answers,
    "the request has several prompts": _several_prompts,
    "it was to give the probabilities of its tokens": _probabilities,
    "it was bound to a grammar or JSON schema, and stood somewhere inside": (
        _constrained
    ),
    "it was bound to call a tool": _must_call_tool,
    "it was to echo the prompt, or to fill in between two texts": _fills_in,
    "the request chose how to continue its last message": _own_continuation,
}


@dataclass(frozen=True)
class Resume:
    """Send `body` to another engine; what it streams goes through `splice`.

    `continues`: it begins with text of the answer, not with the question alone.
    `portable`: the body for servers of other programs, without the white space at the
    end of the text: some of them trim it, and so all of them write it again. None where
    only llama.cpp can go on.
    """

    body: bytes
    splice: Splice
    continues: bool
    portable: bytes | None = None
    space: str = ""

    def body_for(self, engine: EngineReport) -> bytes:
        """Return the body for an engine."""
        if is_foreign(engine) and self.portable is not None:
            return portable_body(self.portable, engine, {})
        model = called(engine) if engine.kind == "server" else engine.variant
        return edited(self.body, put={"model": model})

    def reader_for(self, observer: StreamObserver, engine: EngineReport) -> Splice:
        """Return the reader of that engine's stream, which reports to `observer`."""
        splice = self.splice
        splice.observer = observer
        if is_foreign(engine):
            splice.source = ServerEvents(hides_usage=not splice.dialect.wants_usage)
            splice.space = self.space
        return splice


def is_foreign(engine: EngineReport) -> bool:
    """Whether it is no llama.cpp."""
    return engine.kind == "server" and not profile_of(engine).llama_cpp


@dataclass(frozen=True)
class Finish:
    """The answer lacks only these bytes; no engine is needed."""

    tail: bytes


@dataclass(frozen=True)
class RefuseResume:
    """The answer cannot be continued; the half sentence says why."""

    reason: str


ResumePlan = Resume | Finish | RefuseResume


def resume(
    body: bytes,
    route: openai.Route,
    given: Iterable[bytes],
    *,
    prompt_tokens: int | None = None,
) -> ResumePlan:
    """Decide how to go on after the client has got these bytes.

    `body` is the request as it would go to an engine, `given` the answer's body so
    far; a partial event at its end does not count. `prompt_tokens`: the length of the
    prompt, where the lost engine reported it (`prompt_progress`); it makes the counts
    exact.
    """
    try:
        request = openai.fields(body)
        dialect = _dialect(route, request)
        transcript = read_transcript(dialect, EventReader().feed(b"".join(given)))
        _check(transcript, request)
        return _decide(request, dialect, transcript, prompt_tokens)
    except (CannotResume, BadRequest) as error:
        return RefuseResume(str(error))


def _dialect(route: openai.Route, request: dict[str, Any]) -> Dialect:
    dialect = DIALECTS[route.dialect]
    if not dialect.streams:
        raise CannotResume(f"answers of {route.path} cannot be continued")
    return dialect(request)


def _check(transcript: Transcript, request: dict[str, Any]) -> None:
    if transcript.ended:
        return
    reason = why_not(request)
    if reason is not None:
        raise CannotResume(reason)
    if transcript.tool:
        raise CannotResume("it had begun to call a tool")
    if transcript.text.rfind("<think>") > transcript.text.rfind("</think>"):
        raise CannotResume("it was still reasoning")
    if transcript.reasoning and not transcript.text:
        raise CannotResume("it was still reasoning")
    if transcript.text.endswith("\N{REPLACEMENT CHARACTER}"):
        raise CannotResume("its text ends in bytes that are no character")


def _decide(
    request: dict[str, Any],
    dialect: Dialect,
    transcript: Transcript,
    prompt: int | None,
) -> Resume | Finish:
    limit = _limit(request, dialect.budgets)
    known = prompt if transcript.prompt is None else transcript.prompt
    count = TokenCount(transcript.tokens, known, limit, most=transcript.most_tokens)
    if transcript.ended:
        return Finish(b"" if transcript.closed else dialect.closing_events(transcript))
    if limit is not None and transcript.begun and transcript.tokens >= limit:
        return Finish(dialect.end_events(transcript, count))
    onward = _onward(request, dialect, transcript, limit)
    portable, space = _portable(request, dialect, transcript, limit)
    # Both let the splice count exactly; it takes them out again.
    onward |= {"return_progress": True, "timings_per_token": True}
    per_token = bool(request.get("timings_per_token"))
    splice = Splice(dialect, transcript, count, per_token, begun=True)
    body = msgspec.json.encode(onward)
    return Resume(body, splice, transcript.begun, portable, space)


def _onward(
    request: Body, dialect: Dialect, transcript: Transcript, limit: int | None
) -> Body:
    onward = dialect.continued(transcript) if transcript.begun else dict(request)
    if limit is not None:
        onward = {k: v for k, v in onward.items() if k not in dialect.budgets}
        onward[dialect.budgets[-1]] = limit - transcript.tokens
    return onward


def _portable(
    request: Body, dialect: Dialect, transcript: Transcript, limit: int | None
) -> tuple[bytes | None, str]:
    """Return the body for servers of other programs; see `Resume.portable`."""
    if transcript.reasoning:
        return None, ""  # each has a field of its own for it, or none
    text = transcript.text.rstrip()
    space = transcript.text[len(text) :]
    onward = _onward(request, dialect, replace(transcript, text=text), limit)
    last = dialect.budgets[-1] if dialect.budgets else ""
    if "max_completion_tokens" in request and "max_tokens" not in request:
        onward["max_completion_tokens"] = onward.pop(last)
    return msgspec.json.encode(onward), space


def _limit(request: dict[str, Any], names: tuple[str, ...]) -> int | None:
    for name in names:
        value = request.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value if value >= 0 else None
    return None
