"""Node answers: what a node says to an order, or why it refuses it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TypeVar

from edgeserve.errors import BadRequest, EdgeserveError, NodeLost
from edgeserve.http.types import Answer
from edgeserve.openai import code, message, retry_after
from edgeserve.wire import decode

T = TypeVar("T")


class OrderRefused(EdgeserveError):
    """A node refuses an order; status, code and `sentence` are the node's."""

    status = 409
    code = "order_refused"
    kind = "invalid_request_error"

    def __init__(
        self,
        node: str,
        sentence: str,
        *,
        status: int = status,
        code: str = code,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(f"{node}: {sentence}" if node else sentence)
        self.sentence = sentence
        self.status, self.code, self.retry_after = status, code, retry_after

    def but(self, what: str) -> OrderRefused:
        """Return the same with what has been done nevertheless."""
        return OrderRefused("", f"{self}; {what}", status=self.status, code=self.code)


async def told(
    answering: AbstractAsyncContextManager[Answer], node: str, shape: type[T]
) -> T:
    """Return what a node answers to an order, which takes as long as it takes.

    `node` is its name. Raises OrderRefused, NodeLost.
    """
    async with answering as answer:
        body = await answer.read()
    if answer.status // 100 != 2:
        raise _refusal(node, answer, body)
    try:
        return decode(body, shape)
    except BadRequest as error:
        raise NodeLost(f"{node} answers an order with what is {error}") from error


def _refusal(node: str, answer: Answer, body: bytes) -> OrderRefused:
    return OrderRefused(
        node,
        message(body),
        status=answer.status,
        code=code(body) or OrderRefused.code,
        retry_after=retry_after(answer.headers),
    )
