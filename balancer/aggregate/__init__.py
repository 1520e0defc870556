"""From a stream back to the one body that llama.cpp would have sent without it. Pure.

Which keys a streamed answer lacks, and which it has more, was read in llama.cpp's
`server-task.cpp` and is held against the real engine by the tests.
"""

from __future__ import annotations

from balancer.aggregate.answer import Aggregate
from balancer.aggregate.chat import Chat
from balancer.aggregate.completion import Completion
from balancer.aggregate.messages import Messages
from balancer.aggregate.native import Native
from balancer.aggregate.responses import Responses
from edgeserve.openai import Dialect


def of(dialect: Dialect) -> Aggregate:
    """Return an empty aggregate; `plain` never streams."""
    match dialect:
        case "chat":
            return Chat()
        case "completion":
            return Completion()
        case "native":
            return Native()
        case "responses":
            return Responses()
        case "messages":
            return Messages()
        case "plain":
            raise ValueError("a plain answer does not stream")
