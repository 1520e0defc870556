"""Decide how a broken stream goes on: on another engine, as it is, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from balancer.resume.chat import Chat
from balancer.resume.completion import Completion
from balancer.resume.dialect import Dialect, Said, Unfit, listen
from balancer.resume.frames import events, whole_events
from balancer.resume.messages import Messages
from balancer.resume.native import Native
from balancer.resume.refusal import why_not
from balancer.resume.responses import Responses
from balancer.resume.splice import Splice
from balancer.resume.tally import Tally
from edgeserve import openai
from edgeserve.errors import BadRequest

_DIALECTS: dict[str, Callable[[dict[str, Any]], Dialect]] = {
    "chat": Chat,
    "completion": Completion,
    "native": Native,
    "messages": Messages,
    "responses": Responses,
}


@dataclass(frozen=True)
class Resume:
    """Send `body` to another engine; what it streams goes through `splice`."""

    body: bytes
    splice: Splice


@dataclass(frozen=True)
class Finish:
    """The answer was complete but for these bytes; no engine is needed."""

    tail: bytes


@dataclass(frozen=True)
class Refuse:
    """The answer cannot be continued; the half sentence says why."""

    reason: str


def resume(
    body: bytes,
    route: openai.Route,
    given: Iterable[bytes],
    *,
    prompt_tokens: int | None = None,
    template_refuses: bool = False,
) -> Resume | Finish | Refuse:
    """Decide how to go on after the client has been given these bytes.

    `body` is the request as it would go to an engine, `given` the answer's body so
    far, whole events only (`whole_events`); of a partial event at the end nothing is
    counted as given. `prompt_tokens`: the length of the prompt, where the lost engine
    told (`prompt_progress`); it makes the counts exact. `template_refuses`: engines of
    this model are known to turn down a trailing assistant message.
    """
    try:
        request = openai.fields(body)
        dialect = _dialect(route, request)
        said = listen(dialect, events(whole_events(b"".join(given))[0]))
        _check(said, request, template_refuses=template_refuses)
        return _decide(request, dialect, said, prompt_tokens)
    except (Unfit, BadRequest) as error:
        return Refuse(str(error))


def _dialect(route: openai.Route, request: dict[str, Any]) -> Dialect:
    if route.dialect not in _DIALECTS:
        raise Unfit(f"answers of {route.path} cannot be continued")
    return _DIALECTS[route.dialect](request)


def _check(said: Said, request: dict[str, Any], *, template_refuses: bool) -> None:
    if said.ended:
        return
    reason = why_not(request)
    if reason is not None:
        raise Unfit(reason)
    if said.tool:
        raise Unfit("it had begun to call a tool")
    if said.text.rfind("<think>") > said.text.rfind("</think>"):
        raise Unfit("it was still reasoning")
    if said.reasoning and not said.text:
        raise Unfit("it was still reasoning")
    if said.text.endswith("\N{REPLACEMENT CHARACTER}"):
        raise Unfit("its text ends in bytes that are no character")
    if template_refuses and said.begun:
        raise Unfit("the model's chat template refuses to continue a message")


def _decide(
    request: dict[str, Any], dialect: Dialect, said: Said, prompt: int | None
) -> Resume | Finish:
    limit = _limit(request, dialect.budgets)
    known = prompt if said.prompt is None else said.prompt
    tally = Tally(said.tokens, known, limit, most=said.most_tokens)
    if said.ended:
        return Finish(b"" if said.closed else dialect.closing(said))
    if limit is not None and said.begun and said.tokens >= limit:
        return Finish(dialect.ending(said, tally))
    onward = dialect.continued(said) if said.begun else dict(request)
    if limit is not None:
        onward = {k: v for k, v in onward.items() if k not in dialect.budgets}
        onward[dialect.budgets[-1]] = limit - said.tokens
    # Both let the splice count exactly; it takes them out again.
    onward |= {"return_progress": True, "timings_per_token": True}
    splice = Splice(
        dialect, said, tally, timings=bool(request.get("timings_per_token"))
    )
    return Resume(msgspec.json.encode(onward), splice)


def _limit(request: dict[str, Any], names: tuple[str, ...]) -> int | None:
    for name in names:
        value = request.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value if value >= 0 else None
    return None
