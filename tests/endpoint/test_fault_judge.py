from typing import Any, cast

import aiohttp
import pytest

from tests.endpoint.faults import judge
from tests.endpoint.faults.answers import Answer, Question

NEXT = {
    "": [" so", " don", " any", " anything"],
    " don": [" keys", "'t"],
    " don't": [" know", " see"],
    " anything": [" goes"],
}
"""A model in whose view each is a little likelier than the next."""


async def said(_: object, path: str, body: dict[str, Any]) -> dict[str, Any]:
    if path == "/apply-template":
        return {"prompt": "Q:"}
    if path == "/tokenize":
        return {"tokens": [body["content"].removeprefix("Q:")]}
    before = "".join(map(str, body["prompt"]))
    likely = NEXT.get(before, ["."])
    tops = [{"token": each, "logprob": -0.1 * n} for n, each in enumerate(likely)]
    return {"content": likely[0], "completion_probabilities": [{"top_logprobs": tops}]}


async def verdict(text: str, monkeypatch: pytest.MonkeyPatch) -> judge.Verdict:
    monkeypatch.setattr(judge, "_post", said)
    answer = Answer(Question("?", 8, streams=False))
    answer.pieces = [text]
    session = cast(aiohttp.ClientSession, None)
    return await judge.judged(session, answer, " so it is")


async def test_a_word_of_two_tokens_is_followed_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = await verdict(" don't know", monkeypatch)

    assert (found.at, found.partings) == ("", 2)


async def test_a_word_is_not_taken_for_another_that_it_begins_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert (await verdict(" anything goes", monkeypatch)).at == ""


async def test_a_word_that_the_model_would_never_write_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = await verdict(" don't don't know", monkeypatch)

    assert found.at
