"""Endpoint client: sends a command's requests to a balancer, with http.client."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

from edgeserve.errors import CommandError, SettingsError, in_words

DEFAULT_URL = "http://127.0.0.1:8080"
KEY_BYTES = 1024
ANSWER_SECONDS = 20.0
"""Time limit of a table's request. Completions have none."""


class NoAnswer(CommandError):
    """The endpoint cannot be reached, refused, or is no balancer."""


@dataclass(frozen=True)
class Endpoint:
    """A balancer's address, and the API key to send.

    `key_file` has the key of a balancer on this machine, which it writes at each start.
    """

    url: str
    api_key: str | None = None
    key_file: Path | None = None

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
        parts = urlsplit(self.url)
        connection = _connection(parts.scheme, parts.netloc, seconds)
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
        if key := self.api_key or self._left_here():
            headers["authorization"] = f"Bearer {key}"
        return headers

    def _left_here(self) -> str | None:
        """Read the key that a balancer has left for this machine, if it has."""
        from edgeserve.runtime.files import read_text

        if self.key_file is None:
            return None
        try:
            found = read_text(self.key_file, KEY_BYTES).strip()
        except OSError:
            return None
        return found if found.isascii() and found.isprintable() else None

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


def _connection(
    scheme: str, netloc: str, seconds: float | None
) -> http.client.HTTPConnection:
    if scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(netloc, timeout=seconds, context=context)
    return http.client.HTTPConnection(netloc, timeout=seconds)


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
        help="File with an API key; on the balancer's own machine not needed.",
    )(command)
    return click.option(
        "--url",
        default=DEFAULT_URL,
        envvar="EDGESERVE_URL",
        show_default=True,
        show_envvar=True,
        help="Where the balancer answers.",
    )(command)


def endpoint(url: str, api_key_file: Path | None) -> Endpoint:
    """Turn the options into an endpoint.

    Without a key file, this machine gets the key that its balancer has left here, or
    the one in the configuration folder; others get none.
    Raises SettingsError for what is no URL, or no key file.
    """
    # Imported here: they would slow down `--help`.
    from edgeserve.security.tokens import is_loopback, read_api_keys

    try:
        parts = urlsplit(url.rstrip("/").removesuffix("/v1"))
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise SettingsError(f"--url is {url!r}, which is no URL: {error}") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise SettingsError(f"--url is {url!r}: must be like {DEFAULT_URL}")
    if api_key_file is not None:
        return Endpoint(parts.geturl(), read_api_keys(api_key_file)[0])
    if not is_loopback(parts.hostname):
        return Endpoint(parts.geturl())
    left = _key_left(port)
    if left.is_file():
        return Endpoint(parts.geturl(), key_file=left)
    keys = read_api_keys(None)
    return Endpoint(parts.geturl(), keys[0] if keys else None)


def _key_left(port: int) -> Path:
    """Return where the balancer on `port` of this machine leaves a key for commands."""
    from edgeserve.config.paths import admin_key_file
    from edgeserve.config.settings import BalancerSettings
    from edgeserve.config.sources import resolve

    return admin_key_file(resolve(BalancerSettings).settings.state_dir, port)
