"""Say which variables look like settings and are none."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator

import click

from edgeserve.config import BalancerSettings, NodeSettings, SharedSettings
from edgeserve.environment import strays, variables

OTHERS = (
    "EDGESERVE_CONFIG_DIR",
    "EDGESERVE_MODELS_DIR",
    "EDGESERVE_URL",
    "EDGESERVE_API_KEY_FILE",
)
"""Variables that are no setting of node or balancer."""


def warn_of_strays() -> None:
    """Warn the person at the terminal, a line each.

    They are taken out of our environment, so that child processes need not warn again.
    """
    for variable, meant in list(strays(os.environ, set(_known()))):
        hint = f"did you mean {' or '.join(meant)}?" if meant else LIST
        click.echo(f"edgeserve: {variable} means nothing here; {hint}", err=True)
        del os.environ[variable]


LIST = "`edgeserve config example` lists the settings"


def _known() -> Iterator[str]:
    yield from OTHERS
    shared = _names(SharedSettings)
    for shape in (NodeSettings, BalancerSettings):
        yield from variables(shape.SECTION, shared=shared, own=_names(shape))


def _names(shape: type[SharedSettings]) -> set[str]:
    return {each.name for each in dataclasses.fields(shape)}
