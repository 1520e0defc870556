"""The environment variables that are settings, and those that only look like it. Pure.

Kubernetes and docker put the addresses of services into the environment of whatever
runs beside them: one named `edgeserve-node` gives `EDGESERVE_NODE_PORT=tcp://…`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping

from edgeserve.settings_file import SECTIONS, Layer

PREFIX = "EDGESERVE_"

_SECTION = re.compile(rf"^(?:{'|'.join(SECTIONS).upper()})_")

_PROTOCOL = "(?:tcp|udp|sctp)"

_OF_A_SERVICE = re.compile(
    rf"_SERVICE_HOST=|_SERVICE_PORT(_\w+)?=|_PORT={_PROTOCOL}://"
    rf"|_PORT_\d+_{_PROTOCOL}(_PROTO|_PORT|_ADDR)?=|_NAME=/.*/|_ENV_\w+=",
    re.IGNORECASE,
)


def variables(
    section: str, *, shared: Collection[str], own: Collection[str]
) -> dict[str, str]:
    """Return variable → setting; the later wins."""
    # Not EDGESERVE_PORT: it would give node and balancer the same port.
    to_both = {f"{PREFIX}{name.upper()}": name for name in sorted(shared)}
    to_one = {f"{PREFIX}{section.upper()}_{name.upper()}": name for name in sorted(own)}
    return to_both | to_one


def environment_layers(
    environ: Mapping[str, str], known: Mapping[str, str]
) -> list[Layer]:
    """Return what the environment says, a layer for each of the `known` variables."""
    return [
        (f"environment {variable}", {name: environ[variable]})
        for variable, name in known.items()
        if variable in environ and not of_a_service(variable, environ[variable])
    ]


def of_a_service(variable: str, value: str) -> bool:
    """Whether Kubernetes or docker put it there, as the address of a service."""
    return _OF_A_SERVICE.search(f"{variable}={value}") is not None


def strays(
    environ: Mapping[str, str], known: Collection[str]
) -> Iterator[tuple[str, list[str]]]:
    """Yield the variables that look like ours but mean nothing, each with those meant.

    `known` are all that mean something, to whichever command.
    """
    for variable, value in sorted(environ.items()):
        ours = variable.startswith(PREFIX) and variable not in known
        if ours and not of_a_service(variable, value):
            yield variable, _meant(variable, known)


def _meant(variable: str, known: Collection[str]) -> list[str]:
    """The known ones nearest to it: of its own section, where that has one."""
    settings = sorted({_setting(each) for each in known})
    near = difflib.get_close_matches(_setting(variable), settings, n=1)
    alike = sorted(each for each in known if _setting(each) in near)
    section = variable.removesuffix(_setting(variable))
    return [each for each in alike if each.removesuffix(*near) == section] or alike


def _setting(variable: str) -> str:
    return _SECTION.sub("", variable.removeprefix(PREFIX))
