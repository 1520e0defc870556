"""Dialects: one file for each API format, and the registry by route. Pure.

Which keys a streamed answer lacks, and which it has more, was read in llama.cpp's
`server-task.cpp` and is held against the real engine by the tests.
"""

from __future__ import annotations

from balancer.dialects.base import Aggregate
from balancer.dialects.chat import ChatAggregate
from balancer.dialects.completion import CompletionAggregate
from balancer.dialects.messages import MessagesAggregate
from balancer.dialects.native import NativeAggregate
from balancer.dialects.responses import ResponsesAggregate
from edgeserve.openai import Dialect


def of(dialect: Dialect) -> Aggregate:
    """Return an empty aggregate; `plain` never streams."""
    match dialect:
        case "chat":
            return ChatAggregate()
        case "completion":
            return CompletionAggregate()
        case "native":
            return NativeAggregate()
        case "responses":
            return ResponsesAggregate()
        case "messages":
            return MessagesAggregate()
        case "plain":
            raise ValueError("a plain answer does not stream")
