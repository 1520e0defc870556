"""Whether a greedy text is one that the model writes: a judge that asks the model.

Two greedy runs may part where two tokens are nearly as likely: whether prompts are read
in one batch or another rounds otherwise. From there on the texts differ, and comparing
says nothing more. So wherever a text leaves the expected one, the model is asked how
likely that very token was, and what it would have written after it. A text that lost
or repeats something at a seam goes on with a token that the model finds unlikely.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.endpoint.conftest import MODEL
from tests.endpoint.faults.answers import Answer, Question

TIE = 1.0
"""Nats between two tokens that rounding may exchange."""


@dataclass(frozen=True)
class Verdict:
    """How often a text left what the model writes, and by how many nats at most.

    `at` is the text up to a parting that no rounding explains, empty if there is none.
    """

    partings: int
    widest: float
    at: str = ""


async def judged(
    session: aiohttp.ClientSession, answer: Answer, expected: str
) -> Verdict:
    """Follow a text to its end, parting by parting."""
    text, partings, widest = answer.text, 0, 0.0
    prompt = await _prompt(session, answer.question)
    pieces = _pieces(answer)
    while not expected.startswith(text):
        agreed = _agreed(pieces, text, expected)
        found = await _nearest(session, prompt, agreed, text)
        partings, widest = partings + 1, max(widest, found.distance)
        before = "".join(agreed)
        if found.distance > TIE:
            rest = text[len(before) :]
            return Verdict(partings, widest, f"{before[-40:]!r} came {rest[:40]!r}")
        left = max(1, len(text) - len(before))  # no token is shorter than a character
        context = [*found.context, found.token]
        body = {"prompt": context, "n_predict": min(answer.question.tokens, left)}
        goes_on: str = (await _post(session, "/completion", body))["content"]
        expected = before + found.token + goes_on
        # A word may be several tokens: the one that is explained is a piece by itself,
        # so that each round explains more than the one before.
        pieces = _cut(pieces, len(agreed), len(found.token))
    return Verdict(partings, widest)


def _cut(pieces: Sequence[str], first: int, length: int) -> list[str]:
    """The same text, in which a piece of that length follows the first so many."""
    rest = list(pieces[first:])
    token = ""
    while rest and len(token) < length:
        piece, missing = rest.pop(0), length - len(token)
        token += piece[:missing]
        if piece[missing:]:
            rest.insert(0, piece[missing:])
    return [*pieces[:first], token, *rest]


def _pieces(answer: Answer) -> list[str]:
    """The tokens of a stream; of other answers words, and line feeds by themselves."""
    if answer.question.streams:
        return answer.pieces
    return re.findall(r"\n|[^\S\n]*[^\s]+|[^\S\n]+", answer.text)


async def _prompt(session: aiohttp.ClientSession, question: Question) -> str:
    body = {"messages": question.body["messages"]}
    prompt: str = (await _post(session, "/apply-template", body))["prompt"]
    return prompt


def _agreed(pieces: Sequence[str], text: str, expected: str) -> list[str]:
    """The longest run of whole pieces that both begin with."""
    agreed, end = 0, 0
    for piece in pieces:
        end += len(piece)
        if not expected.startswith(text[:end]):
            break
        agreed += 1
    return list(pieces[:agreed])


@dataclass(frozen=True)
class Next:
    """The token that came, how far from the likeliest it was, and after what."""

    context: list[int | str]
    token: str
    distance: float


async def _nearest(
    session: aiohttp.ClientSession, prompt: str, agreed: list[str], text: str
) -> Next:
    """Look at what may have stood before the next token, until one explains it.

    What was carried over a seam was read as a text, and what followed was written token
    by token; two line feeds are one token or two. Where the seam was is not known.
    """
    rest = text[len("".join(agreed)) :]
    best = Next([], "", float("inf"))
    for seam in (len(agreed), *range(len(agreed))):
        # A list with a number in it is one prompt; each text in it is read by itself.
        read = await _tokens(session, prompt + "".join(agreed[:seam]))
        found = await _next(session, [*read, *agreed[seam:]], rest)
        best = min(best, found, key=lambda each: each.distance)
        if best.distance <= TIE:
            break
    return best


async def _tokens(session: aiohttp.ClientSession, text: str) -> list[int]:
    body = {"content": text, "add_special": True, "parse_special": True}
    tokens: list[int] = (await _post(session, "/tokenize", body))["tokens"]
    return tokens


async def _next(
    session: aiohttp.ClientSession, context: list[int | str], rest: str
) -> Next:
    body = {"prompt": context, "n_predict": 1, "n_probs": 40}
    said = await _post(session, "/completion", body)
    tops = said["completion_probabilities"][0]["top_logprobs"]
    # These are looked at before the end is forbidden, which has no text of its own.
    allowed = [e for e in tops if e["token"] and not e["token"].startswith("<|")]
    most = max(each["logprob"] for each in allowed)
    came = [each for each in allowed if rest.startswith(each["token"])]
    if not came:
        return Next(context, rest[:1], float("inf"))
    # One may be the beginning of another: of those that are likely, the whole word.
    close = [each for each in came if most - each["logprob"] <= TIE]
    likeliest = max(came, key=lambda each: each["logprob"])
    found = max(close, key=lambda each: len(each["token"]), default=likeliest)
    return Next(context, found["token"], most - found["logprob"])


async def _post(
    session: aiohttp.ClientSession, path: str, body: dict[str, Any]
) -> dict[str, Any]:
    greedy = {"model": MODEL, "temperature": 0, "ignore_eos": True}
    async with session.post(path, json=greedy | body) as response:
        said: dict[str, Any] = await response.json()
        assert response.status == 200, said
        return said
