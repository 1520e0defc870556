"""The `edgeserve` command: lists all sub-commands and runs one.

A sub-command is imported when it is called, so that `--help` stays quick on a Pi.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

import click

from edgeserve import __version__
from edgeserve.errors import CommandError, in_words
from edgeserve.help import Group, examples
from edgeserve.terminal import for_terminal

BY_HEADING = {
    "Start here": {
        "up": (
            "edgeserve.cli.up.commands:up",
            "Serve on this machine, or with --lan the whole network.",
        ),
        "chat": (
            "edgeserve.cli.chat:chat",
            "Talk to the endpoint.",
        ),
        "advise": (
            "edgeserve.cli.advise.commands:advise",
            "Say which model and engine suit this machine, and why.",
        ),
    },
    "Machines": {
        "node": (
            "node.commands:node",
            "Run the agent on a machine that holds models.",
        ),
        "balancer": (
            "balancer.commands:balancer",
            "Run the endpoint that clients talk to.",
        ),
        "nodes": (
            "edgeserve.cli.fleet:nodes",
            "Show the fleet's nodes, and what each serves.",
        ),
        "join": (
            "edgeserve.cli.join:join",
            "Ask a balancer for the fleet token, on a new machine.",
        ),
        "servers": (
            "edgeserve.cli.servers.commands:servers",
            "Let servers of other programs serve in the fleet.",
        ),
        "service": (
            "edgeserve.cli.service.commands:service",
            "Keep node and balancer running, as services.",
        ),
    },
    "Models": {
        "pull": (
            "edgeserve.cli.models.pull:pull",
            "Fetch a model, here or on nodes of the fleet.",
        ),
        "models": (
            "edgeserve.cli.models.listing:models",
            "Show the models that can be called.",
        ),
        "route": (
            "edgeserve.cli.models.routes:route",
            "Let a name stand for several models, or for another name.",
        ),
    },
    "Access": {
        "token": (
            "edgeserve.cli.secrets:token",
            "Make, show and replace the secret that a fleet shares.",
        ),
        "key": (
            "edgeserve.cli.keys:key",
            "Make, list, limit and revoke the API keys of clients.",
        ),
        "usage": (
            "edgeserve.cli.fleet:usage",
            "Show the requests and tokens of each key, by model and day.",
        ),
    },
    "Troubleshooting": {
        "doctor": (
            "edgeserve.cli.doctor.commands:doctor",
            "Find what is wrong on this machine, and say what mends it.",
        ),
        "health": (
            "edgeserve.cli.service.health:health",
            "Ask the node or balancer that runs here whether it serves.",
        ),
        "requests": (
            "edgeserve.cli.requests:requests",
            "List the latest requests with predicted and actual times.",
        ),
        "why": (
            "edgeserve.cli.requests:why",
            "Explain why a request went where it went, and what happened there.",
        ),
        "config": (
            "edgeserve.cli.config:config",
            "Show the settings and where they come from.",
        ),
    },
    "Measure and tune": {
        "bench": (
            "edgeserve.cli.bench.commands:bench",
            "Measure how fast an endpoint answers, or two side by side.",
        ),
        "engine": (
            "node.engine_build.commands:engine",
            "Build llama.cpp for this machine's own processor and GPU.",
        ),
        "quantize": (
            "edgeserve.cli.convert.commands:quantize",
            "Make smaller variants of a model, and measure them.",
        ),
        "simulate": (
            "balancer.simulate.commands:simulate",
            "Try load-balancing policies on a fleet, in virtual time.",
        ),
    },
}
"""Headings of `edgeserve --help`, and the commands under each, in order of first use.

Name → where the command is, and its line there.
"""

COMMANDS = {name: found for row in BY_HEADING.values() for name, found in row.items()}


class Commands(Group):
    """A group that imports a sub-command only when it is needed."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import one sub-command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def line(self, ctx: click.Context, name: str) -> str:  # noqa: ARG002
        """Return the line without importing the sub-command."""
        return COMMANDS[name][1]


@click.group(
    cls=Commands,
    headings=BY_HEADING,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        ("edgeserve up", "serve on this machine alone"),
        ("edgeserve token new", "several: make a token, copy it to each machine"),
        ("edgeserve node start", "on each machine that holds models"),
        ("edgeserve balancer start", "on one of them; clients talk to this one"),
        ("edgeserve chat", "talk to it"),
    ),
)
@click.version_option(__version__, prog_name="edgeserve")
def edgeserve() -> None:
    """Turn the small machines you own into one OpenAI-compatible endpoint."""


WINDOWS = (
    "edgeserve: Windows itself is not supported; install EdgeServe in WSL 2: "
    "run `wsl --install`, then follow the README for Debian and Ubuntu there"
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; errors become one sentence and an exit status.

    So do faults of files and folders.
    """
    if sys.platform == "win32":
        sys.exit(WINDOWS)
    _replace_unencodable()
    try:
        edgeserve(arguments, prog_name="edgeserve")
    except (CommandError, OSError, ExceptionGroup) as error:
        sys.exit(_report(error))
    finally:
        _flush()


def _report(error: Exception) -> int:
    """Print an error, the first one of a group, and return the exit status."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    status = CommandError.exit_status
    match error:
        case CommandError():
            sentence, status = str(error), error.exit_status
        case OSError(filename=None):
            sentence = f"cannot continue: {in_words(error)}"
        case OSError():
            sentence = f"cannot use {error.filename}: {in_words(error)}"
        case _:
            raise error
    with suppress(OSError):
        click.echo(for_terminal(f"edgeserve: {sentence}"), err=True)
    return status


def _flush() -> None:
    """Drop output that cannot be written; otherwise Python prints an error at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _replace_unencodable() -> None:
    """Write `?` for letters that the terminal lacks; read any bytes from a pipe."""
    for stream, errors in (
        (sys.stdin, "surrogateescape"),
        (sys.stdout, "replace"),
        (sys.stderr, "replace"),
    ):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)
