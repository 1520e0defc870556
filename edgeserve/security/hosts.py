"""Host names: by which names a port without keys answers.

A web page may be loaded from a name that its owner then points to an address of this
network (DNS rebinding). To a browser, our answers are that page's own, whose GETs carry
no Origin. Such a request still has the foreign name in its Host field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address

from edgeserve.errors import EdgeserveError

REMEMBERED = 64
"""Values of Host known to be right, so that most requests cost one look."""

LONGEST = 300


class Misdirected(EdgeserveError):
    """The request is for another host; a browser may have been led here."""

    status = 421
    code = "misdirected_request"
    kind = "invalid_request_error"

    def __init__(self, host: str) -> None:
        super().__init__(
            f"{host[:80]!r} is no name of this machine; use its address, or name it"
            " with --allowed-host"
        )


class HostCheck:
    """Checks the Host field where `applies` says so.

    Addresses always pass: a page cannot be loaded from one of ours.
    """

    def __init__(self, names: Iterable[str], applies: Callable[[], bool]) -> None:
        self._names = frozenset(each.lower().rstrip(".") for each in names)
        self._applies = applies
        self._right: set[str] = set()

    def __call__(self, headers: Mapping[str, str]) -> None:
        """Raise Misdirected for another's name. HTTP/1.0 may have none."""
        host = headers.get("host", "")
        if host in self._right or not (host and self._applies()):
            return
        if not self._is_ours(host):
            raise Misdirected(host)
        if len(self._right) < REMEMBERED:
            self._right.add(host)

    def _is_ours(self, host: str) -> bool:
        if len(host) > LONGEST:
            return False
        name = name_in(host)
        return name in self._names or _is_address(name)


def name_in(host: str) -> str:
    """Return the name or address of a Host field, in lower case, without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
