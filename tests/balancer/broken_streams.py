"""Streams as llama-server writes them, to be broken off anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

DONE = b"data: [DONE]\n\n"


def sse(data: object, name: str = "") -> bytes:
    line = b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"
    return f"event: {name}\n".encode() + line if name else line


def data_of(stream: bytes) -> list[dict[str, Any]]:
    """Every event's data, `[DONE]` and comments left out."""
    lines = [line for line in stream.split(b"\n") if line.startswith(b"data: {")]
    return [json.loads(line.removeprefix(b"data: ")) for line in lines]


def text_of(stream: bytes) -> str:
    """The text that a client would put together, in any dialect."""
    return "".join(_text(each) for each in data_of(stream))


def _text(each: dict[str, Any]) -> str:
    match each:
        case {"choices": [{"delta": {"content": str(text)}}]}:
            return text
        case {"choices": [{"text": str(text)}]} | {"content": str(text)}:
            return text
        case {"type": "response.output_text.delta", "delta": str(text)}:
            return text
        case {"delta": {"text": str(text)}}:
            return text
        case _:
            return ""


def first(stream: bytes, count: int) -> bytes:
    """The first events of a stream."""
    return b"".join(each + b"\n\n" for each in stream.split(b"\n\n")[:count])


def timings(prompt: int, predicted: int) -> dict[str, float]:
    return {
        "cache_n": 0,
        "prompt_n": prompt,
        "prompt_ms": 5.0 * prompt,
        "prompt_per_token_ms": 5.0,
        "prompt_per_second": 200.0,
        "predicted_n": predicted,
        "predicted_ms": 20.0 * predicted,
        "predicted_per_token_ms": 20.0,
        "predicted_per_second": 50.0,
    }


def usage(prompt: int, completion: int) -> dict[str, Any]:
    return {
        "completion_tokens": completion,
        "prompt_tokens": prompt,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def _pairs(
    *pairs: tuple[str, dict[str, Any]],
) -> tuple[tuple[str, dict[str, Any]], ...]:
    return pairs


@dataclass(frozen=True)
class Engine:
    """Writes streams under its own name. Each piece of text is one token."""

    name: str = "a"
    prompt: int = 10
    finish: str = "stop"

    def chat(
        self,
        pieces: Sequence[str],
        *,
        sizes: Sequence[int] | None = None,
        mending: bool = False,
    ) -> bytes:
        """`mending`: as asked for by a resumed request; `sizes`: tokens per piece."""
        sizes = sizes or [1] * len(pieces)
        role = {"role": "assistant", "content": None}
        progress = {"total": self.prompt, "cache": 0, "processed": self.prompt}
        out = [self._chunk(role, prompt_progress=progress)] if mending else []
        out.append(self._chunk(role))
        done = 0
        for piece, size in zip(pieces, sizes, strict=True):
            done += size
            chunk = self._chunk({"content": piece})
            out.append(
                chunk | ({"timings": timings(self.prompt, done)} if mending else {})
            )
        out.append(self._chunk({}, finish=self.finish))
        end = self._chunk({}, timings=timings(self.prompt, done))
        end |= {"choices": [], "usage": usage(self.prompt, done)}
        return b"".join(map(sse, [*out, end])) + DONE

    def _chunk(
        self, delta: dict[str, Any], *, finish: str | None = None, **more: object
    ) -> dict[str, Any]:
        choice = {"finish_reason": finish, "index": 0, "delta": delta}
        return {"choices": [choice], **self._names("chat.completion.chunk"), **more}

    def _names(self, shape: str) -> dict[str, Any]:
        return {
            "created": ord(self.name[0]),
            "id": f"chatcmpl-{self.name}",
            "model": f"model-{self.name}",
            "system_fingerprint": f"build-{self.name}",
            "object": shape,
        }

    def completion(self, pieces: Sequence[str]) -> bytes:
        def chunk(text: str, finish: str | None) -> dict[str, Any]:
            choice = {"text": text, "index": 0, "logprobs": None}
            return {
                "choices": [{**choice, "finish_reason": finish}],
                **self._names("text_completion"),
            }

        count = len(pieces)
        end = chunk("", self.finish)
        end |= {"usage": usage(self.prompt, count)}
        end |= {"timings": timings(self.prompt, count)}
        return b"".join(sse(chunk(each, None)) for each in pieces) + sse(end) + DONE

    def native(
        self, pieces: Sequence[str], ids: Sequence[int], counts: Iterable[int] = ()
    ) -> bytes:
        """`counts`: tokens so far at each piece, where it is not one each."""
        counts = list(counts) or list(range(1, len(pieces) + 1))
        common = {"index": 0, "tokens_evaluated": self.prompt}
        out = [
            sse({**common, "content": piece, "tokens": [token], "stop": False}
                | {"id_slot": -1, "tokens_predicted": count})
            for piece, token, count in zip(pieces, ids, counts, strict=True)
        ]  # fmt: skip
        predicted = counts[-1] if counts else 0
        end = {**common, "content": "", "tokens": [], "stop": True, "id_slot": 0}
        end |= {"tokens_predicted": predicted, "prompt": "Once"}
        end |= {"generation_settings": {"n_predict": 3, "max_tokens": 3}}
        end |= {"timings": timings(self.prompt, predicted), "stop_type": "eos"}
        return b"".join(out) + sse(end)

    def messages(self, pieces: Sequence[str]) -> bytes:
        counts = {"cache_read_input_tokens": 0, "input_tokens": self.prompt}
        message = {"id": f"msg-{self.name}", "usage": {**counts, "output_tokens": 0}}
        block = {"type": "text", "text": ""}
        stop = {"stop_reason": "end_turn", "stop_sequence": None}
        return b"".join(
            sse({"type": kind, **rest}, kind)
            for kind, rest in _pairs(
                ("message_start", {"message": message}),
                ("content_block_start", {"index": 0, "content_block": block}),
                *(
                    (
                        "content_block_delta",
                        {"index": 0, "delta": {"type": "text_delta", "text": piece}},
                    )
                    for piece in pieces
                ),
                ("content_block_stop", {"index": 0}),
                (
                    "message_delta",
                    {"delta": stop, "usage": {"output_tokens": len(pieces)}},
                ),
                ("message_stop", {}),
            )
        )

    def responses(self, pieces: Sequence[str], before: str = "") -> bytes:
        """`before`: text of the assistant that the request ended in."""
        name, item_id = f"resp-{self.name}", f"msg-{self.name}"
        whole = before + "".join(pieces)
        item = {"id": item_id, "role": "assistant", "type": "message"}
        content = {"content": [{"type": "output_text", "text": whole}]}
        counts = {"input_tokens": self.prompt, "output_tokens": len(pieces)}
        counts["total_tokens"] = self.prompt + len(pieces)
        response = {"id": name, "output": [{**item, **content}], "usage": counts}
        about = {"item_id": item_id}
        return b"".join(
            sse({"type": f"response.{kind}", **rest}, f"response.{kind}")
            for kind, rest in _pairs(
                ("created", {"response": {"id": name}}),
                ("in_progress", {"response": {"id": name}}),
                ("output_item.added", {"item": {**item, "content": []}}),
                ("content_part.added", {**about, "part": {}}),
                *(("output_text.delta", {**about, "delta": each}) for each in pieces),
                ("output_text.done", {**about, "text": whole}),
                ("content_part.done", {**about, "part": {"text": whole}}),
                ("output_item.done", {"item": {**item, **content}}),
                ("completed", {"response": response}),
            )
        )
