"""Endpoint client: sends a command's requests to a balancer, with http.client."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

from edgeserve.errors import CommandError, SettingsError, in_words
from edgeserve.terminal import Entry, Row, print_table

DEFAULT_URL = "http://127.0.0.1:8080"
ANSWER_SECONDS = 20.0
"""Time limit of a table's request. Completions have none."""


class NoAnswer(CommandError):
    """The endpoint cannot be reached, refused, or is no balancer."""


@dataclass(frozen=True)
class Endpoint:
    """A balancer's address, and the API key to send."""

    url: str
    api_key: str | None = None

    def get(self, path: str) -> Any:
        """Return the JSON at `path`. Raises NoAnswer."""
        with self._response("GET", path, None, ANSWER_SECONDS) as response:
            return self._json(response.read())

    def post(self, path: str, body: Any) -> Generator[bytes]:
        """Yield the answer line by line as it comes; closing cancels it.

        Raises NoAnswer, also where the answer breaks off.
        """
        with self._response("POST", path, body, None) as response:
            while line := response.readline():
                yield line

    @contextmanager
    def _response(
        self, method: str, path: str, body: Any, seconds: float | None
    ) -> Generator[http.client.HTTPResponse]:
        parts, plain = urlsplit(self.url), http.client.HTTPConnection
        kind = http.client.HTTPSConnection if parts.scheme == "https" else plain
        connection = kind(parts.netloc, timeout=seconds)
        content = None if body is None else _utf8(json.dumps(body, ensure_ascii=False))
        try:
            connection.request(method, parts.path + path, content, self._headers())
            response = connection.getresponse()
            if response.status != http.client.OK:
                raise NoAnswer(self._refusal(response))
            yield response
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(
                f"nothing answers at {self.url} ({in_words(error)});"
                " `edgeserve up` or `edgeserve balancer start` serves there,"
                " --url names another place"
            ) from error
        finally:
            connection.close()

    def _headers(self) -> Mapping[str, str]:
        headers = {"content-type": "application/json"}
        if self.api_key:
            headers["authorization"] = f"Bearer {self.api_key}"
        return headers

    def _refusal(self, response: http.client.HTTPResponse) -> str:
        envelope = self._json(response.read())
        try:
            reason = str(envelope["error"]["message"])
        except (KeyError, TypeError):
            reason = response.reason
        if response.status == http.client.UNAUTHORIZED:
            reason += "; --api-key-file names a file with a key"
        return f"{self.url} answers {response.status}: {reason}"

    def _json(self, content: bytes) -> Any:
        try:
            return json.loads(content)
        except ValueError as error:
            raise NoAnswer(
                f"{self.url} is not an edgeserve balancer: its answer is not JSON"
            ) from error


def _utf8(text: str) -> bytes:
    """Encode text; bytes that the locale could not decode are sent unchanged."""
    return text.encode(errors="surrogateescape").decode(errors="replace").encode()


F = TypeVar("F", bound=Callable[..., Any])


def endpoint_options(command: F) -> F:
    """Add `--url` and `--api-key-file`, which `endpoint` takes."""
    command = click.option(
        "--api-key-file",
        envvar="EDGESERVE_API_KEY_FILE",
        show_envvar=True,
        type=click.Path(path_type=Path),
        help="File with an API key; not needed on the balancer's own machine.",
    )(command)
    return click.option(
        "--url",
        default=DEFAULT_URL,
        envvar="EDGESERVE_URL",
        show_default=True,
        show_envvar=True,
        help="URL of the balancer.",
    )(command)


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print what the balancer answered."
)


def endpoint(url: str, api_key_file: Path | None) -> Endpoint:
    """Turn the options into an endpoint.

    The key in this machine's own folder is sent to this machine only.
    Raises SettingsError for what is no URL, or no key file.
    """
    # Imported here: both would slow down `--help`.
    from edgeserve.security.tokens import is_loopback, read_api_keys

    try:
        parts = urlsplit(url.rstrip("/").removesuffix("/v1"))
        _ = parts.port
    except ValueError as error:
        raise SettingsError(f"--url is {url!r}, which is no URL: {error}") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise SettingsError(f"--url is {url!r}: must be like {DEFAULT_URL}")
    ours = api_key_file is not None or is_loopback(parts.hostname)
    keys = read_api_keys(api_key_file) if ours else ()
    return Endpoint(parts.geturl(), keys[0] if keys else None)


@contextmanager
def understood(url: str) -> Generator[None]:
    """Raise NoAnswer where the block finds another shape of answer than it expects."""
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        raise NoAnswer(
            f"{url} answers, but not like an edgeserve balancer of this version"
        ) from error


def show(
    url: str,
    found: Any,
    heads: Row,
    rows: Callable[[Any], Sequence[Row | Entry]],
    otherwise: str,
    *,
    as_json: bool,
) -> None:
    """Print an answer as JSON or as a table; `otherwise` where it has no rows."""
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    with understood(url):
        shaped = rows(found)
    if shaped:
        print_table(heads, shaped)
    else:
        click.echo(otherwise, err=True)


def chatting(models: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of the models that chat."""
    return [
        str(model["id"])
        for model in models
        if "chat" in model.get("abilities", ("chat",))
    ]
