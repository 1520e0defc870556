"""Welcome: what `edgeserve up` prints once it serves, with lines to paste."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeserve.cli.client import DEFAULT_URL
from edgeserve.cli.models.chatting import chatting

QUESTION = "Say hello."
LONGEST = 64
"""Longest answer, in tokens: so small a model may never end by itself."""


@dataclass(frozen=True, kw_only=True)
class Welcome:
    """An endpoint that serves; `command` is how this terminal calls edgeserve."""

    url: str
    models: Sequence[Mapping[str, Any]]
    command: str
    key_file: Path | None = None

    def text(self) -> str:
        """Lay the lines out."""
        names = ", ".join(str(model["id"]) for model in self.models)
        url = "" if self.url == DEFAULT_URL else f" --url {self.url}"
        return "\n".join(
            (
                f"Serving {names} at {self.url}",
                "",
                "Ask it from a terminal:",
                f"  {self.curl()}",
                "",
                "or from Python (pip install openai):",
                f"  {self.python()}",
                "",
                f"or talk to it: {self.command} chat{url}",
                "Ctrl-C stops it.",
            )
        )

    def curl(self) -> str:
        """One shell line that gets an answer."""
        line = "curl -sS"
        if self.key_file:
            # The key itself would stay in the shell's history.
            first_key = f"grep -v '^#' {shlex.quote(str(self.key_file))} | head -n1"
            line += f' -H "Authorization: Bearer $({first_key})"'
        model = self._chatting()
        if model is None:
            return f"{line} {self.url}/v1/models"
        body = json.dumps({"model": model, **_example_request()})
        rest = ["-H", "Content-Type: application/json", "-d", body]
        return f"{line} {self.url}/v1/chat/completions {shlex.join(rest)}"

    def python(self) -> str:
        """One Python line that prints an answer, through OpenAI's client."""
        key = '"none"'
        if self.key_file:
            lines = f"open({json.dumps(str(self.key_file))})"
            key = f'[line.strip() for line in {lines} if line[0] != "#"][0]'
        client = f'OpenAI(base_url="{self.url}/v1", api_key={key})'
        model = self._chatting()
        if model is None:
            return f"from openai import OpenAI; print({client}.models.list().data)"
        fields = {"model": model, **_example_request()}
        asked = ", ".join(f"{name}={value!r}" for name, value in fields.items())
        return (
            f"from openai import OpenAI; print({client}.chat.completions"
            f".create({asked}).choices[0].message.content)"
        )

    def _chatting(self) -> str | None:
        return next(iter(chatting(self.models)), None)


def _example_request() -> dict[str, Any]:
    messages = [{"role": "user", "content": QUESTION}]
    return {"messages": messages, "max_tokens": LONGEST, "temperature": 0}
