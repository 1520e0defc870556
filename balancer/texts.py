"""Finds the prompt in the body of a request, whatever its dialect. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from balancer.prefix import Prompt, chain


class _Message(msgspec.Struct):
    """One chat message; what we do not look into stays raw."""

    role: str = ""
    content: msgspec.Raw = msgspec.Raw()
    reasoning_content: msgspec.Raw = msgspec.Raw()
    tool_calls: msgspec.Raw = msgspec.Raw()
    tool_call_id: msgspec.Raw = msgspec.Raw()

    def text(self) -> bytes:
        """The parts a template would render, apart from one another."""
        if not self.tool_calls and not self.reasoning_content:
            return self.role.encode() + b"\x1f" + bytes(self.content)
        return b"\x1f".join(
            (
                self.role.encode(),
                self.content,
                self.reasoning_content,
                self.tool_calls,
                self.tool_call_id,
            )
        )


class _Body(msgspec.Struct):
    """The request fields that become the prompt, over all dialects."""

    tools: msgspec.Raw = msgspec.Raw()
    system: msgspec.Raw = msgspec.Raw()
    instructions: msgspec.Raw = msgspec.Raw()
    messages: list[_Message] = []
    prompt: msgspec.Raw = msgspec.Raw()
    input: list[msgspec.Raw] | str = ""
    input_prefix: msgspec.Raw = msgspec.Raw()
    input_suffix: msgspec.Raw = msgspec.Raw()


_body = msgspec.json.Decoder(_Body)


def read(body: bytes, key: bytes = b"") -> Prompt:
    """Find the prompt in a request body; a body we cannot read is one opaque text."""
    try:
        asked = _body.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return chain((body,), key)
    return chain(_parts(asked), key)


def _parts(asked: _Body) -> Iterator[bytes]:
    opening = bytes(asked.tools) + bytes(asked.system) + bytes(asked.instructions)
    if opening:
        yield opening
    for message in asked.messages:
        yield message.text()
    if isinstance(asked.input, str):
        yield asked.input.encode()
    else:
        for item in asked.input:
            yield bytes(item)
    # /infill sends the text after the cursor first, as the model expects it.
    yield bytes(asked.input_suffix) + bytes(asked.input_prefix) + bytes(asked.prompt)
