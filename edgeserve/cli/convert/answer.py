"""Answer check: a converted model must load, tokenize, fill its template and answer."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from edgeserve.cli.convert.original import HARD
from edgeserve.config.settings import LOOPBACK
from edgeserve.errors import CommandError, NodeLost
from edgeserve.http import upstream
from edgeserve.http.types import Origin
from edgeserve.models.facts import ModelFacts
from edgeserve.runtime.tasks import first_of
from edgeserve.security.tokens import new_secret
from edgeserve.wire import Launch
from node.engines.base import Engine, EngineSpec
from node.engines.output import ending
from node.engines.probe import Probe, Unwell
from node.engines.process import Process, free_port, running
from node.hardware.limits import cpus
from node.models.library import role_of

T = TypeVar("T")

Sentences = tuple[str, str]
"""What was found about the tokens, and what the model answers."""

TEMPLATE = "tokenizer.chat_template"
"""Key of the metadata that has it."""

TEXT = "The sky is blue, and 2 + 2 = 4."
ANSWER_TOKENS = 16
CONTEXT = 512
READY_SECONDS = 0.1

CHECK_SECONDS = 900.0
"""Time to load and answer; 15 GB from a memory card take some minutes."""

ADVICE = "--no-check leaves this check out"


class WrongAnswer(CommandError):
    """The converted model does not work; the message says what it did."""


def checked_by_answer(
    engine: Engine, facts: ModelFacts, state_dir: Path, original: list[int] | None
) -> Sentences:
    """Return what the model says, or is. Raises WrongAnswer.

    `original`: the tokens of HARD by the original tokenizer, where they are known.
    """
    return asyncio.run(_checked(engine, facts, state_dir, original))


async def _checked(
    engine: Engine, facts: ModelFacts, state_dir: Path, original: list[int] | None
) -> Sentences:
    port, key = free_port(), new_secret("convert")
    command = engine.command(_spec(facts), port=port, api_key=key)
    try:
        async with (
            asyncio.timeout(CHECK_SECONDS),
            upstream(connect_seconds=CHECK_SECONDS) as ask,
            running(command, state_dir) as process,
        ):
            probe = Probe(ask, Origin(LOOPBACK, port), key)
            return await first_of(_ended(process), _asked(probe, facts, original))
    except TimeoutError:
        raise WrongAnswer(
            f"the converted model gave no answer in {CHECK_SECONDS:g} s; {ADVICE}"
        ) from None
    except (OSError, Unwell, NodeLost) as error:
        raise WrongAnswer(f"the converted model fails: {error}") from error


def _spec(facts: ModelFacts) -> EngineSpec:
    context = min(CONTEXT, facts.context or CONTEXT)
    launch = Launch(slots=1, context=context, batch=128, threads=max(1, int(cpus())))
    return EngineSpec(
        id="converted",
        model="converted",
        variant="converted",
        path=facts.path,
        role=role_of(facts),
        abilities=(),
        launch=launch,
    )


async def _ended(process: Process) -> Sentences:
    status = await process.ended()
    raise WrongAnswer(
        f"the engine cannot run the model: {ending(status, process.output.lines)}"
    )


async def _asked(
    probe: Probe, facts: ModelFacts, original: list[int] | None
) -> Sentences:
    while not await probe.healthy():  # noqa: ASYNC110 - another process has no event
        await asyncio.sleep(READY_SECONDS)
    role = role_of(facts)
    if role != "generate":
        await probe.first_work(role)
        return await _compared(probe, original), f"it answers as a model for {role}"
    await _tokenizes(probe)
    return await _compared(probe, original), await _says(probe, facts)


async def _says(probe: Probe, facts: ModelFacts) -> str:
    if TEMPLATE not in facts.metadata:
        body = {"prompt": TEXT, "n_predict": ANSWER_TOKENS, "temperature": 0}
        written = await _ask(probe, "/completion", body, _Completion)
        return f"it has no chat template, and continues with {written.content!r}"
    await _fills_template(probe)
    body = {"messages": _MESSAGES, "max_tokens": ANSWER_TOKENS, "temperature": 0}
    answer = await _ask(probe, "/v1/chat/completions", body, _Chat)
    message = answer.choices[0].message if answer.choices else _Message()
    return f"it answers {(message.content or message.reasoning_content)!r}"


async def _compared(probe: Probe, original: list[int] | None) -> str:
    """Say whether the tokens are the original's; no error, as libraries differ, too."""
    if original is None:
        return "its tokens could not be compared with the original tokenizer's"
    body = {"content": HARD, "add_special": False, "parse_special": False}
    tokens = (await _ask(probe, "/tokenize", body, _Tokens)).tokens
    if tokens == original:
        return "its tokens are the original tokenizer's"
    return (
        f"beware: it makes other tokens than the original tokenizer ({len(tokens)}"
        f" instead of {len(original)} of a test text), so answers may be worse"
    )


async def _tokenizes(probe: Probe) -> None:
    """Whether plain text comes back from its tokens; a wrong vocabulary mangles it."""
    tokens = (await _ask(probe, "/tokenize", {"content": TEXT}, _Tokens)).tokens
    back = (await _ask(probe, "/detokenize", {"tokens": tokens}, _Completion)).content
    if back.strip() != TEXT:
        raise WrongAnswer(
            f"the tokenizer came out wrong: of {TEXT!r} it makes {back!r}; {ADVICE}"
        )


async def _fills_template(probe: Probe) -> None:
    body = {"messages": _MESSAGES}
    prompt = (await _ask(probe, "/apply-template", body, _Prompt)).prompt
    if TEXT not in prompt:
        raise WrongAnswer(
            f"the chat template loses the message: it makes {prompt[:200]!r}; {ADVICE}"
        )


async def _ask(probe: Probe, path: str, body: dict[str, Any], shape: type[T]) -> T:
    status, content = await probe.ask("POST", path, msgspec.json.encode(body))
    try:
        return msgspec.json.decode(content, type=shape)
    except msgspec.DecodeError:
        text = content[:300].decode(errors="replace")
        raise WrongAnswer(
            f"the converted model answers {path} with {status}: {text}"
        ) from None


_MESSAGES = [{"role": "user", "content": TEXT}]


class _Tokens(msgspec.Struct):
    tokens: list[int]


class _Completion(msgspec.Struct):
    content: str


class _Prompt(msgspec.Struct):
    prompt: str


class _Message(msgspec.Struct):
    content: str | None = ""
    reasoning_content: str | None = ""


class _Choice(msgspec.Struct):
    message: _Message


class _Chat(msgspec.Struct):
    choices: list[_Choice]
