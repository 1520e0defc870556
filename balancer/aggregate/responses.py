"""/v1/responses: the last event holds everything but three keys."""

from __future__ import annotations

from typing import Any

from balancer.aggregate.answer import Incomplete, Json, data_of, encoded
from balancer.sse import Event


class Responses:
    """The response of `response.completed`, with what the streamed form leaves out."""

    def __init__(self) -> None:
        self._response: Json | None = None

    def add(self, event: Event) -> None:
        """See `Aggregate.add`."""
        data = data_of(event)
        if data and data.get("type") == "response.completed":
            self._response = data["response"]

    def body(self) -> bytes:
        """See `Aggregate.body`."""
        if self._response is None:
            raise Incomplete
        output: list[Any] = self._response["output"]
        return encoded(
            {
                "completed_at": self._response["created_at"],
                **self._response,
                "output": [{"status": "completed", **item} for item in output],
            }
        )
