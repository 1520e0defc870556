"""Endpoint client: sends a command's requests to a balancer, with http.client."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

from edgeserve.errors import CommandError, in_words
from edgeserve.help import under
from edgeserve.security.verified import Verified
from edgeserve.terminal import Entry, Row, print_table

DEFAULT_URL = "http://127.0.0.1:8080"
KEY_BYTES = 1024
ANSWER_SECONDS = 20.0
"""Time limit of a table's request. Completions have none."""


class NoAnswer(CommandError):
    """The endpoint cannot be reached, refused, or is no balancer."""


class Refusal(NoAnswer):
    """The endpoint refused, with this HTTP status."""

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class Endpoint:
    """A balancer's address, and the API key to send."""

    url: str
    api_key: str | None = None
    key_file: Path | None = None
    """Where a balancer on this machine leaves a key for commands, at each start."""
    fingerprint: str = ""
    """Of the certificate that the server must have; "": any that is trusted."""
    own: str = ""
    """Of a certificate that is trusted as well: this machine made it."""

    def get(self, path: str) -> Any:
        """Return the JSON at `path`. Raises NoAnswer."""
        with self._response("GET", path, None, ANSWER_SECONDS) as response:
            return self._json(response.read())

    def tell(self, path: str, body: Any) -> Any:
        """Post JSON, and return the JSON that is answered. Raises NoAnswer."""
        with self._response("POST", path, body, ANSWER_SECONDS) as response:
            return self._json(response.read())

    def change(self, method: str, path: str, body: Any = None) -> Any:
        """Send JSON by PUT or DELETE; return the JSON that is answered."""
        with self._response(method, path, body, ANSWER_SECONDS) as response:
            return self._json(response.read())

    def post(self, path: str, body: Any) -> Generator[bytes]:
        """Yield the answer line by line as it comes; closing cancels it.

        Raises NoAnswer, also where the answer breaks off.
        """
        with self._response("POST", path, body, None) as response:
            while line := response.readline():
                yield line

    def exchange(
        self, method: str, path: str, body: Any, seconds: float
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers and body, whatever the status. Raises NoAnswer."""
        with self._opened(method, path, body, seconds) as response:
            return response.status, dict(response.headers), response.read()

    @contextmanager
    def _response(
        self, method: str, path: str, body: Any, seconds: float | None
    ) -> Generator[http.client.HTTPResponse]:
        with self._opened(method, path, body, seconds) as response:
            if response.status // 100 != 2:
                raise self._refusal(response)
            yield response

    @contextmanager
    def _opened(
        self, method: str, path: str, body: Any, seconds: float | None
    ) -> Generator[http.client.HTTPResponse]:
        parts = urlsplit(self.url)
        connection = self._connection(parts.scheme, parts.netloc, seconds)
        content = None if body is None else _utf8(json.dumps(body, ensure_ascii=False))
        try:
            connection.request(method, parts.path + path, content, self.headers())
            yield connection.getresponse()
        except ssl.SSLCertVerificationError as error:
            raise NoAnswer(self._untrusted(connection, error)) from error
        except ssl.SSLError as error:
            plain = self.url.replace("https:", "http:", 1)
            raise NoAnswer(
                f"{self.url} does not speak TLS ({error.reason}); try --url {plain}"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(
                f"nothing answers at {self.url} ({in_words(error)});"
                " `edgeserve up` or `edgeserve balancer start` serves there,"
                " --url names another place, `edgeserve doctor` finds what is wrong"
            ) from error
        finally:
            connection.close()

    def _connection(
        self, scheme: str, netloc: str, seconds: float | None
    ) -> http.client.HTTPConnection:
        if scheme == "http":
            return http.client.HTTPConnection(netloc, timeout=seconds)
        return Verified(netloc, seconds, self.fingerprint, self.own)

    def _untrusted(
        self,
        connection: http.client.HTTPConnection,
        error: ssl.SSLCertVerificationError,
    ) -> str:
        from edgeserve.security.certificates import shown

        seen = shown(connection.seen) if isinstance(connection, Verified) else ""
        if self.fingerprint:
            return f"{self.url} has another certificate than expected: {seen}"
        return (
            f"the certificate of {self.url} is not trusted here ({error.verify_message}"
            f"); where the balancer shows the same fingerprint at its start, add"
            f" --fingerprint {seen}"
        )

    def headers(self) -> Mapping[str, str]:
        """Return the headers of a request with JSON, and the key."""
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

    def _refusal(self, response: http.client.HTTPResponse) -> Refusal:
        envelope = self._json(response.read())
        try:
            reason = str(envelope["error"]["message"])
        except (KeyError, TypeError):
            reason = response.reason
        if response.status == http.client.UNAUTHORIZED:
            reason += "; --api-key-file names a file with a key"
        sentence = f"{self.url} answers {response.status}: {reason}"
        return Refusal(sentence, response.status)

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


FINGERPRINT = "edgeserve.fingerprint"


def _keep_fingerprint(
    context: click.Context, _: click.Parameter, value: str | None
) -> None:
    """Keep it for `endpoint`, in the form of `fingerprint_of`."""
    digits = (value or "").replace(":", "").strip().lower()
    if value and (len(digits) != 64 or set(digits) - set("0123456789abcdef")):
        raise click.BadParameter("must be the 64 hexadecimal digits that are shown")
    context.meta[FINGERPRINT] = digits


def endpoint_options(command: F) -> F:
    """Add `--url` and `--api-key-file`, which `endpoint` takes, and `--fingerprint`."""
    balancer = under("Balancer")
    command = balancer(
        "--fingerprint",
        envvar="EDGESERVE_FINGERPRINT",
        show_envvar=True,
        expose_value=False,
        callback=_keep_fingerprint,
        help="Fingerprint of the balancer's certificate, which it shows at its start.",
    )(command)
    command = balancer(
        "--api-key-file",
        envvar="EDGESERVE_API_KEY_FILE",
        show_envvar=True,
        type=click.Path(path_type=Path),
        help="File with an API key; not needed on the balancer's own machine.",
    )(command)
    return balancer(
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

    Without a key file, this machine gets the key that its balancer has left here, or
    the one in the configuration folder; others get none. Raises SettingsError.
    """
    # Imported here: it would slow down `--help`.
    from edgeserve.http.types import parts_of

    parts, port = parts_of(url)
    key, left = _key_for(parts.hostname or "", port, api_key_file)
    context = click.get_current_context(silent=True)
    fingerprint = context.meta.get(FINGERPRINT, "") if context else ""
    own = own_fingerprint() if parts.scheme == "https" and not fingerprint else ""
    return Endpoint(parts.geturl(), key, left, fingerprint, own)


def _key_for(
    host: str, port: int, api_key_file: Path | None
) -> tuple[str | None, Path | None]:
    """Return the key to send, or the file in which a balancer here has left one."""
    # Imported here: they would slow down `--help`.
    from edgeserve.cli.secrets import on_this_machine
    from edgeserve.config.paths import admin_key_file
    from edgeserve.security.tokens import read_api_keys

    if api_key_file is None:
        if not on_this_machine(host):
            return None, None
        left = admin_key_file(_balancers_folder(), port)
        if left.is_file():
            return None, left
    keys = read_api_keys(api_key_file)
    return (keys[0].value if keys else None), None


def own_fingerprint() -> str:
    """Return that of the certificate which a balancer here has made; "" without."""
    from edgeserve.config.paths import OWN_CERTIFICATE
    from edgeserve.security.certificates import stored_certificate

    own = stored_certificate(_balancers_folder() / OWN_CERTIFICATE)
    return own.fingerprint if own else ""


def _balancers_folder() -> Path:
    """Return the state folder of a balancer on this machine."""
    from edgeserve.config.settings import BalancerSettings
    from edgeserve.config.sources import resolve

    return resolve(BalancerSettings).settings.state_dir


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
