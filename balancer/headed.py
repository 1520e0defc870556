"""A stream of `/v1/messages` has a head, also where llama.cpp forgets it. Pure.

It sends `message_start` along with its first token's text. Where that token is but a
part of a letter, as with most emoji, there is no text yet, and the event never comes:
Anthropic's clients then give up on the answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from balancer.request import Work
from balancer.resume.frames import written
from balancer.stream import Listener

NAME = "message_start"
MARK = f"event: {NAME}\n".encode()


def listener(work: Work, id_: str, model: str) -> Listener:
    """Follow an answer of `model`; `id_` names one that has no name of its own.

    What is put together here needs a head that counts the prompt, and is asked again.
    """
    if work.dialect != "messages" or work.mode != "stream":
        return Listener(
            work.dialect,
            hides=not work.tells,
            answers=work.answers,
            filtered=work.filtered,
        )
    return Headed("messages", hides=not work.tells, id=id_, model=model)


@dataclass(slots=True)
class Headed(Listener):
    """Puts the head in front where content begins without one."""

    id: str = ""
    model: str = ""

    def feed(self, piece: bytes) -> bytes:
        """See `Listener.feed`."""
        begun = self.begun
        ready = Listener.feed(self, piece)
        if begun or not self.begun or MARK in ready:
            return ready
        return self._head() + ready

    def _head(self) -> bytes:
        # How long the prompt was, llama.cpp says in no other event.
        message: dict[str, object] = {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": self.model,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }
        return written({"type": NAME, "message": message}, NAME)
