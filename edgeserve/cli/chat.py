"""`edgeserve chat`: the command for a conversation with a model."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import click

from edgeserve.cli.client import (
    Endpoint,
    NoAnswer,
    endpoint,
    endpoint_options,
)
from edgeserve.cli.models.chatting import chatting
from edgeserve.errors import SettingsError
from edgeserve.help import Command, examples
from edgeserve.suggestions import did_you_mean
from edgeserve.terminal import for_terminal

COMPLETIONS = "/v1/chat/completions"

CONTROLS = dict.fromkeys((*range(9), 11, 12, *range(14, 32), *range(127, 160)))
"""What a model must not send to a terminal: all control codes but tab and newlines."""

HELP = """\
/model        show the models, and which one answers
/model NAME   continue with another one
/clear        start a new conversation; --system stays
/help         show this
/exit         leave; so does Ctrl-D
//…           send a line that starts with a slash"""

WORDS = ("model", "clear", "help", "exit", "quit")

ESCAPE = "/help lists them; // at the start of a line sends it with one slash"

Message = dict[str, str]


@click.command(
    cls=Command,
    epilog=examples(
        ("edgeserve chat", "a conversation; Ctrl-C stops an answer, Ctrl-D leaves"),
        ('edgeserve chat "Why is the sky blue?"', "one question, one answer"),
        ("git diff | edgeserve chat 'Review this'", "with a text from a pipe"),
    ),
)
@click.argument("prompt", required=False)
@click.option("--model", help="Model to talk to; by default the first that chats.")
@click.option("--system", help="System prompt.")
@click.option("--max-tokens", type=click.IntRange(1), help="Longest answer, in tokens.")
@endpoint_options
def chat(
    prompt: str | None,
    model: str | None,
    system: str | None,
    max_tokens: int | None,
    url: str,
    api_key_file: Path | None,
) -> None:
    """Talk to the endpoint.

    Answers appear as they are written. With PROMPT, or text from a pipe, it answers
    once and ends. Without, it is a conversation, in which /help lists commands.
    """
    place = endpoint(url, api_key_file)
    options: dict[str, Any] = {"model": model or chatting_model(place), "stream": True}
    if max_tokens:
        options["max_tokens"] = max_tokens
    history: list[Message] = [message("system", system)] if system else []
    question = _given(prompt)
    if question is not None:
        history.append(message("user", question))
        _say(answer(place, options, history), [])
        return
    Talk(place, options, history).run()


def message(role: str, content: str) -> Message:
    """One turn of a conversation."""
    return {"role": role, "content": content}


def chatting_model(place: Endpoint) -> str:
    """Return the first model that chats. Raises NoAnswer where there is none."""
    there = chatting_models(place)
    if there:
        return there[0]
    raise NoAnswer(
        f"no model at {place.url} can chat yet; `edgeserve nodes` says what is there"
    )


def chatting_models(place: Endpoint) -> list[str]:
    """Return the names of all models that chat. Raises NoAnswer."""
    return chatting(place.get("/v1/models")["data"])


def answer(
    place: Endpoint, options: dict[str, Any], history: list[Message]
) -> Iterator[str]:
    """Yield the pieces of the model's next turn. Raises NoAnswer where it breaks."""
    with closing(place.post(COMPLETIONS, {**options, "messages": history})) as lines:
        yield from pieces(lines)


def pieces(lines: Iterable[bytes]) -> Iterator[str]:
    """Read text out of a chat stream. Raises NoAnswer on an error event, or no end.

    Reads to the end: closing at `[DONE]` may count as a cancelled request.
    """
    ended = False
    for line in lines:
        field, _, data = line.partition(b":")
        if field != b"data":
            continue
        if data.strip() == b"[DONE]":
            ended = True
            continue
        event = json.loads(data)
        if "error" in event:
            raise NoAnswer(f"the answer broke off: {event['error']['message']}")
        for choice in event["choices"]:
            yield choice["delta"].get("content") or ""
    if not ended:
        raise NoAnswer("the answer broke off before its end")


def _given(prompt: str | None) -> str | None:
    """Return the question: the prompt, then the text from a pipe.

    None where the terminal is interactive and there is no prompt.
    """
    interactive = sys.stdin is not None and sys.stdin.isatty()
    piped = "" if sys.stdin is None or interactive else sys.stdin.read().strip()
    question = "\n\n".join(part for part in (prompt, piped) if part)
    if not question and not (interactive and prompt is None):
        raise SettingsError("nothing is asked: PROMPT and the pipe are empty")
    return question or None


class Talk:
    """A conversation: the model, and the messages so far."""

    def __init__(
        self, place: Endpoint, options: dict[str, Any], history: list[Message]
    ) -> None:
        self._place = place
        self._options = options
        self._history = history

    def run(self) -> None:
        """Take turns until the end of input; an error ends one turn only."""
        with suppress(ImportError):
            importlib.import_module("readline")  # teaches `input` editing and history
        model = self._options["model"]
        click.echo(f"{model}; Ctrl-C stops an answer, /help lists commands", err=True)
        while (line := _question()) is not None:
            if not line.startswith("/") or line.startswith("//"):
                self.ask(line.removeprefix("/"))
            elif not self.obey(line):
                return

    def ask(self, question: str) -> None:
        """Take a turn; a failed one is not kept."""
        asked = [*self._history, message("user", question)]
        written: list[str] = []
        try:
            _say(answer(self._place, self._options, asked), written)
        except KeyboardInterrupt:
            click.echo(" …")
        except NoAnswer as error:
            _tell(f"edgeserve: {error}")
            return
        self._history = [*asked, message("assistant", "".join(written))]

    def obey(self, line: str) -> bool:
        """Run a command line, which starts with a slash; False to leave."""
        word, _, rest = line[1:].partition(" ")
        try:
            match word.lower():
                case "exit" | "quit" | "bye":
                    return False
                case "help" | "?":
                    _tell(HELP)
                case "clear":
                    system = [x for x in self._history if x["role"] == "system"]
                    self._history = system
                    _tell("a new conversation begins")
                case "model":
                    self._model(rest.strip())
                case _:
                    hint = did_you_mean(f"/{word}", [f"/{each}" for each in WORDS])
                    _tell(f"there is no command /{word}{hint}")
                    _tell(ESCAPE)
        except NoAnswer as error:
            _tell(f"edgeserve: {error}")
        return True

    def _model(self, name: str) -> None:
        """Show the models, or continue with another one. Raises NoAnswer."""
        there = chatting_models(self._place)
        if name in there:
            self._options = {**self._options, "model": name}
            _tell(f"continuing with {name}")
        elif name:
            _tell(f"no model {name!r} can chat here{did_you_mean(name, there)}")
        else:
            used = self._options["model"]
            for each in there:
                _tell(f"{'*' if each == used else ' '} {each}")


def _tell(line: str) -> None:
    click.echo(for_terminal(line.translate(CONTROLS)), err=True)


def _question() -> str | None:
    """Read one line that is not blank; None at the end of input."""
    try:
        while not (line := input("> ").strip()):
            pass
    except (EOFError, KeyboardInterrupt):
        click.echo()
        return None
    return line


def _say(parts: Iterable[str], written: list[str]) -> None:
    """Print an answer as it comes; `written` gets its pieces."""
    for part in parts:
        written.append(part)
        click.echo(part.translate(CONTROLS), nl=False)
    click.echo()
