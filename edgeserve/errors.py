"""Errors: all refusals, with their HTTP status, code and sentence.

EdgeserveError               what an HTTP client may see; status, code, envelope
├── BadRequest          400  the caller must change the request
├── Unauthorized        401  a token or key is missing or wrong
├── Forbidden           403  a web page of another site asks
├── UnknownModel        404  nothing in the fleet serves that model
│   └── NoneAsGood           no variant of it has the quality asked for
├── UnknownRoute        404  no such path
├── WrongMethod         405  that path answers other methods
├── TooSlow             408  the request did not come whole in time
├── TooLarge            413  the body is past the limit
├── UriTooLong          414  its path and query are past what llama.cpp takes
├── UnsupportedCoding   415  its body has a coding that is not decoded here
├── EndsEngines         422  engines die at this request
├── HeadTooLarge        431  the request's head is past the limit
├── FleetBusy           429  come back after `retry_after` seconds
├── NodeLost            502  a node went away before the answer was complete
│   └── NotReached           no connection to it came about
│       └── NoFiles     503  no free descriptor in this process
├── NoRoom              503  the memory for requests is used up
├── NoNode              503  no node can serve this now
├── Draining            503  this process is shutting down
├── TooLate             504  the caller's deadline, or ours, has passed
└── LoopDetected        508  balancers are servers of each other
CommandError                 what the person at the terminal sees; exit status: 2 for
│                            a wrong request, 1 where it cannot be done
├── SettingsError         2  a setting is wrong
└── EngineUnavailable     1  no llama.cpp can be run on this machine
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence


class EdgeserveError(Exception):
    """A refusal with an HTTP status and an OpenAI-shaped body.

    `kind` is OpenAI's `type`; where it is empty, the class's status decides.
    """

    status = 500
    code = "internal_error"
    kind = ""
    retry_after: int | None = None

    def envelope(self) -> dict[str, object]:
        """Return the content of the OpenAI error envelope."""
        ours = type(self).status >= 500
        usual = "server_error" if ours else "invalid_request_error"
        error = {"message": str(self), "type": self.kind or usual, "code": self.code}
        return {**error, "param": None}

    def body(self) -> bytes:
        """Render the OpenAI error envelope as UTF-8 JSON."""
        return json.dumps({"error": self.envelope()}).encode()

    def headers(self) -> dict[str, str]:
        """Return the headers of the answer: type, and when to try again."""
        fields = {"content-type": "application/json; charset=utf-8"}
        if self.retry_after is not None:
            fields["retry-after"] = str(self.retry_after)
        return fields


class BadRequest(EdgeserveError):
    """The caller must change the request."""

    status = 400
    code = "bad_request"


class Unauthorized(EdgeserveError):
    """A token or key is missing or wrong."""

    status = 401
    code = "unauthorized"
    kind = "authentication_error"


class Forbidden(EdgeserveError):
    """The request comes from a web page of another site."""

    status = 403
    code = "forbidden"
    kind = "permission_error"

    def __init__(self, site: str) -> None:
        super().__init__(
            f"a web page of {site} may not ask here while no key or token is asked for;"
            " set one up, and send it along"
        )


class UnknownModel(EdgeserveError):
    """Nothing in the fleet serves the model; the message lists what is served."""

    status = 404
    code = "model_not_found"

    def __init__(self, model: str, known: Sequence[str], what: str = "") -> None:
        there = ", ".join(known) if known else "nothing yet"
        what = what or f"no node serves {model!r}"
        super().__init__(f"{what}; being served: {there}")
        self.model, self.known = model, known


class NoneAsGood(UnknownModel):
    """No variant of the model has the quality asked for, even counting failed ones."""

    def __init__(self, model: str, floor: str, variants: Sequence[str]) -> None:
        of = f"variant of {model!r}" if model else "model"
        super().__init__(model, variants, f"no {of} is as good as {floor}")


class UnknownRoute(EdgeserveError):
    """No such path here."""

    status = 404
    code = "not_found"

    def __init__(self, method: str, path: str, hint: str) -> None:
        super().__init__(f"nothing answers {method} {path}; {hint}")


class WrongMethod(EdgeserveError):
    """The path is right, the method is not."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, method: str, path: str, allowed: Iterable[str]) -> None:
        self.allowed = ", ".join(sorted(allowed))
        super().__init__(f"{path} answers {self.allowed}, not {method}")

    def headers(self) -> dict[str, str]:
        """Add the methods that are allowed, as HTTP demands."""
        return {**super().headers(), "allow": self.allowed}


class TooSlow(EdgeserveError):
    """The request did not arrive completely in time."""

    status = 408
    code = "request_timeout"

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"the request made no headway for {seconds:g} s; send it again, faster"
        )


class TooLarge(EdgeserveError):
    """The request body is past the limit."""

    status = 413
    code = "request_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"the request body is larger than {limit / 2**20:g} MiB; send less,"
            " or raise `body_limit_mib`"
        )


class UriTooLong(EdgeserveError):
    """The path and query of a request are past the limit."""

    status = 414
    code = "uri_too_long"

    def __init__(self, limit: int) -> None:
        super().__init__(f"path and query exceed {limit} bytes; use the body")


class UnsupportedCoding(EdgeserveError):
    """The body has a content coding that is not decoded here."""

    status = 415
    code = "unsupported_content_encoding"

    def __init__(self, coding: str, known: Sequence[str]) -> None:
        self._known = ", ".join(known)
        super().__init__(
            f"a body in Content-Encoding {coding[:80]!r} cannot be read here; send it"
            f" as it is, or in one of: {self._known}"
        )

    def headers(self) -> dict[str, str]:
        """Add the codings that are decoded."""
        return {**super().headers(), "accept-encoding": self._known}


class EndsEngines(EdgeserveError):
    """Two engines died at this request; no third one gets it."""

    status = 422
    code = "request_ends_engines"

    def __init__(self, seconds: float, why: str = "") -> None:
        reason = f" ({why})" if why else ""
        super().__init__(
            f"two engines ended while they worked on this request{reason}; it is tried"
            f" on no other, and refused for {seconds / 60:g} minutes: change it, most"
            " likely its grammar, schema, sampling or length"
        )


class HeadTooLarge(EdgeserveError):
    """The request's line and header fields are past the limit."""

    status = 431
    code = "head_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"the request's header fields are larger than {limit} bytes; send fewer"
        )


class NoRoom(EdgeserveError):
    """The memory for requests is used up."""

    status = 503
    code = "no_room"
    retry_after = 2


class FleetBusy(EdgeserveError):
    """Every slot is taken and the queue is full."""

    status = 429
    code = "fleet_busy"
    kind = "rate_limit_error"

    def __init__(self, retry_after: int, why: str = "every slot is busy") -> None:
        super().__init__(f"{why}; come back in {retry_after} s")
        self.retry_after = retry_after
        self.why = why


class NodeLost(EdgeserveError):
    """A node went away, or broke the protocol, before the answer was complete."""

    status = 502
    code = "node_lost"


class NotReached(NodeLost):
    """No connection to a node could be made."""


class NotProven(NotReached):
    """The other side did not prove that it belongs to the fleet, or is another node."""


class NoFiles(NotReached):
    """This process has no free descriptor for a connection to a node."""

    status = 503
    code = "no_room"
    retry_after = 2


class NoNode(EdgeserveError):
    """No node can serve this now; that may change."""

    status = 503
    code = "no_node"
    retry_after = 5


class Draining(EdgeserveError):
    """This process is shutting down: running requests end, new ones are refused."""

    status = 503
    code = "draining"
    retry_after = 2

    def __init__(self, process: str = "node") -> None:
        super().__init__(f"this {process} is shutting down; try another")


class TooLate(EdgeserveError):
    """A deadline has passed: the caller's, or the limit on waiting."""

    status = 504
    code = "deadline_exceeded"


class LoopDetected(EdgeserveError):
    """A request came back to a balancer that had sent it to another one."""

    status = 508
    code = "loop_detected"


def in_words(error: BaseException) -> str:
    """Return an error's text, without the number and the file name of an OSError."""
    reason = error.strerror if isinstance(error, OSError) else None
    return reason or str(error) or type(error).__name__


class CommandError(Exception):
    """One sentence for the person at the terminal."""

    exit_status = 1


class SettingsError(CommandError):
    """A setting is wrong; the sentence names it, its value and where it came from."""

    exit_status = 2


class EngineUnavailable(CommandError):
    """No llama.cpp can be run on this machine; the sentence says what to install."""
