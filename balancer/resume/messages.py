"""`/v1/messages`: the text goes on as the trailing assistant message."""

from __future__ import annotations

from typing import Any

from balancer.resume.chat import lengthened, spoken
from balancer.resume.dialect import Heard, Said, Unfit
from balancer.resume.envelope import whole
from balancer.resume.frames import written
from balancer.resume.tally import Tally

_TAIL = ("content_block_stop", "message_delta", "message_stop")


class Messages:
    """Anthropic's stream for one request."""

    budgets = ("max_tokens",)
    answers = 1

    def __init__(self, request: dict[str, Any]) -> None:
        self._request = request

    def hear(self, event: dict[str, Any]) -> Heard:
        """Read one event by its type."""
        match event:
            case {"type": "message_start", "message": {"usage": dict(usage)}}:
                parts = ("input_tokens", "cache_read_input_tokens")
                prompt = sum(whole(usage.get(part)) or 0 for part in parts)
                return Heard(opening="message", prompt=prompt)
            case {"type": "content_block_start", "content_block": dict(block)}:
                kind = str(block.get("type"))
                tool = kind == "tool_use"
                return Heard(opening=None if tool else kind, tool=tool)
            case {"type": "content_block_delta", "delta": dict(delta)}:
                return _heard(delta)
            case {"type": "message_delta", "usage": dict(usage)}:
                tokens = whole(usage.get("output_tokens"))
                return Heard(opening="end", tokens=tokens, last=True)
            case _:
                return Heard(last=event.get("type") in _TAIL)

    def closes(self, event: dict[str, Any]) -> bool:
        """Say whether the message stops."""
        return event.get("type") == "message_stop"

    def continued(self, said: Said) -> dict[str, Any]:
        """Lengthen the trailing assistant message, or add one."""
        messages = self._request.get("messages")
        if not isinstance(messages, list) or not messages:
            raise Unfit("the request has no messages")
        if self._request.get("tools"):
            # llama-server numbers a tool's block as if the text before were not there.
            raise Unfit(
                "it may call a tool, whose block another engine would misnumber"
            )
        if said.reasoning:
            raise Unfit("it had reasoned before")
        last: Any = messages[-1]
        if isinstance(last, dict) and last.get("role") == "assistant":
            messages, last = messages[:-1], lengthened(last, said)
        else:
            last = spoken(said)
        return {**self._request, "messages": [*messages, last]}

    def adopt(self, event: dict[str, Any], said: Said, tally: Tally) -> None:
        """Complete the counts; there is one block, and it has the same number."""
        del said
        if isinstance(event.get("usage"), dict):
            event["usage"] = {**event["usage"], "output_tokens": tally.total}

    def ending(self, said: Said, tally: Tally) -> bytes:
        """Close the block, give the reason and the count, and stop."""
        del said
        delta = {"stop_reason": "max_tokens", "stop_sequence": None}
        block = {"type": "content_block_stop", "index": 0}
        usage = {"output_tokens": tally.total}
        end = {"type": "message_delta", "delta": delta, "usage": usage}
        return (
            written(block, "content_block_stop")
            + written(end, "message_delta")
            + self._stop()
        )

    def closing(self, said: Said) -> bytes:
        """Write the event that stops, if the reason is out."""
        if "end" not in said.openings:
            raise Unfit("it broke off among its last events")
        return self._stop()

    def _stop(self) -> bytes:
        return written({"type": "message_stop"}, "message_stop")


def _heard(delta: dict[str, Any]) -> Heard:
    text, thought = delta.get("text") or "", delta.get("thinking") or ""
    return Heard(
        text=text,
        reasoning=thought,
        tool="partial_json" in delta,
        step=bool(text or thought),
        last="signature" in delta,
    )
