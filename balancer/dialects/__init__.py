"""Dialects: one file for each API format, and the table of them by name. Pure.

The keys that a streamed answer lacks, or has in addition, come from llama.cpp's
`server-task.cpp`; tests compare them with the real engine.
"""

from __future__ import annotations

from balancer.dialects.base import Dialect, Plain
from balancer.dialects.chat import Chat
from balancer.dialects.completion import Completion
from balancer.dialects.messages import Messages
from balancer.dialects.native import Native
from balancer.dialects.responses import Responses
from edgeserve.openai import DialectName

DIALECTS: dict[DialectName, type[Dialect]] = {
    "chat": Chat,
    "completion": Completion,
    "native": Native,
    "responses": Responses,
    "messages": Messages,
    "plain": Plain,  # type: ignore[type-abstract] # its class alone is used
}
